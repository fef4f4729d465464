"""One export as a ZIP: JSON and CSV of every table, an information sheet, a manifest; encrypted as it is written.

Nothing of it is ever on a disk in clear. Rows wait until all of them are there, and only then become a ZIP: the store's snapshot is over by
then, however long packing takes. What is more than fits into memory waits in a scratch file without a name, sealed under a key that only
this object has; writing it costs next to nothing beside reading the rows.
"""

import hashlib
import io
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import IO, Any, BinaryIO, Final, cast
from uuid import UUID

import orjson
from typing_extensions import override

from export_builder.errors import Stopped
from export_builder.gateways.values import BOM, converters, csv_lines, json_lines, numbers
from habeas.contracts.outcomes import ExportedTable
from habeas.datamap.planner import ExportPlan
from habeas.datamap.postgres import Row
from habeas.sealing.artefact import ArtefactCipher

_HELD_CHARACTERS_MAX: Final = 256 * 1024
_BUFFER_BYTES: Final = 256 * 1024
_STORED_BYTES_MAX: Final = 512  # setting up a compressor costs more than so few bytes are worth
_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)
"""A ZIP knows no earlier time; entries carry none, so that equal content is equal."""

README: Final = b"""\
What these files are
====================

tables/STORE.TABLE.json   every row of a table that is about you, for programs
tables/STORE.TABLE.csv    the same rows for spreadsheets
information.json          why your data is processed, who receives it, how long it is kept, and your rights
manifest.json             every table with its columns, their types, and what is held and not shown

JSON (UTF-8)
    A value stands as a number, true, false, an array or an object where common programs read it without a loss. Every other value is a
    string: the text that PostgreSQL, where it was stored, writes for it and reads back as the same value. The manifest tells each column's
    type. In columns of type json and jsonb a string is always such a text; read it as JSON once more. null means: no value.

CSV (RFC 4180, comma, UTF-8 with a byte order mark)
    Every value stands in quotes; nothing at all between two commas means: no value. Some programs would run a cell that begins with
    = + - @ or a tab or line break as a formula. Such a cell has an apostrophe (') in front, and so has a cell that begins with an
    apostrophe itself. To have the value as it was, take one apostrophe away from each cell that begins with one. Numbers in columns of
    numbers have none.
"""


class Form:
    """What the archives of a batch have in common about one source: names, and what stands there when it holds nothing."""

    def __init__(self, store: str, source: ExportPlan) -> None:
        name = f"tables/{store}.{source.table}"
        self.store = store
        self.source = source
        self.files = (f"{name}.json", f"{name}.csv")
        self._converters = converters(source.bases)
        self._numeric = numbers(source.bases)
        self._header = BOM + csv_lines([source.columns], frozenset())
        self.empty = tuple(b"".join(chunks) for chunks in self.written([]))
        self.holds_nothing = self.holds(0)

    def holds(self, rows: int) -> ExportedTable:
        """Say how many rows were written."""
        return ExportedTable(store=self.store, table=self.source.table, category=self.source.category, rows=rows)

    def written(self, chunks: Iterable[Sequence[Row]]) -> tuple[Iterator[bytes], Iterator[bytes]]:
        """Write rows as the two files have them; ``chunks`` is gone through once for each."""
        return self._json(chunks), self._csv(chunks)

    def _json(self, chunks: Iterable[Sequence[Row]]) -> Iterator[bytes]:
        before = b"[\n"
        for rows in chunks:
            yield before + b",\n".join(json_lines(rows, self.source.columns, self._converters))
            before = b",\n"
        yield b"[\n]\n" if before == b"[\n" else b"\n]\n"

    def _csv(self, chunks: Iterable[Sequence[Row]]) -> Iterator[bytes]:
        yield self._header.encode()
        for rows in chunks:
            yield csv_lines(rows, self._numeric).encode()


