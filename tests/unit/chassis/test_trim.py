"""When the trimmer closes a segment and how far it trims, with a Kafka that only takes notes."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import TopicPartition

from habeas.chassis import kafka, waiting
from habeas.chassis.clock import FakeClock
from habeas.chassis.producer import Record, Refusal, Refused
from habeas.chassis.trim import Trimmer, sensitive
from habeas.chassis.troubles import Reason
from habeas.contracts import topics
from habeas.contracts.catalogue import ROLLED
from tests.support.delivery import NOON, new_id, raw_record, record_of, settings, submitted, ticked
from tests.support.waiting import HANGS_S

ONE, OTHER = (TopicPartition(topics.DSR_REQUESTS.name, number) for number in (0, 1))
SECOND = timedelta(seconds=1)


@dataclass
class Notes:
    """Consumer and producer at once: what is assigned and committed, and what was published."""

    assigned: set[TopicPartition] = field(default_factory=lambda: {ONE})
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    markers: list[TopicPartition] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None
    refuses: bool = False
    while_asked: Callable[[], None] = lambda: None
    stop: AsyncMock = field(default_factory=AsyncMock)

    @property
    def consumer(self) -> "Notes":
        """The consumer of the subscriber of the consumer."""
        return self

    subscriber = consumer

    def assignment(self) -> set[TopicPartition]:
        """The partitions held."""
        return self.assigned

    def highwater(self, partition: TopicPartition) -> int | None:
        """The end that the last fetch told of; as aiokafka's, it knows nothing of partitions that are held no more."""
        assert partition in self.assigned, "Partition is not assigned"
        return self.ends.get(partition)

    async def committed(self, partition: TopicPartition) -> int | None:
        """The committed offset."""
        self.while_asked()
        return self.offsets.get(partition)

    async def publish(self, records: Sequence[Record], timeout_s: float) -> None:
        """Take markers."""
        self.meanwhile()
        if self.refuses:
            raise Refused(frozenset(), {topics.DSR_REQUESTS.name: Refusal(Reason.NOT_ALLOWED, 100)})
        for record in records:
            assert ("ce_type", ROLLED.encode()) in record.headers
            assert record.partition is not None
            self.markers.append(TopicPartition(record.topic, record.partition))


@dataclass
class Trimming:
    """A trimmer with its notes, its clock and what it trimmed."""

    notes: Notes
    clock: FakeClock
    trimmer: Trimmer
    trimmed: list[dict[TopicPartition, int]]

    async def step(self, after: timedelta = timedelta(0)) -> bool:
        """Let time pass, then look; answers whether something is left."""
        self.clock.advance(after)
        return await self.trimmer.step()

    def see(self, partition: int = 0) -> None:
        """Take a sensitive record."""
        self.trimmer.see([record_of(submitted(new_id()), partition=partition)])


@pytest.fixture
def trimming(monkeypatch: pytest.MonkeyPatch) -> Trimming:
    """A trimmer that has closed what it found at its start."""
    notes, clock = Notes(), FakeClock(NOON)
    trimmer = Trimmer(
        "request-intake",
        sensitive({topic.name: topic for topic in topics.CATALOGUE}),
        cast("Any", notes),
        cast("Any", notes),
        clock,
        settings(),
        roll_after_s=1.2,
    )
    trimmed: list[dict[TopicPartition, int]] = []

    async def trim(_: object, offsets: dict[TopicPartition, int]) -> None:
        trimmed.append(offsets)

    monkeypatch.setattr(kafka, "trim", trim)
    return Trimming(notes, clock, trimmer, trimmed)


async def test_what_lies_there_at_the_start_is_closed(trimming: Trimming) -> None:
    """After a start nobody knows what the newest segment holds: it is closed once it is old enough, and only once."""
    await trimming.step()
    assert trimming.notes.markers == []
    await trimming.step(2 * SECOND)
    await trimming.step(2 * SECOND)
    assert trimming.notes.markers == [ONE]


async def test_each_sensitive_record_is_followed_by_a_marker(trimming: Trimming) -> None:
    """A marker comes after the last sensitive record of its partition, no sooner than a segment may be closed."""
    trimming.see()
    await trimming.step(SECOND)
    trimming.see()
    await trimming.step(SECOND)
    assert trimming.notes.markers == []
    await trimming.step(SECOND)
    assert trimming.notes.markers == [ONE]


async def test_a_record_during_the_marker_gets_its_own(trimming: Trimming) -> None:
    """A record that comes while the marker is on its way may lie behind it or in its segment: another marker follows."""
    trimming.see()
    trimming.notes.meanwhile = trimming.see
    await trimming.step(2 * SECOND)
    trimming.notes.meanwhile = lambda: None
    await trimming.step(2 * SECOND)
    assert trimming.notes.markers == [ONE, ONE]


async def test_a_partition_that_comes_back_is_new(trimming: Trimming) -> None:
    """What happened while another replica held the partition is unknown: it is closed again."""
    await trimming.step()
    await trimming.step(2 * SECOND)
    trimming.notes.assigned = {OTHER}
    await trimming.step()
    trimming.notes.assigned = {ONE, OTHER}
    await trimming.step(2 * SECOND)
    await trimming.step(2 * SECOND)
    assert sorted(trimming.notes.markers) == [ONE, ONE, OTHER]


