"""Schedules: what happens in which order, as a pure function of one number, and the smallest part of it that still goes wrong."""

import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

TURNS: Final = ("consumer", "worker", "relay", "sweep", "lanes")

_KINDS: Final = {
    "submit": 10,
    "flow": 26,
    "consumer": 6,
    "worker": 6,
    "relay": 6,
    "sweep": 4,
    "lanes": 4,
    "house": 1,
    "crash": 3,
    "stop": 2,
    "replace": 4,
    "freeze": 2,
    "pass time": 5,
    "pass a lease": 3,
    "jump": 2,
    "rebalance": 3,
    "rewind": 2,
    "late": 2,
    "garbage": 2,
    "copy": 2,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens; ``seed`` decides whatever else has to be decided in it, so that steps can be left out one by one."""

    kind: str
    seed: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """A whole run: how many replicas and keys, which weather, which faults of handlers, which steps."""

    seed: int
    replicas: tuple[int, ...]
    keys: int
    weather: int
    faults: int
    steps: tuple[Step, ...]

    @property
    def at_once(self) -> bool:
        """Whether services handle messages as they come, where they can; in the others all lie in inboxes first."""
        return self.seed % 3 != 0

    @classmethod
    def of(cls, seed: int) -> "Schedule":
        """Make the schedule of a seed."""
        rng = random.Random(seed)  # noqa: S311 -- a schedule must repeat
        count = rng.choice((3, 4, 5, 6, 8, 12))
        kinds = rng.choices(list(_KINDS), list(_KINDS.values()), k=count)
        steps = tuple(Step(kind, rng.randrange(1 << 32)) for kind in ("submit", *kinds))
        replicas = (rng.choice((1, 1, 1, 1, 1, 2)), rng.choice((1, 1, 1, 2)))
        return cls(seed, replicas, rng.choice((1, 2, 3)), rng.randrange(5), rng.choice((0, 0, 0, 1, 2, 3)), steps)

    def with_steps(self, steps: Sequence[Step]) -> "Schedule":
        """Give the same with other steps."""
        return Schedule(self.seed, self.replicas, self.keys, self.weather, self.faults, tuple(steps))

    def to_json(self) -> str:
        """Render it, to be kept as a named case."""
        steps = [[step.kind, step.seed] for step in self.steps]
        return json.dumps([self.seed, self.replicas, self.keys, self.weather, self.faults, steps])

    @classmethod
    def from_json(cls, text: str) -> "Schedule":
        """Read what ``to_json`` rendered."""
        seed, replicas, keys, weather, faults, steps = json.loads(text)
        return cls(seed, tuple(replicas), keys, weather, faults, tuple(Step(*step) for step in steps))


async def shrink(
    schedule: Schedule, still_fails: Callable[[Schedule], Awaitable[bool]], runs_max: int = 200
) -> Schedule:
    """Leave out steps, halves first and single ones last, as long as it still goes wrong."""
    steps = list(schedule.steps)
    size = len(steps) // 2
    runs = 0
    while size and runs < runs_max:
        start = 0
        while start < len(steps) and runs < runs_max:
            fewer = steps[:start] + steps[start + size :]
            runs += 1
            if await still_fails(schedule.with_steps(fewer)):
                steps = fewer
            else:
                start += size
        size //= 2
    return schedule.with_steps(steps)
