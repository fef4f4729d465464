"""Whole journeys over real Kafka, PostgreSQL and SMTP: from a platform's message to the mail and to `request.completed`."""

import asyncio
import datetime as dt
import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from typing_extensions import override

from habeas.chassis.ids import uuid7
from habeas.contracts.audit import Action
from habeas.contracts.envelope import Envelope, encode_headers
from habeas.contracts.outcomes import CategoryOutcome
from habeas.contracts.platform import RequestSubmitted
from habeas.contracts.request_intake import RequestAccepted, RequestIdentityRequested
from habeas.contracts.topics import DSR_REQUESTS, REQUESTS
from habeas.contracts.vocabulary import Answered, KeepGround, Outcome, Right, TableResult
from habeas.kit import Copies, Follower, Publisher
from habeas_demo.checks import Held, Witness
from habeas_demo.exports import check_exports, open_exports
from habeas_demo.people import Person
from habeas_demo.scenario import Asked
from tests.support.stage import Stage
from tests.support.waiting import HANGS_S, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Which tables make up a category, copied by hand from the data map.
TABLES = {
    "account": ("accounts", "api_keys"),
    "cookies": ("cookie_consents",),
    "payment": ("credit_ledger", "invoices"),
    "provider_keys": ("provider_keys",),
    "scores": ("quality_scores",),
    "support": ("support_tickets", "ticket_messages"),
    "task_content": ("task_contents",),
    "technical": ("sessions",),
    "usage": ("tasks", "task_steps", "execution_logs"),
}
NOT_PORTABLE = {"provider_keys", "scores"}
RECEIVED = dt.datetime(2026, 10, 5, 8, 30, tzinfo=dt.UTC)  # a Monday
DUE = dt.date(2026, 11, 4)  # 30 days later: the 26 left in October and 4; a month would be 5 November
LEGAL_LIMIT = dt.date(2026, 11, 5)

NEWEST_BOOKS = """
    SELECT max(day) FROM (SELECT max(issued_on) AS day FROM invoices WHERE account_id = $1
                          UNION ALL SELECT max(booked_on) FROM credit_ledger WHERE account_id = $1) AS books
"""
ERASED_AT = "SELECT erased_at FROM erasure_executor.erasures WHERE request_id = $1"
INTAKE_DONE = ("request.accepted {right}", "request.completed {word}", "request.fulfilled {word}", "request.verified -")
ERASURE_SAYS = Counter(
    {
        **dict.fromkeys(("request.accepted", "request.verified", "erasure.completed"), 1),
        **dict.fromkeys(("request.fulfilled", "request.completed"), 1),
        **dict.fromkeys(("subject.flagged", "mail.sent"), 2),
    }
)
MAILED = ("mail.queued acknowledgement", "mail.queued outcome", "mail.sent acknowledgement", "mail.sent outcome")
DETAILS: dict[Right, dict[str, Any]] = {
    Right.RECTIFICATION: {"corrections": {"sealed": "hpke1." + "A" * 64}},
    Right.RESTRICTION: {"ground": "accuracy_contested"},
    Right.OBJECTION: {"purposes": ["prevent_abuse"]},
    Right.CONSENT_WITHDRAWAL: {"purposes": ["analytics"]},
}


@asynccontextmanager
async def watched(stage: Stage) -> AsyncIterator[Witness]:
    """Note every row of the platform, to compare with afterwards."""
    witness = await Witness.open(stage.platform.owner_dsn, None)
    try:
        yield witness
    finally:
        await witness.close()


def logged(right: Right, outcome: str, worker: tuple[str, ...]) -> list[str]:
    """What the audit log has to say about one answered request."""
    intake = [f"request-intake {line.format(right=right.value, word=outcome)}" for line in INTAKE_DONE]
    return sorted([*intake, *worker, *(f"notification-mailer {line}" for line in MAILED)])


def rows_of(held: Mapping[str, Held]) -> dict[str, int]:
    """Rows per category."""
    return {category: sum(held[table].all for table in tables) for category, tables in TABLES.items()}


