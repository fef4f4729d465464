"""`docs/life-of-a-request.md` tells the truth: what it names exists, each step follows from earlier ones, and eight files are enough."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from habeas.contracts.catalogue import EVENTS
from habeas.contracts.topics import CATALOGUE
from tests.architecture.repository import ROOT, SERVICES

DOCUMENT: Final = ROOT / "docs" / "life-of-a-request.md"
FILES_MAX: Final = 8
COLUMNS: Final = ("step", "file", "function", "takes", "gives", "topic or table", "what happens")
FROM_OUTSIDE: Final = "RequestSubmitted"
BY_NAME: Final = {event.__name__: event for event in EVENTS}


@dataclass(frozen=True)
class Step:
    """One row of the table."""

    number: int
    path: Path
    function: str
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    places: tuple[str, ...]

    @property
    def package(self) -> Path:
        """The folder that the file is read in: a service's package, or the file's own folder."""
        parts = self.path.relative_to(ROOT).parts
        return ROOT.joinpath(*parts[:3]) if parts[0] == "services" else self.path.parent


def steps_of(text: str) -> list[Step]:
    """The rows of the document's table."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    start = next(index for index, row in enumerate(rows) if tuple(row) == COLUMNS)
    steps = []
    for row in rows[start + 2 :]:
        if not row[0].isdigit():
            break
        link = re.fullmatch(r"\[([^\]]+)\]\(([^)]+)\)", row[1])
        assert link is not None, f"step {row[0]} links one file"
        path = (DOCUMENT.parent / link[2]).resolve()
        assert path.as_posix().endswith(f"/{link[1]}"), f"step {row[0]} shows another file than it links"
        takes, gives, places = (tuple(re.findall(r"`([^`]+)`", cell)) for cell in row[3:6])
        steps.append(Step(int(row[0]), path, row[2].strip("`"), takes, gives, places))
    return steps


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def function(path: Path, name: str) -> ast.AST | None:
    """A function of a module, or a method written `Class.method`."""
    body: list[ast.stmt] = tree(path).body
    *outer, last = name.split(".")
    for part in outer:
        holder = next((node for node in body if isinstance(node, ast.ClassDef) and node.name == part), None)
        body = [] if holder is None else holder.body
    return next((n for n in body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name == last), None)


def names_in(node: ast.AST) -> set[str]:
    """Every name that is used in a piece of code, the last part of dotted ones included."""
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found | {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}


def registered(package: Path, verb: str) -> Iterator[list[str]]:
    """Last parts of the names that `service.<verb>(…)` is called with in a service's app.py."""
    app = package / "app.py"
    for node in ast.walk(tree(app)) if app.is_file() else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == verb:
            yield [ast.unparse(argument).rpartition(".")[2] for argument in node.args]


