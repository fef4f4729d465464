"""Sweeps: work that looks for itself. A sweep takes no input, is idempotent and bounded, and says whether there is more."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from habeas.chassis import log, metrics
from habeas.chassis.clock import Clock
from habeas.chassis.database import TRANSIENT
from habeas.chassis.errors import Invariant
from habeas.chassis.pace import Pace
from habeas.chassis.redaction import Name
from habeas.chassis.waiting import wait_any

_PAUSED_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Swept:
    """What one pass did; ``more`` asks for the next pass at once."""

    handled: int
    more: bool = False


@dataclass(slots=True)
class Sweep:
    """One sweep with its interval; handled messages wake it before its time, if ``is_woken``."""

    name: str
    every_s: float
    once: Callable[[], Awaitable[Swept]]
    clock: Clock
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    is_woken: bool = True
    ended_at: float | None = None  # monotonic; when a run last ended well

    async def run(
        self, stopping: asyncio.Event, handled: "Callable[[Sweep], None]", paused: Callable[[], bool] = lambda: False
    ) -> None:
        """Sweep until told to stop. An ``Invariant`` ends the process; other failures are told and tried again in time."""
        pace = Pace(self.clock)
        while not stopping.is_set():
            self.wake.clear()
            pace.begin()
            if paused():
                await wait_any(stopping, stopping, min(self.every_s, _PAUSED_LOOK_S))
                continue
            more, done = False, 0
            started = self.clock.monotonic()
            try:
                swept = await self.once()
            except Invariant:
                raise
            except TRANSIENT as error:
                log.event("sweep.trouble", sweep=Name(self.name), error=error)
            except Exception as error:  # noqa: BLE001 -- a sweep that fails is told and tried again; the service lives on
                log.event("sweep.failed", sweep=Name(self.name), error=error)
                metrics.SWEEP_FAILURES.add(sweep=Name(self.name))
            else:
                more, done = swept.more, swept.handled
                self.ended_at = self.clock.monotonic()
                if swept.handled:
                    metrics.SWEEP_HANDLED_ROWS.add(swept.handled, sweep=Name(self.name))
                    handled(self)
            metrics.SWEEP_DURATION_S.observe(self.clock.monotonic() - started, sweep=Name(self.name))
            if not more:
                await wait_any(self.wake, stopping, self.every_s)
                await pace.rest(done, sys.maxsize, stopping)
