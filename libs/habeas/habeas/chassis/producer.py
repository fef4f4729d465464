"""The Kafka producer of a service, used by the relay alone and thrown away whenever its word cannot be trusted.

An idempotent producer that lost the thread (an out-of-sequence answer, a dead sender task) never recovers, and one whose broker is gone
neither fails nor stops. So: every batch has a time limit, and after any error the producer is replaced and the batch sent again.
Consumers drop the copies by event id.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from habeas.chassis import crash, kafka, log, metrics
from habeas.chassis.crash import Point
from habeas.chassis.settings import ChassisSettings
from habeas.chassis.waiting import is_cancelled

_STOP_TIMEOUT_S: Final = 3.0
_BATCH_BYTES_MAX: Final = 512 * 1024  # of a topic's max.message.bytes, a mebibyte


class Record(NamedTuple):
    """One record to publish; the publisher chooses the partition, since order is per partition and the lane fixes it."""

    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    partition: int


class PublishFailed(Exception):
    """Nobody knows which records of the batch arrived; all of them must be sent again."""


class Producer:
    """Publishes batches; ``publish`` returns only when every record is acknowledged by all in-sync replicas."""

    def __init__(self, settings: ChassisSettings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._producer: AIOKafkaProducer | None = None

    async def publish(self, records: Sequence[Record], timeout_s: float) -> None:
        """Send records pipelined, in order per partition. Raises ``PublishFailed``; the caller sends the same batch again."""
        try:
            async with asyncio.timeout(timeout_s):
                producer = await self._started()
                sent = [
                    await producer.send_batch(batch, topic, partition=partition)
                    for (topic, partition), batch in _batches(producer, records)
                ]
                crash.at(Point.PRODUCER_SENT)
                await asyncio.gather(*sent)
        except (KafkaError, TimeoutError, OSError, AssertionError) as error:
            # The client asserts that it knows of a partition, and may know too few until its next look at the topic.
            log.event("producer.failed", error=error)
            metrics.RELAY_REPLACED_PRODUCERS.add()
            await self.stop()
            raise PublishFailed from error

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


def _batches(producer: AIOKafkaProducer, records: Sequence[Record]) -> list[tuple[tuple[str, int], Any]]:
    """Build record batches, in order per partition: a tenth of the cost of handing records over one by one."""
    done: list[tuple[tuple[str, int], Any]] = []
    open_: dict[tuple[str, int], Any] = {}
    for record in records:
        place = (record.topic, record.partition)
        batch = open_.get(place)
        if batch is None:
            batch = open_[place] = producer.create_batch()
        if batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers) is None:
            done.append((place, batch))
            batch = open_[place] = producer.create_batch()
            batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers)
    return done + list(open_.items())


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
