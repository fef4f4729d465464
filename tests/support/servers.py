"""Fixtures that give tests real servers: PostgreSQL alone for the integration tier, all three for journeys.

Servers are started once per session and stopped at its end; what a killed session leaves is cleared by the next one.
A test gets a database of its own, cloned from a migrated template, so tests never see each other's rows.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from habeas_embedded.provision import Access, apply_roles, clone_database, drop_database, open_access, prepare_database
from habeas_embedded.servers import Servers

__all__ = ["database", "empty_database", "own_servers", "postgres_server", "postgres_template", "servers"]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Servers]:
    """PostgreSQL alone; `postgres_admin_dsn` is the administrator's DSN. It forgets on a crash of the machine, not on a kill."""
    yield from _running(Servers(f"tests-postgres-{os.getpid()}", only=["postgres"], ephemeral=True, durable=False))


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Kafka, PostgreSQL and an SMTP sink, as durable as in production."""
    yield from _running(Servers(f"tests-{os.getpid()}", ephemeral=True))


@pytest.fixture
def own_servers() -> Iterator[Servers]:
    """All three servers for one test alone, empty."""
    yield from _running(Servers(f"tests-own-{os.getpid()}", ephemeral=True, durable=False))


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Servers) -> Iterator[Access]:
    """A database with all roles, grants and tables of the fleet, to be cloned and never connected to."""
    admin_dsn = postgres_server.postgres_admin_dsn
    name = f"habeas_template_{secrets.token_hex(6)}"
    with asyncio.Runner() as runner:
        yield runner.run(prepare_database(admin_dsn, name))
        runner.run(drop_database(admin_dsn, name))


@pytest_asyncio.fixture
async def database(postgres_template: Access) -> AsyncIterator[Access]:
    """A migrated database for one test: `dsn("request-intake")`, `owner_dsn`, `operator_dsn`, `admin_dsn`."""
    server_dsn = postgres_template.server_dsn
    access = open_access(server_dsn, f"habeas_test_{secrets.token_hex(6)}")
    await clone_database(server_dsn, postgres_template.database, access.database)
    await apply_roles(access, set_passwords=False)  # grants on the database itself are not cloned
    yield access
    await drop_database(server_dsn, access.database)


@pytest_asyncio.fixture
async def empty_database(postgres_server: Servers) -> AsyncIterator[str]:
    """The administrator's DSN of a database with nothing in it, for one test."""
    admin_dsn = postgres_server.postgres_admin_dsn
    access = open_access(admin_dsn, f"habeas_test_{secrets.token_hex(6)}")
    await clone_database(admin_dsn, "template0", access.database)
    yield access.admin_dsn
    await drop_database(admin_dsn, access.database)


def _running(started: Servers) -> Iterator[Servers]:
    """Start and stop servers around a session; they are bound to no event loop, so any test's loop may use them."""
    with asyncio.Runner() as runner:
        runner.run(started.start())
        try:
            yield started
        finally:
            runner.run(started.stop())
