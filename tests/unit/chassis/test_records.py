"""What comes out of a fetch response whatever a producer put into it; the other implementation is the client's own reader."""

from collections.abc import Sequence
from typing import Any, Final

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from habeas.chassis import records
from habeas.chassis.records import Batches, PartitionRecords, UnreadableRecord
from tests.support.wire import CODECS, Content, Header, batch, mark, with_payload, with_sum

PLACE: Final = TopicPartition("platform.dsr-requests.v1", 0)
GOOD: Final[list[Header]] = [(b"ce_id", b"1"), (b"ce_type", b"x")]
BAD: Final = b"\xff\xfe"
TEN: Final = [Content(b"k%d" % number, b"v%d" % number, GOOD, number) for number in range(10)]


def read(
    *batches: bytes,
    at: int = 0,
    aborted: Sequence[tuple[int, int]] = (),
    isolation: int = READ_COMMITTED,
) -> tuple[list["ConsumerRecord[bytes, bytes]"], int]:
    """Give the records of a fetch response, and from where the next fetch asks."""
    part = PartitionRecords(PLACE, Batches(b"".join(batches)), list(aborted), at, None, None, True, isolation)  # noqa: FBT003 -- as the client passes it
    return list(part), part.next_fetch_offset


def content(record: "ConsumerRecord[bytes, bytes]") -> tuple[Any, ...]:
    """Give what a record says and where."""
    return record.offset, record.timestamp, record.key, record.value, tuple(record.headers)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_every_codec_is_read_as_the_client_reads_it(codec: int) -> None:
    """The client's own reader is the other implementation."""
    data = batch(TEN, base=7, codec=codec) + batch(TEN, base=20, codec=codec)
    own, end = read(data, at=7)
    theirs = MemoryRecords(data)
    expected = []
    while theirs.has_next():
        expected += [
            (each.offset, each.timestamp, each.key, each.value, tuple(each.headers)) for each in theirs.next_batch()
        ]
    assert [content(each) for each in own] == expected
    assert end == 30


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_batch_may_grow_much_when_it_is_unpacked(codec: int) -> None:
    """Compressed to a thousandth: it is unpacked into more room than was made for it first."""
    value = bytes(2_000_000)
    found, end = read(batch([Content(b"k", value), Content(b"l", value)], codec=codec))
    assert [(each.key, each.value) for each in found] == [(b"k", value), (b"l", value)]
    assert end == 2


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("bad", [0, 4, 9])
def test_a_header_name_that_is_no_text_costs_its_own_record_only(codec: int, bad: int) -> None:
    """Records before and behind it, of the same batch and of others, come out as they are, in order."""
    ten = [*TEN]
    ten[bad] = Content(b"k", b"v", [(BAD, b"x")])
    found, end = read(batch(TEN, base=0), batch(ten, base=10, codec=codec), batch(TEN, base=20))
    assert [each.offset for each in found] == list(range(30))
    assert [each.offset for each in found if isinstance(each, UnreadableRecord)] == [10 + bad]
    assert all(each.value == TEN[each.offset % 10].value for each in found if not isinstance(each, UnreadableRecord))
    assert BAD in (found[10 + bad].value or b"")
    assert end == 30


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param((1, b"no gzip"), id="gzip"),
        pytest.param((2, b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\x7f\xff\xff\xff"), id="snappy-stream"),
        pytest.param((2, b"\xff\xff\xff\xff\x7f"), id="snappy"),
        pytest.param((3, b"no lz4"), id="lz4"),
        pytest.param((4, b"no zstd"), id="zstd"),
        pytest.param((6, b"no codec at all"), id="unknown"),
        pytest.param((0, b""), id="nothing"),
        pytest.param((0, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), id="length"),
        pytest.param((0, b"\x7e"), id="short"),
    ],
)
def test_a_batch_that_does_not_open_is_stepped_over(payload: tuple[int, bytes]) -> None:
    """It comes out once, with its offset; what lies behind it is read."""
    codec, data = payload
    broken = with_payload(batch(TEN, base=3), data, codec, is_packed=True)
    found, end = read(batch(TEN[:3]), broken, batch(TEN, base=13))
    assert [each.offset for each in found] == [0, 1, 2, 3, *range(13, 23)]
    assert [each.offset for each in found if isinstance(each, UnreadableRecord)] == [3]
    assert end == 23


