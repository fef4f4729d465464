"""Records out of what a broker sends, whatever their producer put into them.

A broker looks only at the frame of what it stores: a header whose name is no text, a compressed batch that does not open, or that grows
without end, are kept and handed to every consumer. The client raises for them; what it had read before is then lost, or the same record
comes again for ever. Here such a record comes out as an ``UnreadableRecord`` in its place among the others, to be parked like any other
bad input: no fetch raises for what a record holds.
"""

import gzip
import io
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

import cramjam
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.util import decode_varint
from typing_extensions import override

if TYPE_CHECKING:
    from aiokafka.record._protocols import DefaultRecordBatchProtocol, LegacyRecordBatchProtocol

UNPACKED_BYTES_MAX: Final = 256 * 1024 * 1024
"""How large a compressed batch may become: a batch on the wire has about 1 MiB, but a bomb unpacks to any size."""

_LENGTH_AT: Final = 8
_FRAME_BYTES: Final = 12  # offset and length
_MAGIC_AT: Final = 16
_ATTRIBUTES_AT: Final = 21
_LAST_AT: Final = 23
_COUNT_AT: Final = 57
_HEAD_BYTES: Final = 61
_HEAD_BYTES_V0: Final = 26
_V2: Final = 2
_CODEC_MASK: Final = 0x07
_XERIAL: Final = b"\x82SNAPPY\x00"
_XERIAL_HEAD_BYTES: Final = 16
_FIRST_ROOM_BYTES: Final = 64 * 1024
_GROWTH: Final = 8
_TOO_SMALL: Final = "whole buffer"  # in the codec's words for that
_REFETCHES_MAX: Final = 3  # bytes altered on the way are right the next time, those altered on a disk never are


class UnreadableRecord(ConsumerRecord[bytes, bytes]):
    """A record, or a whole batch of them, that cannot be parsed; ``value`` holds its bytes, there is no key and no header."""


def install() -> None:
    """Let every consumer that aiokafka makes in this process read records this way; may be called again."""
    fetcher.MemoryRecords = Batches
    fetcher.PartitionRecords = PartitionRecords


class Batches:
    """The batches in one partition's part of a fetch response; one that the broker cut off at the end is left out."""

    def __init__(self, data: bytes | None) -> None:
        self._data = data or b""
        self._at = 0
        self._end = self._next_end()

    def size_in_bytes(self) -> int:
        """Give the size of all of them."""
        return len(self._data)

    def has_next(self) -> bool:
        """Answer whether there is another one."""
        return self._end > self._at

    def next_batch(self) -> bytes:
        """Give the next one, with its head."""
        batch = self._data[self._at : self._end]
        self._at = self._end
        self._end = self._next_end()
        return batch

    def _next_end(self) -> int:
        """Give where the next batch ends; its beginning when there is no whole one."""
        if len(self._data) - self._at < _HEAD_BYTES_V0:
            return self._at
        (length,) = struct.unpack_from(">i", self._data, self._at + _LENGTH_AT)
        end: int = self._at + _FRAME_BYTES + length
        return end if self._at + _HEAD_BYTES_V0 <= end <= len(self._data) else self._at


Batch: TypeAlias = "DefaultRecordBatchProtocol | LegacyRecordBatchProtocol"


class PartitionRecords(fetcher.PartitionRecords):
    """The records of one partition's part of a fetch response, in order; iterating never raises.

    With ``read_committed`` the records of aborted transactions are passed over; marks of transactions always are.
    """

    next_fetch_offset: int
    _altered: ClassVar[dict[TopicPartition, tuple[int, int]]] = {}  # where a batch had a wrong sum, and how often

    @override
    def _unpack_records(self) -> "Iterator[ConsumerRecord[bytes, bytes]]":
        while self._records.has_next():
            data = self._records.next_batch()
            batch = self._whole(data)
            if batch is None:
                if self._comes_again():
                    return
                yield self._unreadable(self.next_fetch_offset, data)
            elif not self._is_passed(batch):
                yield from self._of(batch, data)
            # A batch keeps the offset of its last record when that is compacted away: the next fetch must ask for what is behind it.
            self.next_fetch_offset = max(self.next_fetch_offset, _end_offset(data))

    def _whole(self, data: bytes) -> "Batch | None":
        """Give a batch; None when its bytes are not those that were written."""
        try:
            batch = DefaultRecordBatch(data) if data[_MAGIC_AT] >= _V2 else LegacyRecordBatch(data, data[_MAGIC_AT])
            return batch if not self._check_crcs or batch.validate_crc() else None
        except Exception:  # noqa: BLE001 -- whatever the client raises for a head, the batches behind it are read
            return None

    def _is_passed(self, batch: Batch) -> bool:
        """Answer whether a batch has nothing to read: a mark, or what an aborted transaction left (KIP-98)."""
        if self._isolation_level == fetcher.READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if _is_abort(batch):
                self._aborted_producers.discard(batch.producer_id)
            elif batch.is_transactional and batch.producer_id in self._aborted_producers:
                return True
        return bool(batch.is_control_batch)

    def _comes_again(self) -> bool:
        """Answer whether the batch that is not whole is worth another fetch."""
        offset = self.next_fetch_offset
        where, times = self._altered.get(self._tp, (offset, 0))
        times = times + 1 if where == offset else 1
        self._altered[self._tp] = (offset, times)
        return times <= _REFETCHES_MAX

    def _of(self, batch: Batch, data: bytes) -> "Iterator[ConsumerRecord[bytes, bytes]]":
        """Give the records of one batch; once one cannot be parsed, each by itself."""
        try:
            if data[_MAGIC_AT] >= _V2 and batch.compression_type:
                data = _plain(data)
                batch = DefaultRecordBatch(data)
            for record in batch:
                if record.offset >= self.next_fetch_offset:
                    found = self._consumer_record(self._tp, record)
                    self.next_fetch_offset = record.offset + 1
                    yield found
        except Exception:  # noqa: BLE001 -- client and codecs fail in many ways, and every record has to come out all the same
            yield from self._one_by_one(data)

    def _one_by_one(self, data: bytes) -> "Iterator[ConsumerRecord[bytes, bytes]]":
        """Give the rest of a batch record by record; as a whole when it could not be unpacked."""
        for offset, single in _split(data):
            if offset < self.next_fetch_offset:
                continue
            try:
                (record,) = DefaultRecordBatch(single)
                found = self._consumer_record(self._tp, record)
            except Exception:  # noqa: BLE001 -- this is the one
                yield self._unreadable(offset, single[_HEAD_BYTES:])
                continue
            self.next_fetch_offset = offset + 1
            yield found

    def _unreadable(self, offset: int, value: bytes) -> UnreadableRecord:
        self.next_fetch_offset = offset + 1
        place = (self._tp.topic, self._tp.partition, offset)
        return UnreadableRecord(*place, 0, 0, None, value, None, -1, len(value), ())


