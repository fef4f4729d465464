"""What comes about a request that a restored database has forgotten, or that was sent to it again."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from habeas.chassis.batch import Batch
from habeas.chassis.errors import Poison
from habeas.chassis.ids import uuid7
from habeas.chassis.message import Message
from habeas.contracts import topics
from habeas.contracts.erasure_executor import ErasureCompleted, ErasureStuck
from habeas.contracts.export_builder import ExportCompleted, ExportStuck
from habeas.contracts.model import Event
from habeas.contracts.vocabulary import ParkReason, StuckReason
from request_intake import handlers
from tests.integration.request_intake.conftest import NOW, Counter


async def hear(counter: Counter, event: Event, handler: Callable[..., Awaitable[None]], *given: object) -> None:
    """Let one event be handled, in its own transaction."""
    message = Message(1, uuid7(counter.desk.clock), topics.REQUESTS, event.type, b"k", None, NOW, 0, b"", event)
    async with counter.db.transaction("test-hear") as tx:
        await handler(Batch([message], {}), tx, *given)


async def erased(counter: Counter, request_id: UUID, subject_id: UUID) -> None:
    """Let the news of an erasure be handled."""
    event = ErasureCompleted(request_id=request_id, subject_id=subject_id, tables=(), erased_at=NOW)
    await hear(counter, event, handlers.on_erasure_completed, counter.desk.keys)


async def the_request(counter: Counter) -> dict[str, Any]:
    """Return the one request that there is."""
    (row,) = await counter.owner.fetch("SELECT * FROM request_intake.requests")
    return dict(row)


async def test_news_of_an_earlier_life_of_the_request_change_nothing(counter: Counter) -> None:
    """A request that was sent again belongs to another subject; what was told of the first is known already, whoever told it."""
    await counter.submit("acc_1")
    await counter.owner.execute("UPDATE request_intake.requests SET state = 'in_progress'")
    before = await the_request(counter)
    request_id, stranger = before["request_id"], uuid7(counter.desk.clock)
    about: dict[str, Any] = {"request_id": request_id, "subject_id": stranger}
    built: dict[str, Any] = {**about, "export_id": stranger}
    stuck: dict[str, Any] = {"reason": StuckReason.KEY_MISSING, "store": None, "table": None, "stuck_at": NOW}
    await erased(counter, request_id, stranger)
    await hear(counter, ErasureStuck(**about, **stuck), handlers.on_erasure_stuck)
    await hear(counter, ExportStuck(**built, **stuck), handlers.on_export_stuck)
    done: dict[str, Any] = {
        "artefact_bytes": 1,
        "artefact_sha256": "ab" * 32,
        "expires_on": NOW.date(),
        "completed_at": NOW,
    }
    await hear(counter, ExportCompleted(**built, tables=(), **done), handlers.on_export_completed)
    assert await the_request(counter) == before
    assert await counter.owner.fetch("SELECT type FROM request_intake.outbox") == []
    await erased(counter, request_id, before["subject_id"])
    assert (await the_request(counter))["state"] == "completed"


async def test_who_is_erased_again_is_closed_without_the_request(counter: Counter) -> None:
    """The request is forgotten, the person is not: their next request is somebody new's, and nothing waits for an operator."""
    first = await counter.submit("acc_1")
    await erased(counter, uuid7(counter.desk.clock), first)
    assert await counter.submit("acc_1") != first


async def test_an_erasure_of_nobody_is_poison(counter: Counter) -> None:
    """Neither the request nor the person is known: parked with the field, never retried."""
    strangers = [uuid7(counter.desk.clock) for _ in range(2)]
    with pytest.raises(Poison) as caught:
        await erased(counter, strangers[0], strangers[1])
    assert (caught.value.reason, caught.value.field) == (ParkReason.UNKNOWN_REFERENCE, "request_id")
