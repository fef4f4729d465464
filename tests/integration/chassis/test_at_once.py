"""Messages that are handled as they come, against PostgreSQL: what is left of them, and what makes them go through the inbox instead."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from habeas.chassis.batch import Batch
from habeas.chassis.database import Transaction
from habeas.chassis.errors import Invariant, Poison, Retry
from habeas.chassis.worker import Worker
from habeas.contracts.audit import Action, AuditFact
from habeas.contracts.platform import RequestSubmitted
from habeas.contracts.request_intake import RequestExtended
from habeas.contracts.vocabulary import ParkReason
from habeas_embedded.provision import Access
from tests.support.delivery import (
    ACCOUNT,
    Delivery,
    drain,
    extended,
    headers_of,
    new_id,
    number_of,
    raw_record,
    record_of,
    submitted,
)
from tests.support.waiting import until

ADD_EFFECTS = "INSERT INTO effects (request_id, number) SELECT * FROM unnest($1::uuid[], $2::integer[])"
TOO_MUCH = 1_000_000  # the table of effects refuses it

Handle = Callable[[Batch[RequestExtended], Transaction], Awaitable[None]]


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """The receiving half of a service."""
    delivery = await Delivery.open(database, inbox_batch_rows_max=64, lease_s=300)
    yield delivery
    await delivery.close()


async def add_effects(batch: Batch[RequestExtended], tx: Transaction) -> None:
    """Write down each event, pass it on, and record it."""
    events = list(batch)
    await tx.execute(ADD_EFFECTS, [event.request_id for event in events], [number_of(event) for event in events])
    for event in batch:
        tx.emit(event)
        tx.record(AuditFact(Action.REQUEST_COMPLETED, request=event.request_id))


def failing(error: Exception, number: int) -> Handle:
    """A handler that writes effects and then raises over one message."""

    async def handle(batch: Batch[RequestExtended], tx: Transaction) -> None:
        await add_effects(batch, tx)
        for event in batch:
            if number_of(event) == number:
                raise error

    return handle


async def rejecting(batch: Batch[RequestExtended], tx: Transaction) -> None:
    """A handler that parks the first message and goes on with the others."""
    for event in batch:
        if number_of(event) == 0:
            batch.reject(ParkReason.UNKNOWN_REFERENCE, "request_id")
    await add_effects(batch, tx)


async def counts(delivery: Delivery) -> dict[str, int]:
    """Rows of what is left of messages."""
    tables = ("inbox", "seen", "effects", "outbox", "audit_outbox")
    (row,) = await delivery.look(
        "SELECT " + ", ".join(f"(SELECT count(*) FROM erasure_executor.{table}) AS {table}" for table in tables)
    )
    return dict(row)


def rows(inbox: int, seen: int, effects: int) -> dict[str, int]:
    """The same as it should be; each effect has its event and its fact."""
    return {"inbox": inbox, "seen": seen, "effects": effects, "outbox": effects, "audit_outbox": effects}


async def willing(delivery: Delivery, handle: Handle = add_effects) -> Worker:
    """A worker that holds all lanes."""
    return delivery.worker(await delivery.lanes(), {RequestExtended: handle})


async def test_plain_messages_leave_their_ids_and_nothing_in_the_inbox(delivery: Delivery) -> None:
    """Effects, events, facts, ids and places are there, and the worker finds nothing to do."""
    worker = await willing(delivery)
    records = [record_of(extended(new_id(), number), partition=number % 2) for number in range(10)]
    await delivery.receive(*records, worker=worker)
    assert await counts(delivery) == rows(inbox=0, seen=10, effects=10)
    places = await delivery.look("SELECT partition, next_offset FROM erasure_executor.positions ORDER BY partition")
    assert [tuple(place) for place in places] == [(0, records[8].offset + 1), (1, records[9].offset + 1)]
    assert await drain(worker) == 0


async def test_what_came_before_has_no_second_effect(delivery: Delivery) -> None:
    """A copy, alone, beside new messages or in its own batch, changes nothing; what is new beside it is handled."""
    worker = await willing(delivery)
    event, event_id = extended(new_id(), 1), new_id()
    await delivery.receive(record_of(event, event_id), worker=worker)
    await delivery.receive(record_of(event, event_id, partition=3), worker=worker)
    await delivery.receive(record_of(event, event_id), record_of(extended(new_id(), 2)), worker=worker)
    twin, twin_id = extended(new_id(), 3), new_id()
    await delivery.receive(record_of(twin, twin_id), record_of(twin, twin_id), worker=worker)
    await drain(worker)
    assert await counts(delivery) == rows(inbox=0, seen=3, effects=3)


async def test_the_same_id_with_other_content_is_parked(delivery: Delivery) -> None:
    """Also when the first was never in the inbox."""
    worker = await willing(delivery)
    event_id = new_id()
    await delivery.receive(record_of(extended(new_id(), 1), event_id), worker=worker)
    await delivery.receive(record_of(extended(new_id(), 2), event_id), worker=worker)
    (parked,) = await delivery.look("SELECT state, reason, field FROM erasure_executor.inbox")
    assert tuple(parked) == ("parked", "id_conflict", "ce_id")


@pytest.mark.parametrize(
    "handle",
    [
        failing(Poison(ParkReason.UNKNOWN_REFERENCE, "request_id"), 0),
        failing(Retry("later"), 0),
        failing(RuntimeError("wrong"), 0),
        rejecting,
    ],
    ids=["poison", "retry", "error", "rejected"],
)
async def test_a_message_that_is_special_sends_all_through_the_inbox(delivery: Delivery, handle: Handle) -> None:
    """Nothing of the first try stays; the worker then handles the nine good ones and deals with the tenth as ever."""
    worker = await willing(delivery, handle)
    await delivery.receive(*[record_of(extended(new_id(), number)) for number in range(10)], worker=worker)
    assert await counts(delivery) == rows(inbox=10, seen=10, effects=0)
    assert not worker.idle.is_set()
    assert worker.wake.is_set()
    assert await drain(worker) == 10
    (effects,) = await delivery.look("SELECT count(*) AS done FROM erasure_executor.effects WHERE number > 0")
    assert effects["done"] == 9
    assert len(await delivery.look("SELECT FROM erasure_executor.inbox")) == 1


async def test_an_error_of_the_database_sends_them_there_too(delivery: Delivery) -> None:
    """A statement that PostgreSQL refuses leaves nothing of the batch; its good messages are handled by the worker."""
    worker = await willing(delivery)
    records = [record_of(extended(new_id(), number)) for number in (1, TOO_MUCH, 2)]
    await delivery.receive(*records, worker=worker)
    assert await counts(delivery) == rows(inbox=3, seen=3, effects=0)
    await drain(worker)
    assert sorted(number for _, number in await delivery.effects()) == [1, 2]


async def test_a_broken_invariant_ends_the_process(delivery: Delivery) -> None:
    """It is not taken for a fault of a message."""
    worker = await willing(delivery, failing(Invariant("broken"), 1))
    with pytest.raises(Invariant):
        await delivery.receive(record_of(extended(new_id(), 1)), worker=worker)


async def test_garbage_among_good_messages_is_parked(delivery: Delivery) -> None:
    """A record without headers and one whose value is no JSON are parked, the good one is handled."""
    worker = await willing(delivery)
    good = extended(new_id(), 1)
    topic, key = good.topic, good.key().encode()
    for bad in (raw_record(topic, key, good.encode(), []), raw_record(topic, key, b"{", headers_of(good))):
        await delivery.receive(bad, record_of(extended(new_id(), 1)), worker=worker)
        await drain(worker)
    assert len(await delivery.effects()) == 2
    parked = await delivery.look("SELECT state, reason FROM erasure_executor.inbox ORDER BY inbox_id")
    assert [tuple(row) for row in parked] == [("parked", "missing_header"), ("parked", "not_json")]


async def test_nothing_overtakes_a_message_of_its_key(delivery: Delivery) -> None:
    """While one waits in the inbox, or is parked there on an ordered topic, later ones of its key lie down behind it."""
    request = new_id()
    worker = await willing(delivery)
    await delivery.receive(record_of(extended(request, 1)))
    await delivery.receive(record_of(extended(request, 2)), worker=worker)
    assert await counts(delivery) == rows(inbox=2, seen=2, effects=0)
    await drain(worker)
    await delivery.receive(record_of(extended(request, 3)), worker=worker)
    assert [number for _, number in await delivery.effects()] == [1, 2, 3]
    await delivery.receive(record_of(extended(request, TOO_MUCH)), worker=worker)
    await drain(worker)
    await delivery.receive(record_of(extended(request, 4)), worker=worker)
    assert await drain(worker) == 0
    assert [number for _, number in await delivery.effects()] == [1, 2, 3]


async def test_messages_of_other_replicas_lanes_are_stored_for_them(delivery: Delivery) -> None:
    """One transaction handles what is ours and stores what is theirs; they handle it, and nobody does both."""
    ours, theirs = await delivery.lanes(), await delivery.lanes(await delivery.another(), instance=1)
    await ours.balance()
    await theirs.balance()
    worker = delivery.worker(ours, {RequestExtended: add_effects})
    await delivery.receive(*[record_of(extended(new_id(), number)) for number in range(40)], worker=worker)
    here = await delivery.look("SELECT count(*) AS n, array_agg(DISTINCT lane) AS lanes FROM erasure_executor.inbox")
    assert 0 < here[0]["n"] < 40
    assert set(here[0]["lanes"]) <= theirs.held.keys()
    assert len(await delivery.effects()) == 40 - here[0]["n"]
    other = delivery.worker(theirs, {RequestExtended: add_effects}, delivery.opened[-1])
    await drain(other)
    assert sorted(number for _, number in await delivery.effects()) == list(range(40))


async def test_lanes_that_were_lost_are_a_fence(delivery: Delivery) -> None:
    """Who believes in lanes that another took meanwhile handles nothing."""
    worker = await willing(delivery)
    await delivery.look("UPDATE erasure_executor.lanes SET token = token + 1")
    await delivery.receive(record_of(extended(new_id(), 1)), worker=worker)
    assert await counts(delivery) == rows(inbox=1, seen=1, effects=0)


async def test_a_lane_that_is_paused_stands_still(delivery: Delivery) -> None:
    """Its messages are stored, until it goes on."""
    worker = await willing(delivery)
    await delivery.look("UPDATE erasure_executor.lanes SET paused_at = now()")
    await delivery.receive(record_of(extended(new_id(), 1)), worker=worker)
    assert await drain(worker) == 0
    await delivery.look("UPDATE erasure_executor.lanes SET paused_at = NULL")
    assert await drain(worker) == 1


async def test_a_halted_worker_handles_nothing(delivery: Delivery) -> None:
    """What comes waits in the inbox for whoever looks into it."""
    worker = await willing(delivery)
    worker.halted = True
    await delivery.receive(record_of(extended(new_id(), 1)), worker=worker)
    assert await counts(delivery) == rows(inbox=1, seen=1, effects=0)


async def test_one_batch_at_a_time(delivery: Delivery) -> None:
    """While the worker is in the middle of a batch, what comes is stored; while something is handled at once, the worker waits."""
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow(batch: Batch[RequestExtended], tx: Transaction) -> None:
        inside.set()
        await go_on.wait()
        await add_effects(batch, tx)

    worker = await willing(delivery, slow)
    await delivery.receive(record_of(extended(new_id(), 1)))
    async with asyncio.TaskGroup() as group:
        step = group.create_task(worker.step())
        await inside.wait()
        await delivery.receive(record_of(extended(new_id(), 2)), worker=worker)
        go_on.set()
    assert step.result() == 1
    assert await counts(delivery) == rows(inbox=1, seen=2, effects=1)
    await drain(worker)

    inside.clear()
    go_on.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(delivery.receive(record_of(extended(new_id(), 3)), worker=worker))
        await inside.wait()
        await delivery.receive(record_of(extended(new_id(), 4), partition=1))
        worker.note()
        assert await worker.step() == 0
        worker.wake.clear()
        go_on.set()
    assert await counts(delivery) == rows(inbox=1, seen=4, effects=3)
    assert worker.wake.is_set()  # it was passed over, and is told to look again
    assert await worker.step() == 1


async def test_a_worker_that_only_looks_is_waited_for(delivery: Delivery) -> None:
    """What comes in the middle of a short batch is handled right after it, and not stored."""
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def short(batch: Batch[RequestExtended], tx: Transaction) -> None:
        inside.set()
        await go_on.wait()
        await add_effects(batch, tx)

    worker = await willing(delivery, short)
    await delivery.receive(record_of(extended(new_id(), 1)))
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.step())
        await inside.wait()
        group.create_task(delivery.receive(record_of(extended(new_id(), 2)), worker=worker))
        await until(lambda: bool(worker.free._waiters), "who waits for the worker")
        go_on.set()
    assert await counts(delivery) == rows(inbox=0, seen=2, effects=2)


async def test_it_can_be_switched_off(database: Access) -> None:
    """With HABEAS_HANDLE_AT_ONCE=false every message lies in the inbox first."""
    delivery = await Delivery.open(database, handle_at_once=False)
    try:
        worker = await willing(delivery)
        await delivery.receive(record_of(extended(new_id(), 1)), worker=worker)
        assert await counts(delivery) == rows(inbox=1, seen=1, effects=0)
        assert await drain(worker) == 1
    finally:
        await delivery.close()


async def test_sensitive_messages_are_opened_for_the_handler_and_never_stored_in_clear(delivery: Delivery) -> None:
    """What a platform sent sealed is handled as if it had been stored: same event, same bytes; the account is in no table."""
    got: list[tuple[Any, bytes]] = []

    async def note(batch: Batch[RequestSubmitted], _: Transaction) -> None:
        got.extend([(event, batch.value) for event in batch])

    worker = delivery.worker(await delivery.lanes(), {RequestSubmitted: note})
    event = submitted(new_id())
    await delivery.receive(record_of(event), worker=worker)
    assert got == [(event, event.encode())]
    found = await delivery.look(
        "SELECT count(*) AS n FROM erasure_executor.seen AS s WHERE s::text LIKE '%' || $1 || '%'", ACCOUNT
    )
    assert found[0]["n"] == 0
    assert await counts(delivery) == rows(inbox=0, seen=1, effects=0)
