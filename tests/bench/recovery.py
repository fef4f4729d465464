"""How long the delivery core takes to go on: after Kafka or PostgreSQL came back, and from SIGTERM to the end of a process."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
from aiokafka import AIOKafkaProducer
from rich.console import Console

from habeas.chassis import outbox, store
from habeas.chassis.clock import SystemClock
from habeas.chassis.ids import uuid7
from habeas.contracts.request_intake import RequestCompleted
from habeas.contracts.vocabulary import Outcome, Right
from habeas_embedded.fleet import Fleet
from habeas_embedded.provision import Access, prepare_database
from habeas_embedded.servers import Server, Servers
from habeas_embedded.topics import create_topics
from habeas_embedded.waiting import until
from tests.bench import pair
from tests.bench.report import Figure

_BACKLOG: Final = 10_000
_KEYS: Final = 97
_LOAD: Final = 2_000
_LIMIT_S: Final = 180.0
_CLOCK: Final = SystemClock()

_COUNT: Final = "SELECT count(*) FROM retention_sweeper.effects"
_PLAIN_DATE: Final = datetime(2026, 1, 1, tzinfo=UTC)
Pile = Callable[[Servers, Access, int], Awaitable[None]]


async def measure(console: Console) -> list[Figure]:
    """Kill each server under a backlog of 10,000 events and start it again; then stop the pair with everything up, and without Kafka."""
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(Servers("bench-recovery"))
        access, _ = await asyncio.gather(
            prepare_database(servers.postgres_admin_dsn), create_topics(servers.kafka_bootstrap)
        )
        conn = await asyncpg.connect(access.admin_dsn)
        for service in pair._SERVICES:
            await conn.execute(pair._MAKE_EFFECTS.format(schema=service.replace("-", "_")))
        await conn.close()
        fleet = pair._pair(servers, access)
        stack.push_async_callback(fleet.stop)
        await fleet.start(pair._SERVICES)
        figures = []
        for name, server, pile in (
            ("Kafka", servers.kafka, _pile_in_outbox),
            ("PostgreSQL", servers.postgres, _pile_in_kafka),
        ):
            console.print(f"recovery: {name} killed under load; {_BACKLOG:,} events pile up until it is back")
            figures += await _killed(name, server, pile, servers, access)
        console.print("recovery: stops")
        figures += await _stops(fleet, servers)
        return figures


async def _killed(name: str, server: Server, pile: Pile, servers: Servers, access: Access) -> list[Figure]:
    """Kill the server in the middle of some load, let events pile up, start it again, and count from its return."""
    done = await _effects(access)
    await _send(servers, done, _LOAD)
    await _until(access, done + 1)  # in the middle of it
    await server.kill()
    await pile(servers, access, done + _LOAD)
    await server.start()
    back = _CLOCK.monotonic()
    at_return = await _effects(access)
    await _until(access, at_return + 1)
    first_s = _CLOCK.monotonic() - back
    await _until(access, done + _LOAD + _BACKLOG)
    drained_s = _CLOCK.monotonic() - back
    conn = await asyncpg.connect(access.admin_dsn)
    twice = await conn.fetchval("SELECT count(*) - count(DISTINCT (request_id, number)) FROM retention_sweeper.effects")
    await conn.close()
    if twice:
        message = f"{twice} effects came twice: this run counts for nothing"
        raise AssertionError(message)
    note = f"{done + _LOAD + _BACKLOG - at_return:,} effects were still to come at its return"
    return [
        Figure("recovery", f"{name} is back: first new effect", first_s, "s", 10, "lower", note=note),
        Figure("recovery", f"{name} is back: backlog of {_BACKLOG:,} drained", drained_s, "s", 30, "lower", note=note),
    ]


async def _pile_in_kafka(servers: Servers, _access: Access, first: int) -> None:
    await _send(servers, first, _BACKLOG)


async def _pile_in_outbox(_servers: Servers, access: Access, first: int) -> None:
    """Leave events in the first service's outbox as its transactions would."""
    keys = [uuid7(_CLOCK) for _ in range(_KEYS)]
    rows = []
    for number in range(first, first + _BACKLOG):
        key = keys[number % _KEYS]
        event = RequestCompleted(
            request_id=key,
            subject_id=key,
            right=Right.ERASURE,
            outcome=Outcome.DONE,
            categories=(),
            completed_at=_PLAIN_DATE + timedelta(microseconds=number),
        )
        rows.append(outbox._row(uuid7(_CLOCK), event, None, event.encode()))
    now = _CLOCK.now()
    conn = await asyncpg.connect(access.admin_dsn, server_settings={"search_path": "request_intake"})
    try:
        await conn.execute(store.ADD_EVENTS, now.date(), now, *map(list, zip(*rows, strict=True)))
    finally:
        await conn.close()


async def _stops(fleet: Fleet, servers: Servers) -> list[Figure]:
    up = await asyncio.gather(*(_stop(fleet, service) for service in pair._SERVICES))
    await fleet.start(pair._SERVICES)
    await servers.kafka.kill()
    gone = await asyncio.gather(*(_stop(fleet, service) for service in pair._SERVICES))
    await servers.kafka.start()
    return [
        Figure("recovery", "SIGTERM to the end, everything up", max(up), "s", 20, "lower"),
        Figure("recovery", "SIGTERM to the end, Kafka gone", max(gone), "s", 30, "lower"),
    ]


async def _stop(fleet: Fleet, service: str) -> float:
    begun = _CLOCK.monotonic()
    await fleet.stop_service(service)
    took = _CLOCK.monotonic() - begun
    code = fleet.member(service).child.exit_code
    if code != 0:
        message = f"{service} ended with {code} and not by itself: this run counts for nothing"
        raise AssertionError(message)
    return took


async def _send(servers: Servers, first: int, count: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers.kafka_bootstrap, acks="all", linger_ms=5)
    await producer.start()
    try:
        keys = [uuid7(_CLOCK) for _ in range(_KEYS)]
        await pair._send(producer, keys, range(first, first + count))
    finally:
        await producer.stop()


async def _effects(access: Access) -> int:
    conn = await asyncpg.connect(access.admin_dsn)
    try:
        return int(await conn.fetchval(_COUNT))
    finally:
        await conn.close()


async def _until(access: Access, count: int) -> None:
    """Wait until so many effects are there, on a connection of its own: the server may just have come back."""
    conn = await asyncpg.connect(access.admin_dsn)

    async def all_there() -> bool:
        return bool(await conn.fetchval(_COUNT) >= count)

    try:
        if not await until(all_there, _LIMIT_S):
            message = "the effects did not all come in time"
            raise AssertionError(message)
    finally:
        await conn.close()
