"""Commands find the fleet that runs on this machine; the environment and the command line always win."""

import os
import shlex
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from habeas.cli.main import habeas
from habeas_embedded.env_file import FLEET, find_fleets, leave_fleet, source_line, write_env_file
from habeas_embedded.runs import Run

VALUES: Mapping[str, str] = {
    FLEET: "up",
    "HABEAS_ENVIRONMENT": "development",
    "HABEAS_KAFKA_BOOTSTRAP": "127.0.0.1:9",
    "HABEAS_OPERATOR_DATABASE_DSN": "postgresql://habeas_operator:hunter2@127.0.0.1:9/habeas",
    "HABEAS_KEK_FILE": "/run/fleet.kek",
}


@pytest.fixture(autouse=True)
def nothing_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment that names no fleet, restored afterwards whatever a command took over, and an empty home."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("HABEAS_")]:
        monkeypatch.delenv(name)
    os.environ["HABEAS_HOME"] = str(tmp_path)
    yield
    os.environ.clear()
    os.environ.update(before)


@contextmanager
def fleet(name: str = "up", **changed: str) -> Iterator[Path]:
    """A run that lives, with its file."""
    run = Run(name)
    try:
        yield write_env_file(run.directory, {**VALUES, FLEET: name, **changed})
    finally:
        run.close()


def status(*arguments: str, **env: str) -> Result:
    """Ask for a status; nobody answers at the address, so that where it was looked is in the answer."""
    return CliRunner().invoke(habeas, ["status", *arguments], env=env)


def test_running_fleet_is_found_and_named() -> None:
    """The fleet's own addresses are used, and standard error says whose they are."""
    with fleet() as file:
        result = status()
    assert result.exit_code == 1
    assert f"speaking to the local fleet up ({file.parent})" in result.stderr
    assert "HABEAS_OPERATOR_DATABASE_DSN: PostgreSQL at 127.0.0.1:9 refuses" in result.stderr
    assert os.environ["HABEAS_KAFKA_BOOTSTRAP"] == "127.0.0.1:9", "what comes later speaks to the same fleet"
    assert "hunter2" not in result.output


def test_kafka_of_the_running_fleet_is_found() -> None:
    """A request goes to it, in development."""
    with fleet():
        result = CliRunner().invoke(habeas, ["request", "submit", "access", "--account", "acc_1"])
    assert "speaking to the local fleet up" in result.stderr
    assert "HABEAS_KAFKA_BOOTSTRAP: 127.0.0.1:9 refuses the connection" in result.stderr


def test_fleet_that_has_ended_is_not_spoken_to() -> None:
    """Its file stays; nobody holds its run any more."""
    with fleet():
        pass
    result = status()
    assert (result.exit_code, "HABEAS_OPERATOR_DATABASE_DSN" in result.stderr) == (2, True)
    assert "speaking" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (("--dsn", "postgresql://a:b@127.0.0.1:7/habeas"), {}),
        ((), {"HABEAS_OPERATOR_DATABASE_DSN": "postgresql://a:b@127.0.0.1:7/habeas"}),
        (("--kafka", "127.0.0.1:7"), {}),
        ((), {"HABEAS_KAFKA_BOOTSTRAP": "127.0.0.1:7"}),
        ((), {"REQUEST_INTAKE_DATABASE_DSN": "postgresql://a:b@127.0.0.1:7/habeas"}),
        ((), {"HABEAS_ENVIRONMENT": "production"}),
    ],
)
def test_who_names_a_fleet_gets_no_part_of_another(arguments: tuple[str, ...], env: dict[str, str]) -> None:
    """One variable or option that says where is enough: nothing of the local fleet is mixed in."""
    with fleet():
        result = status(*arguments, **env)
    assert "speaking" not in result.stderr
    assert "127.0.0.1:9" not in result.output


def test_of_several_fleets_one_has_to_be_chosen() -> None:
    """Two that run: none is taken, both are named; the variable chooses."""
    with fleet(), fleet("other", HABEAS_OPERATOR_DATABASE_DSN="postgresql://a:b@127.0.0.1:7/habeas"):
        result = status()
        assert (result.exit_code, "several fleets run here (other, up)" in result.stderr) == (2, True)
        assert "127.0.0.1:7" in status(HABEAS_LOCAL_FLEET="other").stderr


def test_help_looks_for_nothing() -> None:
    """Help neither looks for a fleet nor takes one over, and no directory is made."""
    with fleet():
        assert "speaking" not in status("--help").output
    assert find_fleets() == {}


@given(
    values=st.dictionaries(
        st.from_regex(r"[A-Z][A-Z_]{0,20}", fullmatch=True),
        st.text(st.characters(exclude_characters="\0\n\r", codec="utf-8"), min_size=1),
    )
)
def test_a_shell_reads_what_was_written(tmp_path_factory: pytest.TempPathFactory, values: dict[str, str]) -> None:
    """Whatever a value holds: the shell has it after sourcing the file, and nothing in it is run."""
    if {"PATH", "IFS", "_", "UID", "EUID", "PPID", "PWD", "SHLVL", "ENV"} & values.keys() or any(
        name.startswith(("BASH", "LC_", "LANG")) for name in values
    ):
        return
    file = write_env_file(tmp_path_factory.mktemp("a place"), values)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    shown = "; ".join(f'printf "%s\\0" "${name}"' for name in values)
    told = subprocess.run(
        ["sh", "-c", f". {shlex.quote(str(file))}; {shown}"],
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert told.stdout.decode().split("\0")[:-1] == list(values.values())
    assert not told.stderr
    assert source_line(file) == f"source '{file}'"


def test_what_a_shell_sourced_does_not_start_a_fleet_on_another() -> None:
    """`habeas up` in a shell that sourced the file leaves its variables out, but for those that the person changed since."""
    with fleet() as file:
        env = dict(VALUES) | {"PATH": "/bin", "HABEAS_KEK_FILE": "/another.kek"}
        assert file.is_file()
        assert leave_fleet(env) == "up"
    assert env == {"PATH": "/bin", "HABEAS_KEK_FILE": "/another.kek"}
    assert leave_fleet({"HABEAS_KAFKA_BOOTSTRAP": "kafka:9092"}) is None


def test_without_a_fleet_the_way_to_one_is_said() -> None:
    """Whoever runs a command beside the wrong directory is told what to do, not only which option is missing."""
    result = CliRunner().invoke(habeas, ["status"])
    assert result.exit_code == 2
    assert (
        "'--dsn' (env var: 'HABEAS_OPERATOR_DATABASE_DSN'). No local fleet was started from this directory"
        in result.output
    )
