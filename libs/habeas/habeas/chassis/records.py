"""Records out of what a broker sends, whatever their producer put into them.

A broker looks only at the frame of what it stores: a header whose name is no text, a compressed batch that does not open, or that grows
without end, are kept and handed to every consumer. The client raises for them; what it had read before is then lost, or the same record
comes again for ever. Here such a record comes out as an ``UnreadableRecord`` in its place among the others, to be parked like any other
bad input: no fetch raises for what a record holds.

Nor does one take more memory or time than is bounded here: a topic's limit counts compressed bytes, and a few kilobytes unpack to any size.
What is larger comes out as ``TooLarge``, without its value. This module stands alone, so that the kit reads with it as well.
"""

import gzip
import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

import cramjam
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.util import decode_varint
from typing_extensions import override

from habeas.contracts.topics import MESSAGE_BYTES_MAX

if TYPE_CHECKING:
    from aiokafka.record._protocols import (
        DefaultRecordBatchProtocol,
        DefaultRecordProtocol,
        LegacyRecordBatchProtocol,
        LegacyRecordProtocol,
    )

RECORD_BYTES_MAX: Final = MESSAGE_BYTES_MAX
"""How large a record may be, with key, headers and frame, however it was compressed; uncompressed, the topic takes no larger one."""

UNPACKED_BYTES_MAX: Final = 32 * 1024 * 1024
"""How large a compressed batch may become. On the wire it has 1 MiB at most; JSON with ids and signatures in it packs to a tenth, never
to a thirtieth."""

RECORDS_MAX: Final = 65_536
"""How many records a batch may hold: each event has an id of its own, and of 16 random bytes no codec packs more into 1 MiB."""

HEADERS_MAX: Final = 1_000
"""How many headers a record may have: an empty one takes two bytes there, and fifty times as many here."""

GIVEN_BYTES_MAX: Final = 4 * 1024 * 1024
"""After so many bytes of records a partition's part of a fetch ends; what is behind them is fetched again. Uncompressed they are 1 MiB."""

_LENGTH_AT: Final = 8
_FRAME_BYTES: Final = 12  # offset and length
_MAGIC_AT: Final = 16
_ATTRIBUTES_AT: Final = 21
_LAST_AT: Final = 23
_COUNT_AT: Final = 57
_HEAD_BYTES: Final = 61
_HEAD_BYTES_V0: Final = 26
_MARK_BYTES_MAX: Final = 1_024
_ONE: Final = struct.pack(">i", 1)
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


@dataclass
class TooLarge(UnreadableRecord):
    """A record, or a whole batch, beyond what is read; ``what`` says which of the two and how large, ``value`` is empty."""

    what: str = "record"


class _Beyond(ValueError):
    """A batch grows beyond ``UNPACKED_BYTES_MAX``."""


def install() -> None:
    """Let every consumer that aiokafka makes in this process read records this way; may be called again."""
    fetcher.MemoryRecords = Batches
    fetcher.PartitionRecords = PartitionRecords


