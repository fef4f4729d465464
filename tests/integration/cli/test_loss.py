"""What `habeas replay` and `habeas recover` write, over a real database and without Kafka."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import asyncpg
import click
import pytest
import pytest_asyncio

from habeas.chassis import history
from habeas.chassis.consumer import Consumer
from habeas.chassis.database import Database
from habeas.chassis.history import Entry
from habeas.chassis.producer import Record
from habeas.cli import lost_time, recover, store
from habeas.contracts.audit import Action, AuditFact, Producer, encode_entry, encode_fact, parse_entry
from habeas.contracts.model import Event
from habeas.contracts.notification_mailer import (
    MailSent,
    PolicyChangeNotified,
    PolicyChangeScheduled,
    campaign_id_of,
    mail_id_of,
)
from habeas.contracts.request_intake import RequestVerified
from habeas.contracts.topics import AUDIT_ENTRIES, REQUESTS
from habeas.contracts.vocabulary import MailKind, Right
from habeas_embedded.provision import Access
from tests.support.delivery import (
    CONSUMER,
    NOON,
    PROTECTOR,
    Broker,
    Delivery,
    extended,
    new_id,
    raw_record,
    record_of,
    settings,
)


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """One service's slice."""
    delivery = await Delivery.open(database)
    yield delivery
    await delivery.close()


async def tell(delivery: Delivery, facts: int, events: int = 0) -> Broker:
    """Let the service tell something, all of which is acknowledged."""
    broker = Broker()
    async with delivery.database.transaction("tell") as tx:
        tx.record(*[AuditFact(Action.MESSAGE_PARKED, count=number) for number in range(facts)])
        tx.emit(*[extended(new_id(), number) for number in range(events)])
    await publish(delivery, broker)
    return broker


async def publish(delivery: Delivery, broker: Broker) -> None:
    """Let the relay send what there is to send."""
    relay = broker.relay(delivery, await delivery.lanes(instance=0))
    while await relay.step():
        pass


def entries_of(records: list[Record]) -> list[Entry]:
    """Give entries as they are read back from the audit topic."""
    found = []
    for record in records:
        parsed = parse_entry(record.value)
        read = raw_record(AUDIT_ENTRIES, record.key, record.value, list(record.headers))
        found.append(Entry(parsed.epoch, parsed.seq, read))
    return found


async def test_a_replay_sends_the_same_rows_in_the_same_order(delivery: Delivery) -> None:
    """Events and entries go out again with the same ids and bytes; what is older than asked for stays, entries never do."""
    broker = await tell(delivery, 3, 4)
    connection = await asyncpg.connect(delivery.access.owner_dsn)
    try:
        kept = await store.count_kept(connection, CONSUMER, None)
        assert (kept["events"], kept["entries"]) == (4, 3)
        for since, rows in ((None, 7), (NOON + timedelta(days=1), 3)):
            async with connection.transaction():
                assert await store.unpublish(connection, CONSUMER, since) == rows
            again = Broker()
            await publish(delivery, again)
            assert again.of(AUDIT_ENTRIES) == broker.of(AUDIT_ENTRIES)
            assert again.of(REQUESTS) == (broker.of(REQUESTS) if since is None else [])
            assert await store.count_unpublished(connection, CONSUMER) == 0
    finally:
        await connection.close()


async def test_a_topic_that_was_published_to_is_known(delivery: Delivery) -> None:
    """So that making it anew is left to a replay; what nobody has published to may be made."""
    await tell(delivery, 1)
    connection = await asyncpg.connect(delivery.access.owner_dsn)
    try:
        names = [AUDIT_ENTRIES.name, REQUESTS.name, "platform.dsr-requests.v1"]
        assert await store.find_published_topics(connection, names) == [AUDIT_ENTRIES.name]
    finally:
        await connection.close()