async def holds_all(stage: Stage, person: Person, held: Mapping[str, Held]) -> bool:
    """Whether the platform still has all that it had of a person."""
    async with watched(stage) as witness:
        return (await witness.count_rows([person.account_id]))[person.account_id] == held


async def settled(stage: Stage) -> None:
    """Let everything sent so far be taken: requests that come later, several for each partition, are through."""
    ids = [
        await stage.publisher.request(Right.ACCESS, account_id=f"acc_NOBODY{number:02}")
        for number in range(4 * DSR_REQUESTS.partitions)
    ]
    await stage.completed(*ids)


async def test_erasure_reaches_the_mail(stage: Stage) -> None:
    """An erasure takes every row of one person and nobody else's, keeps the books, says so to the person, and logs each step."""
    person = stage.take_one()
    newest = await stage.owner.fetchval(NEWEST_BOOKS, person.account_id)
    async with watched(stage) as witness:
        held = (await witness.count_rows([person.account_id]))[person.account_id]
        request_id = await stage.ask(Right.ERASURE, person, received_at=RECEIVED)
        [completed] = await stage.completed(request_id)
        checks = await witness.check_platform([person.account_id])
    until = dt.date(newest.year + 10, 12, 31)  # § 147 AO: ten years from the end of the year
    kept = {"result": TableResult.KEPT, "ground": KeepGround.LEGAL_OBLIGATION, "until": until}
    assert completed.outcome is Outcome.PARTLY_KEPT
    assert completed.categories == tuple(
        CategoryOutcome(
            category=category, rows=rows, **(kept if category == "payment" else {"result": TableResult.ERASED})
        )
        for category, rows in rows_of(held).items()
    )
    assert [check for check in checks if not check.passed] == []
    assert stage.mail_kinds(person.email) == ["acknowledgement", "outcome"]
    [accepted] = stage.heard.of(request_id, RequestAccepted)
    assert (accepted.due_on, accepted.legal_limit_on, accepted.regime) == (DUE, LEGAL_LIMIT, "gdpr")
    await stage.logged(request_id, Action.REQUEST_COMPLETED, Action.SUBJECT_KEY_DESTROYED, Action.MAIL_SENT)
    executor = ("erasure.started -", "erasure.completed partly_kept", "subject.key_destroyed -")
    wanted = logged(Right.ERASURE, "partly_kept", tuple(f"erasure-executor {line}" for line in executor))
    await stage.until(lambda: stage.heard.actions(request_id) == wanted, "every audit entry of the erasure")


async def test_erasure_destroys_the_data_key_alone(stage: Stage) -> None:
    """After an erasure the subject's data key is gone, its case key stays, and a tombstone stands."""
    person = stage.take_one()
    request_id = await stage.ask(Right.ERASURE, person)
    [completed] = await stage.completed(request_id)
    kinds = await stage.habeas.fetch(
        "SELECT kind FROM sealing.subject_keys WHERE subject_id = $1", completed.subject_id
    )
    assert [row["kind"] for row in kinds] == ["case"]
    tombstones = "SELECT count(*) FROM erasure_executor.tombstones WHERE request_id = $1"
    assert await stage.habeas.fetchval(tombstones, request_id) == 1
    assert (await stage.request(request_id))["contact"] is None


