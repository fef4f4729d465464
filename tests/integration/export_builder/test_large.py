"""Exports of any size: the snapshot is over before anything slow begins, and one person's trouble is told as theirs."""

import asyncio
import threading
import zipfile
from typing import IO, Any
from uuid import UUID

import asyncpg
import pytest

from export_builder.errors import ArtefactUnwritable
from export_builder.gateways import Order, archive
from export_builder.gateways.values import csv_lines
from habeas.contracts.vocabulary import StuckReason
from habeas.datamap.errors import StoreRefused
from habeas.datamap.postgres import StoreOptions
from tests.integration.export_builder.conftest import ONE, OTHER, MakeThings, Things
from tests.support.waiting import HANGS_S, until

_OPEN = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'habeas' AND state <> 'idle' AND xact_start IS NOT NULL"
_ROWS = "INSERT INTO things SELECT n, $1, NULL, repeat(md5(n::text), 32) FROM generate_series(1, $2::int) AS n"


async def _large(make: MakeThings, rows: int, options: StoreOptions | None = None) -> Things:
    things = await make({"body": "text"}, options=options)
    await things.owner.execute(_ROWS, ONE, rows)
    await things.owner.execute("INSERT INTO things VALUES (0, $1, NULL, 'a')", OTHER)
    return things


async def test_nothing_is_packed_while_the_snapshot_is_open(
    things: MakeThings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deflating takes as long as it takes: when it begins, the store has no transaction of ours that could stand idle."""
    shop = await _large(things, 3_000)
    opened: list[int] = []
    write = zipfile.ZipFile.open

    def looking(zip_file: zipfile.ZipFile, *args: Any, **kwargs: Any) -> IO[bytes]:
        if zip_file.mode == "w":
            opened.append(asyncio.run(_count_open(shop.dsn)))
        return write(zip_file, *args, **kwargs)

    monkeypatch.setattr(zipfile.ZipFile, "open", looking)
    one, other = await shop.export(ONE, OTHER)
    assert (len(one.rows), len(other.rows)) == (3_000, 1)
    assert len(opened) > 5
    assert set(opened) == {0}


async def _count_open(dsn: str) -> int:
    conn = await asyncpg.connect(dsn)
    try:
        count: int = await conn.fetchval(_OPEN)
    finally:
        await conn.close()
    return count


async def test_a_slow_packer_does_not_end_the_snapshot(things: MakeThings, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an idle limit of a second and a packer that waits until any idle transaction would be over, it ends at the first try."""
    shop = await _large(things, 3_000, StoreOptions(idle_timeout_s=1.0))
    write = zipfile.ZipFile.open

    def waiting(zip_file: zipfile.ZipFile, *args: Any, **kwargs: Any) -> IO[bytes]:
        if zip_file.mode == "w":
            asyncio.run(until(lambda: _is_idle_over(shop.dsn), "the end of every idle transaction"))
        return write(zip_file, *args, **kwargs)

    monkeypatch.setattr(zipfile.ZipFile, "open", waiting)
    (one,) = await shop.export(ONE)
    assert len(one.rows) == 3_000


async def _is_idle_over(dsn: str) -> bool:
    return await _count_open(dsn) == 0


async def test_a_cancelled_build_leaves_nothing(things: MakeThings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever cancels an attempt while a thread packs waits until that has stopped; no file, no scratch file, no thread stays."""
    shop = await _large(things, 3_000)
    packing, go_on = threading.Event(), threading.Event()

    def held(*args: Any) -> str:
        if threading.current_thread() is not threading.main_thread():
            packing.set()
            go_on.wait(HANGS_S)
        return csv_lines(*args)

    monkeypatch.setattr("export_builder.gateways.archive.csv_lines", held)
    async with asyncio.TaskGroup() as tasks:
        attempt = tasks.create_task(_cancelled(shop))
        await asyncio.to_thread(packing.wait, HANGS_S)
        attempt.cancel()
        try:
            await asyncio.wait([attempt], timeout=0.1)
        finally:
            is_early = attempt.done()
            go_on.set()
    assert not is_early, "a thread still worked on its files"
    assert list(shop.directory.iterdir()) == []


async def _cancelled(shop: Things) -> None:
    with pytest.raises(asyncio.CancelledError):
        await shop.export(ONE)


async def test_an_artefact_that_cannot_be_written_names_its_export(
    things: MakeThings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full at the second of two: that export is named, nothing of the batch stays, and the other is built alone."""
    shop = await _large(things, 3)
    close = archive.Archive.close

    def failing(self: archive.Archive, request_id: UUID, sheet: bytes) -> object:
        if request_id == UUID(int=102):
            raise OSError(28, "No space left on device")
        return close(self, request_id, sheet)

    monkeypatch.setattr(archive.Archive, "close", failing)
    with pytest.raises(ArtefactUnwritable) as told:
        await shop.export(ONE, OTHER)
    assert (told.value.export_id, told.value.because) == (UUID(int=2), StuckReason.ARTEFACT_UNWRITABLE)
    assert ONE not in str(told.value)
    assert list(shop.directory.iterdir()) == []
    assert len((await shop.export(ONE))[0].rows) == 3


async def test_bytes_that_are_no_text_are_refused_with_the_table(
    things: MakeThings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver cannot decode, as a database without an encoding gives it out, is a refusal that names the table."""
    shop = await things({"body": "text"})

    async def broken(*_: object) -> object:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr("asyncpg.cursor.Cursor.fetch", broken)
    with pytest.raises(StoreRefused) as told:
        await shop.builder.build([Order(UUID(int=1), 1, UUID(int=2), ONE)], portable_only=False)
    assert (told.value.code, told.value.table) == ("22021", "things")
