"""What Kafka still tells about the time that a restored database has lost: requests, answers, mails, announcements, people erased."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

import click

from habeas.contracts.notification_mailer import (
    MailRefused,
    MailSent,
    MailUncertain,
    PolicyChangeNotified,
    PolicyChangeScheduled,
)
from habeas.contracts.vocabulary import Right

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord

    from habeas.chassis.database import Database
    from habeas.chassis.settings import ChassisSettings
    from habeas.contracts.model import Event
    from habeas.contracts.topics import Topic

START_S: Final = 15.0
"""So long a broker may take to answer at all."""

_INTAKE: Final = "request-intake"
_SILENCE_S: Final = 15.0
_READ_MS: Final = 500
_RECORDS_MAX: Final = 10_000


class Told(NamedTuple):
    """A message about a request that the database does not have; ``erased`` is the subject whose erasure it asks for or tells of."""

    topic: str
    event_id: UUID
    digest: bytes
    request_id: UUID
    erased: UUID | None


class Tombstone(NamedTuple):
    """Who was erased, as the flags of people say it; its fields are the columns of ``recovery.ADD_TOMBSTONES``."""

    account_fingerprint: bytes
    subject_id: UUID
    request_id: UUID
    erased_at: datetime


@dataclass(slots=True)
class Lost:
    """What Kafka tells about the time that the database has lost.

    ``keyed`` are those of the erased whose data keys came back, ``answers`` the events that say that a request can be answered, by request,
    ``unaddressed`` the requests of people whose address no store knew.
    """

    told: list[Told] = field(default_factory=list)
    keyed: frozenset[UUID] = frozenset()
    answers: dict[UUID, UUID] = field(default_factory=dict)
    unaddressed: set[UUID] = field(default_factory=set)
    tombstones: list[Tombstone] = field(default_factory=list)
    announced: dict[str, PolicyChangeScheduled] = field(default_factory=dict)  # policy changes, by their ids
    notified: dict[str, PolicyChangeNotified] = field(default_factory=dict)  # those of which everybody was told

    @property
    def requests(self) -> list[UUID]:
        """Return the requests that were told of and are not in the database."""
        return sorted({each.request_id for each in self.told})

    def passed_over(self, topics: frozenset[str]) -> list[Told]:
        """Return what a reader of these topics has to know already: all but the erasures of people whose keys came back."""
        return [each for each in self.told if each.topic in topics and each.erased not in self.keyed]


async def look_at_lost(settings: "ChassisSettings") -> Lost:
    """Read what the fleet has told of, and keep what is about requests that request-intake does not know."""
    from habeas.cli.store import recovery
    from habeas.contracts.topics import DELIVERIES, ERASURES, EXPORTS, REQUESTS

    lost = Lost()
    async with slices(settings) as databases:
        intake = databases[_INTAKE]
        for topic in (REQUESTS, ERASURES, EXPORTS, DELIVERIES):
            some: list[Told] = []
            async for kind, record in records(settings, topic):
                told = told_of(lost, topic, kind, record)
                if told is not None:
                    some.append(told)
                if len(some) == _RECORDS_MAX:
                    lost.told += await _unknown(intake, some)
                    some = []
            lost.told += await _unknown(intake, some)
        erased = {each.erased for each in lost.told if each.erased is not None}
        rows = await intake.read("recover-keyed", recovery.FIND_KEYED_SUBJECTS, list(erased))
        lost.keyed = frozenset(row["subject_id"] for row in rows)
    lost.tombstones = await _tombstones(settings)
    return lost


def told_of(lost: Lost, topic: "Topic", kind: str, record: "ConsumerRecord[bytes, bytes]") -> Told | None:
    """Note what an event says about answers and announcements; return it as it may have to be passed over, None if about no request."""
    from habeas.chassis.message import digest_of
    from habeas.contracts.envelope import decode_headers
    from habeas.contracts.erasure_executor import ErasureCompleted
    from habeas.contracts.request_intake import RequestAccepted, RequestFulfilled, RequestVerified

    event = _event(kind, record)
    if isinstance(event, PolicyChangeScheduled):
        lost.announced[event.change_id] = event
    if isinstance(event, PolicyChangeNotified):
        lost.notified[event.change_id] = event
    request_id = getattr(event, "request_id", None)
    if event is None or request_id is None:
        return None
    event_id = decode_headers(record.headers).event_id
    erased = None
    match event:
        case RequestAccepted(contact=None):
            lost.unaddressed.add(request_id)
        case RequestFulfilled():
            lost.answers[request_id] = event_id
        case RequestVerified(right=Right.ERASURE, subject_id=subject_id) | ErasureCompleted(subject_id=subject_id):
            erased = subject_id
        case _:
            pass
    digest = digest_of(record.key or b"", record.value or b"")
    return Told(topic.name, event_id, digest, request_id, erased)


async def _unknown(intake: "Database", told: Sequence[Told]) -> list[Told]:
    from habeas.cli.store import recovery

    rows = await intake.read("recover-requests", recovery.FIND_UNKNOWN_REQUESTS, [each.request_id for each in told])
    unknown = {row["request_id"] for row in rows}
    return [each for each in told if each.request_id in unknown]


async def _tombstones(settings: "ChassisSettings") -> list[Tombstone]:
    """Return everybody who is flagged as erased: that topic keeps the newest flags of each person for ever."""
    from habeas.contracts.request_intake import SubjectFlagged
    from habeas.contracts.topics import SUBJECT_FLAGS

    newest: dict[str, SubjectFlagged] = {}
    async for kind, record in records(settings, SUBJECT_FLAGS):
        event = _event(kind, record)
        if isinstance(event, SubjectFlagged):
            newest[event.account_fingerprint] = event
    return [
        Tombstone(bytes.fromhex(each.account_fingerprint), each.subject_id, each.request_id, each.flagged_at)
        for each in newest.values()
        if each.erased
    ]


def _event(kind: str, record: "ConsumerRecord[bytes, bytes]") -> "Event | None":
    """Return the event that a record holds; None for one that nobody can read, which is parked by whoever takes it."""
    from habeas.contracts.catalogue import BY_TYPE

    known = BY_TYPE.get(kind)
    try:
        return None if known is None else known.decode(record.value or b"")
    except (ValueError, OverflowError):
        return None


async def told_mails(settings: "ChassisSettings") -> dict[UUID, MailSent | MailRefused | MailUncertain]:
    """Give what notification-mailer last told about each mail."""
    from habeas.contracts.topics import DELIVERIES

    told: dict[UUID, MailSent | MailRefused | MailUncertain] = {}
    async for kind, record in records(settings, DELIVERIES):
        event = _event(kind, record)
        if isinstance(event, MailSent | MailRefused | MailUncertain):
            told[event.mail_id] = event
    return told


async def records(
    settings: "ChassisSettings", topic: "Topic"
) -> "AsyncIterator[tuple[str, ConsumerRecord[bytes, bytes]]]":
    """Give every record that a topic holds now, with its type; what has no readable envelope is passed over."""
    from aiokafka import TopicPartition

    from habeas.contracts.envelope import BadEnvelope, decode_headers

    partitions = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
    async with kafka_answers(), reading(settings) as consumer:
        consumer.assign(partitions)
        async with asyncio.timeout(START_S):
            at = await consumer.beginning_offsets(partitions)
            end = await consumer.end_offsets(partitions)
        for each in partitions:
            consumer.seek(each, at[each])
        while any(at[each] < end[each] for each in partitions):
            async with asyncio.timeout(_SILENCE_S):
                while not (found := await consumer.getmany(timeout_ms=_READ_MS, max_records=_RECORDS_MAX)):
                    # Marks of transactions, and records that were taken back, are passed over in silence.
                    at = {each: max(at[each], await consumer.position(each)) for each in partitions}
                    if all(at[each] >= end[each] for each in partitions):
                        return
            for each, records in found.items():
                for record in records:
                    at[each] = record.offset + 1
                    try:
                        yield decode_headers(record.headers).type, record
                    except BadEnvelope:
                        continue


@asynccontextmanager
async def reading(settings: "ChassisSettings") -> "AsyncIterator[AIOKafkaConsumer]":
    """Open a consumer that reads outside of every group."""
    from habeas.chassis.kafka import assigned_consumer, stop_consumer

    consumer = assigned_consumer(settings, "habeas-cli")
    try:
        async with asyncio.timeout(START_S):
            await consumer.start()
        yield consumer
    finally:
        await stop_consumer(consumer)


@asynccontextmanager
async def kafka_answers() -> AsyncIterator[None]:
    """End the command with a sentence when Kafka does not answer."""
    from habeas.chassis.history import KAFKA_TROUBLE

    try:
        yield
    except KAFKA_TROUBLE as error:
        raise click.ClickException(f"Kafka does not answer: {type(error).__name__}") from None


@asynccontextmanager
async def slices(settings: "ChassisSettings") -> "AsyncIterator[dict[str, Database]]":
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
