"""The store's own work done and taken back: what an erasure, an export and a purge of real people would do, or be refused."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import asyncpg

from habeas.contracts.outcomes import TableOutcome
from habeas.datamap.errors import StoreError, table_behind
from habeas.datamap.map.model import StoreMap
from habeas.datamap.planner.sql import quoted, words
from habeas.datamap.policy.retention import cutoff
from habeas.datamap.postgres.connection import Connection
from habeas.datamap.postgres.erasing import Done, Erasing

if TYPE_CHECKING:
    from habeas.datamap.postgres.store import PostgresStore

ROWS_WHOLE: Final = 100_000
"""Of a root with more rows only some pages are read to choose people at random."""

PURGED_MAX: Final = 1_000
"""Rows that the purge of one rule is tried with."""

ABOUT_ROWS: Final = """
    SELECT c.reltuples::float8 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'r'
"""


@dataclass(frozen=True)
class Rehearsed:
    """What an erasure would have done: outcomes by account, and its statements in their order, with `$1` for values."""

    outcomes: Mapping[str, tuple[TableOutcome, ...]]
    statements: tuple[str, ...]


@dataclass(frozen=True)
class Tried:
    """One piece of work: `person` numbers those that were chosen, None for a purge.

    `rows` counts by table and what became of them; `refused` is why it did not come about, `table` the one whose rows were in the way.
    """

    work: str
    person: int | None
    rows: Mapping[tuple[str, str], int]
    refused: str | None = None
    table: str | None = None


@asynccontextmanager
async def taken_back(conn: Connection) -> AsyncIterator[None]:
    """Roll back whatever is done inside; what is committed there is a savepoint of this transaction."""
    transaction = conn.transaction()
    await transaction.start()
    try:
        yield
    finally:
        if not conn.is_closed():
            await transaction.rollback()


def written_down(
    conn: Connection, work: Callable[[Erasing], Awaitable[Done]], statements: list[str]
) -> Callable[[Erasing], Awaitable[Done]]:
    """Give the same work, which writes down its statements without their values."""

    def note(query: "asyncpg.connection.LoggedQuery") -> None:
        statements.append(query.query)

    async def noted(erasing: Erasing) -> Done:
        with conn.query_logger(note):
            return await work(erasing)

    return noted


async def choose(conn: Connection, store: StoreMap, ghosts: Sequence[str], limit: int) -> list[str]:
    """Give account ids at random, fewer where there are fewer; of a large table from some of its pages."""
    about = await conn.fetchval(ABOUT_ROWS, store.schema, store.root) or 0.0
    wanted = max(ROWS_WHOLE, 100 * limit)
    some = f"TABLESAMPLE SYSTEM ({100.0 * wanted / about})" if wanted < about else ""
    column = quoted(store.identity)
    sql = words(
        "SELECT", f"{column}::text", "AS account_id FROM", quoted(store.schema, store.root), some,
        "WHERE", f"{column}::text", "<> ALL($1::text[]) ORDER BY pg_catalog.random() LIMIT $2::bigint",
    )  # fmt: skip
    return [row["account_id"] for row in await conn.fetch(sql, list(ghosts), limit)]


async def rehearse_people(store: "PostgresStore", people: int, as_of: datetime) -> tuple[int, tuple[Tried, ...]]:
    """Erase and export each of some people chosen at random, and purge once by each rule, all of it taken back.

    Give how many people there were, and what was tried. Raises StoreError where nobody can be chosen at all.
    """
    chosen = await store.sample(people)
    tried: list[Tried] = []
    for number, account_id in enumerate(chosen, start=1):
        tried.append(await _tried("erasure", number, _erased(store, account_id)))
        tried.append(await _tried("export", number, _exported(store, account_id)))
    for rule in await store.purge_rules() if chosen else ():
        edge = cutoff(store.policy.retention[rule.retention], as_of, store.policy.zone)
        tried.append(await _tried("purge", None, _purged(store, rule.table, rule.retention, edge)))
    return len(chosen), tuple(tried)


async def _tried(work: str, person: int | None, doing: Awaitable[Mapping[tuple[str, str], int]]) -> Tried:
    try:
        return Tried(work, person, await doing)
    except StoreError as error:
        return Tried(work, person, {}, str(error), table_behind(error))


async def _erased(store: "PostgresStore", account_id: str) -> Mapping[tuple[str, str], int]:
    counted: Counter[tuple[str, str]] = Counter()
    for each in (await store.rehearse([account_id])).outcomes[account_id]:
        counted[(each.table, str(each.result))] += each.rows
    return +counted


async def _exported(store: "PostgresStore", account_id: str) -> Mapping[tuple[str, str], int]:
    counted: Counter[tuple[str, str]] = Counter()
    async with AsyncExitStack() as stack:
        pieces = store.export([account_id])
        stack.push_async_callback(pieces.aclose)
        async for piece in pieces:
            counted[(piece.source.table, "exported")] += len(piece.rows)
    return counted


async def _purged(store: "PostgresStore", table: str, retention: str, edge: datetime) -> Mapping[tuple[str, str], int]:
    rows = await store.rehearse_purge(table, retention, edge, PURGED_MAX)
    return {(table, f"purged by {retention}"): rows} if rows else {}