@pytest.mark.parametrize("right", [Right.ACCESS, Right.PORTABILITY])
async def test_export_reaches_the_mail(stage: Stage, right: Right) -> None:
    """An access shows every row and what the law demands beside it, a portability what the person gave; nobody's data changes."""
    person = stage.take_one()
    async with watched(stage) as witness:
        held = await witness.count_rows([person.account_id])
        request_id = await stage.ask(right, person, received_at=RECEIVED)
        [completed] = await stage.completed(request_id)
        assert await witness.count_rows([person.account_id]) == held
    rows = rows_of(held[person.account_id])
    shown = {name: rows[name] for name in rows if right is Right.ACCESS or name not in NOT_PORTABLE}
    assert completed.outcome is Outcome.DONE
    assert {each.category: each.rows for each in completed.categories} == shown
    asked = Asked(request_id, right, person)
    opened = await open_exports(stage.access.admin_dsn, stage.fleet.kek_file, stage.fleet.artefacts_dir, [request_id])
    mine = [check for check in check_exports([asked], opened, held) if right.value in check.name]
    assert mine
    assert [check for check in mine if not check.passed] == []
    assert stage.mail_kinds(person.email) == ["acknowledgement", "outcome"]
    wanted = logged(right, "done", ("export-builder export.started -", "export-builder export.completed done"))
    await stage.until(lambda: stage.heard.actions(request_id) == wanted, "every audit entry of the export")


@pytest.mark.parametrize("right", DETAILS)
async def test_other_rights_wait_for_a_person(stage: Stage, right: Right) -> None:
    """What a machine must not decide is acknowledged and open, with the reason and the day by which it is due."""
    person = stage.take_one()
    async with watched(stage) as witness:
        held = (await witness.count_rows([person.account_id]))[person.account_id]
    request_id = await stage.ask(right, person, received_at=RECEIVED, details=DETAILS[right])
    row = await stage.holds(request_id, state="awaiting_decision", stuck_reason="needs_a_person")
    assert (row["due_on"], row["legal_limit_on"], row["closed_at"]) == (DUE, LEGAL_LIMIT, None)
    await stage.until(lambda: stage.mail_kinds(person.email) == ["acknowledgement"], "the acknowledgement")
    await settled(stage)
    assert request_id not in stage.heard.completed
    assert set(stage.heard.types(request_id)) == {"request.accepted", "request.verified", "mail.sent"}
    assert await holds_all(stage, person, held)


@pytest.mark.parametrize("acr", [None, "none"])
async def test_nobody_is_erased_unproved(stage: Stage, acr: str | None) -> None:
    """Without an attestation, or with one too weak for an erasure, the request waits for proof of identity and erases nothing."""
    person = stage.take_one()
    async with watched(stage) as witness:
        held = (await witness.count_rows([person.account_id]))[person.account_id]
    if acr is None:
        async with Publisher(stage.servers.kafka_bootstrap, source="accounts", clock=stage.clock) as stranger:
            request_id = await stranger.request(
                Right.ERASURE, account_id=person.account_id, details={"ground": "consent_withdrawn"}
            )
    else:
        request_id = await stage.ask(Right.ERASURE, person, acr=acr)
    await stage.holds(request_id, state="awaiting_identity", is_verified=False)
    await settled(stage)
    assert len(stage.heard.of(request_id, RequestIdentityRequested)) == 1
    assert set(stage.heard.types(request_id)) <= {"request.accepted", "request.identity_requested", "mail.sent"}
    found = await stage.habeas.fetchval(
        "SELECT count(*) FROM erasure_executor.erasures WHERE request_id = $1", request_id
    )
    assert found == 0
    assert await holds_all(stage, person, held)


@pytest.mark.parametrize("right", [Right.ERASURE, Right.ACCESS, Right.PORTABILITY])
async def test_unknown_account_holds_nothing(stage: Stage, right: Right) -> None:
    """About an account that no store knows the answer is that nothing is held; nobody can be written to, and it is completed."""
    details = {"ground": "no_longer_necessary"} if right is Right.ERASURE else None
    mails = stage.servers.mailbox.count()
    request_id = await stage.publisher.request(right, account_id=f"acc_UNKNOWN{right.value}", details=details)
    [completed] = await stage.completed(request_id)
    assert completed.outcome is Outcome.NOTHING_HELD
    assert {each.rows for each in completed.categories} == {0}
    assert stage.servers.mailbox.count() == mails


