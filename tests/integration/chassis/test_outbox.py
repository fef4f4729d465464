"""The order of outbox rows: per key as things happened, whoever writes at the same time."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest_asyncio

from habeas.chassis import cause, outbox
from habeas.chassis.database import Database, Transaction
from habeas.chassis.outbox import lane_of
from habeas.contracts import topics
from habeas.contracts.request_intake import RequestExtended
from habeas_embedded.provision import Access
from tests.support.delivery import FIRST_DAY, NOON, Broker, Delivery, extended, new_id, number_of
from tests.support.waiting import HANGS_S, until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NEXT_NUMBER = "UPDATE aggregates SET number = number + 1 WHERE name = $1 RETURNING number"
WRITERS, EACH, KEYS = 8, 30, 5


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """A service's slice with a connection per writer."""
    delivery = await Delivery.open(database, pool_connections_max=12, relay_batch_rows_max=7)
    yield delivery
    await delivery.close()


def decoded(value: bytes) -> RequestExtended:
    """The event of a row or record."""
    return RequestExtended.decode(value)


async def write(delivery: Delivery, keys: list[UUID], seed: int) -> None:
    """Change aggregates as a service does: lock the row first, then emit; sometimes fail, sometimes take long."""
    chance = random.Random(seed)  # noqa: S311 -- a repeatable test
    for _ in range(EACH):
        key = chance.choice(keys)
        try:
            async with delivery.database.transaction("write") as tx:
                number = await tx.fetchval(NEXT_NUMBER, str(key))
                tx.emit(extended(key, number))
                await tx.execute("SELECT pg_sleep($1)", chance.choice([0, 0, 0.003]))
                if chance.randrange(5) == 0:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            continue


async def test_row_ids_ascend_with_the_state_of_each_key(delivery: Delivery) -> None:
    """Eight writers that lock first: sorted by id, each key's events tell its states in order, without gap; so do Kafka's."""
    keys = [new_id() for _ in range(KEYS)]
    async with delivery.database.transaction("prepare") as tx:
        for key in keys:
            await tx.execute("INSERT INTO aggregates (name) VALUES ($1)", str(key))
    broker, stopping = Broker(), asyncio.Event()
    relay = broker.relay(delivery, await delivery.lanes())
    delivery.database.on_commit(relay.note)
    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(relay.run(stopping))
        await asyncio.gather(*(write(delivery, keys, seed) for seed in range(WRITERS)))
        stopping.set()
    relay.look()
    while await relay.step():
        pass
    rows = await delivery.look("SELECT value FROM erasure_executor.outbox ORDER BY outbox_id")
    states = {row["name"]: row["number"] for row in await delivery.look("TABLE erasure_executor.aggregates")}
    for events in ([decoded(row["value"]) for row in rows], [decoded(r.value) for r in broker.of(topics.REQUESTS)]):
        for key in keys:
            numbers = [number_of(event) for event in events if event.request_id == key]
            assert numbers == list(range(1, states[str(key)] + 1))


async def test_one_transactions_events_keep_their_order(delivery: Delivery) -> None:
    """Five hundred events of one transaction lie in the outbox as they were emitted, each in its key's lane."""
    keys = [new_id() for _ in range(7)]
    async with delivery.database.transaction("emit") as tx:
        tx.emit(*[extended(keys[number % 7], number) for number in range(500)])
    rows = await delivery.look("SELECT key, lane, value FROM erasure_executor.outbox ORDER BY outbox_id")
    assert [number_of(decoded(row["value"])) for row in rows] == list(range(500))
    assert all(row["lane"] == lane_of(row["key"].encode()) for row in rows)


async def test_of_one_key_ids_ascend_as_transactions_commit(delivery: Delivery) -> None:
    """Who takes an id while another transaction with events of the key is under way waits for its end, though they share no row."""
    key, other = new_id(), await delivery.another()
    emitted, commit = asyncio.Event(), asyncio.Event()
    ended: list[int] = []

    async def emit(database: Database, number: int) -> None:
        async with database.transaction("emit") as tx:
            tx.emit(extended(key, number))
        ended.append(number)

    async def waits() -> bool:
        return bool(await delivery.look("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))

    async def slow(tx: Transaction) -> None:
        tx.emit(extended(key, 1))
        await outbox.write(tx, delivery.clock)
        tx.pending = outbox.Pending()
        emitted.set()
        await commit.wait()

    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(delivery.database.run("slow", slow))
        first.add_done_callback(lambda _: ended.append(1))
        await emitted.wait()
        tasks.create_task(emit(other, 2))
        await until(waits, "a transaction that waits")
        assert ended == []
        commit.set()
    assert sorted(ended) == [1, 2]  # who was first the database knows, not whoever's answer was read first
    rows = await delivery.look("SELECT value FROM erasure_executor.outbox ORDER BY outbox_id")
    assert [number_of(decoded(row["value"])) for row in rows] == [1, 2]


async def test_a_late_commit_is_found(delivery: Delivery) -> None:
    """A row with a lower id that commits after higher ones were published goes out on the next look."""
    broker, key = Broker(), new_id()
    relay = broker.relay(delivery, await delivery.lanes())
    late, on_time = asyncio.Event(), asyncio.Event()

    async def slow(tx: Transaction) -> None:
        # The id is taken here and not at the end, as by a statement of a longer transaction.
        await tx.execute(
            "INSERT INTO outbox (created_on, created_at, event_id, lane, topic, key, type, subject, value)"
            " VALUES ($1, $2, $3, 0, 't', 'k', 'x', 's', '\\x00')",
            NOON.date(),
            NOON,
            key,
        )
        on_time.set()
        await late.wait()

    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(delivery.database.run("slow", slow))
        await on_time.wait()
        async with delivery.database.transaction("quick") as tx:
            tx.emit(extended(key, 1))
        assert await relay.step() == 1
        late.set()
    relay.look()
    assert await relay.step() == 1
    assert [record.topic for record in broker.records] == ["request-intake.requests.v1", "t"]


async def test_an_event_goes_with_the_trace_of_its_cause(delivery: Delivery) -> None:
    """What is emitted takes the trace that is named, else that of the message being handled, else none."""
    key = new_id()
    async with delivery.database.transaction("emit") as tx:
        tx.emit(extended(key, 0))
        before = cause.become(TRACE)
        tx.emit(extended(key, 1))
        tx.emit(extended(key, 2), trace=TRACE.replace("4bf9", "0000"))
        cause.go_back(before)
    rows = await delivery.look("SELECT traceparent FROM erasure_executor.outbox ORDER BY outbox_id")
    assert [row["traceparent"] for row in rows] == [None, TRACE, TRACE.replace("4bf9", "0000")]


async def test_ids_are_made_once(delivery: Delivery) -> None:
    """Every row has an id of its own, in ascending order, and dates that follow the service's clock."""
    async with delivery.database.transaction("emit") as tx:
        tx.emit(*[extended(new_id(), number) for number in range(20)])
    delivery.clock.advance(timedelta(days=1))
    async with delivery.database.transaction("emit") as tx:
        tx.emit(extended(new_id(), 20))
    rows = await delivery.look("SELECT event_id, created_on FROM erasure_executor.outbox ORDER BY outbox_id")
    ids = [row["event_id"] for row in rows]
    assert ids == sorted(set(ids))
    assert [row["created_on"] - FIRST_DAY for row in rows[-2:]] == [timedelta(days=327), timedelta(days=328)]
