"""One of two databases goes away in the midst of something: nothing is half done for good, and nothing half done is given out."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

import erasure_executor.sweeps
import export_builder.sweeps
from erasure_executor.gateways import LoggedStores
from erasure_executor.lifecycle import State as ErasureState
from export_builder.gateways import Builder, Vault
from export_builder.lifecycle import Export
from export_builder.lifecycle import State as ExportState
from habeas.chassis.clock import FakeClock
from habeas.chassis.together import Limits
from habeas.contracts.vocabulary import StuckReason, TableResult
from habeas.datamap.stores import Stores
from habeas.sealing import Fingerprinter, KeyKind, KeyStore, Place, open_sealed
from habeas.sealing.artefact import ArtefactCipher
from habeas_embedded.provision import Access
from retention_sweeper import sweeps as retention_sweeps
from tests.integration.erasure_executor import test_erase_due as erasing
from tests.integration.export_builder import test_build_due as building
from tests.integration.retention_sweeper.conftest import AS_OF, Sweeper, after_lease, start_sweeper
from tests.support.databases import opened
from tests.support.two_stores import Platform
from tests.support.waiting import HANGS_S

PATIENT: Final = Limits(HANGS_S)
ONE, TWO, OTHER = "acc_1", "acc_2", "acc_3"
HELD: Final = {"accounts": 1, "tasks": 2, "tickets": 1, "messages": 2}
GONE: Final = dict.fromkeys(HELD, 0)


@pytest_asyncio.fixture
async def eraser(database: Access, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[erasing.Bench]:
    """erasure-executor, which waits for as long as a lock takes."""
    monkeypatch.setattr(erasure_executor.sweeps, "SMALL", replace(erasure_executor.sweeps.SMALL, limits=PATIENT))
    clock = FakeClock(erasing.NOW)
    db = await opened(database, "erasure-executor", clock)
    yield erasing.Bench(db, clock, KeyStore(erasing.RING, clock.now), Fingerprinter(erasing.RING))
    await db.close()


@pytest_asyncio.fixture
async def exporter(database: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[building.Bench]:
    """export-builder, which waits for as long as a lock takes."""
    monkeypatch.setattr(export_builder.sweeps, "SMALL", replace(export_builder.sweeps.SMALL, limits=PATIENT))
    clock = FakeClock(building.NOW)
    own = await opened(database, "export-builder", clock)
    executor = await opened(database, "erasure-executor", clock)
    directory = tmp_path / "artefacts"
    yield building.Bench(own, executor, KeyStore(building.RING, clock.now), Vault(directory), directory)
    await own.close()
    await executor.close()


@pytest_asyncio.fixture
async def sweeper(database: Access, platform: Platform) -> AsyncIterator[Sweeper]:
    """retention-sweeper over both stores, in which everything with a class of 90 days is past it."""
    await platform.shop_owner.execute("UPDATE tasks SET created_at = '2026-10-01T10:00Z'")
    await platform.support_owner.execute("UPDATE tickets SET opened_at = '2026-10-01T10:00Z'")
    async with start_sweeper(database, platform.stores, platform.policy) as started:
        yield started


@pytest.mark.parametrize(
    ("name", "lock", "left"),
    [
        # The shop is done by then, and what was to go in the desk is rolled back.
        ("support", "LOCK TABLE tickets IN SHARE MODE", {"accounts": 0, "tasks": 0, "tickets": 1, "messages": 2}),
        ("shop", "LOCK TABLE accounts IN EXCLUSIVE MODE", HELD),
    ],
)
async def test_an_erasure_is_completed_when_both_are_done(
    eraser: erasing.Bench, platform: Platform, name: str, lock: str, left: dict[str, int]
) -> None:
    """Until then it says which store is away, and keeps its key; it goes on by itself, and tells of both with what was held at first."""
    requests = await eraser.begin_all([ONE, TWO])
    stores = LoggedStores(platform.stores)

    async def sweep() -> None:
        await erasure_executor.sweeps.erase_due(eraser.db, stores, eraser.keys, eraser.fingerprinter)

    async with asyncio.TaskGroup() as at_work, platform.lost_while(name, lock):
        at_work.create_task(sweep())
    for attempts in (1, 2):
        for request_id in requests.values():
            stuck = await eraser.look(request_id)
            found = stuck.state, stuck.stuck_reason, stuck.stuck_store, stuck.attempts
            assert found == (ErasureState.STUCK, StuckReason.STORE_UNAVAILABLE, name, attempts)
            assert await eraser.has_key(stuck.subject_id, KeyKind.DATA)
        assert await platform.rows_of(ONE) == left
        if attempts == 1:
            eraser.wait_out()
            await sweep()
    assert await eraser.count("SELECT count(*) FROM erasure_executor.outbox WHERE type = 'erasure.completed'") == 0

    platform.bring_back(name)
    eraser.clock.advance(timedelta(hours=1))
    await sweep()
    for account, request_id in requests.items():
        done = await eraser.look(request_id)
        assert (done.state, await platform.rows_of(account)) == (ErasureState.COMPLETED, GONE)
        told = {(each.store, each.table): (each.result, each.rows) for each in done.outcomes}
        assert told["shop", "accounts"] == (TableResult.ERASED, 1)
        assert told["shop", "tasks"] == (TableResult.ERASED, 2)
        assert told["shop", "invoices"] == (TableResult.KEPT, 1)
        assert told["support", "tickets"] == (TableResult.ERASED, 1)
        assert told["support", "messages"] == (TableResult.ERASED, 2)
        assert not await eraser.has_key(done.subject_id, KeyKind.DATA)
    assert await platform.rows_of(OTHER) == HELD


@pytest.mark.parametrize("name", ["shop", "support"])
async def test_nothing_is_erased_before_both_were_counted(eraser: erasing.Bench, platform: Platform, name: str) -> None:
    """With a store that was away from the beginning, the other is left as it is."""
    request_id = await eraser.begin(ONE)
    stores = LoggedStores(platform.stores)
    platform.take_away(name)
    await erasure_executor.sweeps.erase_due(eraser.db, stores, eraser.keys, eraser.fingerprinter)
    stuck = await eraser.look(request_id)
    assert (stuck.state, stuck.stuck_store, await platform.rows_of(ONE)) == (ErasureState.STUCK, name, HELD)
    platform.bring_back(name)
    eraser.wait_out()
    await erasure_executor.sweeps.erase_due(eraser.db, stores, eraser.keys, eraser.fingerprinter)
    assert ((await eraser.look(request_id)).state, await platform.rows_of(ONE)) == (ErasureState.COMPLETED, GONE)


async def test_a_store_that_falls_silent_keeps_the_erasure_open(
    eraser: erasing.Bench, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections stay open and say nothing, as when packets are dropped: the attempt ends, and a later one completes the erasure."""
    options = platform.support._link.options
    platform.support._link.options = replace(options, connect_timeout_s=1.0, acquire_timeout_s=1.0)
    request_id = await eraser.begin(ONE)
    stores = LoggedStores(platform.stores)
    planned = await stores.plan([ONE])  # connections and plans are at hand
    with monkeypatch.context() as counted:
        counted.setattr(LoggedStores, "plan", lambda *_: asyncio.sleep(0, planned))
        counted.setattr(erasure_executor.sweeps, "SMALL", replace(erasure_executor.sweeps.SMALL, limits=Limits(1.0)))
        platform.proxies["support"].stall()
        await erasure_executor.sweeps.erase_due(eraser.db, stores, eraser.keys, eraser.fingerprinter)
    waiting = await eraser.look(request_id)
    assert (waiting.state, waiting.stuck_store) == (ErasureState.STUCK, "support")
    assert await platform.rows_of(ONE) == {"accounts": 0, "tasks": 0, "tickets": 1, "messages": 2}
    platform.bring_back("support")
    eraser.wait_out()
    await erasure_executor.sweeps.erase_due(eraser.db, stores, eraser.keys, eraser.fingerprinter)
    done = await eraser.look(request_id)
    assert (done.state, await platform.rows_of(ONE)) == (ErasureState.COMPLETED, GONE)
    assert {each.store for each in done.outcomes if each.rows} == {"shop", "support"}


