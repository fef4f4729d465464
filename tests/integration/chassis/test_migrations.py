"""Migrations against a real server."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio

from habeas.chassis import migrations
from habeas.chassis.migrations import MigrationError, SchemaNotReady, check_schema, migrate, read

CHASSIS = Path(migrations.__file__).parent / "migrations"


@pytest_asyncio.fixture
async def role(empty_database: str) -> AsyncIterator[str]:
    """A service's role, and the owner's, as an administrator makes them."""
    name = f"role_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(empty_database)
    await connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    with contextlib.suppress(asyncpg.DuplicateObjectError):
        await connection.execute("CREATE ROLE habeas_owner LOGIN")
    yield name
    await connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
    await connection.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two migrations of a service."""
    source = tmp_path / "accounts" / "migrations"
    source.mkdir(parents=True)
    (source / "0001_first.sql").write_text("CREATE TABLE first (n integer); INSERT INTO first VALUES (1);")
    (source / "0002_second.sql").write_text(
        "CREATE FUNCTION one() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END; $$;\n"
        "CREATE TABLE second (t text DEFAULT ';'); REVOKE UPDATE, DELETE ON second FROM PUBLIC;"
    )
    return source


def as_role(dsn: str, role: str) -> str:
    """The DSN for the role."""
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{role}:x@{parts.hostname}:{parts.port}"))


async def test_from_scratch_and_again(empty_database: str, role: str, files: Path) -> None:
    """Every file is applied once, the chassis' first; a second run finds nothing to do and loses nothing."""
    sources = [CHASSIS, files]
    assert await migrate(empty_database, "accounts", sources, role=role) == len(list(CHASSIS.glob("*.sql"))) + 2
    assert await migrate(empty_database, "accounts", sources, role=role) == 0
    connection = await asyncpg.connect(empty_database)
    assert await connection.fetchval("SELECT n FROM accounts.first") == 1
    assert await connection.fetchval("SELECT count(*) FROM accounts.lanes") == 17
    owners = await connection.fetch("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'accounts'")
    assert [row["tableowner"] for row in owners] == ["habeas_owner"]
    await connection.close()


async def test_what_was_handled_leaves_the_inbox_and_is_known(empty_database: str, role: str, tmp_path: Path) -> None:
    """Messages that an earlier version kept after handling them go, their ids stay known; what waits or is parked stays as it was."""
    source = tmp_path / "chassis" / "migrations"
    source.mkdir(parents=True)
    files = sorted(CHASSIS.glob("*.sql"))
    for file in files[:6]:
        (source / file.name).write_bytes(file.read_bytes())
    await migrate(empty_database, "accounts", [source], role=role)
    connection = await asyncpg.connect(empty_database)
    for state in ("pending", "handled", "parked", "resolved"):
        await connection.execute(
            "INSERT INTO accounts.inbox (event_id, topic, partition, record_offset, type, key, lane, event_at, digest, received_at,"
            " state, next_attempt_at, handled_at) VALUES (gen_random_uuid(), 't', 0, 0, 'x', 'k', 1, now(), 'd', '2026-11-01', $1,"
            " now(), CASE WHEN $1 = 'handled' THEN '2026-11-02'::timestamptz END)",
            state,
        )
    for file in files[6:7]:
        (source / file.name).write_bytes(file.read_bytes())
    ids = await connection.fetch("SELECT event_id, digest FROM accounts.inbox ORDER BY event_id")
    assert await migrate(empty_database, "accounts", [source], role=role) == 1
    left = await connection.fetch("SELECT state FROM accounts.inbox ORDER BY inbox_id")
    assert [row["state"] for row in left] == ["pending", "parked", "resolved"]
    assert await connection.fetch("SELECT event_id, digest FROM accounts.seen ORDER BY event_id") == ids
    days = await connection.fetch("SELECT extract(day FROM received_at)::int AS day FROM accounts.seen ORDER BY 1")
    assert [row["day"] for row in days] == [1, 1, 1, 2]
    await connection.close()


async def test_audit_lines_leave_the_queue_of_facts(empty_database: str, role: str, tmp_path: Path) -> None:
    """Numbered facts become lines, others go on waiting; published is all before the first line that was not."""
    source = tmp_path / "chassis" / "migrations"
    source.mkdir(parents=True)
    files = sorted(CHASSIS.glob("*.sql"))
    for file in files[:7]:
        (source / file.name).write_bytes(file.read_bytes())
    await migrate(empty_database, "accounts", [source], role=role)
    connection = await asyncpg.connect(empty_database)
    await connection.execute(
        "INSERT INTO accounts.audit_outbox (event_id, tail, created_at, seq, line, published_at)"
        " SELECT gen_random_uuid(), 'fact ' || n, now(), CASE WHEN n < 5 THEN n END, CASE WHEN n < 5 THEN n::text::bytea END,"
        "        CASE WHEN n IN (1, 2, 4) THEN now() END FROM generate_series(1, 6) AS n;"
        "UPDATE accounts.audit_head SET seq = 4"
    )
    ids = await connection.fetch("SELECT event_id FROM accounts.audit_outbox ORDER BY audit_id")
    for file in files[7:8]:
        (source / file.name).write_bytes(file.read_bytes())
    assert await migrate(empty_database, "accounts", [source], role=role) == 1
    lines = await connection.fetch("SELECT seq, line, event_id FROM accounts.audit_lines ORDER BY seq")
    assert [(row["seq"], row["line"]) for row in lines] == [(n, str(n).encode()) for n in range(1, 5)]
    waiting = await connection.fetch("SELECT tail, event_id FROM accounts.audit_outbox ORDER BY audit_id")
    assert [row["tail"] for row in waiting] == ["fact 5", "fact 6"]
    assert [row["event_id"] for row in (*lines, *waiting)] == [row["event_id"] for row in ids]
    assert await connection.fetchval("SELECT published_seq FROM accounts.audit_head") == 2
    await connection.close()


