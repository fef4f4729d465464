import os

import asyncpg
import pytest

from habeas_embedded.errors import RunTaken
from habeas_embedded.servers import Servers

POSTGRES = ["postgres"]


async def test_kept_data_is_there_after_the_next_start() -> None:
    """A run that keeps its data goes on with it; a fresh one of the same name begins empty."""
    async with Servers(f"tests-kept-{os.getpid()}", only=POSTGRES, env={}) as first:
        await run_sql(first, "CREATE TABLE kept AS SELECT 1 AS n")
    async with Servers(f"tests-kept-{os.getpid()}", only=POSTGRES, keep_data=True, env={}) as second:
        assert await run_sql(second, "SELECT to_regclass('kept') IS NOT NULL")
    async with Servers(f"tests-kept-{os.getpid()}", only=POSTGRES, ephemeral=True, env={}) as third:
        assert not await run_sql(third, "SELECT to_regclass('kept') IS NOT NULL")
        directory = third.run.directory
    assert not directory.exists()


async def test_committed_rows_survive_a_crash_of_the_server() -> None:
    """A killed PostgreSQL comes back at its address with everything that was committed."""
    async with Servers(f"tests-crash-{os.getpid()}", only=POSTGRES, ephemeral=True, env={}) as servers:
        dsn = servers.postgres_admin_dsn
        await run_sql(servers, "CREATE TABLE kept AS SELECT 1 AS n")
        await servers.postgres.kill()
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncpg.connect(dsn)
        await servers.postgres.start()
        assert servers.postgres_admin_dsn == dsn
        assert await run_sql(servers, "SELECT n FROM kept") == 1


async def test_two_runs_do_not_disturb_each_other() -> None:
    """Runs of different names have servers of their own; a second one of the same name is refused."""
    async with (
        Servers(f"tests-one-{os.getpid()}", only=POSTGRES, ephemeral=True, env={}) as one,
        Servers(f"tests-two-{os.getpid()}", only=POSTGRES, ephemeral=True, env={}) as two,
    ):
        assert one.postgres_admin_dsn != two.postgres_admin_dsn
        with pytest.raises(RunTaken):
            await Servers(f"tests-one-{os.getpid()}", only=POSTGRES, env={}).start()
        assert await run_sql(one, "SELECT true")
        assert await run_sql(two, "SELECT true")


async def test_given_servers_win() -> None:
    """A server that the environment names is used as it is, and is not ours to stop."""
    env = {"HABEAS_ADMIN_DATABASE_DSN": "postgresql://admin@db.example:5432/postgres"}
    async with Servers(f"tests-given-{os.getpid()}", only=POSTGRES, ephemeral=True, env=env) as servers:
        assert servers.postgres_admin_dsn == "postgresql://admin@db.example:5432/postgres"
        with pytest.raises(RuntimeError, match="not started by us"):
            await servers.postgres.kill()


async def run_sql(servers: Servers, statement: str) -> object:
    """Run one statement as the administrator."""
    connection = await asyncpg.connect(servers.postgres_admin_dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()
