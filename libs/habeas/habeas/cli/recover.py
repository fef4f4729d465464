"""`habeas recover`: what has to be decided after the fleet's database was restored to an earlier moment.

The services do nothing meanwhile, because their audit topic holds entries that the database lacks. Those entries are taken back into the
database, so that the log goes on without a break and says that the database was restored; mails that may have gone out are never sent
again by themselves; what cannot be brought back is listed, and not one request is dropped without its id being told.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from habeas.cli.connection import ADMIN_DSN, run
from habeas.cli.output import AS_JSON, say, write_json, write_table
from habeas.contracts.notification_mailer import MailRefused, MailSent, MailUncertain

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

    from habeas.chassis.database import Database, Transaction
    from habeas.chassis.history import Entry
    from habeas.chassis.settings import ChassisSettings
    from habeas.contracts.topics import Topic

_MAILER: Final = "notification-mailer"
_START_S: Final = 15.0
_SILENCE_S: Final = 15.0
_READ_MS: Final = 500
_RECORDS_MAX: Final = 10_000
_TOLD: Final[Mapping[type[object], str]] = {MailSent: "sent", MailRefused: "refused", MailUncertain: "uncertain"}


@dataclass(slots=True)
class Found:
    """What the database lacks of one service: its entries in the audit topic, and records that are gone from Kafka."""

    service: str
    entries: "list[Entry]" = field(default_factory=list)
    gone: list[tuple[str, int, int, int]] = field(
        default_factory=list
    )  # topic, partition, first offset there is, records gone


@click.command(name="recover")
@ADMIN_DSN
@click.option("--yes", is_flag=True, help="Do not ask.")
@AS_JSON
def recover(*, dsn: str, yes: bool, as_json: bool) -> None:
    """Let the fleet go on after its database was restored to an earlier moment (HABEAS_KAFKA_… names the Kafka it told). Audited.

    Running it again changes nothing. Exit code 1 when the database and Kafka contradict each other: then nothing is changed.
    """
    from habeas.cli.brokers import chassis_settings

    settings = chassis_settings(dsn)
    found = run(_look(settings))
    lost = run(_lost_requests(settings))
    if not as_json:
        _show(found, lost)
    if not any(each.entries or each.gone for each in found):
        if as_json:
            write_json({"services": {}, "mails": {}, "requests_unknown": lost})
        return
    if not yes:
        click.confirm("Take these entries into the database and let the services go on?", abort=True)
    mails = run(_recover(settings, found))
    if as_json:
        services = {
            each.service: {"entries": len(each.entries), "gone": sum(row[3] for row in each.gone)} for each in found
        }
        write_json({"services": services, "mails": mails, "requests_unknown": lost})
        return
    for state, count in mails.items():
        say(f"{count} mails are {state}")
    say(
        "the services go on by themselves; `habeas reapply-erasures` is the next step where a platform's store was restored too"
    )


def _show(found: Sequence[Found], lost: Sequence[UUID]) -> None:
    rows = [(each.service, len(each.entries), sum(row[3] for row in each.gone)) for each in found]
    write_table("told and not in the database", ("service", "audit entries", "records gone from Kafka"), rows)
    if lost:
        say(f"{len(lost)} requests were accepted and are not in the database; the platform has to send them again:")
        for request_id in lost:
            say(f"  {request_id}")


async def _look(settings: "ChassisSettings") -> list[Found]:
    from habeas.cli import store

    async with _opened(settings) as databases:
        return [await _look_at(settings, service, databases[service]) for service in store.SERVICES]


async def _look_at(settings: "ChassisSettings", service: str, database: "Database") -> Found:
    """Read the audit topic from where it was last found in agreement: that position went back with the database."""
    from habeas.chassis.history import AUDIT_PARTITION, read_entries
    from habeas.chassis.store import FIND_AUDIT_HEAD, FIND_POSITION

    head = dict((await database.read("recover-head", FIND_AUDIT_HEAD))[0])
    at = await database.read("recover-position", FIND_POSITION, *AUDIT_PARTITION)
    found = Found(service)
    seen: dict[int, bytes] = {}

    def take(entry: "Entry") -> None:
        if (entry.epoch, entry.seq) <= (head["epoch"], head["seq"]) or seen.get(entry.seq) == entry.record.value:
            return
        seen[entry.seq] = entry.record.value
        found.entries.append(entry)

    async with _kafka():
        await read_entries(settings, service, at[0]["next_offset"] if at else None, take)
        _require_chain(service, head, found.entries)
        found.gone = await _gone(settings, service, database)
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
                f"{service} went on after the restore by itself, or the audit topic has a hole at its entry {seq + 1}: "
                "restore the database once more, or ask for help; nothing was changed"
            )
        seq, link = entry.seq, entry_hash(line)


async def _gone(settings: "ChassisSettings", service: str, database: "Database") -> list[tuple[str, int, int, int]]:
    """Count what was never stored of every partition that the service has read from, before or after the restored moment."""
    places = sorted({*await _committed(settings, service), *await _positions(database)})
    if not places:
        return []
    async with _consumer(settings) as consumer:
        consumer.assign(places)
        async with asyncio.timeout(_START_S):
            first = await consumer.beginning_offsets(places)
    stored = await _positions(database)  # after the beginnings: what was stored and trimmed meanwhile is not gone
    lost = {each: first[each] - stored.get(each, 0) for each in places}
    return [(each.topic, each.partition, first[each], count) for each, count in lost.items() if count > 0]


async def _positions(database: "Database") -> "dict[TopicPartition, int]":
    """Give how far partitions were stored; the audit topic's position says something else, and its entries come back."""
    from aiokafka import TopicPartition

    from habeas.cli import store
    from habeas.contracts.topics import AUDIT_ENTRIES

    rows = await database.read("recover-positions", store.FIND_ALL_POSITIONS)
    found = {TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in rows}
    return {place: offset for place, offset in found.items() if place.topic != AUDIT_ENTRIES.name}


