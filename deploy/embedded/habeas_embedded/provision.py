"""From empty servers to what the fleet needs: database, roles, grants, passwords, tables and topics. Doing it again changes nothing.

Roles and grants come from `deploy/postgres/roles.sql` alone, tables from the migrations, topics from the catalogue.
"""

import hashlib
import hmac
import secrets
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import asyncpg
from typing_extensions import override

from habeas import sealing
from habeas.chassis import migrations
from habeas_embedded.errors import ProvisionFailed
from habeas_embedded.places import home

__all__ = [
    "OPERATOR",
    "OWNER",
    "SERVICES",
    "SUPERVISOR",
    "Access",
    "apply_roles",
    "clone_database",
    "create_database",
    "drop_database",
    "migrate_all",
    "open_access",
    "prepare_database",
    "roles_sql",
    "with_database",
    "with_role",
]

SERVICES: Final = (
    "request-intake",
    "erasure-executor",
    "export-builder",
    "retention-sweeper",
    "notification-mailer",
    "audit-ledger",
)
OWNER: Final = "habeas_owner"
OPERATOR: Final = "habeas_operator"
SUPERVISOR: Final = "habeas_supervisor"

_CONNECT_LIMIT_S: Final = 30.0
_STATEMENT_LIMIT_S: Final = 180.0
_ROLES_LOCK: Final = 0x68616265  # "habe"


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach one database as whom; holds passwords, so it shows none."""

    database: str
    server_dsn: str
    passwords: Mapping[str, str]

    @override
    def __repr__(self) -> str:
        return f"Access(database={self.database!r})"

    @property
    def admin_dsn(self) -> str:
        """The administrator's DSN for this database."""
        return with_database(self.server_dsn, self.database)

    def dsn(self, role: str) -> str:
        """Give the DSN of a role (a service may be named in kebab-case)."""
        role = role.replace("-", "_")
        return with_role(self.admin_dsn, role, self.passwords[role])

    @property
    def owner_dsn(self) -> str:
        """The DSN that runs migrations."""
        return self.dsn(OWNER)

    @property
    def operator_dsn(self) -> str:
        """The DSN that may look and not touch."""
        return self.dsn(OPERATOR)

    @property
    def supervisor_dsn(self) -> str:
        """The DSN that may look, pause and decide about parked messages."""
        return self.dsn(SUPERVISOR)


def roles_sql() -> str:
    """Give the statements of `deploy/postgres/roles.sql`: packaged with us, else from the checkout around us."""
    here = Path(__file__).resolve()
    for candidate in (here.with_name("roles.sql"), here.parents[2] / "postgres" / "roles.sql"):
        if candidate.is_file():
            return candidate.read_text(encoding="utf-8")
    raise ProvisionFailed("roles.sql is neither packaged nor in the checkout: install habeas-embedded anew")


def open_access(admin_dsn: str, database: str) -> Access:
    """Give the access to `database`, whose roles have passwords that follow from the administrator's.

    The same server gets the same passwords from every run, so that two runs on one given server do not lock each other
    out; who does not know the administrator's password cannot guess them. An administrator that logs in without one is
    replaced by a random secret in the home directory of the embedded servers.
    """
    password = urlsplit(admin_dsn).password
    secret = unquote(password).encode() if password else _own_secret()
    roles = (OWNER, OPERATOR, SUPERVISOR, *(service.replace("-", "_") for service in SERVICES))
    passwords = {role: hmac.digest(secret, b"habeas role " + role.encode(), hashlib.sha256).hex() for role in roles}
    return Access(database, admin_dsn, MappingProxyType(passwords))


async def drop_database(admin_dsn: str, database: str) -> None:
    """Remove a database, ending whoever is connected to it; none of the name is no error."""
    connection = await _connect(admin_dsn)
    try:
        statement = await connection.fetchval(
            "SELECT format('DROP DATABASE IF EXISTS %I WITH (FORCE)', $1::text)", database
        )
        await connection.execute(statement, timeout=_STATEMENT_LIMIT_S)
    finally:
        await connection.close()


