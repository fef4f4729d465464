"""`docs/promises.md` names, for each of the twelve promises, code and tests that exist, and says what is missing."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.repository import ROOT

DOCUMENT: Final = ROOT / "docs" / "promises.md"
STATES: Final = frozenset({"kept", "partly", "not yet"})
PROMISES: Final = tuple(f"P{number}" for number in range(1, 13))
SECTION: Final = re.compile(
    r"^## (P\d+) (\S[^\n]*)\n+State: \*\*([a-z ]+)\*\*\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)
PART: Final = re.compile(r"^- (Code|Tests|Missing): (.*?)(?=^- |\Z)", re.MULTILINE | re.DOTALL)
NAMED: Final = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Promise:
    """One section of the document."""

    name: str
    state: str
    code: tuple[str, ...]
    tests: tuple[str, ...]
    missing: str


def promises_in(text: str) -> list[Promise]:
    """The sections as written; a part that a section lacks is a KeyError."""
    found = []
    for name, _, state, body in SECTION.findall(text):
        parts = dict(PART.findall(body))
        code, tests = (tuple(NAMED.findall(parts[part])) for part in ("Code", "Tests"))
        found.append(Promise(name, state, code, tests, parts["Missing"].strip()))
    return found


@cache
def symbols(path: Path) -> frozenset[str]:
    """Functions, classes, methods and constants of a module, methods as `Class.method`."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            names.update(f"{node.name}.{each.name}" for each in inner)
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names.update(target.id for target in targets if isinstance(target, ast.Name))
    return frozenset(names)


def wrong(promise: Promise) -> Iterator[str]:
    """What a section says that is not so, or does not say."""
    for reference in promise.code + promise.tests:
        path, found, symbol = reference.partition("::")
        if not found or not (ROOT / path).is_file():
            yield f"{promise.name}: {reference} is no file with a name in it"
        elif symbol not in symbols(ROOT / path):
            yield f"{promise.name}: {path} has no {symbol}"
    if promise.state not in STATES:
        yield f"{promise.name}: {promise.state} is no state"
    if promise.state != "not yet" and not (promise.code and promise.tests):
        yield f"{promise.name}: what is {promise.state} has code and tests"
    if any(not test.startswith("tests/") or "::test_" not in test for test in promise.tests):
        yield f"{promise.name}: tests are tests"
    if any(code.startswith("tests/") for code in promise.code):
        yield f"{promise.name}: code is no test"
    if len(promise.missing.split()) < 5:
        yield f"{promise.name}: say what is missing, or what stays with the platform"


@pytest.fixture(scope="module")
def promises() -> list[Promise]:
    """The sections of the real document."""
    return promises_in(DOCUMENT.read_text(encoding="utf-8"))


def test_all_twelve_are_there(promises: list[Promise]) -> None:
    """Every promise of the policy has its section, in order."""
    assert tuple(promise.name for promise in promises) == PROMISES


@pytest.mark.parametrize("number", range(12))
def test_what_is_named_exists(promises: list[Promise], number: int) -> None:
    """Every file, symbol and test that a promise names exists, and its state has what it needs."""
    assert not list(wrong(promises[number]))


def test_wrong_sections_are_told() -> None:
    """A symbol that does not exist, a test that is none, an unknown state and silence about what is missing are each told."""
    text = (
        "## P1 A promise\n\nState: **kept**\n\n- Code: `tests/architecture/repository.py::sources`, `Makefile::demo`\n"
        "- Tests: `tests/architecture/test_promises.py::test_nothing`\n- Missing: none\n\n"
        "## P2 Another\n\nState: **almost**\n\n- Code: `tests/architecture/repository.py::Source.at`\n- Tests: none\n"
        "- Missing: a lot of words stand here\n"
    )
    first, second = promises_in(text.replace("`Makefile::demo`", "`Makefile`"))
    told = list(wrong(first))
    assert len(told) == 4
    assert any("no file" in line for line in told)
    assert any("no test_nothing" in line for line in told)
    assert any("code is no test" in line for line in told)
    assert any("missing" in line for line in told)
    assert any("no state" in line for line in wrong(second))
