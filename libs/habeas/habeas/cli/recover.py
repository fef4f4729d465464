"""`habeas recover`: what has to be decided after the fleet's database was restored to an earlier moment.

The services do nothing meanwhile, because their audit topic holds entries that the database lacks. Those entries are taken back into the
database, so that the log goes on without a break and says that the database was restored; mails that may have gone out are never sent
again by themselves; what cannot be brought back is listed, and not one request is dropped without its id being told.

Kafka still holds what services told in the time that the database has lost. About requests that the database has, it is handled once more.
About the others nothing of it can have an effect, as their keys are gone: each service is made to know these messages, so that it passes
them over, and a request that is sent again is carried out from its beginning. Erasures of people whose keys came back are done again.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from habeas.cli.connection import ADMIN_DSN, run
from habeas.cli.lost_time import START_S, Lost, Told, kafka_answers, look_at_lost, reading, slices, told_mails
from habeas.cli.output import AS_JSON, say, write_json, write_table
from habeas.contracts.notification_mailer import (
    MailRefused,
    MailSent,
    MailUncertain,
    campaign_id_of,
    mail_id_of,
)
from habeas.contracts.vocabulary import MailKind

if TYPE_CHECKING:
    from aiokafka import TopicPartition

    from habeas.chassis.database import Database, Transaction
    from habeas.chassis.history import Entry
    from habeas.chassis.settings import ChassisSettings

_EXECUTOR: Final = "erasure-executor"
_INTAKE: Final = "request-intake"
_MAILER: Final = "notification-mailer"
_TURNS: Final = {_INTAKE: 1, _MAILER: 2}
"""Who goes on after all others: who takes requests that are sent again, and who sends as soon as it may."""
_NAMED_MAX: Final = 10
_TOLD: Final[Mapping[type[object], str]] = {MailSent: "sent", MailRefused: "refused", MailUncertain: "uncertain"}


@dataclass(slots=True)
class Found:
    """What the database lacks of one service: its entries in the audit topic, and records that are gone from Kafka."""

    service: str
    entries: "list[Entry]" = field(default_factory=list)
    gone: list[tuple[str, int, int, int]] = field(
        default_factory=list
    )  # topic, partition, first offset there is, records gone
    topics: frozenset[str] = frozenset()  # those that it reads
    passed_over: "list[Entry]" = field(default_factory=list)  # link to nothing that this service told
    pass_to: int | None = (
        None  # the audit topic's end, when an operator passes over all that it holds beyond the database
    )


@click.command(name="recover")
@ADMIN_DSN
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--pass-over",
    multiple=True,
    metavar="SERVICE",
    help="The database of this service is right, and what the audit topic holds beyond it is false. May be repeated.",
)
@AS_JSON
def recover(*, dsn: str, yes: bool, pass_over: tuple[str, ...], as_json: bool) -> None:
    """Let the fleet go on after its database was restored to an earlier moment (HABEAS_KAFKA_… names the Kafka it told). Audited.

    Running it again changes nothing. Exit code 1 when the database and Kafka contradict each other: then nothing is changed.
    """
    from habeas.cli.brokers import chassis_settings
    from habeas.cli.store import SERVICES

    for service in pass_over:
        if service not in SERVICES:
            message = f"not a service: {service}"
            raise click.BadParameter(message, param_hint="--pass-over")
    settings = chassis_settings(dsn)
    found = run(_look(settings, frozenset(pass_over)))
    lost = run(look_at_lost(settings))
    if not as_json:
        _show(found, lost.requests)
    if not any(each.entries or each.gone or each.pass_to is not None for each in found):
        if as_json:
            passed_over = {each.service: len(each.passed_over) for each in found if each.passed_over}
            write_json({"services": {}, "mails": {}, "requests_unknown": lost.requests, "passed_over": passed_over})
        return
    if not yes:
        click.confirm("Take these entries into the database and let the services go on?", abort=True)
    mails, broken_off = run(_recover(settings, found, lost))
    if as_json:
        services = {
            each.service: {"entries": len(each.entries), "gone": sum(row[3] for row in each.gone)} for each in found
        }
        write_json(
            {
                "services": services,
                "mails": mails,
                "requests_unknown": lost.requests,
                "announcements_broken_off": broken_off,
                "passed_over": {each.service: len(each.passed_over) for each in found if each.passed_over},
            }
        )
        return
    for state, count in mails.items():
        say(f"{count} mails are {state}")
    for change_id in broken_off:
        say(
            f"the policy change {change_id} was being announced: who was not told yet has to be told of it under another id"
        )
    say("the services go on by themselves; `habeas status` shows when nothing waits any more")


def _show(found: Sequence[Found], lost: Sequence[UUID]) -> None:
    rows = [(each.service, len(each.entries), sum(row[3] for row in each.gone)) for each in found]
    write_table("told and not in the database", ("service", "audit entries", "records gone from Kafka"), rows)
    for each in found:
        if each.passed_over:
            offsets = [entry.record.offset for entry in each.passed_over]
            say(
                f"{len(offsets)} records of the audit topic claim to be entries of {each.service} and link to nothing that it told, or do "
                f"not show its secret; they are passed over (offsets {', '.join(map(str, offsets[:_NAMED_MAX]))}"
                f"{', …' if len(offsets) > _NAMED_MAX else ''}). Who writes to the topic? See the runbook audit-log.md"
            )
    if lost:
        say(f"{len(lost)} requests were told of and are not in the database; the platform has to send them again:")
        for request_id in lost:
            say(f"  {request_id}")


async def _look(settings: "ChassisSettings", pass_over: frozenset[str]) -> list[Found]:
    from habeas.cli import store

    async with slices(settings) as databases:
        return [
            await _look_at(settings, service, databases[service], pass_over=service in pass_over)
            for service in store.SERVICES
        ]


async def _look_at(settings: "ChassisSettings", service: str, database: "Database", *, pass_over: bool) -> Found:
    """Read the audit topic from where it was last found in agreement: that position went back with the database."""
    from habeas.chassis import history
    from habeas.chassis.store import FIND_AUDIT_HEAD, FIND_AUDIT_LINES, FIND_AUDIT_SEED, FIND_POSITION

    at = await database.read("recover-position", FIND_POSITION, *history.AUDIT_PARTITION)
    position = at[0]["next_offset"] if at else None
    found = Found(service)
    told: list[Entry] = []
    async with kafka_answers():
        reach = await history.read_entries(settings, service, position, told.append)
        # The topic first and the head afterwards: a service that goes on may be telling something new meanwhile.
        head = dict((await database.read("recover-head", FIND_AUDIT_HEAD))[0])
        rows = await database.read("recover-lines", FIND_AUDIT_LINES, history.places(told, head))
        lines = {row["seq"]: row["line"] for row in rows}
        own = history.Own(*(await database.read("recover-seed", FIND_AUDIT_SEED))[0])
        judged = history.judge(told, head, lines, own, is_cut=reach.lacks(position))
        others = [] if judged.other is None else [judged.other]
        found.passed_over = judged.passed_over
        if pass_over:
            found.passed_over = sorted(
                [*judged.passed_over, *others, *judged.unknown], key=lambda entry: entry.record.offset
            )
            found.pass_to = reach.end
        else:
            found.entries = judged.unknown
            _require_chain(service, head, [*others, *found.entries])
        places = sorted({*await _committed(settings, service), *await _positions(database)})
        found.topics = frozenset(each.topic for each in places)
        found.gone = await _gone(settings, places, database)
    return found


def _require_chain(service: str, head: Mapping[str, Any], entries: "Sequence[Entry]") -> None:
    """Make sure that the entries go on from the database's last one; anything else is no restore that can be mended."""
    from habeas.contracts.audit import BadEntry, entry_hash, parse_entry

    seq, link = head["seq"], head["hash"]
    for entry in entries:
        line = entry.record.value
        try:
            prev = parse_entry(line).prev
        except BadEntry:
            prev = ""
        if entry.epoch != head["epoch"] or entry.seq != seq + 1 or prev != link:
            raise click.ClickException(
                f"{service} went on after the restore by itself, or the audit topic has a hole at its entry {seq + 1}, or the record at "
                f"offset {entry.record.offset} (entry {entry.seq}) is false: restore the database once more, or, if you know that the "
                f"database was not restored, run `habeas recover --pass-over {service}`; nothing was changed"
            )
        seq, link = entry.seq, entry_hash(line)


