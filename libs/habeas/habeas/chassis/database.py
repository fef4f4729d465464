"""PostgreSQL as services see it: named transactions that carry state, events and audit entries together.

Only this module commits. A transaction collects events and audit entries, writes them to the outbox as its last statements and
commits all at once: no state change without its messages, no message without its state change.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import asyncpg
from opentelemetry.trace import SpanKind

from habeas.chassis import cause, crash, metrics, outbox, store
from habeas.chassis.clock import Clock
from habeas.chassis.connection import Connection, SessionShared, is_pooler, require_own_session
from habeas.chassis.crash import Point
from habeas.chassis.errors import Invariant
from habeas.chassis.redaction import Name
from habeas.chassis.settings import ChassisSettings
from habeas.contracts.audit import AuditFact
from habeas.contracts.model import Event

T = TypeVar("T")


class ServerChanged(Exception):
    """The database's server is another one, or was restarted: nothing begins on it before it is known to have everything."""


TRANSIENT: Final = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,  # disk, memory, connections
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or one that is about to be
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # used between a server's goodbye and the end of the connection
    OSError,
    TimeoutError,
    ServerChanged,
)
"""Failures of the database or the way to it: the same unit of work may succeed unchanged, so no message is blamed."""

REFUSED: Final = asyncpg.DataError
"""A value that the database, or its client before it, does not take: its message is to blame, and no other attempt ends otherwise."""

_ATTEMPTS_MAX: Final = 5
_POSTGRESQL: Final = Name("postgresql")
_BACKOFF_FIRST_S: Final = 0.02
_CLOSE_S: Final = 5.0

# Queues are empty when statistics are taken and full when it matters, so the planner's guesses are worth nothing: it sorts all that
# waits to take the first few rows (160 ms instead of 5 with 60,000 waiting). Every statement of a service has an index made for it, so
# a plan is made once in a connection and not for each call: over an outbox of three weeks, planning takes longer than looking.
_PLANNER: Final = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    # A plan made while a table is small is used while it grows: a few looks into an index must seem cheaper than all of a small one.
    "random_page_cost": "0.1",
}


class Server(NamedTuple):
    """Which server it is: the data's identity, and since when it runs."""

    system_id: int
    started_at: datetime

    @classmethod
    async def of(cls, connection: "Asking") -> "Server":
        """Ask the server that a connection leads to."""
        row = await connection.fetchrow(store.FIND_SERVER)
        if row is None:
            message = "one row is always given"
            raise Invariant(message)
        return cls(row["system_id"], row["started_at"])


class Asking(Protocol):
    """A connection of asyncpg, from a pool or not."""

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        """Run a query and give its first row."""
        ...


