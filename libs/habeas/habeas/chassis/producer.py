"""The Kafka producer of a service, used by the relay alone and thrown away whenever its word cannot be trusted.

An idempotent producer that lost the thread (an out-of-sequence answer, a dead sender task) never recovers, and one whose broker is gone
neither fails nor stops. So: every batch has a time limit, and after any error the producer is replaced and the batch sent again.
Consumers drop the copies by event id.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from habeas.chassis import crash, kafka, log, metrics
from habeas.chassis.crash import Point
from habeas.chassis.settings import ChassisSettings
from habeas.chassis.troubles import Reason, refusal
from habeas.chassis.waiting import is_cancelled

_STOP_TIMEOUT_S: Final = 3.0
_BATCH_BYTES_MAX: Final = 512 * 1024  # of a topic's max.message.bytes, a mebibyte
_ALONE_S: Final = 600.0  # for so long every record goes alone to a topic that did not take a batch


class Record(NamedTuple):
    """One record to publish; the publisher chooses the partition, since order is per partition and the lane fixes it."""

    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    partition: int


class PublishFailed(Exception):
    """Nobody knows which records of the batch arrived; all of them must be sent again."""


class Refusal(NamedTuple):
    """Why a topic refuses, and the size of what it does not take, in bytes: of a record where records go alone, else of a batch."""

    reason: Reason
    size_bytes: int


class Refused(PublishFailed):
    """Topics refuse what they are sent, and go on doing so until an operator acts; what is for other topics is acknowledged.

    ``acknowledged`` are the positions in the batch of records that nobody has to send again, ``refusals`` says why, by topic.
    """

    def __init__(self, acknowledged: frozenset[int], refusals: Mapping[str, Refusal]) -> None:
        super().__init__(", ".join(sorted(refusals)))
        self.acknowledged = acknowledged
        self.refusals = refusals


class Producer:
    """Publishes batches; ``publish`` returns only when every record is acknowledged by all in-sync replicas."""

    def __init__(self, settings: ChassisSettings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._producer: AIOKafkaProducer | None = None
        self._alone: dict[str, float] = {}  # topics to which records go alone, and until when in the loop's time

    async def publish(self, records: Sequence[Record], timeout_s: float) -> None:
        """Send records pipelined, in order per partition.

        Raises ``PublishFailed``; the caller sends the same batch again, of a ``Refused`` one what was not acknowledged.
        """
        try:
            async with asyncio.timeout(timeout_s):
                producer = await self._started()
                queues = _batches(producer, records, self._going_alone())
                while standing := [batch for queue in queues if (batch := _next_of(queue)) is not None]:
                    await _send(producer, standing)
        except (KafkaError, TimeoutError, OSError) as error:
            await self._give_up(error)
            if (reason := refusal(error)) is not None:  # of the whole user, who may write nowhere
                raise Refused(frozenset(), {each.topic: Refusal(reason, 0) for each in records}) from error
            raise PublishFailed from error
        if refused := self._refused([batch for queue in queues for batch in queue]):
            await self._give_up(refused)
            raise refused

    def _refused(self, batches: "Sequence[_Batch]") -> Refused | None:
        """Say what was refused, and remember topics to which records go alone from now on."""
        refusals: dict[str, Refusal] = {}
        acknowledged: set[int] = set()
        for each in batches:
            topic = each.place[0]
            if each.is_acknowledged:
                acknowledged.update(each.positions)
            elif each.error is not None and (reason := refusal(each.error)) is not None:
                largest = refusals[topic].size_bytes if topic in refusals else 0
                refusals[topic] = Refusal(reason, max(largest, each.builder.size()))
                if reason is Reason.TOO_LARGE:
                    self._alone[topic] = asyncio.get_running_loop().time() + _ALONE_S
        return Refused(frozenset(acknowledged), refusals) if refusals else None

    def _going_alone(self) -> frozenset[str]:
        now = asyncio.get_running_loop().time()
        return frozenset(topic for topic, until in self._alone.items() if until > now)

    async def _give_up(self, error: BaseException) -> None:
        """Throw the client away: its word cannot be trusted any more."""
        log.event("producer.failed", error=error)
        metrics.RELAY_REPLACED_PRODUCERS.add()
        await self.stop()

    async def stop(self) -> None:
        """Stop within a few seconds, whether or not the broker is there."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _end(producer)

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                client_id=self._client_id,
                acks="all",
                enable_idempotence=True,
                linger_ms=0,
                max_batch_size=_BATCH_BYTES_MAX,
                request_timeout_ms=10_000,
                retry_backoff_ms=100,
                metadata_max_age_ms=60_000,
                **kafka.client_options(self._settings),
            )
            try:
                await producer.start()
            except BaseException:
                await _end(producer)
                raise
            self._producer = producer
        return self._producer


