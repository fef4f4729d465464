"""A store that holds account ids and no table of people: found, erased, read again, exported and purged by the ids alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from habeas.contracts.outcomes import TableOutcome
from habeas.contracts.vocabulary import TableResult
from habeas.datamap.errors import SchemaMismatch
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.postgres import PostgresStore
from tests.support.shop import DATAMAP, write_map
from tests.support.two_stores import DESK, OPEN_TICKETS, SUPPORT

ONE, OTHER = "acc_1", "acc_2"
UPPER, LOWER = "0197F1C0-5B1E-7C11-8A39-0F6D2C4B9E01", "0197f1c0-5b1e-7c11-8a39-0f6d2c4b9e01"
CALLS = """
      - name: calls
        habeas: {category: usage, retention: execution, age: called_at, on_erasure: anonymise}
        fields:
          - {name: id, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - name: account_id
            data_categories: [user.unique_id]
            fides_meta: {identity: account_id}
            habeas: {anonymise: null}
          - {name: called_at, data_categories: [system.operations]}
"""


@asynccontextmanager
async def desk(
    dsn: str, directory: Path, ddl: str = DESK, more: str = ""
) -> AsyncIterator[tuple[PostgresStore, "asyncpg.Connection[asyncpg.Record]"]]:
    """Open the desk as a store, with its owner."""
    path, policy = write_map(directory, DATAMAP + SUPPORT + more)
    owner = await asyncpg.connect(dsn)
    try:
        await owner.execute(ddl)
        async with PostgresStore(load_datamap(path, policy).store("support"), policy, dsn) as store:
            yield store, owner
    finally:
        await owner.close()


async def test_everything_but_people_is_done_there(empty_database: str, tmp_path: Path) -> None:
    """Rows are counted, exported and erased by the ids that they carry; who exists is not asked of such a store."""
    async with desk(empty_database, tmp_path) as (store, owner):
        await owner.execute(OPEN_TICKETS, [ONE, OTHER])
        assert store.root is None
        assert await store.existing([ONE]) == frozenset()
        assert await store.contacts([ONE]) == {}
        assert await store.account_ids(None, 10) == []
        assert await store.locate([ONE]) == {ONE: {"messages": 2, "tickets": 1}}
        told = [(piece.account_id, piece.source.table, len(piece.rows)) async for piece in store.export([ONE])]
        assert sorted(told) == [(ONE, "messages", 2), (ONE, "tickets", 1)]
        outcomes = (await store.erase([ONE, "acc_nobody"]))[ONE]
        assert {(each.table, each.result, each.rows) for each in outcomes} == {
            ("messages", TableResult.ERASED, 2),
            ("tickets", TableResult.ERASED, 1),
        }
        assert await store.locate([ONE, OTHER]) == {
            ONE: {"messages": 0, "tickets": 0},
            OTHER: {"messages": 2, "tickets": 1},
        }


async def test_the_sweep_lets_rows_go_there_by_their_own_age(empty_database: str, tmp_path: Path) -> None:
    """Children before parents, and nothing before its time."""
    async with desk(empty_database, tmp_path) as (store, owner):
        await owner.execute(OPEN_TICKETS, [ONE, OTHER])
        rules = await store.purge_rules()
        assert [rule.table for rule in rules] == ["messages", "tickets"]
        for cutoff, rows in ((datetime(2026, 11, 1, tzinfo=UTC), [0, 0]), (datetime(2026, 11, 2, tzinfo=UTC), [4, 2])):
            assert [(await store.purge(rule, cutoff, 100)).rows for rule in rules] == rows


@pytest.mark.parametrize(
    ("kind", "held", "asked", "nobodys"),
    [
        ("uuid", LOWER, UPPER, "acc_1"),
        ("bigint", "7", "007", "acc_1"),
        ("citext", "Acc_1", "ACC_1", "acc_2"),
        ("text", UPPER, UPPER, LOWER),
    ],
)
async def test_ids_are_asked_for_as_the_columns_type_spells_them(
    empty_database: str, tmp_path: Path, kind: str, held: str, asked: str, nobodys: str
) -> None:
    """Outcomes come under the id that was asked for; one that the type cannot hold, or takes for another, is nobody's here."""
    ddl = "CREATE EXTENSION IF NOT EXISTS citext;" + DESK.replace("account_id text", f"account_id {kind}")
    async with desk(empty_database, tmp_path, ddl) as (store, owner):
        await owner.execute(OPEN_TICKETS.replace("$1::text[]", f"$1::text[]::{kind}[]"), [held])
        assert (await store.identity_type(), await store.locate([asked, nobodys])) == (
            kind,
            {asked: {"messages": 2, "tickets": 1}, nobodys: {"messages": 0, "tickets": 0}},
        )
        erased = await store.erase([asked, nobodys])
        assert {account: sum(each.rows for each in outcomes) for account, outcomes in erased.items()} == {
            asked: 3,
            nobodys: 0,
        }
        assert await owner.fetchval("SELECT count(*) FROM tickets") == 0


@pytest.mark.parametrize(
    ("tickets", "calls", "fits"),
    [
        ("text", "character varying(40)", True),
        ("bigint", "integer", True),
        ("text", "uuid", False),
        ("uuid", "text", False),
        ("text", "citext", False),
        ("text", "character(8)", False),
    ],
)
async def test_columns_that_spell_an_id_otherwise_are_refused(
    empty_database: str, tmp_path: Path, tickets: str, calls: str, *, fits: bool
) -> None:
    """Nothing there says which spelling is right, so rows could be missed, or taken for another's; the words say which columns."""
    ddl = f"""
        CREATE EXTENSION IF NOT EXISTS citext;
        {DESK.replace("account_id text", f"account_id {tickets}")}
        CREATE TABLE calls (id bigint PRIMARY KEY, account_id {calls}, called_at timestamptz NOT NULL);
    """
    async with desk(empty_database, tmp_path, ddl, CALLS) as (store, _):
        if fits:
            await store.check()
            assert sum(each.rows for each in (await store.erase(["7"]))["7"]) == 0
            return
        with pytest.raises(SchemaMismatch) as raised:
            await store.check()
        (problem,) = raised.value.problems
        assert "`calls.account_id`" in problem.what
        assert "`tickets.account_id`" in problem.what
        assert problem.write == "the same type for both columns"


@pytest.mark.parametrize("becomes", [None, "nobody"])
async def test_rows_that_stay_need_no_root(empty_database: str, tmp_path: Path, becomes: str | None) -> None:
    """A row that stays loses the id, for nothing or for one that is nobody's; running it again finds nothing."""
    ddl = DESK + "CREATE TABLE calls (id bigint PRIMARY KEY, account_id text, called_at timestamptz NOT NULL);"
    more = CALLS.replace("anonymise: null", f"anonymise: {becomes or 'null'}")
    async with desk(empty_database, tmp_path, ddl, more) as (store, owner):
        await owner.execute("INSERT INTO calls VALUES (1, 'acc_1', now()), (2, 'acc_2', now())")
        expected = TableOutcome(store="support", table="calls", category="usage", result=TableResult.ANONYMISED, rows=1)
        assert expected in (await store.erase([ONE]))[ONE]
        assert [row["account_id"] for row in await owner.fetch("SELECT account_id FROM calls ORDER BY id")] == [
            becomes,
            OTHER,
        ]
        assert sum(each.rows for each in (await store.erase(["nobody"]))["nobody"]) == 0
        assert sum(each.rows for each in (await store.erase([ONE]))[ONE]) == 0
