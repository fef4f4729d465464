"""Attempts at exports over a real database: an erasure at any moment leaves no artefact that counts, and no file for long."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
import pytest_asyncio
from typing_extensions import override

from export_builder import handlers, lifecycle, store, sweeps
from export_builder.errors import ArtefactUnwritable, TooLarge
from export_builder.gateways.builder import Builder, Built, Order, Vault
from export_builder.lifecycle import Export, State
from habeas.chassis.batch import Batch
from habeas.chassis.clock import FakeClock
from habeas.chassis.database import Database, Transaction
from habeas.chassis.ids import uuid7
from habeas.chassis.message import Message
from habeas.chassis.sweep import Swept
from habeas.chassis.together import Limits
from habeas.contracts import topics
from habeas.contracts.erasure_executor import ErasureCompleted
from habeas.contracts.outcomes import ExportedTable
from habeas.contracts.request_intake import RequestVerified
from habeas.contracts.vocabulary import Right, StuckReason
from habeas.datamap.errors import StoreRefused
from habeas.sealing import KeyKind, KeyStore, Place, SubjectKey, seal_text
from habeas.sealing.kek import KeyRing, new_key_ring
from habeas_embedded.provision import Access
from tests.support.databases import opened
from tests.support.waiting import until

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
RING = KeyRing(new_key_ring())
KEPT = timedelta(days=30)
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"
TABLE = ExportedTable(store="platform", table="tasks", category="usage", rows=3)


class Killed(BaseException):
    """What ends a process without a word; no handler of errors may catch it."""


class Press(Builder):
    """Writes a file for each export without looking into any store; something may happen elsewhere before it is done.

    ``bad`` are those whose account makes it fail, with how.
    """

    def __init__(
        self,
        vault: Vault,
        meanwhile: Callable[[], Awaitable[None]] | None = None,
        bad: Mapping[str, Exception | None] | None = None,
    ) -> None:
        self._vault = vault
        self._meanwhile = meanwhile
        self._bad = bad or {}

    @override
    async def build(self, orders: Sequence[Order], *, portable_only: bool) -> dict[UUID, Built]:
        for order in orders:
            if order.account_id in self._bad:
                error = self._bad[order.account_id]
                if error is None:
                    await asyncio.Event().wait()
                else:
                    raise error
        for order in orders:
            self._vault.path(order).write_bytes(b"artefact")
        if self._meanwhile is not None:
            await self._meanwhile()
        return {order.export_id: Built(b"k" * 16, 8, "ab" * 32, (TABLE,)) for order in orders}


@dataclass
class Bench:
    """export-builder's database, directory and keys, and the executor's right to destroy them."""

    db: Database
    executor: Database
    keys: KeyStore
    vault: Vault
    directory: Path

    async def begin(self) -> Export:
        """Take up an export of a person whose keys exist."""
        return (await self.begin_all(["acc_1"]))["acc_1"]

    async def begin_all(self, account_ids: Sequence[str]) -> dict[str, Export]:
        """Take up exports of people whose keys exist, by account."""
        clock = self.db.clock
        exports: dict[str, Export] = {}
        async with self.executor.transaction("test-keys") as tx:
            subjects = {account_id: uuid7(clock) for account_id in account_ids}
            keys = await self.keys.create(tx, list(subjects.values()), tx.now)
        for account_id, subject_id in subjects.items():
            request_id, export_id = uuid7(clock), uuid7(clock)
            account = seal_text(keys[subject_id].data, Place("request", request_id, "account"), account_id)
            exports[account_id] = Export(
                export_id, request_id, subject_id, Right.ACCESS, State.READY, account, date(2026, 12, 24), NOW, None
            )
        async with self.db.transaction("test-begin") as tx:
            await store.add_exports(tx, list(exports.values()))
        return exports

    async def sweep(
        self,
        meanwhile: Callable[[], Awaitable[None]] | None = None,
        bad: Mapping[str, Exception | None] | None = None,
    ) -> Swept:
        """Sweep once."""
        return await sweeps.build_due(self.db, Press(self.vault, meanwhile, bad), self.vault, self.keys, KEPT)

    async def sweep_large(self, bad: Mapping[str, Exception | None] | None = None) -> Swept:
        """Sweep those once that are built apart."""
        return await sweeps.build_large(self.db, Press(self.vault, None, bad), self.vault, self.keys, KEPT)

    async def unfinished(self) -> set[UUID]:
        """Give the exports that are not completed."""
        sql = "SELECT export_id FROM export_builder.exports WHERE state <> 'completed'"
        return {row["export_id"] for row in await self.db.read("test-unfinished", sql)}

    async def stuck(self) -> dict[str, int]:
        """Count what is shown as stuck, by reason."""
        return {row["reason"]: row["rows"] for row in await self.db.read("test-stuck", store.COUNT_STUCK)}

    def wait_out(self) -> None:
        """Let the pause of what is stuck pass."""
        cast("FakeClock", self.db.clock).advance(timedelta(minutes=6))

    async def destroy_key(self, subject_id: UUID) -> None:
        """Do what ends an erasure; nobody has told export-builder of it yet."""
        async with self.executor.transaction("test-destroy") as tx:
            await self.keys.destroy(tx, [subject_id], KeyKind.DATA)

    async def hear(self, export: Export) -> None:
        """Handle the news that the person was erased."""
        event = ErasureCompleted(
            request_id=uuid7(self.db.clock), subject_id=export.subject_id, tables=(), erased_at=NOW
        )
        message = Message(1, event.request_id, topics.ERASURES, event.type, b"k", None, NOW, 0, event.encode(), event)
        async with self.db.transaction("test-hear") as tx:
            await handlers.on_erasure_completed(Batch([message], {}), tx, self.keys)

    async def look(self, export: Export) -> Export:
        """Read an export."""
        async with self.db.transaction("test-look") as tx:
            return (await store.lock_exports(tx, [export.export_id]))[export.export_id]

    def files(self) -> list[str]:
        """The files that there are."""
        return sorted(path.name for path in self.directory.iterdir())


@pytest_asyncio.fixture
async def bench(database: Access, tmp_path: Path) -> AsyncIterator[Bench]:
    """Both services' own roles on a migrated database of this test alone."""
    clock = FakeClock(NOW)
    own = await opened(database, "export-builder", clock)
    executor = await opened(database, "erasure-executor", clock)
    directory = tmp_path / "artefacts"
    yield Bench(own, executor, KeyStore(RING, clock.now), Vault(directory), directory)
    await own.close()
    await executor.close()