async def test_request_sent_twice_runs_once(stage: Stage) -> None:
    """The same request sent again by the platform, with times and signature made anew, is carried out, answered and logged once."""
    person = stage.take_one()
    parked = await stage.parked()
    request_id = await stage.ask(Right.ERASURE, person)
    await stage.ask(Right.ERASURE, person, request_id=request_id)
    await stage.completed(request_id)
    await stage.ask(Right.ERASURE, person, request_id=request_id)
    await settled(stage)
    assert await stage.parked() == parked
    assert Counter(stage.heard.types(request_id)) == ERASURE_SAYS
    assert stage.mail_kinds(person.email) == ["acknowledgement", "outcome"]
    assert len(stage.heard.actions(request_id)) == len(set(stage.heard.actions(request_id)))


async def test_record_delivered_twice_counts_once(stage: Stage) -> None:
    """The same record delivered again and again is one message in the inbox, parked by nobody."""
    request_id = uuid7(stage.clock)
    event = RequestSubmitted(
        request_id=request_id, right=Right.ACCESS, account_id="acc_AGAIN", received_at=RECEIVED, channel="web"
    )
    headers = encode_headers(Envelope(request_id, event.type, "accounts", RECEIVED, str(request_id)))
    for _ in range(3):
        await stage.publisher.send_raw(DSR_REQUESTS.name, b"acc_AGAIN", event.encode(), headers)
    await stage.told(request_id, "request.identity_requested")
    await settled(stage)
    rows = await stage.habeas.fetch("SELECT state FROM request_intake.taken WHERE event_id = $1", request_id)
    assert [row["state"] for row in rows] == ["handled"]
    assert Counter(stage.heard.types(request_id)) == Counter({"request.accepted": 1, "request.identity_requested": 1})


class CountedCopies(Copies):
    """Copies that counts what it left out."""

    left_out = 0

    @override
    def is_copy(self, event_id: UUID) -> bool:
        """Count a copy."""
        found = super().is_copy(event_id)
        self.left_out += found
        return found


async def test_the_kits_follower_hears_each_event_once(stage: Stage) -> None:
    """What becomes of a request is heard in its order, and an event that Kafka holds twice once: the fleet sends again when in doubt."""
    request_id = await stage.ask(Right.ACCESS, stage.take_one())
    await stage.completed(request_id)
    records = await records_about(stage, request_id)
    for record in records:
        await stage.publisher.send_raw(REQUESTS.name, record.key, record.value, record.headers)
    heard: list[str] = []
    copies = CountedCopies()

    async def follow() -> None:
        group = f"tests-{request_id}"
        async with Follower(stage.servers.kafka_bootstrap, REQUESTS.name, group=group, copies=copies) as events:
            async for event in events:
                heard.extend([event.type] if event.body["request_id"] == str(request_id) else [])

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow())
        await until(lambda: copies.left_out >= len(records), "the copies", lambda: (len(heard), copies.left_out))
        following.cancel()
    assert heard == ["request.accepted", "request.verified", "request.fulfilled", "request.completed"]


