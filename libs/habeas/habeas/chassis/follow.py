"""Followers: read one partition strictly in order, from a position that the handler keeps in its own transaction.

For the audit log, where the order of records is the log: there is no group, no committed offset and no inbox. The handler's transaction
moves the position together with what it derived, so a crash repeats or loses nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError

from habeas.chassis import crash, kafka, log
from habeas.chassis.crash import Point
from habeas.chassis.database import TRANSIENT
from habeas.chassis.settings import ChassisSettings
from habeas.chassis.worker import wait_any
from habeas.contracts.topics import Topic

Position = Callable[[], Awaitable[int]]
Take = Callable[[Sequence["ConsumerRecord[bytes, bytes]"]], Awaitable[None]]

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 5.0
_TROUBLE_WAIT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Follower:
    """``position`` gives the offset to read next; ``take`` derives from records and moves the position, in one transaction."""

    topic: Topic
    position: Position
    take: Take
    batch_rows_max: int
    wait_s: float
    alive: Callable[[], Awaitable[None]] | None = None  # called in every round, with records or without

    async def run(
        self,
        settings: ChassisSettings,
        client_id: str,
        stopping: asyncio.Event,
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        """Follow until told to stop; after any trouble with Kafka or the database start again from the kept position."""
        while not stopping.is_set():
            consumer = kafka.assigned_consumer(settings, client_id)
            try:
                async with asyncio.timeout(_START_TIMEOUT_S):
                    await consumer.start()
                partition = kafka.TopicPartition(self.topic.name, 0)
                consumer.assign([partition])
                consumer.seek(partition, await self.position())
                while not stopping.is_set():
                    if self.alive is not None:
                        await self.alive()
                    if paused():
                        await wait_any(stopping, stopping, self.wait_s)
                        continue
                    found = await consumer.getmany(timeout_ms=int(self.wait_s * 1000), max_records=self.batch_rows_max)
                    for records in found.values():
                        crash.at(Point.FOLLOWER_FETCHED)
                        await self.take(records)
                        crash.at(Point.FOLLOWER_TOOK)
            except (KafkaError, *TRANSIENT) as error:
                log.event("follower.trouble", error=error)
                await wait_any(stopping, stopping, _TROUBLE_WAIT_S)
            finally:
                await _stopped(consumer)


async def _stopped(consumer: AIOKafkaConsumer) -> None:
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await consumer.stop()
    except (KafkaError, TimeoutError, OSError) as error:
        log.event("follower.stop_failed", error=error)