def _end_offset(data: bytes) -> int:
    """Give the offset behind a batch."""
    (base,) = struct.unpack_from(">q", data)
    is_old = data[_MAGIC_AT] < _V2 or len(data) < _HEAD_BYTES
    last = 0 if is_old else struct.unpack_from(">i", data, _LAST_AT)[0]
    return int(base) + last + 1


def _is_abort(batch: Batch) -> bool:
    """Answer whether a batch is the mark that a transaction was taken back; only brokers write marks."""
    return bool(batch.is_control_batch and ControlRecord.parse(next(iter(batch)).key) == ABORT_MARKER)


def _plain(data: bytes) -> bytes:
    """Give a batch as it would be without compression. Raises ``ValueError``, or what a codec raises."""
    (attributes,) = struct.unpack_from(">h", data, _ATTRIBUTES_AT)
    plain = struct.pack(">h", attributes & ~_CODEC_MASK)
    return data[:_ATTRIBUTES_AT] + plain + data[_ATTRIBUTES_AT + 2 : _HEAD_BYTES] + _unpacked(data)


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give each record of a batch with its offset, as a batch of its own; the rest as one where no end of a record is to be found."""
    (base,) = struct.unpack_from(">q", data)
    if data[_MAGIC_AT] < _V2 or struct.unpack_from(">h", data, _ATTRIBUTES_AT)[0] & _CODEC_MASK:
        yield base, data
        return
    (count,) = struct.unpack_from(">i", data, _COUNT_AT)
    head = data[:_COUNT_AT] + struct.pack(">i", 1)
    offset, at = base - 1, _HEAD_BYTES
    for _ in range(count):
        try:
            length, start = decode_varint(data, at)
            end = start + length
            if not start < end <= len(data):
                raise ValueError(length)
            _, delta_at = decode_varint(data, start + 1)  # behind the attributes: how much later than the first
            offset = base + decode_varint(data, delta_at)[0]
        except (ValueError, IndexError):
            offset, end = offset + 1, len(data)
        yield offset, head + data[at:end]
        at = end
        if at == len(data):
            return


def _unpacked(data: bytes) -> bytes:
    """Give the records of a compressed batch. Raises ``ValueError``, or what a codec raises."""
    (attributes,) = struct.unpack_from(">h", data, _ATTRIBUTES_AT)
    packed = data[_HEAD_BYTES:]
    match attributes & _CODEC_MASK:
        case 1:
            unpacked = gzip.GzipFile(fileobj=io.BytesIO(packed)).read(UNPACKED_BYTES_MAX + 1)
            _within(len(unpacked))
            return unpacked
        case 2:
            return _snappy(packed)
        case 3:
            return _grown(cramjam.lz4.decompress_into, packed)
        case 4:
            return _grown(cramjam.zstd.decompress_into, packed)
        case codec:
            message = f"no codec has the number {codec}"
            raise ValueError(message)


def _grown(unpack: Callable[[bytes, bytearray], int], packed: bytes) -> bytes:
    """Unpack into room that grows as long as it is too small."""
    room = max(_FIRST_ROOM_BYTES, len(packed) * _GROWTH)
    while True:
        buffer = bytearray(min(room, UNPACKED_BYTES_MAX))
        try:
            return bytes(memoryview(buffer)[: unpack(packed, buffer)])
        except cramjam.DecompressionError as error:
            if room >= UNPACKED_BYTES_MAX or _TOO_SMALL not in str(error):
                raise
        room *= _GROWTH


def _snappy(packed: bytes) -> bytes:
    """Unpack one raw block, or the stream of blocks that the Java client writes."""
    if not packed.startswith(_XERIAL):
        _within(cramjam.snappy.decompress_raw_len(packed))
        return bytes(cramjam.snappy.decompress_raw(packed))
    blocks: list[bytes] = []
    total, at = 0, _XERIAL_HEAD_BYTES
    while at < len(packed):
        (size,) = struct.unpack_from(">i", packed, at)
        block = packed[at + 4 : at + 4 + size]
        if size <= 0 or len(block) < size:
            raise ValueError(size)
        total += cramjam.snappy.decompress_raw_len(block)
        _within(total)
        blocks.append(bytes(cramjam.snappy.decompress_raw(block)))
        at += 4 + size
    return b"".join(blocks)


def _within(size: int) -> None:
    if size > UNPACKED_BYTES_MAX:
        raise ValueError(size)
