"""History: the audit topic as the witness that the database is not older than what was told.

A database that was restored to an earlier moment, or a standby that was promoted before it had everything, would go on as if the time
between had not been: numbers would be given twice, mails sent again. Every entry of the audit log was in the database before it was in
Kafka. So whatever the topic holds of a service that its database does not know shows that the database went back. Then the service
does nothing at all until an operator has decided (`habeas recover`).
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from habeas.chassis import kafka, log, store
from habeas.chassis.database import TRANSIENT, Database, Server
from habeas.chassis.settings import ChassisSettings, LogLevel
from habeas.chassis.waiting import Outage, wait_any
from habeas.contracts.topics import AUDIT_ENTRIES

KAFKA_TROUBLE: Final = (KafkaError, OSError, TimeoutError)
AUDIT_PARTITION: Final = TopicPartition(AUDIT_ENTRIES.name, 0)

_START_S: Final = 15.0
_STOP_S: Final = 5.0
_READ_MS: Final = 500
_SILENCE_S: Final = 15.0
_RECORDS_MAX: Final = 20_000
_ADVANCE_S: Final = 300.0
_PLACE: Final = re.compile(
    rb"habeas-audit/[0-9]+ producer=([a-z\-]{1,64}) epoch=([1-9][0-9]{0,9}) seq=([1-9][0-9]{0,17}) "
)


class DatabaseRestored(Exception):
    """The database is older than what this service has told; the operator decides with `habeas recover`."""

    def __init__(self, unknown: int) -> None:
        super().__init__(
            f"the audit topic has {unknown} entries of this service that its database lacks: run `habeas recover`"
        )
        self.unknown = unknown


class Entry(NamedTuple):
    """One entry of a producer in the audit topic: its place and its record."""

    epoch: int
    seq: int
    record: "ConsumerRecord[bytes, bytes]"


async def read_entries(
    settings: ChassisSettings, service: str, position: int | None, take: Callable[[Entry], None]
) -> int:
    """Show ``take`` every entry of a service that the audit topic holds now from ``position`` on; gives the topic's end.

    A position that the topic does not reach, or none, means its beginning. Raises what Kafka raises when it is away.
    """
    consumer = kafka.assigned_consumer(settings, f"{service}-{settings.instance}-history")
    try:
        async with asyncio.timeout(_START_S):
            await consumer.start()
            consumer.assign([AUDIT_PARTITION])
            first = (await consumer.beginning_offsets([AUDIT_PARTITION]))[AUDIT_PARTITION]
            end: int = (await consumer.end_offsets([AUDIT_PARTITION]))[AUDIT_PARTITION]
        begin = position if position is not None and first <= position <= end else first
        if begin < end:
            await _read(consumer, begin, end, service.encode(), take)
        return end
    finally:
        with suppress(*KAFKA_TROUBLE):
            async with asyncio.timeout(_STOP_S):
                await kafka.stop_consumer(consumer)


async def _read(
    consumer: AIOKafkaConsumer, begin: int, end: int, producer: bytes, take: Callable[[Entry], None]
) -> None:
    consumer.seek(AUDIT_PARTITION, begin)
    prefix = producer + b"/"
    reached = begin
    while reached < end:
        async with asyncio.timeout(_SILENCE_S):
            while not (found := await consumer.getmany(timeout_ms=_READ_MS, max_records=_RECORDS_MAX)):
                if await consumer.position(AUDIT_PARTITION) >= end:
                    return  # the rest were marks of transactions, or records that were taken back
        for record in found[AUDIT_PARTITION]:
            if record.offset >= end:
                return
            reached = record.offset + 1
            place = _PLACE.match(record.value or b"") if (record.key or b"").startswith(prefix) else None
            if place and place[1] == producer:
                take(Entry(int(place[2]), int(place[3]), record))


async def verify(settings: ChassisSettings, service: str, database: Database) -> None:
    """Make sure that this database knows all that the service has told, and let units of work begin on this server.

    Reads the audit topic from where it was last found in agreement. Raises ``DatabaseRestored``, and what Kafka and database raise when
    they are away; then it may be called again.
    """
    last: Entry | None = None
    told: list[Entry] = []

    def take(entry: Entry) -> None:
        nonlocal last
        told.append(entry)
        if last is None or entry[:2] >= last[:2]:
            last = entry

    async with database.apart() as connection:
        server = await Server.of(connection)
        position = await connection.fetchval(store.FIND_POSITION, *AUDIT_PARTITION)
        # The topic first and the head afterwards: another replica may be telling something new meanwhile.
        end = await read_entries(settings, service, position, take)
        head = await connection.fetchrow(store.FIND_AUDIT_HEAD)
        known = (head["epoch"], head["seq"]) if head else (0, 0)
        unknown = sum(1 for entry in told if entry[:2] > known)
        if not unknown and last is not None and last.epoch == known[0]:
            line = await connection.fetchval(store.FIND_AUDIT_LINE, last.seq)
            unknown = int(line is not None and line != last.record.value)  # it went back, and on from there
        if unknown:
            raise DatabaseRestored(unknown)
        await connection.execute(store.SET_POSITION, *AUDIT_PARTITION, end)
    database.trust(server)


async def watch(
    settings: ChassisSettings,
    service: str,
    database: Database,
    stopping: asyncio.Event,
    changed: Callable[[], None],
) -> None:
    """Verify again whenever the database's server is another one or was restarted, until told to stop; ``changed`` hears of it.

    Until then no unit of work begins. Now and then the position in the audit topic is moved on, so that a verification has little to read.
    """
    while not stopping.is_set():
        if not await wait_any(database.server_changed, stopping, _ADVANCE_S):
            await _attempt(lambda: verify(settings, service, database), stopping, once=True)
            continue
        if stopping.is_set():
            return
        log.event("service.server_changed", severity=LogLevel.WARNING)
        changed()
        await _attempt(lambda: verify(settings, service, database), stopping, once=False)


async def _attempt(step: Callable[[], Awaitable[None]], stopping: asyncio.Event, *, once: bool) -> None:
    outage = Outage("history.trouble")
    while not stopping.is_set():
        try:
            await step()
        except (*KAFKA_TROUBLE, *TRANSIENT) as error:
            await outage.wait(error, stopping)
            if once:
                return
        else:
            return
