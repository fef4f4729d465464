"""Overload: three times what the fleet can do, for a minute; memory, queues and the time until everything is done.

The results are asserted by SQL: every request ends, once, and is answered by two mails; nothing is parked. A run of which that is not
true counts for nothing.
"""

import asyncio
import itertools
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import asyncpg
from rich.console import Console

from habeas.chassis.clock import SystemClock
from habeas.contracts.vocabulary import Right
from habeas.kit import Publisher
from habeas_demo.generator import PLATFORM_DIR
from habeas_demo.histories import Size
from habeas_demo.platform import prepare_platform
from habeas_demo.scenario import ISSUER_NAME, new_issuer, policy_with_issuer
from habeas_embedded.fleet import Fleet, FleetPlan
from habeas_embedded.provision import SERVICES, prepare_database
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from habeas_embedded.waiting import until
from tests.bench import cpu
from tests.bench.report import Figure
from tests.support.journal import UNLOGGED

_LOAD_S: Final = 60.0
_TIMES: Final = 3
_CALIBRATION: Final = 600
_PEOPLE: Final = 12_000
_BEAT_S: Final = 0.1
_GROWTH_MB_MAX: Final = 100.0
_DRAIN_LIMIT_S: Final = 600.0
_CLOCK: Final = SystemClock()
_SCHEMAS: Final = tuple(service.replace("-", "_") for service in SERVICES)

_WAITING: Final = " UNION ALL ".join(
    f"SELECT '{schema}' AS schema, (SELECT count(*) FROM {schema}.inbox WHERE state = 'pending') AS inbox,"
    f" (SELECT count(*) FROM {schema}.outbox WHERE published_at IS NULL)"
    f" + ({UNLOGGED.format(schema=schema)}) AS outbox"
    for schema in _SCHEMAS
)
_OPEN: Final = "SELECT count(*) FROM request_intake.requests WHERE state <> 'completed'"
_ENDED: Final = """
    SELECT count(*) AS requests, count(*) FILTER (WHERE state = 'completed') AS completed,
           (SELECT count(*) FROM request_intake.outbox WHERE type = 'request.completed') AS told,
           (SELECT count(DISTINCT subject) FROM request_intake.outbox WHERE type = 'request.completed') AS told_of,
           (SELECT count(*) FROM notification_mailer.messages WHERE state = 'sent') AS mails
      FROM request_intake.requests
"""
_PARKED: Final = " + ".join(f"(SELECT count(*) FROM {schema}.inbox WHERE state = 'parked')" for schema in _SCHEMAS)


@dataclass(slots=True)
class Seen:
    """The highest values of what was watched while the fleet was under load and until it was done."""

    inbox: dict[str, int] = field(default_factory=dict)
    outbox: dict[str, int] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    shown: float = 0.0
    lag: float = 0.0


@dataclass(slots=True)
class Ground:
    """The running fleet and what the load generator needs."""

    fleet: Fleet
    dsn: str
    publisher: Publisher
    habeas: "asyncpg.Connection[asyncpg.Record]"
    wanted: Iterator[tuple[Right, str]]
    asked: int = 0

    async def ask(self, count: int) -> None:
        """Send so many requests at once; returns when Kafka has them."""
        some = list(itertools.islice(self.wanted, count))
        await asyncio.gather(*(self._ask(*each) for each in some))
        self.asked += len(some)

    async def _ask(self, right: Right, account_id: str) -> None:
        details = {"ground": "consent_withdrawn"} if right is Right.ERASURE else None
        await self.publisher.request(right, account_id=account_id, country="DE", language="en", details=details)

    async def done(self, limit_s: float) -> float:
        """Wait until all that was asked for is completed; gives the time."""
        if not await until(self._all_completed, limit_s):
            message = f"not everything was completed within {limit_s:.0f} s"
            raise AssertionError(message)
        return _CLOCK.monotonic()

    async def _all_completed(self) -> bool:
        row = await self.habeas.fetchrow(_ENDED)
        return row is not None and row["completed"] == self.asked


