"""A real PostgreSQL with one loaded platform as template; every test gets a copy of its own."""

import datetime as dt
import os
from collections.abc import AsyncIterator
from itertools import count
from typing import NamedTuple

import asyncpg
import pytest_asyncio

from habeas_demo.generator import Connection, Loaded, create_platform, load_platform
from habeas_demo.histories import Size
from habeas_embedded.places import cache_directory
from habeas_embedded.postgres import PostgresServer
from habeas_embedded.runs import Run

NOW = dt.datetime(2026, 11, 24, 9, 12, tzinfo=dt.UTC)
_numbers = count()


class Platform(NamedTuple):
    """A loaded platform: the DSN of its owner, and what was loaded."""

    dsn: str
    loaded: Loaded


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template_platform() -> AsyncIterator[Platform]:
    """Start PostgreSQL once and load 100 people into a database that tests copy."""
    run = Run(f"demo-tests-{os.getpid()}", ephemeral=True)
    server = PostgresServer(run, cache_directory(), durable=False)
    await server.start()
    try:
        dsn = await _create(server.admin_dsn, "platform_template", "template1")
        conn = await asyncpg.connect(dsn)
        await create_platform(conn)
        loaded = await load_platform(conn, seed=7, now=NOW, size=Size(accounts=100))
        await conn.close()
        yield Platform(dsn, loaded)
    finally:
        await server.stop()
        run.close()


@pytest_asyncio.fixture(loop_scope="session")
async def platform(template_platform: Platform) -> Platform:
    """Give a fresh copy of the loaded platform."""
    admin = template_platform.dsn.rsplit("/", 1)[0] + "/postgres"
    return Platform(await _create(admin, f"platform_{next(_numbers)}", "platform_template"), template_platform.loaded)


@pytest_asyncio.fixture(loop_scope="session")
async def shared(template_platform: Platform) -> AsyncIterator[Connection]:
    """Give a connection to the platform that all copies are made from; what a test does there is rolled back."""
    conn = await asyncpg.connect(template_platform.dsn)
    transaction = conn.transaction()
    await transaction.start()
    yield conn
    await transaction.rollback()
    await conn.close()


async def _create(admin_dsn: str, name: str, template: str) -> str:
    conn = await asyncpg.connect(admin_dsn)
    await conn.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    await conn.close()
    return f"{admin_dsn.rsplit('/', 1)[0]}/{name}"
