"""The Kafka producer of a service, used by the relay alone and thrown away whenever its word cannot be trusted.

An idempotent producer that lost the thread (an out-of-sequence answer, a dead sender task) never recovers, and one whose broker is gone
neither fails nor stops. So: every batch has a time limit, and after any error the producer is replaced and the batch sent again.
Consumers drop the copies by event id.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from habeas.chassis import crash, kafka, log, metrics
from habeas.chassis.crash import Point
from habeas.chassis.settings import ChassisSettings

_STOP_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Record:
    """One record to publish."""

    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    partition: int | None = None


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
                    await producer.send(
                        record.topic, record.value, record.key, record.partition, headers=record.headers
                    )
                    for record in records
                ]
                crash.at(Point.PRODUCER_SENT)
                await producer.flush()
                await asyncio.gather(*sent)
        except (KafkaError, TimeoutError, OSError) as error:
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
                max_batch_size=256 * 1024,
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


async def _end(producer: AIOKafkaProducer) -> None:
    """Stop a producer; one that waits for a gone broker to take what is unsent is ended with its tasks and connections."""
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await producer.stop()
    except (KafkaError, TimeoutError, OSError) as error:
        log.event("producer.stop_failed", error=error)
    else:
        return
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await producer._sender.close()  # noqa: SLF001 -- aiokafka has no other way to drop what is unsent
            await producer.client.close()
    except (KafkaError, TimeoutError, OSError) as error:
        log.event("producer.drop_failed", error=error)