async def _gone(
    settings: "ChassisSettings", places: "Sequence[TopicPartition]", database: "Database"
) -> list[tuple[str, int, int, int]]:
    """Count what was never stored of every partition that a service has read from, before or after the restored moment."""
    if not places:
        return []
    async with reading(settings) as consumer:
        consumer.assign(places)
        async with asyncio.timeout(START_S):
            first = await consumer.beginning_offsets(places)
    stored = await _positions(database)  # after the beginnings: what was stored and trimmed meanwhile is not gone
    lost = {each: first[each] - stored.get(each, 0) for each in places}
    return [(each.topic, each.partition, first[each], count) for each, count in lost.items() if count > 0]


async def _positions(database: "Database") -> "dict[TopicPartition, int]":
    """Give how far partitions were stored; the audit topic's position says something else, and its entries come back."""
    from aiokafka import TopicPartition

    from habeas.cli.store import recovery
    from habeas.contracts.topics import AUDIT_ENTRIES

    rows = await database.read("recover-positions", recovery.FIND_ALL_POSITIONS)
    found = {TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in rows}
    return {place: offset for place, offset in found.items() if place.topic != AUDIT_ENTRIES.name}


async def _committed(settings: "ChassisSettings", service: str) -> "Iterable[TopicPartition]":
    from aiokafka.admin import AIOKafkaAdminClient

    from habeas.chassis.kafka import client_options
    from habeas.cli.brokers import committed_offsets

    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        async with asyncio.timeout(START_S):
            await admin.start()
            return await committed_offsets(admin, service)
    finally:
        await admin.close()


