import asyncpg

from habeas_embedded.provision import Access
from habeas_embedded.servers import Servers


async def test_server_is_postgresql_18_on_loopback(postgres_server: Servers) -> None:
    """The embedded server is the version that the design names, reachable on loopback only, and logs no values."""
    connection = await asyncpg.connect(postgres_server.postgres_admin_dsn)
    try:
        assert connection.get_server_version().major == 18
        shown = {
            name: await connection.fetchval(f"SHOW {name}")
            for name in ("listen_addresses", "log_error_verbosity", "log_statement")
        }
    finally:
        await connection.close()
    assert shown == {"listen_addresses": "127.0.0.1", "log_error_verbosity": "terse", "log_statement": "none"}


async def test_wrong_password_is_refused(postgres_server: Servers) -> None:
    """Loopback alone opens nothing: a login with another password fails."""
    wrong = postgres_server.postgres_admin_dsn.replace("postgres:", "postgres:0")
    try:
        connection = await asyncpg.connect(wrong)
    except asyncpg.InvalidPasswordError:
        return
    await connection.close()
    raise AssertionError("a wrong password was accepted")


async def test_clones_do_not_share_rows(database: Access, empty_database: str) -> None:
    """What one test's database holds is not in another's."""
    first = await asyncpg.connect(database.owner_dsn)
    await first.execute("CREATE TABLE request_intake.probe AS SELECT 1 AS n")
    await first.close()
    second = await asyncpg.connect(empty_database)
    assert await second.fetchval("SELECT to_regclass('request_intake.probe')") is None
    await second.close()
