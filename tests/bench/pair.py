"""B9 and B10: two services and nothing else: what the delivery core can do."""

import asyncio
import os
import statistics
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaProducer
from rich.console import Console

from habeas.chassis.clock import SystemClock
from habeas.chassis.ids import uuid7
from habeas.chassis.outbox import lane_of
from habeas.chassis.producer import Record
from habeas.contracts.envelope import Envelope, encode_headers
from habeas.contracts.erasure_executor import ErasureCompleted
from habeas_embedded.fleet import Fleet, FleetPlan
from habeas_embedded.provision import Access, prepare_database
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from habeas_embedded.waiting import until
from tests.bench import cpu
from tests.bench.report import Figure

_EVENTS: Final = 60_000
_RAW: Final = 60_000
_HISTORY: Final = 1_000_000
_KEYS: Final = 499
_PACED: Final = 1_500
_PACE_S: Final = 0.02
_WARM: Final = 100  # at the same pace, before what is measured
_LIMIT_S: Final = 300.0
_CLOCK: Final = SystemClock()
_SERVICES: Final = ("request-intake", "retention-sweeper")
_PLAIN_DATE: Final = datetime(2026, 1, 1, tzinfo=UTC)

_MAKE_EFFECTS: Final = """
    CREATE TABLE IF NOT EXISTS {schema}.effects (
        effect_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, request_id uuid NOT NULL, number bigint NOT NULL,
        written_at timestamptz NOT NULL DEFAULT clock_timestamp());
    GRANT SELECT, INSERT ON {schema}.effects TO {schema};
"""

_MAKE_RAW: Final = "CREATE TABLE raw_rows (id uuid PRIMARY KEY, key bytea NOT NULL, value bytea NOT NULL)"

_ADD_RAW: Final = "INSERT INTO raw_rows SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::bytea[])"

_ADD_HISTORY: Final = """
    INSERT INTO {schema}.seen (event_id, digest, received_at)
    SELECT gen_random_uuid(), sha256(convert_to(n::text, 'UTF8')), now() FROM generate_series(1, {rows}) AS n;
    INSERT INTO {schema}.outbox (created_on, event_id, lane, topic, key, type, subject, value, created_at, published_at)
    SELECT current_date, gen_random_uuid(), n % 16, 'history', n::text, 'erasure.completed', n::text, repeat('v', 330)::bytea, now(), now()
      FROM generate_series(1, {rows}) AS n;
"""

_LATENCIES: Final = """
    SELECT extract(epoch FROM b.written_at - a.written_at) * 1000
      FROM request_intake.effects AS a JOIN retention_sweeper.effects AS b USING (request_id, number)
     WHERE a.effect_id > $1
"""

_MISORDERED: Final = """
    SELECT count(*) FROM (
        SELECT number, lag(number) OVER (PARTITION BY request_id ORDER BY effect_id) AS before FROM retention_sweeper.effects) AS o
     WHERE number <= before
"""


async def measure(console: Console) -> list[Figure]:
    """Measure the pair's latency at 50 events a second, its highest rate, and what the bare servers could do."""
    async with _stage("bench-pair") as (producer, conn):
        keys = [uuid7(_CLOCK) for _ in range(_KEYS)]
        console.print(f"B9: {_PACED} events at {1 / _PACE_S:.0f}/s through a pair of services")
        figures = await _paced(producer, conn, keys)
        console.print(f"B10: {_EVENTS:,} events as fast as they go")
        raw = min(await _raw_kafka(producer), await _raw_postgres(conn))
        rate, used = await _fast(producer, conn, keys)
        note = f"bare servers: {raw:,.0f}/s"
        figures += [
            Figure(
                "B10", "events per second through both services", rate, "1/s", 10_000, cpu_s=used, raw=raw, note=note
            ),
            Figure("B10", "CPU-milliseconds per event, all processes", sum(used.values()) / _EVENTS * 1000, "ms"),
        ]
        return figures


async def measure_history(console: Console) -> list[Figure]:
    """Measure the highest rate on empty tables, and again on tables that hold a million handled messages and published events."""
    async with _stage("bench-history") as (producer, conn):
        keys = [uuid7(_CLOCK) for _ in range(_KEYS)]
        console.print(f"B10: {_EVENTS:,} events, twice, on little history")
        fresh = [(await _fast(producer, conn, keys))[0] for _ in range(2)]
        console.print(f"B10: the same after {_HISTORY:,} rows of history")
        for service in _SERVICES:
            await conn.execute(_ADD_HISTORY.format(schema=service.replace("-", "_"), rows=_HISTORY))
        grown = [(await _fast(producer, conn, keys))[0] for _ in range(2)]
        ratio = max(grown) / max(fresh)
        note = f"fresh {max(fresh):,.0f}/s, grown {max(grown):,.0f}/s, the better of two each"
        return [Figure("B10", f"rate after {_HISTORY:,} rows of history, to that before", ratio, "", 0.9, note=note)]


@asynccontextmanager
async def _stage(name: str) -> AsyncIterator[tuple[AIOKafkaProducer, "asyncpg.Connection[asyncpg.Record]"]]:
    """Servers, the pair, a producer, and a look at the database."""
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(Servers(name))
        access, _ = await asyncio.gather(
            prepare_database(servers.postgres_admin_dsn), create_topics(servers.kafka_bootstrap)
        )
        conn = await asyncpg.connect(access.admin_dsn)
        stack.push_async_callback(conn.close)
        for service in _SERVICES:
            await conn.execute(_MAKE_EFFECTS.format(schema=service.replace("-", "_")))
        await conn.execute(_MAKE_RAW)
        fleet = _pair(servers, access)
        stack.push_async_callback(fleet.stop)
        await fleet.start(_SERVICES)
        producer = AIOKafkaProducer(
            bootstrap_servers=servers.kafka_bootstrap, acks="all", enable_idempotence=True, linger_ms=0
        )
        await producer.start()
        stack.push_async_callback(producer.stop)
        yield producer, conn


