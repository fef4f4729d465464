"""What the broker in memory claims to do as Kafka does it; the same questions are put to both."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiokafka import ConsumerRecord, TopicPartition

from habeas.chassis.producer import Record
from habeas.contracts.topics import REQUESTS

KEYS: Final = [f"key-{number}".encode() for number in range(12)]
EACH: Final = 5

Kept = Mapping[TopicPartition, list["ConsumerRecord[bytes, bytes]"]]


class Publishing(Protocol):
    """The chassis' producer, or what stands in for it."""

    async def publish(self, records: list[Record], timeout_s: float) -> None:
        """Publish a batch."""
        ...


@dataclass(frozen=True)
class Kafka:
    """A broker under test: a producer, and how a member of a group is started and ended."""

    producer: Publishing
    join: Callable[[str, str], Awaitable[Any]]
    leave: Callable[[Any], Awaitable[None]]


def records() -> list[Record]:
    """Some keys in turns; the value is the number of the turn."""
    return [
        Record(REQUESTS.name, key, b"%d" % turn, [("ce_id", b"%d" % turn)], number % REQUESTS.partitions)
        for turn in range(EACH)
        for number, key in enumerate(KEYS)
    ]


async def take(consumer: Any, count: int) -> list["ConsumerRecord[bytes, bytes]"]:  # noqa: ANN401 -- either kind
    """Fetch until so many records have come."""
    found: list[ConsumerRecord[bytes, bytes]] = []
    for _ in range(200):
        batch: Kept = await consumer.getmany(timeout_ms=100, max_records=7)
        found += [record for records in batch.values() for record in records]
        if len(found) >= count:
            return found
    raise AssertionError(f"{len(found)} of {count} records came")


async def check_contract(kafka: Kafka) -> None:
    """Put every question, in one go: what one part leaves is what the next one starts from."""
    await kafka.producer.publish(records(), 10)
    consumer = await kafka.join("first", "group")
    found = await take(consumer, len(KEYS) * EACH)
    await _order(found)
    ends = await consumer.end_offsets(consumer.assignment())
    assert sum(ends.values()) == len(found) == sum(consumer.highwater(each) or 0 for each in ends)
    assert set((await consumer.beginning_offsets(list(ends))).values()) == {0}
    assert {await consumer.committed(each) for each in ends} == {None}
    half = {each: end // 2 for each, end in ends.items()}
    await consumer.commit(half)
    assert {each: await consumer.committed(each) for each in ends} == half
    await kafka.leave(consumer)
    await _comes_again(kafka, half, ends)


async def _order(found: list["ConsumerRecord[bytes, bytes]"]) -> None:
    """Every record lies in the partition that was named, a key's in order, offsets have no gaps, headers and values come as they went."""
    places: dict[bytes, set[int]] = {}
    turns: dict[bytes, list[int]] = {}
    offsets: dict[int, list[int]] = {}
    for record in found:
        key = record.key or b""
        places.setdefault(key, set()).add(record.partition)
        turns.setdefault(key, []).append(int(record.value or b""))
        offsets.setdefault(record.partition, []).append(record.offset)
        assert tuple(record.headers) == (("ce_id", record.value),)
    assert places == {key: {number % REQUESTS.partitions} for number, key in enumerate(KEYS)}
    assert all(each == list(range(EACH)) for each in turns.values())
    assert all(each == list(range(len(each))) for each in offsets.values())


async def _comes_again(kafka: Kafka, half: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
    """What was not committed comes again to the next member, from the committed offset on, and after a seek from there."""
    consumer = await kafka.join("second", "group")
    again = await take(consumer, sum(ends.values()) - sum(half.values()))
    firsts: dict[int, int] = {}
    for record in again:
        firsts.setdefault(record.partition, record.offset)
    assert firsts == {each.partition: offset for each, offset in half.items() if offset < ends[each]}
    place = max(ends, key=lambda each: ends[each])
    consumer.seek(place, 0)
    assert (await take(consumer, 1))[0].offset == 0
    await kafka.leave(consumer)
