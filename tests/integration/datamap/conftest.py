"""The shop of tests/support/shop.py in a database of its own."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest_asyncio

from habeas.datamap.map.model import StoreMap
from habeas.datamap.policy.model import Policy
from habeas.datamap.postgres import PostgresStore, StoreOptions
from tests.support.shop import open_shop, read_map

PEOPLE = tuple(f"acc_{number:03}" for number in range(60))


@dataclass(frozen=True)
class Shop:
    """A connection of the shop's owner, and Habeas' connector to it."""

    dsn: str
    owner: "asyncpg.Connection[asyncpg.Record]"
    map: StoreMap
    policy: Policy
    store: PostgresStore


@pytest_asyncio.fixture
async def shop(empty_database: str, tmp_path: Path) -> AsyncIterator[Shop]:
    """Sixty people with 20 rows each."""
    owner = await asyncpg.connect(empty_database)
    try:
        await open_shop(owner, PEOPLE)
        store_map, policy = read_map(tmp_path)
        options = StoreOptions(connections_max=2, lock_timeout_s=60.0, drop_lock_timeout_s=60.0)
        async with PostgresStore(store_map, policy, empty_database, options) as store:
            yield Shop(empty_database, owner, store_map, policy, store)
    finally:
        await owner.close()
