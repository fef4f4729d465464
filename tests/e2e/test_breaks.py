"""What cannot be done is said and never claimed: the breaks of the demonstration, and what happens when they are mended."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from habeas.contracts.audit import Action
from habeas.contracts.erasure_executor import ErasureStuck
from habeas.contracts.export_builder import ExportStuck
from habeas.contracts.vocabulary import Outcome, Right, StuckReason
from habeas_demo.breaking import BREAKS, Reach
from habeas_demo.people import Person
from habeas_embedded.mailbox import Faults
from tests.support.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

OUTCOME_CODE = "SELECT smtp_code FROM notification_mailer.messages WHERE request_id = $1 AND kind = 'outcome'"
ROWS_OF = "SELECT (SELECT count(*) FROM accounts WHERE id = $1) + (SELECT count(*) FROM tasks WHERE account_id = $1)"


@asynccontextmanager
async def broken(stage: Stage, name: str) -> AsyncIterator[None]:
    """Break something of the platform for the block, and mend it again whatever happens."""
    reach = Reach(stage.owner, stage.servers.mailbox)
    await BREAKS[name].do(reach)
    try:
        yield
    finally:
        await BREAKS[name].undo(reach)


async def is_open(stage: Stage, request_id: UUID) -> bool:
    """Whether nobody has claimed that the request is done: not the topic, not the table, not the log."""
    row = await stage.request(request_id)
    claimed = {Action.REQUEST_COMPLETED} & {
        entry.fact.action for entry in stage.heard.audit if entry.fact.request == request_id
    }
    return request_id not in stage.heard.completed and row["closed_at"] is None and not claimed


async def rows_of(stage: Stage, person: Person) -> int:
    """How many rows with a person's id there are in two of the platform's tables."""
    found: int = await stage.owner.fetchval(ROWS_OF, person.account_id)
    return found


async def refused_once(stage: Stage, request_id: UUID) -> None:
    """Wait until the server has answered 450 to the outcome mail at least once."""

    async def refused() -> bool:
        return bool(await stage.habeas.fetchval(OUTCOME_CODE, request_id) == 450)

    await stage.finds(refused, "a refused outcome mail")


async def test_missing_table_keeps_requests_open(stage: Stage) -> None:
    """While a table of the map is gone nothing is erased or shown, the request says `schema_mismatch`; when it is back, all is done."""
    people = stage.take(2)
    before = await rows_of(stage, people[0])
    async with broken(stage, "table-missing"):
        erasure, access = [
            await stage.ask(right, person) for right, person in zip((Right.ERASURE, Right.ACCESS), people, strict=True)
        ]
        for request_id in (erasure, access):
            await stage.holds(request_id, state="in_progress", stuck_reason=StuckReason.SCHEMA_MISMATCH)
            await stage.logged(request_id, Action.REQUEST_STUCK)
            assert await is_open(stage, request_id)
        assert await rows_of(stage, people[0]) == before > 0
        acknowledged = [["acknowledgement"], ["acknowledgement"]]
        await stage.until(lambda: [stage.mail_kinds(person.email) for person in people] == acknowledged, "two mails")
    done = await stage.completed(erasure, access)
    assert [each.outcome for each in done] == [Outcome.PARTLY_KEPT, Outcome.DONE]
    assert await rows_of(stage, people[0]) == 0
    assert [stuck.reason for stuck in stage.heard.of(erasure, ErasureStuck)] == [StuckReason.SCHEMA_MISMATCH]
    assert [stuck.reason for stuck in stage.heard.of(access, ExportStuck)] == [StuckReason.SCHEMA_MISMATCH]


async def test_refusing_store_keeps_the_erasure_open(stage: Stage) -> None:
    """A store that refuses one table keeps the whole erasure undone and open, names the table, and stops nobody else's request."""
    person, other = stage.take(2)
    before = await rows_of(stage, person)
    async with broken(stage, "store-revoked"):
        erasure = await stage.ask(Right.ERASURE, person)
        await stage.holds(erasure, state="in_progress", stuck_reason=StuckReason.STORE_REFUSED)
        [completed] = await stage.completed(await stage.ask(Right.ACCESS, other))
        assert completed.outcome is Outcome.DONE
        assert await is_open(stage, erasure)
        assert await rows_of(stage, person) == before > 0
    [done] = await stage.completed(erasure)
    assert done.outcome is Outcome.PARTLY_KEPT
    assert await rows_of(stage, person) == 0
    [stuck] = stage.heard.of(erasure, ErasureStuck)
    assert (stuck.reason, stuck.store, stuck.table) == (StuckReason.STORE_REFUSED, "platform", "tasks")


async def test_nobody_is_done_before_the_mail_is_taken(stage: Stage) -> None:
    """A mail server that asks to come again later leaves an erased person's request `answering`; when it takes mail, it is completed."""
    person = stage.take_one()
    async with broken(stage, "mail-refused"):
        erasure = await stage.ask(Right.ERASURE, person)
        row = await stage.holds(erasure, state="answering", outcome=Outcome.PARTLY_KEPT)
        await refused_once(stage, erasure)
        assert row["stuck_reason"] is None
        assert await is_open(stage, erasure)
        assert stage.mails(person.email) == []
    [done] = await stage.completed(erasure)
    assert done.outcome is Outcome.PARTLY_KEPT
    assert stage.mail_kinds(person.email).count("outcome") == 1


async def test_mail_refused_for_good_needs_a_person(stage: Stage) -> None:
    """A mailbox that does not exist leaves the request `answering` with `mail_refused`, also later: a person has to find another way."""
    person, other = stage.take(2)
    stage.servers.mailbox.misbehave(Faults(refuse_all=True, refuse_code=550))
    try:
        access = await stage.ask(Right.ACCESS, person)
        await stage.holds(access, state="answering", stuck_reason=StuckReason.MAIL_REFUSED)
        await stage.logged(access, Action.MAIL_REFUSED, Action.REQUEST_STUCK)
    finally:
        stage.servers.mailbox.behave()
    await stage.completed(await stage.ask(Right.ACCESS, other))
    row = await stage.request(access)
    assert (row["state"], row["stuck_reason"]) == ("answering", StuckReason.MAIL_REFUSED)
    assert await is_open(stage, access)
    assert stage.mails(person.email) == []