async def test_an_export_is_built_once(bench: Bench) -> None:
    """Completed means: one file, its key sealed, the account forgotten."""
    export = await bench.begin()
    await bench.sweep()
    await bench.sweep()
    done = await bench.look(export)
    assert (done.state, done.account, done.exported, done.attempts) == (State.COMPLETED, None, (TABLE,), 1)
    assert bench.files() == [f"{export.export_id}.1.zip.tink"]


async def test_who_is_erased_while_it_is_built_leaves_no_file(bench: Bench) -> None:
    """The data key is gone when the artefact is ready: it does not count and is deleted, and the next attempt has nothing to hand out."""
    export = await bench.begin()
    await bench.sweep(lambda: bench.destroy_key(export.subject_id))
    stuck = await bench.look(export)
    assert (stuck.state, stuck.stuck_reason, bench.files()) == (State.STUCK, StuckReason.KEY_MISSING, [])
    await bench.hear(export)
    cast("FakeClock", bench.db.clock).advance(timedelta(minutes=5))
    await bench.sweep()
    empty = await bench.look(export)
    assert (empty.state, empty.exported, empty.artefact_key) == (State.COMPLETED, (), None)


async def test_news_of_an_erasure_waits_for_the_export_that_is_being_finished(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key read, artefact not committed yet: whoever hears of the erasure then withdraws the artefact, as of a finished export."""
    export = await bench.begin()
    read = KeyStore.read
    tasks = asyncio.TaskGroup()

    async def meanwhile(keys: KeyStore, tx: Transaction, *args: Any) -> Mapping[UUID, SubjectKey]:
        found = await read(keys, tx, *args)
        if tx.name == "exports-finish":
            await bench.destroy_key(export.subject_id)
            tasks.create_task(bench.hear(export))
            await until(waits, "somebody who waits for the row")
        return found

    async def waits() -> bool:
        rows = await bench.executor.read("test-waits", WAITING)
        return bool(rows[0]["count"])

    monkeypatch.setattr(KeyStore, "read", meanwhile)
    async with tasks:
        await bench.sweep()
    assert (await bench.look(export)).state is State.WITHDRAWING
    await sweeps.delete_withdrawn(bench.db, bench.vault)
    assert ((await bench.look(export)).state, bench.files()) == (State.DELETED, [])


async def verify(bench: Bench, request_id: UUID, subject_id: UUID) -> UUID:
    """Let a request for access be verified, and return its export's id."""
    async with bench.executor.transaction("test-keys") as tx:
        data = (await bench.keys.create(tx, [subject_id], tx.now))[subject_id].data
    event = RequestVerified(
        request_id=request_id,
        subject_id=subject_id,
        right=Right.ACCESS,
        account=seal_text(data, Place("request", request_id, "account"), "acc_1"),
        categories=None,
        due_on=date(2026, 12, 24),
        subject_ref="ab" * 32,
        verified_at=NOW,
    )
    message = Message(1, uuid7(bench.db.clock), topics.REQUESTS, event.type, b"k", None, NOW, 0, b"", event)
    async with bench.db.transaction("test-verify") as tx:
        await handlers.on_request_verified(Batch([message], {}), tx)
    return lifecycle.begin_export(event, None, NOW).export.export_id


async def told(bench: Bench) -> list[dict[str, Any]]:
    """Return the news of exports that were completed, in order."""
    sql = "SELECT value FROM export_builder.outbox WHERE type = 'export.completed' ORDER BY outbox_id"
    return [json.loads(row["value"]) for row in await bench.db.read("test-told", sql)]


async def test_a_request_that_is_taken_anew_is_built_anew_under_its_id(bench: Bench) -> None:
    """Sent again to a restored database, a request belongs to another subject; the id that was mailed leads to the new export."""
    request_id, clock = uuid7(bench.db.clock), cast("FakeClock", bench.db.clock)
    lost, subject_id = uuid7(clock), uuid7(clock)
    export_id = await verify(bench, request_id, lost)
    await bench.destroy_key(lost)
    await bench.sweep()
    assert await told(bench) == []
    assert await verify(bench, request_id, subject_id) == export_id
    await bench.sweep()
    (news,) = await told(bench)
    assert (news["export_id"], news["subject_id"], news["tables"][0]["rows"]) == (str(export_id), str(subject_id), 3)
    assert bench.files() == [f"{export_id}.2.zip.tink"]
    await verify(bench, request_id, subject_id)
    assert await told(bench) == [news, news], "whoever asks again is told again"


MANY = [f"acc_{number}" for number in range(250)]
BAD = MANY[137]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StoreRefused("platform", "tasks", "22P02"), StuckReason.STORE_REFUSED),
        (RecursionError(), StuckReason.UNEXPECTED),
        (ArtefactUnwritable(UUID(int=0)), StuckReason.ARTEFACT_UNWRITABLE),
    ],
    ids=["refused", "unforeseen", "unwritable"],
)
async def test_one_bad_among_many_waits_alone(bench: Bench, error: Exception, reason: StuckReason) -> None:
    """The other 249 are built the first time; the one is stuck with its reason, and done by itself once it is mended."""
    exports = await bench.begin_all(MANY)
    while (await bench.sweep(bad={BAD: error})).handled:
        pass
    assert await bench.unfinished() == {exports[BAD].export_id}
    stuck = await bench.look(exports[BAD])
    assert (stuck.state, stuck.stuck_reason, stuck.attempts) == (State.STUCK, reason, 1)
    assert await bench.stuck() == {reason: 1}
    assert len(bench.files()) == len(MANY) - 1
    bench.wait_out()
    await bench.sweep()
    assert await bench.unfinished() == set()


