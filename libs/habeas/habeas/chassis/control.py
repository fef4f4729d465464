"""Control: what operators set while a service runs, in its own schema: paused or not, paused lanes, the log level.

The functions that change it wake every replica, which looks at once. Each also looks now and then, and before it begins to work, so that
a pause survives a restart. A paused service stores messages and publishes; it neither handles nor sweeps. Paused lanes are left out by
the claim itself.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from habeas.chassis import log, metrics, store
from habeas.chassis.database import TRANSIENT, Database
from habeas.chassis.errors import Invariant
from habeas.chassis.settings import LogLevel
from habeas.chassis.waiting import Outage, on_beat, wait_any

_LOOK_S: Final = 20.0


class Control:
    """The last that was seen; while the database is away it stands, and nothing can be handled anyway."""

    def __init__(self, database: Database, configured: LogLevel, changed: Callable[[], None] = lambda: None) -> None:
        """``changed`` is called after a change was seen: what stood still may have to go on."""
        self.wake = asyncio.Event()
        self._changed = changed
        self.lanes: tuple[int, ...] = ()
        self.log_level = configured
        self._is_paused = False
        self._database = database
        self._configured = configured

    def is_paused(self) -> bool:
        """Answer whether the service is to stand still."""
        return self._is_paused

    async def keep(self, stopping: asyncio.Event) -> None:
        """Look whenever ``wake`` is set, and now and then, until told to stop."""
        outage = Outage("control.trouble")
        while not stopping.is_set():
            await wait_any(self.wake, stopping, on_beat(_LOOK_S))
            self.wake.clear()
            try:
                await self.look()
            except TRANSIENT as error:
                self.wake.set()
                await outage.wait(error, stopping)
            else:
                outage.over()

    async def look(self) -> None:
        """Look, and let what changed take effect."""
        rows = await self._database.read("control", store.FIND_CONTROL)
        if len(rows) != 1:
            message = "the table control has one row"
            raise Invariant(message)
        row = rows[0]
        level = self._configured if row["log_level"] is None else LogLevel(row["log_level"])
        seen = (row["paused_at"] is not None, tuple(row["lanes"]), level)
        if seen != (self._is_paused, self.lanes, self.log_level):
            self._is_paused, self.lanes, self.log_level = seen
            log.set_level(level)
            log.event(
                "control.changed",
                severity=LogLevel.WARNING,
                paused=self._is_paused,
                paused_lanes=len(self.lanes),
                log_level=level,
            )
            self._changed()
        metrics.CONTROL_PAUSED_SERVICES.set(self._is_paused)
        metrics.LANE_PAUSED_LANES.set(len(self.lanes))

    def shown(self) -> dict[str, object]:
        """Give what /readyz says about it."""
        return {"paused": self._is_paused, "paused_lanes": list(self.lanes), "log_level": self.log_level.value}
