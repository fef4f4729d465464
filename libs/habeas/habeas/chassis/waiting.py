"""Waiting for events of one's own process, always with a limit."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final, TypeAlias

from habeas.chassis import log
from habeas.chassis.redaction import Name, Words

Explain: TypeAlias = Callable[[BaseException], Awaitable[str]]

BEAT_S: Final = 5.0

_TROUBLE_FIRST_S: Final = 0.25
_TROUBLE_LONGEST_S: Final = 1.0
_TOLD_EVERY_S: Final = 30.0
_EXPLAINED_S: Final = 6.0
_EARLY_S: Final = 0.05  # timers may fire a little early, and a beat must not be counted twice


def is_cancelled() -> bool:
    """Answer whether somebody has cancelled this very task; a CancelledError may also be that of something it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def bounded(step: Awaitable[object], limit_s: float) -> None:
    """Wait for one step of a stop, which goes on whatever the step says; the next start mends what was left."""
    try:
        async with asyncio.timeout(limit_s):
            await step
    except (Exception, asyncio.CancelledError) as error:
        if is_cancelled():
            raise
        log.event("service.stop_step_failed", error=error)


async def wait_any(first: asyncio.Event, second: asyncio.Event, limit_s: float) -> bool:
    """Wait until either event is set or the limit is over; answers whether one was set."""
    if first.is_set() or second.is_set():
        return True
    if first is second:
        try:
            async with asyncio.timeout(limit_s):
                return await first.wait()
        except TimeoutError:
            return False
    loop = asyncio.get_running_loop()
    waiters = [loop.create_task(first.wait()), loop.create_task(second.wait())]
    try:
        done, _ = await asyncio.wait(waiters, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for waiter in waiters:
            waiter.cancel()


async def unless(given_up: asyncio.Event, step: Coroutine[object, object, object]) -> bool:
    """Wait for a step, which is cancelled once the event is set; answers whether it was done. Raises what the step raises."""
    loop = asyncio.get_running_loop()
    stepping, waiting = loop.create_task(step), loop.create_task(given_up.wait())
    try:
        await asyncio.wait({stepping, waiting}, return_when=asyncio.FIRST_COMPLETED)
        is_done = stepping.done()
        if is_done:
            stepping.result()
        return is_done
    finally:
        waiting.cancel()
        stepping.cancel()
        await asyncio.wait({stepping})


def on_beat(limit_s: float) -> float:
    """Return how long to wait, in seconds, so that a wait of at most ``limit_s`` ends on a beat of the process.

    Beats are five seconds apart and the same for every loop, so that all that looks now and then looks in one wake-up. A limit below
    one beat is returned as it is.
    """
    if limit_s < BEAT_S:
        return limit_s
    now = asyncio.get_running_loop().time()
    return math.floor((now + limit_s + _EARLY_S) / BEAT_S) * BEAT_S - now


class Outage:
    """Trouble with a server that a loop waits out, for however long: tried again soon, then every second, told now and then."""

    def __init__(self, event: str, waiting_for: Name | None = None, explain: Explain | None = None) -> None:
        """``event`` is what is logged, ``waiting_for`` what is away, where one event is of several; ``explain`` says why, for a person."""
        self.why: str | None = None
        self._event = event
        self._waiting_for = waiting_for
        self._explain = explain
        self._next_s = _TROUBLE_FIRST_S
        self._told_at = -math.inf

    async def wait(self, error: BaseException, stopping: asyncio.Event, longest_s: float | None = None) -> None:
        """Log the error, unless one was logged within the last half minute, and wait before the next try; ends early for a stop.

        ``longest_s`` is for an error that needs somebody's hand: tries come less and less often, until so many seconds apart.
        """
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= _TOLD_EVERY_S or self._next_s == _TROUBLE_FIRST_S:
            self._told_at = now
            self.why = await self._explained(error)
            fields = {"waiting_for": self._waiting_for, "why": None if self.why is None else Words(self.why)}
            known = {name: value for name, value in fields.items() if value is not None}
            log.event(self._event, severity=None, error=error, **known)
        longest_s = _TROUBLE_LONGEST_S if longest_s is None else longest_s
        pause_s, self._next_s = min(self._next_s, longest_s), min(self._next_s * 2, longest_s)
        await wait_any(stopping, stopping, pause_s)

    @property
    def is_new(self) -> bool:
        """Whether nothing was waited for yet since it was over."""
        return self._next_s == _TROUBLE_FIRST_S

    def over(self) -> None:
        """Note that the server answers."""
        self._next_s = _TROUBLE_FIRST_S
        self.why = None

    async def _explained(self, error: BaseException) -> str | None:
        """Ask for the reason, for a few seconds at most: it is a help, and nothing waits for it."""
        if self._explain is None:
            return None
        try:
            async with asyncio.timeout(_EXPLAINED_S):
                return await self._explain(error)
        except TimeoutError:
            return self.why
