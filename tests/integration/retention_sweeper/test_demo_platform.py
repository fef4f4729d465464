"""The demo platform under the grants of habeas_sweeper: what goes, what stays, and what happens while a grant is missing."""

import datetime as dt
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest
import pytest_asyncio

from habeas.datamap.map.loading import load_datamap
from habeas.datamap.policy.model import load_policy
from habeas.datamap.postgres import PostgresStore, StoreOptions
from habeas_demo.checks import Witness
from habeas_demo.generator import PLATFORM_DIR, create_platform, load_platform
from habeas_demo.histories import Size
from habeas_embedded.provision import Access, with_role
from tests.integration.retention_sweeper.conftest import Sweeper, after_lease, start_sweeper

NOW = dt.datetime(2026, 11, 24, 9, 12, tzinfo=dt.UTC)
AS_OF = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
RULES = 18
"""Twelve tables go with a closed account, and six have a time of their own."""


@dataclass(frozen=True)
class Demo:
    """The platform's owner, the service over it, and one who notes what was there."""

    owner: "asyncpg.Connection[asyncpg.Record]"
    sweeper: Sweeper
    witness: Witness


@pytest_asyncio.fixture
async def demo(database: Access, empty_database: str, request: pytest.FixtureRequest) -> AsyncIterator[Demo]:
    """Sixty people; the service logs in as a member of habeas_sweeper, so that nobody else's password changes.

    A parameter is the time, in seconds, for which a lock is waited.
    """
    wait_s: float = getattr(request, "param", 60.0)
    policy = load_policy(PLATFORM_DIR / "policy.yaml")
    platform = load_datamap(PLATFORM_DIR / "datamap", policy).store("platform")
    role, password = f"sweeper_{secrets.token_hex(6)}", secrets.token_hex(16)
    owner = await asyncpg.connect(empty_database)
    watcher = await asyncpg.connect(empty_database)
    try:
        await create_platform(owner)
        await load_platform(owner, seed=5, now=NOW, size=Size(accounts=60, days=110, logs_each=8))
        await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}' IN ROLE habeas_sweeper")
        witness = await Witness.begin(watcher, AS_OF)
        options = StoreOptions(connections_max=2, lock_timeout_s=wait_s, drop_lock_timeout_s=wait_s)
        async with (
            PostgresStore(platform, policy, with_role(empty_database, role, password), options) as store,
            start_sweeper(database, [store], policy, NOW) as sweeper,
        ):
            yield Demo(owner, sweeper, witness)
    finally:
        await owner.execute(f"DROP ROLE IF EXISTS {role}")
        await watcher.close()
        await owner.close()


async def _failed(demo: Demo) -> list[str]:
    """Names of checks about retention and about others' rows that did not pass."""
    checks = await demo.witness.check_platform([])
    judged = [each for each in checks if not each.name.startswith(("erased", "kept", "seen"))]
    assert len([each for each in judged if each.name.startswith("retention")]) > 5
    return [each.name for each in judged if not each.passed]


async def test_one_tick_sweeps_the_platform(demo: Demo) -> None:
    """Everything past its time is gone, whole days of the log too; every other row is as it was."""
    await demo.sweeper.tick(AS_OF)
    await demo.sweeper.run()
    assert list((await demo.sweeper.states()).values()) == ["completed"] * RULES
    assert await demo.sweeper.told("sweep.stuck") == []
    assert await _failed(demo) == []
    told = {(event["table"], event["retention"]): event for event in await demo.sweeper.told("sweep.completed")}
    # 110 days of log end with 25 November; those up to 25 August are over ninety days before 24 November, 01:00 in Berlin,
    # which is 25 August, 23:00 UTC: that day is the first not to be dropped.
    first = dt.date(2026, 11, 24) - dt.timedelta(days=110)
    assert told["execution_logs", "execution"]["partitions_dropped"] == (dt.date(2026, 8, 25) - first).days
    assert told["tasks", "execution"]["cutoff_at"] == "2026-08-25T23:00:00Z"
    assert told["accounts", "account"]["rows"] >= 1


async def test_missing_grant_holds_up_what_needs_it_and_nothing_else(demo: Demo) -> None:
    """A table that may not be touched is stuck with the reason, its parents wait for it, all others are done; then it goes on."""
    await demo.owner.execute("REVOKE DELETE ON task_contents FROM habeas_sweeper")
    await demo.sweeper.tick(AS_OF)
    await demo.sweeper.run()
    stuck = {key for key, state in (await demo.sweeper.states()).items() if state == "stuck"}
    told = [(event["table"], event["reason"]) for event in await demo.sweeper.told("sweep.stuck")]
    assert told[0] == ("task_contents", "store_refused")
    assert ("tasks", "not_erased") in told
    assert ("task_contents", "task_content") in stuck
    assert ("execution_logs", "execution") not in stuck
    after_lease(demo.sweeper)
    await demo.sweeper.run()
    assert [(event["table"], event["reason"]) for event in await demo.sweeper.told("sweep.stuck")] == told
    await demo.owner.execute("GRANT DELETE ON task_contents TO habeas_sweeper")
    after_lease(demo.sweeper)
    await demo.sweeper.run()
    assert list((await demo.sweeper.states()).values()) == ["completed"] * RULES
    assert len(await demo.sweeper.told("sweep.completed")) == RULES
    assert await _failed(demo) == []


async def test_store_that_lets_nobody_in(demo: Demo) -> None:
    """While the store refuses the login the tick is stuck, told once; afterwards it is done."""
    (name,) = await demo.owner.fetchrow("SELECT format('%I', current_database())") or ("",)
    await demo.owner.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC, habeas_sweeper")
    await demo.sweeper.tick(AS_OF)
    await demo.sweeper.run()
    after_lease(demo.sweeper)
    await demo.sweeper.run()
    (told,) = await demo.sweeper.told("sweep.stuck")
    assert (told["store"], told["table"]) == ("platform", "accounts")
    assert told["reason"] in {"store_unavailable", "store_refused"}
    await demo.owner.execute(f"GRANT CONNECT ON DATABASE {name} TO habeas_sweeper")
    after_lease(demo.sweeper)
    await demo.sweeper.run()
    assert await _failed(demo) == []


@pytest.mark.parametrize("demo", [0.2], indirect=True, ids=["impatient"])
async def test_locked_table_is_tried_again(demo: Demo) -> None:
    """A table that somebody holds is stuck for now and purged later; the lock is not waited for longer than it may be."""
    holder = demo.owner.transaction()
    await holder.start()
    await demo.owner.execute("LOCK TABLE invoices, quality_scores IN ACCESS EXCLUSIVE MODE")
    await demo.sweeper.tick(AS_OF)
    await demo.sweeper.run()
    told = {(event["table"], event["reason"]) for event in await demo.sweeper.told("sweep.stuck")}
    assert {("invoices", "store_unavailable"), ("quality_scores", "store_unavailable")} <= told
    await holder.rollback()
    after_lease(demo.sweeper)
    await demo.sweeper.run()
    assert await _failed(demo) == []
