"""What comes out of a fetch response whatever a producer put into it; the other implementation is the client's own reader."""

import struct
import tracemalloc
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any, Final

import cramjam
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from habeas.chassis import records
from habeas.chassis.message import Defect, take
from habeas.chassis.records import Batches, PartitionRecords, TooLarge, UnreadableRecord
from habeas.contracts.topics import DSR_REQUESTS, REQUESTS, Topic
from habeas.contracts.vocabulary import ParkReason
from tests.support.delivery import PROTECTOR
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
    value = bytes(1_000_000)
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


MIB: Final = 1 << 20
PEAK_BYTES: Final = 4 * records.UNPACKED_BYTES_MAX


def peak_of(*batches: bytes) -> tuple[list["ConsumerRecord[bytes, bytes]"], int, int]:
    """Give what ``read`` gives, and how much memory there was at once meanwhile."""
    tracemalloc.start()
    try:
        found, end = read(*batches)
        return found, end, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@cache
def bomb(codec: int, mib: int) -> bytes:
    """A batch of one record with so many MiB of blanks; some kilobytes on the wire."""
    return batch([Content(b"k", b" " * (mib * MIB), GOOD)], base=10, codec=codec)


@pytest.mark.parametrize("codec", [1, 2, 3, 4], ids=[*CODECS][1:])
def test_a_bomb_is_stepped_over_in_little_memory(codec: int) -> None:
    """It unpacks to 200 MiB, and is one record of the batch without its value; what lies before and behind it is read."""
    data = bomb(codec, 200)
    found, end, peak = peak_of(batch(TEN), data, batch(TEN, base=20))
    assert [each.offset for each in found] == [*range(11), *range(20, 30)]
    large = found[10]
    assert isinstance(large, TooLarge)
    assert (large.what, large.key, large.value, large.headers) == ("batch: more than 33554432 bytes", None, b"", ())
    assert end == 30
    assert peak < PEAK_BYTES


def test_blocks_of_the_java_client_are_counted_together() -> None:
    """Each of a snappy stream's blocks is small, and there is no end of them."""
    block = bytes(cramjam.snappy.compress_raw(bytes(MIB)))
    stream = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + (struct.pack(">i", len(block)) + block) * 300
    found, end, peak = peak_of(with_payload(batch(TEN), stream, 2, is_packed=True), batch(TEN, base=10))
    assert isinstance(found[0], TooLarge)
    assert (len(found), end) == (11, 20)
    assert peak < PEAK_BYTES


@pytest.mark.parametrize("codec", [1, 2, 3, 4], ids=[*CODECS][1:])
def test_a_record_beyond_the_limit_costs_itself_only(codec: int) -> None:
    """The limit of a record counts what is unpacked, with key and headers; its neighbours in the batch are read."""
    within = Content(b"k", bytes(MIB - 100))
    parts = [Content(b"k", bytes(MIB)), Content(bytes(MIB), b"v"), Content(b"k", b"v", [(b"h", bytes(MIB))])]
    found, end = read(batch([TEN[0], *parts, within, TEN[5]], codec=codec))
    assert [type(each) for each in found] == [ConsumerRecord, *[TooLarge] * 3, ConsumerRecord, ConsumerRecord]
    assert [len(each.value or b"") for each in found] == [2, 0, 0, 0, MIB - 100, 2]
    assert [each.what.split(":")[0] for each in found if isinstance(each, TooLarge)] == ["record"] * 3
    assert end == 6


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_record_of_nothing_but_headers_is_too_large(codec: int) -> None:
    """A header of two bytes takes a hundred once it is read."""
    contents = [TEN[0], Content(b"k", b"v", [(b"", None)] * 400_000), TEN[2]]
    found, _ = read(batch(contents, codec=codec))
    assert [type(each) for each in found] == [ConsumerRecord, TooLarge, ConsumerRecord]
    assert isinstance(found[1], TooLarge)
    assert (found[1].what, found[1].headers) == ("record: 400000 headers", ())


