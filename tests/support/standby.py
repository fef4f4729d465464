"""A second PostgreSQL beside a run's own: a streaming replica that can be promoted, and copies of a data directory."""

import asyncio
import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from habeas_embedded.ports import LOOPBACK, free_port
from habeas_embedded.postgres import PostgresServer, _environment, _give, _make_passable, _owner, postgres_programs
from habeas_embedded.processes import Child
from habeas_embedded.servers import Servers
from tests.support.waiting import until


@dataclass
class Standby:
    """A streaming replica; the primary waits for it with every commit."""

    admin_dsn: str
    port: int
    child: Child

    async def promote(self) -> None:
        """Make it the primary; returns when it takes changes."""
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            assert await connection.fetchval("SELECT pg_promote(true, 600)")
        finally:
            await connection.close()


@asynccontextmanager
async def standing_by(servers: Servers) -> AsyncIterator[Standby]:
    """Make a synchronous replica of the run's PostgreSQL by streaming, and take it down at the end."""
    owner = await asyncio.to_thread(_owner)
    directory = servers.run.directory / "standby"
    directory.mkdir(mode=stat.S_IRWXU)
    _give(directory, owner)
    _make_passable(directory / "data", owner)
    copied = await asyncio.create_subprocess_exec(
        *(str(postgres_programs() / "bin" / "pg_basebackup"), "-D", str(directory / "data"), "-R", "-X", "stream"),
        *("-c", "fast", "-d", servers.postgres_admin_dsn),
        cwd="/",
        env=_environment(),
        user=owner.user,
        group=owner.group,
        extra_groups=None if owner.group is None else [],
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await copied.communicate()
    assert copied.returncode == 0, said.decode()
    port = free_port()
    child = Child(
        "standby",
        (str(postgres_programs() / "bin" / "postgres"), "-D", str(directory / "data"), "-p", str(port)),
        servers.run.logs / "standby.log",
        env=_environment(),
        cwd=Path("/"),
        user=owner.user,
        group=owner.group,
    )
    child.spawn()
    servers.run.remember(child)
    parts = urlsplit(servers.postgres_admin_dsn)
    place = f"{parts.netloc.rpartition('@')[0]}@{LOOPBACK}:{port}"
    try:
        await _wait_for_each_commit(servers.postgres_admin_dsn)
        yield Standby(urlunsplit(parts._replace(netloc=place)), port, child)
    finally:
        await child.kill()
        servers.run.forget(child)


async def _wait_for_each_commit(admin_dsn: str) -> None:
    """Let the primary acknowledge only what the standby has."""
    connection = await asyncpg.connect(admin_dsn)
    try:
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await connection.execute("SELECT pg_reload_conf()")

        async def synchronous() -> bool:
            return bool(await connection.fetchval("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"))

        await until(synchronous, "the replica to follow")
    finally:
        await connection.close()


async def keep_copy(postgres: PostgresServer, target: Path) -> None:
    """Stop PostgreSQL, copy its data directory, and start it again."""
    await postgres.stop()
    await _copy(postgres.data_directory, target)
    await postgres.start()


async def put_back(postgres: PostgresServer, copy: Path) -> None:
    """End PostgreSQL, put an earlier copy of its data directory in place, and start it."""
    await postgres.stop()
    await asyncio.to_thread(shutil.rmtree, postgres.data_directory)
    await _copy(copy, postgres.data_directory)
    await postgres.start()


async def _copy(source: Path, target: Path) -> None:
    process = await asyncio.create_subprocess_exec("cp", "-a", str(source), str(target), env={"PATH": os.defpath})
    assert await process.wait() == 0
