"""Connections to a store with every limit set, and its errors told apart without their texts (which quote rows)."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from habeas.chassis.connection import Connection as OwnConnection
from habeas.chassis.connection import SessionShared, is_pooler, require_own_session, why
from habeas.datamap.catalogue.query import CATALOGUE, FINGERPRINT
from habeas.datamap.catalogue.schema import LiveSchema
from habeas.datamap.errors import Rule, SchemaMismatch, StoreError, StoreRefused, StoreUnavailable, Unavailability
from habeas.datamap.planner.sql import quoted

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

UNKNOWN_NAMES: Final = frozenset({"42P01", "42703", "3F000"})
"""undefined_table, undefined_column, invalid_schema_name: the schema changed after the check."""

UNAVAILABLE: Final = {
    "57014": Unavailability.TOO_SLOW,  # query_canceled, by statement_timeout
    "55P03": Unavailability.BUSY,  # lock_not_available, by lock_timeout
    "55006": Unavailability.BUSY,  # object_in_use
    "40001": Unavailability.BUSY,  # serialization_failure
    "40P01": Unavailability.BUSY,  # deadlock_detected
    "53300": Unavailability.BUSY,  # too_many_connections
    "25P03": Unavailability.TOO_SLOW,  # idle_in_transaction_session_timeout
    "3D000": Unavailability.NO_CONNECTION,  # invalid_catalog_name
}
UNAVAILABLE_CLASSES: Final = {
    "08": Unavailability.NO_CONNECTION,  # connection exception
    "28": Unavailability.LOGIN_REFUSED,  # invalid authorization
    "53": Unavailability.NO_CONNECTION,  # insufficient resources
    "57": Unavailability.NO_CONNECTION,  # operator intervention: shutdown, crash
    "58": Unavailability.NO_CONNECTION,  # system error
}
CLIENT_REFUSED: Final = "22000"
"""data_exception, for values that the driver itself could not encode."""
NOT_TEXT: Final = "22021"
"""character_not_in_repertoire, for bytes that a database without an encoding (`SQL_ASCII`) gives out as text."""


@dataclass(frozen=True)
class StoreOptions:
    """Limits of one store's connector. Times in seconds."""

    application: str = "habeas"
    connections_max: int = 4
    connect_timeout_s: float = 5.0
    acquire_timeout_s: float = 10.0
    statement_timeout_s: float = 120.0
    idle_timeout_s: float = 10.0  # in the middle of a transaction
    idle_connection_s: float = 300.0  # between two uses
    lock_timeout_s: float = 5.0
    drop_lock_timeout_s: float = 2.0
    rows_per_fetch: int = 500
    plan_once: bool = True
    """Whether a statement is planned once in a connection, for any accounts, instead of for each call's; with hundreds of partitions
    planning takes longer than doing. Statements with a limit in rows are better planned for it."""


