"""The order of one person's requests: an erasure lets a copy that was asked for before it end first, and never waits for ever."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, cast
from uuid import UUID

import pytest

from habeas.chassis.batch import Batch
from habeas.chassis.clock import FakeClock
from habeas.chassis.ids import uuid7
from habeas.chassis.message import Message
from habeas.contracts.export_builder import ExportCompleted, ExportStuck
from habeas.contracts.model import Event
from habeas.contracts.notification_mailer import MailSent, mail_id_of
from habeas.contracts.outcomes import ExportedTable
from habeas.contracts.vocabulary import MailKind, StuckReason
from habeas.datamap.postgres import ContactDetails
from request_intake import handlers, sweeps
from tests.integration.request_intake.conftest import NOW, Counter
from tests.integration.request_intake.test_opening import Known

WAITS: Final = ("received", "earlier_request")
HOW = "SELECT subject_id, state, stuck_reason FROM request_intake.requests WHERE request_id = $1"
HOME = Known(acc_1=ContactDetails("a@example.org", None, None))


def asked(counter: Counter, right: str, after_s: float = 0, **parts: Any) -> dict[str, Any]:
    """One request of the same person, so many seconds after the first."""
    details = {"right": right, "ground": "consent_withdrawn"} if right == "erasure" else None
    at = NOW + timedelta(seconds=after_s - 60)
    given = {"received_at": at, "authenticated_at": at, **parts}
    return counter.body(right=right, details=details, **given)


async def how(counter: Counter, body: dict[str, Any]) -> tuple[str, str | None]:
    """State and reason of a request."""
    (row,) = await counter.db.read("test-look", HOW, UUID(body["request_id"]))
    return row["state"], row["stuck_reason"]


async def look(counter: Counter) -> int:
    """Open what can be opened."""
    return (await sweeps.open_received(counter.db, HOME, counter.desk.keys)).handled


async def tell(counter: Counter, event: Event, handler: Callable[..., Awaitable[None]]) -> None:
    """Let the service hear of something."""
    message = Message(1, uuid7(counter.desk.clock), event.topic, event.type, b"k", None, NOW, 0, event.encode(), event)
    async with counter.db.transaction("test-tell") as tx:
        await handler(Batch([message], {}), tx)


async def subject_of(counter: Counter, body: dict[str, Any]) -> UUID:
    """Whose request it is."""
    (row,) = await counter.db.read("test-look", HOW, UUID(body["request_id"]))
    return UUID(bytes=row["subject_id"].bytes)


async def build(counter: Counter, body: dict[str, Any]) -> None:
    """Let the copy be built."""
    done = ExportCompleted(
        request_id=UUID(body["request_id"]),
        subject_id=await subject_of(counter, body),
        export_id=UUID(int=9),
        tables=(ExportedTable(store="platform", table="tasks", category="usage", rows=1),),
        artefact_bytes=10,
        artefact_sha256="0" * 64,
        expires_on=NOW.date(),
        completed_at=NOW,
    )
    await tell(counter, done, handlers.on_export_completed)


async def mail(counter: Counter, body: dict[str, Any]) -> None:
    """Let the outcome mail be sent."""
    request_id = UUID(body["request_id"])
    kind = MailKind.OUTCOME
    sent = MailSent(request_id=request_id, mail_id=mail_id_of(request_id, kind), kind=kind, sent_at=NOW)
    await tell(counter, sent, handlers.on_mail_sent)


@pytest.mark.parametrize("right", ["access", "portability"])
@pytest.mark.parametrize("erasure_is_first_in_batch", [True, False])
async def test_an_erasure_waits_for_the_earlier_copy(
    counter: Counter, right: str, *, erasure_is_first_in_batch: bool
) -> None:
    """It stays received with the reason until the person was told of the copy, and goes on in the next look, without a pause."""
    copy, erasure = asked(counter, right), asked(counter, "erasure", 1)
    await counter.take(*((erasure, copy) if erasure_is_first_in_batch else (copy, erasure)))
    assert await look(counter) == 2
    assert await how(counter, copy) == ("in_progress", None)
    assert await how(counter, erasure) == WAITS
    await build(counter, copy)
    assert await look(counter) == 0
    assert await how(counter, erasure) == WAITS
    did = [set[str]()]
    counter.db.on_commit(lambda pending: did.append(pending.did))
    await mail(counter, copy)
    assert did[-1] == {"let_go_on"}, "which wakes the next look"
    await mail(counter, copy)
    assert did[-1] == set(), "nobody waits any more"
    assert await look(counter) == 1
    assert await how(counter, erasure) == ("in_progress", None)


async def test_a_later_copy_is_not_waited_for(counter: Counter) -> None:
    """Only what was asked for before the erasure."""
    erasure, copy = asked(counter, "erasure"), asked(counter, "access", 1)
    await counter.take(copy, erasure)
    assert await look(counter) == 2
    assert await how(counter, erasure) == ("in_progress", None)


async def test_a_copy_that_needs_somebody_is_not_waited_for(counter: Counter) -> None:
    """One that is stuck lets the erasure go on at once; one whose person is not known is not waited for at all."""
    unproved = asked(counter, "access", attestation=None)
    copy, erasure = asked(counter, "access", 1), asked(counter, "erasure", 2)
    await counter.take(unproved, copy, erasure)
    await look(counter)
    assert await how(counter, unproved) == ("awaiting_identity", "needs_identity")
    assert await how(counter, erasure) == WAITS
    stuck = ExportStuck(
        request_id=UUID(copy["request_id"]),
        subject_id=await subject_of(counter, copy),
        export_id=UUID(int=9),
        reason=StuckReason.SCHEMA_MISMATCH,
        store=None,
        table=None,
        stuck_at=NOW,
    )
    await tell(counter, stuck, handlers.on_export_stuck)
    assert await look(counter) == 1
    assert await how(counter, erasure) == ("in_progress", None)


async def test_the_wait_ends_before_the_erasure_is_due(counter: Counter) -> None:
    """Five days before its own day the erasure goes on, whatever became of the copy; until then it looks again by itself."""
    copy, erasure = asked(counter, "access"), asked(counter, "erasure", 1)
    taken = await counter.take(erasure, copy)
    await look(counter)
    clock = cast("FakeClock", counter.db.clock)
    clock.advance(timedelta(seconds=11))
    assert await look(counter) == 1
    assert await how(counter, erasure) == WAITS
    days = (taken.request["due_on"] - NOW.date()).days - 5
    clock.advance(timedelta(days=days - 1))
    await look(counter)
    assert await how(counter, erasure) == WAITS
    clock.advance(timedelta(days=1))
    assert await look(counter) == 1
    assert await how(counter, erasure) == ("in_progress", None)
