"""Attempts at erasure over a real database: whatever step dies, the erasure is finished and reported as it was."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
import pytest_asyncio
from typing_extensions import override

from erasure_executor import lifecycle, store, sweeps
from erasure_executor.gateways import Guard, Outcomes
from erasure_executor.lifecycle import Erasure, State
from habeas.chassis.clock import FakeClock
from habeas.chassis.database import Database
from habeas.chassis.ids import uuid7
from habeas.chassis.together import Limits
from habeas.contracts.outcomes import TableOutcome
from habeas.contracts.vocabulary import StuckReason, TableResult
from habeas.datamap.errors import StoreError, StoreRefused, StoreUnavailable, Unavailability
from habeas.sealing import Fingerprinter, KeyKind, KeyStore, Place, seal_text
from habeas.sealing.kek import KeyRing, new_key_ring
from habeas_embedded.provision import Access
from tests.support.databases import opened
from tests.support.waiting import HANGS_S, until

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
RING = KeyRing(new_key_ring())


class Killed(BaseException):
    """What ends a process without a word; no handler of errors may catch it."""


@dataclass
class Shelf:
    """A store of three rows a person; dies, refuses or is away when told to."""

    rows: dict[str, int]
    dies: str | None = None
    fails: StoreError | None = None
    refuses: frozenset[str] = frozenset()
    breaks: frozenset[str] = frozenset()  # whose rows make the connector fail in a way that nobody foresaw
    waits: dict[str, float] = field(default_factory=dict)  # seconds that an erasure takes
    erased: list[tuple[str, ...]] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[None]] | None = None  # what happens elsewhere before the store commits

    async def plan(self, account_ids: Sequence[str]) -> Outcomes:
        """Count."""
        if self.fails is not None:
            raise self.fails
        return {each: self._outcomes(self.rows.get(each, 0)) for each in account_ids}

    async def check(self) -> Sequence[StoreError]:
        """Be unfit when told to."""
        return [] if self.fails is None else [self.fails]

    async def erase(self, account_ids: Sequence[str], guard: Guard) -> Outcomes:
        """Erase, and die before or after it when told to."""
        if self.dies == "before the store":
            raise Killed
        if self.refuses & set(account_ids):
            raise StoreRefused("platform", "tasks", "42501")
        if self.breaks & set(account_ids):
            raise KeyError
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), sum(self.waits.get(each, 0) for each in account_ids))
        if self.meanwhile is not None:
            await self.meanwhile()
        await guard()
        self.erased.append(tuple(account_ids))
        done = {each: self._outcomes(self.rows.pop(each, 0)) for each in account_ids}
        if self.dies == "after the store":
            raise Killed
        return done

    def _outcomes(self, rows: int) -> tuple[TableOutcome, ...]:
        result = TableResult.ERASED if rows else TableResult.NOTHING_HELD
        return (TableOutcome(store="platform", table="tasks", category="usage", result=result, rows=rows),)


@dataclass
class Bench:
    """erasure-executor's database, keys and a clock."""

    db: Database
    clock: FakeClock
    keys: KeyStore
    fingerprinter: Fingerprinter

    async def begin(self, account_id: str, subject_id: UUID | None = None) -> UUID:
        """Take up an erasure of a person whose keys exist."""
        return (await self.begin_all([account_id], subject_id))[account_id]

    async def begin_all(self, account_ids: Sequence[str], subject_id: UUID | None = None) -> dict[str, UUID]:
        """Take up erasures of people whose keys exist; gives the request of each account."""
        requests = {account_id: uuid7(self.clock) for account_id in account_ids}
        subjects = {account_id: subject_id or uuid7(self.clock) for account_id in account_ids}
        async with self.db.transaction("test-begin") as tx:
            keys = await self.keys.create(tx, list(subjects.values()), tx.now)
            erasures = []
            for account_id, request_id in requests.items():
                subject = subjects[account_id]
                account = seal_text(keys[subject].data, Place("request", request_id, "account"), account_id)
                erasures.append(Erasure(request_id, subject, State.READY, account, date(2026, 12, 24), NOW, None))
            await store.add_erasures(tx, erasures)
        return requests

    async def states(self) -> dict[UUID, State]:
        """Give the state of every erasure."""
        rows = await self.db.read("test-states", "SELECT request_id, state FROM erasure_executor.erasures")
        return {row["request_id"]: State(row["state"]) for row in rows}

    async def change(self, sql: str) -> None:
        """Change rows as nobody does who keeps the rules."""
        async with self.db.transaction("test-change") as tx:
            await tx.execute(sql)

    async def stuck(self) -> dict[str, int]:
        """Count what is shown as stuck, by reason."""
        return {row["reason"]: row["rows"] for row in await self.db.read("test-stuck", store.COUNT_STUCK)}

    async def sweep(self, shelf: Shelf) -> None:
        """Sweep once."""
        await sweeps.erase_due(self.db, shelf, self.keys, self.fingerprinter)

    async def sweep_large(self, shelf: Shelf) -> None:
        """Sweep those once that are tried apart."""
        await sweeps.erase_large(self.db, shelf, self.keys, self.fingerprinter)

    def wait_out(self) -> None:
        """Let the pause of what is stuck pass."""
        self.clock.advance(timedelta(minutes=6))

    async def look(self, request_id: UUID) -> Erasure:
        """Read an erasure."""
        async with self.db.transaction("test-look") as tx:
            return (await store.lock_erasures(tx, [request_id]))[request_id]

    async def has_key(self, subject_id: UUID, kind: KeyKind) -> bool:
        """Answer whether the subject's key exists."""
        async with self.db.transaction("test-key") as tx:
            return subject_id in await self.keys.read(tx, [subject_id], kind)

    async def count(self, sql: str) -> int:
        """Count rows."""
        rows = await self.db.read("test-count", sql)
        return int(rows[0][0])