def _pair(servers: Servers, access: Access) -> Fleet:
    programs = {
        service: (sys.executable, "-m", "tests.bench.pair_service", half)
        for service, half in zip(_SERVICES, ("first", "second"), strict=True)
    }
    quiet = {"HABEAS_LOG_LEVEL": "warning", "HABEAS_TRACE_RATIO": "0", "PYTHONPATH": os.getcwd()}  # noqa: PTH109 -- a string is wanted
    policy = servers.run.directory / "none.yaml"
    return Fleet(servers, access, FleetPlan(policy, servers.run.directory, {}, quiet, programs=programs))


async def _paced(
    producer: AIOKafkaProducer, conn: "asyncpg.Connection[asyncpg.Record]", keys: Sequence[UUID]
) -> list[Figure]:
    before, last = cpu.spent(), 0
    for number in range(_WARM + _PACED):
        if number == _WARM:
            await _until_effects(conn, _WARM)
            last = await conn.fetchval("SELECT max(effect_id) FROM request_intake.effects")
            before = cpu.spent()
        begun = _CLOCK.monotonic()
        await _send(producer, keys, [number])
        await asyncio.sleep(max(0.0, _PACE_S - (_CLOCK.monotonic() - begun)))
    await _until_effects(conn, _WARM + _PACED)
    used = cpu.between(before, cpu.spent())
    cuts = statistics.quantiles([float(row[0]) for row in await conn.fetch(_LATENCIES, last)], n=100)
    return [
        Figure("B9", "p50, effect in one service to effect in the next", cuts[49], "ms", 5, "lower", used),
        Figure("B9", "p99, effect in one service to effect in the next", cuts[98], "ms", 20, "lower"),
    ]


async def _fast(
    producer: AIOKafkaProducer, conn: "asyncpg.Connection[asyncpg.Record]", keys: Sequence[UUID]
) -> tuple[float, Mapping[str, float]]:
    """Give events per second and the CPU-seconds by process; the events are made before the clock starts."""
    done = await conn.fetchval("SELECT count(*) FROM retention_sweeper.effects")
    records = [_record(keys, number) for number in range(done, done + _EVENTS)]
    before = cpu.spent()
    begun = _CLOCK.monotonic()
    await _send_all(producer, records)
    await _until_effects(conn, done + _EVENTS)
    took = _CLOCK.monotonic() - begun
    used = cpu.between(before, cpu.spent())
    misordered = await conn.fetchval(_MISORDERED)
    twice = await conn.fetchval("SELECT count(*) - count(DISTINCT (request_id, number)) FROM retention_sweeper.effects")
    if misordered or twice:
        message = f"{misordered} effects out of order, {twice} twice: this run counts for nothing"
        raise AssertionError(message)
    return _EVENTS / took, used


async def _raw_kafka(producer: AIOKafkaProducer) -> float:
    """Give the records per second that Kafka takes and gives back: each event passes it twice."""
    key = uuid7(_CLOCK)
    records = [_record([key], number)._replace(topic="erasure-executor.orders.v1") for number in range(_RAW)]
    begun = _CLOCK.monotonic()
    await _send_all(producer, records)
    return _RAW / (_CLOCK.monotonic() - begun) / 2


async def _raw_postgres(conn: "asyncpg.Connection[asyncpg.Record]") -> float:
    """Give the events per second for which PostgreSQL alone, on one connection, can insert the five rows that each needs."""
    rows = [(uuid7(_CLOCK), b"k" * 36, b"v" * 330) for _ in range(_RAW)]
    begun = _CLOCK.monotonic()
    for first in range(0, _RAW, 500):
        await conn.execute(_ADD_RAW, *map(list, zip(*rows[first : first + 500], strict=True)))
    return _RAW / (_CLOCK.monotonic() - begun) / 5


def _record(keys: Sequence[UUID], number: int) -> Record:
    """Make one event with a number that ascends per key."""
    key = keys[number % len(keys)]
    event = ErasureCompleted(
        request_id=key, subject_id=keys[0], tables=(), erased_at=_PLAIN_DATE + timedelta(microseconds=number)
    )
    envelope = Envelope(uuid7(_CLOCK), event.type, "bench", _CLOCK.now(), str(key))
    partition = lane_of(str(key).encode()) % event.topic.partitions
    return Record(event.topic.name, str(key).encode(), event.encode(), encode_headers(envelope), partition)


async def _send_all(producer: AIOKafkaProducer, records: Sequence[Record]) -> None:
    """Send records pipelined, and wait until all are acknowledged."""
    sent = [
        await producer.send(each.topic, each.value, each.key, each.partition, headers=each.headers) for each in records
    ]
    await asyncio.gather(*sent)


async def _send(producer: AIOKafkaProducer, keys: Sequence[UUID], numbers: Sequence[int] | range) -> None:
    """Send events with ascending numbers per key."""
    await _send_all(producer, [_record(keys, number) for number in numbers])


async def _until_effects(conn: "asyncpg.Connection[asyncpg.Record]", count: int) -> None:
    async def all_there() -> bool:
        return bool(await conn.fetchval("SELECT count(*) FROM retention_sweeper.effects") >= count)

    if not await until(all_there, _LIMIT_S):
        message = "the effects did not all come in time"
        raise AssertionError(message)
