"""Bringing back what dies: one rule for services and servers."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

__all__ = ["Backoff", "Kept", "keep"]

_FIRST_S: Final = 0.5
_MAX_S: Final = 30.0
_SETTLED_S: Final = 60.0
_LOOK_S: Final = 1.0


@dataclass
class Backoff:
    """The pause before the next start: it doubles from 0.5 s to 30 s, and begins anew with what has run for a minute."""

    _next_s: float = field(default=_FIRST_S, init=False)

    def after(self, lived_s: float) -> float:
        """Return the pause after a life of so many seconds."""
        pause_s = _FIRST_S if lived_s > _SETTLED_S else self._next_s
        self._next_s = min(pause_s * 2, _MAX_S)
        return pause_s


class Kept(Protocol):
    """What can die and be started again."""

    @property
    def wanted(self) -> bool:
        """Whether it is to run: it was started, and was not stopped on purpose."""

    @property
    def alive(self) -> bool:
        """Whether its process runs."""

    async def ended(self) -> None:
        """Wait until its process has ended."""


async def keep(kept: Kept, again: Callable[[], Awaitable[None]]) -> None:
    """Call ``again`` whenever it has died, each time after a pause, until cancelled.

    What was stopped on purpose is left alone, until somebody starts it.
    """
    backoff = Backoff()
    since_s = time.monotonic()
    while True:
        await kept.ended()
        if not kept.wanted:
            await asyncio.sleep(_LOOK_S)
            since_s = time.monotonic()
            continue
        await asyncio.sleep(backoff.after(time.monotonic() - since_s))
        if _is_missing(kept):  # nobody else was faster, and nobody has stopped it meanwhile
            await again()
        since_s = time.monotonic()


def _is_missing(kept: Kept) -> bool:
    return kept.wanted and not kept.alive
