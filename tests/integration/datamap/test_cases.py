"""Every input on which version 0.1 failed is refused with the words to write, or does to everybody's rows what is right."""

import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg
import pytest
import pytest_asyncio
import yaml

from habeas.datamap.errors import OthersTouched, SchemaMismatch, StoreRefused
from habeas.datamap.postgres import PostgresStore, StoreOptions
from tests.support.shop import read_map

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

CASES: Final[Mapping[str, dict[str, Any]]] = yaml.safe_load(
    Path(__file__).with_name("cases.yaml").read_text(encoding="utf-8")
)
LONG_AGO: Final = datetime(2025, 1, 1, tzinfo=UTC)
RANDOM: Final = re.compile(r"[0-9a-f]{16,32}")


@pytest_asyncio.fixture
async def owner(empty_database: str) -> AsyncIterator["Connection"]:
    """A connection of the platform's owner, to a database of one test."""
    conn = await asyncpg.connect(empty_database, server_settings={"timezone": "UTC"})
    try:
        yield conn
    finally:
        await conn.close()


async def made(owner: "Connection", case: Mapping[str, Any]) -> None:
    """Make the tables of a case; generated columns that are not stored need PostgreSQL 18, and are stored before."""
    schema = case["schema"]
    if owner.get_server_version().major < 18:
        schema = schema.replace("VIRTUAL", "STORED")
    await owner.execute(schema)
    await owner.execute("SET TIME ZONE 'UTC'")


def opened(dsn: str, directory: Path, text: str) -> PostgresStore:
    """Give the connector of a map."""
    store_map, policy = read_map(directory, text)
    return PostgresStore(store_map, policy, dsn, StoreOptions(connections_max=1))


def right(case: Mapping[str, Any]) -> str:
    """Give the map that says what is right."""
    return str(case["map"] if case["right"] == "given" else case["right"])


