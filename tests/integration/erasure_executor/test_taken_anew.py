"""Requests for erasure that are verified again: anew for another subject, or told again to whoever has not heard."""

import json
from datetime import date
from typing import Any
from uuid import UUID

from erasure_executor import handlers
from erasure_executor.lifecycle import State
from habeas.chassis.batch import Batch
from habeas.chassis.ids import uuid7
from habeas.chassis.message import Message
from habeas.contracts import topics
from habeas.contracts.request_intake import RequestVerified
from habeas.contracts.vocabulary import Right, StuckReason
from habeas.sealing import KeyKind, Place, seal_text
from tests.integration.erasure_executor.test_erase_due import NOW, Bench, Shelf, bench

__all__ = ["bench"]


async def verify(bench: Bench, request_id: UUID, subject_id: UUID, account_id: str = "acc_1") -> None:
    """Let a request for erasure be verified: sealed under the subject's key where there is one."""
    async with bench.db.transaction("test-verify") as tx:
        keys = (await bench.keys.read(tx, [subject_id], KeyKind.DATA)).get(subject_id)
        key = keys or next(iter((await bench.keys.create(tx, [uuid7(bench.clock)], tx.now)).values())).data
        event = RequestVerified(
            request_id=request_id,
            subject_id=subject_id,
            right=Right.ERASURE,
            account=seal_text(key, Place("request", request_id, "account"), account_id),
            categories=None,
            due_on=date(2026, 12, 24),
            subject_ref="ab" * 32,
            verified_at=NOW,
        )
        message = Message(1, uuid7(bench.clock), topics.REQUESTS, event.type, b"k", None, NOW, 0, b"", event)
        await handlers.on_request_verified(Batch([message], {}), tx)


async def told(bench: Bench, kind: str) -> list[dict[str, Any]]:
    """Return the events of a type, in order."""
    sql = "SELECT value FROM erasure_executor.outbox WHERE type = $1 ORDER BY outbox_id"
    return [json.loads(row["value"]) for row in await bench.db.read("test-told", sql, kind)]


async def test_a_request_that_is_taken_anew_is_erased_anew(bench: Bench) -> None:
    """Sent again to a restored database, a request belongs to another subject: what is stuck for the first goes on for the second."""
    request_id, lost = uuid7(bench.clock), uuid7(bench.clock)
    await verify(bench, request_id, lost)
    await bench.sweep(Shelf({"acc_1": 3}))
    assert (await bench.look(request_id)).stuck_reason is StuckReason.KEY_MISSING
    async with bench.db.transaction("test-keys") as tx:
        subject_id = next(iter(await bench.keys.create(tx, [uuid7(bench.clock)], tx.now)))
    await verify(bench, request_id, subject_id)
    await bench.sweep(Shelf({"acc_1": 3}))
    done = await bench.look(request_id)
    assert (done.state, done.subject_id, done.stuck_reason, done.attempts) == (State.COMPLETED, subject_id, None, 1)
    assert not await bench.has_key(subject_id, KeyKind.DATA)
    (news,) = await told(bench, "erasure.completed")
    assert (news["subject_id"], news["tables"][0]["rows"]) == (str(subject_id), 3)


async def test_an_attempt_for_the_first_subject_does_not_end_the_second_ones(bench: Bench) -> None:
    """A request that is taken anew while an attempt is under way is not finished by it."""
    request_id = await bench.begin("acc_1")
    async with bench.db.transaction("test-keys") as tx:
        subject_id = next(iter(await bench.keys.create(tx, [uuid7(bench.clock)], tx.now)))
    await bench.sweep(Shelf({"acc_1": 3}, meanwhile=lambda: verify(bench, request_id, subject_id)))
    again = await bench.look(request_id)
    assert (again.state, again.subject_id, again.attempts) == (State.READY, subject_id, 0)
    assert await bench.has_key(subject_id, KeyKind.DATA)


async def test_who_asks_again_is_told_again(bench: Bench) -> None:
    """A completed erasure is told a second time to whoever has not heard of it, with the words of the first; an open one is not."""
    request_id = await bench.begin("acc_1")
    subject_id = (await bench.look(request_id)).subject_id
    await verify(bench, request_id, subject_id)
    assert await told(bench, "erasure.completed") == []
    await bench.sweep(Shelf({"acc_1": 3}))
    await verify(bench, request_id, subject_id)
    first, second = await told(bench, "erasure.completed")
    assert first == second
    assert (await bench.look(request_id)).attempts == 1
