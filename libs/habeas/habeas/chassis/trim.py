"""Trimming: what a sensitive topic carried leaves Kafka's disks once it lies sealed in the inbox.

Records name accounts in clear, since platforms write them. Kafka deletes by segment, and the newest segment is never deleted however
empty its readable part is. So after the last sensitive record a marker without content is written, which makes Kafka start a new segment,
and then the partition's start is moved past everything that was stored; the old segment goes with the next check.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aiokafka.errors import KafkaError

from habeas.chassis import crash, kafka
from habeas.chassis.clock import Clock
from habeas.chassis.consumer import Consumer, Records
from habeas.chassis.crash import Point
from habeas.chassis.ids import uuid7
from habeas.chassis.producer import Producer, PublishFailed, Record, Refused
from habeas.chassis.settings import ChassisSettings
from habeas.chassis.troubles import REST_S_MAX, Reason, Troubles, refusal
from habeas.chassis.waiting import Outage, on_beat, wait_any
from habeas.contracts.catalogue import ROLLED, ROLLED_VALUE
from habeas.contracts.envelope import Envelope, encode_headers
from habeas.contracts.topics import Topic

_EVERY_S: Final = 1.0  # while there is something to trim
_LOOK_S: Final = 60.0
_HOPE_S: Final = 30.0  # after this without progress, what is left cannot be committed now
_PUBLISH_TIMEOUT_S: Final = 10.0
_PATIENCE_S: Final = 60.0  # for so long trouble that may pass by itself is only logged
_MARKER_TYPE: Final = ROLLED.encode()


@dataclass(slots=True)
class _Partition:
    last_sensitive_at: float | None
    trimmed_to: int = -1


@dataclass(slots=True)
class Trimmer:
    """Keeps the sensitive topics of one service empty of what was taken."""

    service: str
    topics: frozenset[str]
    consumer: Consumer
    producer: Producer
    clock: Clock
    settings: ChassisSettings
    roll_after_s: float
    troubles: Troubles | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _partitions: dict[kafka.TopicPartition, _Partition] = field(default_factory=dict)
    _moved_at: float = 0.0
    _failing_since: float | None = None

    def see(self, records: Records) -> None:
        """Note which partitions now hold something that must go."""
        now = self.clock.monotonic()
        for record in records:
            if record.topic in self.topics:
                self.look()
                if record.key or record.value != ROLLED_VALUE or ("ce_type", _MARKER_TYPE) not in record.headers:
                    partition = kafka.TopicPartition(record.topic, record.partition)
                    self._partitions.setdefault(partition, _Partition(now)).last_sensitive_at = now

    def look(self) -> None:
        """Look soon: records were taken, or partitions were given out."""
        self._moved_at = self.clock.monotonic()
        self.wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Trim until told to stop; while Kafka is away, keep trying. Without anything left, wait for ``look``."""
        outage = Outage("trimmer.trouble")
        while not stopping.is_set():
            self.wake.clear()
            try:
                left = await self.step()
            except (KafkaError, PublishFailed, OSError, TimeoutError) as error:
                reason = _reason(error)
                await self._note(reason)
                await outage.wait(error, stopping, None if reason is None else REST_S_MAX)
            else:
                outage.over()
                self._failing_since = None
                if self.troubles is not None:
                    await self.troubles.over({partition.topic for partition in self._partitions})
                if left and self.clock.monotonic() - self._moved_at < _HOPE_S:
                    await wait_any(stopping, stopping, _EVERY_S)
                else:
                    await wait_any(self.wake, stopping, on_beat(_LOOK_S))
        await self.producer.stop()

    async def step(self) -> bool:
        """Write markers where a segment is old enough to be closed, then move the starts forward to the committed offsets.

        Answers whether something is left: a segment that is to be closed, or records that are read and not yet trimmed.
        """
        consumer = self.consumer.subscriber.consumer
        if consumer is None:
            return True
        mine = [partition for partition in consumer.assignment() if partition.topic in self.topics]
        now = self.clock.monotonic()
        # After a start, or while another replica had the partition, nobody knows what the newest segment holds: treat it as if it
        # had just been written.
        self._partitions = {partition: self._partitions.get(partition, _Partition(now)) for partition in mine}
        due = {
            partition: state.last_sensitive_at
            for partition, state in self._partitions.items()
            if state.last_sensitive_at is not None and now - state.last_sensitive_at >= self.roll_after_s
        }
        failed = None
        if due:
            self._moved_at = now
            try:
                await self._mark(due)
            except PublishFailed as error:
                failed = error  # what can be trimmed without is trimmed
        offsets: dict[kafka.TopicPartition, int] = {}
        for partition in mine:
            committed = await consumer.committed(partition)
            if committed is not None and committed > self._partitions[partition].trimmed_to:
                offsets[partition] = committed
        if offsets:
            self._moved_at = now
            crash.at(Point.TRIM_FOUND)
            await kafka.trim(self.settings, offsets)
            crash.at(Point.TRIMMED)
            for partition, offset in offsets.items():
                self._partitions[partition].trimmed_to = offset
        if failed is not None:
            raise failed
        held = consumer.assignment()  # partitions may have been taken away meanwhile
        return any(
            state.last_sensitive_at is not None or max(state.trimmed_to, 0) < (consumer.highwater(partition) or 0)
            for partition, state in self._partitions.items()
            if partition in held
        )

    async def _mark(self, due: Mapping[kafka.TopicPartition, float]) -> None:
        """Write a marker to each of these partitions, given with when the last sensitive record was seen there."""
        await self.producer.publish([self._marker(partition) for partition in due], _PUBLISH_TIMEOUT_S)
        crash.at(Point.TRIM_MARKED)
        for partition, seen_at in due.items():
            # What came meanwhile may lie behind the marker: it needs one of its own.
            if self._partitions[partition].last_sensitive_at == seen_at:
                self._partitions[partition].last_sensitive_at = None

    async def _note(self, reason: Reason | None) -> None:
        """Keep that account ids stay: at once when Kafka refuses, else when it has failed for a minute."""
        now = self.clock.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if reason is None and now - self._failing_since >= _PATIENCE_S:
            reason = Reason.FAILING
        if reason is not None and self.troubles is not None:
            for topic in sorted({partition.topic for partition in self._partitions}):
                await self.troubles.note(topic, reason)

    def _marker(self, partition: kafka.TopicPartition) -> Record:
        envelope = Envelope(uuid7(self.clock), ROLLED, self.service, self.clock.now(), self.service)
        return Record(partition.topic, b"", ROLLED_VALUE, encode_headers(envelope), partition.partition)


def _reason(error: BaseException) -> Reason | None:
    """Return why Kafka refuses to trim; None for trouble that may pass by itself."""
    if isinstance(error, Refused):
        return next(each.reason for each in error.refusals.values())
    return refusal(error)


def sensitive(topics: dict[str, Topic]) -> frozenset[str]:
    """Give the names of the topics that must be trimmed."""
    return frozenset(name for name, topic in topics.items() if topic.sensitive)
