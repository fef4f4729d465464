"""The schedule of a campaign's faults, drawn from a seed before anything runs."""

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from habeas_embedded.provision import SERVICES

SERVERS: Final = ("kafka", "postgres", "smtp")


class Kind(StrEnum):
    """What a fault does."""

    KILL = "kill"  # SIGKILL, then started again
    KILL_BACKEND = "kill_backend"  # SIGKILL to one process of PostgreSQL: all its connections end
    KILL_ALL = "kill_all"  # SIGKILL to every replica of every service at once
    PAUSE = "pause"  # SIGSTOP, then SIGCONT
    RESTART = "restart"  # SIGTERM, waited for, then started again
    CLOCK = "clock"  # SIGKILL, then started with a moved clock
    CUT = "cut"  # connections reset
    REFUSE = "refuse"  # connections reset, and no new ones taken for a while
    DELAY = "delay"  # every packet later
    STALL = "stall"  # no packet at all, connections stay open
    QUOTA = "quota"  # no file may grow any more, for a while


KILLS: Final = frozenset({Kind.KILL, Kind.KILL_BACKEND, Kind.CLOCK})


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when it begins, counted from the first; how long until it is mended; and a measure where the kind has one."""

    at_s: float
    kind: Kind
    target: str
    instance: int = 0
    seconds: float = 0.0
    measure: float = 0.0


@dataclass(frozen=True, slots=True)
class Dose:
    """How many faults of which kind, within how long."""

    duration_s: float
    kills: int
    others: int


def plan(seed: int, dose: Dose, replicas: int) -> list[Fault]:
    """Give the faults in their order; equal arguments give equal faults. Every target is killed more than once."""
    rng = random.Random(f"kill-faults:{seed}")  # noqa: S311 -- a schedule, nothing secret
    made = [_kill(rng, kind, target, replicas) for kind, target in _victims(rng, dose.kills)]
    made += [_other(rng, replicas) for _ in range(dose.others)]
    rng.shuffle(made)
    step = dose.duration_s / max(1, len(made))
    times = sorted((number + rng.random()) * step for number in range(len(made)))
    return [
        Fault(at, fault.kind, fault.target, fault.instance, fault.seconds, fault.measure)
        for at, fault in zip(times, made, strict=True)
    ]


def _victims(rng: random.Random, kills: int) -> list[tuple[Kind, str]]:
    """Spread kills over targets: servers get their share first, services the rest in turn."""
    shares = (
        (Kind.KILL, "kafka", 0.05),
        (Kind.KILL, "postgres", 0.05),
        (Kind.KILL_BACKEND, "postgres", 0.06),
        (Kind.KILL, "smtp", 0.07),
    )
    found = [(kind, target) for kind, target, share in shares for _ in range(max(2, round(kills * share)))][:kills]
    services = [SERVICES[number % len(SERVICES)] for number in range(kills - len(found))]
    found += [(Kind.CLOCK if rng.random() < 0.12 else Kind.KILL, service) for service in services]
    return found


def _kill(rng: random.Random, kind: Kind, target: str, replicas: int) -> Fault:
    down_s = rng.choice((0.0, 0.1, 0.5, 1.0, 2.0, 4.0))
    measure = rng.uniform(-20, 20) if kind is Kind.CLOCK else 0.0
    return Fault(0, kind, target, 0 if target in SERVERS else rng.randrange(replicas), down_s, measure)


def _other(rng: random.Random, replicas: int) -> Fault:
    kind = rng.choices(
        (Kind.PAUSE, Kind.RESTART, Kind.CUT, Kind.REFUSE, Kind.DELAY, Kind.STALL, Kind.QUOTA, Kind.KILL_ALL),
        (26, 10, 18, 8, 12, 8, 8, 2),
        k=1,
    )[0]
    match kind:
        case Kind.PAUSE:
            target = rng.choice((*SERVICES, *SERVICES, *SERVERS))
            seconds = rng.choice((0.3, 1.0, 2.0, 5.0))
            return Fault(0, kind, target, _instance(rng, target, replicas), seconds)
        case Kind.RESTART:
            target = rng.choice((*SERVICES, "kafka", "postgres"))
            return Fault(0, kind, target, _instance(rng, target, replicas))
        case Kind.CUT:
            return Fault(0, kind, rng.choice(SERVERS), measure=rng.choice((0.3, 1.0)))
        case Kind.REFUSE | Kind.STALL:
            return Fault(0, kind, rng.choice(SERVERS), seconds=rng.uniform(0.5, 4.0))
        case Kind.DELAY:
            return Fault(0, kind, rng.choice(SERVERS), seconds=rng.uniform(1.0, 4.0), measure=rng.uniform(0.005, 0.08))
        case Kind.QUOTA:
            target = rng.choice(("export-builder", "audit-ledger", "export-builder", "audit-ledger", "postgres"))
            return Fault(0, kind, target, _instance(rng, target, replicas), rng.uniform(0.5, 3.0))
        case _:
            return Fault(0, kind, "fleet", seconds=rng.uniform(0.0, 1.0))


def _instance(rng: random.Random, target: str, replicas: int) -> int:
    return 0 if target in SERVERS else rng.randrange(replicas)
