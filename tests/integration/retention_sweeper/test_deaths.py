"""Whatever dies between any two steps: the next run finishes, nothing is lost and nothing is told twice."""

from datetime import timedelta

import pytest

from tests.integration.retention_sweeper.conftest import NOW, PEOPLE, Fate, Killed, Shop, Sweeper, after_lease
from tests.support.shop import add_person

LATER = NOW + timedelta(hours=2)


async def _everything(sweeper: Sweeper, fate: Fate) -> None:
    sweeper.db.fate = sweeper.stores.fate = fate
    sweeper.clock.set(LATER)
    await sweeper.tick(LATER, "execution")
    await sweeper.run()


async def _refill(sweeper: Sweeper, shop: Shop) -> None:
    await sweeper.forget()
    await shop.owner.execute("TRUNCATE accounts, tasks, steps, contents, logs, invoices, profiles")
    for person in PEOPLE:
        await add_person(shop.owner, person)
    await shop.owner.execute("UPDATE tasks SET created_at = '2027-01-15T00:00Z' WHERE account_id = 'acc_3'")


async def _left(shop: Shop) -> dict[str, int]:
    tables = ("contents", "steps", "tasks", "logs")
    return {table: await shop.owner.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


async def test_killed_anywhere_and_run_again(sweeper: Sweeper, shop: Shop) -> None:
    """At each point before a commit and around each call of a store: the next run finishes, and answers each rule once."""
    sweeper.rows_max = 10
    await _refill(sweeper, shop)
    calm = Fate()
    await _everything(sweeper, calm)
    assert calm.points > 20
    for point in range(1, calm.points + 1):
        await _refill(sweeper, shop)
        with pytest.raises(Killed):
            await _everything(sweeper, Fate(dies_at=point))
        sweeper.db.fate = sweeper.stores.fate = Fate()
        after_lease(sweeper)
        while await sweeper.worker.step():
            pass
        await sweeper.run()
        assert await _left(shop) == {"contents": 8, "steps": 4, "tasks": 2, "logs": 9}, point
        told = await sweeper.told("sweep.completed")
        assert [event["table"] for event in told] == ["contents", "logs", "steps", "tasks"], point
        assert await sweeper.told("sweep.stuck") == []
        assert len(await sweeper.facts()) == 4


async def test_replica_that_lost_its_lease_changes_nothing(sweeper: Sweeper, shop: Shop) -> None:
    """Who comes back after another one took its sweep up neither completes it again nor tells anything."""
    await sweeper.tick(NOW, "invoices")

    async def another_replica() -> None:
        after_lease(sweeper)
        await sweeper.run()

    sweeper.stores.meanwhile = another_replica
    await sweeper.run()
    assert len(sweeper.stores.purged) == 2
    assert len(await sweeper.told("sweep.completed")) == 1
    assert len(await sweeper.facts()) == 1
