"""One export as a ZIP: JSON and CSV of every table, an information sheet, a manifest; encrypted as it is written.

Nothing of it is ever on a disk in clear. Rows of a small export wait in memory and become a ZIP when all of them are there. What is
more than fits goes into the ZIP as it comes; a ZIP has one open entry at a time, so the CSV form of a large table waits in memory, and
beyond a quarter of a mebibyte in a scratch file sealed under a key that only this object has.
"""

import csv
import hashlib
import io
import json
import secrets
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, cast
from uuid import UUID

import orjson
from typing_extensions import override

from habeas.contracts.outcomes import ExportedTable
from habeas.datamap.planner import ExportPlan
from habeas.sealing.artefact import ArtefactCipher, ArtefactWriter

_IN_MEMORY_BYTES_MAX: Final = 256 * 1024
_HELD_CHARACTERS_MAX: Final = 256 * 1024
_CHUNK_BYTES: Final = 256 * 1024
_STORED_BYTES_MAX: Final = 512  # setting up a compressor costs more than so few bytes are worth
_DECODER: Final = json.JSONDecoder()
_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)
"""A ZIP knows no earlier time; entries carry none, so that equal content is equal."""


class Form:
    """What the archives of a batch have in common about one source: names, and what stands there when it holds nothing."""

    def __init__(self, store: str, source: ExportPlan) -> None:
        name = f"tables/{store}.{source.table}"
        self.store = store
        self.source = source
        self.files = (f"{name}.json", f"{name}.csv")
        self.header = _csv([source.columns])
        self.empty = (b"[\n]\n", self.header)
        self.holds_nothing = self.holds(0)

    def holds(self, rows: int) -> ExportedTable:
        """Say how many rows were written."""
        return ExportedTable(store=self.store, table=self.source.table, category=self.source.category, rows=rows)


class _Sink(io.RawIOBase):
    """Takes the ZIP's bytes on their way into the cipher and remembers their digest."""

    def __init__(self, path: Path, secret: bytes, export_id: UUID) -> None:
        super().__init__()
        self.digest = hashlib.sha256()
        self.writer = ArtefactCipher.encrypting_writer(path, secret, export_id.bytes)
        self._is_given_up = False

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        self.digest.update(view)
        return len(view) if self._is_given_up else self.writer.write(view)

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


class _Spool:
    """Holds text until it can be written: in memory first, then in a scratch file under a throw-away key."""

    def __init__(self, beside: Path) -> None:
        self._memory = io.BytesIO()
        self._key = ArtefactCipher.new_key()
        self._path = beside.with_name(f".{beside.name}.{secrets.token_hex(8)}.spool")
        self._writer: ArtefactWriter | None = None

    def write(self, data: bytes) -> None:
        if self._writer is None and self._memory.tell() + len(data) > _IN_MEMORY_BYTES_MAX:
            self._writer = ArtefactCipher.encrypting_writer(self._path, self._key, b"spool")
            self._writer.write(self._memory.getvalue())
            self._memory = io.BytesIO()
        if self._writer is None:
            self._memory.write(data)
        else:
            self._writer.write(data)

    def pour(self, target: IO[bytes]) -> None:
        """Write everything out; the scratch file goes."""
        if self._writer is None:
            target.write(self._memory.getvalue())
            return
        self._writer.close()
        with ArtefactCipher.decrypting_reader(self._path, self._key, b"spool") as reader:
            while chunk := reader.read(_CHUNK_BYTES):
                target.write(chunk)
        self.drop()

    def drop(self) -> None:
        if self._writer is not None:
            self._writer.abort()
            self._path.unlink(missing_ok=True)


