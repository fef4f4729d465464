"""The worker against PostgreSQL: what commits together, who is blamed, who waits, and who waits for whom."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from habeas.chassis.batch import Batch
from habeas.chassis.database import Transaction
from habeas.chassis.errors import Invariant, Poison, Retry
from habeas.chassis.lanes import Lanes
from habeas.contracts.audit import Action, AuditFact
from habeas.contracts.model import Event
from habeas.contracts.platform import RequestSubmitted, RetentionTicked
from habeas.contracts.request_intake import RequestExtended, RequestRestricted
from habeas.contracts.vocabulary import ParkReason
from habeas_embedded.provision import Access
from tests.support.delivery import (
    NOON,
    Delivery,
    by_key,
    drain,
    extended,
    headers_of,
    new_id,
    number_of,
    raw_record,
    record_of,
    restricted,
    submitted,
    ticked,
)

ADD_EFFECTS = "INSERT INTO effects (request_id, number) SELECT * FROM unnest($1::uuid[], $2::integer[])"
TOO_MUCH = 1_000_000  # the table of effects refuses it
HANDLED, PENDING = ("handled", None, None), ("pending", None, None)
UNSTORABLE = ("parked", "wrong_value", "value")
UNKNOWN = ("parked", "unknown_reference", "request_id")

Extended = Batch[RequestExtended]


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """The receiving half of a service."""
    delivery = await Delivery.open(database, inbox_batch_rows_max=64, lease_s=300)
    yield delivery
    await delivery.close()


async def add_effects(batch: Extended, tx: Transaction) -> None:
    """Write down each event in one statement, pass it on, and record it."""
    events = list(batch)
    await tx.execute(ADD_EFFECTS, [event.request_id for event in events], [number_of(event) for event in events])
    for event in batch:
        tx.emit(event)
        tx.record(AuditFact(Action.REQUEST_COMPLETED, request=event.request_id))


def failing(
    wrong: Callable[[RequestExtended], Exception | None],
) -> Callable[[Extended, Transaction], Awaitable[None]]:
    """A handler that writes effects and lays a fault on some messages."""

    async def handle(batch: Extended, tx: Transaction) -> None:
        for event in batch:
            error = wrong(event)
            if error is not None:
                raise error
        await add_effects(batch, tx)

    return handle


def rejecting(number: int) -> Callable[[Extended, Transaction], Awaitable[None]]:
    """A handler that parks one message and goes on with the others."""

    async def handle(batch: Extended, tx: Transaction) -> None:
        for event in batch:
            if number_of(event) == number:
                batch.reject(ParkReason.UNKNOWN_REFERENCE, "request_id")
        await add_effects(batch, tx)

    return handle


async def counts(delivery: Delivery) -> tuple[int, int, int]:
    """Rows of effects, outbox and audit outbox."""
    (row,) = await delivery.look(
        "SELECT (SELECT count(*) FROM erasure_executor.effects) AS effects,"
        " (SELECT count(*) FROM erasure_executor.outbox) AS events,"
        " (SELECT count(*) FROM erasure_executor.audit_outbox) AS facts"
    )
    return row["effects"], row["events"], row["facts"]


async def waiting(delivery: Delivery) -> list[tuple[int, str, float]]:
    """Attempts, reason and seconds to wait from now of the messages that wait."""
    rows = await delivery.look(
        "SELECT attempts, reason, next_attempt_at FROM erasure_executor.inbox WHERE attempts > 0 ORDER BY inbox_id"
    )
    return [(r["attempts"], r["reason"], (r["next_attempt_at"] - delivery.clock.now()).total_seconds()) for r in rows]


async def pass_time(delivery: Delivery, lanes: Lanes, by: timedelta) -> None:
    """Let time pass for a replica that keeps its lanes."""
    delivery.clock.advance(by)
    await lanes.balance()


async def test_effects_messages_and_facts_commit_together(delivery: Delivery) -> None:
    """After a handler everything it did is there once, and its messages are gone from the inbox; their ids are known."""
    await delivery.receive(*[record_of(extended(new_id(), number)) for number in range(10)])
    worker = delivery.worker(await delivery.lanes(), {RequestExtended: add_effects})
    assert await drain(worker) == 10
    assert await counts(delivery) == (10, 10, 10)
    (left,) = await delivery.look(
        "SELECT (SELECT count(*) FROM erasure_executor.inbox) AS waiting, (SELECT count(*) FROM erasure_executor.seen) AS known"
    )
    assert (left["waiting"], left["known"]) == (0, 10)
    assert await drain(worker) == 0


async def test_or_not_at_all(delivery: Delivery) -> None:
    """A handler that fails after its statements, or whose messages cannot be written, leaves nothing behind."""

    async def fail_late(batch: Extended, tx: Transaction) -> None:
        await add_effects(batch, tx)
        raise RuntimeError("late")

    async def emit_nonsense(batch: Extended, tx: Transaction) -> None:
        await add_effects(batch, tx)
        tx.emit(cast("Any", None))

    await delivery.receive(record_of(extended(new_id(), 1)))
    lanes = await delivery.lanes()
    for handler in (fail_late, emit_nonsense):
        worker = delivery.worker(lanes, {RequestExtended: handler})
        await drain(worker)
        assert await counts(delivery) == (0, 0, 0)
        await pass_time(delivery, lanes, timedelta(minutes=1))
    assert [attempts for attempts, *_ in await waiting(delivery)] == [2]


async def test_poison_parks_its_message_alone(delivery: Delivery) -> None:
    """What a message lacks parks it, with the reason; the nine others of the batch are handled in the same step."""
    await delivery.receive(*[record_of(extended(new_id(), number)) for number in range(10)])

    def unknown(event: RequestExtended) -> Exception | None:
        return Poison(ParkReason.UNKNOWN_REFERENCE, "request_id") if number_of(event) == 5 else None

    assert await delivery.worker(await delivery.lanes(), {RequestExtended: failing(unknown)}).step() == 10
    assert await delivery.states() == [HANDLED] * 5 + [UNKNOWN] + [HANDLED] * 4
    assert await counts(delivery) == (9, 9, 10)
    (fact,) = await delivery.look(
        "SELECT tail FROM erasure_executor.audit_outbox WHERE tail LIKE '%action=message.parked%'"
    )
    assert "request=-" in fact["tail"]


@pytest.mark.parametrize("place", [0, 40, 63])
async def test_a_failing_statement_is_halved_until_its_message_is_alone(delivery: Delivery, place: int) -> None:
    """One of 64 messages breaks the statement for all: the others are handled, it waits and is tried again later."""
    numbers = [TOO_MUCH if number == place else number for number in range(64)]
    await delivery.receive(*[record_of(extended(new_id(), number)) for number in numbers])
    lanes = await delivery.lanes()
    worker = delivery.worker(lanes, {RequestExtended: add_effects})
    await drain(worker)
    assert sorted(number for _, number in await delivery.effects()) == [n for n in range(64) if n != place]
    ((attempts, reason, wait_s),) = await waiting(delivery)
    assert (attempts, reason) == (1, "unexpected")
    assert 0.5 <= wait_s <= 1.0
    await pass_time(delivery, lanes, timedelta(seconds=1))
    await drain(worker)
    ((attempts, _, wait_s),) = await waiting(delivery)
    assert attempts == 2
    assert 1.0 <= wait_s <= 2.0


async def test_a_value_that_the_driver_refuses_is_its_messages_fault(delivery: Delivery) -> None:
    """An argument that does not fit its type is found before anything is sent: that is no trouble with the database."""

    async def handle(batch: Extended, tx: Transaction) -> None:
        events = list(batch)
        numbers = [number_of(event) * 10_000 for event in events]  # beyond 32 bits for one
        await tx.execute(ADD_EFFECTS, [event.request_id for event in events], numbers)

    await delivery.receive(*[record_of(extended(new_id(), number)) for number in (1, TOO_MUCH, 2)])
    await drain(delivery.worker(await delivery.lanes(), {RequestExtended: handle}))
    assert [number for _, number in await delivery.effects()] == [10_000, 20_000]
    assert sorted(await delivery.states()) == [HANDLED, HANDLED, UNSTORABLE]


async def test_a_value_that_the_server_refuses_is_parked_at_once(delivery: Delivery) -> None:
    """Text that it cannot hold: no other attempt would end otherwise, and nobody else waits for it."""

    async def handle(batch: Extended, tx: Transaction) -> None:
        for event in batch:
            await tx.fetchval("SELECT $1::text", "\0" if number_of(event) == TOO_MUCH else "a")
        await add_effects(batch, tx)

    await delivery.receive(*[record_of(extended(new_id(), number)) for number in (1, TOO_MUCH, 2)])
    await drain(delivery.worker(await delivery.lanes(), {RequestExtended: handle}))
    assert [number for _, number in await delivery.effects()] == [1, 2]
    assert sorted(await delivery.states()) == [HANDLED, HANDLED, UNSTORABLE]


async def test_retry_holds_back_its_key_alone_and_keeps_order(delivery: Delivery) -> None:
    """While one message waits, later ones of its key wait behind it and other keys go on; then they follow in order."""
    slow, quick = new_id(), new_id()
    ready = False

    def not_yet(event: RequestExtended) -> Exception | None:
        return Retry("not_ready") if event.request_id == slow and number_of(event) == 1 and not ready else None

    await delivery.receive(*[record_of(extended(key, number)) for number in range(4) for key in (slow, quick)])
    lanes = await delivery.lanes()
    worker = delivery.worker(lanes, {RequestExtended: failing(not_yet), RequestRestricted: add_nothing})
    await drain(worker)
    assert by_key(await delivery.effects()) == {slow: [0], quick: [0, 1, 2, 3]}
    assert [(attempts, reason) for attempts, reason, _ in await waiting(delivery)] == [(1, "not_ready")]
    await delivery.receive(record_of(restricted(slow)), record_of(extended(quick, 4)))
    await drain(worker)
    assert by_key(await delivery.effects()) == {slow: [0], quick: [0, 1, 2, 3, 4]}
    ready = True
    assert await drain(worker) == 0
    await pass_time(delivery, lanes, timedelta(seconds=1))
    await drain(worker)
    assert by_key(await delivery.effects())[slow] == [0, 1, 2, 3]
    assert {state for state, *_ in await delivery.states()} == {"handled"}


async def add_nothing(batch: Batch[Any], tx: Transaction) -> None:
    """Handle without an effect."""


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.DeadlockDetectedError("x"),
        asyncpg.SerializationError("x"),
        asyncpg.ConnectionDoesNotExistError("x"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.DiskFullError("x"),
        asyncpg.ReadOnlySQLTransactionError("x"),
        ConnectionRefusedError(),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_trouble_with_the_database_blames_nobody(delivery: Delivery, error: Exception) -> None:
    """Whatever happens to the database or the way to it, no message loses an attempt or its place."""
    await delivery.receive(*[record_of(extended(new_id(), number)) for number in range(3)])
    troubles = [error]

    def trouble(event: RequestExtended) -> Exception | None:
        return troubles.pop() if troubles and number_of(event) == 1 else None

    worker = delivery.worker(await delivery.lanes(), {RequestExtended: failing(trouble)})
    with pytest.raises(type(error)):
        await worker.step()
    assert await waiting(delivery) == []
    await drain(worker)
    assert [number for _, number in await delivery.effects()] == [0, 1, 2]


async def test_a_statement_that_takes_too_long_gets_less_to_do(delivery: Delivery) -> None:
    """A batch that the statement's time limit ends comes again in halves."""
    sizes: list[int] = []

    async def handle(batch: Extended, tx: Transaction) -> None:
        sizes.append(len(batch))
        if len(batch) > 16:
            await tx.execute("SET LOCAL statement_timeout = 10")
            await tx.execute("SELECT pg_sleep(10)")
        await add_effects(batch, tx)

    await delivery.receive(*[record_of(extended(new_id(), number)) for number in range(64)])
    worker = delivery.worker(await delivery.lanes(), {RequestExtended: handle})
    for _ in range(2):
        with pytest.raises(asyncpg.QueryCanceledError):
            await worker.step()
    assert await worker.step() == 16
    assert sizes == [64, 32, 16]
    assert await waiting(delivery) == []