async def _recover(settings: "ChassisSettings", found: Sequence[Found], lost: Lost) -> tuple[dict[str, int], list[str]]:
    """Write all down, a transaction for each service, after which it goes on.

    Return how many mails were settled how, and the ids of policy changes of which perhaps not everybody was told.
    """
    from habeas.cli.store import recovery

    mails: dict[str, int] = {}
    broken_off: list[str] = []
    if not any(each.entries or each.gone for each in found):  # nothing was restored: no request and no mail is in doubt
        async with slices(settings) as databases:
            for each in found:
                async with databases[each.service].transaction("recover") as tx:
                    await _adopt(tx, each)
        return mails, broken_off
    told = await told_mails(settings)
    async with slices(settings) as databases:
        for each in sorted(found, key=lambda each: _TURNS.get(each.service, 0)):
            async with databases[each.service].transaction("recover") as tx:
                await _adopt(tx, each)
                await _pass_over(tx, lost.passed_over(each.topics))
                if each.service == _EXECUTOR:
                    await tx.execute(recovery.ADD_TOMBSTONES, *_columns(lost.tombstones, 4))
                if each.service == _MAILER:
                    mails = await _settle_mails(tx, told, lost)
                    broken_off = await _settle_announcements(tx, lost)
    return mails, broken_off


async def _pass_over(tx: "Transaction", told: Sequence[Told]) -> None:
    """Let a service know messages, which it then passes over."""
    from habeas.cli.store import recovery

    await tx.execute(recovery.ADD_SEEN, tx.now, [each.event_id for each in told], [each.digest for each in told])


def _columns(rows: Sequence[Sequence[object]], width: int) -> list[list[object]]:
    return [[row[at] for row in rows] for at in range(width)]


async def _adopt(tx: "Transaction", found: Found) -> None:
    """Take a service's entries back into its outbox and move its head; then the next entry says that this was done."""
    from habeas.chassis.history import AUDIT_PARTITION
    from habeas.chassis.store import SET_POSITION
    from habeas.cli.store import recovery
    from habeas.contracts.audit import Action, AuditFact, AuditOutcome, entry_hash

    for topic, partition, first, _ in found.gone:
        await tx.execute(SET_POSITION, topic, partition, first)
    if found.entries:
        rows = [(*_origin(entry, tx), entry.seq, entry.record.value) for entry in found.entries]
        await tx.execute_exactly(len(rows), recovery.ADOPT_ENTRIES, *map(list, zip(*rows, strict=True)))
        last = found.entries[-1]
        await tx.execute_exactly(1, recovery.ADOPT_HEAD, last.epoch, last.seq, entry_hash(last.record.value))
    if found.entries or found.gone:
        tx.record(AuditFact(Action.DATABASE_RESTORED, count=len(found.entries)))
    if found.pass_to is not None:
        await tx.execute(SET_POSITION, *AUDIT_PARTITION, found.pass_to)
        tx.record(AuditFact(Action.MESSAGE_RESOLVED, outcome=AuditOutcome.FORGED, count=len(found.passed_over)))