async def clone_database(admin_dsn: str, template: str, database: str) -> None:
    """Make a copy of a database to which nobody is connected; grants on the database itself are not copied."""
    connection = await _connect(admin_dsn)
    try:
        statement = await connection.fetchval(
            "SELECT format('CREATE DATABASE %I TEMPLATE %I', $1::text, $2::text)", database, template
        )
        await connection.execute(statement, timeout=_STATEMENT_LIMIT_S)
    finally:
        await connection.close()


async def create_database(admin_dsn: str, database: str) -> bool:
    """Make an empty database; False when it is there already. Raises ProvisionFailed when the server refuses."""
    connection = await _connect(admin_dsn)
    try:
        if await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", database):
            return False
        statement = await connection.fetchval(
            "SELECT format('CREATE DATABASE %I TEMPLATE template0 ENCODING ''UTF8''', $1::text)", database
        )
        await connection.execute(statement, timeout=_STATEMENT_LIMIT_S)
    except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):  # somebody else was first
        return False
    except asyncpg.PostgresError as error:
        raise ProvisionFailed(f"the database {database} could not be made: {type(error).__name__}") from error
    finally:
        await connection.close()
    return True


async def apply_roles(access: Access, *, set_passwords: bool = True) -> None:
    """Make roles, schemas and grants in the database, and set the roles' passwords; raises ProvisionFailed."""
    async with _turn(access.server_dsn):
        connection = await _connect(access.admin_dsn)
        try:
            async with connection.transaction():
                await connection.execute(roles_sql(), timeout=_STATEMENT_LIMIT_S)
                for role, password in access.passwords.items() if set_passwords else ():
                    statement = await connection.fetchval(
                        "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)", role, password
                    )
                    await connection.execute(statement)
        except asyncpg.PostgresError as error:
            raise ProvisionFailed(f"roles and grants could not be made: {type(error).__name__}") from error
        finally:
            await connection.close()


@asynccontextmanager
async def _turn(server_dsn: str) -> AsyncIterator[None]:
    """Wait for our turn: roles belong to the whole server, and two changes of one role at once fail.

    An advisory lock counts within one database only, so all take it in the one that the administrator's DSN names.
    """
    connection = await _connect(server_dsn)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _ROLES_LOCK, timeout=_STATEMENT_LIMIT_S)
        yield
    finally:
        await connection.close()  # gives the lock back


async def prepare_database(admin_dsn: str, database: str = "habeas") -> Access:
    """Make database, roles, grants and tables of the whole fleet as far as missing; gives the access to it."""
    access = open_access(admin_dsn, database)
    await create_database(admin_dsn, database)
    await apply_roles(access)
    await migrate_all(access.owner_dsn)
    return access


async def migrate_all(owner_dsn: str) -> int:
    """Bring all schemas forward as the owner, the one of the keys first; gives how many migrations were applied.

    Doing it again applies none. Raises ProvisionFailed for a migration that fails or was changed after it was applied.
    """
    try:
        applied = await migrations.migrate(owner_dsn, "sealing", [Path(sealing.__path__[0]) / "migrations"])
        for service in SERVICES:
            role = service.replace("-", "_")
            applied += await migrations.migrate(owner_dsn, role, migrations.directories(service), role=role)
    except (migrations.MigrationError, asyncpg.PostgresError, OSError, TimeoutError) as error:
        raise ProvisionFailed(f"the schemas could not be brought forward: {error}") from error
    return applied


def with_role(dsn: str, role: str, password: str) -> str:
    """Give the DSN for another role, at the same server and database."""
    parts = urlsplit(dsn)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(role, safe='')}:{quote(password, safe='')}@{place}"))


def with_database(dsn: str, database: str) -> str:
    """Give the DSN for another database of the same server, as the same role."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{quote(database, safe='')}"))


async def _connect(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    try:
        return await asyncpg.connect(dsn, timeout=_CONNECT_LIMIT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise ProvisionFailed(f"the database server does not let us in: {type(error).__name__}") from error


def _own_secret() -> bytes:
    path = home() / "roles.secret"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
        path.write_text(secrets.token_hex(32))
    return path.read_bytes()
