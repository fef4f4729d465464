"""The databases' side of a simulation: the false clock of the server, what the cast needs there, and a clean field for each schedule."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import asyncpg

from habeas.chassis.clock import FakeClock
from habeas.chassis.database import Database
from habeas_embedded.provision import Access
from tests.simulation.toys import FIRST, MAKE_TOYS, SECOND
from tests.support.delivery import NOON, settings

CONNECTIONS_MAX: Final = 24
LOCK_TIMEOUT_MS: Final = 10  # nobody lets a lock go while another waits for it: only one runs at a time
TRUNCATE_EVERY: Final = 250  # deleted rows are looked past for a while; emptied files are not

# Leases run on the server's clock. A function of the same name that stands earlier in the search path takes its place.
_MAKE_CLOCK: Final = """
    CREATE TABLE {schema}.sim_clock (moment timestamptz NOT NULL);
    INSERT INTO {schema}.sim_clock VALUES ('2026-11-24T12:00:00Z');
    CREATE FUNCTION {schema}.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT moment FROM {schema}.sim_clock';
    GRANT EXECUTE ON FUNCTION {schema}.now() TO {schema};
"""
MAKE_SAVED: Final = "CREATE SCHEMA simulated"

# A constraint trigger looks when the transaction commits: whoever writes then must still hold the lane it wrote under.
_MAKE_EFFECTS: Final = """
    CREATE TABLE {schema}.effects (
        position bigint GENERATED ALWAYS AS IDENTITY, key uuid NOT NULL, number integer NOT NULL, holder uuid NOT NULL,
        lane smallint NOT NULL);
    CREATE TABLE {schema}.stale (key uuid NOT NULL, number integer NOT NULL);
    CREATE FUNCTION {schema}.note_stale() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM {schema}.lanes WHERE lane = NEW.lane AND holder = NEW.holder) THEN
            INSERT INTO {schema}.stale VALUES (NEW.key, NEW.number);
        END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER effects_fenced AFTER INSERT ON {schema}.effects DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION {schema}.note_stale();
"""

TABLES: Final = (
    "inbox",
    "seen",
    "outbox",
    "audit_outbox",
    "audit_lines",
    "audit_head",
    "lanes",
    "replicas",
    "positions",
    "control",
    "parked_decisions",
)
_TABLES: Final = """
    SELECT n.nspname AS schema, c.relname AS name
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND c.relname !~ '^(sim_|saved_|_?yoyo|schema_|migrations)'
     ORDER BY n.nspname, c.relname
"""


async def lay_toys(access: Access) -> None:
    """Make the toys' tables."""
    owner = await asyncpg.connect(access.owner_dsn)
    try:
        for service in (FIRST, SECOND):
            await owner.execute(_MAKE_EFFECTS.format(schema=service.replace("-", "_")))
        await owner.execute(MAKE_TOYS)
    finally:
        await owner.close()


@dataclass(frozen=True)
class Plot:
    """What a cast needs of a database: its services, its tables, and which schemas beyond the services' are emptied."""

    services: Sequence[str] = (FIRST, SECOND)
    lay: Callable[[Access], Awaitable[None]] = lay_toys
    schemas: Sequence[str] = ()
    open_store: "Callable[[str], Awaitable[asyncpg.Pool[asyncpg.Record]]] | None" = None


@dataclass
class Field:
    """One database with pools as each service, and what empties it."""

    admin: "asyncpg.Connection[asyncpg.Record]"
    pools: dict[str, "asyncpg.Pool[asyncpg.Record]"]
    schemas: dict[str, str]
    stores: "dict[str, asyncpg.Pool[asyncpg.Record]]"  # the platform's, as each service
    _wipe: str
    _empty: str
    _uses: int = field(default=0)

    @classmethod
    async def lay(cls, access: Access, plot: Plot | None = None) -> "Field":
        """Make clocks and tables in a migrated database of our own, and open the pools."""
        plot = plot or Plot()
        schemas = {service: service.replace("-", "_") for service in plot.services}
        owner = await asyncpg.connect(access.owner_dsn)
        try:
            for schema in schemas.values():
                await owner.execute(_MAKE_CLOCK.format(schema=schema))
        finally:
            await owner.close()
        admin = await asyncpg.connect(access.admin_dsn, server_settings={"lock_timeout": str(LOCK_TIMEOUT_MS)})
        await admin.execute(MAKE_SAVED)
        await plot.lay(access)
        wipe, empty = await _cleaning(admin, schemas.values(), plot.schemas)
        pools, stores = {}, {}
        for service, schema in schemas.items():
            chosen = settings(
                access.dsn(service), pool_connections_max=CONNECTIONS_MAX, lock_timeout_ms=LOCK_TIMEOUT_MS
            )
            opened = await Database.open(chosen, f"{schema}, pg_catalog", FakeClock(NOON))
            pools[service] = opened.pool
            if plot.open_store is not None:
                stores[service] = await plot.open_store(access.dsn(service))
        return cls(admin, pools, schemas, stores, wipe, empty)

    async def clean(self) -> None:
        """Make everything as it was in the beginning."""
        self._uses += 1
        await self.admin.execute(self._wipe if self._uses % TRUNCATE_EVERY else self._empty)

    async def set_clock(self, moment: datetime) -> None:
        """Set the servers' clock."""
        sql = "; ".join(
            f"UPDATE {schema}.sim_clock SET moment = '{moment.isoformat()}'" for schema in self.schemas.values()
        )
        await self.admin.execute(sql)

    async def close(self) -> None:
        """Close every connection."""
        for pool in (*self.pools.values(), *self.stores.values()):
            pool.terminate()
        await self.admin.close()


async def _cleaning(
    admin: "asyncpg.Connection[asyncpg.Record]", schemas: Iterable[str], others: Sequence[str]
) -> tuple[str, str]:
    """Give the statements that clear all tables, and those that do it by truncating; rows of the beginning come back."""
    wipe, tables, again = [], [], []
    for row in await admin.fetch(_TABLES, [*schemas, *others]):
        table = f"{row['schema']}.{row['name']}"
        wipe.append(f"DELETE FROM {table}")
        tables.append(table)
        if await admin.fetchval(f"SELECT count(*) FROM {table}"):
            saved = f"simulated.saved_{row['schema']}_{row['name']}"
            # Whole rows in one column: a column named like an account id is one that the check of a data map asks for.
            await admin.execute(f"CREATE TABLE {saved} AS SELECT t AS saved FROM {table} AS t")
            again.append(f"INSERT INTO {table} SELECT (saved).* FROM {saved}")
    clock = [f"UPDATE {schema}.sim_clock SET moment = '2026-11-24T12:00:00Z'" for schema in schemas]
    quiet = "SET LOCAL session_replication_role = replica"  # no trigger fires, no reference is checked
    return (
        "; ".join([quiet, *wipe, *again, *clock]),
        "; ".join([quiet, f"TRUNCATE {', '.join(tables)}", *again, *clock]),
    )