async def _committed(settings: "ChassisSettings", service: str) -> "Iterable[TopicPartition]":
    from aiokafka.admin import AIOKafkaAdminClient

    from habeas.chassis.kafka import client_options
    from habeas.cli.brokers import committed_offsets

    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        async with asyncio.timeout(_START_S):
            await admin.start()
            return await committed_offsets(admin, service)
    finally:
        await admin.close()


async def _lost_requests(settings: "ChassisSettings") -> list[UUID]:
    """Give the requests that Kafka says were accepted and that request-intake does not know."""
    from habeas.cli import store
    from habeas.contracts.request_intake import RequestAccepted
    from habeas.contracts.topics import REQUESTS

    accepted = [
        RequestAccepted.decode(record.value).request_id
        async for kind, record in _records(settings, REQUESTS)
        if kind == RequestAccepted.type
    ]
    async with _opened(settings) as databases:
        rows = await databases["request-intake"].read("recover-requests", store.FIND_UNKNOWN_REQUESTS, accepted)
    return [row["request_id"] for row in rows]


async def _recover(settings: "ChassisSettings", found: Sequence[Found]) -> dict[str, int]:
    """Write all down, a transaction for each service; the mailer's own last, as it sends as soon as it may go on."""
    mails: dict[str, int] = {}
    told = await _told_mails(settings)
    async with _opened(settings) as databases:
        for each in sorted(found, key=lambda each: each.service == _MAILER):
            async with databases[each.service].transaction("recover") as tx:
                await _adopt(tx, each)
                if each.service == _MAILER:
                    mails = await _settle_mails(tx, told)
    return mails


async def _adopt(tx: "Transaction", found: Found) -> None:
    """Take a service's entries back into its outbox and move its head; then the next entry says that this was done."""
    from habeas.chassis.store import SET_POSITION
    from habeas.cli import store
    from habeas.contracts.audit import Action, AuditFact, entry_hash
    from habeas.contracts.envelope import decode_headers

    for topic, partition, first, _ in found.gone:
        await tx.execute(SET_POSITION, topic, partition, first)
    if found.entries:
        rows = []
        for entry in found.entries:
            envelope = decode_headers(entry.record.headers)
            rows.append((envelope.event_id, envelope.at, entry.seq, entry.record.value))
        await tx.execute_exactly(len(rows), store.ADOPT_ENTRIES, *map(list, zip(*rows, strict=True)))
        last = found.entries[-1]
        await tx.execute_exactly(1, store.ADOPT_HEAD, last.epoch, last.seq, entry_hash(last.record.value))
    if found.entries or found.gone:
        tx.record(AuditFact(Action.DATABASE_RESTORED, count=len(found.entries)))


