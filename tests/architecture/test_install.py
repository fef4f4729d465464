"""What `make install` decides, with interpreters that only note what they are asked to do."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.repository import ROOT

# A Python that says its version, makes an environment with a copy of itself, and notes each call that changes something.
# A file `fail-<word>` beside the checkout makes calls with that word fail after they have begun.
_PYTHON: Final = """#!/bin/sh
case "$*" in
*version_info*) echo {version} ;;
*ensurepip*) exit {no_venv} ;;
*" check "*) ;;
*)
    echo "$*" >>{notes}
    if test "$2" = venv; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
    for word in venv requirements.lock editable; do
        case "$*" in *"$word"*) test ! -e {notes}-kills-$word || kill -9 $PPID ;; esac
        case "$*" in *"$word"*) test ! -e {notes}-fails-$word || exit 1 ;; esac
    done ;;
esac
"""
MADE: Final = ["venv", "packages", "project"]


class Checkout:
    """A checkout with nothing but what the script looks at, and the interpreters on its PATH."""

    def __init__(self, place: Path) -> None:
        self.place = place / "checkout"
        self.programs = place / "programs"
        self.notes = place / "notes"
        for name in ("deploy/x", "libs/x", "services/x"):
            (self.place / name).mkdir(parents=True)
            (self.place / name / "pyproject.toml").write_text(f"# {name}\n", encoding="utf-8")
        shutil.copy(ROOT / "deploy/install.sh", self.place / "deploy/install.sh")
        (self.place / "requirements.lock").write_text("one==1 \\\ntwo==2 \\\n", encoding="utf-8")
        self.programs.mkdir()
        self.said = ""

    def interpreter(self, name: str, version: str = "3.11", *, has_venv: bool = True) -> None:
        """Put an interpreter on the PATH."""
        text = _PYTHON.format(version=version, no_venv=int(not has_venv), notes=self.notes)
        path = self.programs / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def misfortune(self, what: str, word: str, *, ended: bool = False) -> None:
        """Let calls with the word fail, or kill the script ("fails", "kills"), until it is ended."""
        path = Path(f"{self.notes}-{what}-{word}")
        if ended:
            path.unlink()
        else:
            path.touch()

    def install(self, **environment: str) -> tuple[int, list[str]]:
        """Run the script: exit code, and what it had interpreters do; what it said is in `said`."""
        self.notes.write_text("", encoding="utf-8")
        ran = subprocess.run(
            ["sh", self.place / "deploy/install.sh"],
            env={"PATH": f"{self.programs}:{os.defpath}", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        self.said = ran.stdout + ran.stderr
        words = {"-m venv": "venv", "requirements.lock": "packages", "--editable": "project"}
        lines = self.notes.read_text(encoding="utf-8").splitlines()
        return ran.returncode, [says for line in lines for word, says in words.items() if word in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout on a machine with Python 3.11."""
    made = Checkout(tmp_path)
    made.interpreter("python3.11")
    return made


def test_first_run_says_each_step_with_its_time(checkout: Checkout) -> None:
    """Every step of the first run is one line: what is done, and how many seconds it took."""
    assert checkout.install() == (0, MADE)
    lines = checkout.said.splitlines()
    assert [line.split()[0] for line in lines] == ["making", "installing", "installing"]
    assert all(line.split(" … ")[1].removesuffix(" s").isdigit() for line in lines)
    assert "2 locked packages" in lines[1]


def test_second_run_is_silent(checkout: Checkout) -> None:
    """A whole environment is left alone, and nothing is said."""
    checkout.install()
    assert checkout.install() == (0, [])
    assert checkout.said == ""


@pytest.mark.parametrize("word", ["venv", "requirements.lock", "editable"])
@pytest.mark.parametrize("what", ["kills", "fails"])
def test_interrupted_installation_heals(checkout: Checkout, what: str, word: str) -> None:
    """Whatever step fails or is killed, the next run makes the environment anew."""
    checkout.misfortune(what, word)
    code, _ = checkout.install()
    assert code == (1 if what == "fails" else -signal.SIGKILL)
    checkout.misfortune(what, word, ended=True)
    assert checkout.install() == (0, MADE)
    assert checkout.install() == (0, [])


