"""Each service's README shows the states that its code and its tables have."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import pytest

from habeas.chassis.lifecycle import Table, row, table
from tests.architecture.repository import ROOT, SERVICES

LIFE_CYCLES = {
    service: package
    for service in SERVICES
    for package in [service.replace("-", "_")]
    if any((ROOT / "services" / service / package).glob("lifecycle*"))
}
MARKED = re.compile(r"<!-- transitions -->\n(.*?)\n<!-- /transitions -->", re.DOTALL)
MERMAID = re.compile(r"```mermaid\n(.*)\n```", re.DOTALL)
STATES_ALLOWED = re.compile(r"^\s*state\s+text\b.*?CHECK\s*\(\s*state\s+IN\s*\(([^)]*)\)", re.DOTALL | re.MULTILINE)


def tables_of(package: str) -> dict[str, Table[Any]]:
    """Every transition table of a service, by the diagram that it draws; a life cycle may be one module or several."""
    first = importlib.import_module(f"{package}.lifecycle")
    inner = [each.name for each in pkgutil.iter_modules(getattr(first, "__path__", ()), f"{first.__name__}.")]
    modules = [first, *map(importlib.import_module, inner)]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Table)]
    return {each.diagram(): each for each in found}


def diagrams_in(readme: str) -> Iterator[str]:
    """What the README shows between its markers."""
    for marked in MARKED.findall(readme):
        block = MERMAID.fullmatch(marked)
        assert block is not None, "between the markers stands one mermaid block and nothing else"
        yield block[1]


def states_in(migration: str) -> list[list[str]]:
    """The states that each column `state` of a migration allows, in the order written."""
    return [re.findall(r"'([^']*)'", inner) for inner in STATES_ALLOWED.findall(migration)]


@pytest.mark.parametrize("service", SERVICES)
def test_readme_shows_the_transitions(service: str) -> None:
    """The README of a service shows the diagram of each of its transition tables, as drawn today, and no other."""
    readme = (ROOT / "services" / service / "README.md").read_text(encoding="utf-8")
    drawn = set(tables_of(LIFE_CYCLES[service])) if service in LIFE_CYCLES else set()
    assert set(diagrams_in(readme)) == drawn


@pytest.mark.parametrize("service", LIFE_CYCLES)
def test_tables_allow_the_states_of_the_code(service: str) -> None:
    """The CHECK of each column `state` lists exactly the states of a life cycle, and each life cycle has such a column."""
    package = LIFE_CYCLES[service]
    firsts: list[StrEnum] = [each.first for each in tables_of(package).values()]
    lives = {frozenset(map(str, type(first))) for first in firsts}
    files = sorted((ROOT / "services" / service / package / "migrations").glob("*.sql"))
    allowed = [states for file in files for states in states_in(file.read_text(encoding="utf-8"))]
    assert {frozenset(states) for states in allowed} == lives
    assert all(len(states) == len(set(states)) for states in allowed)


@pytest.mark.parametrize("service", LIFE_CYCLES)
def test_diagrams_can_be_drawn(service: str) -> None:
    """No cause holds a colon, semicolon or number sign: Mermaid's grammar ends a label there, and draws nothing at all."""
    causes = [each.cause for drawn in tables_of(LIFE_CYCLES[service]).values() for each in drawn]
    assert not [cause for cause in causes if set(cause) & set(":;#")]


class Light(StrEnum):
    """States of a sample."""

    RED = "red"
    GREEN = "green"


def test_other_diagrams_and_states_are_told_apart() -> None:
    """A README that lags behind, and a CHECK that lacks a state, do not pass for the real ones."""
    light = table(Light.RED, row(Light.RED, "waited", Light.GREEN))
    readme = f"# Light\n\n<!-- transitions -->\n```mermaid\n{light.diagram()}\n```\n<!-- /transitions -->\n"
    assert set(diagrams_in(readme)) == {light.diagram()}
    assert set(diagrams_in(readme.replace("waited", "asked"))) != {light.diagram()}
    sql = "CREATE TABLE lights (\n    state  text NOT NULL CHECK (state IN ('red',\n 'green')),\n    hue text CHECK (hue IN ('a'))\n)"
    assert states_in(sql) == [["red", "green"]]
