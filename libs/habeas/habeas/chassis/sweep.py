"""Sweeps: work that looks for itself. A sweep takes no input, is idempotent and bounded, and says whether there is more.

It runs when something it waits for was done in this process, when something of it is due by its own time, and, as the net below both,
at a long interval.
"""

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final, Self, TypeAlias

from habeas.chassis import log, metrics
from habeas.chassis.clock import Clock
from habeas.chassis.database import TRANSIENT, Database
from habeas.chassis.errors import Invariant
from habeas.chassis.pace import Pace
from habeas.chassis.redaction import Name
from habeas.chassis.waiting import on_beat, wait_any
from habeas.contracts.model import Event
from habeas.contracts.topics import Topic

_AGAIN_FIRST_S: Final = 1.0
_AGAIN_LONGEST_S: Final = 5.0
_QUIET_S: Final = 1.0  # after a pass, before the table is asked when its next row is due: others may come any moment

Once: TypeAlias = Callable[[Database], Awaitable["Swept"]]
Cause: TypeAlias = "type[Event] | Topic | Callable[..., object]"
"""What a sweep may wait for: handled events of a type, records followed on a topic, rows that another sweep handled, or a function of which
a transaction says that it ``did`` it: where most messages leave nothing to do, a pass behind each of them would cost more than the work."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What one pass did; ``more`` asks for the next pass at once."""

    handled: int
    more: bool = False


@dataclass(slots=True)
class Sweep:
    """One sweep of a running process: what it does, what wakes it, and when something of it is due."""

    name: str
    every_s: float
    once: Callable[[], Awaitable[Swept]]
    clock: Clock
    causes: frozenset[str] = frozenset()
    due: Callable[[], Awaitable[datetime | None]] | None = None
    least_s: float = 0.0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float | None = None  # monotonic; when a run last ended well
    _again_s: float = _AGAIN_FIRST_S

    async def run(
        self, stopping: asyncio.Event, handled: Callable[[str], None], paused: Callable[[], bool] = lambda: False
    ) -> None:
        """Sweep until told to stop. An ``Invariant`` ends the process; other failures are told and tried again in time.

        ``handled`` is called with the sweep's name after each pass that did something. Whoever ends a pause sets ``wake``.
        """
        pace = Pace(self.clock)
        while not stopping.is_set():
            self.wake.clear()
            pace.begin()
            if paused():
                await wait_any(self.wake, stopping, on_beat(self.every_s))
                continue
            swept = await self._pass()
            if swept is None:
                await wait_any(self.wake, stopping, min(self._again_s, self.every_s))
                self._again_s = min(self._again_s * 2, _AGAIN_LONGEST_S)
                continue
            self._again_s = _AGAIN_FIRST_S
            if swept.handled:
                handled(self.name)
            if self.least_s:
                await wait_any(stopping, stopping, self.least_s)
            if not swept.more:
                await self._rest(stopping)
                await pace.rest(swept.handled, sys.maxsize, stopping)

    async def _pass(self) -> Swept | None:
        """Run once; None when it failed."""
        started = self.clock.monotonic()
        try:
            swept = await self.once()
        except Invariant:
            raise
        except TRANSIENT as error:
            log.event("sweep.trouble", sweep=Name(self.name), error=error)
            return None
        except Exception as error:  # noqa: BLE001 -- a sweep that fails is told and tried again; the service lives on
            log.event("sweep.failed", sweep=Name(self.name), error=error)
            metrics.SWEEP_FAILURES.add(sweep=Name(self.name))
            return None
        finally:
            metrics.SWEEP_DURATION_S.observe(self.clock.monotonic() - started, sweep=Name(self.name))
        self.ended_at = self.clock.monotonic()
        if swept.handled:
            metrics.SWEEP_HANDLED_ROWS.add(swept.handled, sweep=Name(self.name))
        return swept

    async def _rest(self, stopping: asyncio.Event) -> None:
        """Wait until something wakes the sweep, a row of it is due, or its interval is over.

        A sweep whose rows have times of their own asks for the earliest at each interval, which costs less than a pass that finds nothing.
        """
        if self.due is None or self.every_s <= _QUIET_S:
            await wait_any(self.wake, stopping, on_beat(self.every_s))
            return
        rest_s = _QUIET_S
        while not await wait_any(self.wake, stopping, rest_s):
            try:
                due_at = await self.due()
            except TRANSIENT as error:
                log.event("sweep.trouble", sweep=Name(self.name), error=error)
                return
            self.ended_at = self.clock.monotonic()
            due_s = math.inf if due_at is None else (due_at - self.clock.now()).total_seconds()
            if due_s <= 0:
                return
            # A time that is due is kept; the interval, which nobody counts on, may end a little earlier.
            rest_s = due_s if due_s < self.every_s else on_beat(self.every_s)


@dataclass(slots=True)
class Schedule:
    """How a service declares a sweep: its interval, and what else makes it run."""

    name: str
    every_s: float
    once: Once
    causes: frozenset[str] = frozenset()
    due_sql: str | None = None
    least_s: float = 0.0

    def after(self, *causes: Cause) -> Self:
        """Run also as soon as one of these was handled, followed or swept in this process."""
        self.causes |= {cause_of(each) for each in causes}
        return self

    def due(self, sql: str) -> Self:
        """Run also when a row is due; ``sql`` gives the earliest time of all rows that wait, null for none, at the cost of one look."""
        self.due_sql = sql
        return self

    def at_most_every(self, seconds: float) -> Self:
        """Rest at least so long after each run, whatever wakes it."""
        self.least_s = seconds
        return self

    def on(self, database: Database) -> Sweep:
        """Make the sweep over a database."""
        due = None if self.due_sql is None else partial(_ask, database, self.due_sql)
        once = partial(self.once, database)
        return Sweep(self.name, self.every_s, once, database.clock, self.causes, due, self.least_s)


def cause_of(cause: Cause) -> str:
    """Return the word by which a cause is known: an event's type, a topic's name, a function's name."""
    if isinstance(cause, Topic):
        return cause.name
    return cause.type if isinstance(cause, type) and issubclass(cause, Event) else cause.__name__


async def _ask(database: Database, sql: str) -> datetime | None:
    (row,) = await database.read("sweep-due", sql)
    due_at: datetime | None = row[0]
    return due_at