def test_a_batch_of_too_many_records_is_stepped_over() -> None:
    """A million records of nothing fit into a kilobyte, and each would be parked by itself."""
    many = batch([Content(None, None)] * (records.RECORDS_MAX + 1), codec=4)
    found, end = read(many, batch(TEN, base=records.RECORDS_MAX + 1))
    assert isinstance(found[0], TooLarge)
    assert found[0].what == "batch: 65537 records"
    assert (len(found), end) == (11, records.RECORDS_MAX + 11)


def test_what_was_stepped_over_does_not_come_again() -> None:
    """Who reads on behind the record that stands for a batch gets what is behind the batch."""
    data = with_payload(batch(TEN), bytes(records.UNPACKED_BYTES_MAX + 1), 4)
    assert [each.offset for each in read(data, batch(TEN, base=10), at=1)[0]] == list(range(10, 20))


@pytest.mark.parametrize("codec", [1, 2, 3, 4], ids=[*CODECS][1:])
def test_a_large_batch_of_honest_records_is_read_whole(codec: int) -> None:
    """A client that lingers puts many records into a batch; they come in several fetches, each once and in order."""
    contents = [Content(b"k%d" % number, bytes([number]) * 100_000, GOOD) for number in range(150)]
    data = batch(contents, codec=codec) + batch(TEN, base=150)
    values: list[bytes | None] = []
    at = fetches = 0
    while at < 160:
        found, end = read(data, at=at)
        assert [each.offset for each in found] == list(range(at, end))
        assert sum(len(each.value or b"") for each in found) < records.GIVEN_BYTES_MAX + MIB
        values += [each.value for each in found]
        at, fetches = end, fetches + 1
    assert values == [each.value for each in contents + TEN]
    assert fetches == 4


def test_a_fetch_unpacks_bombs_until_it_has_enough() -> None:
    """Of a hundred bombs in one fetch one takes its turn at a time; none is passed over."""
    data = with_payload(batch(TEN[:1]), bytes(records.UNPACKED_BYTES_MAX + 1), 4)
    bombs = [struct.pack(">q", number) + data[8:] for number in range(5)]
    for number in range(5):
        found, end = read(*bombs[number:], at=number)
        assert [each.offset for each in found] == [number]
        assert end == number + 1


def test_old_formats_are_not_unpacked() -> None:
    """Records of before Kafka 0.11 have no headers, so that none of them is an event, and the client unpacks them without end."""
    builder = LegacyRecordBatchBuilder(1, 1, 1 << 30)
    builder.append(0, timestamp=0, key=b"k", value=bytes(200 * MIB))
    found, _, peak = peak_of(bytes(builder.build()), batch(TEN, base=1))
    assert isinstance(found[0], UnreadableRecord)
    assert len(found) == 11
    assert peak < PEAK_BYTES


def test_one_consumer_reads_this_way_and_others_of_the_process_as_before() -> None:
    """The program around the kit may have consumers of its own."""
    one, other = (SimpleNamespace(_fetcher=object.__new__(fetcher.Fetcher)) for _ in range(2))
    records.install_on(one)
    assert one._fetcher._proc_fetch_request.__func__.__globals__["PartitionRecords"] is PartitionRecords
    assert "_proc_fetch_request" not in vars(other._fetcher)


@pytest.mark.parametrize("topic", [REQUESTS, DSR_REQUESTS], ids=["open", "sensitive"])
def test_a_record_that_is_too_large_is_parked_without_its_value(topic: Topic) -> None:
    """The reason and the size are kept, under its place; nothing of what it held."""
    record = TooLarge(topic.name, 2, 77, 0, 0, None, b"", None, -1, 0, (), "record: 2000000 bytes")
    stored = take(record, topic, frozenset(), PROTECTOR)
    assert stored is not None
    assert stored.defect == Defect(ParkReason.TOO_LARGE, "record: 2000000 bytes")
    assert (stored.partition, stored.offset, stored.type) == (2, 77, "unreadable")
    assert (PROTECTOR.open(stored.value, stored.event_id.bytes) if topic.sealed else stored.value) == b""
