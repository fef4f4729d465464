"""A real PostgreSQL with one loaded platform; what a test does there is rolled back."""

import datetime as dt
import os
from collections.abc import AsyncIterator
from typing import NamedTuple

import asyncpg
import pytest_asyncio

from habeas_demo.generator import Connection, Loaded, create_platform, load_platform
from habeas_demo.histories import Size
from habeas_embedded.places import cache_directory
from habeas_embedded.postgres import PostgresServer
from habeas_embedded.runs import Run

NOW = dt.datetime(2026, 11, 24, 9, 12, tzinfo=dt.UTC)


class Platform(NamedTuple):
    """A loaded platform: the DSN of its owner, and what was loaded."""

    dsn: str
    loaded: Loaded


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def platform() -> AsyncIterator[Platform]:
    """Start PostgreSQL once and load 100 people."""
    run = Run(f"demo-tests-{os.getpid()}", ephemeral=True)
    server = PostgresServer(run, cache_directory(), durable=False)
    await server.start()
    try:
        dsn = await _create(server.admin_dsn, "platform")
        conn = await asyncpg.connect(dsn)
        await create_platform(conn)
        loaded = await load_platform(conn, seed=7, now=NOW, size=Size(accounts=100))
        await conn.close()
        yield Platform(dsn, loaded)
    finally:
        await server.stop()
        run.close()


@pytest_asyncio.fixture(loop_scope="session")
async def conn(platform: Platform) -> AsyncIterator[Connection]:
    """Give the owner's connection to the platform; what a test does on it is rolled back."""
    conn = await asyncpg.connect(platform.dsn)
    transaction = conn.transaction()
    await transaction.start()
    yield conn
    await transaction.rollback()
    await conn.close()


async def _create(admin_dsn: str, name: str) -> str:
    conn = await asyncpg.connect(admin_dsn)
    await conn.execute(f"CREATE DATABASE {name}")
    await conn.close()
    return f"{admin_dsn.rsplit('/', 1)[0]}/{name}"