def _origin(entry: "Entry", tx: "Transaction") -> tuple[UUID, datetime]:
    """Return an entry's id and time; headers that say nothing of it are no obstacle, as the line is what is chained."""
    from habeas.chassis.clock import SystemClock
    from habeas.chassis.ids import uuid7
    from habeas.contracts.envelope import BadEnvelope, decode_headers

    try:
        envelope = decode_headers(entry.record.headers)
    except BadEnvelope:
        return uuid7(SystemClock()), tx.now
    return envelope.event_id, envelope.at


async def _settle_mails(
    tx: "Transaction", told: Mapping[UUID, MailSent | MailRefused | MailUncertain], lost: Lost
) -> dict[str, int]:
    """Write down mails as they were told; a mail of which nothing was told may have gone out all the same, so it is uncertain.

    So is the mail of an answer that was decided in the lost time, whether or not the database has it: it is told when the answer is.
    """
    from habeas.cli.store import recovery
    from habeas.contracts.audit import Action, AuditFact, AuditOutcome

    rows = [(each.mail_id, each.kind.value, _TOLD[type(each)], each.request_id) for each in told.values()]
    if rows:
        await tx.execute(recovery.TELL_MAILS, tx.now, *map(list, zip(*rows, strict=True)))
    answered = {each.request_id for each in told.values() if each.kind is MailKind.OUTCOME}
    untold = [
        (mail_id_of(request_id, MailKind.OUTCOME), request_id, event_id, request_id not in lost.unaddressed)
        for request_id, event_id in lost.answers.items()
        if request_id not in answered
    ]
    doubted = await tx.fetch(recovery.DOUBT_ANSWERS, tx.now, *_columns(untold, 4))
    doubts = [row["request_id"] for row in doubted if row["state"] == "uncertain"]
    tx.record(*(AuditFact(Action.MAIL_UNCERTAIN, each, outcome=AuditOutcome.OUTCOME) for each in doubts))
    unsure = await tx.fetch(recovery.DOUBT_MAILS, tx.now)
    for row in unsure:
        if row["request_id"] is not None:
            tx.emit(
                MailUncertain(
                    request_id=row["request_id"], mail_id=row["mail_id"], kind=MailKind(row["kind"]), lost_at=tx.now
                )
            )
            tx.record(AuditFact(Action.MAIL_UNCERTAIN, row["request_id"], outcome=AuditOutcome(row["kind"])))
    of_campaigns = sum(1 for row in unsure if row["request_id"] is None)
    if of_campaigns:
        tx.record(AuditFact(Action.MAIL_UNCERTAIN, outcome=AuditOutcome.POLICY_CHANGE, count=of_campaigns))
    return {"known from what was told": len(rows), "uncertain and not sent again": len(unsure) + len(doubts)}


async def _settle_announcements(tx: "Transaction", lost: Lost) -> list[str]:
    """Write down what was announced in the lost time, so that nobody is mailed again; return what was not told to everybody."""
    from habeas.cli.store import recovery

    rows = []
    for change_id, scheduled in lost.announced.items():
        done = lost.notified.get(change_id)
        counts: tuple[object, ...] = (0, 0, 0, 0, None)
        earliest = scheduled.earliest_effective_on
        if done is not None:
            counts = (done.sent, done.refused, done.uncertain, done.suppressed, done.last_sent_at)
            earliest = done.earliest_effective_on
        rows.append((campaign_id_of(change_id), change_id, scheduled.effective_on, earliest, *counts))
    added = await tx.fetch(recovery.ADD_ANNOUNCED, tx.now, *_columns(rows, 9))
    return sorted({row["change_id"] for row in added} - lost.notified.keys())