class _Sink(io.RawIOBase):
    """Takes the ZIP's bytes on their way into the cipher and remembers their digest."""

    def __init__(self, path: Path, secret: bytes, export_id: UUID, stop: Event) -> None:
        super().__init__()
        self.digest = hashlib.sha256()
        self.writer = ArtefactCipher.encrypting_writer(path, secret, export_id.bytes)
        self._stop = stop
        self._is_given_up = False

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        if self._is_given_up:
            return len(view)
        if self._stop.is_set():
            self._is_given_up = True
            raise Stopped
        self.digest.update(view)
        return self.writer.write(view)

    def discard(self) -> None:
        """Take the rest and keep nothing: a ZIP that is given up still writes its end, at the latest when it is collected."""
        self._is_given_up = True
        self.writer.abort()


class _Zip(zipfile.ZipFile):
    """A ZIP that is made in memory, or one that is passed on as it grows.

    In memory the sizes of an entry stand before it. In a stream they stand behind it, and a reader that cannot seek finds the end of
    compressed entries only.
    """

    def __init__(self, target: "io.BytesIO | _Sink") -> None:
        super().__init__(cast("IO[bytes]", target), "w", zipfile.ZIP_DEFLATED, compresslevel=3)
        self._stored_bytes_max = _STORED_BYTES_MAX if target.seekable() else 0

    def put(self, name: str, content: bytes) -> None:
        """Add a whole entry."""
        is_stored = len(content) <= self._stored_bytes_max
        self.writestr(_info(name), content, zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED)

    def pour(self, name: str, chunks: Iterable[bytes]) -> None:
        """Add an entry of any size."""
        with self.open(_info(name), "w", force_zip64=True) as target:
            for chunk in chunks:
                target.write(chunk)


class _Spool:
    """Rows in a scratch file under a throw-away key. It has no name, so nothing is left of it once it is closed, or its process dead."""

    def __init__(self, directory: Path) -> None:
        self._file = cast("BinaryIO", tempfile.TemporaryFile(dir=directory))  # noqa: SIM115 -- closed by `drop`
        self._key = ArtefactCipher.new_key()
        self._writer = ArtefactCipher.encrypting_writer(self._file, self._key, b"spool")
        self._is_whole = False

    def add(self, rows: Iterable[Row]) -> None:
        self._writer.write(b"".join([orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows]))

    def __iter__(self) -> Iterator[list[Row]]:
        """Give all rows again; none can be added any more."""
        if not self._is_whole:
            self._writer.close()
            self._is_whole = True
        self._file.seek(0)
        reader = ArtefactCipher.decrypting_reader(self._file, self._key, b"spool")
        with io.BufferedReader(reader, _BUFFER_BYTES) as lines:
            chunk: list[Row] = []
            held = 0
            for line in lines:
                chunk.append(orjson.loads(line))
                held += len(line)
                if held > _HELD_CHARACTERS_MAX:
                    yield chunk
                    chunk, held = [], 0
            if chunk:
                yield chunk

    def drop(self) -> None:
        if not self._is_whole:
            self._writer.abort()
            self._is_whole = True
        self._file.close()