@pytest.mark.parametrize("known", [1, 0])
async def test_entries_come_back_and_the_log_goes_on_from_them(delivery: Delivery, known: int) -> None:
    """After a recovery the outbox has every entry once, linked and without a gap, and the next one says what was done."""
    told = (await tell(delivery, 5)).of(AUDIT_ENTRIES)
    first = sha256(told[0].value).hexdigest()
    await delivery.look(
        "INSERT INTO erasure_executor.audit_outbox (event_id, tail, created_at)"
        " SELECT event_id, 'x', created_at FROM erasure_executor.audit_lines WHERE seq IN (2, 3)"
    )
    await delivery.look("DELETE FROM erasure_executor.audit_lines WHERE seq > 1")
    await delivery.look("UPDATE erasure_executor.audit_head SET seq = 1, published_seq = $2, hash = $1", first, known)
    entries = entries_of(told)[1:]
    recover._require_chain(CONSUMER, {"epoch": 1, "seq": 1, "hash": first}, entries)
    async with delivery.database.transaction("recover") as tx:
        await recover._adopt(tx, recover.Found(CONSUMER, entries))
    broker = Broker()
    await publish(delivery, broker)
    rows = await delivery.look("SELECT seq, line FROM erasure_executor.audit_lines ORDER BY seq")
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["line"] for row in rows[:5]] == [record.value for record in told]
    assert await delivery.look("TABLE erasure_executor.audit_outbox") == []
    *copies, said = [parse_entry(record.value) for record in broker.of(AUDIT_ENTRIES)]
    assert [copy.seq for copy in copies] == ([] if known else [1, 2, 3, 4, 5])  # what was in doubt goes out again
    assert (said.fact.action, said.fact.count) == (Action.DATABASE_RESTORED, 4)
    assert said.prev == sha256(told[-1].value).hexdigest()


async def test_a_database_that_went_on_by_itself_is_not_mended(delivery: Delivery) -> None:
    """Entries that do not go on from the database's last one are no restore: nothing is changed."""
    told = entries_of((await tell(delivery, 3)).of(AUDIT_ENTRIES))
    for head in ({"epoch": 1, "seq": 1, "hash": "a" * 64}, {"epoch": 1, "seq": 0, "hash": "0" * 64}):
        with pytest.raises(click.ClickException, match="restore the database once more"):
            recover._require_chain(CONSUMER, head, told[1:])


async def look_at(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch, topic: list[Entry], *, pass_over: bool = False
) -> recover.Found:
    """Look at the slice as `habeas recover` does, at an audit topic that holds these entries."""

    async def read(_: object, __: object, ___: object, take: Callable[[Entry], None]) -> history.Reach:
        for entry in topic:
            take(entry)
        return history.Reach(0, 77)

    async def none(*_: object) -> list[Any]:
        return []

    monkeypatch.setattr(history, "read_entries", read)
    monkeypatch.setattr(recover, "_committed", none)
    monkeypatch.setattr(recover, "_gone", none)
    return await recover._look_at(delivery.settings, CONSUMER, delivery.database, pass_over=pass_over)


