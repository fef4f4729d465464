"""B1, B2, B3 and B14: the whole fleet, from the platform's message to the answer, on embedded servers."""

import asyncio
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer
from rich.console import Console

from habeas.chassis.clock import SystemClock
from habeas.contracts import topics
from habeas.contracts.envelope import decode_headers
from habeas.contracts.vocabulary import Right
from habeas.kit import Publisher
from habeas_demo.exports import open_exports
from habeas_demo.generator import PLATFORM_DIR
from habeas_demo.histories import Size
from habeas_demo.platform import PlatformAccess, prepare_platform
from habeas_demo.scenario import ISSUER_NAME, new_issuer, policy_with_issuer
from habeas_embedded.fleet import Fleet, FleetPlan
from habeas_embedded.provision import SERVICES, Access, prepare_database
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from tests.bench import cpu, raw
from tests.bench.report import Figure

_LIMIT_S: Final = 300.0
_SINGLES: Final = 200  # of each right: fewer have no 99th percentile
_RAW: Final = 500
_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work each benchmark gets; every person is asked about once."""

    erasures: int = 2_000
    exports: int = 1_000


@dataclass(slots=True)
class Listener:
    """Hears when requests reach an event, by the clock of this process."""

    consumer: AIOKafkaConsumer
    seen: dict[tuple[str, UUID], float]
    missing: set[tuple[str, UUID]]
    complete: asyncio.Event

    @classmethod
    async def open(cls, bootstrap: str) -> "Listener":
        """Listen to requests and erasures from now on."""
        consumer = AIOKafkaConsumer(
            topics.REQUESTS.name,
            topics.ERASURES.name,
            topics.EXPORTS.name,
            bootstrap_servers=bootstrap,
            group_id=None,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        return cls(consumer, {}, set(), asyncio.Event())

    async def run(self) -> None:
        """Note the first time of each event."""
        async for record in self.consumer:
            envelope = decode_headers(record.headers)
            heard = envelope.type, UUID(envelope.subject)
            self.seen.setdefault(heard, _CLOCK.monotonic())
            self.missing.discard(heard)
            if not self.missing:
                self.complete.set()

    async def until(self, kind: str, request_ids: Sequence[UUID]) -> float:
        """Wait until every request has reached the event; gives the time of the last."""
        self.missing = {(kind, each) for each in request_ids} - self.seen.keys()
        self.complete.clear()
        if self.missing:
            async with asyncio.timeout(_LIMIT_S):
                await self.complete.wait()
        return max(self.seen[kind, each] for each in request_ids)


async def measure(console: Console, sizes: Sizes) -> list[Figure]:
    """Start everything anew, and measure; every result is checked before it counts."""
    async with AsyncExitStack() as stack:
        started = _CLOCK.monotonic()
        servers = await stack.enter_async_context(Servers("bench"))
        servers_s = _CLOCK.monotonic() - started
        people = sizes.erasures + sizes.exports + 2 * _SINGLES
        now = _CLOCK.now()
        access, platform, _ = await asyncio.gather(
            prepare_database(servers.postgres_admin_dsn),
            prepare_platform(
                servers.postgres_admin_dsn,
                seed=7,
                now=now,
                size=Size(accounts=people + 2 * _RAW + 500, days=120, logs_each=5, tasks_each=2),
            ),
            create_topics(servers.kafka_bootstrap),
        )
        issuer = new_issuer("bench")
        policy_file = servers.run.directory / "policy.yaml"
        policy_file.write_text(policy_with_issuer((PLATFORM_DIR / "policy.yaml").read_text(), issuer))
        fleet = Fleet(
            servers,
            access,
            FleetPlan(
                policy_file,
                PLATFORM_DIR / "datamap",
                platform.service_dsns,
                {"HABEAS_LOG_LEVEL": "warning", "HABEAS_TRACE_RATIO": "0"},
            ),
        )
        started = _CLOCK.monotonic()
        await stack.enter_async_context(fleet)
        figures = [_b14(servers_s, _CLOCK.monotonic() - started), *_memory()]
        accounts = [person.account_id for person in platform.loaded.people if person.closed_at is None]
        listener = await Listener.open(servers.kafka_bootstrap)
        stack.push_async_callback(listener.consumer.stop)
        listening = asyncio.create_task(listener.run())
        stack.callback(listening.cancel)
        publisher = await stack.enter_async_context(
            Publisher(servers.kafka_bootstrap, source=ISSUER_NAME, issuer=issuer)
        )
        console.print("B3: single requests on an idle fleet")
        figures += await _b3(publisher, listener, accounts[: 2 * _SINGLES])
        rest = accounts[2 * _SINGLES :]
        console.print(f"B1: {sizes.erasures} erasures")
        raw_exports = await raw.exports_per_second(platform.owner_dsn, rest[-_RAW:])
        raw_erasures = await raw.erasures_per_second(platform.owner_dsn, rest[-_RAW:])
        erasures = await _b1(publisher, listener, rest[: sizes.erasures], platform)
        figures += [replace(erasures[0], raw=raw_erasures), *erasures[1:]]
        console.print(f"B2: {sizes.exports} exports")
        rest = rest[sizes.erasures : sizes.erasures + sizes.exports]
        exports = await _b2(publisher, listener, rest, access, fleet)
        return [*figures, replace(exports[0], raw=raw_exports), *exports[1:]]


def _b14(servers_s: float, fleet_s: float) -> Figure:
    note = f"servers {servers_s:.1f} s, six services {fleet_s:.1f} s"
    return Figure("B14", "start to ready", servers_s + fleet_s, "s", 10, "lower", note=note)


def _memory() -> list[Figure]:
    used = cpu.resident_mb()
    note = ", ".join(f"{part} {size:.0f}" for part, size in sorted(used.items()))
    return [
        Figure("B14", f"memory at rest, {len(SERVICES)} services", sum(used.values()), "MB", 500, "lower", note=note)
    ]


async def _b3(publisher: Publisher, listener: Listener, accounts: Sequence[str]) -> list[Figure]:
    """One request after the other; from the publisher's acknowledgement asked for to the event heard."""
    figures = []
    half = len(accounts) // 2
    for right, kind, mine in (
        (Right.ERASURE, "erasure.completed", accounts[:half]),
        (Right.ACCESS, "export.completed", accounts[half:]),
    ):
        took, whole = [], []
        for account_id in mine:
            begun = _CLOCK.monotonic()
            request_id = await _ask(publisher, right, account_id)
            took.append((await listener.until(kind, [request_id]) - begun) * 1000)
            whole.append((await listener.until("request.completed", [request_id]) - begun) * 1000)
        for name, times in ((kind, took), ("request.completed, mail taken", whole)):
            cuts = statistics.quantiles(times, n=100)
            figures.append(Figure("B3", f"{right}: p50 to {name}", cuts[49], "ms", 60, "lower"))
            figures.append(Figure("B3", f"{right}: p99 to {name}", cuts[98], "ms", 200, "lower"))
    return figures


