"""One person among many whose rows take long to go, in a real store: the others do not wait, and the store is left in order."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import asyncpg
import pytest
import pytest_asyncio

from erasure_executor import store, sweeps
from erasure_executor.gateways import LoggedStores
from habeas.chassis.clock import FakeClock
from habeas.chassis.together import Limits
from habeas.datamap.postgres import PostgresStore, StoreOptions
from habeas.sealing import Fingerprinter, KeyStore
from habeas_embedded.provision import Access
from tests.integration.erasure_executor.test_erase_due import NOW, RING, Bench
from tests.support.databases import opened
from tests.support.shop import DATAMAP, open_shop, read_map
from tests.support.waiting import until

PEOPLE: Final = tuple(f"acc_{number}" for number in range(40))
SLOW: Final = "acc_17"

SLEEP: Final = """
    CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.account_id = 'acc_17' THEN PERFORM pg_sleep(3600); END IF;
            RETURN OLD;
        END
    $$;
    CREATE TRIGGER sleep BEFORE DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION sleep()
"""
AWAKE: Final = """
    CREATE OR REPLACE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$
"""
MAP: Final = DATAMAP.replace("- name: tasks\n        habeas: {", "- name: tasks\n        habeas: {triggers: [sleep], ")
LEFT: Final = "SELECT DISTINCT account_id FROM tasks"
AT_WORK: Final = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle' AND backend_type = 'client backend'
"""


@dataclass
class Fleet(Bench):
    """The service over a real store."""

    shop: "asyncpg.Connection[asyncpg.Record]"
    stores: LoggedStores


@pytest_asyncio.fixture
async def fleet(database: Access, empty_database: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Forty people with 20 rows each."""
    clock = FakeClock(NOW)
    db = await opened(database, "erasure-executor", clock)
    owner = await asyncpg.connect(empty_database)
    await open_shop(owner, PEOPLE)
    store_map, policy = read_map(tmp_path, MAP)
    async with PostgresStore(store_map, policy, empty_database, StoreOptions(connections_max=2)) as shop:
        yield Fleet(db, clock, KeyStore(RING, clock.now), Fingerprinter(RING), owner, LoggedStores([shop]))
    await owner.close()
    await db.close()


async def test_others_do_not_wait_for_rows_that_take_long_to_go(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes too long is cancelled in the store too; all others are erased, and the one later, apart."""
    monkeypatch.setattr(sweeps, "SMALL", replace(sweeps.SMALL, limits=Limits(2.0, 0.05)))
    requests = await fleet.begin_all(PEOPLE)
    await fleet.shop.execute(SLEEP)
    await sweeps.erase_due(fleet.db, fleet.stores, fleet.keys, fleet.fingerprinter)
    slow = await fleet.look(requests[SLOW])
    assert slow.is_large

    async def store_rests() -> bool:
        return bool(await fleet.shop.fetchval(AT_WORK) == 0)

    await until(store_rests, "a store in which nothing goes on")
    apart = await fleet.count("SELECT count(*) FROM erasure_executor.erasures WHERE is_large")
    done = await fleet.count("SELECT count(*) FROM erasure_executor.erasures WHERE state = 'completed'")
    assert (done + apart, apart < 5) == (len(PEOPLE), True), (
        "on a slow machine another one may have been taken for slow"
    )
    await fleet.shop.execute(AWAKE)
    for _ in range(apart):
        await sweeps.erase_large(fleet.db, fleet.stores, fleet.keys, fleet.fingerprinter)
    assert await fleet.shop.fetch(LEFT) == []
    done_at_last = await fleet.look(requests[SLOW])
    assert sum(each.rows for each in done_at_last.outcomes) == sum(each.rows for each in done_at_last.planned or ())
    assert await fleet.db.read("test-stuck", store.COUNT_STUCK) == []
