"""B9 and B10: two services and nothing else: what the delivery core can do."""

import asyncio
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaProducer
from rich.console import Console

from habeas.chassis.clock import SystemClock
from habeas.chassis.ids import uuid7
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
_KEYS: Final = 499
_PACED: Final = 1_500
_PACE_S: Final = 0.02
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
    """Start the pair on servers of its own, and measure latency at 50 events a second, then the highest rate."""
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(Servers("bench-pair"))
        access, _ = await asyncio.gather(
            prepare_database(servers.postgres_admin_dsn), create_topics(servers.kafka_bootstrap)
        )
        conn = await asyncpg.connect(access.admin_dsn)
        stack.push_async_callback(conn.close)
        for service in _SERVICES:
            await conn.execute(_MAKE_EFFECTS.format(schema=service.replace("-", "_")))
        fleet = _pair(servers, access)
        stack.push_async_callback(fleet.stop)
        await fleet.start(_SERVICES)
        producer = AIOKafkaProducer(
            bootstrap_servers=servers.kafka_bootstrap, acks="all", enable_idempotence=True, linger_ms=0
        )
        await producer.start()
        stack.push_async_callback(producer.stop)
        keys = [uuid7(_CLOCK) for _ in range(_KEYS)]
        console.print(f"B9: {_PACED} events at {1 / _PACE_S:.0f}/s through a pair of services")
        figures = await _paced(producer, conn, keys)
        console.print(f"B10: {_EVENTS:,} events as fast as they go")
        figures += await _fast(producer, conn, keys)
        return figures


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
    await _send(producer, keys, range(100))
    await _until_effects(conn, 100)
    last = await conn.fetchval("SELECT max(effect_id) FROM request_intake.effects")
    before = cpu.spent()
    for number in range(100, 100 + _PACED):
        begun = _CLOCK.monotonic()
        await _send(producer, keys, [number])
        await asyncio.sleep(max(0.0, _PACE_S - (_CLOCK.monotonic() - begun)))
    await _until_effects(conn, 100 + _PACED)
    used = cpu.between(before, cpu.spent())
    cuts = statistics.quantiles([float(row[0]) for row in await conn.fetch(_LATENCIES, last)], n=100)
    return [
        Figure("B9", "p50, effect in one service to effect in the next", cuts[49], "ms", 5, "lower", used),
        Figure("B9", "p99, effect in one service to effect in the next", cuts[98], "ms", 20, "lower"),
    ]


async def _fast(
    producer: AIOKafkaProducer, conn: "asyncpg.Connection[asyncpg.Record]", keys: Sequence[UUID]
) -> list[Figure]:
    done = 100 + _PACED
    before = cpu.spent()
    begun = _CLOCK.monotonic()
    await _send(producer, keys, range(done, done + _EVENTS))
    await _until_effects(conn, done + _EVENTS)
    took = _CLOCK.monotonic() - begun
    used = cpu.between(before, cpu.spent())
    misordered = await conn.fetchval(_MISORDERED)
    twice = await conn.fetchval("SELECT count(*) - count(DISTINCT (request_id, number)) FROM retention_sweeper.effects")
    if misordered or twice:
        message = f"{misordered} effects out of order, {twice} twice: this run counts for nothing"
        raise AssertionError(message)
    return [
        Figure("B10", "events per second through both services", _EVENTS / took, "1/s", 10_000, cpu_s=used),
        Figure("B10", "CPU-milliseconds per event, all processes", sum(used.values()) / _EVENTS * 1000, "ms"),
    ]


async def _send(producer: AIOKafkaProducer, keys: Sequence[UUID], numbers: Sequence[int] | range) -> None:
    """Send events with ascending numbers per key."""
    subject = keys[0]
    sent = []
    for number in numbers:
        key = keys[number % len(keys)]
        event = ErasureCompleted(
            request_id=key, subject_id=subject, tables=(), erased_at=_PLAIN_DATE + timedelta(microseconds=number)
        )
        envelope = Envelope(uuid7(_CLOCK), event.type, "bench", _CLOCK.now(), str(key))
        sent.append(
            await producer.send(
                event.topic.name, event.encode(), event.key().encode(), headers=encode_headers(envelope)
            )
        )
    await asyncio.gather(*sent)


async def _until_effects(conn: "asyncpg.Connection[asyncpg.Record]", count: int) -> None:
    async def all_there() -> bool:
        return bool(await conn.fetchval("SELECT count(*) FROM retention_sweeper.effects") >= count)

    if not await until(all_there, _LIMIT_S):
        message = "the effects did not all come in time"
        raise AssertionError(message)
