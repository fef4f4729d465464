"""Two databases of one platform for one test."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_asyncio

from habeas_embedded.provision import clone_database, drop_database, open_access
from habeas_embedded.servers import Servers
from tests.integration.notification_mailer.conftest import sink
from tests.support.two_stores import Platform, open_platform

__all__ = ["another_database", "platform", "sink"]

PEOPLE = ("acc_1", "acc_2", "acc_3")


@asynccontextmanager
async def another_database(servers: Servers) -> AsyncIterator[str]:
    """Make an empty database beside that of the test; gives the administrator's DSN."""
    access = open_access(servers.postgres_admin_dsn, f"habeas_test_{secrets.token_hex(6)}")
    await clone_database(servers.postgres_admin_dsn, "template0", access.database)
    yield access.admin_dsn
    await drop_database(servers.postgres_admin_dsn, access.database)


@pytest_asyncio.fixture
async def platform(postgres_server: Servers, empty_database: str, tmp_path: Path) -> AsyncIterator[Platform]:
    """The shop and its support desk, with three people."""
    async with (
        another_database(postgres_server) as desk,
        open_platform(empty_database, desk, tmp_path, PEOPLE) as opened,
    ):
        yield opened