def poisoning(number: int) -> Callable[[Extended, Transaction], Awaitable[None]]:
    """A handler to which one message is poison."""
    return failing(
        lambda event: Poison(ParkReason.UNKNOWN_REFERENCE, "request_id") if number_of(event) == number else None
    )


@pytest.mark.parametrize("handler", [poisoning(2), rejecting(2)], ids=["raised", "rejected"])
async def test_parked_on_a_topic_of_the_fleet_holds_its_key_back(
    delivery: Delivery, handler: Callable[[Extended, Transaction], Awaitable[None]]
) -> None:
    """Behind a parked message later ones of its key wait, also of the same batch, until an operator resolves it."""
    one, other = new_id(), new_id()
    await delivery.receive(*[record_of(extended(key, number)) for number in (1, 2, 3) for key in (one, other)][:-1])
    await delivery.receive(record_of(restricted(one)))
    worker = delivery.worker(await delivery.lanes(), {RequestExtended: handler, RequestRestricted: add_nothing})
    await drain(worker)
    assert by_key(await delivery.effects()) == {one: [1], other: [1]}
    assert await delivery.states() == [HANDLED, HANDLED, UNKNOWN, UNKNOWN, PENDING, PENDING]
    await delivery.look(
        "UPDATE erasure_executor.inbox SET state = 'resolved', blocks = false WHERE state = 'parked' RETURNING 1"
    )
    await drain(worker)
    assert by_key(await delivery.effects()) == {one: [1, 3], other: [1]}


