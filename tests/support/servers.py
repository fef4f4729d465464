"""Fixtures that give tests real servers: PostgreSQL alone for the integration tier, all three for journeys.

Servers are started once per session and stopped at its end; what a killed session leaves is cleared by the next one.
A test gets a database of its own, cloned from a migrated template, so tests never see each other's rows.
"""

import asyncio
import os
import secrets
import shutil
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil
import pytest
import pytest_asyncio

from habeas_embedded.places import cache_directory
from habeas_embedded.provision import Access, apply_roles, clone_database, drop_database, open_access, prepare_database
from habeas_embedded.servers import Servers

__all__ = ["clones", "database", "empty_database", "own_servers", "postgres_server", "postgres_template", "servers"]

_CLONES_AHEAD: Final = 2
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 -- where Linux keeps files in memory
_MEMORY_BYTES_MIN: Final = 2 << 30  # it holds some hundred megabytes at a time


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Servers]:
    """PostgreSQL alone; `postgres_admin_dsn` is the administrator's DSN. It forgets on a crash of the machine, not on a kill.

    Its files are in memory where there is some to spare: a database is seven hundred files, made and removed for each of hundreds of
    tests, and ext4 does not give the place of a file that was just removed to a new one without a long search.
    """
    servers = Servers(f"tests-postgres-{os.getpid()}", only=["postgres"], ephemeral=True, durable=False)
    yield from _running(servers, _home_in_memory())


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Kafka, PostgreSQL and an SMTP sink, as durable as in production; a killed Kafka is soon back."""
    yield from _running(Servers(f"tests-{os.getpid()}", ephemeral=True, hasty=True))


@pytest.fixture
def own_servers() -> Iterator[Servers]:
    """All three servers for one test alone, empty."""
    yield from _running(Servers(f"tests-own-{os.getpid()}", ephemeral=True, durable=False, hasty=True))


@pytest.fixture(scope="session")
def postgres_template(postgres_server: Servers) -> Iterator[Access]:
    """A database with all roles, grants and tables of the fleet, to be cloned and never connected to."""
    admin_dsn = postgres_server.postgres_admin_dsn
    name = f"habeas_template_{secrets.token_hex(6)}"
    with asyncio.Runner() as runner:
        yield runner.run(prepare_database(admin_dsn, name))
        runner.run(drop_database(admin_dsn, name))


@pytest.fixture(scope="session")
def clones(postgres_template: Access) -> Iterator["Clones"]:
    """The databases of the tests to come."""
    ahead = Clones(postgres_template)
    yield ahead
    ahead.close()


@pytest_asyncio.fixture
async def database(clones: "Clones") -> AsyncIterator[Access]:
    """A migrated database for one test: `dsn("request-intake")`, `owner_dsn`, `operator_dsn`, `admin_dsn`."""
    access = await clones.take()
    yield access
    clones.drop(access)


@pytest_asyncio.fixture
async def empty_database(postgres_server: Servers) -> AsyncIterator[str]:
    """The administrator's DSN of a database with nothing in it, for one test."""
    admin_dsn = postgres_server.postgres_admin_dsn
    access = open_access(admin_dsn, f"habeas_test_{secrets.token_hex(6)}")
    await clone_database(admin_dsn, "template0", access.database)
    yield access.admin_dsn
    await drop_database(admin_dsn, access.database)


class Clones:
    """Copies of the template, made by a thread before they are wanted: making one takes a quarter of a second."""

    def __init__(self, template: Access) -> None:
        self._template = template
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clones")
        self._drops: list[Future[None]] = []
        self._ready = deque(self._thread.submit(self._make) for _ in range(_CLONES_AHEAD))

    async def take(self) -> Access:
        """Give a copy that nobody else is given; raises what making it raised."""
        self._ready.append(self._thread.submit(self._make))
        return await asyncio.wrap_future(self._ready.popleft())

    def drop(self, access: Access) -> None:
        """Remove a copy, when there is time."""
        self._drops.append(self._thread.submit(asyncio.run, drop_database(access.server_dsn, access.database)))

    def close(self) -> None:
        """Remove those that nobody took; raises what any removal raised."""
        for future in self._ready:
            if not future.cancel():
                self.drop(future.result())
        self._thread.shutdown()
        for removal in self._drops:
            removal.result()

    def _make(self) -> Access:
        server_dsn = self._template.server_dsn
        access = open_access(server_dsn, f"habeas_test_{secrets.token_hex(6)}")

        async def make() -> None:
            await clone_database(server_dsn, self._template.database, access.database)
            await apply_roles(access, set_passwords=False)  # grants on the database itself are not cloned

        asyncio.run(make())
        return access


def _running(started: Servers, home: Path | None = None) -> Iterator[Servers]:
    """Start and stop servers around a session; they are bound to no event loop, so any test's loop may use them."""
    with asyncio.Runner() as runner:
        with pytest.MonkeyPatch.context() as patch:
            if home is not None:
                patch.setenv("HABEAS_CACHE", str(cache_directory()))
                patch.setenv("HABEAS_HOME", str(home))
            runner.run(started.start())
        try:
            yield started
        finally:
            runner.run(started.stop())
    if home is not None:
        with suppress(OSError):  # others are still in it
            (home / "run").rmdir()
            home.rmdir()


def _home_in_memory() -> Path | None:
    """Give a directory for runs whose files are in memory; None where there is too little of it, or where somebody has chosen."""
    if "HABEAS_HOME" in os.environ or not _MEMORY.is_dir():
        return None
    spare = min(shutil.disk_usage(_MEMORY).free, psutil.virtual_memory().available)
    return _MEMORY / f"habeas-tests-{os.getuid()}" if spare >= _MEMORY_BYTES_MIN else None
