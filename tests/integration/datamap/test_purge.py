"""Retention in a real PostgreSQL: never early, children first, partitions whole."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from habeas.datamap.planner import PurgeRule
from habeas.datamap.postgres import PostgresStore, PurgeResult
from tests.integration.datamap.conftest import PEOPLE, Shop
from tests.support.shop import DATAMAP, checksums, read_map
from tests.support.waiting import HANGS_S

ONE = PEOPLE[7]
CREATED = datetime(2026, 11, 1, 10, 0, tzinfo=UTC)
"""When everything of the shop's sixty people was created."""
SOON = timedelta(microseconds=1)


async def _rule(shop: Shop, table: str, retention: str = "execution") -> PurgeRule:
    (rule,) = [r for r in await shop.store.purge_rules() if (r.table, r.retention) == (table, retention)]
    return rule


async def _purge(shop: Shop, table: str, cutoff: datetime, retention: str = "execution", **more: object) -> PurgeResult:
    return await shop.store.purge(await _rule(shop, table, retention), cutoff, 10_000, **more)  # type: ignore[arg-type]  # held


async def _partitions(shop: Shop) -> list[str]:
    rows = await shop.owner.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'logs'::regclass"
    )
    return sorted(row["name"] for row in rows)


async def test_rules_stand_children_first(shop: Shop) -> None:
    """Every table with an age has a rule, and what the account takes along has a second one."""
    rules = [(rule.table, rule.retention, rule.age) for rule in await shop.store.purge_rules()]
    assert rules == [
        ("contents", "execution", "tasks.created_at"),
        ("contents", "account", "accounts.closed_at"),
        ("invoices", "invoices", "issued_on"),
        ("logs", "execution", "logged_at"),
        ("logs", "account", "accounts.closed_at"),
        ("steps", "execution", "tasks.created_at"),
        ("steps", "account", "accounts.closed_at"),
        ("tasks", "execution", "created_at"),
        ("tasks", "account", "accounts.closed_at"),
        ("accounts", "account", "closed_at"),
    ]


async def test_row_goes_right_after_its_time_and_not_at_it(shop: Shop) -> None:
    """A row dated exactly at the cutoff stays; a microsecond later it goes."""
    before = await checksums(shop.owner)
    assert (await _purge(shop, "contents", CREATED)).rows == 0
    assert await checksums(shop.owner) == before
    result = await _purge(shop, "contents", CREATED + SOON)
    assert result == PurgeResult(rows=480, partitions_dropped=0, oldest_left=None, more=False)


async def test_parents_wait_for_their_children(shop: Shop) -> None:
    """No orphan is ever made: parents stay while children are there, and go after them."""
    later = CREATED + timedelta(days=1)
    held = await _purge(shop, "tasks", later)
    assert (held.rows, held.oldest_left) == (0, CREATED)
    assert [(await _purge(shop, table, later)).rows for table in ("contents", "steps", "tasks")] == [480, 240, 120]


async def test_batches_are_bounded(shop: Shop) -> None:
    """A call deletes at most its limit and says when more is waiting; the sum is everything, once."""
    rule = await _rule(shop, "contents")
    counts = []
    more = True
    while more:
        result = await shop.store.purge(rule, CREATED + SOON, 100)
        counts.append(result.rows)
        more = result.more
    assert counts == [100, 100, 100, 100, 80]


@pytest.mark.parametrize(
    ("cutoff", "left", "rows", "dropped"),
    [
        ("2026-11-21T00:00:00.000000+00:00", ["logs_21", "logs_22", "logs_23", "logs_24"], 0, 1),
        ("2026-11-20T23:59:59.999999+00:00", ["logs_20", "logs_21", "logs_22", "logs_23", "logs_24"], 60, 0),
        ("2026-11-22T12:00:00.000000+00:00", ["logs_22", "logs_23", "logs_24"], 0, 2),
        ("2026-11-22T12:00:00.000001+00:00", ["logs_22", "logs_23", "logs_24"], 60, 2),
        ("2026-11-22T01:00:00.000000+01:00", ["logs_22", "logs_23", "logs_24"], 0, 2),
        ("2026-11-19T00:00:00.000000+00:00", ["logs_20", "logs_21", "logs_22", "logs_23", "logs_24"], 0, 0),
    ],
)
async def test_partition_is_never_dropped_early(
    shop: Shop, cutoff: str, left: list[str], rows: int, dropped: int
) -> None:
    """A day goes whole when it ended by the cutoff; a microsecond before, its rows go one by one, those that are older."""
    result = await _purge(shop, "logs", datetime.fromisoformat(cutoff))
    assert (result.rows, result.partitions_dropped) == (rows, dropped)
    assert await _partitions(shop) == left
    # The last lines of the 180 are dated 22 November, 12:00 UTC.
    remaining = await shop.owner.fetchval("SELECT count(*) FROM logs")
    assert result.oldest_left == await shop.owner.fetchval("SELECT min(logged_at) FROM logs")
    expected = sum(
        60 for day in (20, 21, 22) if datetime(2026, 11, day, 12, tzinfo=UTC) >= datetime.fromisoformat(cutoff)
    )
    assert remaining == expected


