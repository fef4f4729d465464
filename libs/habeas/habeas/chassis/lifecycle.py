"""Transition tables: the one place that says which state may follow which, and the diagram drawn from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, Generic, TypeVar

from habeas.chassis.errors import Invariant

S = TypeVar("S", bound=StrEnum)

CLAIMS_MAX: Final = 3
"""How often work may be claimed and end without a word before that itself is its reason (``interrupted``)."""

_BACKOFF_FIRST: Final = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Row(Generic[S]):
    """From ``state``, because of ``cause``, to one of ``targets``."""

    state: S
    cause: str
    targets: tuple[S, ...]


def row(state: S, cause: str, *targets: S) -> Row[S]:
    """Write one row of a table."""
    return Row(state, cause, targets)


class Table(Generic[S]):
    """All transitions of one life cycle."""

    def __init__(self, first: S, rows: tuple[Row[S], ...]) -> None:
        self.first = first
        self._rows = rows
        self._allowed = {(each.state, target) for each in rows for target in each.targets}

    def __iter__(self) -> Iterator[Row[S]]:
        return iter(self._rows)

    def allows(self, state: S, target: S) -> bool:
        """Answer whether ``target`` may follow ``state``."""
        return (state, target) in self._allowed

    def check(self, state: S, target: S) -> None:
        """Raise ``Invariant`` when ``target`` may not follow ``state``: a decision asked for something that cannot be."""
        if not self.allows(state, target):
            message = f"{state} cannot become {target}"
            raise Invariant(message)

    def final(self) -> frozenset[S]:
        """Give the states that nothing follows."""
        return frozenset(type(self.first)) - {each.state for each in self._rows}

    def diagram(self) -> str:
        """Draw the table as a Mermaid state diagram."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.first}"]
        lines += [f"    {each.state} --> {target}: {each.cause}" for each in self._rows for target in each.targets]
        lines += [f"    {state} --> [*]" for state in sorted(self.final())]
        return "\n".join(lines)


def table(first: S, *rows: Row[S]) -> Table[S]:
    """Write a table; ``first`` is the state in which everything begins."""
    return Table(first, rows)


def backoff(attempts: int, longest: timedelta) -> timedelta:
    """Return the pause after an attempt that failed, ``attempts`` counting from zero: two seconds, doubling up to ``longest``."""
    return min(longest, _BACKOFF_FIRST * (1 << min(attempts, 30)))
