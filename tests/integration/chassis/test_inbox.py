"""From records to rows: everything is stored once, what cannot be used is parked, nothing is shown."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from habeas.contracts import topics
from habeas_embedded.provision import Access
from tests.support.delivery import (
    ACCOUNT,
    NOON,
    PROTECTOR,
    Delivery,
    extended,
    headers_of,
    new_id,
    raw_record,
    record_of,
    submitted,
    ticked,
)


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """The receiving half of a service."""
    delivery = await Delivery.open(database)
    yield delivery
    await delivery.close()


async def test_records_are_stored_as_they_came(delivery: Delivery) -> None:
    """A record's row has its identity, its place in the log, its bytes and the time it was stored."""
    event, event_id = extended(new_id(), 1), new_id()
    record = record_of(event, event_id, at=NOON - timedelta(days=3), partition=2)
    await delivery.receive(record)
    (row,) = await delivery.look("SELECT * FROM erasure_executor.inbox")
    assert (row["event_id"], row["topic"], row["partition"], row["record_offset"]) == (
        event_id,
        "request-intake.requests.v1",
        2,
        record.offset,
    )
    assert (row["type"], row["key"], row["value"]) == ("request.extended", event.key().encode(), event.encode())
    assert (row["event_at"], row["received_at"], row["state"]) == (NOON - timedelta(days=3), NOON, "pending")


async def test_rows_follow_the_order_of_records(delivery: Delivery) -> None:
    """Row ids ascend as the records came, so that the order of a key is the order of its rows."""
    request = new_id()
    records = [record_of(extended(request, number)) for number in range(500)]
    await delivery.receive(*records[:300])
    await delivery.receive(*records[300:])
    rows = await delivery.look("SELECT record_offset FROM erasure_executor.inbox ORDER BY inbox_id")
    assert [row["record_offset"] for row in rows] == [record.offset for record in records]


async def test_a_repeated_record_is_known_by_its_id(delivery: Delivery) -> None:
    """The same event again, in the same batch or a later one, at another place of the log, changes nothing."""
    event, event_id = extended(new_id(), 1), new_id()
    await delivery.receive(record_of(event, event_id), record_of(event, event_id))
    await delivery.receive(record_of(event, event_id, partition=3))
    assert await delivery.states() == [("pending", None, None)]


@pytest.mark.parametrize("kind", [extended, lambda request_id, _: submitted(request_id)], ids=["open", "sensitive"])
async def test_the_same_id_with_other_content_is_parked(delivery: Delivery, kind: object) -> None:
    """Two contents under one id: the first counts, each other is parked under an id of its own, however often it comes."""
    assert callable(kind)
    event_id = new_id()
    first, second, third = (record_of(kind(new_id(), number), event_id) for number in (1, 2, 3))
    await delivery.receive(first, second)
    await delivery.receive(third)
    await delivery.receive(second, third, first)
    assert await delivery.states() == [
        ("pending", None, None),
        ("parked", "id_conflict", "ce_id"),
        ("parked", "id_conflict", "ce_id"),
    ]
    (row,) = await delivery.look("SELECT event_id FROM erasure_executor.inbox WHERE state = 'pending'")
    assert row["event_id"] == event_id


async def test_sensitive_records_lie_sealed(delivery: Delivery) -> None:
    """No column of a sensitive record's row holds the account; who has the key ring can open it."""
    event, event_id = submitted(new_id()), new_id()
    await delivery.receive(record_of(event, event_id), raw_record(event.topic, ACCOUNT.encode(), ACCOUNT.encode(), {}))
    rows = await delivery.look("SELECT i.*, i::text AS whole FROM erasure_executor.inbox AS i ORDER BY inbox_id")
    for row in rows:
        assert ACCOUNT not in row["whole"]
        assert ACCOUNT.encode().hex() not in row["whole"]
    assert PROTECTOR.open(rows[0]["value"], event_id.bytes) == event.encode()


