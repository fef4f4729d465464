"""Where a consumer reads on: what was given out, stored and committed, whoever is away or another one meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
import pytest_asyncio
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError
from typing_extensions import override

from habeas.chassis import metrics, positions
from habeas.contracts import topics
from habeas_embedded.provision import Access
from tests.support.delivery import Delivery, extended, new_id, record_of
from tests.support.waiting import HANGS_S


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """The receiving half of a service."""
    delivery = await Delivery.open(database)
    yield delivery
    await delivery.close()


class RefusingOnce:
    """The part of Kafka's consumer that commits; the first commit fails."""

    def __init__(self, left: int = 0) -> None:
        self.committed: dict[TopicPartition, int] = {}
        self.end = left
        self._refusals = 1

    def assignment(self) -> set[TopicPartition]:
        """Every partition of the topic."""
        return {TopicPartition(topics.REQUESTS.name, partition) for partition in range(4)}

    def highwater(self, _: TopicPartition) -> int:
        """Where the log ends, as far as is known."""
        return self.end

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Refuse once, then keep."""
        if self._refusals:
            self._refusals -= 1
            raise KafkaTimeoutError
        self.committed.update(offsets)


async def test_offsets_whose_commit_failed_are_committed_later(delivery: Delivery) -> None:
    """A partition that falls silent is committed all the same: trimming of sensitive topics goes by the committed offset."""
    record = record_of(extended(new_id(), 1))
    kafka, consumer = RefusingOnce(), delivery.consumer()
    assert await consumer._take([record], asyncio.Event())
    await consumer._commit(cast("Any", kafka))
    await consumer._commit(cast("Any", kafka))
    assert kafka.committed == {TopicPartition(record.topic, record.partition): record.offset + 1}


async def test_the_age_of_what_is_taken_is_shown_while_something_is_left(delivery: Delivery) -> None:
    """Messages that wait in Kafka are late as well; once nothing is left there, nothing is."""

    def shown() -> float:
        lines = metrics.render().decode().splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith("habeas_kafka_behind_s "))

    delivery.clock.advance(timedelta(minutes=7))
    record = record_of(extended(new_id(), 1))
    kafka, consumer = RefusingOnce(record.offset + 3), delivery.consumer()
    assert await consumer._take([record], asyncio.Event())
    await consumer._commit(cast("Any", kafka))
    assert shown() == 7 * 60
    kafka.end = record.offset + 1
    await consumer._commit(cast("Any", kafka))
    assert shown() == 0


class Fetched:
    """A consumer that gives what it is told to, one fetch after the other."""

    def __init__(self, *fetches: Mapping[TopicPartition, Sequence[Any]] | KafkaError) -> None:
        self._fetches = list(fetches)

    async def getmany(self, *, timeout_ms: int, max_records: int) -> Mapping[TopicPartition, Sequence[Any]]:
        """Give the next one."""
        del timeout_ms, max_records
        fetch = self._fetches.pop(0)
        if isinstance(fetch, KafkaError):
            raise fetch
        return fetch


A, B = TopicPartition(topics.REQUESTS.name, 0), TopicPartition(topics.REQUESTS.name, 1)


@pytest.mark.parametrize(
    ("rested", "fetches", "found"),
    [
        pytest.param(False, [{A: [1]}], {A: [1]}, id="at once"),
        pytest.param(True, [{A: [1]}, {A: [2, 3], B: [7]}], {A: [1, 2, 3], B: [7]}, id="what came since"),
        pytest.param(True, [{A: [1]}, {}], {A: [1]}, id="nothing since"),
        pytest.param(True, [{A: [1]}, KafkaTimeoutError()], {A: [1]}, id="trouble since"),
        pytest.param(True, [{}], {}, id="nothing at all"),
    ],
)
async def test_after_a_rest_a_round_takes_what_came_meanwhile_too(
    delivery: Delivery,
    rested: bool,  # noqa: FBT001 -- one of the table
    fetches: Sequence[Mapping[TopicPartition, Sequence[int]] | KafkaError],
    found: Mapping[TopicPartition, Sequence[int]],
) -> None:
    """In order per partition; what was found first is not lost when the second fetch fails, as the client goes on behind it."""
    kafka = cast("Any", Fetched(*fetches))
    assert await delivery.consumer()._fetch(kafka, asyncio.Event(), rested=rested) == found


class Committing(RefusingOnce):
    """A client with nothing more to give that takes commits, and ends the loop that runs it with the first."""

    def __init__(self, stopping: asyncio.Event) -> None:
        super().__init__()
        self._refusals = 0
        self._stopping = stopping

    @override
    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        await super().commit(offsets)
        self._stopping.set()


async def test_what_was_stored_before_the_database_went_away_is_committed(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition that was read for the first time has a committed offset all the same: nobody doubts it afterwards."""
    record, stopping = record_of(extended(new_id(), 1)), asyncio.Event()
    consumer, client = delivery.consumer(), Committing(stopping)
    assert await consumer._take([record], stopping)
    monkeypatch.setattr(consumer, "subscriber", SimpleNamespace(consumer=client))

    async def away(_: object) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(consumer, "_settle", away)
    await consumer.run(stopping)
    assert client.committed == {TopicPartition(record.topic, record.partition): record.offset + 1}


