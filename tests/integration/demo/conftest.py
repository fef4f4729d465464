"""A real PostgreSQL with one loaded platform; what a test does there is rolled back."""

import datetime as dt
from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

from habeas_demo.generator import Connection
from habeas_demo.histories import Size
from habeas_demo.platform import PlatformAccess, prepare_platform
from habeas_embedded.provision import drop_database
from habeas_embedded.servers import Servers

NOW = dt.datetime(2026, 11, 24, 9, 12, tzinfo=dt.UTC)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def platform(postgres_server: Servers) -> AsyncIterator[PlatformAccess]:
    """Invent a platform of 100 people, once for all tests."""
    admin_dsn = postgres_server.postgres_admin_dsn
    access = await prepare_platform(admin_dsn, seed=7, now=NOW, size=Size(accounts=100), database="demo_tests")
    yield access
    await drop_database(admin_dsn, access.database)


@pytest_asyncio.fixture(loop_scope="session")
async def conn(platform: PlatformAccess) -> AsyncIterator[Connection]:
    """Give the owner's connection to the platform; what a test does on it is rolled back."""
    conn = await asyncpg.connect(platform.owner_dsn)
    transaction = conn.transaction()
    await transaction.start()
    yield conn
    await transaction.rollback()
    await conn.close()
