"""Daily partitions of the outbox: made ahead, dropped when old and published, by a role that owns no table."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date, timedelta
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from habeas.chassis.database import Database
from habeas.chassis.service import Service
from habeas_embedded.provision import Access
from tests.support.delivery import CONSUMER, NOON, PROTECTOR, Broker, Delivery, extended, new_id
from tests.support.waiting import HANGS_S

PARTITIONS = """
    SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'erasure_executor.outbox'::regclass ORDER BY c.relname
"""
ADD_SEEN = "INSERT INTO erasure_executor.seen (event_id, digest, received_at) VALUES ($1, '', $2) RETURNING 1"
ADD_MESSAGE = """
    INSERT INTO erasure_executor.inbox (event_id, topic, partition, record_offset, type, key, lane, event_at, digest, received_at,
                                        next_attempt_at, state, handled_at)
    VALUES ($1, 't', 0, 0, 'x', '', 0, $2, '', $2, $2, $3, $2) RETURNING 1
"""


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """A service's slice."""
    delivery = await Delivery.open(database)
    yield delivery
    await delivery.close()


def service(delivery: Delivery) -> Service:
    """The service that keeps house."""
    return Service(CONSUMER, delivery.settings, protection=PROTECTOR, clock=delivery.clock)


async def keep_house(delivery: Delivery, database: Database | None = None) -> None:
    """Do what a service does at its start and every hour."""
    await service(delivery)._keep_house(database or delivery.database)


async def days(delivery: Delivery) -> list[str]:
    """The days that have a partition."""
    return [row["relname"].removeprefix("outbox_") for row in await delivery.look(PARTITIONS)]


async def emit(delivery: Delivery) -> None:
    """Write one event."""
    async with delivery.database.transaction("emit") as tx:
        tx.emit(extended(new_id(), 1))


async def where(delivery: Delivery) -> list[str]:
    """The partition of each row, in order."""
    rows = await delivery.look(
        "SELECT tableoid::regclass::text AS name FROM erasure_executor.outbox ORDER BY outbox_id"
    )
    return [row["name"].rpartition("outbox_")[2] for row in rows]


async def publish(delivery: Delivery) -> int:
    """Publish what there is."""
    return await Broker().relay(delivery, await delivery.lanes()).step()


def following(first: date, count: int) -> list[str]:
    """Days in the form of partitions' names."""
    return [f"{first + timedelta(days=number):%Y%m%d}" for number in range(count)]


async def test_a_week_is_made_ahead(delivery: Delivery) -> None:
    """Today and the six days after have their partitions; a day later there is one more, and doing it again changes nothing."""
    await keep_house(delivery)
    assert await days(delivery) == [*following(date(2026, 11, 24), 7), "default"]
    delivery.clock.advance(timedelta(days=1))
    await keep_house(delivery)
    await keep_house(delivery)
    assert await days(delivery) == [*following(date(2026, 11, 24), 8), "default"]


async def test_rows_go_to_their_day_and_are_published_from_there(delivery: Delivery) -> None:
    """A row lies in the partition of its day; the relay marks it there."""
    await keep_house(delivery)
    await emit(delivery)
    delivery.clock.advance(timedelta(days=1))
    await emit(delivery)
    assert await where(delivery) == ["20261124", "20261125"]
    assert await publish(delivery) == 2
    assert await publish(delivery) == 0


async def test_old_days_go_when_all_is_published(delivery: Delivery) -> None:
    """After a fortnight a day is dropped with its rows, but never while one of them is unpublished."""
    await keep_house(delivery)
    await emit(delivery)
    delivery.clock.advance(timedelta(days=1))
    await emit(delivery)
    await publish(delivery)
    await delivery.look(
        "UPDATE erasure_executor.outbox SET published_at = NULL WHERE created_on = '2026-11-24' RETURNING 1"
    )
    delivery.clock.advance(timedelta(days=13))
    await keep_house(delivery)
    assert "20261125" in await days(delivery)
    delivery.clock.advance(timedelta(days=1, hours=12))
    await keep_house(delivery)
    kept = await days(delivery)
    assert "20261124" in kept
    assert "20261125" not in kept
    assert await where(delivery) == ["20261124"]
    await publish(delivery)
    await keep_house(delivery)
    assert "20261124" not in await days(delivery)