async def records_about(stage: Stage, request_id: UUID) -> "list[ConsumerRecord[bytes, bytes]]":
    """Read the topic of requests to its end, and give the records about one."""
    consumer = AIOKafkaConsumer(bootstrap_servers=stage.servers.kafka_bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        places = [TopicPartition(REQUESTS.name, number) for number in range(REQUESTS.partitions)]
        consumer.assign(places)
        left = sum((await consumer.end_offsets(places)).values()) - sum(
            (await consumer.beginning_offsets(places)).values()
        )
        async with asyncio.timeout(HANGS_S):
            read = [await consumer.getone() for _ in range(left)]
    finally:
        await consumer.stop()
    return [record for record in read if record.key == str(request_id).encode()]


async def test_two_erasures_at_once_both_end(stage: Stage) -> None:
    """Two erasures that one person asks for at once both end, and leave nothing."""
    person = stage.take_one()
    ids = [await stage.ask(Right.ERASURE, person) for _ in range(2)]
    outcomes = [completed.outcome for completed in await stage.completed(*ids)]
    assert Outcome.PARTLY_KEPT in outcomes
    async with watched(stage) as witness:
        held = (await witness.count_rows([person.account_id]))[person.account_id]
    assert sum(table.all for table in held.values()) == 0


@pytest.mark.parametrize("later", [Right.ERASURE, Right.ACCESS])
async def test_after_an_erasure_nothing_is_held(stage: Stage, later: Right) -> None:
    """Whoever was erased and asks again hears that nothing is held, and is a new subject that nothing links to the old one."""
    person = stage.take_one()
    [first] = await stage.completed(await stage.ask(Right.ERASURE, person))
    [second] = await stage.completed(await stage.ask(later, person))
    assert (first.outcome, second.outcome) == (Outcome.PARTLY_KEPT, Outcome.NOTHING_HELD)
    assert (first.answered, second.answered) == (Answered.MAIL, Answered.NOT_REACHABLE)
    assert first.subject_id != second.subject_id
    assert stage.mail_kinds(person.email) == ["acknowledgement", "outcome"]


@pytest.mark.parametrize("right", [Right.ACCESS, Right.PORTABILITY])
async def test_a_copy_is_answered_before_the_erasure_that_came_after_it(stage: Stage, right: Right) -> None:
    """Several people ask for both at once: each copy is built and told of, then everything goes, the copy too, and the mail says so."""
    people = stage.take(3)
    received = stage.clock.now()
    copies = [await stage.ask(right, person, received_at=received - dt.timedelta(seconds=2)) for person in people]
    erasures = [await stage.ask(Right.ERASURE, person, received_at=received) for person in people]
    for told in await stage.completed(*copies, *erasures):
        assert told.outcome is not Outcome.NOTHING_HELD
    for copy, erasure in zip(copies, erasures, strict=True):
        first, then = await stage.request(copy), await stage.request(erasure)
        assert first["export_id"] is not None
        assert first["closed_at"] <= then["accepted_at"]
    for person, copy, erasure in zip(people, copies, erasures, strict=True):
        said = _outcomes(stage, person.email)
        assert any(each in said[copy][0] for each in ("Your copy is ready", "Ihre Kopie liegt bereit"))
        assert any(each in said[erasure][0] for each in ("can no longer be opened", "lassen sich nicht mehr öffnen"))


async def test_an_erasure_waits_for_no_later_copy(stage: Stage) -> None:
    """Who asks for the erasure first is erased; the copy that was asked for afterwards is answered by what is true by then."""
    people = stage.take(2)
    received = stage.clock.now()
    erasures = [
        await stage.ask(Right.ERASURE, person, received_at=received - dt.timedelta(seconds=2)) for person in people
    ]
    copies = [await stage.ask(Right.ACCESS, person, received_at=received) for person in people]
    for told in (await stage.completed(*erasures, *copies))[: len(erasures)]:
        assert told.right is Right.ERASURE
        assert told.outcome is not Outcome.NOTHING_HELD
    for person, erasure, copy in zip(people, erasures, copies, strict=True):
        said, written_at = _outcomes(stage, person.email).get(copy, ("", None))
        if written_at is not None and any(each in said for each in ("Your copy is ready", "Ihre Kopie liegt bereit")):
            assert written_at <= await stage.habeas.fetchval(ERASED_AT, erasure)


def _outcomes(stage: Stage, address: str) -> dict[UUID, tuple[str, dt.datetime]]:
    """The plain text of each outcome mail to an address, and when it was written (in whole seconds), by request."""
    said: dict[UUID, tuple[str, dt.datetime]] = {}
    directory = stage.servers.mailbox.sort()
    for name in sorted(os.listdir(directory)):  # noqa: PTH208 -- thousands of names
        mail = message_from_bytes((directory / name).read_bytes(), policy=default)
        if mail["X-Habeas-Kind"] != "outcome" or str(mail["Delivered-To"]).strip().lower() != address.lower():
            continue
        assert isinstance(mail, EmailMessage)
        body = mail.get_body(("plain",))
        assert body is not None
        said[UUID(str(mail["X-Habeas-Request"]))] = (str(body.get_content()), mail["Date"].datetime)
    return said
