"""The play of the services: what a seed stands for."""

import random
from typing import Final

from tests.simulation.drain import drain
from tests.simulation.field import Plot
from tests.simulation.life.cast import Lives, open_pool
from tests.simulation.life.checker import check
from tests.simulation.life.steps import lay
from tests.simulation.run import Play
from tests.simulation.schedule import Schedule, Step
from tests.simulation.world import World

_KINDS: Final = {
    "submit": 10,
    "flow": 36,
    "consumer": 5,
    "worker": 5,
    "relay": 4,
    "sweep": 6,
    "lanes": 3,
    "house": 1,
    "crash": 3,
    "stop": 2,
    "replace": 3,
    "freeze": 2,
    "pass time": 5,
    "pass a lease": 4,
    "jump": 2,
    "rebalance": 2,
    "rewind": 2,
    "late": 2,
    "copy": 2,
    "retell": 5,
}


def schedule(seed: int) -> Schedule:
    """Make the schedule of a seed."""
    rng = random.Random(f"life {seed}")  # noqa: S311 -- a schedule must repeat
    count = rng.choice((3, 4, 5, 6, 8))
    kinds = rng.choices(list(_KINDS), list(_KINDS.values()), k=count)
    steps = tuple(Step(kind, rng.randrange(1 << 32)) for kind in ("submit", "submit", *kinds))
    replicas = tuple(rng.choice((1, 1, 1, 1, 2)) for _ in Lives.hears)
    return Schedule(seed, replicas, rng.choice((1, 2, 3)), rng.randrange(5), rng.choice((0, 0, 1)), steps)


async def judge(world: World) -> list[str]:
    """Judge what came of it; now and then also after all was told once more, as something new, which must change nothing."""
    found = await check(world)
    if found or not world.schedule.faults:
        return found
    world.trace.append("-- everything is told again")
    rng = random.Random(world.schedule.seed)  # noqa: S311 -- a schedule must repeat
    world.retell([record for topic in world.cast.topics for record in world.broker.of(topic.name)], rng)
    await drain(world)
    return await check(world)


PLOT: Final = Plot(tuple(Lives.hears), lay, ("shop", "simulated", "sealing"), open_pool)
LIVES: Final = Play("lives", Lives, PLOT, schedule, judge)