def test_environment_that_cannot_be_made_is_removed(checkout: Checkout) -> None:
    """When making the environment fails, nothing half-made stays."""
    checkout.misfortune("fails", "venv")
    assert checkout.install() == (1, ["venv"])
    assert not (checkout.place / ".venv").exists()


def test_half_an_environment_is_made_anew(checkout: Checkout) -> None:
    """An environment without the marker, such as one without pip that an earlier version left, does not count."""
    checkout.install()
    (checkout.place / ".venv/.whole").unlink()
    assert checkout.install() == (0, MADE)
    assert "is not whole" in checkout.said
    (checkout.place / ".venv/.whole").write_text("", encoding="utf-8")  # a disk that was full, a power cut
    assert checkout.install() == (0, MADE)


def test_interpreter_that_is_gone(checkout: Checkout) -> None:
    """After an upgrade of the system that removed the interpreter, or put another in its place, the environment is made anew."""
    checkout.install()
    (checkout.place / ".venv/bin/python").unlink()
    assert checkout.install() == (0, MADE)
    assert "its Python 3.11 is gone" in checkout.said
    checkout.interpreter("python3.11", "3.13")
    shutil.copy(checkout.programs / "python3.11", checkout.place / ".venv/bin/python")
    checkout.interpreter("python3.11")
    assert checkout.install() == (0, MADE)


def test_moved_checkout(checkout: Checkout) -> None:
    """A checkout that was moved or copied has scripts of another place; its environment is made anew."""
    checkout.install()
    before = checkout.place
    checkout.place = before.rename(before.with_name("moved to here"))
    assert checkout.install() == (0, MADE)
    assert f"the checkout was at {before}" in checkout.said
    assert checkout.install() == (0, [])


def test_new_lock_and_new_distribution(checkout: Checkout) -> None:
    """Another lock installs packages and project into the same environment; another pyproject.toml only the project."""
    checkout.install()
    (checkout.place / "requirements.lock").write_text("one==2 \\\n", encoding="utf-8")
    assert checkout.install() == (0, ["packages", "project"])
    (checkout.place / "libs/x/pyproject.toml").write_text("# more\n", encoding="utf-8")
    assert checkout.install() == (0, ["project"])
    (checkout.place / "services/y").mkdir()
    (checkout.place / "services/y/pyproject.toml").write_text("# y\n", encoding="utf-8")
    assert checkout.install() == (0, ["project"])


def test_debian_without_python3_venv(checkout: Checkout) -> None:
    """Without ensurepip the package to install is named, and no half environment is left."""
    checkout.interpreter("python3.11", has_venv=False)
    checkout.interpreter("python3")
    assert checkout.install() == (1, [])
    assert "apt-get install python3-venv" in checkout.said
    assert not (checkout.place / ".venv").exists()
    checkout.interpreter("python3", "3.12")  # the package of that name belongs to python3, not to the one we need
    assert checkout.install() == (1, [])
    assert "apt-get install python3.11-venv" in checkout.said


def test_interpreter_is_found(checkout: Checkout) -> None:
    """A python3 that is 3.11 will do; one that is not is named in the message, and so is a python3.11 that does not run."""
    checkout.interpreter("python3.11", "")  # as pyenv's shim of a version that is not switched on
    checkout.interpreter("python3", "3.12")
    assert checkout.install() == (1, [])
    assert "needs Python 3.11 (python3.11 does not run, python3 is 3.12)" in checkout.said
    assert "PYTHON=" in checkout.said
    checkout.interpreter("python3")
    assert checkout.install() == (0, MADE)
    assert "with python3 " in checkout.said


def test_interpreter_is_named(checkout: Checkout) -> None:
    """PYTHON wins, may be later than 3.11, and replaces an environment of another version; an older one is refused."""
    checkout.interpreter("later python", "3.12")
    checkout.interpreter("older", "3.9")
    named = str(checkout.programs / "later python")
    assert checkout.install() == (0, MADE)
    assert checkout.install(PYTHON=named) == (0, MADE)
    assert checkout.install(PYTHON=named) == (0, [])
    assert checkout.install() == (0, [])
    assert checkout.install(PYTHON="older") == (1, [])
    assert "older is 3.9" in checkout.said
    assert checkout.install() == (0, [])  # the refusal broke nothing
