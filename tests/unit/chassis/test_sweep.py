"""What makes sweeps run: what was done in the process, a time of their own, and the interval below both."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, cast

import pytest

from habeas.chassis import sweep as sweeps
from habeas.chassis.clock import SystemClock
from habeas.chassis.database import Database
from habeas.chassis.errors import Invariant
from habeas.chassis.outbox import Pending
from habeas.chassis.running import Running
from habeas.chassis.service import Service
from habeas.chassis.sweep import Sweep, Swept
from habeas.contracts.platform import RetentionTicked
from habeas.contracts.request_intake import RequestVerified
from habeas.contracts.topics import AUDIT_ENTRIES
from habeas_embedded.waiting import until
from tests.support.delivery import PROTECTOR, settings

CLOCK: Final = SystemClock()


class NoDatabase:
    """Stands where the database will be."""

    clock = SystemClock()
    schema = "request_intake"

    def on_commit(self, callback: object) -> None:
        """Take the wish to be told."""


async def ignore(batch: object, tx: object) -> None:
    """Handle nothing."""


async def first(_: Database) -> Swept:
    """Do nothing."""
    return Swept(0)


async def second(_: Database) -> Swept:
    """Do nothing."""
    return Swept(0)


async def third(_: Database) -> Swept:
    """Do nothing."""
    return Swept(0)


async def letting_go() -> None:
    """Do what only some transactions do."""


def running() -> Running:
    """A service whose sweeps wait for a message, for another sweep and a topic, and for what a transaction did."""
    service = Service("request-intake", settings(), protection=PROTECTOR)
    service.every(60.0, first).after(RequestVerified)
    service.every(60.0, second).after(first, AUDIT_ENTRIES)
    service.every(60.0, third).after(letting_go)
    return service._assemble(cast("Any", NoDatabase()))


def woken(parts: Running) -> set[str]:
    """The sweeps that were woken since they were last asked about."""
    found = {each.name for each in parts.sweeps if each.wake.is_set()}
    for each in parts.sweeps:
        each.wake.clear()
    return found


async def test_what_is_handled_wakes_the_sweeps_that_wait_for_it() -> None:
    """A handled message, a swept row and a followed record wake whoever waits for just that, and nobody else."""
    parts = running()
    parts._handled({RequestVerified.type})
    assert woken(parts) == {"first"}
    parts._handled({RetentionTicked.type})
    assert woken(parts) == set()
    parts._done("first")
    assert woken(parts) == {"second"}
    parts._done(AUDIT_ENTRIES.name)
    assert woken(parts) == {"second"}
    parts.look()
    assert woken(parts) == {"first", "second", "third"}


async def test_what_a_transaction_did_wakes_the_sweeps_that_wait_for_it_once_it_committed() -> None:
    """A commit that did nothing of the kind, as most do, wakes nobody: a pass that finds nothing costs three statements."""
    parts = running()
    parts._committed(Pending())
    assert woken(parts) == set()
    parts._committed(Pending(did={letting_go.__name__}))
    assert woken(parts) == {"third"}


@dataclass
class Course:
    """A sweep that is run: what each pass does, and how many there were."""

    does: list[Callable[[], Awaitable[Swept]]] = field(default_factory=list)
    due_at: datetime | None = None
    asked: int = 0
    began: list[float] = field(default_factory=list)
    passes: int = 0
    handled: list[str] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def once(self) -> Swept:
        """Do what this pass does, nothing when nothing is said."""
        self.passes += 1
        self.began.append(CLOCK.monotonic())
        return await self.does.pop(0)() if self.does else Swept(0)

    async def due(self) -> datetime | None:
        """Give when the next row is due."""
        self.asked += 1
        return self.due_at

    async def reaches(self, passes: int) -> None:
        """Wait until so many passes were begun."""
        assert await until(lambda: self.passes >= passes, 60)


async def nothing() -> Swept:
    """Find nothing."""
    return Swept(0)


async def something() -> Swept:
    """Handle a row."""
    return Swept(1)


async def lots() -> Swept:
    """Handle a row of many."""
    return Swept(1, more=True)


async def failing() -> Swept:
    """Meet trouble."""
    raise OSError


async def broken() -> Swept:
    """Break something that must not break."""
    raise Invariant("broken")


@asynccontextmanager
async def swept(course: Course, every_s: float = 3_600.0, **options: Any) -> AsyncIterator[Sweep]:
    """Run a sweep with this course for a block."""
    sweep = Sweep("a-sweep", every_s, course.once, CLOCK, **options)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(sweep.run(course.stopping, course.handled.append))
        yield sweep
        course.stopping.set()


async def test_a_sweep_runs_at_the_start_then_only_when_woken() -> None:
    """One pass at the start; then, whatever the interval, one for each wake-up, and the next at once while there is more."""
    course = Course([nothing, lots, something])
    async with swept(course) as sweep:
        await course.reaches(1)
        for _ in range(50):
            await asyncio.sleep(0)
        assert course.passes == 1
        sweep.wake.set()
        await course.reaches(3)
        assert course.handled == ["a-sweep", "a-sweep"]


async def test_a_row_that_is_due_is_found_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells of a row whose next attempt was put off: the sweep asks once when it has nothing to do, and runs at that time."""
    monkeypatch.setattr(sweeps, "_QUIET_S", 0.01)
    due_at = CLOCK.now() + timedelta(seconds=0.2)
    course = Course(due_at=due_at)
    async with swept(course, due=course.due):
        await course.reaches(2)
        assert CLOCK.now() >= due_at


async def test_rows_that_nobody_told_of_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep whose rows have times of their own asks for them at each interval, and runs only when there is one."""
    monkeypatch.setattr(sweeps, "_QUIET_S", 0.01)
    course = Course()
    async with swept(course, every_s=0.05, due=course.due):
        assert await until(lambda: course.asked >= 4, 60)
        assert course.passes == 1
        course.due_at = CLOCK.now()
        await course.reaches(2)


async def test_a_lost_wakeup_costs_the_interval() -> None:
    """A sweep that nobody wakes runs again when its interval is over."""
    course = Course()
    async with swept(course, every_s=0.05):
        await course.reaches(3)


async def test_what_fails_is_tried_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble is over before the interval is: after a failure the sweep does not wait for that long."""
    monkeypatch.setattr(sweeps, "_AGAIN_FIRST_S", 0.01)
    course = Course([failing, failing])
    async with swept(course) as sweep:
        sweep._again_s = 0.01
        await course.reaches(3)


async def test_a_sweep_rests_between_two_runs() -> None:
    """With a least pause, many wake-ups make one run, and the last one is not forgotten."""
    course = Course()
    async with swept(course, least_s=0.3) as sweep:
        await course.reaches(1)
        for _ in range(20):
            sweep.wake.set()
            await asyncio.sleep(0)
        assert course.passes == 1
        await course.reaches(2)
        assert course.began[1] - course.began[0] >= 0.3


async def test_an_invariant_ends_the_sweep() -> None:
    """What must not happen is not tried again."""
    course = Course([broken])
    with pytest.raises(Invariant):
        await Sweep("a-sweep", 3_600.0, course.once, CLOCK).run(course.stopping, course.handled.append)