async def test_forged_entries_are_named_and_stop_no_recovery(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What links to nothing is named by its offset; what the database lacks is taken back around it."""
    told = entries_of((await tell(delivery, 3)).of(AUDIT_ENTRIES))
    false = [Entry(1, seq, raw_record(AUDIT_ENTRIES, b"", b"habeas-audit/1 %d x" % seq, {})) for seq in (2, 4, 999_999)]
    found = await look_at(delivery, monkeypatch, [*false, *told])
    assert (found.entries, found.passed_over) == ([], false)
    recover._show([found], [])
    said = capsys.readouterr().out
    assert all(str(each.record.offset) in said for each in false)
    first = sha256(told[0].record.value or b"").hexdigest()
    await delivery.look("DELETE FROM erasure_executor.audit_lines WHERE seq > 1")
    await delivery.look("UPDATE erasure_executor.audit_head SET seq = 1, published_seq = 1, hash = $1", first)
    found = await look_at(delivery, monkeypatch, [*false, *told])
    assert (found.entries, found.passed_over) == (told[1:], false)
    bare = told[1]._replace(record=raw_record(AUDIT_ENTRIES, b"", told[1].record.value, {}))
    async with delivery.database.transaction("recover") as tx:
        await recover._adopt(tx, recover.Found(CONSUMER, [bare, told[2]]))
    assert (await look_at(delivery, monkeypatch, [*false, *told])).entries == []


async def test_an_operator_may_pass_over_what_links_and_is_false(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another line at a told place that links on is refused with the way on; passed over by a person, the topic is read from its end."""
    told = entries_of((await tell(delivery, 2)).of(AUDIT_ENTRIES))
    first = sha256(told[0].record.value or b"").hexdigest()
    tail = encode_fact(AuditFact(Action.MESSAGE_PARKED, count=9), NOON)
    line = encode_entry(Producer(CONSUMER), 1, 2, first, tail)
    false = Entry(1, 2, raw_record(AUDIT_ENTRIES, b"", line, {}))
    assert (await look_at(delivery, monkeypatch, [told[0], false])).passed_over == [false]  # it shows no secret
    await delivery.look("UPDATE erasure_executor.audit_seed SET shown_seq = NULL")  # nobody knows of any secret
    with pytest.raises(click.ClickException, match=f"{false.record.offset}.*--pass-over {CONSUMER}"):
        await look_at(delivery, monkeypatch, [told[0], false])
    found = await look_at(delivery, monkeypatch, [told[0], false], pass_over=True)
    async with delivery.database.transaction("recover") as tx:
        await recover._adopt(tx, found)
    (row,) = await delivery.look(
        "SELECT next_offset FROM erasure_executor.positions WHERE topic = $1", AUDIT_ENTRIES.name
    )
    assert row["next_offset"] == 77
    (fact,) = await delivery.look("SELECT tail FROM erasure_executor.audit_outbox")
    assert "action=message.resolved" in fact["tail"]
    assert "outcome=forged" in fact["tail"]


async def test_mails_are_written_down_as_told_and_doubted_otherwise(database: Access, delivery: Delivery) -> None:
    """A mail that was told to be sent is sent, also without a row; any other open one is uncertain, told, and never sent again."""
    known, gone, unknown = (mail_of(new_id()) for _ in range(3))
    for mail in (known, unknown):
        await delivery.look(
            "INSERT INTO notification_mailer.messages (mail_id, kind, state, request_id, next_attempt_at, queued_at)"
            " VALUES ($1, $2, 'queued', $3, now(), now())",
            mail.mail_id,
            mail.kind,
            mail.request_id,
        )
    mailer = await Database.open(settings(database.owner_dsn), "notification_mailer", delivery.clock)
    try:
        async with mailer.transaction("recover") as tx:
            await recover._settle_mails(tx, {mail.mail_id: mail for mail in (known, gone)}, lost_time.Lost())
    finally:
        await mailer.close()
    rows = await delivery.look("SELECT mail_id, state FROM notification_mailer.messages")
    assert {row["mail_id"]: row["state"] for row in rows} == {
        known.mail_id: "sent",
        gone.mail_id: "sent",
        unknown.mail_id: "uncertain",
    }
    (event,) = await delivery.look("SELECT type, subject FROM notification_mailer.outbox")
    assert (event["type"], event["subject"]) == ("mail.uncertain", str(unknown.request_id))


def mail_of(request_id: UUID) -> MailSent:
    """The news that a mail was sent."""
    return MailSent(request_id=request_id, mail_id=new_id(), kind=MailKind.OUTCOME, sent_at=NOON)


async def test_an_answer_of_the_lost_time_is_doubted_and_one_that_nobody_could_get_is_not(
    database: Access, delivery: Delivery
) -> None:
    """An answer was decided and no mail was told of: it may have gone out. One that was heard, or had no address, is not doubted."""
    doubted, heard, homeless, nowhere = (new_id() for _ in range(4))
    lost = lost_time.Lost(
        answers={each: new_id() for each in (doubted, heard, homeless, nowhere)}, unaddressed={nowhere}
    )
    await delivery.look(
        "INSERT INTO notification_mailer.seen (event_id, digest, received_at) VALUES ($1, '', now())",
        lost.answers[heard],
    )
    await delivery.look(
        "INSERT INTO notification_mailer.contacts (request_id, subject_id, taken_at) VALUES ($1, $1, now())", homeless
    )
    mailer = await Database.open(settings(database.owner_dsn), "notification_mailer", delivery.clock)
    try:
        for said in (1, 0):
            async with mailer.transaction("recover") as tx:
                mails = await recover._settle_mails(tx, {}, lost)
            assert mails["uncertain and not sent again"] == said
    finally:
        await mailer.close()
    rows = await delivery.look("SELECT mail_id, request_id, state FROM notification_mailer.messages")
    found = {row["request_id"]: (row["mail_id"], row["state"]) for row in rows}
    assert found == {
        doubted: (mail_id_of(doubted, MailKind.OUTCOME), "uncertain"),
        homeless: (mail_id_of(homeless, MailKind.OUTCOME), "suppressed"),
        nowhere: (mail_id_of(nowhere, MailKind.OUTCOME), "suppressed"),
    }
    facts = await delivery.look("SELECT tail FROM notification_mailer.audit_outbox")
    assert [f"request={doubted.hex}" in fact["tail"] for fact in facts] == [True]


async def test_what_was_announced_is_not_announced_again(database: Access, delivery: Delivery) -> None:
    """A policy change of the lost time is known as announced, with its counts; of one that was not finished the operator hears."""
    dates = {"effective_on": NOON.date(), "earliest_effective_on": NOON.date()}
    lost = lost_time.Lost()
    for change_id in ("done", "broken-off"):
        lost.announced[change_id] = PolicyChangeScheduled(change_id=change_id, scheduled_at=NOON, **dates)
    counts: dict[str, Any] = {
        "sent": 5,
        "refused": 1,
        "uncertain": 0,
        "suppressed": 2,
        "last_sent_at": NOON,
        "notified_at": NOON,
    }
    lost.notified["done"] = PolicyChangeNotified(change_id="done", earliest_effective_on=NOON.date(), **counts)
    mailer = await Database.open(settings(database.owner_dsn), "notification_mailer", delivery.clock)
    try:
        for named in (["broken-off"], []):
            async with mailer.transaction("recover") as tx:
                assert await recover._settle_announcements(tx, lost) == named
    finally:
        await mailer.close()
    rows = await delivery.look("SELECT campaign_id, change_id, state, sent FROM notification_mailer.campaigns")
    found = {row["change_id"]: (row["campaign_id"], row["state"], row["sent"]) for row in rows}
    assert found == {
        "done": (campaign_id_of("done"), "notified", 5),
        "broken-off": (campaign_id_of("broken-off"), "notified", 0),
    }


async def test_what_is_passed_over_has_no_effect_and_erasures_of_keys_that_came_back_have(delivery: Delivery) -> None:
    """A message about a forgotten request is known to its readers by id and content; one for whose subject a key came back is handled."""
    back, gone = new_id(), new_id()
    events: list[Event] = [extended(new_id(), 1), verified(back), verified(gone), verified(back, Right.ACCESS)]
    lost, records = lost_time.Lost(keyed=frozenset({back})), [record_of(event) for event in events]
    for record, event in zip(records, events, strict=True):
        told = lost_time.told_of(lost, REQUESTS, event.type, record)
        assert told is not None
        lost.told.append(told)
    assert lost.requests == sorted(each.request_id for each in lost.told)
    assert lost.passed_over(frozenset()) == []
    async with delivery.database.transaction("recover") as tx:
        await recover._pass_over(tx, lost.passed_over(frozenset({REQUESTS.name})))
    consumer = Consumer(
        CONSUMER,
        delivery.topics,
        frozenset({event.type for event in events}),
        delivery.database,
        PROTECTOR,
        delivery.settings,
    )
    assert await consumer._take(records, asyncio.Event())
    rows = await delivery.look("SELECT key, state FROM erasure_executor.inbox")
    assert [tuple(row) for row in rows] == [(events[1].key().encode(), "pending")]


def verified(subject_id: UUID, right: Right = Right.ERASURE) -> RequestVerified:
    """The news that a request may be carried out."""
    return RequestVerified(
        request_id=new_id(),
        subject_id=subject_id,
        right=right,
        account="s1.data." + "A" * 60,
        categories=None,
        due_on=NOON.date(),
        subject_ref="ab" * 32,
        verified_at=NOON,
    )
