"""A store of one table beside its root, with columns of any type, and what an export of it holds."""

import io
import json
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest_asyncio

from export_builder.gateways import Builder, Built, Order, Vault
from habeas.datamap.planner.sql import quoted
from habeas.datamap.postgres import PostgresStore, StoreOptions
from habeas.datamap.stores import Stores
from habeas.sealing.artefact import ArtefactCipher
from tests.support.shop import read_map

ONE, OTHER = "acc_1", "acc_2"
JSON_TYPES: Final = frozenset({"json", "jsonb", "doc", "docb"})
"""With the domains over them that tests make."""

_MAP: Final = """
dataset:
  - fides_key: shop
    habeas: {store: shop, connection: SHOP_DSN, root: accounts}
    collections:
      - name: accounts
        habeas: {category: account, retention: account, age: closed_at, on_erasure: delete}
        fields:
          - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true, identity: account_id}}
          - {name: email, data_categories: [user.contact.email], habeas: {contact: address}}
          - {name: closed_at, data_categories: [system.operations]}
      - name: things
        habeas: {category: content, retention: execution, age: made_at, on_erasure: delete, path: account_id}
        fields:
          - {name: n, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - name: account_id
            data_categories: [user.unique_id]
            fides_meta: {references: [{dataset: shop, field: accounts.id, direction: from}]}
          - {name: made_at, data_categories: [system.operations]}
"""
_SCHEMA: Final = """
CREATE TABLE accounts (id text PRIMARY KEY, email text NOT NULL, closed_at timestamptz);
CREATE TABLE things (n bigint PRIMARY KEY, account_id text NOT NULL REFERENCES accounts (id), made_at timestamptz);
CREATE INDEX ON things (account_id);
INSERT INTO accounts VALUES ('acc_1', 'one@example.org'), ('acc_2', 'other@example.org');
"""


@dataclass(frozen=True)
class Exported:
    """An artefact in clear."""

    built: Built
    files: Mapping[str, bytes] = field(repr=False)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `things` as JSON has them."""
        rows: list[dict[str, Any]] = json.loads(self.files["tables/shop.things.json"])
        return rows


@dataclass(frozen=True)
class Things:
    """The store's owner, the builder, and the directory of its artefacts."""

    dsn: str
    owner: "asyncpg.Connection[asyncpg.Record]"
    store: PostgresStore
    builder: Builder
    vault: Vault
    directory: Path

    async def export(self, *accounts: str) -> list[Exported]:
        """Export these accounts in one batch."""
        orders = [Order(UUID(int=at + 1), 1, UUID(int=at + 101), account) for at, account in enumerate(accounts)]
        built = await self.builder.build(orders, portable_only=False)
        return [self._opened(order, built[order.export_id]) for order in orders]

    def _opened(self, order: Order, built: Built) -> Exported:
        with ArtefactCipher.decrypting_reader(self.vault.path(order), built.secret, order.export_id.bytes) as reader:
            archive = zipfile.ZipFile(io.BytesIO(b"".join(iter(lambda: reader.read(1 << 20), b""))))
        return Exported(built, {name: archive.read(name) for name in archive.namelist()})


MakeThings = Callable[..., Awaitable[Things]]


@pytest_asyncio.fixture
async def things(empty_database: str, tmp_path: Path) -> AsyncIterator[MakeThings]:
    """Makes the store with these columns (name to type), after the statements in `before`."""
    owner = await asyncpg.connect(empty_database)
    opened: list[PostgresStore] = []

    async def make(columns: Mapping[str, str], before: str = "", options: StoreOptions | None = None) -> Things:
        await owner.execute(_SCHEMA + before)
        for name, kind in columns.items():
            await owner.execute(f"ALTER TABLE things ADD COLUMN {quoted(name)} {kind}")
        fields = [
            f"          - {{name: {name}, data_categories: [user.content], habeas: {{large_object: false}}}}"
            if kind == "oid"
            else f"          - {{name: {name}, data_categories: [user.content]}}"
            for name, kind in columns.items()
        ]
        store_map, policy = read_map(tmp_path, _MAP + "\n".join(fields) + "\n")
        store = PostgresStore(store_map, policy, empty_database, options)
        opened.append(store)
        vault = Vault(tmp_path / "artefacts")
        return Things(
            empty_database, owner, store, Builder(Stores([store]), vault, policy), vault, tmp_path / "artefacts"
        )

    yield make
    for store in opened:
        await store.close()
    await owner.close()


async def fill(things: Things, account: str, names: Sequence[str], rows: Sequence[Sequence[str | None]]) -> None:
    """Insert rows of literals, each read by the input function of the column's own type."""
    kinds = await kinds_of(things.owner, "things")
    values = ", ".join(read(f"($2::text[])[{at}]", name, kinds[name], "things") for at, name in enumerate(names, 1))
    insert = await things.owner.prepare(
        f"INSERT INTO things (n, account_id, {', '.join(map(quoted, names))})"
        f" VALUES ((SELECT count(*) FROM things), $1, {values})"
    )
    async with things.owner.transaction():
        for row in rows:
            await insert.fetch(account, row)


def read(value: str, name: str, kind: str, table: str) -> str:
    """Return the expression of a column's value from text or JSON, as the README of an export says.

    In columns of JSON a string is the JSON value's text; otherwise the type's input function reads it, and arrays may be JSON's.
    """
    if kind in JSON_TYPES:
        return f"({value})::{kind}"
    return f"(json_populate_record(NULL::{table}, json_build_object('{name}', {value}))).{quoted(name)}"


async def kinds_of(conn: "asyncpg.Connection[asyncpg.Record]", table: str) -> dict[str, str]:
    """The declared types of a table's columns, with length."""
    rows = await conn.fetch(
        "SELECT attname, format_type(atttypid, atttypmod) AS kind FROM pg_attribute"
        " WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped",
        table,
    )
    return {row["attname"]: row["kind"] for row in rows}