async def test_open_and_default_partitions_are_never_dropped(shop: Shop) -> None:
    """A partition without a finite end may hold anything: only its old rows go."""
    await shop.owner.execute("CREATE TABLE logs_rest PARTITION OF logs DEFAULT")
    await shop.owner.execute(
        "CREATE TABLE logs_late PARTITION OF logs FOR VALUES FROM ('2027-01-01T00:00Z') TO (MAXVALUE)"
    )
    await shop.owner.execute("INSERT INTO logs VALUES (1, 'x', '2020-01-01T00:00Z'), (2, 'x', '2027-01-01T00:00Z')")
    result = await _purge(shop, "logs", datetime(2027, 1, 1, tzinfo=UTC))
    assert (result.rows, result.partitions_dropped) == (1, 5)
    assert await _partitions(shop) == ["logs_late", "logs_rest"]
    assert result.oldest_left == datetime(2027, 1, 1, tzinfo=UTC)


async def test_held_people_keep_their_rows(shop: Shop) -> None:
    """Rows of a person under a hold stay, in tables and in partitions; everybody else's go."""
    late = datetime(2026, 11, 25, tzinfo=UTC)
    assert (await _purge(shop, "contents", late, held=[ONE])).rows == 472
    assert [row["account_id"] for row in await shop.owner.fetch(
        "SELECT DISTINCT account_id FROM contents JOIN steps ON steps.id = step_id JOIN tasks ON tasks.id = task_id"
    )] == [ONE]  # fmt: skip
    result = await _purge(shop, "logs", late, held=[ONE])
    assert (result.rows, result.partitions_dropped) == (3 * 59, 2)
    assert {row["account_id"] for row in await shop.owner.fetch("SELECT account_id FROM logs")} == {ONE}


async def test_dates_are_whole_days_of_the_controllers_zone(shop: Shop) -> None:
    """An invoice of 15 March 2026 in Berlin is older than a cutoff only when that day has ended there (23:00 UTC)."""
    assert (await _purge(shop, "invoices", datetime(2026, 3, 15, 22, 59, 59, tzinfo=UTC), "invoices")).rows == 0
    assert (await _purge(shop, "invoices", datetime(2026, 3, 15, 23, 0, tzinfo=UTC), "invoices")).rows == 60


async def test_closed_account_takes_everything_along_but_what_is_kept(shop: Shop) -> None:
    """Past its retention, an account goes with all that hangs on it; invoices stay, without the person."""
    closed = datetime(2026, 11, 10, tzinfo=UTC)
    await shop.owner.execute("UPDATE accounts SET closed_at = $2 WHERE id = $1", ONE, closed)
    tables = [rule.table for rule in await shop.store.purge_rules() if rule.retention == "account"]
    assert [(await _purge(shop, table, closed, "account")).rows for table in tables] == [0, 0, 0, 0, 0]
    rows = {table: (await _purge(shop, table, closed + SOON, "account")).rows for table in tables}
    assert rows == {"contents": 8, "logs": 3, "steps": 4, "tasks": 2, "accounts": 1}
    assert await shop.owner.fetchval("SELECT count(*) FROM invoices WHERE account_id IS NULL") == 1
    assert await shop.owner.fetchval("SELECT count(*) FROM accounts") == 59


async def test_row_that_is_touched_meanwhile_is_judged_by_what_it_is_then(shop: Shop) -> None:
    """A row that another transaction makes young while the sweep waits for it is not deleted."""
    await shop.owner.execute("DELETE FROM contents; DELETE FROM steps")
    rule = await _rule(shop, "tasks")
    watcher = await asyncpg.connect(shop.dsn)
    change = shop.owner.transaction()
    await change.start()
    await shop.owner.execute("UPDATE tasks SET created_at = $2 WHERE account_id = $1", ONE, CREATED + timedelta(days=9))
    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as group:
        sweep = group.create_task(shop.store.purge(rule, CREATED + SOON, 10_000))
        while not await watcher.fetchval("SELECT count(*) FROM pg_sleep(0.01), pg_locks WHERE NOT granted"):
            pass
        await change.commit()
    await watcher.close()
    assert sweep.result().rows == 118
    assert await shop.owner.fetchval("SELECT array_agg(account_id) FROM tasks") == [ONE, ONE]


async def test_cutoff_without_zone_is_refused(shop: Shop) -> None:
    """A time without a zone could be hours early."""
    with pytest.raises(ValueError, match="zone"):
        await _purge(shop, "tasks", datetime(2026, 11, 1))  # noqa: DTZ001 - what is refused


async def test_a_ghost_is_no_account_that_was_closed(shop: Shop, tmp_path: Path) -> None:
    """The row to which what is left of erased people refers stays, also while nothing refers to it; others closed as long go."""
    await shop.owner.execute(
        "INSERT INTO accounts (id, email, closed_at) SELECT name, name || '@example.org', '2020-01-01' FROM unnest($1::text[]) AS n (name)",
        ["acc_ghost", "acc_gone"],
    )
    (tmp_path / "ghost").mkdir()
    text = DATAMAP.replace("            habeas: {anonymise: null}\n", "            habeas: {anonymise: acc_ghost}\n", 1)
    store_map, policy = read_map(tmp_path / "ghost", text)
    async with PostgresStore(store_map, policy, shop.dsn) as store:
        (rule,) = [each for each in await store.purge_rules() if each.table == "accounts"]
        assert (await store.purge(rule, CREATED, 10_000)).rows == 1
    left = await shop.owner.fetch("SELECT id FROM accounts WHERE closed_at IS NOT NULL")
    assert [row["id"] for row in left] == ["acc_ghost"]