class _Table:
    """The rows of one table: all of them in memory, or, once there were too many, in a scratch file."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.count = 0
        self._rows: list[Row] = []
        self._spool: _Spool | None = None

    def add(self, rows: Sequence[Row]) -> None:
        self._rows += rows
        self.count += len(rows)

    def spill(self, directory: Path) -> None:
        """Move what is in memory into the scratch file; more may come."""
        if self._rows:
            self._spool = self._spool or _Spool(directory)
            rows, self._rows = self._rows, []
            self._spool.add(rows)

    def close(self, archive: _Zip, directory: Path) -> None:
        """Write both files; the scratch file goes."""
        if self._spool is None:
            for name, chunks in zip(self.form.files, self.form.written([self._rows]), strict=True):
                archive.put(name, b"".join(chunks))
            return
        self.spill(directory)
        for name, chunks in zip(self.form.files, self.form.written(self._spool), strict=True):
            archive.pour(name, chunks)
        self.drop()

    def drop(self) -> None:
        if self._spool is not None:
            self._spool.drop()


class Archive:
    """The artefact of one export while it is made; it appears at its path only when it is closed.

    While a thread closes it, ``stop`` makes that end soon; nothing else may be done with it meanwhile.
    """

    def __init__(self, path: Path, secret: bytes, export_id: UUID, stop: Event) -> None:
        self._path = path
        self._secret = secret
        self._export_id = export_id
        self._stop = stop
        self._sink: _Sink | None = None
        self._forms: list[Form] = []
        self._tables: dict[Form, _Table] = {}
        self._held = 0
        self._is_large = False

    @property
    def plain_sha256(self) -> str:
        """Return the digest of the ZIP before encryption; final once the archive is closed."""
        return self._opened().digest.hexdigest()

    @property
    def is_full(self) -> bool:
        """Whether so much waits in memory that it should be spilled."""
        return self._held > _HELD_CHARACTERS_MAX

    def expect(self, form: Form) -> None:
        """Name a source: it will be in the archive, with no rows when none come."""
        self._forms.append(form)

    def add(self, form: Form, rows: Sequence[Row]) -> None:
        """Add rows. Keeps them in memory."""
        if form not in self._tables:
            self._tables[form] = _Table(form)
        self._tables[form].add(rows)
        self._held += sum(len(value) for row in rows for value in row if value is not None)

    def spill(self) -> None:
        """Move what waits in memory into scratch files."""
        for table in self._tables.values():
            table.spill(self._path.parent)
        self._is_large = True
        self._held = 0

    def close(self, request_id: UUID, sheet: bytes) -> tuple[ExportedTable, ...]:
        """Pack, encrypt, and put the artefact at its path; return the tables with their rows."""
        sink = self._opened()
        if self._is_large:
            self._pack(_Zip(sink), request_id, sheet)
        else:
            whole = io.BytesIO()
            self._pack(_Zip(whole), request_id, sheet)
            sink.write(whole.getbuffer())
        sink.writer.close()
        return tuple(
            form.holds(self._tables[form].count) if form in self._tables else form.holds_nothing for form in self._forms
        )

    def abort(self) -> None:
        """Give up: nothing appears at the path, scratch files go; after closing it changes nothing."""
        if self._sink is not None:
            self._sink.discard()
        for table in self._tables.values():
            table.drop()

    def _pack(self, archive: _Zip, request_id: UUID, sheet: bytes) -> None:
        archive.put("README.txt", README)
        for form in self._forms:
            if form in self._tables:
                self._tables[form].close(archive, self._path.parent)
            else:
                for name, content in zip(form.files, form.empty, strict=True):
                    archive.put(name, content)
        archive.put("information.json", sheet)
        archive.put("manifest.json", json_of(self._manifest(request_id)))
        archive.close()

    def _opened(self) -> _Sink:
        if self._sink is None:
            self._sink = _Sink(self._path, self._secret, self._export_id, self._stop)
        return self._sink

    def _manifest(self, request_id: UUID) -> Mapping[str, Any]:
        return {
            "format": "habeas-export/2",
            "export_id": str(self._export_id),
            "request_id": str(request_id),
            "tables": [
                {
                    "store": form.store,
                    "table": form.source.table,
                    "category": form.source.category,
                    "rows": self._tables[form].count if form in self._tables else 0,
                    "files": form.files,
                    "columns": form.source.columns,
                    "types": form.source.types,
                    "held_but_not_shown": form.source.named,
                }
                for form in self._forms
            ],
        }


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EARLIEST)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o600 << 16
    return info


def json_of(value: Mapping[str, Any]) -> bytes:
    """Render a document that people read, too: indented, keys in their order, UTF-8."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    return orjson.dumps(value, default=str, option=options)
