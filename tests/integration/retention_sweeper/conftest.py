"""retention-sweeper without Kafka: ticks are put into its inbox, its clock is moved by hand, its sweeps run until nothing is due."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest_asyncio
from typing_extensions import override

from habeas.chassis import store as chassis_store
from habeas.chassis.clock import FakeClock
from habeas.chassis.database import Database, Transaction
from habeas.chassis.ids import uuid7
from habeas.chassis.lanes import Lanes
from habeas.chassis.outbox import lane_of
from habeas.chassis.settings import ChassisSettings, Environment
from habeas.chassis.worker import Worker
from habeas.contracts.platform import RetentionTicked
from habeas.datamap.policy.model import Policy
from habeas.datamap.postgres import PostgresStore, StoreOptions
from habeas.datamap.stores import Stores
from habeas.sealing import Protector
from habeas.sealing.kek import KeyRing, new_key_ring
from habeas_embedded.provision import Access
from retention_sweeper import handlers, lifecycle, sweeps
from retention_sweeper.gateways import MappedStores, Purgeable
from retention_sweeper.lifecycle import Purged, Rule
from tests.support.shop import open_shop, read_map

NOW = datetime(2027, 1, 30, 9, 0, tzinfo=UTC)
AS_OF = datetime(2027, 1, 30, 0, 0, tzinfo=UTC)
CREATED = datetime(2026, 11, 1, 10, 0, tzinfo=UTC)
"""When everything of the shop's people was created: ninety days before 30 January 2027, 10:00 UTC."""
PEOPLE = ("acc_1", "acc_2", "acc_3")
TOLERANCE = timedelta(minutes=5)


class Killed(BaseException):
    """What ends a process without a word; no handler of errors may catch it."""


@dataclass
class Fate:
    """Counts the points at which a process can die, and lets it die at one of them."""

    dies_at: int | None = None
    points: int = 0

    def pass_by(self) -> None:
        """Come to a point."""
        self.points += 1
        if self.points == self.dies_at:
            raise Killed


PROTECTOR = Protector(KeyRing(new_key_ring()))


class MortalDatabase(Database):
    """Dies right before a commit."""

    fate: Fate

    @override
    @asynccontextmanager
    async def transaction(self, name: str) -> AsyncIterator[Transaction]:
        """Open a transaction that may not live to see its commit."""
        async with super().transaction(name) as tx:
            yield tx
            self.fate.pass_by()


class MortalStores:
    """Dies right before or right after a store did what was asked; ``meanwhile`` is done once, while a store is being asked."""

    def __init__(self, stores: Purgeable, fate: Fate) -> None:
        self.stores = stores
        self.fate = fate
        self.purged: list[tuple[str, str, str]] = []
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    def root(self, store: str) -> str:
        """Pass on."""
        return self.stores.root(store)

    async def rules(self, store: str) -> tuple[Rule, ...]:
        """Pass on, between two points."""
        self.fate.pass_by()
        rules = await self.stores.rules(store)
        self.fate.pass_by()
        return rules

    async def purge(
        self, store: str, rule: Rule, cutoff: datetime, rows_max: int, buckets: Sequence[int] | None = None
    ) -> Purged:
        """Note the call and pass on, between two points."""
        self.fate.pass_by()
        self.purged.append((store, rule.table, rule.retention))
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        purged = await self.stores.purge(store, rule, cutoff, rows_max, buckets)
        self.fate.pass_by()
        return purged


