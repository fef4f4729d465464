"""Schemas brought forward: numbered SQL files, applied once each, in order, by the owner role and never by a service.

A file `NNNN_<what>.sql` runs as one transaction with `search_path` set to the service's schema, so that the chassis' own
files apply in every one. The server reads a file whole: functions and quoting are its business, not ours. The bookkeeping
keeps the SHA-256 of each file: one that was changed after it was applied is an error. An older program may meet a newer
schema and a newer one waits for it: `check_schema` asks for the files that the program was built with, and no more.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg

from habeas.chassis.connection import require_own_session

__all__ = [
    "Migration",
    "MigrationError",
    "SchemaNotReady",
    "check_schema",
    "directories",
    "expected",
    "migrate",
    "read",
]

OWNER: Final = "habeas_owner"

_FILE: Final = re.compile(r"(\d{4})_[a-z0-9_]{1,80}\.sql")
_IDENTIFIER: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_LOCK: Final = 0x6861_6265_6173  # "habeas": one run at a time for a whole database
_LOCK_TIMEOUT_MS: Final = 60_000
_CONNECT_S: Final = 10.0

_FIND_ROLES = "SELECT rolname FROM pg_roles WHERE rolname = ANY($1::text[])"

_FIND_APPLIED = "SELECT name, digest FROM {schema}.schema_migrations ORDER BY name"

_PREPARE_SCHEMA = """
    CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {owner};
    REVOKE ALL ON SCHEMA {schema} FROM PUBLIC;
    SET ROLE {owner};
    SET search_path = {schema}, pg_temp;
    CREATE TABLE IF NOT EXISTS {schema}.schema_migrations (
        name       text PRIMARY KEY,
        digest     bytea       NOT NULL CHECK (octet_length(digest) = 32),
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
"""

# Rights come with the making of a table and not in a sweep afterwards, so that a migration can take some back for good.
_GRANT_TO_SERVICE = """
    GRANT USAGE ON SCHEMA {schema} TO {role};
    GRANT SELECT ON {schema}.schema_migrations TO {role};
    REVOKE INSERT, UPDATE, DELETE ON {schema}.schema_migrations FROM {role};
    ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema}
        GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
    ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} GRANT USAGE ON SEQUENCES TO {role};
    ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} GRANT EXECUTE ON FUNCTIONS TO {role};
"""

_ADD_APPLIED = "INSERT INTO schema_migrations (name, digest) VALUES ($1, $2)"


class MigrationError(Exception):
    """Files and database contradict each other, or cannot be brought together; a person must look."""


class SchemaNotReady(Exception):
    """The schema lacks migrations that this program needs; wait, or run them."""

    def __init__(self, schema: str, missing: Sequence[str]) -> None:
        super().__init__(f"schema {schema} lacks {len(missing)} migrations, the first is {missing[0]}")
        self.missing = tuple(missing)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its name with the package that it belongs to, and the SHA-256 of its bytes."""

    name: str
    digest: bytes
    sql: str