@pytest_asyncio.fixture
async def bench(database: Access) -> AsyncIterator[Bench]:
    """A service's own role on a migrated database of this test alone."""
    clock = FakeClock(NOW)
    db = await opened(database, "erasure-executor", clock)
    yield Bench(db, clock, KeyStore(RING, clock.now), Fingerprinter(RING))
    await db.close()


async def test_an_erasure_leaves_a_tombstone_and_no_key(bench: Bench) -> None:
    """Completed means: erased, tombstone, data key destroyed, event and facts in the outbox; the case key stays."""
    request_id = await bench.begin("acc_1")
    await bench.sweep(Shelf({"acc_1": 3}))
    erasure = await bench.look(request_id)
    assert (erasure.state, erasure.account, erasure.outcomes[0].rows) == (State.COMPLETED, None, 3)
    assert not await bench.has_key(erasure.subject_id, KeyKind.DATA)
    assert await bench.has_key(erasure.subject_id, KeyKind.CASE)
    assert await bench.count("SELECT count(*) FROM erasure_executor.tombstones") == 1
    assert await bench.count("SELECT count(*) FROM erasure_executor.outbox WHERE type = 'erasure.completed'") == 1


@pytest.mark.parametrize("moment", ["before the store", "after the store"])
async def test_whatever_dies_is_finished_later(bench: Bench, moment: str) -> None:
    """A process that dies around the store's commit leaves the key; after the lease it is finished, with the first count."""
    request_id = await bench.begin("acc_1")
    rows = {"acc_1": 3}
    with pytest.raises(Killed):
        await bench.sweep(Shelf(rows, dies=moment))
    died = await bench.look(request_id)
    assert died.state is State.ERASING
    assert await bench.has_key(died.subject_id, KeyKind.DATA)
    await bench.sweep(Shelf(rows))
    assert (await bench.look(request_id)).state is State.ERASING, "nobody takes it up before the lease is over"
    bench.clock.advance(lifecycle.LEASE + timedelta(seconds=1))
    await bench.sweep(Shelf(rows))
    done = await bench.look(request_id)
    assert (done.state, done.outcomes[0].result, done.outcomes[0].rows) == (State.COMPLETED, TableResult.ERASED, 3)


