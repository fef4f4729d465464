"""Waiting on a condition: within a limit, or as long as there is progress."""

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final

__all__ = ["Patience", "until", "until_progress_ends", "wait_blocking"]

Condition = Callable[[], bool | Awaitable[bool]]

_PAUSE_S: Final = 0.02
_PAUSE_MAX_S: Final = 0.25
_LOOK_MAX_S: Final = 1.0  # progress is looked at so often at most: reading it costs more than most conditions


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for something whose duration nobody knows.

    It is given up after ``still_s`` seconds without any progress, and after ``most_s`` seconds in any case. After ``first_word_s``
    seconds, and then every ``later_words_s``, the person who waits is told.
    """

    still_s: float
    most_s: float = math.inf
    first_word_s: float = 5.0
    later_words_s: float = 15.0


async def until(condition: Condition, limit_s: float) -> bool:
    """Wait until ``condition`` holds; False when it did not within ``limit_s`` seconds. Asks at least once."""
    end = time.monotonic() + limit_s
    while True:
        if await _holds(condition):
            return True
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(_PAUSE_S)


async def until_progress_ends(
    condition: Condition,
    progress: Callable[[], Hashable],
    patience: Patience,
    told: Callable[[float], None] = lambda _: None,
) -> bool:
    """Wait until ``condition`` holds; False when progress ended before.

    There is progress while ``progress`` keeps returning something new. ``told`` gets the seconds waited so far.
    """
    begun = time.monotonic()
    look_every_s = min(_LOOK_MAX_S, patience.still_s / 4)
    seen, moved_s, word_s, look_s, pause_s = progress(), begun, begun + patience.first_word_s, begun, _PAUSE_S
    while not await _holds(condition):
        now = time.monotonic()
        if now >= look_s:
            look_s = now + look_every_s
            if (found := progress()) != seen:
                seen, moved_s = found, now
        if now - moved_s >= patience.still_s or now - begun >= patience.most_s:
            return False
        if now >= word_s:
            word_s = now + patience.later_words_s
            told(now - begun)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.1, _PAUSE_MAX_S)
    return True


def wait_blocking(condition: Callable[[], bool], limit_s: float) -> bool:
    """Wait like ``until``, where no event loop runs."""
    end = time.monotonic() + limit_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() >= end:
            return False
        pause.wait(_PAUSE_S)
    return True


async def _holds(condition: Condition) -> bool:
    holds = condition()
    return holds if isinstance(holds, bool) else await holds
