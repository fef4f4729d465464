import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from habeas.chassis import drift, kafka, waiting
from habeas.chassis.clock import SystemClock
from habeas.chassis.follow import Follower
from habeas.contracts.topics import AUDIT_ENTRIES
from tests.support.delivery import settings
from tests.support.waiting import HANGS_S

PARTITION = TopicPartition(AUDIT_ENTRIES.name, 0)


@dataclass
class Topic:
    """A topic as a consumer sees it: Kafka's time of each record, from offset 0 on."""

    times_ms: Sequence[int]
    at: int = 0

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where it begins."""
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where it ends."""
        return dict.fromkeys(partitions, len(self.times_ms))

    def seek(self, _: TopicPartition, offset: int) -> None:
        """Read on from here."""
        self.at = offset

    async def getone(self, _: TopicPartition) -> "ConsumerRecord[bytes, bytes]":
        """Give the record there."""
        return ConsumerRecord(AUDIT_ENTRIES.name, 0, self.at, self.times_ms[self.at], 0, b"", b"", None, 0, 0, ())


@dataclass
class Kept:
    """What a handler keeps about how far it has read."""

    position: int
    mark_ms: int | None
    anew: list[int] = field(default_factory=list)

    def follower(self) -> Follower:
        """Follow from there."""

        async def position() -> int:
            return self.position

        async def mark() -> int | None:
            return self.mark_ms

        async def begin_anew(first: int) -> None:
            self.anew.append(first)
            self.position, self.mark_ms = first, None

        async def take(_: object) -> None:
            raise AssertionError

        return Follower(AUDIT_ENTRIES, position, mark, begin_anew, take, 10, 1.0)


@pytest.mark.parametrize(
    ("position", "mark_ms", "times_ms", "begins"),
    [
        (3, 30, [10, 20, 30, 40], 3),
        (4, 40, [10, 20, 30, 40], 4),
        (0, None, [], 0),
        (3, None, [10, 20, 30, 40], 3),  # kept by an older version
        (3, 30, [], 0),
        (3, 30, [95, 96], 0),
        (3, 30, [95, 96, 97, 98, 99], 0),  # another topic that has grown beyond the position meanwhile
    ],
)
async def test_a_topic_is_known_again_by_the_record_before_the_position(
    position: int, mark_ms: int | None, times_ms: list[int], begins: int
) -> None:
    """The topic that was read is read on; one that was made anew is read from its beginning, however long it is."""
    kept = Kept(position, mark_ms)
    assert await kept.follower()._begin(cast("Any", Topic(times_ms)), PARTITION) == begins
    assert kept.anew == ([] if begins == position else [0])


async def test_a_topic_that_is_not_there_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Kafka that came back empty: nothing is assigned before the topic is there, since the client would look for it without a pause."""
    monkeypatch.setattr(waiting, "_TROUBLE_FIRST_S", 0.0)
    stopping, asked = asyncio.Event(), []

    async def require_there(_: object, topics: Sequence[str]) -> None:
        asked.append(topics)
        if len(asked) == 20:
            stopping.set()
        raise kafka.TopicsMissing(topics)

    monkeypatch.setattr(drift, "require_there", require_there)
    monkeypatch.setattr(kafka, "stop_consumer", _nothing)
    monkeypatch.setattr(kafka, "assigned_consumer", lambda *_: Connected())
    follower = Kept(0, None).follower()
    async with asyncio.timeout(HANGS_S):
        await follower.run(settings(), "a-test", SystemClock(), stopping)
    assert asked == [(AUDIT_ENTRIES.name,)] * 20
    assert not follower.is_reading


async def _nothing(_: object) -> None:
    """Stop what never began."""


class Connected:
    """A client's consumer with a connection, that knows some topics."""

    def __init__(self, *topics: str, connected: bool = True) -> None:
        self._client = self
        self._conns = {0: self}
        self._topics = topics
        self._connected = connected

    def connected(self) -> bool:
        """Whether the connection is open."""
        return self._connected

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """The partitions of a topic that is there."""
        return {0} if topic in self._topics else None


@pytest.mark.parametrize(
    ("consumer", "reads"),
    [
        (Connected("one", "other"), True),
        (Connected("one"), False),
        (Connected("one", "other", connected=False), False),
        (None, False),
    ],
)
def test_whoever_reads_has_a_connection_and_the_topics(consumer: Connected | None, reads: bool) -> None:  # noqa: FBT001 -- pytest gives it by name
    """A Kafka without the topics is as good as none, however well it answers."""
    assert kafka.is_reading(cast("Any", consumer), ("one", "other")) is reads
