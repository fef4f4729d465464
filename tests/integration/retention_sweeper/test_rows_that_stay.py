"""Rows that a store does not let go: they wait alone, with a reason, and everything else goes."""

from datetime import timedelta

import pytest

from habeas.datamap.planner import BUCKETS
from tests.integration.retention_sweeper.conftest import NOW, Killed, Shop, Sweeper, after_lease

LATER = NOW + timedelta(hours=2)
STUCK = "SELECT stuck_reason, count(*) FROM retention_sweeper.sweeps WHERE state = 'stuck' GROUP BY stuck_reason"

KEEP_ONE = """
    CREATE FUNCTION keep_one() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.prompt = 'stays' THEN RAISE EXCEPTION 'not this one'; END IF;
            RETURN OLD;
        END
    $$;
    CREATE TRIGGER keep_one BEFORE DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION keep_one()
"""


async def fill(shop: Shop, *, stays: bool = True) -> None:
    """Have 250 old tasks of one person, and nothing else; one of them does not go."""
    await shop.owner.execute("TRUNCATE accounts, tasks, steps, contents, logs, invoices, profiles")
    await shop.owner.execute("INSERT INTO accounts (id, email) VALUES ('acc_1', 'acc_1@example.org')")
    await shop.owner.execute(
        """
        INSERT INTO tasks (account_id, prompt, created_at)
        SELECT 'acc_1', CASE WHEN n = 138 AND $1 THEN 'stays' ELSE 'goes' END, '2026-10-01T00:00Z' FROM generate_series(1, 250) AS n
        """,
        stays,
    )


@pytest.mark.parametrize("rows_max", [10_000, 40])
async def test_one_row_among_many_stays_alone(sweeper: Sweeper, shop: Shop, rows_max: int) -> None:
    """The other 249 go in the first round; the rule is stuck with the reason, and done by itself once the row may go."""
    await fill(shop)
    await shop.owner.execute(KEEP_ONE)
    sweeper.rows_max = rows_max
    sweeper.clock.set(LATER)
    await sweeper.tick(LATER, "execution")
    await sweeper.run()
    assert [row["prompt"] for row in await shop.owner.fetch("SELECT prompt FROM tasks")] == ["stays"]
    assert [tuple(row) for row in await sweeper.reader.fetch(STUCK)] == [("store_refused", 1)]
    assert [(event["table"], event["reason"]) for event in await sweeper.told("sweep.stuck")] == [
        ("tasks", "store_refused")
    ]
    await shop.owner.execute("DROP TRIGGER keep_one ON tasks")
    after_lease(sweeper)
    await sweeper.run()
    assert await shop.owner.fetchval("SELECT count(*) FROM tasks") == 0
    (tasks,) = [event for event in await sweeper.told("sweep.completed") if event["table"] == "tasks"]
    assert tasks["rows"] == 250


async def test_a_rule_that_is_refused_as_a_whole_is_not_tried_row_by_row(sweeper: Sweeper, shop: Shop) -> None:
    """Three tries in a row are enough to see that it is no row's fault."""
    await fill(shop, stays=False)
    await shop.owner.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'never'; END $$;"
        "CREATE TRIGGER no BEFORE DELETE ON tasks FOR EACH STATEMENT EXECUTE FUNCTION no()"
    )
    sweeper.clock.set(LATER)
    await sweeper.tick(LATER, "execution")
    await sweeper.run()
    assert [each for each in sweeper.stores.purged if each[1] == "tasks"] == [("shop", "tasks", "execution")] * 3
    assert [tuple(row) for row in await sweeper.reader.fetch(STUCK)] == [("store_refused", 1)]


async def test_buckets_hold_every_row_once(sweeper: Sweeper, shop: Shop) -> None:
    """Whatever parts the buckets are divided into, each old row goes with one of them and none is left over."""
    await fill(shop, stays=False)
    (rule,) = [r for r in await shop.store.purge_rules() if (r.table, r.retention) == ("tasks", "execution")]
    size = BUCKETS // 4
    gone = [
        (await shop.store.purge(rule, NOW, 10_000, buckets=range(start, start + size))).rows
        for start in range(0, BUCKETS, size)
    ]
    assert (sum(gone), min(gone) > 0) == (250, True)
    assert await shop.owner.fetchval("SELECT count(*) FROM tasks") == 0


async def test_a_sweep_that_ends_its_process_gets_a_reason(sweeper: Sweeper, shop: Shop) -> None:
    """After three attempts without an end the rule is stuck and says so; the rules behind it go on."""
    await fill(shop, stays=False)
    sweeper.clock.set(LATER)
    await sweeper.tick(LATER, "execution")

    async def die() -> None:
        raise Killed

    for _ in range(3):
        sweeper.stores.meanwhile = die
        with pytest.raises(Killed):
            await sweeper.run()
        assert await sweeper.reader.fetch(STUCK) == []
        after_lease(sweeper)
    await sweeper.run()
    assert [tuple(row) for row in await sweeper.reader.fetch(STUCK)] == [("interrupted", 1)]
    assert await shop.owner.fetchval("SELECT count(*) FROM tasks") == 0
    after_lease(sweeper)
    await sweeper.run()
    assert set((await sweeper.states()).values()) == {"completed"}