class Link:
    """The pool of one store, opened with the first use; an unreachable store does not hinder a service's start."""

    def __init__(self, store: str, dsn: str, schema: str, options: StoreOptions, variable: str) -> None:
        """``variable`` is the one that holds the DSN; it is named where a connection does not come about."""
        self.store = store
        self._variable = variable
        self.options = options
        self._dsn = dsn
        self._schema = schema
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def close(self) -> None:
        """Close every connection; waits for those in use as long as a statement may take."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            with self.told():
                await pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection. Errors inside that come from the store leave as StoreError."""
        with self.told():
            async with AsyncExitStack() as stack:
                with self._reached():
                    pool = self._pool or await self._open()
                    connection = await stack.enter_async_context(pool.acquire(timeout=self.options.acquire_timeout_s))
                yield connection

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
        options = self.options
        settings = self._settings()
        pool = await asyncpg.create_pool(
            self._dsn,
            connection_class=OwnConnection,
            min_size=0,
            max_size=options.connections_max,
            max_queries=50_000,
            max_inactive_connection_lifetime=options.idle_connection_s,
            timeout=options.connect_timeout_s,
            reset=_keep_session,
            # The server's own limit comes first, so that it can say what it was; this is for a server that says nothing.
            command_timeout=options.statement_timeout_s + 5.0,
            statement_cache_size=200,
            max_cached_statement_lifetime=600,
            server_settings=settings,
        )
        try:
            async with pool.acquire(timeout=options.acquire_timeout_s) as session:
                await require_own_session(session, settings, self._connect)
        except BaseException:
            pool.terminate()
            raise
        if self._pool is None:
            self._pool = pool
        else:  # somebody else opened one meanwhile
            pool.terminate()
        return self._pool

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(self._dsn, timeout=self.options.connect_timeout_s)

    def _settings(self) -> dict[str, str]:
        options = self.options
        return {
            "application_name": options.application,
            "search_path": f"{quoted(self._schema)}, public",
            "TimeZone": "UTC",
            "DateStyle": "ISO",
            "IntervalStyle": "iso_8601",
            "bytea_output": "hex",
            "extra_float_digits": "1",  # as many digits as it takes to read the same number back
            "standard_conforming_strings": "on",
            # Row-level rules must not hide rows from an erasure: with `off` they are an error instead.
            "row_security": "off",
            "statement_timeout": _milliseconds(options.statement_timeout_s),
            "lock_timeout": _milliseconds(options.lock_timeout_s),
            "idle_in_transaction_session_timeout": _milliseconds(options.idle_timeout_s),
            "jit": "off",
            "plan_cache_mode": "force_generic_plan" if options.plan_once else "auto",
        }

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Turn whatever keeps a connection from coming about into StoreUnavailable, with the reason in words."""
        try:
            yield
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError, SessionShared) as error:
            told = why(error, self._dsn, self._variable)
            raise StoreUnavailable(self.store, _unavailability(error), why=told) from None

    @contextmanager
    def told(self, table: str | None = None) -> Iterator[None]:
        """Turn errors of driver and server into StoreError, naming `table`; texts of the server are dropped."""
        try:
            yield
        except StoreError:
            raise
        except asyncpg.PostgresError as error:
            raise _of_server(self.store, table, error, self._schema) from None
        except asyncpg.InterfaceError as error:
            if isinstance(error, ValueError):
                raise StoreRefused(self.store, table, CLIENT_REFUSED) from None
            raise StoreUnavailable(self.store, Unavailability.CLOSED, table) from None
        except UnicodeDecodeError:
            raise StoreRefused(self.store, table, NOT_TEXT) from None
        except TimeoutError:
            raise StoreUnavailable(self.store, Unavailability.TOO_SLOW, table) from None
        except (OSError, asyncpg.InternalClientError):
            raise StoreUnavailable(self.store, Unavailability.NO_CONNECTION, table) from None


async def _keep_session(connection: object) -> None:
    """Do nothing: what is set is set for one transaction only, and asking costs a round trip each time."""


async def read_catalogue(conn: Connection, schema: str, known: str | None = None) -> LiveSchema | None:
    """Read every schema of the database, seen from ``schema``; None, by one query, when it still has the fingerprint `known`."""
    if known is not None and await conn.fetchval(FINGERPRINT) == known:
        return None
    row = await conn.fetchrow(CATALOGUE)
    return LiveSchema.parse(schema, row["told"], row["fingerprint"]) if row is not None else None


async def read_live_schema(store: str, dsn: str, schema: str, variable: str = "the DSN") -> LiveSchema:
    """Read one schema of a database that is not open yet; raises StoreUnavailable, which names ``variable``, or StoreRefused."""
    link = Link(store, dsn, schema, StoreOptions(connections_max=1), variable)
    try:
        async with link.connection() as conn:
            return await read_catalogue(conn, schema) or LiveSchema({})
    finally:
        await link.close()


def _of_server(store: str, table: str | None, error: asyncpg.PostgresError, schema: str) -> StoreError:
    code = error.sqlstate or ""
    if code in UNKNOWN_NAMES:
        return SchemaMismatch(store, (), table)
    unavailable = UNAVAILABLE.get(code) or UNAVAILABLE_CLASSES.get(code[:2])
    if unavailable is not None:
        return StoreUnavailable(store, unavailable, table)
    return StoreRefused(store, table, code, _rule(error, schema))


def _rule(error: asyncpg.PostgresError, schema: str) -> Rule | None:
    """Return the constraint that the server names beside its text (PostgreSQL's documentation, 54.8): names of the schema, no values."""
    table, constraint = error.table_name, error.constraint_name
    if not table or not constraint:
        return None
    named = table if error.schema_name in {None, schema} else f"{error.schema_name}.{table}"
    return Rule(named, constraint, isinstance(error, asyncpg.ForeignKeyViolationError | asyncpg.RestrictViolationError))


def _unavailability(error: BaseException) -> Unavailability:
    """Return the word for a connection that did not come about."""
    if isinstance(error, SessionShared) or is_pooler(error):
        return Unavailability.MISCONFIGURED
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        return UNAVAILABLE.get(code) or UNAVAILABLE_CLASSES.get(code[:2]) or Unavailability.NO_CONNECTION
    if isinstance(error, TimeoutError):
        return Unavailability.TOO_SLOW
    return Unavailability.NO_CONNECTION if isinstance(error, OSError) else Unavailability.MISCONFIGURED


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
