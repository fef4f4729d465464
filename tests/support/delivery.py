"""What tests of delivery share: events of a toy story, their Kafka records, settings, and one service's slice of a database."""

import asyncio
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

import asyncpg
from aiokafka import ConsumerRecord
from pydantic import SecretStr

from habeas.chassis.clock import FakeClock
from habeas.chassis.consumer import Consumer
from habeas.chassis.database import Database
from habeas.chassis.ids import uuid7
from habeas.chassis.lanes import Lanes
from habeas.chassis.producer import PublishFailed, Record
from habeas.chassis.relay import Relay
from habeas.chassis.settings import ChassisSettings, Environment
from habeas.chassis.worker import Handler, Worker
from habeas.contracts import topics
from habeas.contracts.envelope import Envelope, encode_headers
from habeas.contracts.erasure_executor import ParticipantOrdered
from habeas.contracts.model import Event
from habeas.contracts.participants import ReceiptGiven
from habeas.contracts.platform import RequestSubmitted, RetentionTicked
from habeas.contracts.request_intake import RequestExtended, RequestRestricted
from habeas.contracts.topics import Topic
from habeas.contracts.vocabulary import Right
from habeas.sealing import Protector
from habeas.sealing.kek import KeyRing
from habeas_embedded.provision import Access
from tests.support.journal import keep_journal

NOON: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
CONSUMER: Final = "erasure-executor"
ACCOUNT: Final = "ada.lovelace"
FIRST_DAY: Final = date(2026, 1, 1)
PROTECTOR: Final = Protector(KeyRing(f"wrap={'A' * 43} derive={'B' * 42}A"))

HANDLED: Final = frozenset(
    {
        RequestExtended.type,
        RequestRestricted.type,
        RetentionTicked.type,
        RequestSubmitted.type,
        ReceiptGiven.type,
        ParticipantOrdered.type,
    }
)

Headers = Sequence[tuple[str, bytes]]

_offsets = itertools.count()
_ids = FakeClock(NOON)

MAKE_EFFECTS: Final = """
    CREATE TABLE erasure_executor.effects (
        position bigint GENERATED ALWAYS AS IDENTITY, request_id uuid NOT NULL, number integer NOT NULL CHECK (number < 1000000));
    CREATE TABLE erasure_executor.aggregates (name text PRIMARY KEY, number integer NOT NULL DEFAULT 0);
"""


def settings(dsn: str = "postgresql://nobody@127.0.0.1:1/none", **changed: Any) -> ChassisSettings:
    """Settings for a test: development, loopback, what is not named as it is by default."""
    return ChassisSettings(
        **{
            "environment": Environment.DEVELOPMENT,
            "kafka_bootstrap": "127.0.0.1:1",
            "database_dsn": SecretStr(dsn),
            **changed,
        }
    )


def new_id() -> UUID:
    """An id that no other test has."""
    return uuid7(_ids)


def extended(request_id: UUID, number: int) -> RequestExtended:
    """An event of an ordered topic of the fleet; `number` is hidden in its date."""
    due_on = FIRST_DAY + timedelta(days=number)
    return RequestExtended(request_id=request_id, subject_id=request_id, due_on=due_on, extended_at=NOON)


def number_of(event: RequestExtended) -> int:
    """The number that `extended` was given."""
    return (event.due_on - FIRST_DAY).days


def restricted(request_id: UUID) -> RequestRestricted:
    """An event of another type on the same topic and key."""
    return RequestRestricted(request_id=request_id, subject_id=request_id, restricted_at=NOON)


def ticked(tick_id: UUID) -> RetentionTicked:
    """An event of a platform's topic, in clear."""
    return RetentionTicked(tick_id=tick_id, as_of=NOON)


def submitted(request_id: UUID) -> RequestSubmitted:
    """An event of a platform's topic whose content is sensitive."""
    return RequestSubmitted(
        request_id=request_id, right=Right.ACCESS, account_id=ACCOUNT, received_at=NOON, channel="web"
    )


def ordered(order_id: UUID) -> ParticipantOrdered:
    """An event of the fleet whose content is sensitive."""
    return ParticipantOrdered(
        order_id=order_id,
        request_id=order_id,
        participant="shop",
        action="erase",
        account_id=ACCOUNT,
        due_on=FIRST_DAY,
    )


def headers_of(event: Event, event_id: UUID | None = None, at: datetime = NOON) -> dict[str, bytes]:
    """Headers as a publisher writes them, to be spoiled by a test."""
    return dict(encode_headers(Envelope(event_id or new_id(), event.type, "a-test", at, event.subject())))


def record_of(
    event: Event, event_id: UUID | None = None, *, at: datetime = NOON, partition: int = 0
) -> "ConsumerRecord[bytes, bytes]":
    """A good record."""
    return raw_record(
        event.topic, event.key().encode(), event.encode(), headers_of(event, event_id, at), partition=partition
    )


def raw_record(
    topic: Topic,
    key: bytes | None,
    value: bytes | None,
    headers: Mapping[str, bytes | None] | Headers,
    *,
    partition: int = 0,
    timestamp: int = int(NOON.timestamp() * 1000),
) -> "ConsumerRecord[bytes, bytes]":
    """Any record, at the next offset."""
    pairs = cast("Headers", list(headers.items()) if isinstance(headers, Mapping) else headers)
    return ConsumerRecord(topic.name, partition, next(_offsets), timestamp, 0, key, value, None, 0, 0, tuple(pairs))


