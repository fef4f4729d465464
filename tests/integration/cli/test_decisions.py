"""Retrying and resolving parked messages by command: what happens to the message, to what waits behind it, and to the record."""

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from habeas.chassis.batch import Batch
from habeas.chassis.database import Transaction
from habeas.chassis.errors import Poison
from habeas.cli import decisions
from habeas.contracts.audit import Action, AuditFact, AuditOutcome
from habeas.contracts.request_intake import RequestExtended
from habeas.contracts.vocabulary import ParkReason, ResolveReason
from habeas_embedded.provision import Access
from tests.integration.cli.conftest import Owner, Run, parsed
from tests.integration.cli.test_control import recorded
from tests.support.delivery import (
    CONSUMER,
    Delivery,
    by_key,
    drain,
    extended,
    new_id,
    number_of,
    raw_record,
    record_of,
)

SCHEMA = "erasure_executor"
ADD = "INSERT INTO effects (request_id, number) SELECT * FROM unnest($1::uuid[], $2::integer[])"


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """A service's slice."""
    delivery = await Delivery.open(database)
    yield delivery
    await delivery.close()


class Handler:
    """Rejects some numbers, until it is mended."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)

    async def __call__(self, batch: Batch[RequestExtended], tx: Transaction) -> None:
        """Write down what came, and park what is bad."""
        good = []
        for event in batch:
            if number_of(event) in self.bad:
                raise Poison(ParkReason.UNKNOWN_REFERENCE, "request_id")
            good.append(event)
        await tx.execute(ADD, [event.request_id for event in good], [number_of(event) for event in good])


async def parked_at(delivery: Delivery, handler: Handler, key: UUID, count: int = 4) -> list[str]:
    """Handle as many messages of one key as go; gives the IDs of what is parked."""
    await delivery.receive(*[record_of(extended(key, number)) for number in range(1, count + 1)])
    await drain(delivery.worker(await delivery.lanes(), {RequestExtended: handler}))
    rows = await delivery.look(f"SELECT inbox_id FROM {SCHEMA}.inbox WHERE state = 'parked' ORDER BY inbox_id")
    return [f"{CONSUMER}/{row['inbox_id']}" for row in rows]


async def go_on(delivery: Delivery, handler: Handler) -> None:
    """Handle what goes now."""
    await drain(delivery.worker(await delivery.lanes(), {RequestExtended: handler}))


def test_reasons_are_the_contracts() -> None:
    """The words that the command offers are those of the contract, and each can stand in the audit log."""
    assert tuple(decisions._BECAUSE) == tuple(ResolveReason)
    assert set(ResolveReason) <= set(AuditOutcome)
    assert set(decisions._WHY_NOT) >= {"pending", "resolved"}


async def test_retried_message_goes_before_what_waits_behind_it(run: Run, owner: Owner, delivery: Delivery) -> None:
    """After the cause is mended a retry handles the message first, and then what came after it, in order; other keys never waited."""
    key, other, handler = new_id(), new_id(), Handler(2)
    (message,) = await parked_at(delivery, handler, key)
    await delivery.receive(record_of(extended(other, 1)))
    await go_on(delivery, handler)
    assert by_key(await delivery.effects()) == {key: [1], other: [1]}
    handler.bad.clear()
    assert parsed(await run("parked", "retry", message, "--json")) == {"retried": [message], "refused": []}
    await go_on(delivery, handler)
    assert by_key(await delivery.effects()) == {key: [1, 2, 3, 4], other: [1]}
    assert [fact for fact in await recorded(owner, SCHEMA) if fact.action is not Action.MESSAGE_PARKED] == [
        AuditFact(Action.MESSAGE_RETRIED)
    ]
    (noted,) = await owner.fetch(f"SELECT decision, because, inbox_id FROM {SCHEMA}.parked_decisions")
    assert (noted["decision"], noted["because"]) == ("retried", None)
    assert f"{CONSUMER}/{noted['inbox_id']}" == message


async def test_retried_message_that_still_is_wrong_is_parked_again(run: Run, delivery: Delivery) -> None:
    """A retry without a mended cause changes nothing: parked again, and what waits behind it goes on waiting."""
    key, handler = new_id(), Handler(2)
    (message,) = await parked_at(delivery, handler, key)
    parsed(await run("parked", "retry", message, "--json"))
    await go_on(delivery, handler)
    assert by_key(await delivery.effects()) == {key: [1]}
    assert [state for state, _, _ in await delivery.states()] == ["handled", "parked", "pending", "pending"]


async def test_resolved_message_lets_go_on_what_waits_behind_it(run: Run, owner: Owner, delivery: Delivery) -> None:
    """A resolved message never takes effect, its value is gone, and later ones of its key follow; the reason is on record."""
    key, handler = new_id(), Handler(2)
    (message,) = await parked_at(delivery, handler, key)
    resolved = await run("parked", "resolve", message, "--because", "superseded", "--json")
    assert parsed(resolved) == {"resolved": [message], "refused": []}
    await go_on(delivery, handler)
    assert by_key(await delivery.effects()) == {key: [1, 3, 4]}
    assert await owner.fetchval(f"SELECT count(*) FROM {SCHEMA}.inbox WHERE state = 'resolved' AND value IS NULL") == 1
    assert (await recorded(owner, SCHEMA))[-1] == AuditFact(Action.MESSAGE_RESOLVED, outcome=AuditOutcome.SUPERSEDED)


async def test_two_of_one_key_keep_their_order(run: Run, delivery: Delivery) -> None:
    """Of two parked messages of one key, in either order of retrying, the earlier is handled first."""
    key, handler = new_id(), Handler(2, 3)
    (second,) = await parked_at(delivery, handler, key)
    handler.bad = {3}
    parsed(await run("parked", "retry", second, "--json"))
    await go_on(delivery, handler)
    rows = await delivery.look(f"SELECT inbox_id FROM {SCHEMA}.inbox WHERE state = 'parked'")
    handler.bad.clear()
    parsed(await run("parked", "retry", f"{CONSUMER}/{rows[0]['inbox_id']}", "--json"))
    await go_on(delivery, handler)
    assert by_key(await delivery.effects()) == {key: [1, 2, 3, 4]}


async def test_decided_twice_is_refused_the_second_time(run: Run, owner: Owner, delivery: Delivery) -> None:
    """What is not parked is not decided about again: each refusal says why, and leaves nothing on record."""
    (message,) = await parked_at(delivery, Handler(2), new_id(), count=2)
    parsed(await run("parked", "retry", message, "--json"))
    again = await run("parked", "retry", message)
    assert (again.exit_code, "it waits to be handled" in again.output) == (1, True)
    assert "it waits to be handled" in (await run("parked", "resolve", message, "--because", "forged")).output
    first = f"{CONSUMER}/1"
    assert "it was handled" in (await run("parked", "retry", first)).output
    assert "no such message" in (await run("parked", "retry", f"{CONSUMER}/99999")).output
    assert len(await recorded(owner, SCHEMA)) == 2  # parked, retried


async def test_what_can_never_be_read_is_not_retried(run: Run, owner: Owner, delivery: Delivery) -> None:
    """A message without its headers, and one whose id was taken before, can only be resolved; the refusal says so."""
    event_id, key = new_id(), new_id()
    headless = extended(key, 1)
    await delivery.receive(raw_record(headless.topic, headless.key().encode(), headless.encode(), {}))
    await delivery.receive(record_of(extended(key, 1), event_id), record_of(extended(key, 2), event_id))
    rows = await owner.fetch(f"SELECT inbox_id FROM {SCHEMA}.inbox WHERE state = 'parked' ORDER BY inbox_id")
    unreadable, conflict = (f"{CONSUMER}/{row['inbox_id']}" for row in rows)
    refused = await run("parked", "retry", unreadable, conflict)
    assert refused.exit_code == 1
    assert "nothing in it can be read" in refused.output
    assert "came first with its id" in refused.output
    skipped = await run("parked", "retry", "--service", CONSUMER, "--json")
    assert [each["id"] for each in parsed(skipped)["refused"]] == [unreadable, conflict]
    for message, because in ((unreadable, "unreadable"), (conflict, "duplicate")):
        parsed(await run("parked", "resolve", message, "--because", because, "--json"))
    assert (await run("parked", "list")).stdout.strip() == "nothing is parked"


async def test_retry_by_reason_and_service(run: Run, delivery: Delivery) -> None:
    """All of one reason, or of one service, are retried at once; other reasons and services stay as they are."""
    first, second, handler = new_id(), new_id(), Handler(2)
    await parked_at(delivery, handler, first, count=3)
    parked = await parked_at(delivery, handler, second, count=3)
    assert len(parked) == 2
    assert parsed(await run("parked", "retry", "--reason", "exhausted", "--json")) == {"retried": [], "refused": []}
    assert parsed(await run("parked", "retry", "--service", "export-builder", "--json"))["retried"] == []
    handler.bad.clear()
    command = ("parked", "retry", "--service", CONSUMER, "--reason", "unknown_reference", "--limit")
    assert parsed(await run(*command, "1", "--json"))["retried"] == parked[:1]
    assert parsed(await run(*command, "9", "--json"))["retried"] == parked[1:]
    await go_on(delivery, handler)
    assert by_key(await delivery.effects()) == {first: [1, 2, 3], second: [1, 2, 3]}


@pytest.mark.parametrize("role", ["habeas_operator", "request-intake"])
async def test_only_a_supervisor_or_the_service_itself_may(
    run: Run, delivery: Delivery, owner: Owner, database: Access, role: str
) -> None:
    """Who may only look, and other services, are refused; the message stays parked and nothing is on record."""
    (message,) = await parked_at(delivery, Handler(2), new_id(), count=2)
    for command in (("retry", message), ("resolve", message, "--because", "forged")):
        refused = await run("parked", *command, "--dsn", database.dsn(role))
        assert (refused.exit_code, "may not do that" in refused.output) == (1, True)
    assert [state for state, _, _ in await delivery.states()] == ["handled", "parked"]
    assert [fact.action for fact in await recorded(owner, SCHEMA)] == [Action.MESSAGE_PARKED]


async def test_without_its_entry_nothing_is_decided(database: Access, delivery: Delivery) -> None:
    """Decision and entry are one transaction: where the entry cannot be written, the message stays parked."""
    (message,) = await parked_at(delivery, Handler(2), new_id(), count=2)
    number = int(message.rpartition("/")[2])
    conn = await asyncpg.connect(database.supervisor_dsn)
    try:
        with pytest.raises(asyncpg.NotNullViolationError):
            await conn.fetch(f"SELECT * FROM {SCHEMA}.supervise_retry($1, $2)", [number], [None])
        with pytest.raises(asyncpg.CheckViolationError):
            await conn.fetch(f"SELECT * FROM {SCHEMA}.supervise_resolve($1, $2, 'because')", [number], [new_id()])
        with pytest.raises(asyncpg.CheckViolationError):
            await conn.fetch(f"SELECT * FROM {SCHEMA}.supervise_resolve($1, $2, NULL)", [number], [new_id()])
    finally:
        await conn.close()
    assert [state for state, _, _ in await delivery.states()] == ["handled", "parked"]


@pytest.mark.parametrize(
    "command",
    [
        ("retry",),
        ("retry", "erasure-executor/1", "--reason", "exhausted"),
        ("retry", "nobody/1"),
        ("retry", "--service", "nobody"),
        ("retry", "--reason", "nothing"),
        ("resolve", "erasure-executor/1"),
        ("resolve", "--because", "forged"),
        ("resolve", "erasure-executor/1", "--because", "boredom"),
    ],
)
async def test_wrong_use_is_refused(run: Run, command: tuple[str, ...]) -> None:
    """Nothing named, too much named, or a word that does not exist is exit code 2."""
    assert (await run("parked", *command)).exit_code == 2