async def test_two_at_once(empty_database: str, role: str, files: Path) -> None:
    """Of two runs at the same time one applies everything and the other nothing; neither fails."""
    runs = [migrate(empty_database, "accounts", [files], role=role) for _ in range(2)]
    assert sorted(await asyncio.gather(*runs)) == [0, 2]


async def test_service_may_change_rows_and_nothing_else(empty_database: str, role: str, files: Path) -> None:
    """The service's role reads and writes rows; it makes no tables and does not touch the bookkeeping."""
    (files / "0003_keep.sql").write_text(f"CREATE TABLE kept (n integer); REVOKE UPDATE, DELETE ON kept FROM {role};")
    await migrate(empty_database, "accounts", [files], role=role)
    await migrate(empty_database, "accounts", [files], role=role)  # gives nothing back that a file took
    admin = await asyncpg.connect(empty_database)
    await admin.execute(f"GRANT CONNECT ON DATABASE {urlsplit(empty_database).path[1:]} TO {role}")
    await admin.close()
    connection = await asyncpg.connect(as_role(empty_database, role))
    await connection.execute("UPDATE accounts.first SET n = 2")
    await connection.execute("INSERT INTO accounts.kept VALUES (1)")
    assert await connection.fetchval("SELECT accounts.one()") == 1
    for refused in (
        "CREATE TABLE accounts.own (n integer)",
        "DELETE FROM accounts.kept",
        "DELETE FROM accounts.schema_migrations",
        "TRUNCATE accounts.first",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(refused)
    await check_schema(connection, "accounts", read([files]))
    await connection.close()


async def test_failing_file_leaves_no_trace(empty_database: str, role: str, files: Path) -> None:
    """A file that fails is undone whole; those before it stay, and the mended one goes on from there."""
    broken = files / "0003_broken.sql"
    broken.write_text("CREATE TABLE half (n integer); SELECT 1/0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_database, "accounts", [files], role=role)
    connection = await asyncpg.connect(empty_database)
    assert await connection.fetchval("SELECT to_regclass('accounts.half')") is None
    assert await connection.fetchval("SELECT to_regclass('accounts.second')") is not None
    await connection.close()
    broken.write_text("CREATE TABLE half (n integer);")
    assert await migrate(empty_database, "accounts", [files], role=role) == 1


async def test_changed_file_is_refused(empty_database: str, role: str, files: Path) -> None:
    """A file that was changed after it was applied stops the run, and a program that was built with it."""
    await migrate(empty_database, "accounts", [files], role=role)
    (files / "0001_first.sql").write_text("CREATE TABLE first (n bigint);")
    with pytest.raises(MigrationError, match="accounts/0001_first was changed"):
        await migrate(empty_database, "accounts", [files], role=role)
    connection = await asyncpg.connect(empty_database)
    with pytest.raises(MigrationError, match="accounts/0001_first was changed"):
        await check_schema(connection, "accounts", read([files]))
    await connection.close()


async def test_overtaken_file_is_refused(empty_database: str, role: str, files: Path) -> None:
    """A new file with a number below an applied one is refused: other databases have the other order."""
    (files / "0001_first.sql").rename(files.parent / "aside.sql")
    await migrate(empty_database, "accounts", [files], role=role)
    (files.parent / "aside.sql").rename(files / "0001_first.sql")
    with pytest.raises(MigrationError, match="comes before accounts/0002_second"):
        await migrate(empty_database, "accounts", [files], role=role)


async def test_file_that_commits_is_refused(empty_database: str, role: str, files: Path) -> None:
    """A file may not end the transaction in which it runs."""
    (files / "0003_commits.sql").write_text("CREATE TABLE third (n integer); COMMIT;")
    with pytest.raises(MigrationError, match="ends its transaction itself"):
        await migrate(empty_database, "accounts", [files], role=role)


async def test_missing_role_is_named(empty_database: str, files: Path) -> None:
    """Without its role nothing is done, and the error names the role."""
    with pytest.raises(MigrationError, match=r"no role .*nobody_at_all"):
        await migrate(empty_database, "accounts", [files], role="nobody_at_all")


async def test_program_waits_for_its_schema_and_ignores_newer(empty_database: str, role: str, files: Path) -> None:
    """A program is not ready without schema or with an older one; a newer one does not matter to it."""
    connection = await asyncpg.connect(empty_database)
    needed = read([files])
    with pytest.raises(SchemaNotReady, match="lacks 2 migrations, the first is accounts/0001_first"):
        await check_schema(connection, "accounts", needed)
    (files / "0003_third.sql").write_text("CREATE TABLE third (n integer);")
    await migrate(empty_database, "accounts", [files], role=role)
    await check_schema(connection, "accounts", needed)
    (files / "0004_fourth.sql").write_text("CREATE TABLE fourth (n integer);")
    with pytest.raises(SchemaNotReady, match="lacks 1 migrations, the first is accounts/0004_fourth"):
        await check_schema(connection, "accounts", read([files]))
    await connection.close()


@pytest.mark.parametrize("name", ["1_first.sql", "0001-first.sql", "0001_First.sql"])
def test_other_file_names_are_refused(files: Path, name: str) -> None:
    """A file whose name says no number and purpose is an error, not skipped."""
    (files / name).write_text("SELECT 1")
    with pytest.raises(MigrationError, match=r"NNNN_<what>\.sql"):
        read([files])


def test_same_number_twice_is_refused(files: Path) -> None:
    """Two files with one number have no order."""
    (files / "0002_other.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match="the same number"):
        read([files])
