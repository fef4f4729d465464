import csv
import gc
import io
import json
import sys
import zipfile
from pathlib import Path
from uuid import UUID

import pytest

from export_builder.gateways.archive import Archive, Form
from habeas.contracts.outcomes import ExportedTable
from habeas.datamap.planner import ExportPlan
from habeas.sealing.artefact import ArtefactCipher

TASKS = Form("platform", ExportPlan("tasks", "usage", "", "", ("id", "title", "notes", "done"), ("region",)))
LOGS = Form("platform", ExportPlan("logs", "execution", "", "", ("at",), ()))
SHEET = b"{}\n"
ORDER = UUID(int=1)


def made(path: Path, pieces: list[tuple[Form, list[str]]]) -> tuple[zipfile.ZipFile, tuple[ExportedTable, ...]]:
    """An archive of these rows, opened again, and what was counted."""
    secret = ArtefactCipher.new_key()
    archive = Archive(path, secret, ORDER)
    archive.expect(TASKS)
    archive.expect(LOGS)
    for form, lines in pieces:
        archive.add(form, lines)
        if archive.is_full:
            archive.write_out()
    tables = archive.close(UUID(int=2), SHEET)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no draft and no scratch file stays"
    with ArtefactCipher.decrypting_reader(path, secret, ORDER.bytes) as reader:
        opened = zipfile.ZipFile(io.BytesIO(b"".join(iter(lambda: reader.read(100_000), b""))))
    assert opened.testzip() is None
    return opened, tables


@pytest.mark.parametrize("width", [1, 3_000])
def test_every_row_is_there_in_both_forms(tmp_path: Path, width: int) -> None:
    """Whether a table waits in memory or is written as it comes, JSON and CSV hold every row, spelled as the database did."""
    rows = [
        {"id": number, "title": f'"{"ä," * width}\r\n', "notes": {"a": [1.5, None]}, "done": number % 2 == 0}
        for number in range(200)
    ] + [{"id": None, "title": "", "notes": None, "done": None}]
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
    pieces = [(TASKS, lines[start : start + 7]) for start in range(0, len(lines), 7)]
    opened, tables = made(tmp_path / "export", [*pieces, (LOGS, ['{"at":"2026-11-24"}'])])
    assert [(each.table, each.rows) for each in tables] == [("tasks", 201), ("logs", 1)]
    assert json.loads(opened.read("tables/platform.tasks.json")) == rows
    assert opened.read("tables/platform.tasks.json").decode() == "[\n" + ",\n".join(lines) + "\n]\n"
    text = opened.read("tables/platform.tasks.csv").decode()
    cells = list(csv.reader(io.StringIO(text, newline="")))
    assert cells[0] == ["id", "title", "notes", "done"]
    assert cells[2] == ["1", rows[1]["title"], '{"a":[1.5,null]}', "false"]
    assert cells[-1] == ["", "", "", ""]
    assert len(cells) == 202
    assert opened.read("tables/platform.logs.csv") == b"at\r\n2026-11-24\r\n"


def test_numbers_keep_their_last_digit(tmp_path: Path) -> None:
    """What a parser would round stands in the CSV as the database spelled it, also inside of other values and beside escaped text."""
    line = (
        '{"id":12345678901234567890123, "title":"a\\"},: b","notes":{"x": [0.1234567890123456789, "}"]} ,"done":1.00}'
    )
    opened, _ = made(tmp_path / "export", [(TASKS, [line, '{"id":1,"title":null,"notes":[],"done":true}'])])
    cells = list(csv.reader(io.StringIO(opened.read("tables/platform.tasks.csv").decode(), newline="")))
    assert cells[1] == ["12345678901234567890123", 'a"},: b', '{"x": [0.1234567890123456789, "}"]}', "1.00"]
    assert cells[2] == ["1", "", "[]", "true"]


def test_a_table_without_rows_is_there_and_named(tmp_path: Path) -> None:
    """Who has nothing somewhere gets an empty list, a CSV of the heading alone, and the table in the manifest."""
    opened, tables = made(tmp_path / "export", [])
    assert [each.rows for each in tables] == [0, 0]
    assert json.loads(opened.read("tables/platform.tasks.json")) == []
    assert opened.read("tables/platform.tasks.csv") == b"id,title,notes,done\r\n"
    manifest = json.loads(opened.read("manifest.json"))
    assert manifest["request_id"] == str(UUID(int=2))
    assert manifest["tables"][0] == {
        "store": "platform",
        "table": "tasks",
        "category": "usage",
        "rows": 0,
        "files": ["tables/platform.tasks.json", "tables/platform.tasks.csv"],
        "columns": ["id", "title", "notes", "done"],
        "held_but_not_shown": ["region"],
    }


@pytest.mark.parametrize("lines", [[], ['{"id":1}'], ['{"id":1,"title":"' + "a" * 3_000_000 + '"}']])
def test_an_archive_that_was_given_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """Whatever was written before, an aborted archive leaves no file, no scratch file, and no error for the garbage collector."""
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    archive = Archive(tmp_path / "export", ArtefactCipher.new_key(), ORDER)
    archive.expect(TASKS)
    if lines:
        archive.add(TASKS, lines)
        archive.write_out()
        assert len(list(tmp_path.iterdir())) == 1 + (len(lines[0]) > 1_000_000), "a draft, and a scratch file beside it"
    archive.abort()
    archive.abort()
    del archive
    gc.collect()
    assert unraisable == []
    assert list(tmp_path.iterdir()) == []
