"""A database of each application: installed, migrated, dumped once, restored and filled."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from habeas_embedded.provision import create_database, drop_database, with_database
from habeas_embedded.servers import Servers
from tests.schemas.applications import Application, application
from tests.schemas.filling import Connection, Filling


@dataclass(frozen=True)
class Filled:
    """An application's database with rows of fifty people; `ids` are theirs, in order."""

    application: Application
    dsn: str
    connection: Connection
    ids: tuple[str, ...]


@pytest_asyncio.fixture
async def filled(request: pytest.FixtureRequest, postgres_server: Servers, tmp_path: Path) -> AsyncIterator[Filled]:
    """The application named by the parameter."""
    chosen = application(request.param)
    name = f"schema_{chosen.name}"
    dsn = with_database(postgres_server.postgres_admin_dsn, name)
    await create_database(postgres_server.postgres_admin_dsn, name)
    connection = await asyncpg.connect(dsn)
    try:
        if not chosen.dump.is_file():
            for extension in chosen.settings.get("extensions", ()):
                await connection.execute(f'CREATE EXTENSION IF NOT EXISTS "{extension}"')
            await asyncio.to_thread(chosen.migrate, dsn, tmp_path)
            await asyncio.to_thread(chosen.write_dump, dsn)
        else:
            await asyncio.to_thread(chosen.restore, dsn)
        yield Filled(chosen, dsn, connection, await fill(chosen, connection))
    finally:
        await connection.close()
        await drop_database(postgres_server.postgres_admin_dsn, name)


async def fill(chosen: Application, connection: Connection) -> tuple[str, ...]:
    """Write rows; no table may stay without any."""
    rules = chosen.rules("fill.toml")
    filling = Filling(connection, chosen.root, rules)
    await filling.fill()
    empty = {
        name: filling.failures.get(name, "")
        for name, rows in filling.rows.items()
        if not rows and filling.counts.get(name.removeprefix("public.")) != 0
    }
    assert not empty, empty
    return tuple(row.values[rules.get("identity", "id")] or "" for _, row in sorted(filling.people.items()))