async def test_unreadable_on_a_topic_of_the_fleet_holds_its_key_back(delivery: Delivery) -> None:
    """The same goes for a message whose content cannot be read."""
    request = new_id()
    broken = extended(request, 2)
    spoiled = raw_record(broken.topic, broken.key().encode(), b"{", headers_of(broken))
    await delivery.receive(record_of(extended(request, 1)), spoiled, record_of(extended(request, 3)))
    await drain(delivery.worker(await delivery.lanes(), {RequestExtended: add_effects}))
    assert await delivery.states() == [HANDLED, ("parked", "not_json", "value"), PENDING]


async def test_parked_on_a_platforms_topic_holds_nothing_back(delivery: Delivery) -> None:
    """What a platform got wrong does not keep its next message, of the same person, from being handled."""
    seen: list[UUID] = []
    first, second, third = (submitted(new_id()) for _ in range(3))

    async def handle(batch: Batch[RequestSubmitted], tx: Transaction) -> None:
        for event in batch:
            if event == first:
                raise Poison(ParkReason.BAD_SIGNATURE, "attestation.signature")
            seen.append(event.request_id)

    await delivery.receive(*map(record_of, (first, second)))
    worker = delivery.worker(await delivery.lanes(), {RequestSubmitted: handle})
    await drain(worker)
    await delivery.receive(record_of(third))
    await drain(worker)
    assert await delivery.states() == [("parked", "bad_signature", "attestation.signature"), HANDLED, HANDLED]
    assert seen == [second.request_id, third.request_id]