class Transaction:
    """One unit of work. Made by ``Database.transaction`` only; a handler cannot commit it."""

    def __init__(
        self, connection: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]", name: str, now: datetime
    ) -> None:
        self.name = name
        self.now = now
        self.statements = 0
        self._connection = connection
        self._comment = f"/* {name} */ "
        self.pending = outbox.Pending()
        self.causes: list[str] = []

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Run one statement and give its rows."""
        self.statements += 1
        return await self._connection.fetch(self._comment + sql, *args)

    async def fetchrow(self, sql: str, *args: object) -> asyncpg.Record | None:
        """Run one statement and give its first row."""
        self.statements += 1
        return await self._connection.fetchrow(self._comment + sql, *args)

    async def fetchval(self, sql: str, *args: object) -> Any:  # noqa: ANN401 -- the statement decides the type, and its caller knows it
        """Run one statement and give the first column of its first row."""
        self.statements += 1
        return await self._connection.fetchval(self._comment + sql, *args)

    async def execute(self, sql: str, *args: object) -> str:
        """Run one statement and give its command tag, such as ``UPDATE 3``."""
        self.statements += 1
        return await self._connection.execute(self._comment + sql, *args)

    async def count(self, sql: str, *args: object) -> int:
        """Run one statement and give how many rows it changed."""
        return int((await self.execute(sql, *args)).rpartition(" ")[2])

    async def execute_exactly(self, count: int, sql: str, *args: object) -> None:
        """Run one statement that must change exactly ``count`` rows; anything else is an ``Invariant``."""
        changed = await self.count(sql, *args)
        if changed != count:
            message = f"{self.name}: a statement changed {changed} rows where {count} were meant"
            raise Invariant(message)

    async def copy(
        self, table: str, *, schema: str, columns: Sequence[str], records: Iterable[Sequence[object]]
    ) -> None:
        """Write many rows by COPY."""
        self.statements += 1
        await self._connection.copy_records_to_table(table, schema_name=schema, columns=list(columns), records=records)

    def emit(self, *events: Event, trace: str | None = None) -> None:
        """Publish events if and when this transaction commits.

        ``trace`` is the W3C trace parent of the cause; without it, the message that is being handled is the cause.
        Raises ``EventTooLarge`` for an event that no record can hold, and takes none of them then.
        """
        origin = trace if trace is not None else cause.current()
        self.pending.add_events(events, origin)

    def caused_by(self, *traces: str | None) -> None:
        """Name what this transaction is done for, beyond what it emits, so that it is found in those traces."""
        self.causes.extend(trace for trace in traces if trace is not None)

    def did(self, what: Callable[..., object]) -> None:
        """Name a function that this transaction has called with an effect: sweeps that wait for it run once the transaction commits."""
        self.pending.did.add(what.__name__)

    def record(self, *facts: AuditFact, trace: str | None = None) -> None:
        """Put facts into the audit log if and when this transaction commits; ``trace`` as for ``emit``."""
        origin = trace if trace is not None else cause.current()
        self.pending.facts.extend((fact, origin) for fact in facts)


class Database:
    """The service's slice of PostgreSQL. One connection per unit of work, every wait bounded."""

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", schema: str, clock: Clock, settings: ChassisSettings
    ) -> None:
        self.schema = schema
        self.clock = clock
        self.pool = pool
        self.server_changed = asyncio.Event()
        self._trusted: Server | None = None  # none: every server is taken as it is
        self._settings = settings
        self._acquire_timeout_s = settings.connect_timeout_s
        self._on_commit: list[Callable[[outbox.Pending], None]] = []

    @classmethod
    async def open(cls, settings: ChassisSettings, schema: str, clock: Clock) -> "Database":
        """Open the pool. Raises what asyncpg raises when the server is not there; callers wait and try again.

        Raises ``SessionShared`` when connections are no sessions of their own, which waiting does not mend.
        """
        made: list[Database] = []
        options = _options(settings, schema)

        async def enter(connection: Asking) -> None:
            for database in made:
                await database.look_at(connection)

        try:
            pool = await asyncpg.create_pool(
                min_size=settings.pool_connections_min,
                max_size=settings.pool_connections_max,
                max_inactive_connection_lifetime=300,
                init=enter,
                reset=_keep_session,
                **options,
            )
        except asyncpg.ProtocolViolationError as error:
            if is_pooler(error):
                raise SessionShared("the settings of a session are refused") from None
            raise
        try:
            async with pool.acquire() as session:
                await require_own_session(session, options["server_settings"], lambda: asyncpg.connect(**options))
        except BaseException:
            pool.terminate()
            raise
        database = cls(pool, schema, clock, settings)
        made.append(database)
        return database

    @asynccontextmanager
    async def apart(self) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
        """Connect outside of the pool, also to a server that is not trusted yet; for looking before units of work may begin."""
        connection = await asyncpg.connect(**_options(self._settings, self.schema))
        try:
            yield connection
        finally:
            await connection.close(timeout=_CLOSE_S)

    @property
    def is_trusted(self) -> bool:
        """Whether units of work may begin: a server was looked at, and none since that is not known to have everything."""
        return self._trusted is not None and not self.server_changed.is_set()

    def trust(self, server: Server) -> None:
        """Let units of work begin on this server, and on no other from now on."""
        self._trusted = server
        self.server_changed.clear()

    async def look_at(self, connection: Asking) -> None:
        """Look at each new connection's server; a restart or a failover comes with new connections and cannot be missed."""
        if self._trusted is not None and await Server.of(connection) != self._trusted:
            self.server_changed.set()
            raise ServerChanged

    def on_commit(self, callback: Callable[[outbox.Pending], None]) -> None:
        """Call back after every commit with what it holds for the outbox, so that relay and sweeps wake at once."""
        self._on_commit.append(callback)

    @asynccontextmanager
    async def transaction(self, name: str) -> AsyncIterator[Transaction]:
        """Open a named transaction (kebab-case); it commits when the block ends, rolls back when it raises.

        A block that was cancelled while committing may have committed: whoever runs it again must be idempotent.
        """
        label = _label(name)
        started = self.clock.monotonic()
        async with self.pool.acquire(timeout=self._acquire_timeout_s) as connection, connection.transaction():
            tx = Transaction(connection, name, self.clock.now())
            yield tx
            crash.at(Point.TRANSACTION_DONE, name, tx.statements)
            await outbox.write(tx, self.clock)
            crash.at(Point.OUTBOX_WRITTEN, name, tx.statements)
        crash.at(Point.COMMITTED, name, tx.statements)
        metrics.TRANSACTION_DURATION_S.observe(self.clock.monotonic() - started, transaction=label)
        metrics.TRANSACTION_STATEMENTS.add(tx.statements, transaction=label)
        causes = [*tx.causes, *(trace for _, trace, _ in tx.pending.events if trace is not None)]
        cause.record(
            "transaction/" + name,
            causes,
            tx.now,
            self.clock.now(),
            kind=SpanKind.CLIENT,
            attributes={"db.system": _POSTGRESQL, "db.statements": tx.statements},
        )
        for callback in self._on_commit:
            callback(tx.pending)

    async def run(self, name: str, unit: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run a whole unit of work, again after a serialisation failure, a deadlock or a lost connection, a few times at most."""

        async def attempt() -> T:
            async with self.transaction(name) as tx:
                return await unit(tx)

        return await self._repeated(name, attempt)

    async def change(self, name: str, sql: str, *args: object) -> list[asyncpg.Record]:
        """Run one statement that is a whole unit of work and commits with it, again after trouble as ``run`` does; gives its rows.

        For what leaves neither events nor facts. It may have been done when it raises, and it may be done twice: it must be idempotent.
        """

        async def attempt() -> list[asyncpg.Record]:
            async with self.pool.acquire(timeout=self._acquire_timeout_s) as connection:
                rows: list[asyncpg.Record] = await connection.fetch(f"/* {name} */ {sql}", *args)
            metrics.TRANSACTION_STATEMENTS.add(1, transaction=_label(name))
            return rows

        return await self._repeated(name, attempt)

    async def _repeated(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        for number in range(_ATTEMPTS_MAX):
            try:
                return await attempt()
            except TRANSIENT:
                metrics.TRANSACTION_REPEATED_TRANSACTIONS.add(transaction=_label(name))
                if number == _ATTEMPTS_MAX - 1:
                    raise
                await asyncio.sleep(random.uniform(0, _BACKOFF_FIRST_S * 2**number))  # noqa: S311 -- spreads repetitions out, nothing secret
        message = "the loop above returns or raises"
        raise Invariant(message)

    async def read(self, name: str, sql: str, *args: object) -> list[asyncpg.Record]:
        """Run one statement that changes nothing, outside of any transaction, and give its rows."""
        async with self.pool.acquire(timeout=self._acquire_timeout_s) as connection:
            rows: list[asyncpg.Record] = await connection.fetch(f"/* {name} */ {sql}", *args)
        metrics.TRANSACTION_STATEMENTS.add(1, transaction=_label(name))
        return rows

    async def ping(self) -> bool:
        """Answer whether the server answers, within two seconds."""
        try:
            async with self.pool.acquire(timeout=1) as connection:
                return bool(await connection.fetchval("SELECT true", timeout=1))
        except TRANSIENT:
            return False

    async def close(self) -> None:
        """Close the pool, by force after five seconds."""
        try:
            await asyncio.wait_for(self.pool.close(), 5)
        except TimeoutError:
            self.pool.terminate()


def _options(settings: ChassisSettings, schema: str) -> dict[str, Any]:
    return {
        "connection_class": Connection,
        "dsn": settings.database_dsn.get_secret_value(),
        "command_timeout": settings.statement_timeout_ms / 1000 + 1,
        "timeout": settings.connect_timeout_s,
        "statement_cache_size": 256,
        "server_settings": {
            "application_name": schema,
            "search_path": schema,
            "statement_timeout": str(settings.statement_timeout_ms),
            "lock_timeout": str(settings.lock_timeout_ms),
            # A replica that stands still in the middle of a transaction keeps its lanes locked no longer than it holds them.
            "idle_in_transaction_session_timeout": str(
                min(settings.idle_in_transaction_timeout_ms, int(settings.lease_s * 1000))
            ),
            "jit": "off",
            **_PLANNER,
        },
    }


async def _keep_session(connection: object) -> None:
    """Do nothing: services change nothing in a session that would have to be undone, and asking costs a round trip each time."""


@lru_cache(maxsize=1024)
def _label(name: str) -> Name:
    return Name(name)