async def test_an_attempt_may_take_longer_than_its_lease(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the process works on it, the lease goes on, and no other replica takes the erasure up."""
    monkeypatch.setattr(lifecycle, "LEASE", timedelta(seconds=0.6))
    monkeypatch.setattr(sweeps, "SMALL", replace(sweeps.SMALL, limits=Limits(HANGS_S)))
    request_id = await bench.begin("acc_1")
    other = Shelf({"acc_1": 3})

    class Slow(Shelf):
        """A store that takes three leases."""

        @override
        async def erase(self, account_ids: Sequence[str], guard: Guard) -> Outcomes:
            for _ in range(6):
                bench.clock.advance(timedelta(seconds=0.3))
                due = bench.clock.now() + lifecycle.LEASE

                async def renewed(due: datetime = due) -> bool:
                    rows = await bench.db.read("test-due", "SELECT next_attempt_at FROM erasure_executor.erasures")
                    return bool(rows[0]["next_attempt_at"] == due)

                await until(renewed, "a renewed lease")
                await bench.sweep(other)
            return await super().erase(account_ids, guard)

    await bench.sweep(Slow({"acc_1": 3}))
    assert (await bench.look(request_id)).state is State.COMPLETED
    assert other.erased == []


async def test_an_account_that_does_not_open_holds_nobody_up(bench: Bench) -> None:
    """Sealed under another key, it can not be read: that one is stuck with the reason, never done, and the rest is erased."""
    broken, whole = await bench.begin("acc_1"), await bench.begin("acc_2")
    async with bench.db.transaction("test-break") as tx:
        await tx.execute(
            "UPDATE erasure_executor.erasures SET account = (SELECT account FROM erasure_executor.erasures WHERE request_id = $1)"
            " WHERE request_id = $2",
            whole,
            broken,
        )
    await bench.sweep(Shelf({"acc_1": 3, "acc_2": 3}))
    stuck = await bench.look(broken)
    assert (stuck.state, stuck.stuck_reason) == (State.STUCK, StuckReason.KEY_MISSING)
    assert (await bench.look(whole)).state is State.COMPLETED


async def test_a_replica_that_comes_back_late_erases_nobody(bench: Bench) -> None:
    """Stood still for longer than its lease, it finds before the store's commit that another one has erased, and rolls back."""
    request_id = await bench.begin("acc_1")
    other = Shelf({"acc_1": 3})

    async def stand_still() -> None:
        bench.clock.advance(lifecycle.LEASE + timedelta(seconds=1))
        await bench.sweep(other)
        late.rows["acc_1"] = 5  # an account of the same name was opened anew

    late = Shelf({"acc_1": 3}, meanwhile=stand_still)
    await bench.sweep(late)
    assert (other.erased, late.erased, late.rows) == ([("acc_1",)], [], {"acc_1": 5})
    done = await bench.look(request_id)
    assert (done.state, done.attempts, done.outcomes[0].rows) == (State.COMPLETED, 2, 3)
    assert await bench.count("SELECT count(*) FROM erasure_executor.outbox WHERE type = 'erasure.completed'") == 1


async def test_one_who_is_refused_does_not_hold_up_the_others(bench: Bench) -> None:
    """When the store objects to one person, the rest of the batch is erased, and the one is stuck with table and reason."""
    requests = {account: await bench.begin(account) for account in ("acc_1", "acc_2", "acc_3")}
    shelf = Shelf(dict.fromkeys(requests, 3), refuses=frozenset({"acc_2"}))
    await bench.sweep(shelf)
    states = {account: (await bench.look(request_id)).state for account, request_id in requests.items()}
    assert states == {"acc_1": State.COMPLETED, "acc_2": State.STUCK, "acc_3": State.COMPLETED}
    stuck = await bench.look(requests["acc_2"])
    assert (stuck.stuck_reason, stuck.stuck_table) == (StuckReason.STORE_REFUSED, "tasks")
    assert await bench.has_key(stuck.subject_id, KeyKind.DATA)


async def test_a_store_that_is_away_is_waited_for(bench: Bench) -> None:
    """Nothing is claimed while the store does not answer; once it does, the erasure completes."""
    request_id = await bench.begin("acc_1")
    await bench.sweep(Shelf({"acc_1": 3}, fails=StoreUnavailable("platform", Unavailability.NO_CONNECTION)))
    stuck = await bench.look(request_id)
    assert (stuck.state, stuck.stuck_reason) == (State.STUCK, StuckReason.STORE_UNAVAILABLE)
    bench.clock.advance(timedelta(minutes=6))
    await bench.sweep(Shelf({"acc_1": 3}))
    assert (await bench.look(request_id)).state is State.COMPLETED


async def test_a_store_that_is_unfit_is_told_before_an_erasure_needs_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with a store goes into the log by itself, and ends nothing; a store that fits says nothing."""
    told: list[dict[str, object]] = []
    monkeypatch.setattr("habeas.chassis.log.event", lambda name, **fields: told.append({"name": name, **fields}))
    await sweeps.look_at_stores(bench.db, Shelf({}))
    assert told == []
    refused = StoreRefused("platform", "tasks", "42501")
    await sweeps.look_at_stores(bench.db, Shelf({}, fails=refused))
    assert told == [
        {"name": "stores.unfit", "reason": StuckReason.STORE_REFUSED, "why": str(refused), "error": refused}
    ]


async def test_a_second_erasure_of_one_person_finds_nothing(bench: Bench) -> None:
    """Without the key that an earlier erasure destroyed, there is nothing to open and nothing held: completed, not stuck."""
    first = await bench.begin("acc_1")
    subject_id = (await bench.look(first)).subject_id
    second = await bench.begin("acc_1", subject_id)
    async with bench.db.transaction("test-delay") as tx:
        await tx.execute(
            "UPDATE erasure_executor.erasures SET next_attempt_at = $2 WHERE request_id = $1",
            second,
            NOW + timedelta(hours=1),
        )
    await bench.sweep(Shelf({"acc_1": 3}))
    bench.clock.advance(timedelta(hours=2))
    await bench.sweep(Shelf({}))
    again = await bench.look(second)
    assert (again.state, again.outcomes) == (State.COMPLETED, ())


async def test_a_key_that_is_gone_without_an_erasure_is_no_success(bench: Bench) -> None:
    """A missing key is never taken for an erased person: the erasure is stuck and says why."""
    request_id = await bench.begin("acc_1")
    subject_id = (await bench.look(request_id)).subject_id
    async with bench.db.transaction("test-lose") as tx:
        await bench.keys.destroy(tx, [subject_id], KeyKind.DATA)
    shelf = Shelf({"acc_1": 3})
    await bench.sweep(shelf)
    stuck = await bench.look(request_id)
    assert (stuck.state, stuck.stuck_reason, shelf.erased) == (State.STUCK, StuckReason.KEY_MISSING, [])


MANY = [f"acc_{number}" for number in range(250)]
BAD = MANY[137]


@pytest.mark.parametrize(
    ("shelf", "reason"),
    [
        (Shelf({}, refuses=frozenset({BAD})), StuckReason.STORE_REFUSED),
        (Shelf({}, breaks=frozenset({BAD})), StuckReason.UNEXPECTED),
    ],
    ids=["refused", "unforeseen"],
)
async def test_one_bad_among_many_waits_alone(bench: Bench, shelf: Shelf, reason: StuckReason) -> None:
    """The other 249 are erased in the first round; the one is stuck with its reason, and done by itself once it is mended."""
    requests = await bench.begin_all(MANY)
    await bench.sweep(shelf)
    states = await bench.states()
    assert [account for account in MANY if states[requests[account]] is not State.COMPLETED] == [BAD]
    stuck = await bench.look(requests[BAD])
    assert (stuck.state, stuck.stuck_reason, await bench.stuck()) == (State.STUCK, reason, {reason: 1})
    bench.wait_out()
    await bench.sweep(Shelf({}))
    assert set((await bench.states()).values()) == {State.COMPLETED}


async def test_one_that_takes_long_is_left_apart_and_gets_more_time_each_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All others are erased in the first round; the slow one is stuck while its limit is too short, which grows until it is enough."""
    monkeypatch.setattr(sweeps, "SMALL", replace(sweeps.SMALL, limits=Limits(0.5)))
    monkeypatch.setattr(sweeps, "LARGE", replace(sweeps.LARGE, limits=Limits(0.1)))
    requests = await bench.begin_all(MANY)
    slow = Shelf(dict.fromkeys(MANY, 3), waits={BAD: 12.0})
    did: list[set[str]] = []
    bench.db.on_commit(lambda pending: did.append(pending.did))
    await bench.sweep(slow)
    assert (await bench.look(requests[BAD])).is_large
    assert [each for each in did if each] == [{"set_apart"}], "which wakes those who do large ones"
    await bench.sweep(slow)
    await bench.sweep_large(slow)
    assert [each for each in did if each] == [{"set_apart"}], "once"
    stuck = await bench.look(requests[BAD])
    assert (stuck.state, stuck.stuck_reason) == (State.STUCK, StuckReason.STORE_UNAVAILABLE)
    slow.waits[BAD] = 1.0
    for _ in range(8):
        bench.wait_out()
        await bench.sweep_large(slow)
    done = await bench.look(requests[BAD])
    assert (done.state, done.outcomes[0].rows) == (State.COMPLETED, 3)
    assert done.attempts > 3
    while await bench.count("SELECT count(*) FROM erasure_executor.erasures WHERE state <> 'completed'"):
        bench.wait_out()  # on a slow machine others may have been taken for slow as well
        await bench.sweep_large(Shelf({}))


async def test_small_ones_do_not_wait_for_a_large_one(bench: Bench) -> None:
    """Who has very many rows is erased apart: whoever comes before, with or after it is done while that still runs."""
    requests = await bench.begin_all(["acc_small", "acc_large"])
    rows = {"acc_small": 3, "acc_large": lifecycle.LARGE_ROWS + 1, "acc_later": 3}
    at_work, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        at_work.set()
        await go_on.wait()

    shelf, large = Shelf(rows), Shelf(rows, meanwhile=wait)
    await bench.sweep(shelf)
    assert (await bench.look(requests["acc_small"])).state is State.COMPLETED
    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(bench.sweep_large(large))
        await at_work.wait()
        later = await bench.begin("acc_later")
        await bench.sweep(shelf)
        assert (await bench.look(later)).state is State.COMPLETED
        assert (await bench.look(requests["acc_large"])).state is State.ERASING
        go_on.set()
    done = await bench.look(requests["acc_large"])
    assert (done.state, done.outcomes[0].rows) == (State.COMPLETED, lifecycle.LARGE_ROWS + 1)
    assert [set(each) for each in (*shelf.erased, *large.erased)] == [{"acc_small"}, {"acc_later"}, {"acc_large"}]


async def test_work_that_ends_its_process_gets_a_reason_and_is_tried_apart(bench: Bench) -> None:
    """After three attempts without an end all of the batch have a reason, and only the one that does it is left of them."""
    requests = await bench.begin_all(["acc_1", "acc_2", "acc_3"])
    for _ in range(3):
        with pytest.raises(Killed):
            await bench.sweep(Shelf({}, dies="before the store"))
        assert await bench.stuck() == {}
        bench.clock.advance(lifecycle.LEASE)
    await bench.sweep(Shelf({}))
    assert await bench.stuck() == {StuckReason.INTERRUPTED: 3}
    assert await bench.count("SELECT count(*) FROM erasure_executor.outbox WHERE type = 'erasure.stuck'") == 3
    bench.wait_out()
    with pytest.raises(Killed):
        await bench.sweep_large(Shelf({}, dies="before the store"))
    for _ in range(2):
        await bench.sweep_large(Shelf({}))
    assert sorted((await bench.states()).values()) == ["completed", "completed", "erasing"]
    bench.clock.advance(lifecycle.LEASE)
    await bench.sweep_large(Shelf({}))
    assert await bench.stuck() == {StuckReason.INTERRUPTED: 1}
    bench.wait_out()
    await bench.sweep_large(Shelf({}))
    assert {(await bench.look(each)).state for each in requests.values()} == {State.COMPLETED}


async def test_work_without_an_end_and_without_a_reason_is_seen(bench: Bench) -> None:
    """Should anything be begun again and again and never say why, that is a reason to look."""
    request_id = await bench.begin("acc_1")
    await bench.change("UPDATE erasure_executor.erasures SET state = 'erasing', attempts = 3")
    assert await bench.stuck() == {}
    await bench.change("UPDATE erasure_executor.erasures SET attempts = 4")
    assert await bench.stuck() == {"unexplained": 1}
    await bench.change("UPDATE erasure_executor.erasures SET state = 'completed'")
    assert (await bench.stuck(), (await bench.look(request_id)).state) == ({}, State.COMPLETED)
