"""How tests wait: on a condition, for as long as anything goes on.

No test is judged by how fast a machine is. A wait ends when its condition holds, and is given up only when nothing that is watched
has changed for minutes; then it says what it waited for and what it saw last.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

__all__ = ["HANGS_S", "STILL_S", "never", "until"]

STILL_S: Final = 150.0
"""So long nothing that is watched may change: many times what the slowest step takes on two busy cores."""

HANGS_S: Final = 600.0
"""A limit, in seconds, for what nobody can watch; who is not done by then hangs."""

_PAUSE_FIRST_S: Final = 0.01
_PAUSE_MAX_S: Final = 0.1
_LOOK_S: Final = 1.0

T = TypeVar("T")


async def until(
    condition: Callable[[], bool | Awaitable[bool]],
    what: str,
    sees: Callable[[], object | Awaitable[object]] | None = None,
    *,
    still_s: float = STILL_S,
) -> None:
    """Wait until the condition holds.

    ``sees`` gives what is watched, anything that has a ``repr``: as long as that changes, the wait goes on. Raises AssertionError after
    ``still_s`` seconds without a change, and after ``HANGS_S`` in any case: who only complains of the same again and again is stuck.
    """
    begun = changed_s = looked_s = time.monotonic()
    pause_s = _PAUSE_FIRST_S
    seen: str | None = None
    while not await _value(condition()):
        now = time.monotonic()
        if seen is None or now - looked_s >= _LOOK_S:
            looked_s = now
            look = "nothing" if sees is None else repr(await _value(sees()))
            if look != seen:
                seen, changed_s = look, now
        if now - changed_s > still_s or now - begun > HANGS_S:
            waited = f"waited {now - begun:.0f} s for {what}"
            raise AssertionError(f"{waited}; what was seen last has not changed for {now - changed_s:.0f} s: {seen}")
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.2, _PAUSE_MAX_S)


async def never(condition: Callable[[], bool | Awaitable[bool]], moment_s: float) -> bool:
    """Look for a moment, and answer whether the condition did not hold all along: what is wrong must show, and may be slow to."""
    end = time.monotonic() + moment_s
    while not await _value(condition()):
        if time.monotonic() > end:
            return True
        await asyncio.sleep(_PAUSE_FIRST_S)
    return False


async def _value(given: T | Awaitable[T]) -> T:
    return await given if inspect.isawaitable(given) else given