@pytest.mark.parametrize("codec", [1, 2, 3, 4], ids=[*CODECS][1:])
def test_a_batch_that_grows_without_end_is_stepped_over(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte may unpack to thousands; nobody makes room for that."""
    monkeypatch.setattr(records, "UNPACKED_BYTES_MAX", 1 << 20)
    bomb = with_payload(batch(TEN), bytes((1 << 20) + 1), codec)
    found, end = read(bomb, batch(TEN, base=10))
    assert isinstance(found[0], UnreadableRecord)
    assert len(found) == 11
    assert end == 20


def test_a_wrong_sum_is_fetched_again_before_it_is_stepped_over() -> None:
    """Bytes altered on the way are right the next time; on a disk they are altered for ever. What came before it is not lost."""
    altered = batch(TEN, base=10)
    altered = altered[:-1] + bytes([altered[-1] ^ 1])
    found, end = read(batch(TEN), altered, batch(TEN, base=20))
    assert (len(found), end) == (10, 10)
    assert [read(altered, at=10) for _ in range(2)] == [([], 10)] * 2
    found, end = read(altered, batch(TEN, base=20), at=10)
    assert [each.offset for each in found] == [10, *range(20, 30)]
    assert isinstance(found[0], UnreadableRecord)
    assert end == 30


def test_what_was_taken_back_was_never_said() -> None:
    """Two producers' transactions interleaved: the aborted one leaves nothing, the committed one everything; marks are passed."""
    log = (
        batch(TEN[:2], base=0, producer=1, is_transactional=True),
        batch(TEN[2:4], base=2, producer=2, is_transactional=True),
        mark(4, 1, is_commit=False),
        batch(TEN[4:5], base=5, producer=1, is_transactional=True),
        mark(6, 2, is_commit=True),
        mark(7, 1, is_commit=True),
        batch(TEN[5:6], base=8),
    )
    found, end = read(*log, aborted=[(1, 0)])
    assert [each.offset for each in found] == [2, 3, 5, 8]
    assert end == 9
    assert [each.offset for each in read(*log, isolation=READ_UNCOMMITTED)[0]] == [0, 1, 2, 3, 5, 8]


def test_a_partition_with_marks_only_is_read_to_its_end() -> None:
    """The next fetch asks for what is behind them."""
    assert read(mark(0, 1, is_commit=False), mark(1, 1, is_commit=True)) == ([], 2)


@given(st.data())
def test_nothing_that_a_producer_can_write_raises(data: st.DataObject) -> None:
    """Any bytes of a batch may be other ones, with a sum that fits or not: reading ends, in order, behind the batch or before it."""
    whole = bytearray(batch(TEN, base=5, codec=data.draw(st.sampled_from([0, 1, 2, 3, 4]))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(16, len(whole) - 1))] = data.draw(st.integers(0, 255))
    PartitionRecords._altered.clear()
    damaged = with_sum(bytes(whole)) if data.draw(st.booleans()) else bytes(whole)
    found, end = read(damaged, batch(TEN, base=15), at=5)
    assert all(isinstance(each, ConsumerRecord) for each in found)
    offsets = [each.offset for each in found]
    assert offsets == sorted(set(offsets))
    assert end >= (max(offsets, default=4) + 1)


@given(st.binary(max_size=200))
def test_any_bytes_at_all_end(data: bytes) -> None:
    """Even what no broker sends."""
    read(data)