@pytest.mark.parametrize(("make", "behind"), [(extended, PENDING), (lambda key, _: submitted(key), HANDLED)])
async def test_when_the_horizon_is_over_the_message_is_parked(
    delivery: Delivery, make: Callable[[UUID, int], Event], behind: tuple[str, None, None]
) -> None:
    """Retried for the whole horizon, the message is parked with its last reason, and blocks as its topic says."""
    handled: list[Event] = []

    async def handle(batch: Batch[Any], tx: Transaction) -> None:
        for event in batch:
            if event == never:
                raise Retry("store_away")
            handled.append(event)

    key = new_id()
    never, later = make(key, 1), make(key, 2)
    if isinstance(never, RequestSubmitted):
        later = submitted(new_id())
    await delivery.receive(record_of(never), record_of(later))
    lanes = await delivery.lanes()
    worker = delivery.worker(lanes, {type(never): handle})
    attempts = 0
    while (await delivery.states())[0] == ("pending", None if not attempts else "store_away", None):
        assert (await delivery.states())[1] == PENDING
        await pass_time(delivery, lanes, timedelta(hours=8))
        attempts += 1
        await drain(worker)
    assert attempts * timedelta(hours=8) > timedelta(days=3)
    assert await delivery.states() == [("parked", "exhausted", "store_away"), behind]


async def test_a_clock_that_jumps_ahead_exhausts_nobody(delivery: Delivery) -> None:
    """A message tried once is tried again, however long ago it seems to have come."""
    await delivery.receive(record_of(extended(new_id(), 1)))
    lanes = await delivery.lanes()
    worker = delivery.worker(lanes, {RequestExtended: failing(lambda _: Retry("not_ready"))})
    await pass_time(delivery, lanes, timedelta(days=30))
    await drain(worker)
    assert await delivery.states() == [("pending", "not_ready", None)]