class Faulty:
    """A client that has lost its way: it raises what it should not, at every fetch."""

    def __init__(self) -> None:
        self.fetches = 0

    def assignment(self) -> set[TopicPartition]:
        """Nothing."""
        return set()

    async def getmany(self, *, timeout_ms: int, max_records: int) -> Mapping[TopicPartition, Sequence[Any]]:
        """Fail by a fault of its own."""
        del timeout_ms, max_records
        self.fetches += 1
        raise AssertionError


async def test_a_client_that_fails_by_its_own_fault_is_replaced(
    delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one takes its place, and it is looked for anew where it reads on."""
    consumer, stopping = delivery.consumer(), asyncio.Event()
    clients: list[Faulty] = []

    def connect() -> None:
        clients.append(Faulty())
        consumer.subscriber = cast("Any", SimpleNamespace(consumer=clients[-1]))
        if len(clients) == THIRD:
            stopping.set()

    async def nothing() -> bool:
        return True

    monkeypatch.setattr(consumer, "_connect", connect)
    monkeypatch.setattr(consumer, "start", nothing)
    monkeypatch.setattr(consumer, "stop", nothing)
    given: list[None] = []
    consumer.given = lambda: given.append(None)
    connect()
    await consumer.run(stopping)
    assert [client.fetches for client in clients] == [1, 1, 0]
    assert len(given) == THIRD - 1


THIRD = 3


class GrowingMeanwhile:
    """A partition to which a record is added, and stored by another replica, right after its end was asked for."""

    def __init__(self, grow: Callable[[], Awaitable[None]]) -> None:
        self.sought: dict[TopicPartition, int] = {}
        self.kept: dict[TopicPartition, int] = {}
        self._grow = grow

    async def committed(self, _: TopicPartition) -> int | None:
        """Nothing was committed beyond the first record."""
        return 0

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The first record is there."""
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The end as it was before it grew."""
        await self._grow()
        return dict.fromkeys(partitions, 0)

    async def reach(self, partitions: Sequence[TopicPartition]) -> tuple[positions.Offsets, positions.Offsets]:
        """First offsets, then ends, as they are asked for."""
        return await self.beginning_offsets(partitions), await self.end_offsets(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from there."""
        self.sought[partition] = offset

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Keep what is committed."""
        self.kept.update(offsets)


async def test_what_another_replica_stores_meanwhile_makes_no_partition_new(delivery: Delivery) -> None:
    """A position beyond an end that is out of date already does not mean that the partition is another one; positions are kept."""
    record = record_of(extended(new_id(), 1))
    place = TopicPartition(record.topic, record.partition)
    kafka = GrowingMeanwhile(lambda: delivery.receive(record))
    await positions.settle(cast("Any", kafka), delivery.database, [place], kafka.reach)
    rows = await delivery.look("SELECT topic, partition FROM erasure_executor.positions")
    assert [(row["topic"], row["partition"]) for row in rows] == [tuple(place)]
    assert kafka.sought == {place: 0}


class Regiven(GrowingMeanwhile):
    """A client that never answers for partitions that were given out anew since it was asked, as aiokafka does not."""

    def __init__(self, place: TopicPartition) -> None:
        super().__init__(_nothing)
        self.asked = asyncio.Event()
        self.answers = False
        self._place = place

    def assignment(self) -> set[TopicPartition]:
        """The one partition."""
        return {self._place}

    @override
    async def committed(self, _: TopicPartition) -> int | None:
        self.asked.set()
        if not self.answers:
            await asyncio.Event().wait()
        return 0


async def _nothing() -> None:
    """Nothing happens meanwhile."""


async def test_what_is_given_out_anew_is_looked_at_anew_at_once(delivery: Delivery) -> None:
    """The client is not waited for when it is asked about an assignment that is no more."""
    place = TopicPartition(topics.REQUESTS.name, 0)
    consumer, client = delivery.consumer(), Regiven(place)
    consumer.doubt_s, consumer.reach = 0, client.reach
    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as group:
        group.create_task(consumer._settle(cast("Any", client)))
        await client.asked.wait()
        client.answers = True
        consumer.membership.on_partitions_assigned({place})
    assert client.sought == {place: 0}
    assert consumer._settled == {place}


class Uncommitted(GrowingMeanwhile):
    """A partition of which Kafka has no committed offset at first."""

    def assignment(self) -> set[TopicPartition]:
        """The one partition."""
        return {A}

    @override
    async def committed(self, _: TopicPartition) -> int | None:
        return self.kept.get(A)


async def test_a_database_that_is_another_one_casts_no_doubt_on_kafka(delivery: Delivery) -> None:
    """What was stored and never committed is read again at once then; without that Kafka is asked again before it is believed."""
    await delivery.receive(record_of(extended(new_id(), 1)))
    consumer, client = delivery.consumer(), Uncommitted(_nothing)
    consumer.reach = client.reach
    with pytest.raises(positions.OffsetsUnknown):
        await consumer._settle(cast("Any", client))
    consumer.look_anew()
    await consumer._settle(cast("Any", client))
    assert consumer._settled == {A}


async def test_what_was_given_out_once_is_not_doubted_when_it_comes_back(delivery: Delivery) -> None:
    """A member that leaves the group before it committed what it stored, as one does that waits long for its database, reads on at once."""
    consumer, client = delivery.consumer(), Uncommitted(_nothing)
    consumer.reach = client.reach
    await consumer._settle(cast("Any", client))
    await delivery.receive(record_of(extended(new_id(), 1)))
    consumer.unsettle()
    await consumer._settle(cast("Any", client))
    assert consumer._settled == {A}


class TrimmedMeanwhile(GrowingMeanwhile):
    """A partition of which another replica stores and trims a record right before its beginning is asked for."""

    def __init__(self, grow: Callable[[], Awaitable[None]], committed: int) -> None:
        super().__init__(grow)
        self._committed = committed

    @override
    async def committed(self, _: TopicPartition) -> int | None:
        return self._committed

    @override
    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        await self._grow()
        return dict.fromkeys(partitions, self._committed + 1)

    @override
    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self._committed + 1)


class Forgetful(TrimmedMeanwhile):
    """A partition of which no committed offset is known any more; all its records are there."""

    first = 0

    @override
    async def committed(self, partition: TopicPartition) -> int | None:
        return None

    @override
    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.first)


async def test_what_another_replica_trims_meanwhile_is_not_gone(delivery: Delivery) -> None:
    """A replica that comes back while another one still stores, and trims what is stored, knows that nothing was lost; else it says so."""
    before, record = record_of(extended(new_id(), 1)), record_of(extended(new_id(), 1))
    place = TopicPartition(record.topic, record.partition)
    await delivery.receive(before)
    kafka = TrimmedMeanwhile(lambda: delivery.receive(record), committed=record.offset)
    await positions.settle(cast("Any", kafka), delivery.database, [place], kafka.reach)
    assert kafka.sought == {place: record.offset + 1}
    lost = TrimmedMeanwhile(AsyncMock(), committed=record.offset + 1)
    with pytest.raises(positions.RecordsGone, match=r"^1 records are gone"):
        await positions.settle(cast("Any", lost), delivery.database, [place], lost.reach)


async def test_offsets_that_kafka_does_not_know_are_doubted_first(delivery: Delivery) -> None:
    """A coordinator that loads its groups knows no offsets: that alone does not make a partition another one."""
    *_, last = records = [record_of(extended(new_id(), 1)) for _ in range(3)]
    place = TopicPartition(last.topic, last.partition)
    for record in records:
        await delivery.receive(record)
    forgetful = Forgetful(AsyncMock(), committed=last.offset)
    with pytest.raises(positions.OffsetsUnknown):
        await positions.settle(cast("Any", forgetful), delivery.database, [place], forgetful.reach, believing=False)
    assert forgetful.sought == {}
    await positions.settle(cast("Any", forgetful), delivery.database, [place], forgetful.reach)
    assert forgetful.sought == {place: forgetful.first}


async def test_a_partition_made_anew_is_known_from_where_it_begins(delivery: Delivery) -> None:
    """So that a service that dies before it stores anything of it does not take its old offset in Kafka for a place in the new one."""
    first, *_, last = records = [record_of(extended(new_id(), 1)) for _ in range(5)]
    place = TopicPartition(last.topic, last.partition)
    for record in records:
        await delivery.receive(record)
    anew = TrimmedMeanwhile(AsyncMock(), committed=first.offset)
    await positions.settle(cast("Any", anew), delivery.database, [place], anew.reach)
    assert anew.sought == {place: first.offset + 1}
    rows = await delivery.look("SELECT next_offset FROM erasure_executor.positions")
    assert [row["next_offset"] for row in rows] == [first.offset + 1]
