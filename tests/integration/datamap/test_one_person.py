"""Whose a row is, is certain or refused: references that several rows answer to, types that differ, columns that name two people."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from habeas.contracts.vocabulary import TableResult
from habeas.datamap.errors import SchemaMismatch
from habeas.datamap.map.loading import load_datamap
from habeas.datamap.postgres import PostgresStore, StoreOptions
from habeas.datamap.source import ConfigurationError
from tests.support.shop import write_map

HEAD: Final = """
dataset:
  - fides_key: shop
    habeas: {store: shop, connection: SHOP_DSN, schema: public, root: people}
    collections:
      - name: people
        habeas: {category: account, on_erasure: ROOT}
        fields:
          - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true, identity: account_id}}
          - {name: email, data_categories: [user.contact.email], habeas: {contact: addressANONYMISE}}
"""
PEOPLE: Final = """
    CREATE TABLE people (id bigint PRIMARY KEY, email text);
    INSERT INTO people VALUES (1, 'a@x.example'), (2, 'b@x.example');
"""


def field(name: str, to: str = "", **habeas: object) -> str:
    """Give a field of a map."""
    meta = f", fides_meta: {{references: [{{dataset: shop, field: {to}, direction: from}}]}}" if to else ""
    notes = ", ".join(f"{key}: {'null' if value is None else value}" for key, value in habeas.items())
    return f"          - {{name: {name}, data_categories: [user]{meta}, habeas: {{category: content, {notes}}}}}\n"


def collection(name: str, *fields: str, habeas: str = "category: content, on_erasure: delete") -> str:
    """Give a collection of a map."""
    return f"      - name: {name}\n        habeas: {{{habeas}}}\n        fields:\n{''.join(fields)}"


async def opened(dsn: str, directory: Path, ddl: str, *collections: str, **head: str) -> PostgresStore:
    """Make tables and give a store with the map of them."""
    root, anonymise = head.get("root", "delete"), head.get("anonymise", "")
    conn = await asyncpg.connect(dsn)
    await conn.execute(("" if "CREATE TABLE people" in ddl else PEOPLE) + ddl)
    await conn.close()
    text = HEAD.replace("ROOT", root).replace("ANONYMISE", anonymise) + "".join(collections)
    path, policy = write_map(directory, text)
    return PostgresStore(load_datamap(path, policy).store("shop"), policy, dsn, StoreOptions(connections_max=1))


async def column(dsn: str, sql: str) -> list[Any]:
    """Give the first column of an answer."""
    conn = await asyncpg.connect(dsn)
    try:
        return [row[0] for row in await conn.fetch(sql)]
    finally:
        await conn.close()


TAGGED: Final = (
    collection("docs", field("id"), field("person_id", "people.id")),
    collection("tags", field("doc_id", "docs.id")),
)

REFUSED: Final[Mapping[str, tuple[str, tuple[str, ...], Mapping[str, str], str]]] = {
    "half of a key of two columns": (
        (
            "CREATE TABLE docs (tenant int, id int, person_id bigint REFERENCES people, PRIMARY KEY (tenant, id));"
            "CREATE TABLE tags (tenant int, doc_id int, tag text, FOREIGN KEY (tenant, doc_id) REFERENCES docs (tenant, id));"
        ),
        (
            collection("docs", field("tenant"), field("id"), field("person_id", "people.id")),
            collection("tags", field("tenant"), field("doc_id", "docs.id"), field("tag")),
        ),
        {},
        "`tags.doc_id` refers to `docs.id`, which is not unique",
    ),
    "unique for some rows only": (
        "CREATE TABLE docs (id int, person_id bigint); CREATE UNIQUE INDEX ON docs (id) WHERE id > 9; CREATE TABLE tags (doc_id int);",
        TAGGED,
        {},
        "`tags.doc_id` refers to `docs.id`, which is not unique",
    ),
    "unique by an expression only": (
        "CREATE TABLE docs (id int, person_id bigint); CREATE UNIQUE INDEX ON docs ((id + 1)); CREATE TABLE tags (doc_id int);",
        TAGGED,
        {},
        "`tags.doc_id` refers to `docs.id`, which is not unique",
    ),
    "an id in each tenant": (
        "CREATE TABLE people (tenant int, id bigint, email text, PRIMARY KEY (tenant, id));",
        (),
        {},
        "`people.id` is not unique, so one account id could be two people",
    ),
    "text and number": (
        "CREATE TABLE docs (id bigint PRIMARY KEY, person_id bigint); CREATE TABLE tags (doc_id text);",
        TAGGED,
        {},
        "`tags.doc_id` refers to `docs.id`, but `text` and `bigint` are not compared with each other",
    ),
    "the same constant in an expression": (
        "CREATE UNIQUE INDEX ON people (lower(email));",
        (),
        {"root": "anonymise", "anonymise": ", anonymise: gone"},
        "`people.email` is unique: a constant fits only the first person",
    ),
    "the same constant in two columns": (
        "ALTER TABLE people ADD tenant int; CREATE UNIQUE INDEX ON people (tenant, email);",
        (),
        {"root": "anonymise", "anonymise": ", anonymise: gone"},
        "`people.email` is unique: a constant fits only the first person",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
async def test_doubt_is_refused(empty_database: str, tmp_path: Path, kind: str) -> None:
    """The check names column, reason and what to write; nothing is erased by such a map."""
    ddl, collections, head, words = REFUSED[kind]
    async with await opened(empty_database, tmp_path, ddl, *collections, **head) as store:
        with pytest.raises(SchemaMismatch) as caught:
            await store.erase(["1"])
    assert words in str(caught.value)
    assert len(await column(empty_database, "SELECT id FROM people")) in {0, 2}


async def test_what_is_certain_is_no_doubt(empty_database: str, tmp_path: Path) -> None:
    """A unique index that holds a whole key besides the column, an index with more columns stored, and numbers of two widths are fine."""
    ddl = """
        CREATE TABLE docs (id bigint NOT NULL, person_id integer REFERENCES people, name text);
        CREATE UNIQUE INDEX ON docs (id) INCLUDE (name);
        CREATE UNIQUE INDEX ON docs (name, id);
        CREATE TABLE tags (doc_id smallint);
        INSERT INTO people VALUES (3000000000, 'c@x.example');
        INSERT INTO docs VALUES (10, 1, 'one'), (20, 2, 'two');
        INSERT INTO tags VALUES (10), (20);
    """
    docs = collection(
        "docs", field("id"), field("person_id", "people.id", anonymise=None), field("name", anonymise="gone"),
        habeas="category: content, on_erasure: anonymise",
    )  # fmt: skip
    tags = collection("tags", field("doc_id", "docs.id"))
    async with await opened(empty_database, tmp_path, ddl, docs, tags) as store:
        outcomes = await store.erase(["1", "3000000000"])
        assert [outcome.result for outcome in outcomes["3000000000"]].count(TableResult.ERASED) == 1
    assert await column(empty_database, "SELECT name FROM docs ORDER BY id") == ["gone", "two"]
    assert await column(empty_database, "SELECT doc_id FROM tags") == [20]


async def test_who_is_only_named_is_forgotten_alone(empty_database: str, tmp_path: Path) -> None:
    """A row that is anonymised keeps who else is named in it, until that one is erased."""
    ddl = """
        CREATE TABLE issues (id int PRIMARY KEY, reporter bigint, resolver bigint);
        INSERT INTO issues VALUES (1, 1, 2), (2, 2, 1), (3, 1, 1);
    """
    issues = collection(
        "issues", field("id"), field("reporter", "people.id", anonymise=None), field("resolver", "people.id", anonymise=None),
        habeas="category: content, on_erasure: anonymise, path: reporter",
    )  # fmt: skip
    async with await opened(empty_database, tmp_path, ddl, issues) as store:
        await store.erase(["1"])
        assert await column(empty_database, "SELECT reporter FROM issues ORDER BY id") == [None, 2, None]
        assert await column(empty_database, "SELECT resolver FROM issues ORDER BY id") == [2, None, None]
        await store.erase(["2"])
    assert await column(empty_database, "SELECT coalesce(reporter, resolver) FROM issues") == [None, None, None]


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
async def test_ages_without_an_end(empty_database: str, tmp_path: Path, kind: str) -> None:
    """A row of all time is past its retention, one that never comes is not, and what is told of the oldest is no crash."""
    ddl = f"""
        CREATE TABLE notes (id int PRIMARY KEY, person_id bigint, at {kind});
        INSERT INTO notes VALUES (1, 1, '-infinity'), (2, 1, 'infinity'), (3, 2, '2020-01-01');
        CREATE TABLE marks (note_id int REFERENCES notes);
        INSERT INTO marks VALUES (1);
    """
    notes = collection(
        "notes", field("id"), field("person_id", "people.id"), field("at"),
        habeas="category: content, on_erasure: delete, retention: execution, age: at",
    )  # fmt: skip
    marks = collection("marks", field("note_id", "notes.id"))
    async with await opened(empty_database, tmp_path, ddl, notes, marks) as store:
        (rule,) = [rule for rule in await store.purge_rules() if (rule.table, rule.retention) == ("notes", "execution")]
        purged = await store.purge(rule, datetime(2025, 1, 1, tzinfo=UTC), 100)
        assert (purged.rows, purged.oldest_left) == (1, datetime.min.replace(tzinfo=UTC))
        assert await column(empty_database, "SELECT id FROM notes ORDER BY id") == [1, 2]
        await store.erase(["1"])
    assert await column(empty_database, "SELECT count(*) FROM notes") == [0]


@pytest.mark.parametrize(("kind", "held", "asked"), [("citext", "Acc_1", "aCC_1"), ("character(8)", "Acc_1", "Acc_1 ")])
async def test_an_id_is_found_however_it_is_spelled(
    empty_database: str, tmp_path: Path, kind: str, held: str, asked: str
) -> None:
    """What the database takes for the same id is the same person: found, exported and erased under each spelling, and nobody else."""
    ddl = f"""
        CREATE EXTENSION IF NOT EXISTS citext;
        CREATE TABLE people (id {kind} PRIMARY KEY, email text);
        CREATE TABLE docs (id int PRIMARY KEY, person_id {kind});
        INSERT INTO people VALUES ('{held}', 'a@x.example'), ('acc_2', 'b@x.example');
        INSERT INTO docs VALUES (1, '{held}'), (2, '{held.swapcase() if kind == "citext" else held}'), (3, 'acc_2');
    """
    docs = collection("docs", field("id"), field("person_id", "people.id"))
    async with await opened(empty_database, tmp_path, ddl, docs) as store:
        assert await store.existing([asked]) == {asked}
        assert (await store.contacts([asked]))[asked].address == "a@x.example"
        assert (await store.locate([asked]))[asked] == {"docs": 2, "people": 1}
        found = [piece async for piece in store.export([asked])]
        assert sum(len(piece.rows) for piece in found) == 3
        for again in (2, 0):
            outcomes = {outcome.table: outcome.rows for outcome in (await store.erase([asked]))[asked]}
            assert outcomes["docs"] == again
    assert await column(empty_database, "SELECT id FROM docs") == [3]


async def test_ids_of_two_rules_of_case_are_refused(empty_database: str, tmp_path: Path) -> None:
    """Rows would be left behind where one table takes two spellings for one id and the other for two."""
    ddl = "CREATE EXTENSION citext; CREATE TABLE people (id citext PRIMARY KEY, email text); CREATE TABLE docs (person_id text);"
    docs = collection("docs", field("person_id", "people.id"))
    async with await opened(empty_database, tmp_path, ddl, docs) as store:
        with pytest.raises(SchemaMismatch, match="tells ids apart otherwise"):
            await store.check()


PICTURES: Final = """
    CREATE TABLE pictures (id int PRIMARY KEY, owner_type text, owner_id bigint, at date);
    CREATE TABLE marks (id int PRIMARY KEY, picture_id int REFERENCES pictures, text text);
    INSERT INTO pictures VALUES (1, 'Person', 1, '2020-01-01'), (2, 'Team', 1, '2020-01-01'), (3, 'Person', 2, '2020-01-01'),
        (4, NULL, 1, '2020-01-01'), (5, 'person', 1, '2020-01-01');
    INSERT INTO marks VALUES (1, 1, 'mine'), (2, 2, 'of the team'), (3, 3, 'of another'), (4, 4, 'old'), (5, 5, 'other word');