@cache
def tables() -> frozenset[str]:
    """Every table that a migration makes, with its schema."""
    files = [*ROOT.glob("services/*/*/migrations/*.sql"), *ROOT.glob("libs/habeas/habeas/sealing/migrations/*.sql")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return frozenset(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+\.\w+)", text))


def wrong(steps: list[Step]) -> Iterator[str]:
    """What the table says that is not so."""
    topics = {topic.name for topic in CATALOGUE}
    for step in steps:
        if not step.path.is_file() or function(step.path, step.function) is None:
            yield f"step {step.number}: there is no {step.function} in that file"
        yield from (
            f"step {step.number}: {name} is no event" for name in step.takes + step.gives if name not in BY_NAME
        )
        for place in step.places:
            if place not in topics | tables():
                yield f"step {step.number}: {place} is neither a topic of the catalogue nor a table of a migration"
    if len({step.path for step in steps}) > FILES_MAX:
        yield f"more than {FILES_MAX} files have to be opened"
    if [step.number for step in steps] != list(range(1, len(steps) + 1)):
        yield "steps are numbered without a gap"


def unconnected(steps: list[Step]) -> Iterator[str]:
    """Steps that nothing before them leads to, and events that come from nowhere."""
    given = {FROM_OUTSIDE}
    for index, step in enumerate(steps):
        if step.takes:
            yield from _not_taken(step, given)
        elif not _is_sweep(step) and not _is_called(step, steps[:index]):
            yield f"step {step.number}: {step.function} is no sweep, and no earlier file calls it"
        yield from _not_given(step)
        given.update(step.gives)


def _not_taken(step: Step, given: set[str]) -> Iterator[str]:
    for name in step.takes:
        if name not in given:
            yield f"step {step.number}: no earlier step gives {name}"
        if not any(arguments[:2] == [name, step.function] for arguments in registered(step.package, "on")):
            yield f"step {step.number}: app.py does not register {step.function} for {name}"


def _is_sweep(step: Step) -> bool:
    return any(step.function in arguments for arguments in registered(step.package, "every"))


def _is_called(step: Step, earlier: list[Step]) -> bool:
    """Whether the file of an earlier step of the same service uses the name; a store is used by whoever comes before."""
    last = step.function.rpartition(".")[2]
    callers = [each for each in earlier if each.package == step.package] or earlier[-1:]
    return any(last in names_in(tree(each.path)) for each in callers)


def _not_given(step: Step) -> Iterator[str]:
    """An event is given where its service makes one, and its topic is named in the row."""
    made = {name for file in step.package.rglob("*.py") for name in names_in(tree(file))}
    for name in step.gives:
        if name not in made:
            yield f"step {step.number}: {step.package.name} makes no {name}"
        if name in BY_NAME and BY_NAME[name].topic.name not in step.places:
            yield f"step {step.number}: {name} goes to {BY_NAME[name].topic.name}, which the row does not name"


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    """The steps as written."""
    return steps_of(DOCUMENT.read_text(encoding="utf-8"))


def test_everything_that_is_named_exists(steps: list[Step]) -> None:
    """Every file, function, event, topic and table of the document exists, and at most eight files have to be opened."""
    assert not list(wrong(steps))


def test_each_step_follows(steps: list[Step]) -> None:
    """A step takes an event that was given before and is registered for it, or is a sweep, or is called by an earlier file."""
    assert not list(unconnected(steps))


def test_the_way_is_whole(steps: list[Step]) -> None:
    """The way begins with the submission and ends with the completed request; every event is taken on it or told to all."""
    assert steps[0].takes == (FROM_OUTSIDE,)
    assert steps[-1].gives == ("RequestCompleted",)
    taken = {name for step in steps for name in step.takes}
    told = {name for step in steps for name in step.gives} - taken
    assert told == {"SubjectFlagged", "RequestCompleted"}


def test_the_file_list_is_that_of_the_table(steps: list[Step]) -> None:
    """The files listed above the table are those that the table names."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("| step |")[0]
    listed = re.findall(r"\d\. `([\w/]+\.py)`", text)
    opened = {step.path for step in steps}
    assert len(listed) == len(opened)
    assert all(any(path.as_posix().endswith(f"/{name}") for path in opened) for name in listed)


def test_events_of_services_are_told_apart(steps: list[Step]) -> None:
    """Wrong tables are told: another function, event, topic, an order that cannot be, a handler that is not registered."""
    first, *rest = steps
    assert list(wrong([replace(first, function="on_nothing"), *rest]))
    assert list(wrong([replace(first, takes=("NothingHappened",)), *rest]))
    assert list(wrong([replace(first, places=("request_intake.nothing",)), *rest]))
    assert list(wrong([*rest]))
    assert list(unconnected([first, *reversed(rest)]))
    assert list(unconnected([replace(first, takes=("ErasureCompleted",)), *rest]))
    assert list(unconnected([replace(first, gives=("MailSent",)), *rest]))
    assert {step.package.name.replace("_", "-") for step in steps} - {"postgres"} <= set(SERVICES)
