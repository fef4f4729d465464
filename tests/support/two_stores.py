"""Two databases of one platform: the shop with its accounts, and its support desk, which holds account ids and no account.

Each is reached through a proxy of its own, so that either can be away.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from habeas.datamap.map.loading import load_datamap
from habeas.datamap.policy.model import Policy
from habeas.datamap.postgres import PostgresStore, StoreOptions
from habeas_embedded.ports import LOOPBACK
from tests.kill.proxy import Proxy
from tests.support.shop import DATAMAP, open_shop, write_map
from tests.support.waiting import until

SUPPORT: Final = """
  - fides_key: support
    habeas: {store: support, connection: SUPPORT_DSN, root: none}
    collections:
      - name: tickets
        habeas: {category: usage, retention: execution, age: opened_at, on_erasure: delete}
        fields:
          - {name: id, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - {name: account_id, data_categories: [user.unique_id], fides_meta: {identity: account_id}}
          - {name: opened_at, data_categories: [system.operations]}
      - name: messages
        habeas: {category: content, retention: execution, age: parent.opened_at, on_erasure: delete}
        fields:
          - {name: id, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - name: ticket_id
            data_categories: [system.operations]
            fides_meta: {references: [{dataset: support, field: tickets.id, direction: from}]}
          - {name: body, data_categories: [user.content]}
"""
DESK: Final = """
CREATE TABLE tickets (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id text NOT NULL, opened_at timestamptz NOT NULL
);
CREATE INDEX ON tickets (account_id);
CREATE TABLE messages (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ticket_id bigint NOT NULL REFERENCES tickets (id), body text NOT NULL
);
CREATE INDEX ON messages (ticket_id);
"""
OPEN_TICKETS: Final = """
WITH t AS (
    INSERT INTO tickets (account_id, opened_at) SELECT unnest($1::text[]), '2026-11-01T10:00Z' RETURNING id, account_id
)
INSERT INTO messages (ticket_id, body) SELECT id, 'words ' || n || ' of ' || account_id FROM t, generate_series(1, 2) AS n
"""
AT_A_LOCK: Final = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()
"""

Connection = asyncpg.Connection


@dataclass
class Platform:
    """Both stores as the fleet reaches them, and their owners, who go by no proxy."""

    shop: PostgresStore
    support: PostgresStore
    policy: Policy
    shop_owner: "Connection[asyncpg.Record]"
    support_owner: "Connection[asyncpg.Record]"
    proxies: dict[str, Proxy]

    @property
    def stores(self) -> list[PostgresStore]:
        """Both, in the order of the map."""
        return [self.shop, self.support]

    def take_away(self, name: str) -> None:
        """Let a store answer no more."""
        self.proxies[name].refuses = True
        self.proxies[name].cut()

    def bring_back(self, name: str) -> None:
        """Let it answer again."""
        self.proxies[name].mend()

    @asynccontextmanager
    async def lost_while(self, name: str, lock: str) -> AsyncIterator[None]:
        """While the block works, take a store away as soon as somebody waits there for what ``lock`` locks.

        The block has to begin the work and not to wait for its end.
        """
        owner = self.shop_owner if name == "shop" else self.support_owner
        async with owner.transaction():
            await owner.execute(lock)
            yield

            async def at_the_lock() -> bool:
                await owner.execute("SELECT pg_stat_clear_snapshot()")
                return bool(await owner.fetchval(AT_A_LOCK))

            await until(at_the_lock, f"somebody at work in {name}")
            self.take_away(name)

    async def rows_of(self, account_id: str) -> dict[str, int]:
        """Count the rows of one person: accounts and tasks of the shop, tickets and messages of the desk."""
        counts = {}
        for owner, table, sql in (
            (self.shop_owner, "accounts", "SELECT count(*) FROM accounts WHERE id = $1"),
            (self.shop_owner, "tasks", "SELECT count(*) FROM tasks WHERE account_id = $1"),
            (self.support_owner, "tickets", "SELECT count(*) FROM tickets WHERE account_id = $1"),
            (self.support_owner, "messages", "SELECT count(*) FROM messages WHERE body LIKE '%' || $1"),
        ):
            counts[table] = int(await owner.fetchval(sql, account_id))
        return counts


@asynccontextmanager
async def open_platform(
    shop_dsn: str, support_dsn: str, directory: Path, people: Sequence[str]
) -> AsyncIterator[Platform]:
    """Make both databases; each person has what `open_shop` gives, and one ticket with two messages."""
    path, policy = write_map(directory, DATAMAP + SUPPORT)
    datamap = load_datamap(path, policy)
    options = StoreOptions(connections_max=2, lock_timeout_s=60.0, connect_timeout_s=60.0, acquire_timeout_s=60.0)
    async with AsyncExitStack() as stack:
        owners, stores, proxies = {}, {}, {}
        for name, dsn in (("shop", shop_dsn), ("support", support_dsn)):
            owners[name] = await asyncpg.connect(dsn)
            stack.push_async_callback(owners[name].close)
            parts = urlsplit(dsn)
            proxies[name] = await stack.enter_async_context(Proxy(name, _target(parts.hostname, parts.port)))
            place = f"{parts.netloc.rpartition('@')[0]}@{LOOPBACK}:{proxies[name].port}"
            through = parts._replace(netloc=place).geturl()
            stores[name] = await stack.enter_async_context(PostgresStore(datamap.store(name), policy, through, options))
        await open_shop(owners["shop"], people)
        await owners["support"].execute(DESK)
        await owners["support"].execute(OPEN_TICKETS, list(people))
        yield Platform(stores["shop"], stores["support"], policy, owners["shop"], owners["support"], proxies)


def _target(host: str | None, port: int | None) -> Callable[[], tuple[str, int]]:
    return lambda: (host or LOOPBACK, port or 5432)
