"""Looks for people in bytes: whatever was erased must not be readable in any topic, dump, log, trace or artefact.

A value is searched as it is and as the formats around it would write it: JSON escapes, percent and quoted-printable,
UTF-16, hex (PostgreSQL's bytea in a dump), base64 at its three alignments, and base64 in hex. Compressed Kafka batches and
gzip files are opened; a file that can't be opened is reported, since what was not read was not searched.
"""

import base64
import errno
import gzip
import json
import os
import quopri
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote, quote_plus

import cramjam
from ahocorasick_rs import BytesAhoCorasick
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import KafkaError

from habeas_demo.people import Person

_CHUNK_BYTES: Final = 16 * 1024 * 1024
_SHORTEST_BYTES: Final = 7
"""Shorter patterns would be met by chance; no value of a person is as short as that."""

_BATCH_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_BATCH_MAGIC: Final = 2
_LENGTH_COUNTS_FROM: Final = 12
_CODEC_BITS: Final = 0b111
_DECODERS: Final[dict[int, Callable[[bytes], bytes]]] = {
    1: gzip_decode,
    2: snappy_decode,
    3: lz4_decode,
    4: zstd_decode,
}


@dataclass(frozen=True, slots=True)
class Needle:
    """A value to look for; `repr` shows what kind of value it is and whose by position, never the value."""

    kind: str
    person: int
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Hit:
    """A value found: where, what kind, in which writing. The value itself is not repeated."""

    file: Path
    offset: int
    kind: str
    person: int
    form: str
    where: str = "file"
    """`file`, or what inside it was opened: then `offset` counts inside what was opened."""


@dataclass(slots=True)
class Scan:
    """What was searched and found. Only a scan without `hits` and without `unreadable` says that nobody is there."""

    files: int = 0
    searched_bytes: int = 0
    hits: list[Hit] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)


def needles_of(people: Iterable[Person]) -> list[Needle]:
    """Give every value by which a person could be recognised."""
    return [
        Needle(kind, person.index, value)
        for person in people
        for kind, value in (
            ("account id", person.account_id),
            ("e-mail", person.email),
            ("name", person.name),
            ("ip", person.ip),
            ("identity", person.clerk_user_id),
        )
    ]


def forms(value: str) -> dict[bytes, str]:
    """Give every writing of a value that is looked for, and its name; equal writings once."""
    plain = value.encode()
    writings: list[tuple[str, bytes]] = [
        ("plain", plain),
        ("lower case", value.lower().encode()),
        ("upper case", value.upper().encode()),
        ("JSON escape", json.dumps(value)[1:-1].encode()),
        ("JSON escape in JSON", json.dumps(json.dumps(value)[1:-1])[1:-1].encode()),
        ("percent", quote(value, safe="").encode()),
        ("percent", quote_plus(value).encode()),
        ("quoted-printable", quopri.encodestring(plain, header=True)),
        ("quoted-printable", quopri.encodestring(plain).removesuffix(b"=\n")),
        ("Latin-1", value.encode("latin-1", errors="ignore")),
        ("UTF-16", value.encode("utf-16-le")),
        ("UTF-16", value.encode("utf-16-be")),
        ("hex", plain.hex().encode()),
        ("hex", plain.hex().upper().encode()),
    ]
    for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
        for alignment in range(3):
            inside = _base64_inside(plain, alignment, alphabet)
            writings += [("base64", inside), ("base64 in hex", inside.hex().encode())]
    found: dict[bytes, str] = {}
    for name, pattern in writings:
        if len(pattern) >= _SHORTEST_BYTES:
            found.setdefault(pattern, name)
    return found


def _base64_inside(plain: bytes, alignment: int, encode: Callable[[bytes], bytes]) -> bytes:
    """The characters of base64 that this value alone decides, when so many bytes (modulo 3) stand before it."""
    whole = encode(bytes(alignment) + plain).rstrip(b"=")
    first = (0, 2, 3)[alignment]
    last = len(whole) - (1 if (alignment + len(plain)) % 3 else 0)
    return whole[first:last]


