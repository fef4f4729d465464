"""Reading people's rows out of a real store: who has very many is told from the others before anybody has waited long."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from export_builder.errors import TooLarge
from export_builder.gateways import Builder, Order, Vault
from habeas.chassis.clock import SystemClock
from habeas.chassis.ids import uuid7
from habeas.datamap.policy.model import Policy
from habeas.datamap.postgres import PostgresStore
from habeas.datamap.stores import Stores
from tests.support.shop import open_shop, read_map

PEOPLE = ("acc_1", "acc_2", "acc_3")


@pytest_asyncio.fixture
async def shop(empty_database: str, tmp_path: Path) -> AsyncIterator[tuple[PostgresStore, Policy]]:
    """Three people, each with 20 rows in seven tables."""
    owner = await asyncpg.connect(empty_database)
    await open_shop(owner, PEOPLE)
    await owner.close()
    store_map, policy = read_map(tmp_path)
    async with PostgresStore(store_map, policy, empty_database) as store:
        yield store, policy


async def test_who_has_more_rows_than_is_good_for_others_is_told(
    shop: tuple[PostgresStore, Policy], tmp_path: Path
) -> None:
    """The rows of one person in all tables count; nothing is left of an attempt that was given up, and without a limit all is built."""
    store, policy = shop
    vault = Vault(tmp_path / "artefacts")
    orders = [Order(uuid7(SystemClock()), 1, uuid7(SystemClock()), person) for person in PEOPLE]
    with pytest.raises(TooLarge):
        await Builder(Stores([store]), vault, policy, 19).build(orders, portable_only=False)
    assert list((tmp_path / "artefacts").iterdir()) == []
    for rows_max in (20, None):
        built = await Builder(Stores([store]), vault, policy, rows_max).build(orders, portable_only=False)
        assert [sum(table.rows for table in each.tables) for each in built.values()] == [20, 20, 20]
