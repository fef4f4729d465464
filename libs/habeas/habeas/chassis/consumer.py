"""From Kafka to the worker, or into the inbox: a batch is handled as it comes, or stored in bulk; then its offsets are committed.

Nothing is decided here. FastStream makes the consumer and keeps its group; records are taken from it raw, so that nothing can fail, and so
drop or block a record, before our own code sees it. While the database is away nothing is committed and nothing is lost. Offsets are
committed some times a second and not with every batch: what was taken is known by its id when it comes again.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from typing_extensions import override

from habeas.chassis import crash, kafka, log, metrics, positions, store
from habeas.chassis.crash import Point
from habeas.chassis.database import TRANSIENT, Database, Transaction
from habeas.chassis.errors import Invariant
from habeas.chassis.message import Protection, Stored, relabel, take
from habeas.chassis.pace import Pace
from habeas.chassis.redaction import named
from habeas.chassis.request_ids import request_of
from habeas.chassis.settings import ChassisSettings, LogLevel
from habeas.chassis.waiting import Outage, unless, wait_any
from habeas.chassis.worker import Worker
from habeas.contracts.audit import Action, AuditFact
from habeas.contracts.topics import Topic

Records = Sequence["ConsumerRecord[bytes, bytes]"]
Taken = Sequence[tuple[Stored, "ConsumerRecord[bytes, bytes]"]]

_COMMIT_TIMEOUT_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 5.0
_COMMIT_EVERY_S: Final = 0.25
_SINCE_S: Final = 0.02
_LOOK_S: Final = 30.0  # without records: how often the loop shows that it lives
_PATIENCE_S: Final = 0.25
_DOUBT_S: Final = 15.0
_COLUMNS: Final = len(Stored._fields)
_METADATA_MS: Final = 30_000
_SESSION_MIN_S: Final = 6.0  # brokers refuse less, unless they are told otherwise


class Consumer:
    """Subscribes to the service's topics and stores what it handles."""

    def __init__(
        self,
        service: str,
        topics: Mapping[str, Topic],
        wanted: frozenset[str],
        database: Database,
        protection: Protection,
        settings: ChassisSettings,
        worker: Worker | None = None,
        *,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self.polled_at: float | None = None  # when the loop last came round, once it runs
        self._committed_at = 0.0
        self._offsets: dict[TopicPartition, int] = {}  # stored and not yet committed
        self._reached: dict[TopicPartition, int] = {}
        self._expected: dict[TopicPartition, int] = {}  # the offset that comes next
        self._told_at_ms = 0  # when what was taken last was published
        self.doubt_s = _DOUBT_S  # for so long Kafka is not believed that it knows of no offsets
        self._doubts_since: float | None = None
        self._is_anew = asyncio.Event()  # they were unsettled since it was last looked
        self._settled: set[TopicPartition] = set()  # partitions that are read from where the database says
        self.seen: Callable[[Records], None] = lambda _: None
        # Called with the lanes of what lies in the inbox now.
        self.stored: Callable[[Collection[int]], None] = lambda _: None
        # Called when partitions were given out, or are read from another place.
        self.given: Callable[[], None] = lambda: None
        self._topics = topics
        self._wanted = wanted
        self._database = database
        self._protection = protection
        self._settings = settings
        self._worker = worker
        self._patience_s = patience_s
        self.reach: positions.Reach = partial(kafka.reach, settings)
        self._service = service
        self.membership = Membership(self.unsettle, self._given_out)
        self._connect()

    def _connect(self) -> None:
        """Make a client that is not started yet."""
        service, settings = self._service, self._settings
        self.broker = KafkaBroker(
            apply_types=False,
            allow_auto_create_topics=False,
            client_id=f"{service}-{settings.instance}",
            graceful_timeout=settings.stop_timeout_s / 2,
            logger=logging.getLogger("faststream"),
            acks="all",
            # A group that is given out while topics are missing gets nothing, and is given out again only when metadata shows them.
            metadata_max_age_ms=_METADATA_MS,
            retry_backoff_ms=kafka.RETRY_BACKOFF_MS,
            **kafka.broker_options(settings),
        )
        # What a dead replica consumed stands still for as long as its lanes do.
        session_ms = int(max(settings.lease_s, _SESSION_MIN_S) * 1000)
        self.subscriber = self.broker.subscriber(
            *self._topics,
            batch=True,
            group_id=service,
            group_instance_id=f"{service}-{settings.instance}",
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            listener=self.membership,
            max_records=settings.inbox_batch_rows_max,
            isolation_level=kafka.ISOLATION,
            fetch_max_wait_ms=kafka.FETCH_WAIT_MS,
            consumer_timeout_ms=kafka.FETCHER_LOOKS_MS,
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // 3,
            rebalance_timeout_ms=30_000,
            max_poll_interval_ms=300_000,
        )

    async def start(self) -> bool:
        """Join the group; True. Raises ``KafkaError``, ``OSError`` or ``TimeoutError``, and may then be called again."""
        try:
            await self.broker.start()
        except BaseException:
            with suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await self.stop()
            raise
        if self.subscriber.consumer is not None:
            kafka.fetch_whole(self.subscriber.consumer)
        return True

    async def stop(self) -> None:
        """Close everything; nothing happens when it is closed. Raises what Kafka raises."""
        if self.subscriber.consumer is not None:
            await kafka.stop_consumer(self.subscriber.consumer)
        await self.broker.stop()

    async def run(self, stopping: asyncio.Event) -> None:
        """Store what comes until told to stop. Trouble with Kafka is waited out; the client finds its way back by itself."""
        consumer = self.subscriber.consumer
        if consumer is None:
            message = "the broker is started before its consumer is run"
            raise Invariant(message)
        pace = Pace(self._database.clock)
        rested = False
        outage = Outage("consumer.trouble")
        while not stopping.is_set():
            pace.begin()
            try:
                await self._settle(consumer)
                await self._worker_is_through(stopping)
                found = await self._fetch(consumer, stopping, rested=rested)
                await self._look_for_gaps(found)
            except (KafkaError, *TRANSIENT) as error:
                self.polled_at = self._database.clock.monotonic()
                await self._wait_out(outage, error, stopping)
                continue
            except Invariant:
                raise
            except Exception as error:  # noqa: BLE001 -- a fault of the client's own can be anything; it is told, and another client takes its place
                await outage.wait(error, stopping)
                consumer = await self._renew(consumer, outage, stopping)
                continue
            outage.over()
            self.polled_at = self._database.clock.monotonic()
            # What was fetched of a partition before it was settled comes again from the right place.
            records = [record for place, batch in found.items() if place in self._settled for record in batch]
            if records and not await self._take(records, stopping):
                return
            if not records:
                await self._pass_marks(consumer)
            if not records or self.polled_at - self._committed_at > _COMMIT_EVERY_S:
                await self._commit(consumer)
            rested = False
            if not self._has_many_left(consumer):
                rested = await pace.rest(len(records), self._settings.inbox_batch_rows_max, stopping)
        await self._commit(consumer)

    async def _fetch(
        self, consumer: "AIOKafkaConsumer", stopping: asyncio.Event, *, rested: bool
    ) -> Mapping[TopicPartition, Records]:
        """Wait for records; for as long as there are none, unless offsets are to be committed or the service stops.

        After a rest the client has what came when the rest began, and asks for what came since once that is taken.
        """
        most = self._settings.inbox_batch_rows_max
        found = await kafka.getmany(consumer, stopping, _COMMIT_EVERY_S if self._offsets else _LOOK_S, most)
        left = most - sum(map(len, found.values()))
        if not (rested and found and left > 0):
            return found
        since: Mapping[TopicPartition, Records] = {}
        # What was found counts as read: it must not be lost for trouble that the next fetch meets too.
        with suppress(KafkaError):
            since = await kafka.getmany(consumer, stopping, _SINCE_S, left)
        return {place: [*found.get(place, ()), *since.get(place, ())] for place in found.keys() | since.keys()}

    async def _renew(self, consumer: "AIOKafkaConsumer", outage: Outage, stopping: asyncio.Event) -> "AIOKafkaConsumer":
        """Give another client in the place of one that failed by its own fault; all that it knew is looked for anew."""
        metrics.KAFKA_RENEWED_CLIENTS.add()
        with suppress(Exception):  # it is thrown away, whatever it says to that
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self.stop()
        self.unsettle()
        self._connect()
        while not stopping.is_set():
            self.polled_at = self._database.clock.monotonic()
            try:
                await self.start()
            except (KafkaError, OSError, TimeoutError) as error:
                await outage.wait(error, stopping)
            else:
                return self.subscriber.consumer or consumer
        return consumer

    async def _wait_out(self, outage: Outage, error: BaseException, stopping: asyncio.Event) -> None:
        """Wait before the next try. When the database went away, what was stored before is committed first.

        Otherwise Kafka would know of no offset for a partition that was read for the first time, and would be doubted afterwards.
        """
        consumer = self.subscriber.consumer
        if outage.is_new and consumer is not None and not isinstance(error, KafkaError):
            await self._commit(consumer)
        await outage.wait(error, stopping)

    def _has_many_left(self, consumer: "AIOKafkaConsumer") -> bool:
        """Answer whether Kafka, as the last fetches told, holds enough for a full batch: a rest would not make the next one larger."""
        held = self._reached.keys() & consumer.assignment()
        left = sum(max(0, (consumer.highwater(each) or 0) - self._reached[each]) for each in held)
        return left >= self._settings.inbox_batch_rows_max

    def _given_out(self) -> None:
        if self.subscriber.consumer is not None:
            kafka.drop_held_fetches(self.subscriber.consumer)

    async def _pass_marks(self, consumer: "AIOKafkaConsumer") -> None:
        """Let offsets follow the client behind what it gives nobody: marks of transactions, and records that were taken back."""
        for place in self._settled & self._reached.keys() & consumer.assignment():
            if (position := await consumer.position(place)) > self._reached[place]:
                self._reached[place] = self._offsets[place] = self._expected[place] = position

    def look_anew(self) -> None:
        """Unsettle because the database is another one: what Kafka says of offsets is not in doubt for that."""
        self.unsettle()
        self._doubts_since = -math.inf

    def unsettle(self) -> None:
        """Look anew from where partitions are to be read: they were given out again, or the database is another one."""
        self._is_anew.set()
        self._settled = set()
        self._offsets = {}
        self._expected = {}
        self.given()

    async def _settle(self, consumer: "AIOKafkaConsumer") -> None:
        """Put the client where partitions are to be read on.

        When they are given out anew meanwhile it begins again: the client never answers what it was asked before.
        """
        while new := sorted(consumer.assignment() - self._settled):
            self._is_anew.clear()
            settled = self._settled
            now = self._database.clock.monotonic()
            believing = self._doubts_since is not None and now - self._doubts_since >= self.doubt_s
            try:
                step = positions.settle(
                    consumer, self._database, new, self.reach, believing=believing or not self.doubt_s
                )
                if not await unless(self._is_anew, step):
                    continue
            except positions.OffsetsUnknown:
                self._doubts_since = now if self._doubts_since is None else self._doubts_since
                raise
            self._doubts_since = None
            settled.update(new)

    async def _look_for_gaps(self, found: Mapping[TopicPartition, Records]) -> None:
        """Look anew where a partition is to be read from when Kafka passed over records that it no longer has.

        Offsets also have gaps that are nothing: marks of transactions, compacted records.
        """
        passed = {
            place: self._expected[place]
            for place, batch in found.items()
            if batch[0].offset > self._expected.get(place, batch[0].offset)
        }
        if passed:
            try:
                lost = await positions.gone(self.reach, passed)
            except KafkaError:
                self.unsettle()  # what was fetched comes again
                raise
            for place in lost:
                self._settled.discard(place)
                del self._expected[place]

    async def _take(self, records: Records, stopping: asyncio.Event) -> bool:
        """Store one batch; False when told to stop while the database was away: its offsets stay where they were."""
        crash.at(Point.CONSUMER_FETCHED)
        settled = self._settled
        parked = await self._keep(records, stopping)
        if parked is None:
            return False
        reached = {TopicPartition(*place): offset for *place, offset in zip(*positions.columns(records), strict=True)}
        self._reached.update(reached)
        self._told_at_ms = records[len(records) // 2].timestamp  # from the middle: platforms write what times they like
        if settled is self._settled:  # else these offsets are of an assignment, perhaps of a Kafka, that is no more
            self._offsets.update(reached)
            self._expected.update(reached)
        self.seen(records)
        metrics.INBOX_RECEIVED_MESSAGES.add(len(records))
        for each in parked:
            metrics.INBOX_PARKED_MESSAGES.add()
            log.event("message.parked", severity=LogLevel.WARNING, event_id=each.event_id, reason=each.reason)
        return True

    async def _worker_is_through(self, stopping: asyncio.Event) -> None:
        """Give the worker a moment for what is stored: messages behind it, of the same keys, would have to be stored as well."""
        if self._worker is not None and self._worker.is_willing and not self._worker.idle.is_set():
            await wait_any(self._worker.idle, stopping, self._patience_s)

    async def _keep(self, records: Records, stopping: asyncio.Event) -> list[Stored] | None:
        """Handle or store one batch, however long the database is away; gives what was parked, None when told to stop before."""
        taken = self._read(records)
        if taken and await self._handle_at_once(taken, records, stopping):
            self.stored({each.lane for each, _ in taken})
            return []
        outage = Outage("consumer.database_trouble")
        while True:
            try:
                if not taken:
                    await self._database.change("positions-move", store.MOVE_POSITIONS, *positions.columns(records))
                    return []
                parked = await self._database.run("inbox-store", lambda tx: self._store(tx, taken, records))
            except TRANSIENT as error:
                self.polled_at = self._database.clock.monotonic()
                await self._wait_out(outage, error, stopping)
                if stopping.is_set():
                    return None
            else:
                if self._worker is not None:
                    self._worker.note()
                self.stored({each.lane for each, _ in taken})
                return parked

    async def _handle_at_once(self, taken: Taken, records: Records, stopping: asyncio.Event) -> bool:
        if self._worker is None or not self._settings.handle_at_once:
            return False
        stored = [each for each, _ in taken]
        if len({each.event_id for each in stored}) < len(stored):
            return False
        if not self._worker.free.is_set():  # most of the time it only looks
            await wait_any(self._worker.free, stopping, self._patience_s)
        return await self._worker.at_once(stored, positions.columns(records))

    def _read(self, records: Records) -> Taken:
        """Read records as far as storing needs it; those of types that this service does not handle are left out."""
        taken = []
        for record in records:
            stored = take(record, self._topics[record.topic], self._wanted, self._protection)
            if stored is not None:
                taken.append((stored, record))
        return taken

    async def _commit(self, consumer: "AIOKafkaConsumer") -> None:
        """Commit what is stored. A commit that fails is tried again with the next one: a partition may fall silent after it."""
        self._committed_at = self._database.clock.monotonic()
        held = consumer.assignment()
        offsets = {partition: offset for partition, offset in self._offsets.items() if partition in held}
        self._offsets = offsets
        left = 0
        for topic in self._topics:
            read = [(each, self._reached[each]) for each in held if each.topic == topic and each in self._reached]
            lag = sum(max(0, (consumer.highwater(each) or 0) - reached) for each, reached in read)
            metrics.KAFKA_LAG_MESSAGES.set(lag, topic=named(topic))
            left += lag
        behind_s = self._database.clock.now().timestamp() - self._told_at_ms / 1000
        metrics.KAFKA_BEHIND_S.set(max(0.0, behind_s) if left else 0.0)
        if not offsets:
            return
        crash.at(Point.CONSUMER_STORED)
        try:
            async with asyncio.timeout(_COMMIT_TIMEOUT_S):
                await consumer.commit(offsets)
                crash.at(Point.OFFSETS_COMMITTED)
        except (KafkaError, TimeoutError) as error:
            log.event("consumer.commit_failed", error=error)
        else:
            self._offsets = {}

    async def _store(self, tx: Transaction, taken: Taken, records: Records) -> list[Stored]:
        """Store what is new; gives what had to be parked for it. The first content of an id counts, others are set aside."""
        firsts: dict[UUID, Stored] = {}
        for stored, _ in taken:
            firsts.setdefault(stored.event_id, stored)
        fresh = await self._insert(tx, list(firsts.values()), records)
        if len(fresh) != len(taken):
            fresh += await self._insert(tx, await self._conflicts(tx, taken, fresh))
        await self._name_requests(tx, taken, fresh)
        parked = [stored for stored in fresh if stored.reason is not None]
        tx.record(*(AuditFact(Action.MESSAGE_PARKED) for _ in parked))
        return parked

    async def _name_requests(self, tx: Transaction, taken: Taken, fresh: Sequence[Stored]) -> None:
        """Note of outsiders' messages which request they are about: their key is an account."""
        records = {(record.topic, record.partition, record.offset): record for _, record in taken}
        named = [
            (each.event_id, request_id)
            for each in fresh
            if self._topics[each.topic].sealed
            and (request_id := request_of(records[each.topic, each.partition, each.offset])) is not None
        ]
        if named:
            await tx.execute(store.NAME_REQUESTS, *zip(*named, strict=True))

    async def _conflicts(
        self,
        tx: Transaction,
        taken: Taken,
        fresh: Sequence[Stored],
    ) -> list[Stored]:
        """Give the records that repeat an id with other content, each under an id of its own."""
        digests = {stored.event_id: stored.digest for stored in fresh}
        known = list({stored.event_id for stored, _ in taken} - digests.keys())
        if known:
            digests |= {row["event_id"]: row["digest"] for row in await tx.fetch(store.FIND_DIGESTS, known)}
        conflicts = {
            (record.topic, record.partition, record.offset): relabel(
                stored, record, self._topics[record.topic], self._protection
            )
            for stored, record in taken
            if digests.get(stored.event_id) != stored.digest
        }
        return list(conflicts.values())

    async def _insert(self, tx: Transaction, stored: Sequence[Stored], reached: Records = ()) -> list[Stored]:
        """Insert rows, and with them how far these records reach; gives the rows whose id was not there yet."""
        if not stored and not reached:
            return []
        columns: Any = zip(*stored, strict=True) if stored else [[]] * _COLUMNS
        rows = await tx.fetch(store.STORE_RECORDS, tx.now, *columns, *positions.columns(reached))
        if len(rows) == len(stored):
            return list(stored)
        added = {row["event_id"] for row in rows}
        return [one for one in stored if one.event_id in added]


class Membership(ConsumerRebalanceListener):
    """Tells when partitions were given out, and knows whether they are; it must not wait, as the group waits for it.

    With more replicas than partitions a replica may be given none: it is ready all the same, for when another one ends.
    """

    def __init__(self, unsettle: Callable[[], None], given: Callable[[], None] = lambda: None) -> None:
        self.is_given = False
        self._unsettle = unsettle
        self._given = given

    @override
    def on_partitions_revoked(self, revoked: Any) -> None:
        self.is_given = False
        self._unsettle()

    @override
    def on_partitions_assigned(self, assigned: Any) -> None:
        self.is_given = True
        self._unsettle()
        self._given()