class Canary:
    """A search for many values at once; building it costs more than a small file, so keep it."""

    def __init__(self, needles: Sequence[Needle]) -> None:
        self._patterns: list[bytes] = []
        self._meanings: list[tuple[Needle, str]] = []
        for needle in needles:
            if len(needle.value.encode()) < _SHORTEST_BYTES:
                raise ValueError("a needle shorter than seven bytes would be met by chance")
            for pattern, form in forms(needle.value).items():
                self._patterns.append(pattern)
                self._meanings.append((needle, form))
        self._longest = max(map(len, self._patterns), default=1)
        self._automaton = BytesAhoCorasick(self._patterns)

    def scan(self, roots: Iterable[Path]) -> Scan:
        """Search files and directories (recursively, links not followed), whatever their names.

        A file that vanishes meanwhile is left out: servers delete what they no longer need.
        """
        scan = Scan()
        for path in _files(roots):
            try:
                self._scan_file(path, scan)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, EOFError, zlib.error, KafkaError, cramjam.DecompressionError):
                scan.unreadable.append(path)
        return scan

    def _scan_bytes(self, data: bytes, seen: int, base: int, note: Callable[[int, Needle, str], None]) -> None:
        """Search bytes of which the first `seen` were searched before; `note` is told offset, needle and form."""
        for pattern, start, end in self._automaton.find_matches_as_indexes(data, overlapping=True):
            if end > seen:
                note(base + start, *self._meanings[pattern])

    def _scan_file(self, path: Path, scan: Scan) -> None:
        def note(where: str, offset: int, needle: Needle, form: str) -> None:
            scan.hits.append(Hit(path, offset, needle.kind, needle.person, form, where))

        scan.files += 1
        with path.open("rb") as file:
            for start, end in _extents(file):
                file.seek(start)
                rest, base = b"", start
                while base + len(rest) < end and (chunk := file.read(min(_CHUNK_BYTES, end - base - len(rest)))):
                    data = rest + chunk
                    self._scan_bytes(data, len(rest), base, partial(note, "file"))
                    scan.searched_bytes += len(chunk)
                    rest = data[-(self._longest - 1) :] if self._longest > 1 else b""
                    base += len(data) - len(rest)
        for opened, content in _opened(path):
            self._scan_bytes(content, 0, 0, partial(note, opened))
            scan.searched_bytes += len(content)


def _files(roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        if not root.exists():
            raise FileNotFoundError(f"nothing to search at {root}")
        paths = sorted(root.rglob("*")) if root.is_dir() else [root]
        yield from (path for path in paths if path.is_file() and not path.is_symlink())


def _extents(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Give the written parts of a file; Kafka's indexes are megabytes of holes, which read as zeros and hold nothing."""
    size = os.fstat(file.fileno()).st_size
    if not hasattr(os, "SEEK_DATA"):
        yield 0, size
        return
    start = 0
    while start < size:
        try:
            start = os.lseek(file.fileno(), start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here to the end
                return
            raise
        end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        yield start, end
        start = end


def _opened(path: Path) -> Iterator[tuple[str, bytes]]:
    """Give what is compressed inside a file, opened."""
    with path.open("rb") as file:
        head = file.read(_BATCH_HEADER.size)
    if head[:2] == b"\x1f\x8b":
        yield "gzip", gzip.decompress(path.read_bytes())
    elif (
        ".log" in path.suffixes
        and len(head) > _LENGTH_COUNTS_FROM + 4
        and head[_LENGTH_COUNTS_FROM + 4] == _BATCH_MAGIC
    ):
        yield from (("Kafka batch", content) for content in _compressed_batches(path.read_bytes()))


def _compressed_batches(segment: bytes) -> Iterator[bytes]:
    """Open the compressed record batches of a Kafka segment (record batch format 2; zeros after the last are preallocated).

    Raises:
        ValueError: the segment does not follow the format, or a codec is unknown.
    """
    position = 0
    while position + _BATCH_HEADER.size <= len(segment):
        header = _BATCH_HEADER.unpack_from(segment, position)
        length, magic, attributes = header[1], header[3], header[5]
        if length == 0 and not any(segment[position:]):
            return
        if magic != _BATCH_MAGIC or length <= 0:
            raise ValueError("not a Kafka record batch of format 2")
        end = position + _LENGTH_COUNTS_FROM + length
        codec = attributes & _CODEC_BITS
        if codec and end <= len(segment):
            decode = _DECODERS.get(codec)
            if decode is None:
                raise ValueError("a Kafka record batch with an unknown codec")
            yield decode(segment[position + _BATCH_HEADER.size : end])
        position = end
