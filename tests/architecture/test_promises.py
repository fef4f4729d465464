"""`docs/promises.md` names, for each of the twelve promises, code, tests and alerts that exist, and says what is missing."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.architecture.repository import ROOT, sources

DOCUMENT: Final = ROOT / "docs" / "promises.md"
STATES: Final = frozenset({"kept", "partly", "not yet"})
PROMISES: Final = tuple(f"P{number}" for number in range(1, 13))
SECTION: Final = re.compile(
    r"^## (P\d+) (\S[^\n]*)\n+State: \*\*([a-z ]+)\*\*\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)
PART: Final = re.compile(r"^- (Code|Tests|Alerts|Missing): (.*?)(?=^- |\Z)", re.MULTILINE | re.DOTALL)
NAMED: Final = re.compile(r"`([^`]+)`")
RULES: Final = ROOT / "deploy" / "prometheus" / "alerts.yaml"
OF_PROMISES: Final = frozenset({"deadlines", "promises"})
DENIALS: Final = re.compile(
    r"\b(?:nobody|no one) is (?:called|alerted|reminded)\b|\bnothing (?:reminds|alarms|alerts|calls|escalates)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Promise:
    """One section of the document."""

    name: str
    state: str
    code: tuple[str, ...]
    tests: tuple[str, ...]
    alerts: tuple[str, ...]
    missing: str


def promises_in(text: str) -> list[Promise]:
    """The sections as written; a part that a section lacks is a KeyError."""
    found = []
    for name, _, state, body in SECTION.findall(text):
        parts = dict(PART.findall(body))
        code, tests, alerts = (
            tuple(NAMED.findall(named)) for named in (parts["Code"], parts["Tests"], parts.get("Alerts", ""))
        )
        found.append(Promise(name, state, code, tests, alerts, parts["Missing"].strip()))
    return found


@cache
def alerts() -> dict[str, str]:
    """Every alert, with the group that it belongs to."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: group["name"] for group in groups for rule in group["rules"]}


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
    for alert in promise.alerts:
        if alert not in alerts():
            yield f"{promise.name}: there is no alert {alert}"
    if promise.alerts and DENIALS.search(promise.missing):
        yield f"{promise.name}: somebody is called, and the words deny it"
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


def test_every_alert_about_a_promise_is_named_by_one(promises: list[Promise]) -> None:
    """Whoever reads a promise learns who is called when it is about to be broken."""
    named = {alert for promise in promises for alert in promise.alerts}
    assert [alert for alert, group in alerts().items() if group in OF_PROMISES and alert not in named] == []


def test_no_document_denies_an_alert() -> None:
    """No page says that nobody is called: alerts do that, for deadlines, retention and mails."""
    documents = [source for source in sources() if source.path.suffix == ".md"]
    assert [f"{each.path}: {found[0]}" for each in documents for found in DENIALS.finditer(each.text)] == []


def test_wrong_sections_are_told() -> None:
    """A symbol that does not exist, a test that is none, an unknown state and silence about what is missing are each told."""
    text = (
        "## P1 A promise\n\nState: **kept**\n\n- Code: `tests/architecture/repository.py::sources`, `Makefile::demo`\n"
        "- Tests: `tests/architecture/test_promises.py::test_nothing`\n- Alerts: `RetentionLate`, `Nobody`\n"
        "- Missing: nobody is called\n\n"
        "## P2 Another\n\nState: **almost**\n\n- Code: `tests/architecture/repository.py::Source.at`\n- Tests: none\n"
        "- Missing: a lot of words stand here\n"
    )
    first, second = promises_in(text.replace("`Makefile::demo`", "`Makefile`"))
    told = list(wrong(first))
    assert len(told) == 6
    assert any("no alert Nobody" in line for line in told)
    assert any("deny" in line for line in told)
    assert any("no file" in line for line in told)
    assert any("no test_nothing" in line for line in told)
    assert any("code is no test" in line for line in told)
    assert any("missing" in line for line in told)
    assert any("no state" in line for line in wrong(second))