async def test_broken_records_are_parked_beside_good_ones(delivery: Delivery) -> None:
    """A record that cannot be read costs its batch nothing; it is stored once, with reason and field, and audited."""
    good = record_of(ticked(new_id()))
    headers = headers_of(ticked(new_id()))
    broken = [
        raw_record(topics.RETENTION_TICKS, None, None, {}),
        raw_record(topics.RETENTION_TICKS, b"\xff", b"\xff", headers | {"ce_id": b"\xff"}),
        raw_record(topics.RETENTION_TICKS, b"k", b"v", headers | {"ce_type": b"ada@example.org"}),
        raw_record(topics.RETENTION_TICKS, b"k", b"v", headers | {"ce_time": b"0001-01-01T00:00:00+14:00"}),
        raw_record(topics.RETENTION_TICKS, b"k", b"v", {}, timestamp=2**63 - 1),
    ]
    await delivery.receive(*broken[:3], good, *broken[3:])
    await delivery.receive(*broken, good)
    assert await delivery.states() == [
        ("parked", "missing_header", "ce_specversion"),
        ("parked", "wrong_header", "ce_id"),
        ("parked", "unknown_type", "ce_type"),
        ("pending", None, None),
        ("parked", "wrong_header", "ce_time"),
        ("parked", "missing_header", "ce_specversion"),
    ]
    facts = await delivery.look("SELECT tail FROM erasure_executor.audit_outbox")
    assert ["action=message.parked" in fact["tail"] for fact in facts] == [True] * 5


async def test_strange_traces_cost_nothing(delivery: Delivery) -> None:
    """A trace parent that PostgreSQL could not even store is left out."""
    event = ticked(new_id())
    headers = headers_of(event) | {"traceparent": b"\x00"}
    await delivery.receive(raw_record(event.topic, event.key().encode(), event.encode(), headers))
    assert await delivery.states() == [("pending", None, None)]


async def test_what_others_handle_is_not_stored(delivery: Delivery) -> None:
    """Known events without a handler here leave no row."""
    event = ticked(new_id())
    headers = headers_of(event) | {"ce_type": b"request.accepted"}
    await delivery.receive(raw_record(topics.REQUESTS, b"k", b"{}", headers))
    assert await delivery.states() == []


async def test_two_replicas_store_one_record_once(delivery: Delivery) -> None:
    """While partitions change hands both owners may get the same records at once: each is stored once, in order."""
    request = new_id()
    records = [record_of(extended(request, number)) for number in range(200)]
    another = await delivery.another()
    await asyncio.gather(
        delivery.receive(*records[:150]),
        delivery.receive(*records[:150], database=another),
        delivery.receive(*records[50:], database=another),
    )
    rows = await delivery.look("SELECT record_offset FROM erasure_executor.inbox")
    assert sorted(row["record_offset"] for row in rows) == [record.offset for record in records]


async def test_a_stop_while_the_database_is_away_stores_and_commits_nothing(delivery: Delivery) -> None:
    """Told to stop while a batch cannot be stored, the consumer gives up without counting the batch as stored."""
    away = await delivery.another()
    await away.pool.close()
    consumer = delivery.consumer(away)
    stopping = asyncio.Event()
    stopping.set()
    assert not await consumer._take([record_of(ticked(new_id()))], stopping)
    assert consumer._offsets == {}
    assert await delivery.states() == []


async def test_how_far_a_partition_was_stored_is_kept_with_the_rows(delivery: Delivery) -> None:
    """The position moves in the transaction that stores, over records that nobody wants too, and never back."""
    wanted = record_of(extended(new_id(), 1), partition=1)
    marker = raw_record(topics.REQUESTS, b"", b"{}", {**headers_of(extended(new_id(), 2)), "ce_type": b"topic.rolled"})
    await delivery.receive(wanted)
    await delivery.receive(marker)
    await delivery.receive(wanted)
    rows = await delivery.look("SELECT partition, next_offset FROM erasure_executor.positions ORDER BY partition")
    assert [tuple(row) for row in rows] == [(0, marker.offset + 1), (1, wanted.offset + 1)]