async def test_a_day_without_a_partition_loses_nothing(delivery: Delivery) -> None:
    """After a jump of the clock rows lie in the default partition; their day gets no other, the next days do, all is published."""
    await keep_house(delivery)
    delivery.clock.set(NOON + timedelta(days=100))
    await emit(delivery)
    await keep_house(delivery)
    await emit(delivery)
    delivery.clock.advance(timedelta(days=1))
    await emit(delivery)
    assert await where(delivery) == ["default", "default", "20270305"]
    assert await publish(delivery) == 3


async def test_rows_of_the_default_partition_go_too(delivery: Delivery) -> None:
    """What lies in the default partition is kept as long as everything else, and no longer; unpublished rows stay."""
    for _ in range(2):
        await emit(delivery)
    await delivery.look(
        "UPDATE erasure_executor.outbox SET published_at = now()"
        " WHERE outbox_id = (SELECT min(outbox_id) FROM erasure_executor.outbox) RETURNING 1"
    )
    assert await where(delivery) == ["default", "default"]
    delivery.clock.advance(timedelta(days=15))
    await keep_house(delivery)
    assert await where(delivery) == ["default"]
    assert await publish(delivery) == 1
    await keep_house(delivery)
    assert await where(delivery) == []


async def test_replicas_that_keep_house_at_once_do_not_fail(delivery: Delivery) -> None:
    """Replicas that start together find the same partitions missing: each is made once, and nobody fails."""
    others = [await delivery.another() for _ in range(4)]
    for _ in range(5):
        await asyncio.gather(*(keep_house(delivery, database) for database in others))
        delivery.clock.advance(timedelta(days=7))
    assert len(await days(delivery)) >= 7 + 1


async def test_keeping_house_waits_for_writers(delivery: Delivery) -> None:
    """A transaction that writes to the outbox meanwhile neither breaks nor is broken."""
    await emit(delivery)
    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as tasks, delivery.database.transaction("emit") as tx:
        tx.emit(extended(new_id(), 1))
        tasks.create_task(keep_house(delivery))
        await tx.execute("SELECT pg_sleep(0.05)")
    assert len(await where(delivery)) == 2


async def test_the_service_may_do_no_more_than_that(delivery: Delivery) -> None:
    """Tables are not the service's to make or drop."""
    connection = await asyncpg.connect(delivery.access.dsn(CONSUMER))
    try:
        for statement in (
            "DROP TABLE erasure_executor.outbox_default",
            "CREATE TABLE erasure_executor.outbox_x PARTITION OF erasure_executor.outbox FOR VALUES FROM ('2030-01-01') TO ('2030-01-02')",
            "TRUNCATE erasure_executor.outbox",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_ids_are_forgotten_after_three_weeks(delivery: Delivery) -> None:
    """Ids are remembered longer than the outbox keeps rows; those of messages that still lie in the inbox for ever."""
    kept = {}
    for state in ("handled", "resolved", "pending", "parked"):
        kept[state] = new_id()
        await delivery.look(ADD_SEEN, kept[state], NOON)
        if state != "handled":
            await delivery.look(ADD_MESSAGE, kept[state], NOON, state)
    delivery.clock.advance(timedelta(days=20, hours=23))
    await keep_house(delivery)
    assert await seen(delivery) == set(kept.values())
    assert len(await delivery.look("TABLE erasure_executor.inbox")) == 3
    delivery.clock.advance(timedelta(hours=2))
    await keep_house(delivery)
    assert await seen(delivery) == {kept["pending"], kept["parked"]}
    rows = await delivery.look("SELECT state FROM erasure_executor.inbox")
    assert {row["state"] for row in rows} == {"pending", "parked"}


async def test_messages_that_stay_hide_no_old_ids(delivery: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are forgotten in small pieces until none is too old, also behind more parked messages than a piece has."""
    monkeypatch.setattr("habeas.chassis.service._DROP_ROWS_MAX", 3)
    parked = [new_id() for _ in range(10)]
    for number, event_id in enumerate(parked):
        await delivery.look(ADD_SEEN, event_id, NOON + timedelta(seconds=number))
        await delivery.look(ADD_MESSAGE, event_id, NOON, "parked")
    for number in range(20):
        await delivery.look(ADD_SEEN, new_id(), NOON + timedelta(minutes=1, seconds=number))
    delivery.clock.advance(timedelta(days=22))
    await keep_house(delivery)
    assert await seen(delivery) == set(parked)


async def seen(delivery: Delivery) -> set[UUID]:
    """The ids that are remembered."""
    return {row["event_id"] for row in await delivery.look("TABLE erasure_executor.seen")}
