"""The demo platform's map against its schema, used by each service under its own role, with that role's grants alone."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from habeas.contracts.vocabulary import TableResult
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.policy.model import cutoff, load_policy
from habeas.datamap.postgres import PostgresStore, StoreOptions
from habeas_demo.generator import PLATFORM_DIR, Loaded, create_platform, load_platform
from habeas_demo.histories import Size

NOW = datetime(2026, 11, 24, 9, 12, tzinfo=UTC)
ROLES = ("habeas_intake", "habeas_eraser", "habeas_exporter", "habeas_sweeper", "habeas_mailer")


@dataclass(frozen=True)
class Demo:
    """The platform's owner, its people, and a connector for a role."""

    owner: "asyncpg.Connection[asyncpg.Record]"
    loaded: Loaded
    store: Callable[[str], PostgresStore]


@pytest_asyncio.fixture
async def demo(empty_database: str) -> AsyncIterator[Demo]:
    """Thirty people; the roles get a password for this test's server."""
    policy = load_policy(PLATFORM_DIR / "policy.yaml")
    platform = load_datamap(PLATFORM_DIR / "datamap", policy).store("platform")
    owner = await asyncpg.connect(empty_database)
    try:
        await create_platform(owner)
        loaded = await load_platform(owner, seed=1, now=NOW, size=Size(accounts=30))
        for role in ROLES:
            await owner.execute(f"ALTER ROLE {role} PASSWORD 'demo'")

        def store(role: str) -> PostgresStore:
            server = urlsplit(empty_database)
            dsn = server._replace(netloc=f"{role}:demo@{server.hostname}:{server.port}").geturl()
            return PostgresStore(platform, policy, dsn, StoreOptions(connections_max=1))

        yield Demo(owner, loaded, store)
    finally:
        await owner.close()


@pytest.mark.parametrize("role", ROLES)
async def test_map_agrees_with_schema_for_every_role(demo: Demo, role: str) -> None:
    """Whoever compares sees the same catalogue, and no difference."""
    async with demo.store(role) as store:
        await store.check()


async def test_intake_reads_contacts(demo: Demo) -> None:
    """request-intake finds people and where to write to."""
    someone = demo.loaded.people[3]
    async with demo.store("habeas_intake") as store:
        contacts = await store.contacts([someone.account_id])
    assert contacts[someone.account_id].address == someone.email


async def test_eraser_erases_a_batch(demo: Demo) -> None:
    """erasure-executor erases ten people, and every table says what became of it."""
    people = [person.account_id for person in demo.loaded.people[:10]]
    async with demo.store("habeas_eraser") as store:
        outcomes = await store.erase(people)
        again = await store.erase(people)
    for account_id in people:
        assert {o.table for o in outcomes[account_id] if o.result is TableResult.KEPT} <= {"invoices", "credit_ledger"}
        assert all(outcome.until is not None for outcome in outcomes[account_id] if outcome.result is TableResult.KEPT)
        assert {outcome.result for outcome in again[account_id]} == {TableResult.NOTHING_HELD}
    assert await demo.owner.fetchval("SELECT count(*) FROM accounts") == 20


async def test_exporter_reads_all_but_secrets(demo: Demo) -> None:
    """export-builder reads every table that a person may see, with no grant on the secrets."""
    someone = demo.loaded.people[3].account_id
    seen: dict[str, set[str]] = {}
    async with demo.store("habeas_exporter") as store, aclosing(store.export([someone])) as pieces:
        async for piece in pieces:
            seen.setdefault(piece.source.table, set()).update(piece.source.columns)
    assert "task_contents" in seen
    assert not {"hash", "token_hash", "sealed"} & set().union(*seen.values())


async def test_sweeper_purges_every_rule(demo: Demo) -> None:
    """retention-sweeper carries out every rule with the few columns that it may read."""
    async with demo.store("habeas_sweeper") as store:
        for rule in await store.purge_rules():
            edge = cutoff(store.policy.retention[rule.retention], NOW, store.policy.zone)
            result = await store.purge(rule, edge, 1_000_000)
            assert not result.more
            if rule.retention != "account":
                assert result.oldest_left is None or result.oldest_left >= edge