async def rows(owner: "Connection") -> dict[str, list[str]]:
    """Give all rows of all tables, partitions by the table they are of."""
    tables = await owner.fetch(
        "SELECT c.oid::regclass::text AS name, n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace"
        " WHERE relkind IN ('r', 'p') AND NOT relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    )
    found = {}
    for table in tables:
        name = table["relname"] if table["nspname"] == "public" else f"{table['nspname']}.{table['relname']}"
        held = await owner.fetch(f"SELECT whole::text AS row FROM {table['name']} AS whole")
        found[name] = sorted(RANDOM.sub("*", row["row"]) if "-0000-" not in row["row"] else row["row"] for row in held)
    return found


REFUSED: Final = [name for name, case in CASES.items() if "refused" in case]
RIGHT: Final = [name for name, case in CASES.items() if "right" in case]
PURGED: Final = [name for name, case in CASES.items() if "purged" in case]


def test_no_case_is_left_out() -> None:
    """Each is refused, or has a map that says it rightly."""
    assert set(REFUSED) | set(RIGHT) == set(CASES)


@pytest.mark.parametrize("name", REFUSED)
async def test_the_map_as_given_is_refused(owner: "Connection", empty_database: str, tmp_path: Path, name: str) -> None:
    """The check names the columns and what to write; nothing has changed."""
    await made(owner, CASES[name])
    before = await rows(owner)
    async with opened(empty_database, tmp_path, CASES[name]["map"]) as store:
        with pytest.raises(SchemaMismatch) as caught:
            await store.erase([CASES[name].get("person", "a")])
    told = "\n".join(f"{problem.what}; write {problem.write}" for problem in caught.value.problems)
    assert [words for words in CASES[name]["refused"] if words not in told] == [], told
    assert await rows(owner) == before


@pytest.mark.parametrize("name", RIGHT)
async def test_the_right_map_erases_and_exports_what_is_right(
    owner: "Connection", empty_database: str, tmp_path: Path, name: str
) -> None:
    """Each row of the person is exported once; after the erasure every table holds what it should, and the others what they held."""
    case = CASES[name]
    await made(owner, case)
    await owner.execute(case.get("before", "SELECT 1"))
    person = case.get("person", "a")
    before = await rows(owner)
    async with opened(empty_database, tmp_path, right(case)) as store:
        await store.check()
        if "exported" in case:
            assert sum([len(piece.rows) async for piece in store.export([person])]) == case["exported"]
        assert await rows(owner) == before
        await store.erase([person])
    assert await rows(owner) == before | {table: sorted(left) for table, left in case["left"].items()}


@pytest.mark.parametrize("name", PURGED)
async def test_a_sweep_of_the_right_map_takes_what_is_right(
    owner: "Connection", empty_database: str, tmp_path: Path, name: str
) -> None:
    """Old rows go, but for those to which others refer."""
    case = CASES[name]
    await made(owner, case)
    before = await rows(owner)
    async with opened(empty_database, tmp_path, right(case)) as store:
        [rule] = [r for r in await store.purge_rules() if (r.table, r.retention) == (case["purge"], "execution")]
        await store.purge(rule, LONG_AGO, 100)
    assert await rows(owner) == before | {table: sorted(left) for table, left in case["purged"].items()}


# What would take rows of others or write copies, were the check not there; the last is a rule that rewrites.
BESIDE: Final = {
    "02-self-reference-cascade": "",
    "03-self-reference-restrict": "",
    "04-cascade-takes-others-answers": "",
    "05-others-rows-forbid": "",
    "06-audit-trigger-copy": "",
    "07-deferred-fk-fails-at-commit": "",
    "23-table-in-another-schema-with-fk": "",
    "39-purge-self-reference-cascade": "",
    "36-foreign-key-on-one-partition-only": (
        "CREATE TABLE copies (id text, email text);"
        " CREATE RULE kept AS ON DELETE TO accounts DO ALSO INSERT INTO copies VALUES (OLD.id, OLD.email);"
    ),
}


@pytest.mark.parametrize("name", BESIDE)
async def test_the_guard_alone_stops_an_erasure(
    owner: "Connection", empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With the check out of the way, the database's counts or its constraints roll everything back."""
    monkeypatch.setattr("habeas.datamap.postgres.store.compare", lambda *_: ())
    await made(owner, CASES[name])
    await owner.execute(BESIDE[name] or "SELECT 1")
    before = await rows(owner)
    async with opened(empty_database, tmp_path, CASES[name]["map"]) as store:
        with pytest.raises((OthersTouched, StoreRefused)):
            await store.erase(["a"])
    assert await rows(owner) == before


AGED: Final = "retention: execution, age: at_age, on_erasure: delete"
OLD: Final = "timestamptz NOT NULL DEFAULT '2020-01-01Z'"
DAY: Final = '"2020-01-01 00:00:00+00"'
RULE: Final = (
    "CREATE TABLE copies (id int); CREATE RULE kept AS ON DELETE TO zlogs DO ALSO INSERT INTO copies VALUES (OLD.id);"
)
# The table with an age, what else there is, and what a sweep leaves of it; nothing of it where the sweep is stopped.
SWEPT: Final[Mapping[str, tuple[str, str, list[str] | None]]] = {
    "02-self-reference-cascade": (
        "comments",
        "UPDATE comments SET at_age = '2026-11-01Z' WHERE id = 2",
        [f'(1,a,,"a starts",{DAY})', '(2,b,1,"b answers","2026-11-01 00:00:00+00")'],
    ),
    "04-cascade-takes-others-answers": ("posts", "", [f'(1,a,"post of a",{DAY})']),
    "05-others-rows-forbid": ("posts", "", [f'(1,a,"post of a",{DAY})']),
    "06-audit-trigger-copy": ("accounts", "", None),
    "17-partition-drop-with-incoming-fk": ("logs", "", ['(2,a,"2020-02-05 00:00:00+00")']),
    "36-foreign-key-on-one-partition-only": ("zlogs", RULE, None),
    "39-purge-self-reference-cascade": ("comments", "", CASES["39-purge-self-reference-cascade"]["purged"]["comments"]),
}


def aged(text: str, table: str) -> str:
    """Give a map in which a table has an age and its retention."""
    [line] = [line for line in text.splitlines() if f"{{name: {table}, habeas: {{category: " in line]
    return text.replace(line, line.replace("on_erasure: delete", AGED).removesuffix("]}") + ", {name: at_age}]}")


@pytest.mark.parametrize("name", SWEPT)
async def test_no_sweep_takes_young_rows_along(
    owner: "Connection", empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Without the check, rows stay to which others refer, whatever the database would do; a copy rolls everything back."""
    monkeypatch.setattr("habeas.datamap.postgres.store.compare", lambda *_: ())
    table, more, left = SWEPT[name]
    text = CASES[name]["map"]
    await made(owner, CASES[name])
    if "age:" not in text:
        await owner.execute(f"ALTER TABLE {table} ADD at_age {OLD}")
        text = aged(text, table)
    await owner.execute(more or "SELECT 1")
    before = await rows(owner)
    async with opened(empty_database, tmp_path, text) as store:
        [rule] = [r for r in await store.purge_rules() if (r.table, r.retention) == (table, "execution")]
        if left is None:
            with pytest.raises((OthersTouched, StoreRefused)):
                await store.purge(rule, LONG_AGO, 100)
        else:
            await store.purge(rule, LONG_AGO, 100)
    assert await rows(owner) == (before if left is None else before | {table: sorted(left)})