async def measure(console: Console) -> list[Figure]:
    """Measure what the fleet does, then offer it three times as much for a minute; every result is checked before it counts."""
    async with _ground() as ground:
        begun = _CLOCK.monotonic()
        await ground.ask(_CALIBRATION)
        sustained = _CALIBRATION / (await ground.done(_DRAIN_LIMIT_S) - begun)
        console.print(f"overload: sustained {sustained:.0f}/s; offering {_TIMES} times as much for {_LOAD_S:.0f} s")
        before = cpu.resident_mb()
        seen = Seen(memory_mb=dict(before))
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_watch(ground, seen, stop))
            begun = _CLOCK.monotonic()
            asked_before = ground.asked
            await _offer(ground, sustained * _TIMES)
            offered_s = _CLOCK.monotonic() - begun
            offered = ground.asked - asked_before
            open_then = await ground.habeas.fetchval(_OPEN)
            ended = _CLOCK.monotonic()
            drained = await ground.done(_DRAIN_LIMIT_S)
            stop.set()
        await _require_whole(ground)
        return [
            *_rates(sustained, offered / offered_s, offered / (drained - begun)),
            *_queues(seen, offered, open_then, drained - ended),
            *_memory(before, seen.memory_mb),
        ]


async def _offer(ground: Ground, rate: float) -> None:
    begun = _CLOCK.monotonic()
    first = ground.asked
    while (passed := _CLOCK.monotonic() - begun) < _LOAD_S:
        due = int(rate * passed) - (ground.asked - first)
        if due > 0:
            await ground.ask(due)
        await asyncio.sleep(_BEAT_S)


async def _watch(ground: Ground, seen: Seen, stop: asyncio.Event) -> None:
    """Look once a second, through a connection of its own kind: the load must not make the view go dark."""
    connection = await asyncpg.connect(ground.dsn)
    try:
        while not stop.is_set():
            for row in await connection.fetch(_WAITING):
                seen.inbox[row["schema"]] = max(seen.inbox.get(row["schema"], 0), row["inbox"])
                seen.outbox[row["schema"]] = max(seen.outbox.get(row["schema"], 0), row["outbox"])
            for part, used in cpu.resident_mb().items():
                seen.memory_mb[part] = max(seen.memory_mb.get(part, 0.0), used)
            shown = await asyncio.to_thread(_gauges, ground.fleet)
            seen.shown = max(seen.shown, shown["habeas_inbox_pending_rows"])
            seen.lag = max(seen.lag, shown["habeas_kafka_lag_messages"])
            await asyncio.sleep(1.0)
    finally:
        await connection.close()