async def test_starts_move_to_what_is_committed(trimming: Trimming) -> None:
    """Partitions are trimmed up to the committed offset, never further, and not again for the same."""
    await trimming.step()
    trimming.notes.offsets = {ONE: 5, OTHER: 7}
    await trimming.step()
    await trimming.step()
    trimming.notes.offsets = {ONE: 6}
    await trimming.step()
    assert trimming.trimmed == [{ONE: 5}, {ONE: 6}]


async def test_without_the_right_to_write_what_can_be_trimmed_is(trimming: Trimming) -> None:
    """A marker that is refused keeps the last segment; the earlier ones go all the same, and the marker is tried again."""
    await trimming.step()
    trimming.notes.refuses, trimming.notes.offsets = True, {ONE: 5}
    for _ in range(2):
        with pytest.raises(Refused):
            await trimming.step(2 * SECOND)
    assert (trimming.notes.markers, trimming.trimmed) == ([], [{ONE: 5}])
    trimming.notes.refuses = False
    await trimming.step()
    assert trimming.notes.markers == [ONE]


class Told:
    """Stands for the table of troubles."""

    def __init__(self) -> None:
        self.now: dict[str, Reason] = {}
        self.notes = 0

    async def note(self, topic: str, reason: Reason) -> None:
        """Keep it."""
        self.now[topic] = reason
        self.notes += 1

    async def over(self, ended: set[str]) -> None:
        """Forget it."""
        for topic in ended:
            self.now.pop(topic, None)


async def test_what_stays_is_told_until_it_goes(trimming: Trimming, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal at once, other trouble when it has lasted a minute; with rests that grow, and nothing any more once it works."""
    told, stopping, rests = Told(), asyncio.Event(), list[float]()
    trimming.trimmer.troubles = cast("Any", told)
    await trimming.step()
    trimming.notes.refuses, trimming.notes.offsets = True, {ONE: 5}
    monkeypatch.setattr(kafka, "trim", failing := AsyncMock(side_effect=KafkaConnectionError))

    async def rest(first: asyncio.Event, second: asyncio.Event, limit_s: float) -> bool:
        rests.append(limit_s)
        trimming.clock.advance(timedelta(seconds=limit_s))
        match len(rests):
            case 20:  # Kafka was away until here, which shows after a minute
                assert told.now == {}
            case 100:
                assert told.now == {ONE.topic: Reason.FAILING}
                failing.side_effect = None
            case 110:
                assert told.now == {ONE.topic: Reason.NOT_ALLOWED}
                assert rests[-2:] == [30.0, 30.0]
                trimming.notes.refuses = False
            case 112:
                stopping.set()
            case _:
                pass
        return False

    monkeypatch.setattr(waiting, "wait_any", rest)
    monkeypatch.setattr("habeas.chassis.trim.wait_any", rest)
    async with asyncio.timeout(HANGS_S):
        await trimming.trimmer.run(stopping)
    assert told.now == {}
    assert rests[:4] == [0.25, 0.5, 1.0, 1.0]


async def test_the_trimmer_rests_when_everything_is_trimmed(trimming: Trimming) -> None:
    """Something is left until the segment is closed and all that was read is trimmed; then only a record or a partition ends the rest."""
    assert await trimming.step()
    trimming.notes.ends = {ONE: 1}
    assert await trimming.step(2 * SECOND), "the marker is not yet committed"
    trimming.notes.offsets = {ONE: 1}
    assert not await trimming.step()
    trimming.trimmer.wake.clear()
    trimming.see()
    assert trimming.trimmer.wake.is_set()
    assert await trimming.step()


async def test_a_partition_may_be_taken_away_while_it_is_looked_at(trimming: Trimming) -> None:
    """The group may be given out anew between two questions: what is held no more is somebody else's."""
    await trimming.step()
    trimming.notes.while_asked = trimming.notes.assigned.clear
    assert not await trimming.step()


async def test_an_empty_partition_is_no_reason_to_look(trimming: Trimming) -> None:
    """Of a partition in which nothing ever was, nothing can be committed: the trimmer does not wait for it."""
    trimming.notes.ends = {ONE: 0}
    await trimming.step()
    assert not await trimming.step(2 * SECOND)


async def test_other_topics_and_markers_are_none_of_its_business(trimming: Trimming) -> None:
    """Neither an open topic's record nor a marker calls for a marker."""
    await trimming.step()
    await trimming.step(2 * SECOND)
    marker = raw_record(topics.DSR_REQUESTS, b"", b"{}", {"ce_type": ROLLED.encode()})
    trimming.trimmer.see([record_of(ticked(new_id())), marker])
    await trimming.step(2 * SECOND)
    assert trimming.notes.markers == [ONE]


def test_sensitive_topics_roll_by_the_brokers_clock() -> None:
    """A publisher's clock must not decide when a segment is closed: with record times ahead it never would be."""
    for topic in topics.CATALOGUE:
        if topic.sensitive:
            assert topic.configs["message.timestamp.type"] == "LogAppendTime"
            assert int(topic.configs["segment.ms"]) < 1_200
