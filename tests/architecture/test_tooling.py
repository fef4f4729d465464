import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.repository import ROOT, SERVICES, sources
from tests.support.waiting import HANGS_S

OURS = {"habeas", "habeas-embedded", "habeas-demo", *SERVICES}


def settings_of_tools() -> dict[str, Any]:
    """The tool tables of the root pyproject.toml."""
    tools: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    return tools


def distributions() -> list[dict[str, Any]]:
    """The project tables of everything that is installed."""
    paths = sorted(
        (
            *ROOT.glob("libs/*/pyproject.toml"),
            *ROOT.glob("services/*/pyproject.toml"),
            *ROOT.glob("deploy/*/pyproject.toml"),
        )
    )
    return [tomllib.loads(path.read_text(encoding="utf-8"))["project"] for path in paths]


def locked(path: str = "requirements.lock") -> dict[str, str]:
    """Version of every locked package, by its canonical name."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    pins = (line.split(" ")[0].split("==") for line in lines if re.match(r"[a-zA-Z]", line))
    return {canonicalize_name(name): version for name, version in pins}


def ignored_lines() -> Iterator[str]:
    """Lines of the root pyproject.toml that switch a rule of ruff off."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lint = text[text.index("[tool.ruff.lint]") : text.index("[tool.ruff.lint.flake8-annotations]")]
    yield from (line for line in lint.splitlines() if re.match(r'  "[A-Z]+[0-9]*",', line))


def test_every_rule_left_out_has_its_reason() -> None:
    """Each rule of ruff that is switched off says why, in words, on its own line."""
    lines = list(ignored_lines())
    assert len(lines) > 10
    assert not [line for line in lines if not re.search(r"# (the same|[^ ]+( \S+){2,})$", line)]


def test_checkers_are_strict() -> None:
    """Nobody has loosened mypy, ruff, pytest or their warnings."""
    tools = settings_of_tools()
    assert tools["mypy"]["strict"] is True
    assert tools["ruff"]["lint"]["select"] == ["ALL"]
    assert tools["pytest"]["ini_options"]["filterwarnings"][0] == "error"
    assert "--strict-markers" in tools["pytest"]["ini_options"]["addopts"]


def test_nine_distributions() -> None:
    """The library, six services, the embedded servers and the demonstration; all of one version."""
    assert {project["name"] for project in distributions()} == OURS
    assert len({project["version"] for project in distributions()}) == 1


def test_lock_holds_what_distributions_ask_for() -> None:
    """Every dependency of every distribution is locked, at a version that it allows."""
    versions = locked()
    for project in distributions():
        for wanted in map(Requirement, project["dependencies"]):
            name = canonicalize_name(wanted.name)
            if name not in OURS:
                assert wanted.specifier.contains(versions[name]), (
                    f"{project['name']}: {wanted}, locked {versions[name]}"
                )


def test_lock_holds_what_requirements_ask_for() -> None:
    """requirements.lock was written after the last change of requirements.in."""
    versions = locked()
    text = "".join((ROOT / path).read_text(encoding="utf-8") for path in ("requirements.in", "deploy/requirements.in"))
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    for wanted in (Requirement(line) for line in lines if line and not line.startswith("-r ")):
        assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), str(wanted)


@pytest.mark.parametrize("path", ["requirements.lock", "deploy/requirements.lock"])
def test_lock_has_hashes_and_no_hosts(path: str) -> None:
    """Every package is bound by hashes; where they come from is the machine's affair."""
    text = (ROOT / path).read_text(encoding="utf-8")
    assert text.count("==") == len(re.findall(r"==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text))
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host|-e |@", text)


@pytest.mark.parametrize("verb", ["bench", "check", "clean", "demo", "fmt", "install", "lock", "test", "up"])
def test_bare_make_lists_the_verb(verb: str) -> None:
    """Who types `make` alone is told each verb with what it does, and nothing is done."""
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=HANGS_S
    )
    assert re.search(rf"^\s*make {verb}\s+\w+", listed.stdout, re.MULTILINE)


def test_every_verb_is_listed() -> None:
    """No verb of the Makefile is hidden from the list."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (\S+)$", text, re.MULTILINE))
    told = set(re.findall(r"^([a-z][a-z0-9-]*):.*## \S", text, re.MULTILINE))
    assert phony == told


def third_party(folder: str) -> dict[str, str]:
    """Distribution of every package from outside that Python files below the folder import, with one file that does."""
    known = packages_distributions()
    found: dict[str, str] = {}
    for source in sources():
        if not source.python or not source.under(folder):
            continue
        for node in source.nodes:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"_typeshed"}:
                found[canonicalize_name(known.get(top, [top])[0])] = str(source.path)
    return found


def asked_for(lines: Iterable[str]) -> set[str]:
    """Canonical names of the distributions that requirement lines name."""
    return {canonicalize_name(Requirement(line).name) for line in lines}


@pytest.mark.parametrize(
    "folder", ["libs/habeas", *(f"services/{name}" for name in SERVICES), "deploy/embedded", "deploy/demo"]
)
def test_imports_are_declared(folder: str) -> None:
    """A distribution declares what it imports, itself or through `habeas`, so that an image holds what it needs."""
    own = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    library = tomllib.loads((ROOT / "libs/habeas/pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = asked_for([*own["dependencies"], *library["dependencies"]]) | {own["name"]}
    if folder == "libs/habeas":
        declared |= {
            "habeas-embedded",
            "habeas-demo",
        }  # `habeas up` asks for them when it is called, and says so when absent
    undeclared = {name: path for name, path in third_party(folder).items() if name not in declared}
    assert not undeclared, undeclared


def test_tests_import_what_is_asked_for() -> None:
    """What tests import stands in requirements.in by name; it is not there by the grace of another package."""
    text = "".join((ROOT / path).read_text(encoding="utf-8") for path in ("requirements.in", "deploy/requirements.in"))
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    asked = asked_for(line for line in lines if line and not line.startswith("-r ")) | OURS
    undeclared = {name: path for name, path in third_party("tests").items() if name not in asked | {"tests"}}
    assert not undeclared, undeclared
