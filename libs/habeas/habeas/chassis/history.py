"""History: the audit topic as the witness that the database is not older than what was told.

A database that was restored to an earlier moment, or a standby that was promoted before it had everything, would go on as if the time
between had not been: numbers would be given twice, mails sent again. Every entry of the audit log was in the database before it was in
Kafka. So whatever the topic holds of a service that its database does not know shows that the database went back. Then the service
does nothing at all until an operator has decided (`habeas recover`).
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from habeas.chassis import kafka, log, store
from habeas.chassis.database import TRANSIENT, Database, Server
from habeas.chassis.settings import ChassisSettings, LogLevel
from habeas.chassis.waiting import Outage, wait_any
from habeas.contracts.audit import GENESIS, entry_hash, link_of
from habeas.contracts.pledges import find_pledge, make_pledge
from habeas.contracts.topics import AUDIT_ENTRIES

KAFKA_TROUBLE: Final = (KafkaError, OSError, TimeoutError)
AUDIT_PARTITION: Final = TopicPartition(AUDIT_ENTRIES.name, 0)

_START_S: Final = 15.0
_STOP_S: Final = 5.0
_READ_MS: Final = 500
_SILENCE_S: Final = 15.0
_RECORDS_MAX: Final = 20_000
_ADVANCE_S: Final = 300.0
_NO_HEAD: Final[Mapping[str, Any]] = {"epoch": 0, "seq": 0, "hash": GENESIS}
_PLACE: Final = re.compile(
    rb"habeas-audit/[0-9]+ producer=([a-z\-]{1,64}) epoch=([1-9][0-9]{0,9}) seq=([1-9][0-9]{0,17}) "
)


class DatabaseRestored(Exception):
    """The database is older than what this service has told; the operator decides with `habeas recover`."""

    def __init__(self, unknown: int, offset: int) -> None:
        super().__init__(
            f"the audit topic has {unknown} entries of this service that its database lacks, the first at offset {offset}:"
            " run `habeas recover`"
        )
        self.unknown = unknown


class Entry(NamedTuple):
    """One entry of a producer in the audit topic: its place and its record."""

    epoch: int
    seq: int
    record: "ConsumerRecord[bytes, bytes]"


class Own(NamedTuple):
    """How a service knows its entries: its seed, and up to which number the topic is known to hold entries that show its secrets."""

    seed: bytes
    shown_seq: int | None

    def has_told(self, entry: Entry) -> bool:
        """Whether an entry shows the secret of its place."""
        pledge = find_pledge(entry.record.headers)
        return pledge is not None and pledge == make_pledge(self.seed, entry.epoch, entry.seq)

    def may_have_told(self, entry: Entry, head: Mapping[str, Any]) -> bool:
        """Whether an entry that the database does not hold may be the service's, as far as anybody can know.

        Until the topic is known to hold entries with these secrets, the seed may be younger than what was told. Then everything may be.
        """
        if self.shown_seq is None:
            return True
        return entry[:2] > (head["epoch"], min(self.shown_seq, head["seq"])) and self.has_told(entry)


class Reach(NamedTuple):
    """Which offsets the audit topic holds: from the first one up to, and without, the end."""

    first: int
    end: int

    def lacks(self, position: int | None) -> bool:
        """Whether records that were not read up to this position are gone from the topic, so that links cannot be followed."""
        return self.first > (position or 0)


class Judgement(NamedTuple):
    """What entries of a producer say about its database."""

    unknown: list[Entry]  # beyond the database's last one, and linked on; in the order of places, each content once
    other: Entry | None  # linked on, at a place where the database holds another line: it went back, and on from there
    passed_over: list[Entry]  # linked to nothing that this producer told, or without its secret: forged, or damaged
    shown_seq: int | None = None  # the last one that the database holds too, and that shows its secret


def judge(
    told: Collection[Entry], head: Mapping[str, Any], lines: Mapping[int, bytes], own: Own, *, is_cut: bool
) -> Judgement:
    """Tell which entries of the topic link on from what the database holds: its head, and those ``lines`` that ``places`` names.

    When the beginning of the chain is gone from the topic (``is_cut``), links cannot be followed: then every entry beyond the head that
    has the form of one counts. Once the service's entries show secrets, those beyond the head that do count, linked or not, and no others.
    """
    epoch, top = head["epoch"], head["seq"]
    links: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
    links[epoch, 0].add(GENESIS)
    links[epoch, top].add(head["hash"])
    for seq, line in lines.items():
        links[epoch, seq].add(entry_hash(line))
    ends = {link for known in links.values() for link in known} - {GENESIS}  # from which a later epoch may begin
    judged = Judgement([], None, [])
    agreed, other, shown = 0, None, None
    seen: set[tuple[tuple[int, int], bytes]] = set()
    for entry in sorted(told, key=lambda each: each[:2]):
        line = entry.record.value or b""
        place = entry[:2]
        if place < (epoch, 0) or (place, line) in seen:
            continue
        seen.add((place, line))
        if place <= (epoch, top) and lines.get(entry.seq, line) == line:
            agreed = max(agreed, entry.seq)
            shown = entry.seq if own.has_told(entry) else shown
            continue
        prev = link_of(line)
        begins = entry.epoch > epoch and entry.seq == 1
        before = ends if begins else links.get((entry.epoch, entry.seq - 1), ())
        is_beyond = prev is not None and place > (epoch, top)
        if (prev in before or (is_beyond and (is_cut or own.shown_seq is not None))) and own.may_have_told(entry, head):
            links[place].add(entry_hash(line))
            ends.add(entry_hash(line))
            if place > (epoch, top):
                judged.unknown.append(entry)
            else:
                other = entry
        else:
            judged.passed_over.append(entry)
    return judged._replace(other=other if other is not None and other.seq > agreed else None, shown_seq=shown)


def places(told: Collection[Entry], head: Mapping[str, Any]) -> list[int]:
    """Return the sequence numbers whose lines have to be known to judge these entries."""
    wanted = {seq for entry in told if entry.epoch >= head["epoch"] for seq in (entry.seq - 1, entry.seq)}
    return sorted({seq for seq in wanted if 0 < seq <= head["seq"]} | {head["seq"]})


async def read_entries(
    settings: ChassisSettings, service: str, position: int | None, take: Callable[[Entry], None]
) -> Reach:
    """Show ``take`` every entry of a service that the audit topic holds now from ``position`` on; return what the topic holds.

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
        return Reach(first, end)
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

    Reads the audit topic from where it was last found in agreement; what is not the service's is passed over and logged. Raises
    ``DatabaseRestored``, and what Kafka and database raise when they are away; then it may be called again.
    """
    told: list[Entry] = []
    async with database.apart() as connection:
        server = await Server.of(connection)
        position = await connection.fetchval(store.FIND_POSITION, *AUDIT_PARTITION)
        # The topic first and the head afterwards: another replica may be telling something new meanwhile.
        reach = await read_entries(settings, service, position, told.append)
        row = await connection.fetchrow(store.FIND_AUDIT_HEAD)
        head = dict(row) if row else _NO_HEAD
        rows = await connection.fetch(store.FIND_AUDIT_LINES, places(told, head)) if told else []
        lines = {row["seq"]: row["line"] for row in rows}
        own = Own(*(await connection.fetch(store.FIND_AUDIT_SEED))[0])
        judged = judge(told, head, lines, own, is_cut=reach.lacks(position))
        witness = judged.unknown[0] if judged.unknown else judged.other
        if witness is not None:
            raise DatabaseRestored(len(judged.unknown) or 1, witness.record.offset)
        if judged.passed_over:
            first = min(entry.record.offset for entry in judged.passed_over)
            entries = len(judged.passed_over)
            log.event("history.passed_over", severity=LogLevel.WARNING, entries=entries, offset=first)
        await connection.execute(store.SET_POSITION, *AUDIT_PARTITION, reach.end)
        if judged.shown_seq is not None:
            await connection.execute(store.SET_SHOWN_SEQ, judged.shown_seq)
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
