"""The kit's follower gives each event once: what is a copy, what is no event, and when an event counts as handled."""

import json
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import CommitFailedError
from hypothesis import given
from hypothesis import strategies as st

from habeas.chassis.records import Batches, PartitionRecords
from habeas.contracts.envelope import Envelope, encode_headers
from habeas.kit import Copies, Follower, Told
from tests.support.wire import Content, batch, with_payload

NOW = datetime(2026, 11, 24, tzinfo=UTC)
PLACE = TopicPartition("request-intake.requests.v1", 0)


class Done(Exception):
    """There are no more records."""


@dataclass
class Consumer:
    """A consumer that has read batches of ids; copies what was committed."""

    batches: "list[Sequence[bytes | int | ConsumerRecord[bytes, bytes]]]"
    committed: list[int] = field(default_factory=list)
    offset: int = 0
    fails: bool = False

    async def getmany(self, **_: int) -> dict[TopicPartition, list[Any]]:
        """Give the next batch; numbers become events with that id, bytes records without headers; records are given as they are."""
        if not self.batches:
            raise Done
        records: list[Any] = []
        for each in self.batches.pop(0):
            if isinstance(each, ConsumerRecord):
                records.append(each)
                continue
            value = each if isinstance(each, bytes) else json.dumps({"number": each}).encode()
            headers = (
                [] if isinstance(each, bytes) else encode_headers(Envelope(UUID(int=each), "t", "tests", NOW, "s"))
            )
            records.append(ConsumerRecord(*PLACE, self.offset, 0, 0, b"key", value, None, 3, len(value), headers))
            self.offset += 1
        return {PLACE: records} if records else {}

    def assignment(self) -> set[TopicPartition]:
        """Say that the partition is ours."""
        return {PLACE}

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        """Remember the offset, or fail as a consumer that lost its partitions."""
        if self.fails:
            raise CommitFailedError
        self.committed.append(offsets[PLACE])


async def follow(consumer: Consumer, copies: Copies | None = None) -> tuple[list[Told], Follower]:
    """Read all batches."""
    follower = Follower("kafka:9092", PLACE.topic, group="tests", copies=copies)
    follower._consumer = cast("Any", consumer)
    told: list[Told] = []
    with suppress(Done):
        async for each in follower:
            told.append(each)  # noqa: PERF401 -- what came before the end counts
    return told, follower


async def test_a_copy_is_left_out() -> None:
    """An id that came before, in the same batch or an earlier one, is not given again; its record is committed all the same."""
    consumer = Consumer([[1, 2, 1], [2, 3], []])
    told, _ = await follow(consumer)
    assert [each.body["number"] for each in told] == [1, 2, 3]
    assert [each.id for each in told] == [UUID(int=1), UUID(int=2), UUID(int=3)]
    assert consumer.committed == [3, 5]


async def test_what_is_no_event_is_passed_over_and_counted() -> None:
    """A record without our headers, or with a value that is no JSON object, stops nobody."""
    consumer = Consumer([[b"", b"{}", 1]])
    told, follower = await follow(consumer)
    assert ([each.body["number"] for each in told], follower.strange, consumer.committed) == ([1], 2, [3])


async def test_what_no_client_can_parse_is_passed_over_and_counted() -> None:
    """A header's name that is no text, a batch that does not open and one that grows without end, as the reader gives them."""
    head = encode_headers(Envelope(UUID(int=1), "t", "tests", NOW, "s"))
    good = Content(b"key", b'{"number": 1}', [(name.encode(), value) for name, value in head])
    log = (
        batch([Content(b"key", b"{}", [(b"\xff\xfe", b"1")])], base=0),
        with_payload(batch([good], base=1), b"no zstd", 4, is_packed=True),
        batch([Content(b"key", bytes(50_000_000))], base=2, codec=4),
        batch([good], base=3),
    )
    part = PartitionRecords(PLACE, Batches(b"".join(log)), [], 0, None, None, True, READ_COMMITTED)  # noqa: FBT003 -- as the client passes it
    told, follower = await follow(Consumer([[], list(part)]))
    assert ([each.body for each in told], follower.strange) == ([{"number": 1}], 3)


async def test_nothing_is_committed_that_was_not_handled() -> None:
    """Who stops in the midst of a batch gets it again: no offset of it is committed."""
    consumer = Consumer([[1, 2]])
    follower = Follower("kafka:9092", PLACE.topic, group="tests")
    follower._consumer = cast("Any", consumer)
    async with aclosing(cast("Any", follower.__aiter__())) as events:
        assert (await anext(events)).body == {"number": 1}
    assert consumer.committed == []


async def test_partitions_that_move_are_no_error() -> None:
    """A commit that fails because another member has the partition now costs nothing: it reads these events again."""
    told, _ = await follow(Consumer([[1], [2]], fails=True))
    assert len(told) == 2


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(1, 20))
def test_copies_are_known_as_far_back_as_promised(ids: list[int], ids_max: int) -> None:
    """An id is a copy whenever it is among the last different ones; memory holds no more of them."""
    copies = Copies(ids_max)
    recent: list[int] = []
    for each in ids:
        assert copies.is_copy(UUID(int=each)) is (each in recent)
        recent = [*(one for one in recent if one != each), each][-ids_max:]
    assert len(copies._ids) <= ids_max
