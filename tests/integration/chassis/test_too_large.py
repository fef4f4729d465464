"""Events that no record can hold: the one item they tell of fails alone, and no process ends."""

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import pytest_asyncio

from habeas.chassis.batch import Batch
from habeas.chassis.database import Transaction
from habeas.chassis.errors import EventTooLarge
from habeas.chassis.together import Failure, Limits, try_together
from habeas.contracts.outcomes import CategoryOutcome
from habeas.contracts.request_intake import RequestExtended, RequestFulfilled
from habeas.contracts.vocabulary import Outcome, Right, StuckReason, TableResult
from habeas_embedded.provision import Access
from tests.support.delivery import NOON, Delivery, drain, extended, new_id, number_of, record_of

LARGE = 5
TOLD = "SELECT type, count(*) AS events FROM erasure_executor.outbox GROUP BY type"


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """The receiving half of a service."""
    delivery = await Delivery.open(database, inbox_batch_rows_max=64, lease_s=300)
    yield delivery
    await delivery.close()


def too_large(request_id: UUID) -> RequestFulfilled:
    """An event that no record can hold."""
    one = CategoryOutcome(category="c" * 80, result=TableResult.ERASED, rows=1)
    return RequestFulfilled(
        request_id=request_id,
        subject_id=request_id,
        right=Right.ERASURE,
        outcome=Outcome.DONE,
        categories=(one,) * 10_000,
        export_id=None,
        fulfilled_at=NOON,
    )


async def tell(batch: Batch[RequestExtended], tx: Transaction) -> None:
    """Pass each event on, one of them with another that is too large."""
    for event in batch:
        tx.emit(*([event, too_large(event.request_id)] if number_of(event) == LARGE else [event]))


async def test_a_message_whose_effect_no_record_can_tell_is_parked_alone(delivery: Delivery) -> None:
    """No later attempt could tell it either: it is parked, the worker lives on, and all others of the batch are handled."""
    await delivery.receive(*[record_of(extended(new_id(), number)) for number in range(10)])
    worker = delivery.worker(await delivery.lanes(), {RequestExtended: tell})
    await drain(worker)
    handled = ("handled", None, None)
    assert await delivery.states() == [handled] * LARGE + [("parked", "wrong_value", "value")] + [handled] * 4
    assert [tuple(row) for row in await delivery.look(TOLD)] == [("request.extended", 9)]
    assert not worker.halted


async def test_an_item_of_a_sweep_that_no_record_can_tell_fails_alone(delivery: Delivery) -> None:
    """What a sweep works on together is divided until the one is found; all others are settled in the same round."""
    failures: dict[int, Failure] = {}

    async def work(_: Sequence[int]) -> None:
        """Nothing is to be done outside."""

    async def done(part: Sequence[int], _: None) -> None:
        async with delivery.database.transaction("test-done") as tx:
            for number in part:
                key = new_id()
                tx.emit(too_large(key) if number == LARGE else extended(key, number))

    async def failed(part: Sequence[int], failure: Failure) -> None:
        failures.update(dict.fromkeys(part, failure))

    await try_together(range(10), work, done, failed, Limits(10.0))
    assert [(number, failure.reason) for number, failure in failures.items()] == [(LARGE, StuckReason.UNEXPECTED)]
    assert isinstance(failures[LARGE].error, EventTooLarge)
    assert [tuple(row) for row in await delivery.look(TOLD)] == [("request.extended", 9)]
