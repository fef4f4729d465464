"""What a schedule decides at each place where the world could interfere: a pure function of the schedule's seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Weather:
    """How likely each kind of trouble is at one place."""

    hold: float = 0.0  # the process stands still here until its turn comes again
    lose: float = 0.0  # what is asked for does not happen, or its answer does not arrive
    crash: float = 0.0  # the process dies here


CALM: Final = Weather()
KINDS: Final[Sequence[Weather]] = (
    Weather(hold=0.02, lose=0.02, crash=0.01),
    Weather(hold=0.08, lose=0.01, crash=0.01),
    Weather(hold=0.01, lose=0.08, crash=0.0),
    Weather(hold=0.03, lose=0.01, crash=0.04),
    Weather(hold=0.08, lose=0.04, crash=0.03),
)


class Fate:
    """What happens at one place, and whatever else has to be chosen there."""

    def __init__(self, rng: random.Random, weather: Weather) -> None:
        self._rng = rng
        self._is_calm = weather is CALM
        drawn = 1.0 if self._is_calm else rng.random()
        self.is_held = drawn < weather.hold
        self.is_lost = not self.is_held and drawn < weather.hold + weather.lose
        self.is_crash = not (self.is_held or self.is_lost) and drawn < weather.hold + weather.lose + weather.crash

    def among(self, count: int) -> int:
        """Choose one of ``count``."""
        return self._rng.randrange(count)

    def at_most(self, count: int) -> int:
        """Choose how many of ``count`` come now; in calm weather all do."""
        return count if self._is_calm or count < 1 else self._rng.randint(1, count)

    def may_skip(self) -> bool:
        """Choose whether something that is ready comes later; in calm weather nothing does."""
        return not self._is_calm and self._rng.random() < 0.25

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Give the items in some order; in calm weather in theirs."""
        mixed = list(items)
        if not self._is_calm:
            self._rng.shuffle(mixed)
        return mixed
