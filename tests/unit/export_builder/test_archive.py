import csv
import gc
import io
import json
import sys
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest

from export_builder.errors import Stopped
from export_builder.gateways.archive import Archive, Form
from habeas.contracts.outcomes import ExportedTable
from habeas.datamap.planner import ExportPlan
from habeas.datamap.postgres import Row
from habeas.sealing.artefact import ArtefactCipher

TYPES = ("bigint", "text", "jsonb", "boolean")
TASKS = Form("platform", ExportPlan("tasks", "usage", "", ("id", "title", "notes", "done"), TYPES, TYPES, ("region",)))
LOGS = Form("platform", ExportPlan("logs", "execution", "", ("at",), ("day",), ("date",), ()))
SHEET = b"{}\n"
ORDER = UUID(int=1)


def begun(path: Path, secret: bytes, stop: threading.Event | None = None) -> Archive:
    """An archive that expects both tables."""
    archive = Archive(path, secret, ORDER, stop or threading.Event())
    archive.expect(TASKS)
    archive.expect(LOGS)
    return archive


def made(path: Path, pieces: Sequence[tuple[Form, Sequence[Row]]]) -> tuple[zipfile.ZipFile, tuple[ExportedTable, ...]]:
    """An archive of these rows, opened again, and what was counted."""
    secret = ArtefactCipher.new_key()
    archive = begun(path, secret)
    for form, rows in pieces:
        archive.add(form, rows)
        if archive.is_full:
            archive.spill()
    tables = archive.close(UUID(int=2), SHEET)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no draft and no scratch file stays"
    with ArtefactCipher.decrypting_reader(path, secret, ORDER.bytes) as reader:
        opened = zipfile.ZipFile(io.BytesIO(b"".join(iter(lambda: reader.read(100_000), b""))))
    assert opened.testzip() is None
    return opened, tables


@pytest.mark.parametrize("width", [1, 3_000])
def test_every_row_is_there_in_both_forms(tmp_path: Path, width: int) -> None:
    """Whether a table waits in memory or in a scratch file, JSON and CSV hold every row."""
    title = f'"{"ä," * width}\r\n'
    rows: list[Row] = [
        (str(number), title, '{"a": [1.5, null]}', "true" if number % 2 == 0 else "false") for number in range(1_200)
    ]
    rows.append((None, "", None, None))
    pieces = [(TASKS, rows[start : start + 7]) for start in range(0, len(rows), 7)]
    opened, tables = made(tmp_path / "export", [(LOGS, [("2026-11-24",)]), *pieces])
    assert [(each.table, each.rows) for each in tables] == [("tasks", 1_201), ("logs", 1)]
    assert json.loads(opened.read("tables/platform.tasks.json")) == [
        *(
            {"id": number, "title": title, "notes": {"a": [1.5, None]}, "done": number % 2 == 0}
            for number in range(1_200)
        ),
        {"id": None, "title": "", "notes": None, "done": None},
    ]
    text = opened.read("tables/platform.tasks.csv").decode("utf-8-sig")
    cells = list(csv.reader(io.StringIO(text, newline="")))
    assert cells[0] == ["id", "title", "notes", "done"]
    assert cells[2] == ["1", title, '{"a": [1.5, null]}', "false"]
    assert cells[-1] == ["", "", "", ""]
    assert len(cells) == 1_202
    assert opened.read("tables/platform.logs.csv") == b'\xef\xbb\xbf"at"\r\n"2026-11-24"\r\n'


def test_a_table_without_rows_is_there_and_named(tmp_path: Path) -> None:
    """Who has nothing somewhere gets an empty list, a CSV of the heading alone, and the table in the manifest."""
    opened, tables = made(tmp_path / "export", [])
    assert [each.rows for each in tables] == [0, 0]
    assert json.loads(opened.read("tables/platform.tasks.json")) == []
    assert opened.read("tables/platform.tasks.csv") == b'\xef\xbb\xbf"id","title","notes","done"\r\n'
    manifest = json.loads(opened.read("manifest.json"))
    assert manifest["request_id"] == str(UUID(int=2))
    assert manifest["tables"][0] == {
        "store": "platform",
        "table": "tasks",
        "category": "usage",
        "rows": 0,
        "files": ["tables/platform.tasks.json", "tables/platform.tasks.csv"],
        "columns": ["id", "title", "notes", "done"],
        "types": ["bigint", "text", "jsonb", "boolean"],
        "held_but_not_shown": ["region"],
    }
    assert [table["types"] for table in manifest["tables"][1:]] == [["day"]]


def test_the_readme_tells_how_to_read_the_files(tmp_path: Path) -> None:
    """Whoever opens the ZIP finds what was done to cells and values, and every file of it is named."""
    opened, _ = made(tmp_path / "export", [])
    readme = opened.read("README.txt").decode("ascii")
    for name in ("information.json", "manifest.json", ".json", ".csv", "apostrophe", "= + - @", "byte order mark"):
        assert name in readme


@pytest.mark.parametrize("row", [None, ("1", "", None, None), ("1", "a" * 3_000_000, None, None)])
def test_an_archive_that_was_given_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Row | None
) -> None:
    """Whatever was written before, an aborted archive leaves no file, no open scratch file, and no error for the garbage collector."""
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    archive = begun(tmp_path / "export", ArtefactCipher.new_key())
    if row is not None:
        archive.add(TASKS, [row])
        archive.spill()
    archive.abort()
    archive.abort()
    del archive
    gc.collect()
    assert unraisable == []
    assert list(tmp_path.iterdir()) == []


def test_a_stop_ends_packing_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who packs a large table hears of a stop with the next bytes; nothing stays, and nothing is told to nobody."""
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    stop = threading.Event()
    archive = begun(tmp_path / "export", ArtefactCipher.new_key(), stop)
    archive.add(TASKS, [("1", "a" * 3_000_000, None, None)])
    archive.spill()
    stop.set()
    with pytest.raises(Stopped):
        archive.close(UUID(int=2), SHEET)
    archive.abort()
    del archive
    gc.collect()
    assert unraisable == []
    assert list(tmp_path.iterdir()) == []


def test_scratch_files_hold_nothing_in_clear(tmp_path: Path) -> None:
    """What waits on the disk is sealed, and no name leads to it."""
    archive = begun(tmp_path / "export", ArtefactCipher.new_key())
    archive.add(TASKS, [("1", "very private " * 100_000, None, None)])
    archive.spill()
    assert list(tmp_path.iterdir()) == []
    scratch = [path for path in Path("/proc/self/fd").iterdir() if str(tmp_path) in str(_target(path))]
    assert len(scratch) == 1
    content = scratch[0].read_bytes()
    assert len(content) > 500_000
    assert b"very private" not in content
    archive.abort()


def _target(path: Path) -> Path | None:
    try:
        return path.readlink()
    except OSError:  # closed meanwhile
        return None