@dataclass
class Sweeper:
    """The service's parts, and what a test may look at."""

    db: MortalDatabase
    clock: FakeClock
    worker: Worker
    stores: MortalStores
    policy: Policy
    reader: "asyncpg.Connection[asyncpg.Record]"
    rows_max: int = 10_000
    sent: int = field(default=0)

    async def tick(self, as_of: datetime = AS_OF, scope: str = "all", *, tick_id: UUID | None = None) -> UUID:
        """Let a tick arrive, and be handled."""
        self.sent += 1
        ticked = RetentionTicked(tick_id=tick_id or uuid7(self.clock), as_of=as_of, scope=scope)
        value = ticked.encode()
        now = self.clock.now()
        event_id = uuid7(self.clock)
        key = PROTECTOR.fingerprint(ticked.key().encode())
        columns: list[Any] = [event_id, ticked.topic.name, 0, self.sent, ticked.type, key, lane_of(key), now]
        columns += [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            PROTECTOR.seal(value, event_id.bytes),
            b"0" * 32,
            "pending",
            None,
            None,
        ]
        async with self.db.pool.acquire() as conn:
            await conn.fetch(chassis_store.STORE_RECORDS, now, *([column] for column in columns), [], [], [])
        await self.worker.step()
        return ticked.tick_id

    async def run(self) -> None:
        """Run both sweeps until neither finds anything due."""
        while (await sweeps.plan_due(self.db, self.stores)).handled:
            pass
        while (await sweeps.sweep_due(self.db, self.stores, self.policy, self.rows_max)).handled:
            pass

    async def told(self, kind: str) -> list[dict[str, Any]]:
        """Give the events of one type that were emitted, in order."""
        rows = await self.reader.fetch(
            "SELECT value FROM retention_sweeper.outbox WHERE type = $1 ORDER BY outbox_id", kind
        )
        return [json.loads(row["value"]) for row in rows]

    async def facts(self) -> list[str]:
        """Give the audit entries as far as they are rendered, without time, in order."""
        rows = await self.reader.fetch("SELECT tail FROM retention_sweeper.audit_outbox ORDER BY audit_id")
        return [row["tail"].partition(" ")[2] for row in rows]

    async def states(self) -> dict[tuple[str, str], str]:
        """Give the state of the sweep of each table and retention class."""
        rows = await self.reader.fetch("SELECT table_name, retention, state FROM retention_sweeper.sweeps")
        return {(row["table_name"], row["retention"]): row["state"] for row in rows}

    async def parked(self) -> list[tuple[str, str]]:
        """Give reason and field of each parked message."""
        rows = await self.reader.fetch(
            "SELECT reason, field FROM retention_sweeper.inbox WHERE state = 'parked' ORDER BY inbox_id"
        )
        return [(row["reason"], row["field"]) for row in rows]

    async def forget(self) -> None:
        """Begin anew, as if nothing had ever been asked."""
        async with self.db.pool.acquire() as conn:
            await conn.execute(
                "DELETE FROM retention_sweeper.sweeps; DELETE FROM retention_sweeper.ticks;"
                "DELETE FROM retention_sweeper.rules; DELETE FROM retention_sweeper.outbox;"
                "DELETE FROM retention_sweeper.audit_outbox; DELETE FROM retention_sweeper.inbox"
            )


@dataclass
class Shop:
    """A connection of the shop's owner, who may do everything there."""

    owner: "asyncpg.Connection[asyncpg.Record]"
    store: PostgresStore
    policy: Policy


@asynccontextmanager
async def start_sweeper(
    access: Access, stores: list[PostgresStore], policy: Policy, now: datetime = NOW
) -> AsyncIterator[Sweeper]:
    """Put the service together as its composition root does, with a clock that stands still."""
    clock = FakeClock(now)
    settings = ChassisSettings(
        environment=Environment.DEVELOPMENT,
        kafka_bootstrap="127.0.0.1:9",
        database_dsn=access.dsn("retention-sweeper"),  # type: ignore[arg-type]  # a secret is made of text
        pool_connections_max=3,
    )
    db = await MortalDatabase.open(settings, "retention_sweeper", clock)
    assert isinstance(db, MortalDatabase)
    fate = db.fate = Fate()
    lanes = Lanes(db, uuid7(clock), 0, 60.0)
    await lanes.balance()
    calendar = handlers.Calendar(tuple(store.name for store in stores), frozenset(policy.retention), TOLERANCE)
    topic = RetentionTicked.topic

    async def handle(batch: Any, tx: Transaction) -> None:  # noqa: ANN401 -- the worker groups by type
        await handlers.on_retention_ticked(batch, tx, calendar)

    worker = Worker(db, lanes, {RetentionTicked.type: handle}, {topic.name: topic}, PROTECTOR, settings)
    reader = await asyncpg.connect(access.operator_dsn)
    mortal = MortalStores(MappedStores(Stores(stores), policy.zone), fate)
    try:
        yield Sweeper(db, clock, worker, mortal, policy, reader)
    finally:
        await reader.close()
        await db.close()


@pytest_asyncio.fixture
async def shop(empty_database: str, tmp_path: Path) -> AsyncIterator[Shop]:
    """Three people with 20 rows each, everything dated 1 November 2026, 10:00 UTC, their log 20 to 22 November."""
    owner = await asyncpg.connect(empty_database)
    try:
        await open_shop(owner, PEOPLE)
        store_map, policy = read_map(tmp_path)
        options = StoreOptions(connections_max=2, lock_timeout_s=60.0, drop_lock_timeout_s=60.0)
        async with PostgresStore(store_map, policy, empty_database, options) as store:
            yield Shop(owner, store, policy)
    finally:
        await owner.close()


@pytest_asyncio.fixture
async def sweeper(database: Access, shop: Shop) -> AsyncIterator[Sweeper]:
    """The service over the shop."""
    async with start_sweeper(database, [shop.store], shop.policy) as started:
        yield started


def after_lease(sweeper: Sweeper) -> None:
    """Let so much time pass that what a dead process had claimed is due again, and stuck sweeps too."""
    sweeper.clock.set(sweeper.clock.now() + max(lifecycle.LEASE, timedelta(minutes=5)))