"""


def pictures(where: str, more: str = "") -> tuple[str, str]:
    """Give the collections of pictures, which persons and teams own, and of marks on them."""
    owned = field("owner_id", "people.id")
    return (
        collection(
            "pictures",
            field("id"),
            field("owner_type"),
            owned,
            field("at"),
            habeas=f"category: content, on_erasure: delete{where}{more}",
        ),
        collection("marks", field("id"), field("picture_id", "pictures.id"), field("text")),
    )


@pytest.mark.parametrize(
    ("where", "gone"),
    [
        ("{owner_type: Person}", [1]),
        ("{owner_type: [Person, null]}", [1, 4]),
        ("{owner_type: [Person, person], at: '2020-01-01'}", [1, 5]),
        ("{owner_type: Person, id: 2}", []),
    ],
)
async def test_rows_of_another_kind_are_nobodys(
    empty_database: str, tmp_path: Path, where: str, gone: list[int]
) -> None:
    """The logo of team 1 is not a picture of person 1: neither counted, exported nor erased, and no more are the marks on it."""
    async with await opened(empty_database, tmp_path, PICTURES, *pictures(f", where: {where}")) as store:
        held = (await store.locate(["1"]))["1"]
        assert (held["pictures"], held["marks"]) == (len(gone), len(gone))
        found = [piece async for piece in store.export(["1"])]
        assert sum(len(piece.rows) for piece in found) == 1 + 2 * len(gone)
        await store.erase(["1"])
    left = [number for number in (1, 2, 3, 4, 5) if number not in gone]
    for table in ("pictures", "marks"):
        assert await column(empty_database, f"SELECT id FROM {table} ORDER BY id") == left


async def test_a_hold_covers_whose_rows_they_are(empty_database: str, tmp_path: Path) -> None:
    """A sweep lets old rows go whoever owns them, but those of a person under a hold, and of nobody else with the same number."""
    ends = ", retention: execution, age: at"
    async with await opened(
        empty_database, tmp_path, PICTURES, *pictures(", where: {owner_type: Person}", ends)
    ) as store:
        rules = {(rule.table, rule.retention): rule for rule in await store.purge_rules()}
        await column(empty_database, "DELETE FROM marks RETURNING id")
        await store.purge(rules["pictures", "execution"], datetime(2025, 1, 1, tzinfo=UTC), 100, held=["1"])
    assert await column(empty_database, "SELECT id FROM pictures ORDER BY id") == [1]


async def test_an_id_of_several_kinds_asks_for_a_condition(empty_database: str, tmp_path: Path) -> None:
    """A column that says of what the id is, and no foreign key: the map has to say which rows are people's."""
    async with await opened(empty_database, tmp_path, PICTURES, *pictures("")) as store:
        with pytest.raises(SchemaMismatch, match=r"`pictures.owner_id` may be .* write `where: \{owner_type: VALUE\}`"):
            await store.check()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("{kind: Person}", "`kind` is no field of this table"),
        ("{owner_type: []}", "`owner_type` can have no value at all"),
    ],
)
async def test_a_condition_that_says_nothing_is_refused(
    empty_database: str, tmp_path: Path, where: str, words: str
) -> None:
    """It names a field of its table, and at least one value."""
    with pytest.raises(ConfigurationError, match=words):
        await opened(empty_database, tmp_path, PICTURES, *pictures(f", where: {where}"))


async def test_a_kind_of_account_asks_for_no_condition(empty_database: str, tmp_path: Path) -> None:
    """`account_type` beside `account_id` is about the account, on the root too; and a bare `id` beside a `type` is no pair of them."""
    ddl = """
        ALTER TABLE people ADD type text;
        CREATE TABLE plans (account_id bigint, account_type text);
    """
    plans = collection("plans", field("account_id", "people.id"), field("account_type"))
    async with await opened(empty_database, tmp_path, PEOPLE + ddl, field("type") + plans) as store:
        await store.check()