@dataclass
class Delivery:
    """The receiving half of one service in one test's database, without Kafka and without a process around it."""

    access: Access
    clock: FakeClock
    settings: ChassisSettings
    database: Database
    topics: dict[str, Topic]
    opened: list[Database] = field(default_factory=list)

    @classmethod
    async def open(cls, access: Access, **changed: Any) -> "Delivery":
        """Open the consumer's slice and make the tables of the toy handlers."""
        owner = await asyncpg.connect(access.owner_dsn)
        try:
            await owner.execute(MAKE_EFFECTS)
        finally:
            await owner.close()
        await keep_journal(access.owner_dsn, [CONSUMER.replace("-", "_")])
        chosen = settings(access.dsn(CONSUMER), **changed)
        clock = FakeClock(NOON)
        database = await Database.open(chosen, CONSUMER.replace("-", "_"), clock)
        known = (topics.REQUESTS, topics.RETENTION_TICKS, topics.DSR_REQUESTS, topics.RECEIPTS, topics.ORDERS)
        return cls(access, clock, chosen, database, {topic.name: topic for topic in known}, opened=[database])

    async def another(self) -> Database:
        """Another replica's connections."""
        database = await Database.open(self.settings, self.database.schema, self.clock)
        self.opened.append(database)
        return database

    async def close(self) -> None:
        """Close every pool."""
        for database in self.opened:
            await database.close()

    def consumer(self, database: Database | None = None, worker: Worker | None = None) -> Consumer:
        """What stores records, or has the worker handle them at once."""
        return Consumer(CONSUMER, self.topics, HANDLED, database or self.database, PROTECTOR, self.settings, worker)

    async def receive(
        self, *records: "ConsumerRecord[bytes, bytes]", database: Database | None = None, worker: Worker | None = None
    ) -> None:
        """Take a batch as if Kafka had delivered it: store it, or let the worker handle it at once."""
        assert await self.consumer(database, worker)._take(records, asyncio.Event())

    async def lanes(self, database: Database | None = None, *, instance: int = 0, lease_s: float = 60) -> Lanes:
        """A replica that has taken its share of lanes."""
        lanes = Lanes(database or self.database, new_id(), instance, lease_s)
        await lanes.balance()
        return lanes

    def worker(self, lanes: Lanes, handlers: Mapping[type[Event], Handler], database: Database | None = None) -> Worker:
        """A worker of a replica."""
        by_type = {event.type: handler for event, handler in handlers.items()}
        return Worker(database or self.database, lanes, by_type, self.topics, PROTECTOR, self.settings)

    async def look(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Read as the administrator, apart from every pool."""
        connection = await asyncpg.connect(self.access.admin_dsn)
        try:
            return await connection.fetch(sql, *args)
        finally:
            await connection.close()

    async def states(self) -> list[tuple[str, str | None, str | None]]:
        """State, reason and field of every message that was ever stored, in order."""
        rows = await self.look("SELECT state, reason, field FROM erasure_executor.taken ORDER BY inbox_id")
        return [(row["state"], row["reason"], row["field"]) for row in rows]

    async def effects(self) -> list[tuple[UUID, int]]:
        """What the toy handlers did, in order."""
        rows = await self.look("SELECT request_id, number FROM erasure_executor.effects ORDER BY position")
        return [(row["request_id"], row["number"]) for row in rows]


async def drain(worker: Worker, limit: int = 2000) -> int:
    """Step until nothing is due; gives how many messages were settled."""
    settled = 0
    for _ in range(limit):
        count = await worker.step()
        settled += count
        if not count:
            return settled
    raise AssertionError("the worker does not come to an end")


def by_key(effects: Iterable[tuple[UUID, int]]) -> dict[UUID, list[int]]:
    """Numbers per key, in order."""
    found: dict[UUID, list[int]] = {}
    for key, number in effects:
        found.setdefault(key, []).append(number)
    return found


class Broker:
    """Stands in for Kafka behind the relay: keeps what was acknowledged, and fails as it is told."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.fail_before = 0  # so many batches get lost on the way
        self.fail_after = 0  # so many arrive, but nobody learns it

    async def publish(self, records: Sequence[Record], timeout_s: float) -> None:
        """Take a batch."""
        await asyncio.sleep(0)
        if self.fail_before:
            self.fail_before -= 1
            raise PublishFailed
        self.records += records
        if self.fail_after:
            self.fail_after -= 1
            raise PublishFailed

    def of(self, topic: Topic) -> list[Record]:
        """The records of one topic."""
        return [record for record in self.records if record.topic == topic.name]

    def relay(self, delivery: Delivery, lanes: Lanes, database: Database | None = None) -> Relay:
        """A relay that publishes here."""
        return Relay(CONSUMER, database or delivery.database, lanes, cast("Any", self), delivery.settings)


def headers(record: Record) -> dict[str, bytes]:
    """The headers of a published record."""
    return dict(record.headers)
