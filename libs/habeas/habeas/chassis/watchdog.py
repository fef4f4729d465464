"""When a process cannot go on and does not notice: end it, so that whatever runs it starts it anew.

Nothing is lost by ending hard: every state is in the database, and what was not committed is done again.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from time import monotonic
from traceback import walk_stack
from typing import Final

from habeas.chassis import log, metrics
from habeas.chassis.instruments import Gauge
from habeas.chassis.log import LogLevel
from habeas.chassis.redaction import Words, place

EXIT_BLOCKED: Final = 70  # EX_SOFTWARE of sysexits.h
EXIT_UNREACHABLE: Final = 69  # EX_UNAVAILABLE

_BEATS: Final = 8  # looked for in the time that the loop may be blocked
_FRAMES_MAX: Final = 30
_FAILURES_MIN: Final = 3
_JOIN_S: Final = 5.0
_LOG_S: Final = 5.0


class Watchdog:
    """A thread that ends the process with code 70 when its event loop was blocked for longer than `limit_s`.

    What the loop's thread was doing is logged first, by file and line. Time in which the whole process stood still does
    not count: it is the thread's own rounds without a sign of the loop that are counted.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limit_s: float, *, end: Callable[[int], object] = os._exit
    ) -> None:
        self._loop = loop
        self._round_s = limit_s / _BEATS
        self._end = end
        self._loop_thread: int | None = None
        self._missed = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Watch from now on; to be called once, in the loop's own thread."""
        self._loop_thread = threading.get_ident()
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer. Idempotent."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def _watch(self) -> None:
        while not self._stopped.wait(self._round_s):
            self._missed += 1
            if self._missed > _BEATS:
                self._give_up()
                return
            if self._missed == 1:  # the last beat came back: ask for the next
                try:
                    self._loop.call_soon_threadsafe(self._beat, monotonic())
                except RuntimeError:  # the loop is closed: there is nothing left to watch
                    return

    def _give_up(self) -> None:
        """Tell where the loop hangs and end; also where the loop hangs in writing the log, and so holds up this line."""
        if_log_hangs = threading.Timer(_LOG_S, self._end, (EXIT_BLOCKED,))
        if_log_hangs.daemon = True
        if_log_hangs.start()
        log.event("watchdog.loop_blocked", severity=LogLevel.ERROR, frames=self._frames())
        if_log_hangs.cancel()
        self._end(EXIT_BLOCKED)

    def _beat(self, asked_at: float) -> None:
        self._missed = 0
        metrics.LOOP_DELAY_S.observe(monotonic() - asked_at)

    def _frames(self) -> list[Words]:
        frame = sys._current_frames().get(self._loop_thread or 0)  # noqa: SLF001 -- the only way to see another thread
        places = [place(each.f_code.co_filename, line, each.f_code.co_name) for each, line in walk_stack(frame)]
        return [Words(each) for each in places[:_FRAMES_MAX]]


class Deadman:
    """Ends the process when something it cannot work without does not answer for `limit_s`.

    `probe` answers whether it is there; an error counts as no. At least three rounds in a row must have failed, so that a
    process that stood still itself gets the chance to look.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[bool]],
        limit_s: float,
        *,
        every_s: float = 5.0,
        exit_code: int = EXIT_UNREACHABLE,
        gauge: Gauge | None = None,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._probe = probe
        self._limit_s = limit_s
        self._every_s = every_s
        self._exit_code = exit_code
        self._gauge = gauge
        self._end = end

    async def run(self, stopping: asyncio.Event) -> None:
        """Probe until told to stop."""
        answered_at = monotonic()
        failures = 0
        while not stopping.is_set():
            if await self._answers():
                answered_at, failures = monotonic(), 0
            else:
                failures += 1
            silent_s = monotonic() - answered_at if failures else 0.0
            if self._gauge is not None:
                self._gauge.set(silent_s)
            if failures >= _FAILURES_MIN and silent_s > self._limit_s:
                log.event("deadman.gave_up", severity=LogLevel.ERROR, silent_s=silent_s, exit_code=self._exit_code)
                self._end(self._exit_code)
                return
            try:
                async with asyncio.timeout(self._every_s):
                    await stopping.wait()
            except TimeoutError:
                pass

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(self._every_s):
                return await self._probe()
        except Exception as error:  # noqa: BLE001 -- whatever goes wrong, there was no answer
            log.event("deadman.no_answer", error=error)
            return False
