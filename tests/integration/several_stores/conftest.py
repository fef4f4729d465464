"""Two databases of one platform for one test."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from habeas_embedded.provision import clone_database, drop_database, open_access
from habeas_embedded.servers import Servers
from tests.support.two_stores import Platform, open_platform

PEOPLE = ("acc_1", "acc_2", "acc_3")


@pytest_asyncio.fixture
async def platform(postgres_server: Servers, empty_database: str, tmp_path: Path) -> AsyncIterator[Platform]:
    """The shop and its support desk, with three people."""
    admin_dsn = postgres_server.postgres_admin_dsn
    desk = open_access(admin_dsn, f"habeas_test_{secrets.token_hex(6)}")
    await clone_database(admin_dsn, "template0", desk.database)
    async with open_platform(empty_database, desk.admin_dsn, tmp_path, PEOPLE) as opened:
        yield opened
    await drop_database(admin_dsn, desk.database)