def _gauges(fleet: Fleet) -> Mapping[str, float]:
    """Give the largest value of each gauge of interest, as any scraper would see it."""
    found = {"habeas_inbox_pending_rows": 0.0, "habeas_kafka_lag_messages": 0.0}
    for member in fleet.members:
        with urllib.request.urlopen(f"http://127.0.0.1:{member.health_port}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                name = line.partition("{")[0].partition(" ")[0]
                if name in found:
                    found[name] = max(found[name], float(line.rpartition(" ")[2]))
    return found


async def _require_whole(ground: Ground) -> None:
    """Raise AssertionError unless every request ended once, was answered by two mails, and nothing is parked."""
    row = await ground.habeas.fetchrow(_ENDED)
    parked = await ground.habeas.fetchval(f"SELECT {_PARKED}")
    wanted = {
        "requests": ground.asked,
        "completed": ground.asked,
        "told": ground.asked,
        "told_of": ground.asked,
        "mails": 2 * ground.asked,
    }
    found = {} if row is None else dict(row)
    if found != wanted or parked:
        message = f"asked for {wanted}, found {found}, {parked} parked: this run counts for nothing"
        raise AssertionError(message)


def _rates(sustained: float, offered: float, done: float) -> list[Figure]:
    return [
        Figure("overload", "sustained, a burst of requests to request.completed", sustained, "1/s"),
        Figure("overload", f"offered for {_LOAD_S:.0f} s", offered, "1/s", note=f"{offered / sustained:.1f} times"),
        Figure("overload", "done, from the first offered to the last completed", done, "1/s"),
    ]


def _queues(seen: Seen, offered: int, open_then: int, drain_s: float) -> list[Figure]:
    inboxes = ", ".join(f"{schema} {rows}" for schema, rows in sorted(seen.inbox.items()) if rows)
    outboxes = ", ".join(f"{schema} {rows}" for schema, rows in sorted(seen.outbox.items()) if rows)
    return [
        Figure("overload", "requests open when the load ended", open_then, "", note=f"of {offered} offered"),
        Figure("overload", "longest inbox", max(seen.inbox.values()), "rows", note=inboxes),
        Figure("overload", "longest inbox as the gauge showed it", seen.shown, "rows"),
        Figure("overload", "longest lag in Kafka as the gauge showed it", seen.lag, "messages"),
        Figure("overload", "longest outbox", max(seen.outbox.values()), "rows", note=outboxes),
        Figure("overload", "drained after the load", drain_s, "s", better="lower"),
        Figure("overload", "lost, double or parked", 0, "", better="lower", note="by SQL, or the run is void"),
    ]


def _memory(before: Mapping[str, float], peak: Mapping[str, float]) -> list[Figure]:
    growth = {part: peak[part] - before.get(part, 0.0) for part in peak}
    most = max(growth, key=lambda part: growth[part])
    note = ", ".join(f"{part} {before.get(part, 0.0):.0f} to {peak[part]:.0f}" for part in sorted(peak))
    if growth[most] > _GROWTH_MB_MAX:
        message = f"{most} grew by {growth[most]:.0f} MB: memory is not bounded ({note})"
        raise AssertionError(message)
    return [
        Figure("overload", f"most that a service grew ({most})", growth[most], "MB", _GROWTH_MB_MAX, "lower", note=note)
    ]


def _wanted(accounts: Sequence[str]) -> Iterator[tuple[Right, str]]:
    """Erasures and access in turns; who is erased is asked about once, who wants to know is asked about again and again."""
    half = len(accounts) // 8
    reading = itertools.cycle(accounts[:half])
    for erased in accounts[half:]:
        yield Right.ERASURE, erased
        yield Right.ACCESS, next(reading)


@asynccontextmanager
async def _ground() -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(Servers("bench-overload"))
        now = _CLOCK.now()
        access, platform, _ = await asyncio.gather(
            prepare_database(servers.postgres_admin_dsn),
            prepare_platform(
                servers.postgres_admin_dsn,
                seed=7,
                now=now,
                size=Size(accounts=_PEOPLE, days=120, logs_each=3, tasks_each=1),
            ),
            create_topics(servers.kafka_bootstrap),
        )
        issuer = new_issuer("bench")
        policy_file = servers.run.directory / "policy.yaml"
        policy_file.write_text(policy_with_issuer((PLATFORM_DIR / "policy.yaml").read_text(), issuer))
        shared = {"HABEAS_LOG_LEVEL": "warning", "HABEAS_TRACE_RATIO": "0"}
        plan = FleetPlan(policy_file, PLATFORM_DIR / "datamap", platform.service_dsns, shared)
        fleet = await stack.enter_async_context(Fleet(servers, access, plan))
        publisher = await stack.enter_async_context(
            Publisher(servers.kafka_bootstrap, source=ISSUER_NAME, issuer=issuer)
        )
        habeas = await asyncpg.connect(access.admin_dsn)
        stack.push_async_callback(habeas.close)
        accounts = [person.account_id for person in platform.loaded.people if person.closed_at is None]
        yield Ground(fleet, access.admin_dsn, publisher, habeas, _wanted(accounts))
