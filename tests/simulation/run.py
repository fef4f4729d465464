"""Running schedules: one, many, and the smallest one that goes wrong.

As a program it is one process of a campaign: ``python -m tests.simulation.run``, the administrator's DSN on standard input, one line of
JSON at the end.
"""

import argparse
import asyncio
import contextlib
import importlib
import json
import random
import secrets
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from unittest.mock import patch

import uvloop
from typing_extensions import override

from habeas.chassis import consumer, crash, database, kafka, lease, log, waiting
from habeas_embedded.provision import apply_roles, clone_database, drop_database, open_access
from tests.simulation import broker, checker
from tests.simulation.actors import Hangs
from tests.simulation.campaign import OPTIONS
from tests.simulation.cast import Cast
from tests.simulation.drain import drain
from tests.simulation.field import Field, Plot
from tests.simulation.schedule import Schedule, shrink
from tests.simulation.toys import Toys
from tests.simulation.world import Broken, Variants, World

_SILENT: Final = 9  # more severe than anything
_SAID: Final = {" is dead": "deaths", " is held at ": "pauses", " loses ": "losses", " has trouble": "troubles"}


@dataclass(frozen=True)
class Play:
    """What is simulated: who plays on which ground, what a seed stands for, and who judges in the end."""

    name: str
    casting: Callable[[Schedule, random.Random], Cast]
    plot: Plot
    schedule: Callable[[int], Schedule]
    judge: Callable[[World], Awaitable[list[str]]]


TOYS: Final = Play("toys", Toys, Plot(), Schedule.of, checker.check)


@dataclass(frozen=True)
class Outcome:
    """What came of one schedule."""

    play: Play
    schedule: Schedule
    violations: list[str]
    trace: list[str]

    @property
    def is_good(self) -> bool:
        """Whether everything held."""
        return not self.violations

    def counts(self) -> Counter[str]:
        """Count what happened."""
        said = Counter(word for line in self.trace for word in _SAID if word in line)
        return Counter({_SAID[word]: count for word, count in said.items()}) + Counter(steps=len(self.schedule.steps))

    @override
    def __str__(self) -> str:
        lines = [f"seed {self.schedule.seed}: {len(self.schedule.steps)} steps"]
        lines += [f"  ! {violation}" for violation in self.violations]
        lines += [f"    {line}" for line in self.trace]
        lines += [f"  again: make test-sim ARGS='--seed={self.schedule.seed} {OPTIONS[self.play.name]}=1'"]
        return "\n".join([*lines, f"  as a case: {self.schedule.to_json()}"])


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """Put the memory broker into FastStream's place, let no retry wait, and keep the log quiet, for a block."""
    rank, log._log.rank = log._log.rank, _SILENT
    try:
        with (
            patch.object(consumer, "KafkaBroker", broker.FastStreamBroker),
            patch.object(consumer, "wait_any", _no_wait),
            patch.object(kafka, "fetch_whole", lambda _: None),
            patch.object(kafka, "drop_held_fetches", lambda _: None),
            patch.object(database, "_BACKOFF_FIRST_S", 0.0),
            patch.object(waiting, "_TROUBLE_FIRST_S", 0.0),
            patch.object(lease, "wait_any", _until_done),
            patch.object(asyncio, "to_thread", _at_once),
        ):
            yield
    finally:
        log._log.rank = rank


async def _no_wait(first: asyncio.Event, second: asyncio.Event, limit_s: float) -> bool:
    return first.is_set() or second.is_set()


async def _until_done(first: asyncio.Event, second: asyncio.Event, limit_s: float) -> bool:
    """Renew no lease: an attempt that stands still loses it when the time has passed."""
    await first.wait()
    return True


async def _at_once(work: Callable[..., object], *args: object) -> object:
    """Do in the one thread that there is what would be done in another."""
    return work(*args)


async def run(schedule: Schedule, ground: Field, variants: Variants | None = None, play: Play = TOYS) -> Outcome:
    """Run one schedule on a clean field and check it."""
    await ground.clean()
    world = World(schedule, ground, variants or Variants(), play.casting)
    crash.arm(world.stage.at)
    violations: list[str] = []
    try:
        for step in schedule.steps:
            await world.run(step)
        violations += await checker.check_running(world)
        await drain(world)
        violations += await play.judge(world)
    except (Broken, Hangs) as error:
        violations.append(f"{type(error).__name__}: {error}")
    finally:
        crash.arm(None)
        for replica in (*world.replicas.values(), *world.ghosts):
            for actor in replica.actors.values():
                await world.stage.kill(actor)
    return Outcome(play, schedule, violations, world.trace)


async def find(
    ground: Field,
    seeds: Sequence[int],
    variants: Variants | None = None,
    play: Play = TOYS,
    *,
    tries: int = 200,
    counts: Counter[str] | None = None,
) -> tuple[int, Outcome | None]:
    """Run schedules until one goes wrong, and make that one small in so many tries; gives how many were run."""
    for count, seed in enumerate(seeds, 1):
        outcome = await run(play.schedule(seed), ground, variants, play)
        if counts is not None:
            counts.update(outcome.counts())
        if outcome.is_good:
            continue

        async def still_fails(fewer: Schedule) -> bool:
            return not (await run(fewer, ground, variants, play)).is_good

        small = await run(await shrink(outcome.schedule, still_fails, tries), ground, variants, play)
        return count, outcome if small.is_good else small
    return len(seeds), None


async def campaign(play: Play, admin_dsn: str, template: str, first: int, count: int) -> dict[str, object]:
    """Run ``count`` schedules from seed ``first`` on in a database of their own."""
    access = open_access(admin_dsn, f"habeas_sim_{secrets.token_hex(6)}")
    await clone_database(admin_dsn, template, access.database)
    await apply_roles(access, set_passwords=False)
    ground = await Field.lay(access, play.plot)
    counts: Counter[str] = Counter()
    try:
        with simulated():
            done, bad = await find(ground, range(first, first + count), play=play, counts=counts)
    finally:
        await ground.close()
        await drop_database(admin_dsn, access.database)
    return {"schedules": done, "counts": counts, "bad": None if bad is None else str(bad)}


def main() -> None:
    """Run a share of a campaign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--play", required=True, choices=OPTIONS)
    parser.add_argument("--template", required=True, help="a migrated database to copy")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--schedules", type=int, required=True)
    chosen = parser.parse_args()
    play = importlib.import_module("tests.simulation.life.play").LIVES if chosen.play == "lives" else TOYS
    report = uvloop.run(campaign(play, sys.stdin.read(), chosen.template, chosen.seed, chosen.schedules))
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