class _Table:
    """The rows of one table: all of them in memory, or, once there were too many, on their way into the ZIP."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.rows = 0
        self._lines: list[str] = []
        self._json: IO[bytes] | None = None
        self._spool: _Spool | None = None

    def add(self, lines: Sequence[str]) -> None:
        self._lines += lines
        self.rows += len(lines)

    def spill(self, archive: _Zip, beside: Path) -> None:
        """Write what is in memory; more may come."""
        if self._json is None or self._spool is None:
            self._json = archive.open(_info(self.form.files[0]), "w", force_zip64=True)
            self._json.write(b"[\n")
            self._spool = _Spool(beside)
            self._spool.write(self.form.header)
        elif self._lines:
            self._json.write(b",\n")
        lines, self._lines = self._lines, []
        self._json.write(",\n".join(lines).encode())
        self._spool.write(self._cells(lines))

    def close(self, archive: _Zip, beside: Path) -> None:
        """Write the table, or what is left of it."""
        if self._json is None or self._spool is None:
            archive.put(self.form.files[0], ("[\n" + ",\n".join(self._lines) + "\n]\n").encode())
            archive.put(self.form.files[1], self.form.header + self._cells(self._lines))
            return
        self.spill(archive, beside)
        self._json.write(b"\n]\n")
        self._json.close()
        with archive.open(_info(self.form.files[1]), "w", force_zip64=True) as target:
            self._spool.pour(target)

    def drop(self) -> None:
        if self._json is not None and self._spool is not None:
            self._json.close()
            self._spool.drop()

    def _cells(self, lines: Sequence[str]) -> bytes:
        columns = self.form.source.columns
        rows: list[Mapping[str, Any]] = orjson.loads("[" + ",".join(lines) + "]")
        return _csv(
            _cells(line, [row.get(column) for column in columns], columns)
            for line, row in zip(lines, rows, strict=True)
        )


class Archive:
    """The artefact of one export while it is made; it appears at its path only when it is closed."""

    def __init__(self, path: Path, secret: bytes, export_id: UUID) -> None:
        self._path = path
        self._secret = secret
        self._export_id = export_id
        self._sink: _Sink | None = None
        self._zip: _Zip | None = None  # begun when there is more than fits into memory
        self._forms: list[Form] = []
        self._written: dict[Form, int] = {}
        self._tables: list[_Table] = []
        self._held = 0

    @property
    def plain_sha256(self) -> str:
        """Give the digest of the ZIP before encryption; final once the archive is closed."""
        return self._opened().digest.hexdigest()

    @property
    def is_full(self) -> bool:
        """Whether so much waits in memory that it should be written out."""
        return self._held > _HELD_CHARACTERS_MAX

    def expect(self, form: Form) -> None:
        """Name a source: it will be in the archive, with no rows when none come."""
        self._forms.append(form)

    def add(self, form: Form, lines: Sequence[str]) -> None:
        """Add rows, each a JSON object; rows of one table come together. Keeps them in memory."""
        if not self._tables or self._tables[-1].form is not form:
            self._tables.append(_Table(form))
        self._tables[-1].add(lines)
        self._held += sum(map(len, lines))

    def write_out(self) -> None:
        """Write what waits in memory; rows of the last table may still come."""
        if self._zip is None:
            self._zip = _Zip(self._opened())
        *complete, last = self._tables
        for table in complete:
            self._close_table(self._zip, table)
        last.spill(self._zip, self._path)
        self._held = 0

    def close(self, request_id: UUID, sheet: bytes) -> tuple[ExportedTable, ...]:
        """Write what is left, and put the artefact at its path; gives the tables with their rows."""
        if self._zip is not None:
            self._write_rest(self._zip, request_id, sheet)
        else:
            whole = io.BytesIO()
            self._write_rest(_Zip(whole), request_id, sheet)
            self._opened().write(whole.getbuffer())
        self._opened().writer.close()
        return tuple(
            form.holds(self._written[form]) if form in self._written else form.holds_nothing for form in self._forms
        )

    def abort(self) -> None:
        """Give up: nothing appears at the path, scratch files go; after closing it changes nothing."""
        if self._sink is not None:
            self._sink.discard()
        for table in self._tables:
            table.drop()
        if self._zip is not None:
            self._zip.close()

    def _write_rest(self, archive: _Zip, request_id: UUID, sheet: bytes) -> None:
        for table in list(self._tables):
            self._close_table(archive, table)
        for form in self._forms:
            if form not in self._written:
                for name, content in zip(form.files, form.empty, strict=True):
                    archive.put(name, content)
        archive.put("information.json", sheet)
        archive.put("manifest.json", json_of(self._manifest(request_id)))
        archive.close()

    def _close_table(self, archive: _Zip, table: _Table) -> None:
        table.close(archive, self._path)
        self._tables.remove(table)  # not before: what fails half-way has a scratch file to drop
        self._written[table.form] = table.rows

    def _opened(self) -> _Sink:
        if self._sink is None:
            self._sink = _Sink(self._path, self._secret, self._export_id)
        return self._sink

    def _manifest(self, request_id: UUID) -> Mapping[str, Any]:
        return {
            "format": "habeas-export/1",
            "export_id": str(self._export_id),
            "request_id": str(request_id),
            "tables": [
                {
                    "store": form.store,
                    "table": form.source.table,
                    "category": form.source.category,
                    "rows": self._written.get(form, 0),
                    "files": form.files,
                    "columns": form.source.columns,
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


def _csv(rows: Iterable[Iterable[object]]) -> bytes:
    """Render rows as RFC 4180 has it: comma, double quotes, CRLF."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cells(line: str, values: Sequence[object], columns: Sequence[str]) -> Sequence[object]:
    """Give text and whole numbers as they are, nothing for null, and everything else as the database spelled it, to the last digit."""
    if all(value is None or type(value) is str or type(value) is int for value in values):
        return values
    spelled = _spelled(line)
    return [
        value if value is None or type(value) is str else spelled[column]
        for column, value in zip(columns, values, strict=True)
    ]


def _spelled(line: str) -> Mapping[str, str]:
    """Give the members of a JSON object as they are written in it; a parser would round long numbers."""
    members: dict[str, str] = {}
    at = _after(line, 1)
    while line[at] != "}":
        name, at = _DECODER.raw_decode(line, at)
        start = _after(line, at)
        _, end = _DECODER.raw_decode(line, start)
        members[name] = line[start:end]
        at = _after(line, end)
    return members


def _after(line: str, at: int) -> int:
    """Skip what stands between names and values of a JSON object."""
    while line[at] in " \t\r\n:,":
        at += 1
    return at
