"""Pace: one message is done at once; while there are many, rounds wait a moment so that each takes more of them.

Every round of a loop has a price whatever it finds: a transaction, a fetch, an acknowledgement. With many messages under way, rounds that
follow one another at once find a few each and spend most of their time on that price. A fleet of many loops spends all of it like that,
and then each round finds few because all the others took the time: so a loop goes by how many came lately, and not by one round alone.
"""

import asyncio
import math
from typing import Final

from habeas.chassis.clock import Clock
from habeas.chassis.waiting import wait_any

_SEVERAL: Final = 8
_ROUND_S: Final = 0.06
_BUSY_PER_S: Final = 75.0
_BUSY_ROUND_S: Final = 0.25
_MEMORY_S: Final = 1.0


class Pace:
    """The pace of one loop: ``begin`` before a round, ``rest`` after it.

    Rounds that found ``several`` are followed by a rest, and any round that found something while many come by a longer one.
    """

    def __init__(self, clock: Clock, several: int = _SEVERAL) -> None:
        self._clock = clock
        self._several = several
        self._began = clock.monotonic()
        self._counted_at = self._began
        self._recent = 0.0

    def begin(self) -> None:
        """Note that a round begins."""
        self._began = self._clock.monotonic()

    async def rest(self, found: int, most: int, stopping: asyncio.Event) -> bool:
        """Wait until the round has lasted its time, if it found several and could have taken more; ends early for a stop.

        Answers whether it waited at all.
        """
        if not found:
            return False
        self._recent = self._recent * math.exp((self._counted_at - self._began) / _MEMORY_S) + found
        self._counted_at = self._began
        if found == most:
            return False
        round_s = (
            _BUSY_ROUND_S if self._recent > _BUSY_PER_S * _MEMORY_S else _ROUND_S if found >= self._several else 0.0
        )
        left_s = self._began + round_s - self._clock.monotonic()
        if left_s > 0:
            await wait_any(stopping, stopping, left_s)
        return left_s > 0