@pytest.mark.parametrize("error", [TooLarge(), None], ids=["many rows", "slow"])
async def test_one_that_takes_long_is_left_apart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """Who has very many rows, or takes long alone, is built apart: nobody waits for it, and it is no failure."""
    monkeypatch.setattr(sweeps, "SMALL", replace(sweeps.SMALL, limits=Limits(0.5)))
    exports = await bench.begin_all([*MANY[:20], BAD])
    did: list[set[str]] = []
    bench.db.on_commit(lambda pending: did.append(pending.did))
    while (await bench.sweep(bad={BAD: error})).handled:
        pass
    assert [each for each in did if each] == [{"set_apart"}], "which wakes those who build large ones"
    assert await bench.unfinished() == {exports[BAD].export_id}
    apart = await bench.look(exports[BAD])
    assert (apart.state, apart.is_large, await bench.stuck()) == (State.READY, True, {})
    await bench.sweep_large()
    assert await bench.unfinished() == set()


async def test_one_that_is_slow_apart_gets_more_time_each_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stuck with its reason after the first attempt that took too long."""
    monkeypatch.setattr(sweeps, "SMALL", replace(sweeps.SMALL, limits=Limits(0.2)))
    monkeypatch.setattr(sweeps, "LARGE", replace(sweeps.LARGE, limits=Limits(0.2)))
    export = await bench.begin()
    await bench.sweep(bad={"acc_1": None})
    await bench.sweep_large({"acc_1": None})
    stuck = await bench.look(export)
    assert (stuck.state, stuck.stuck_reason) == (State.STUCK, StuckReason.STORE_UNAVAILABLE)
    bench.wait_out()
    await bench.sweep_large()
    assert await bench.unfinished() == set()


async def test_work_that_ends_its_process_gets_a_reason_and_is_tried_apart(bench: Bench) -> None:
    """After three attempts without an end the export says so, waits, and is built apart from others."""
    export = await bench.begin()

    async def die() -> None:
        raise Killed

    for _ in range(3):
        with pytest.raises(Killed):
            await bench.sweep(die)
        assert await bench.stuck() == {}
        bench.wait_out()
    await bench.sweep()
    assert await bench.stuck() == {StuckReason.INTERRUPTED: 1}
    bench.wait_out()
    await bench.sweep_large()
    assert (await bench.look(export)).state is State.COMPLETED


async def test_one_file_that_stays_keeps_no_other(bench: Bench) -> None:
    """What cannot be deleted says so and is tried again; the others go at once."""
    exports = await bench.begin_all(MANY[:5])
    await bench.sweep()
    kept = exports[MANY[2]]
    path = bench.directory / f"{kept.export_id}.1.zip.tink"
    path.unlink()
    path.mkdir()
    for export in exports.values():
        await bench.hear(export)
    await sweeps.delete_withdrawn(bench.db, bench.vault)
    assert [name for name in bench.files() if name != path.name] == []
    assert await bench.stuck() == {StuckReason.ARTEFACT_UNWRITABLE: 1}
    path.rmdir()
    bench.wait_out()
    await sweeps.delete_withdrawn(bench.db, bench.vault)
    assert ((await bench.look(kept)).state, await bench.stuck()) == (State.DELETED, {})