@dataclass(slots=True)
class _Batch:
    """A record batch for one partition, which records of the whole are in it, and what became of it."""

    place: tuple[str, int]
    builder: Any
    positions: list[int] = field(default_factory=list)
    is_acknowledged: bool = False
    error: KafkaError | None = None


def _batches(producer: AIOKafkaProducer, records: Sequence[Record], alone: frozenset[str]) -> list[list[_Batch]]:
    """Build record batches, a tenth of the cost of handing records over one by one: a queue for each partition, in order."""
    queues: dict[tuple[str, int], list[_Batch]] = {}
    for position, record in enumerate(records):
        queue = queues.setdefault((record.topic, record.partition), [])
        if not queue or record.topic in alone or not _append(queue[-1], record):
            queue.append(_Batch((record.topic, record.partition), producer.create_batch()))
            _append(queue[-1], record)
        queue[-1].positions.append(position)
    return list(queues.values())


def _next_of(queue: Sequence[_Batch]) -> _Batch | None:
    """Return the batch that is to be sent next to a partition; None behind one that failed."""
    first = next((each for each in queue if not each.is_acknowledged), None)
    return None if first is None or first.error is not None else first


async def _send(producer: AIOKafkaProducer, batches: Sequence[_Batch]) -> None:
    """Send one batch to each of some partitions and note what becomes of it. Raises an error that is not about one topic.

    A second one to the same partition goes out only when the first was acknowledged: behind a refused one it would be out of sequence, or
    overtake it where the broker knows of no sequence yet.
    """
    sent = []
    for each in batches:
        topic, partition = each.place
        try:
            sent.append((each, await producer.send_batch(each.builder, topic, partition=partition)))
        except AssertionError:  # the topic has fewer partitions than the catalogue, as far as the client knows
            each.error = UnknownTopicOrPartitionError(topic)
        except KafkaError as error:
            each.error = error
        crash.at(Point.PRODUCER_SENT)
    results = await asyncio.gather(*(future for _, future in sent), return_exceptions=True)
    for (each, _), result in zip(sent, results, strict=True):
        if isinstance(result, KafkaError):
            each.error = result
        elif isinstance(result, BaseException):
            raise result
        else:
            each.is_acknowledged = True
    for each in batches:
        if each.error is not None and refusal(each.error) is None:
            raise each.error


def _append(batch: _Batch, record: Record) -> bool:
    """Add a record; False when the batch is full, which an empty one never is."""
    added = batch.builder.append(timestamp=None, key=record.key, value=record.value, headers=record.headers)
    return added is not None


async def _end(producer: AIOKafkaProducer) -> None:
    """Stop a producer; one that waits for a gone broker to take what is unsent is ended with its tasks and connections."""
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await producer.stop()
    except (KafkaError, TimeoutError, OSError, asyncio.CancelledError) as error:
        if is_cancelled():  # else it is that of a task of the client's
            raise
        log.event("producer.stop_failed", error=error)
    else:
        return
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await producer._sender.close()  # noqa: SLF001 -- aiokafka has no other way to drop what is unsent
            await producer.client.close()
    except (KafkaError, TimeoutError, OSError, asyncio.CancelledError) as error:
        if is_cancelled():
            raise
        log.event("producer.drop_failed", error=error)
