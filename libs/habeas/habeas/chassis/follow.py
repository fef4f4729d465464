"""Followers: read one partition strictly in order, from a position that the handler keeps in its own transaction.

For the audit log, where the order of records is the log: there is no group, no committed offset and no inbox. The handler's transaction
moves the position together with what it derived, so a crash repeats or loses nothing. When Kafka was lost and the topic was made anew, the
position means nothing in it: that is found out by the record before the position, and then the topic is read from its beginning.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError

from habeas.chassis import crash, drift, kafka, log, metrics
from habeas.chassis.clock import Clock
from habeas.chassis.crash import Point
from habeas.chassis.database import TRANSIENT
from habeas.chassis.pace import Pace
from habeas.chassis.redaction import named
from habeas.chassis.settings import ChassisSettings, LogLevel
from habeas.chassis.waiting import Outage, wait_any
from habeas.contracts.topics import Topic

Position = Callable[[], Awaitable[int]]
Mark = Callable[[], Awaitable[int | None]]
Anew = Callable[[int], Awaitable[None]]
Take = Callable[[Sequence["ConsumerRecord[bytes, bytes]"]], Awaitable[None]]

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 5.0
_LOOK_TIMEOUT_S: Final = 10.0
_SILENCE_S: Final = 20.0  # less than `habeas replay` lets Kafka be without topics


@dataclass(slots=True)
class Follower:
    """``position`` gives the offset to read next; ``take`` derives from records and moves the position, in one transaction.

    ``mark`` gives Kafka's time of the record before the position, in milliseconds, where it is known; ``anew`` puts the position to the
    beginning of a topic that is another one than the position is of. ``alive`` is called in every round, with records or without, and a
    round without takes ``wait_s``. Whoever ends a pause sets ``wake``.
    """

    topic: Topic
    position: Position
    mark: Mark
    anew: Anew
    take: Take
    batch_rows_max: int
    wait_s: float
    alive: Callable[[], Awaitable[None]] | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _consumer: AIOKafkaConsumer | None = None

    @property
    def is_reading(self) -> bool:
        """Whether there is a connection to a broker that has the topic."""
        return kafka.is_reading(self._consumer, (self.topic.name,))

    async def run(
        self,
        settings: ChassisSettings,
        client_id: str,
        clock: Clock,
        stopping: asyncio.Event,
        took: Callable[[str], None] = lambda _: None,
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        """Follow until told to stop; after any trouble with Kafka or the database start again from the kept position.

        ``took`` is called with the topic's name after records were taken, and when reading begins: some may have been taken before.
        """
        outage = Outage("follower.trouble")
        while not stopping.is_set():
            self._consumer = consumer = kafka.assigned_consumer(settings, client_id)
            try:
                # The client looks for an assigned topic that is not there without a pause.
                await drift.require_there(kafka.client_options(settings), (self.topic.name,))
                async with asyncio.timeout(_START_TIMEOUT_S):
                    await consumer.start()
                partition = kafka.TopicPartition(self.topic.name, 0)
                kafka.fetch_whole(consumer)
                consumer.assign([partition])
                consumer.seek(partition, await self._begin(consumer, partition))
                took(self.topic.name)
                heard_at = _clock()
                pace = Pace(clock, several=1)  # nobody waits for the log: a trickle too is taken in groups
                while not stopping.is_set():
                    if self.alive is not None:
                        await self.alive()
                    self.wake.clear()
                    if paused():
                        await wait_any(self.wake, stopping, self.wait_s)
                        continue
                    found = await kafka.getmany(consumer, stopping, self.wait_s, self.batch_rows_max)
                    pace.begin()
                    if found and (paused() or _clock() - heard_at > _SILENCE_S):
                        # Nothing is taken any more; or Kafka may have been another one meanwhile, and the topic is looked at before.
                        break
                    if not (found or self.is_reading):
                        break
                    heard_at = _clock() if found else heard_at
                    ahead = (consumer.highwater(partition) or 0) - await consumer.position(partition)
                    metrics.FOLLOW_LAG_MESSAGES.set(max(0, ahead), topic=named(self.topic.name))
                    for records in found.values():
                        crash.at(Point.FOLLOWER_FETCHED)
                        await self.take(records)
                        crash.at(Point.FOLLOWER_TOOK)
                        took(self.topic.name)
                        outage.over()
                        await pace.rest(len(records), self.batch_rows_max, stopping)
            except (KafkaError, kafka.TopicsMissing, *TRANSIENT) as error:
                await outage.wait(error, stopping)
            finally:
                await _stopped(consumer)

    async def _begin(self, consumer: AIOKafkaConsumer, partition: kafka.TopicPartition) -> int:
        """Give the offset to read next, in the topic as it is now."""
        position = await self.position()
        async with asyncio.timeout(_LOOK_TIMEOUT_S):
            first = (await consumer.beginning_offsets([partition]))[partition]
            if await self._goes_on(consumer, partition, first, position):
                return position
        log.event("follower.topic_anew", severity=LogLevel.WARNING, position=position)
        await self.anew(first)
        return await self.position()

    async def _goes_on(
        self, consumer: AIOKafkaConsumer, partition: kafka.TopicPartition, first: int, position: int
    ) -> bool:
        """Answer whether the topic is the one that was read: it reaches the position, and the record before is the one that was taken."""
        end = (await consumer.end_offsets([partition]))[partition]
        mark = await self.mark()
        if position > end or mark is None or position <= first:
            return bool(position <= end)
        consumer.seek(partition, position - 1)
        before = await consumer.getone(partition)
        return bool(before.offset == position - 1 and before.timestamp == mark)


def _clock() -> float:
    return asyncio.get_running_loop().time()


async def _stopped(consumer: AIOKafkaConsumer) -> None:
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await kafka.stop_consumer(consumer)
    except (KafkaError, TimeoutError, OSError) as error:
        log.event("follower.stop_failed", error=error)