async def _b1(
    publisher: Publisher, listener: Listener, accounts: Sequence[str], platform: PlatformAccess
) -> list[Figure]:
    """Erasures through Kafka, event in to completed event out; the rows are looked for afterwards, by SQL of our own."""
    conn = await asyncpg.connect(platform.owner_dsn)
    rows_each = await conn.fetchval(
        """SELECT (SELECT count(*) FROM tasks WHERE account_id = ANY($1)) + (SELECT count(*) FROM execution_logs WHERE account_id = ANY($1))
                + (SELECT count(*) FROM task_steps AS s JOIN tasks AS t ON t.id = s.task_id WHERE t.account_id = ANY($1))
                + (SELECT count(*) FROM sessions WHERE account_id = ANY($1))""",
        list(accounts),
    ) / len(accounts)
    figures = await _through(publisher, listener, accounts, Right.ERASURE, "erasure.completed", ("B1", 500.0, 0.004))
    left = await conn.fetchval("SELECT count(*) FROM accounts WHERE id = ANY($1)", list(accounts))
    left += await conn.fetchval("SELECT count(*) FROM tasks WHERE account_id = ANY($1)", list(accounts))
    await conn.close()
    if left:
        message = f"{left} rows of erased people are still there: this run counts for nothing"
        raise AssertionError(message)
    figures.append(Figure("B1", "rows of tasks, steps, sessions and logs per person", rows_each, "rows"))
    return figures


async def _b2(
    publisher: Publisher, listener: Listener, accounts: Sequence[str], access: Access, fleet: Fleet
) -> list[Figure]:
    """Encrypted exports; a sample is decrypted and opened afterwards."""
    request_ids: list[UUID] = []
    figures = await _through(
        publisher, listener, accounts, Right.ACCESS, "export.completed", ("B2", 300.0, 0.006), request_ids
    )
    sample = request_ids[:: max(1, len(request_ids) // 50)]
    opened = await open_exports(access.admin_dsn, fleet.kek_file, fleet.artefacts_dir, sample)
    if len(opened) != len(sample):
        message = f"{len(sample) - len(opened)} exports do not open: this run counts for nothing"
        raise AssertionError(message)
    return figures


async def _through(
    publisher: Publisher,
    listener: Listener,
    accounts: Sequence[str],
    right: Right,
    kind: str,
    goals: tuple[str, float, float],
    kept: list[UUID] | None = None,
) -> list[Figure]:
    bench, rate, cpu_each = goals
    before = cpu.spent()
    begun = _CLOCK.monotonic()
    request_ids = await asyncio.gather(*(_ask(publisher, right, account_id) for account_id in accounts))
    done = await listener.until(kind, request_ids)
    middle = cpu.spent()
    completed = await listener.until("request.completed", request_ids)
    after = cpu.spent()
    if kept is not None:
        kept.extend(request_ids)
    count = len(accounts)
    used = cpu.between(before, middle)
    whole = cpu.between(before, after)
    return [
        Figure(bench, f"{right}: {kind} per second", count / (done - begun), "1/s", rate, cpu_s=used),
        Figure(
            bench,
            f"{right}: request.completed per second, mails taken",
            count / (completed - begun),
            "1/s",
            cpu_s=whole,
        ),
        Figure(
            bench,
            "CPU-seconds each, all processes, to the last completed",
            sum(whole.values()) / count,
            "s",
            cpu_each,
            "lower",
        ),
    ]


async def _ask(publisher: Publisher, right: Right, account_id: str) -> UUID:
    details = {"ground": "consent_withdrawn"} if right is Right.ERASURE else None
    return await publisher.request(right, account_id=account_id, country="DE", language="en", details=details)