async def test_a_clock_that_steps_back_delays_nobody(delivery: Delivery) -> None:
    """Messages that were stored or put off by a clock that ran ahead do not wait for that time to come again."""
    before = NOON - timedelta(days=3)
    await delivery.receive(*[record_of(extended(new_id(), number), at=before) for number in (1, 2)])
    lanes = await delivery.lanes()
    tries = 0

    def first_time(event: RequestExtended) -> Exception | None:
        nonlocal tries
        tries += number_of(event) == 2
        return Retry("not_ready") if number_of(event) == 2 and tries == 1 else None

    worker = delivery.worker(lanes, {RequestExtended: failing(first_time)})
    await drain(worker)
    await delivery.receive(record_of(extended(new_id(), 3)))
    delivery.clock.set(NOON - timedelta(days=2))
    await delivery.receive(record_of(extended(new_id(), 4), at=before))
    await drain(worker)
    assert [number for _, number in await delivery.effects()] == [1, 2, 4]
    assert (await delivery.states())[2] == ("parked", "from_the_future", "ce_time")


async def test_too_many_parked_in_a_row_halt_the_worker(delivery: Delivery) -> None:
    """After so many parked messages of our own without a good one between, nothing more is handled: the fault is likely ours."""
    delivery.settings = delivery.settings.model_copy(update={"parked_in_a_row_max": 5})
    worker = delivery.worker(await delivery.lanes(), {RequestExtended: always_poison})
    await delivery.receive(*[record_of(extended(new_id(), 1)) for _ in range(4)])
    await drain(worker)
    assert not worker.halted
    await delivery.receive(record_of(extended(new_id(), 1)))
    await drain(worker)
    assert worker.halted


async def test_garbage_from_outside_halts_nobody(delivery: Delivery) -> None:
    """However much of what outsiders send is parked, it neither halts the worker nor adds to what would."""
    delivery.settings = delivery.settings.model_copy(update={"parked_in_a_row_max": 5})
    worker = delivery.worker(await delivery.lanes(), {RetentionTicked: always_poison, RequestExtended: always_poison})
    await delivery.receive(*[record_of(extended(new_id(), 1)) for _ in range(4)])
    await delivery.receive(*[record_of(ticked(new_id())) for _ in range(50)])
    await drain(worker)
    assert {state for state, *_ in await delivery.states()} == {"parked"}
    assert not worker.halted


async def always_poison(batch: Batch[Any], tx: Transaction) -> None:
    """Find every message wrong."""
    for _ in batch:
        batch.reject(ParkReason.WRONG_VALUE, "x")


async def test_what_cannot_be_ends_the_work(delivery: Delivery) -> None:
    """An invariant that breaks leaves the worker at once; nothing is committed and no message is blamed."""
    await delivery.receive(record_of(extended(new_id(), 1)))
    worker = delivery.worker(await delivery.lanes(), {RequestExtended: failing(lambda _: Invariant("x"))})
    with pytest.raises(Invariant):
        await worker.step()
    assert await delivery.states() == [PENDING]
    assert await counts(delivery) == (0, 0, 0)


async def test_a_type_without_a_handler_is_parked(delivery: Delivery) -> None:
    """A message that was stored for a handler which this version has no more is parked, and others go on."""
    await delivery.receive(record_of(restricted(new_id())), record_of(extended(new_id(), 1)))
    await drain(delivery.worker(await delivery.lanes(), {RequestExtended: add_effects}))
    assert await delivery.states() == [("parked", "unknown_type", "ce_type"), HANDLED]


async def test_statements_do_not_grow_with_messages(delivery: Delivery) -> None:
    """One message or five hundred: the same number of statements in the transaction."""
    seen: list[Transaction] = []

    async def handle(batch: Extended, tx: Transaction) -> None:
        seen.append(tx)
        await add_effects(batch, tx)

    delivery.settings = delivery.settings.model_copy(update={"inbox_batch_rows_max": 500})
    worker = delivery.worker(await delivery.lanes(), {RequestExtended: handle})
    for count in (1, 500):
        await delivery.receive(*[record_of(extended(new_id(), number)) for number in range(count)])
        assert await worker.step() == count
    # Claim, the handler's own, take out what is handled, events, facts.
    assert [tx.statements for tx in seen] == [5, 5]
