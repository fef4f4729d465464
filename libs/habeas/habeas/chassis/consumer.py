"""From Kafka into the inbox: raw records are stored in bulk, then their offsets are committed. Nothing is decided here.

The FastStream subscriber takes whole batches as raw records; its parser and decoder are replaced so that nothing can fail, and so drop or
block a record, before our own code sees it. While the database is away the handler waits: no offset is committed and nothing is lost.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from aiokafka import ConsumerRecord
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage

from habeas.chassis import kafka, log, metrics, store
from habeas.chassis.database import TRANSIENT, Database, Transaction
from habeas.chassis.message import Protection, Stored, relabel, take
from habeas.chassis.settings import ChassisSettings
from habeas.chassis.worker import wait_any
from habeas.contracts.topics import Topic

Records = Sequence["ConsumerRecord[bytes, bytes]"]

_COMMIT_TIMEOUT_S: Final = 10.0
_BATCH_WAIT_MS: Final = 10


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
        stored: Callable[[], None],
    ) -> None:
        self.stopping = asyncio.Event()
        self.polled_at = 0.0
        self.seen: Callable[[Records], None] = lambda _: None
        self._topics = topics
        self._wanted = wanted
        self._database = database
        self._protection = protection
        self._settings = settings
        self._stored = stored
        self.broker = KafkaBroker(
            apply_types=False,
            allow_auto_create_topics=False,
            client_id=f"{service}-{settings.instance}",
            graceful_timeout=settings.stop_timeout_s / 2,
            logger=logging.getLogger("faststream"),
            acks="all",
            **kafka.broker_options(settings),
        )
        self.subscriber = self.broker.subscriber(
            *topics,
            batch=True,
            group_id=service,
            group_instance_id=f"{service}-{settings.instance}",
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.MANUAL,
            max_records=settings.inbox_batch_rows_max,
            batch_timeout_ms=_BATCH_WAIT_MS,
            fetch_max_wait_ms=500,
            session_timeout_ms=15_000,
            heartbeat_interval_ms=3_000,
            rebalance_timeout_ms=30_000,
            max_poll_interval_ms=300_000,
            parser=self._parse,
            decoder=_undecoded,
        )
        self.subscriber(self._on_records)

    async def _parse(self, records: Any) -> KafkaAckableMessage:  # noqa: ANN401 -- FastStream's own type is generic over the batch
        return KafkaAckableMessage(raw_message=records, body=b"", headers={}, consumer=self.subscriber.consumer)

    async def _on_records(self, message: KafkaAckableMessage) -> None:
        """Store one batch, then commit its offsets. A stop while the database is away leaves the offsets where they were."""
        records: Records = message.raw_message
        while True:
            try:
                await self._database.run("inbox-store", lambda tx: self._store(tx, records))
                break
            except TRANSIENT as error:
                log.event("consumer.database_trouble", error=error)
                await wait_any(self.stopping, self.stopping, self._settings.poll_interval_s)
                if self.stopping.is_set():
                    raise
        self._stored()
        self.seen(records)
        metrics.INBOX_RECEIVED_MESSAGES.add(len(records))
        async with asyncio.timeout(_COMMIT_TIMEOUT_S):
            await message.ack()

    async def _store(self, tx: Transaction, records: Records) -> None:
        taken: dict[Any, tuple[Stored, ConsumerRecord[bytes, bytes]]] = {}
        conflicts: list[Stored] = []
        for record in records:
            topic = self._topics[record.topic]
            stored = take(record, topic, self._wanted, self._protection)
            if stored is None:
                continue
            before = taken.get(stored.event_id)
            if before is None:
                taken[stored.event_id] = stored, record
            elif before[0].digest != stored.digest:
                conflicts.append(relabel(stored, record, topic, self._protection))
        fresh = await self._insert(tx, [stored for stored, _ in taken.values()])
        known = [event_id for event_id in taken if event_id not in fresh]
        if known:
            digests = {row["event_id"]: row["digest"] for row in await tx.fetch(store.FIND_DIGESTS, known)}
            for event_id in known:
                stored, record = taken[event_id]
                if digests.get(event_id) != stored.digest:
                    conflicts.append(relabel(stored, record, self._topics[record.topic], self._protection))
        await self._insert(tx, conflicts)

    async def _insert(self, tx: Transaction, stored: Sequence[Stored]) -> set[Any]:
        if not stored:
            return set()
        columns = map(list, zip(*(one.columns() for one in stored), strict=True))
        return {row["event_id"] for row in await tx.fetch(store.STORE_RECORDS, tx.now, *columns)}


async def _undecoded(message: Any) -> Any:  # noqa: ANN401 -- passed through untouched
    return message
