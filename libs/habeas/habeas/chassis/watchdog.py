"""When a process cannot go on and does not notice: end it, so that whatever runs it starts it anew.

Nothing is lost by ending hard: every state is in the database, and what was not committed is done again.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from time import monotonic
from traceback import walk_stack
from typing import Final

from habeas.chassis import log, metrics
from habeas.chassis.log import LogLevel
from habeas.chassis.redaction import Words, place

EXIT_BLOCKED: Final = 70  # EX_SOFTWARE of sysexits.h

_ROUNDS: Final = 8  # in the time that the loop may be blocked
_PATIENT_ROUNDS: Final = 4  # of these, before the loop is asked for a sign
_FRAMES_MAX: Final = 30
_JOIN_S: Final = 5.0
_LOG_S: Final = 5.0


class Watchdog:
    """A thread that ends the process with code 70 when its event loop was blocked for longer than `limit_s`.

    What the loop's thread was doing is logged first, by file and line. Time in which the whole process stood still does
    not count: it is the thread's own rounds without a sign of the loop that are counted. A loop that calls ``beat`` more often than twice
    in the limit is asked for no sign, and then the thread wakes up about twice in the limit.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limit_s: float, *, end: Callable[[int], object] = os._exit
    ) -> None:
        self._loop = loop
        self._round_s = limit_s / _ROUNDS
        self._beat_at = monotonic()
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

    def beat(self) -> None:
        """Show that the loop turns; to be called in the loop."""
        self._beat_at = monotonic()
        self._missed = 0

    def _watch(self) -> None:
        while not self._stopped.wait(self._patience_s()):
            if monotonic() - self._beat_at < self._round_s * _PATIENT_ROUNDS:
                continue
            self._missed += 1
            if self._missed > _ROUNDS - _PATIENT_ROUNDS:
                self._give_up()
                return
            if self._missed == 1:
                try:
                    self._loop.call_soon_threadsafe(self._answer, monotonic())
                except RuntimeError:  # the loop is closed: there is nothing left to watch
                    return

    def _patience_s(self) -> float:
        """Return the time until the last beat is old; one round while the loop has been asked for a sign."""
        if self._missed:
            return self._round_s
        return max(self._round_s, self._beat_at + self._round_s * _PATIENT_ROUNDS - monotonic())

    def _give_up(self) -> None:
        """Tell where the loop hangs and end; also where the loop hangs in writing the log, and so holds up this line."""
        if_log_hangs = threading.Timer(_LOG_S, self._end, (EXIT_BLOCKED,))
        if_log_hangs.daemon = True
        if_log_hangs.start()
        log.event("watchdog.loop_blocked", severity=LogLevel.ERROR, frames=self._frames())
        if_log_hangs.cancel()
        self._end(EXIT_BLOCKED)

    def _answer(self, asked_at: float) -> None:
        metrics.LOOP_DELAY_S.observe(monotonic() - asked_at)
        self.beat()

    def _frames(self) -> list[Words]:
        frame = sys._current_frames().get(self._loop_thread or 0)  # noqa: SLF001 -- the only way to see another thread
        places = [place(each.f_code.co_filename, line, each.f_code.co_name) for each, line in walk_stack(frame)]
        return [Words(each) for each in places[:_FRAMES_MAX]]
