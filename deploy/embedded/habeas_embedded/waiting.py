"""Waiting on a condition with a limit: the one way this package waits."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Final

__all__ = ["until", "wait_blocking"]

_PAUSE_S: Final = 0.02


async def until(condition: Callable[[], bool | Awaitable[bool]], limit_s: float) -> bool:
    """Wait until `condition` holds; False when it did not within `limit_s` seconds. Asks at least once."""
    end = time.monotonic() + limit_s
    while True:
        holds = condition()
        if not isinstance(holds, bool):
            holds = await holds
        if holds:
            return True
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(_PAUSE_S)


def wait_blocking(condition: Callable[[], bool], limit_s: float) -> bool:
    """Wait like `until`, where no event loop runs."""
    end = time.monotonic() + limit_s
    pause = threading.Event()
    while not condition():
        if time.monotonic() >= end:
            return False
        pause.wait(_PAUSE_S)
    return True