def install_on(consumer: AIOKafkaConsumer) -> None:
    """Let one consumer read records this way, and leave the others of the process as they are.

    For a consumer that is started and not subscribed yet: afterwards it may have fetched already.
    """
    own: Any = consumer._fetcher  # noqa: SLF001 -- the client has no parameter for its parser
    theirs = fetcher.Fetcher._proc_fetch_request  # noqa: SLF001 -- which names the parser
    names = {**theirs.__globals__, "MemoryRecords": Batches, "PartitionRecords": PartitionRecords}
    ours = FunctionType(theirs.__code__, names, theirs.__name__, theirs.__defaults__, theirs.__closure__)
    own._proc_fetch_request = MethodType(ours, own)  # noqa: SLF001 -- the same


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

    With ``read_committed`` the records of aborted transactions are passed over; marks of transactions always are. It ends early, with
    ``next_fetch_offset`` behind what it gave, once that and what was unpacked for it are much: the rest comes with another fetch.
    """

    next_fetch_offset: int
    _given_bytes: int = 0
    _unpacked_bytes: int = 0
    _altered: ClassVar[dict[TopicPartition, tuple[int, int]]] = {}  # where a batch had a wrong sum, and how often

    @override
    def _unpack_records(self) -> "Iterator[ConsumerRecord[bytes, bytes]]":
        while self._records.has_next() and not self._is_full():
            data = self._records.next_batch()
            if self._unpacked_bytes >= UNPACKED_BYTES_MAX and _codec_of(data):
                return
            batch = self._whole(data)
            if batch is None:
                if self._comes_again():
                    return
                yield self._unreadable(self.next_fetch_offset, data)
            elif not self._is_passed(batch, data):
                for record in self._of(batch, data):
                    yield record
                    if self._is_full() and self.next_fetch_offset < _end_offset(data):
                        return
            # A batch keeps the offset of its last record when that is compacted away: the next fetch must ask for what is behind it.
            self.next_fetch_offset = max(self.next_fetch_offset, _end_offset(data))

    def _is_full(self) -> bool:
        return self._given_bytes >= GIVEN_BYTES_MAX

    def _whole(self, data: bytes) -> "Batch | None":
        """Give a batch; None when its bytes are not those that were written."""
        try:
            batch = DefaultRecordBatch(data) if data[_MAGIC_AT] >= _V2 else LegacyRecordBatch(data, data[_MAGIC_AT])
            return batch if not self._check_crcs or batch.validate_crc() else None
        except Exception:  # noqa: BLE001 -- whatever the client raises for a head, the batches behind it are read
            return None

    def _is_passed(self, batch: Batch, data: bytes) -> bool:
        """Answer whether a batch has nothing to read: a mark, or what an aborted transaction left (KIP-98)."""
        if self._isolation_level == fetcher.READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if _is_abort(batch, data):
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
        """Give the records of one batch; each by itself once one cannot be parsed or may be too large, the whole when it is too large."""
        is_packed = bool(_codec_of(data))
        if _is_old(data) and is_packed:
            # The client would unpack it without end; and records of that format have no headers: none of them is an event.
            yield from self._whole_of(data)
            return
        if (count := _count_of(data)) > RECORDS_MAX:
            yield from self._whole_of(data, f"batch: {count} records")
            return
        try:
            if is_packed:
                data = self._unpack(data)
                batch = DefaultRecordBatch(data)
            if len(data) <= RECORD_BYTES_MAX or _is_old(data):
                for record in batch:
                    if record.offset >= self.next_fetch_offset:
                        yield self._found(record)
                self._given_bytes += len(data)
                return
        except _Beyond:
            yield from self._whole_of(data, f"batch: more than {UNPACKED_BYTES_MAX} bytes")
            return
        except Exception:  # noqa: BLE001, S110 -- client and codecs fail in many ways, and every record has to come out all the same
            pass
        if _is_old(data) or _codec_of(data):
            yield from self._whole_of(data)
        else:
            yield from self._one_by_one(data)

    def _whole_of(self, data: bytes, what: str | None = None) -> "Iterator[ConsumerRecord[bytes, bytes]]":
        """Give a batch as one record that is unreadable, or too large in this respect; nothing when its place was passed already."""
        (base,) = struct.unpack_from(">q", data)
        if base >= self.next_fetch_offset:
            yield self._unreadable(base, data[_HEAD_BYTES:]) if what is None else self._too_large(base, what)

    def _unpack(self, data: bytes) -> bytes:
        """Give a batch without its compression; what that took is counted, whether or not it succeeds."""
        self._unpacked_bytes += len(data)
        try:
            plain = _plain(data)
        except _Beyond:
            self._unpacked_bytes += UNPACKED_BYTES_MAX
            raise
        self._unpacked_bytes += len(plain)
        return plain

    def _one_by_one(self, data: bytes) -> "Iterator[ConsumerRecord[bytes, bytes]]":
        """Give the rest of an unpacked batch record by record."""
        for offset, at, end in _split(data):
            if offset < self.next_fetch_offset:
                continue
            if end - at > RECORD_BYTES_MAX:
                yield self._too_large(offset, f"record: {end - at} bytes")
                continue
            try:
                (record,) = DefaultRecordBatch(data[:_COUNT_AT] + _ONE + data[at:end])
                found = self._found(record)
            except Exception:  # noqa: BLE001 -- this is the one
                yield self._unreadable(offset, data[at:end])
                continue
            self._given_bytes += end - at
            yield found

    def _found(self, record: "DefaultRecordProtocol | LegacyRecordProtocol") -> "ConsumerRecord[bytes, bytes]":
        """Give one that the client has parsed."""
        if (headers := len(record.headers)) > HEADERS_MAX:
            return self._too_large(record.offset, f"record: {headers} headers")
        found = self._consumer_record(self._tp, record)
        self.next_fetch_offset = record.offset + 1
        return found

    def _unreadable(self, offset: int, value: bytes) -> UnreadableRecord:
        if len(value) > RECORD_BYTES_MAX + _HEAD_BYTES:
            return self._too_large(offset, f"record: {len(value)} bytes")
        self.next_fetch_offset = offset + 1
        self._given_bytes += len(value)
        place = (self._tp.topic, self._tp.partition, offset)
        return UnreadableRecord(*place, 0, 0, None, value, None, -1, len(value), ())

    def _too_large(self, offset: int, what: str) -> TooLarge:
        self.next_fetch_offset = offset + 1
        return TooLarge(self._tp.topic, self._tp.partition, offset, 0, 0, None, b"", None, -1, 0, (), what)


def _is_old(data: bytes) -> bool:
    """Answer whether a batch is of a format before Kafka 0.11."""
    return data[_MAGIC_AT] < _V2 or len(data) < _HEAD_BYTES


def _codec_of(data: bytes) -> int:
    """Give the number of the codec by which a batch is compressed; 0 for none."""
    if _is_old(data):
        return data[_MAGIC_AT + 1] & _CODEC_MASK
    return int(struct.unpack_from(">h", data, _ATTRIBUTES_AT)[0]) & _CODEC_MASK


def _count_of(data: bytes) -> int:
    """Give how many records a batch says that it holds."""
    return 1 if _is_old(data) else int(struct.unpack_from(">i", data, _COUNT_AT)[0])


def _end_offset(data: bytes) -> int:
    """Give the offset behind a batch."""
    (base,) = struct.unpack_from(">q", data)
    last = 0 if _is_old(data) else struct.unpack_from(">i", data, _LAST_AT)[0]
    return int(base) + last + 1


def _is_abort(batch: Batch, data: bytes) -> bool:
    """Answer whether a batch is the mark that a transaction was taken back; only brokers write marks, small and not compressed."""
    if not batch.is_control_batch or len(data) > _MARK_BYTES_MAX or _codec_of(data):
        return False
    try:
        return bool(ControlRecord.parse(next(iter(batch)).key) == ABORT_MARKER)
    except Exception:  # noqa: BLE001 -- it is no mark of this or that kind, whatever the client raises for it
        return False


def _plain(data: bytes) -> bytes:
    """Give a batch as it would be without compression. Raises ``ValueError``, or what a codec raises."""
    (attributes,) = struct.unpack_from(">h", data, _ATTRIBUTES_AT)
    plain = struct.pack(">h", attributes & ~_CODEC_MASK)
    return b"".join((data[:_ATTRIBUTES_AT], plain, data[_ATTRIBUTES_AT + 2 : _HEAD_BYTES], _unpacked(data)))


def _split(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Give where each record of a batch lies: offset, begin, end; the rest as one where no end of a record is to be found."""
    (base,) = struct.unpack_from(">q", data)
    offset, at = base - 1, _HEAD_BYTES
    for _ in range(_count_of(data)):
        try:
            length, start = decode_varint(data, at)
            end = start + length
            if not start < end <= len(data):
                raise ValueError(length)
            _, delta_at = decode_varint(data, start + 1)  # behind the attributes: how much later than the first
            offset = base + decode_varint(data, delta_at)[0]
        except (ValueError, IndexError):
            offset, end = offset + 1, len(data)
        yield offset, at, end
        at = end
        if at == len(data):
            return


def _unpacked(data: bytes) -> bytes | bytearray:
    """Give the records of a compressed batch. Raises ``_Beyond`` when they are too large, ``ValueError``, or what a codec raises."""
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


def _grown(unpack: Callable[[bytes, bytearray], int], packed: bytes) -> bytearray:
    """Unpack into room that grows as long as it is too small."""
    room = max(_FIRST_ROOM_BYTES, len(packed) * _GROWTH)
    while True:
        buffer = bytearray(min(room, UNPACKED_BYTES_MAX))
        try:
            del buffer[unpack(packed, buffer) :]
        except cramjam.DecompressionError as error:
            if _TOO_SMALL not in str(error):
                raise
            if room >= UNPACKED_BYTES_MAX:
                raise _Beyond from None
        else:
            return buffer
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
        raise _Beyond