class Fetching(Protocol):
    """A pool or connection of asyncpg."""

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Run a query and give its rows."""
        ...


def directories(service: str) -> tuple[Path, ...]:
    """Give the directories whose files make the schema of a service (kebab-case), in order: the chassis', then its own.

    Raises MigrationError when the service is not installed.
    """
    package = service.replace("-", "_")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MigrationError(f"no package {package} is installed")
    own = Path(spec.submodule_search_locations[0]) / "migrations"
    return (Path(__file__).parent / "migrations", own)


def read(sources: Sequence[Path]) -> tuple[Migration, ...]:
    """Read the files of some directories, in the order of directories and numbers.

    Raises MigrationError for another file name or for two files with one number. A missing directory has no files.
    """
    migrations: list[Migration] = []
    for source in sources:
        files = sorted(source.glob("*.sql"))
        for file in files:
            if not _FILE.fullmatch(file.name):
                raise MigrationError(f"{file.name} is no name of a migration; write NNNN_<what>.sql")
        for one, other in pairwise(files):
            if one.name[:4] == other.name[:4]:
                raise MigrationError(f"{one.name} and {other.name} have the same number")
        for file in files:
            content = file.read_bytes()
            name = f"{source.parent.name}/{file.stem}"
            migrations.append(Migration(name, hashlib.sha256(content).digest(), content.decode()))
    return tuple(migrations)


def expected(service: str) -> tuple[Migration, ...]:
    """Give what the schema of an installed service (kebab-case) must hold for this program."""
    return read(directories(service))


async def check_schema(connection: Fetching, schema: str, needed: Sequence[Migration]) -> None:
    """Make sure that every needed migration was applied; further ones, of a newer program, do not matter.

    Raises SchemaNotReady when some are missing, MigrationError when one was applied with other content.
    """
    try:
        rows = await connection.fetch(_FIND_APPLIED.format(schema=_identifier(schema)))
    except (
        asyncpg.UndefinedTableError,
        asyncpg.InvalidSchemaNameError,
        asyncpg.InsufficientPrivilegeError,
    ):
        rows = []
    applied = {row["name"]: row["digest"] for row in rows}
    _refuse_changed(needed, applied)
    missing = [migration.name for migration in needed if migration.name not in applied]
    if missing:
        raise SchemaNotReady(schema, missing)


async def migrate(
    admin_dsn: str, schema: str, sources: Sequence[Path], *, owner: str = OWNER, role: str | None = None
) -> int:
    """Bring `schema` forward with the files of `sources` and give how many were applied.

    `admin_dsn` may make schemas and act as `owner`, who owns everything that is made. `role`, the service's, gets the
    rights to read and change rows of every table made from then on; a migration may take some of them back.
    Idempotent; of two runs at once in one database the later waits, a minute at most. A file that fails leaves no trace,
    and the ones before it stay. Raises MigrationError, SessionShared, or asyncpg's error for the statement that failed.
    """
    migrations = read(sources)
    names = {"schema": _identifier(schema), "owner": _identifier(owner)}
    connection = await asyncpg.connect(admin_dsn, timeout=_CONNECT_S)
    try:
        await require_own_session(connection, {}, lambda: asyncpg.connect(admin_dsn, timeout=_CONNECT_S))
        await _require_roles(connection, [owner] if role is None else [owner, role])
        await connection.execute(f"SET lock_timeout = {_LOCK_TIMEOUT_MS}")
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(_PREPARE_SCHEMA.format(**names))
        if role is not None:
            await connection.execute(_GRANT_TO_SERVICE.format(**names, role=_identifier(role)))
        rows = await connection.fetch(_FIND_APPLIED.format(**names))
        applied = {row["name"]: row["digest"] for row in rows}
        _refuse_changed(migrations, applied)
        waiting = [migration for migration in migrations if migration.name not in applied]
        _refuse_overtaken(waiting, applied)
        for migration in waiting:
            await _apply(connection, migration)
        return len(waiting)
    finally:
        await connection.close()  # gives the lock back too


async def _require_roles(connection: "asyncpg.Connection[asyncpg.Record]", roles: Sequence[str]) -> None:
    rows = await connection.fetch(_FIND_ROLES, roles)
    missing = set(roles) - {row["rolname"] for row in rows}
    if missing:
        raise MigrationError(f"the server has no role {', '.join(sorted(missing))}; make it first")


async def _apply(connection: "asyncpg.Connection[asyncpg.Record]", migration: Migration) -> None:
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(migration.sql)
        if not connection.is_in_transaction():
            raise MigrationError(f"{migration.name} ends its transaction itself; take COMMIT or ROLLBACK out")
        await connection.execute(_ADD_APPLIED, migration.name, migration.digest)
    except BaseException:
        if connection.is_in_transaction():
            await transaction.rollback()
        raise
    await transaction.commit()


def _refuse_changed(migrations: Sequence[Migration], applied: dict[str, bytes]) -> None:
    for migration in migrations:
        digest = applied.get(migration.name, migration.digest)
        if digest != migration.digest:
            raise MigrationError(f"{migration.name} was changed after it was applied; undo that and add a new file")


def _refuse_overtaken(waiting: Sequence[Migration], applied: dict[str, bytes]) -> None:
    """A file may not slip in below one of the same package that was applied already: elsewhere the order was another."""
    for migration in waiting:
        package = migration.name.partition("/")[0]
        later = [name for name in applied if name.partition("/")[0] == package and name > migration.name]
        if later:
            raise MigrationError(f"{migration.name} comes before {later[0]}, which was applied already; number it anew")


def _identifier(name: str) -> str:
    if not _IDENTIFIER.fullmatch(name):
        raise MigrationError("a schema or role is named by lower-case letters, digits and underscores")
    return f'"{name}"'
