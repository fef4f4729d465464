"""Record batches as they lie in Kafka, made by hand: with what no client library lets anybody write."""

import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.errors import for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c, encode_varint

CODECS: Final = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
NOW_MS: Final = 1_764_000_000_000

_HEAD_BYTES: Final = 61
_AT_A_TIME_MS: Final = 30_000

Header = tuple[bytes, bytes | None]


class Content(NamedTuple):
    """What one record says; names of headers are bytes, as they are on the wire."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()
    later_ms: int = 0


def batch(
    contents: Sequence[Content],
    *,
    base: int = 0,
    codec: int = 0,
    producer: int = -1,
    is_transactional: bool = False,
    now_ms: int = NOW_MS,
) -> bytes:
    """Give a batch in the form of Kafka's message format 2 (the documentation's section 5.3)."""
    payload = b"".join(_record(delta, content) for delta, content in enumerate(contents))
    empty = bytes(DefaultRecordBatchBuilder(2, 0, int(is_transactional), producer, 0, 0, 1 << 16).build())
    last = max(len(contents) - 1, 0)
    latest_ms = now_ms + max((each.later_ms for each in contents), default=0)
    head = (
        struct.pack(">q", base)
        + empty[8:23]
        + struct.pack(">iqq", last, now_ms, min(latest_ms, 2**63 - 1))
        + empty[43:57]
        + struct.pack(">i", len(contents))
    )
    return with_payload(head, payload, codec)


def _record(delta: int, content: Content) -> bytes:
    body = bytearray(b"\0")
    for number in (content.later_ms, delta):
        encode_varint(number, body.append)
    for part in (content.key, content.value):
        _bytes(body, part)
    encode_varint(len(content.headers), body.append)
    for name, value in content.headers:
        _bytes(body, name)
        _bytes(body, value)
    length = bytearray()
    encode_varint(len(body), length.append)
    return bytes(length + body)


def _bytes(body: bytearray, part: bytes | None) -> None:
    encode_varint(-1 if part is None else len(part), body.append)
    body += part or b""


def pack(payload: bytes, codec: int) -> bytes:
    """Compress as Kafka's codec of this number does."""
    encode = {0: bytes, 1: gzip_encode, 2: snappy_encode, 3: lz4_encode, 4: zstd_encode}[codec]
    return bytes(encode(payload))


def with_payload(data: bytes, payload: bytes, codec: int, *, is_packed: bool = False) -> bytes:
    """Give a batch with the head of another and these records, compressed unless they are already."""
    packed = payload if is_packed else pack(payload, codec)
    (attributes,) = struct.unpack_from(">h", data, 21)
    head = data[:8] + struct.pack(">i", 49 + len(packed)) + data[12:21] + struct.pack(">h", attributes & ~7 | codec)
    return with_sum(head + data[23:_HEAD_BYTES] + packed)


def with_sum(data: bytes) -> bytes:
    """Give a batch with the sum that its bytes have: what a broker checks first."""
    return data[:17] + struct.pack(">I", calc_crc32c(data[21:])) + data[21:]


def mark(base: int, producer: int, *, is_commit: bool) -> bytes:
    """Give the mark that ends a transaction (KIP-98): a control batch with one record."""
    content = Content(struct.pack(">hh", 0, int(is_commit)), struct.pack(">hi", 0, 0))
    data = batch([content], base=base, producer=producer, is_transactional=True)
    return with_sum(data[:21] + struct.pack(">h", 0x30) + data[23:])


class Wire:
    """Sends batches to a broker as they are."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", request_timeout_ms=_AT_A_TIME_MS)

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._producer.stop()

    async def send(self, topic: str, partition: int, data: bytes) -> int:
        """Send one batch; give the offset of its first record. Raises what stands for the broker's refusal (``KafkaError``)."""
        client: Any = self._producer.client
        await self._producer.partitions_for(topic)
        place = TopicPartition(topic, partition)
        while (leader := client.cluster.leader_for_partition(place)) in (None, -1):
            await client.force_metadata_update()  # partitions that were just added have no leader at first
        request = ProduceRequest(None, -1, _AT_A_TIME_MS, [(topic, [(partition, data)])])
        response = await client.send(leader, request)
        ((_, ((_, code, offset, *_),)),) = response.topics
        if code:
            raise for_code(code)
        return int(offset)
