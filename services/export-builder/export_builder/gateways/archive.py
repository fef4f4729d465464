"""One export as a ZIP: JSON and CSV of every table, an information sheet, a manifest; encrypted as it is written.

Nothing of it is ever on a disk in clear. Rows go into the JSON entry as they come; a ZIP has one open entry at a time, so the CSV form
waits in memory, and beyond a mebibyte in a scratch file sealed under a key that only this object has.
"""

import csv
import hashlib
import io
import json
import secrets
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final
from uuid import UUID

import orjson
from typing_extensions import override

from habeas.contracts.outcomes import ExportedTable
from habeas.datamap.planner import ExportPlan
from habeas.sealing.artefact import ArtefactCipher, ArtefactWriter

_IN_MEMORY_BYTES_MAX: Final = 1024 * 1024
_CHUNK_BYTES: Final = 256 * 1024
_EARLIEST: Final = (
    1980,
    1,
    1,
    0,
    0,
    0,
)  # a ZIP knows no earlier time; entries carry none, so that equal content is equal


class _Sink(io.RawIOBase):
    """Takes the ZIP's bytes on their way into the cipher and remembers their digest."""

    def __init__(self, writer: ArtefactWriter) -> None:
        super().__init__()
        self.digest = hashlib.sha256()
        self._writer: ArtefactWriter | None = writer

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        self.digest.update(view)
        return len(view) if self._writer is None else self._writer.write(view)

    def discard(self) -> None:
        """Take the rest and keep nothing: a ZIP that is given up still writes its end, at the latest when it is collected."""
        self._writer = None


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


class _Entry:
    """The table that is being written."""

    def __init__(self, archive: zipfile.ZipFile, store: str, source: ExportPlan, beside: Path) -> None:
        self.store = store
        self.source = source
        self.rows = 0
        self._archive = archive
        self._name = f"tables/{store}.{source.table}"
        self._json = archive.open(_info(f"{self._name}.json"), "w", force_zip64=True)
        self._json.write(b"[")
        self._spool = _Spool(beside)
        self._spool.write(_csv([source.columns]))

    def add(self, lines: Sequence[str]) -> None:
        separator = b",\n" if self.rows else b"\n"
        self._json.write(separator + ",\n".join(lines).encode())
        self._spool.write(_csv(_cells(orjson.loads(line), self.source.columns) for line in lines))
        self.rows += len(lines)

    def close(self) -> None:
        self._json.write(b"\n]\n")
        self._json.close()
        with self._archive.open(_info(f"{self._name}.csv"), "w", force_zip64=True) as target:
            self._spool.pour(target)

    def drop(self) -> None:
        self._json.close()
        self._spool.drop()


class Archive:
    """The artefact of one export while it is made; it appears at its path only when it is closed."""

    def __init__(self, path: Path, secret: bytes, export_id: UUID) -> None:
        self._path = path
        self._export_id = export_id
        self._writer = ArtefactCipher.encrypting_writer(path, secret, export_id.bytes)
        self._sink = _Sink(self._writer)
        self._zip = zipfile.ZipFile(self._sink, "w", zipfile.ZIP_DEFLATED, compresslevel=3)
        self._expected: dict[tuple[str, str], ExportPlan] = {}
        self._written: dict[tuple[str, str], int] = {}
        self._entry: _Entry | None = None

    @property
    def plain_sha256(self) -> str:
        """Give the digest of the ZIP before encryption; final once the archive is closed."""
        return self._sink.digest.hexdigest()

    def expect(self, store: str, source: ExportPlan) -> None:
        """Name a source: it will be in the archive, with no rows when none come."""
        self._expected[store, source.table] = source

    def add(self, store: str, source: ExportPlan, lines: Sequence[str]) -> None:
        """Add rows, each a JSON object; rows of one table come together."""
        entry = self._entry
        if entry is None or (entry.store, entry.source.table) != (store, source.table):
            self._close_entry()
            entry = self._entry = _Entry(self._zip, store, source, self._path)
        entry.add(lines)

    def close(self, request_id: UUID, sheet: Mapping[str, Any]) -> tuple[ExportedTable, ...]:
        """Write what is left, and put the artefact at its path; gives the tables with their rows."""
        self._close_entry()
        for (store, table), source in self._expected.items():
            if (store, table) not in self._written:
                self._entry = _Entry(self._zip, store, source, self._path)
                self._close_entry()
        tables = tuple(
            ExportedTable(store=store, table=table, category=source.category, rows=self._written[store, table])
            for (store, table), source in self._expected.items()
        )
        self._zip.writestr(_info("information.json"), _json(sheet))
        self._zip.writestr(_info("manifest.json"), _json(self._manifest(request_id)))
        self._zip.close()
        self._writer.close()
        return tables

    def abort(self) -> None:
        """Give up: nothing appears at the path, the scratch file goes; after closing it changes nothing."""
        self._sink.discard()
        if self._entry is not None:
            self._entry.drop()
            self._entry = None
        self._zip.close()
        self._writer.abort()

    def _close_entry(self) -> None:
        entry = self._entry
        if entry is not None:
            entry.close()
            self._entry = None  # not before: what fails half-way has a scratch file to drop
            self._written[entry.store, entry.source.table] = entry.rows

    def _manifest(self, request_id: UUID) -> Mapping[str, Any]:
        return {
            "format": "habeas-export/1",
            "export_id": str(self._export_id),
            "request_id": str(request_id),
            "tables": [
                {
                    "store": store,
                    "table": table,
                    "category": source.category,
                    "rows": self._written[store, table],
                    "files": [f"tables/{store}.{table}.json", f"tables/{store}.{table}.csv"],
                    "columns": list(source.columns),
                    "held_but_not_shown": list(source.named),
                }
                for (store, table), source in self._expected.items()
            ],
        }


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EARLIEST)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o600 << 16
    return info


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False, default=str).encode() + b"\n"


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    """Render rows as RFC 4180 has it: comma, double quotes, CRLF."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cells(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    return [_cell(row.get(column)) for column in columns]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode()