async def _told_mails(settings: "ChassisSettings") -> dict[UUID, MailSent | MailRefused | MailUncertain]:
    """Give what notification-mailer last told about each mail."""
    from habeas.contracts.topics import DELIVERIES

    kinds: dict[str, type[MailSent | MailRefused | MailUncertain]] = {
        each.type: each for each in (MailUncertain, MailRefused, MailSent)
    }
    told: dict[UUID, MailSent | MailRefused | MailUncertain] = {}
    async for kind, record in _records(settings, DELIVERIES):
        if kind in kinds:
            event = kinds[kind].decode(record.value)
            told[event.mail_id] = event
    return told


async def _settle_mails(
    tx: "Transaction", told: Mapping[UUID, MailSent | MailRefused | MailUncertain]
) -> dict[str, int]:
    """Write down mails as they were told; a mail of which nothing was told may have gone out all the same, so it is uncertain."""
    from habeas.cli import store
    from habeas.contracts.audit import Action, AuditFact, AuditOutcome
    from habeas.contracts.vocabulary import MailKind

    rows = [(each.mail_id, each.kind.value, _TOLD[type(each)], each.request_id) for each in told.values()]
    if rows:
        await tx.execute(store.TELL_MAILS, tx.now, *map(list, zip(*rows, strict=True)))
    unsure = await tx.fetch(store.DOUBT_MAILS, tx.now)
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
    return {"known from what was told": len(rows), "uncertain and not sent again": len(unsure)}


async def _records(
    settings: "ChassisSettings", topic: "Topic"
) -> "AsyncIterator[tuple[str, ConsumerRecord[bytes, bytes]]]":
    """Give every record that a topic holds now, with its type; what has no readable envelope is passed over."""
    from aiokafka import TopicPartition

    from habeas.contracts.envelope import BadEnvelope, decode_headers

    partitions = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
    async with _kafka(), _consumer(settings) as consumer:
        consumer.assign(partitions)
        async with asyncio.timeout(_START_S):
            at = await consumer.beginning_offsets(partitions)
            end = await consumer.end_offsets(partitions)
        for each in partitions:
            consumer.seek(each, at[each])
        while any(at[each] < end[each] for each in partitions):
            async with asyncio.timeout(_SILENCE_S):
                while not (found := await consumer.getmany(timeout_ms=_READ_MS, max_records=_RECORDS_MAX)):
                    pass
            for each, records in found.items():
                for record in records:
                    at[each] = record.offset + 1
                    try:
                        yield decode_headers(record.headers).type, record
                    except BadEnvelope:
                        continue


@asynccontextmanager
async def _consumer(settings: "ChassisSettings") -> "AsyncIterator[AIOKafkaConsumer]":
    from habeas.chassis.kafka import assigned_consumer, stop_consumer

    consumer = assigned_consumer(settings, "habeas-cli")
    try:
        async with asyncio.timeout(_START_S):
            await consumer.start()
        yield consumer
    finally:
        await stop_consumer(consumer)


@asynccontextmanager
async def _kafka() -> AsyncIterator[None]:
    """End the command with a sentence when Kafka does not answer."""
    from habeas.chassis.history import KAFKA_TROUBLE

    try:
        yield
    except KAFKA_TROUBLE as error:
        raise click.ClickException(f"Kafka does not answer: {type(error).__name__}") from None


@asynccontextmanager
async def _opened(settings: "ChassisSettings") -> "AsyncIterator[dict[str, Database]]":
    """Open every service's slice; the changes of a service are its own transactions, with their events and facts."""
    from habeas.chassis.clock import SystemClock
    from habeas.chassis.connection import SessionShared
    from habeas.chassis.database import TRANSIENT, Database
    from habeas.cli import store
    from habeas.cli.connection import refusal

    opened: dict[str, Database] = {}
    try:
        for service in store.SERVICES:
            opened[service] = await Database.open(settings, store.schema_of(service), SystemClock())
        yield opened
    except (*TRANSIENT, SessionShared) as error:
        raise click.ClickException(refusal(error, settings.database_dsn.get_secret_value())) from None
    finally:
        for database in opened.values():
            await database.close()
