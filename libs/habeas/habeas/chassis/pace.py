"""Pace: one message is done at once; while there are many, rounds wait a moment so that each takes more of them.

Every round of a loop has a price whatever it finds: a transaction, a fetch, an acknowledgement. With many messages under way, rounds that
follow one another at once find a few each and spend most of their time on that price.
"""

import asyncio
from typing import Final

from habeas.chassis.clock import Clock
from habeas.chassis.waiting import wait_any

_SEVERAL: Final = 8
_ROUND_S: Final = 0.06


class Pace:
    """The pace of one loop: ``begin`` before a round, ``rest`` after it. Rounds that found ``several`` are followed by a rest."""

    def __init__(self, clock: Clock, several: int = _SEVERAL) -> None:
        self._clock = clock
        self._several = several
        self._began = clock.monotonic()

    def begin(self) -> None:
        """Note that a round begins."""
        self._began = self._clock.monotonic()

    async def rest(self, found: int, most: int, stopping: asyncio.Event) -> None:
        """Wait until the round has lasted its time, if it found several and could have taken more; ends early for a stop."""
        if self._several <= found < most:
            left_s = self._began + _ROUND_S - self._clock.monotonic()
            if left_s > 0:
                await wait_any(stopping, stopping, left_s)