async def test_each_store_is_looked_at_whatever_is_wrong_with_another(
    eraser: erasing.Bench, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is away does not hide that the other differs from its map; what is told names the store."""
    told: list[tuple[object, object]] = []
    monkeypatch.setattr(
        "habeas.chassis.log.event", lambda _, **fields: told.append((fields["error"].store, fields["reason"]))
    )
    stores = LoggedStores(platform.stores)
    await erasure_executor.sweeps.look_at_stores(eraser.db, stores)
    assert told == []
    platform.take_away("shop")
    await platform.support_owner.execute("ALTER TABLE tickets ADD COLUMN phone text")
    await erasure_executor.sweeps.look_at_stores(eraser.db, stores)
    assert told == [("shop", StuckReason.STORE_UNAVAILABLE), ("support", StuckReason.SCHEMA_MISMATCH)]


@pytest.mark.parametrize(
    ("name", "lock"),
    [
        ("support", "LOCK TABLE messages IN ACCESS EXCLUSIVE MODE"),
        ("shop", "LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE"),
    ],
)
async def test_no_part_of_an_archive_is_given_out(
    exporter: building.Bench, platform: Platform, name: str, lock: str
) -> None:
    """What was read by then is thrown away; when the store is back, the archive holds the rows of both."""
    export = await exporter.begin()
    builder = Builder(Stores(platform.stores), exporter.vault, platform.policy)

    async def sweep() -> None:
        await export_builder.sweeps.build_due(exporter.db, builder, exporter.vault, exporter.keys, building.KEPT)

    async with asyncio.TaskGroup() as at_work, platform.lost_while(name, lock):
        at_work.create_task(sweep())
    stuck = await exporter.look(export)
    found = stuck.state, stuck.stuck_reason, stuck.stuck_store, stuck.artefact_key
    assert found == (ExportState.STUCK, StuckReason.STORE_UNAVAILABLE, name, None)
    assert exporter.files() == []
    rows = await exporter.db.read("test-told", "SELECT type FROM export_builder.outbox")
    assert [row["type"] for row in rows] == ["export.stuck"]

    platform.bring_back(name)
    exporter.wait_out()
    await sweep()
    files = await _opened(exporter, await exporter.look(export))
    held = {
        path: len(json.loads(files[path])) for path in files if path.startswith("tables/") and path.endswith(".json")
    }
    assert held["tables/shop.accounts.json"] == 1
    assert held["tables/shop.tasks.json"] == 2
    assert held["tables/support.tickets.json"] == 1
    assert held["tables/support.messages.json"] == 2


async def _opened(exporter: building.Bench, done: Export) -> dict[str, bytes]:
    assert (done.state, {each.store for each in done.exported}) == (ExportState.COMPLETED, {"shop", "support"})
    (file,) = exporter.files()
    async with exporter.executor.transaction("test-key") as tx:
        key = (await exporter.keys.require(tx, [done.subject_id], KeyKind.DATA))[done.subject_id]
    secret = open_sealed(key, Place("export", done.export_id, "artefact_key"), done.artefact_key or "")
    with ArtefactCipher.decrypting_reader(exporter.directory / file, secret, done.export_id.bytes) as reader:
        archive = zipfile.ZipFile(io.BytesIO(b"".join(iter(lambda: reader.read(1 << 20), b""))))
    return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("is_planned", [False, True], ids=["before its plan is read", "before its rows go"])
@pytest.mark.parametrize("name", ["shop", "support"])
async def test_the_sweep_of_one_store_goes_on_while_the_other_is_away(
    sweeper: Sweeper, platform: Platform, name: str, *, is_planned: bool
) -> None:
    """Its rows go at the same tick; those of the other when it is back, and meanwhile it is said which one is stuck."""
    await sweeper.tick(AS_OF)
    if is_planned:
        while (await retention_sweeps.plan_due(sweeper.db, sweeper.stores)).handled:
            pass
    platform.take_away(name)
    await sweeper.run()
    away, there = ({"tasks": 2}, {"tickets": 0}) if name == "shop" else ({"tickets": 1}, {"tasks": 0})
    assert HELD | away | there | ({"messages": 0} if name == "shop" else {}) == await platform.rows_of(ONE)
    stuck = await sweeper.told("sweep.stuck")
    assert {(event["store"], event["reason"]) for event in stuck} == {(name, "store_unavailable")}
    if not is_planned:
        assert [event["table"] for event in stuck] == ["accounts" if name == "shop" else "support"]
    assert {event["store"] for event in await sweeper.told("sweep.completed")} == {"shop", "support"} - {name}

    platform.bring_back(name)
    after_lease(sweeper)
    await sweeper.run()
    assert await platform.rows_of(ONE) == GONE | {"accounts": 1}
    assert set((await sweeper.states()).values()) == {"completed"}
