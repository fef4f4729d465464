"""What the catalogue query tells of a real database: every schema, down to the partitions, and when it must be told again."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg
import pytest_asyncio

from habeas.datamap.catalogue.query import CATALOGUE, FINGERPRINT
from habeas.datamap.catalogue.schema import ForeignKey, LiveSchema, LiveTrigger

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

SCHEMA: Final = """
    CREATE SCHEMA crm; CREATE SCHEMA "odd name";
    CREATE DOMAIN mail AS varchar(60) CHECK (VALUE ~ '@'); CREATE DOMAIN work_mail AS mail; CREATE DOMAIN lo AS oid;
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE TABLE accounts (
        id text PRIMARY KEY, email work_mail NOT NULL, code char(3), nick varchar(40), feeling mood, feelings mood[], tags text[],
        score int DEFAULT 1 CHECK (score > 0), low text GENERATED ALWAYS AS (lower(nick)) STORED,
        number bigint GENERATED ALWAYS AS IDENTITY, picture lo, CHECK (score < 10 OR code IS NOT NULL));
    CREATE UNIQUE INDEX ON accounts (lower(email));
    CREATE UNIQUE INDEX ON accounts (lower(nick)) WHERE score > 1;
    CREATE UNIQUE INDEX ON accounts (upper(code));
    CREATE TABLE crm.contacts (id int PRIMARY KEY, account_id text REFERENCES accounts ON DELETE CASCADE ON UPDATE CASCADE
        DEFERRABLE INITIALLY DEFERRED, a int, b int);
    CREATE TABLE crm.accounts (id int PRIMARY KEY);
    CREATE TABLE "odd name"."a.b" (id int, contact_id int CONSTRAINT "to contact" REFERENCES crm.contacts ON DELETE SET NULL (contact_id));
    CREATE TABLE events (id int, account_id text, at date);
    CREATE TABLE clicks (url text) INHERITS (events);
    CREATE TABLE logs (id int, line text, account_id text, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
    CREATE TABLE logs_2 PARTITION OF logs FOR VALUES FROM ('2021-01-01') TO ('2022-01-01') PARTITION BY LIST (id);
    CREATE TABLE logs_2a PARTITION OF logs_2 FOR VALUES IN (1);
    CREATE TABLE crm.logs_2b (account_id text, at date NOT NULL, id int NOT NULL, line text);
    ALTER TABLE logs_2 ATTACH PARTITION crm.logs_2b FOR VALUES IN (2);
    ALTER TABLE logs_1 ADD CONSTRAINT one FOREIGN KEY (account_id) REFERENCES accounts ON DELETE RESTRICT;
    ALTER TABLE crm.logs_2b ADD CONSTRAINT two FOREIGN KEY (account_id) REFERENCES accounts ON DELETE RESTRICT;
    ALTER TABLE logs ADD CONSTRAINT every FOREIGN KEY (id) REFERENCES crm.contacts;
    CREATE TABLE hints (log_id int, log_at date, FOREIGN KEY (log_id, log_at) REFERENCES logs_1 (id, at));
    CREATE TABLE notes (log_id int, log_at date, FOREIGN KEY (log_id, log_at) REFERENCES logs (id, at));
    CREATE FUNCTION crm.acted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER told BEFORE INSERT OR UPDATE OF email ON accounts FOR EACH ROW EXECUTE FUNCTION crm.acted();
    CREATE TRIGGER done AFTER DELETE ON crm.contacts FOR EACH STATEMENT EXECUTE FUNCTION crm.acted();
    ALTER TABLE crm.contacts DISABLE TRIGGER done;
    CREATE CONSTRAINT TRIGGER later AFTER DELETE ON crm.contacts DEFERRABLE FOR EACH ROW EXECUTE FUNCTION crm.acted();
    CREATE TRIGGER whole AFTER DELETE ON logs FOR EACH ROW EXECUTE FUNCTION crm.acted();
    CREATE TRIGGER leaf AFTER DELETE ON logs_1 FOR EACH ROW EXECUTE FUNCTION crm.acted();
    CREATE RULE nothing AS ON DELETE TO events DO ALSO NOTHING;
    CREATE VIEW crm.shown AS SELECT c.id, a.email FROM crm.contacts c JOIN accounts a ON a.id = c.account_id;
    CREATE MATERIALIZED VIEW figures AS SELECT s.email, l.line FROM crm.shown s CROSS JOIN logs_1 l;
    CREATE PUBLICATION copies FOR TABLE accounts, logs_2a;
    ALTER TABLE events ENABLE ROW LEVEL SECURITY;
    CREATE TABLE orders (id int, account_id text REFERENCES accounts NOT ENFORCED);
"""
"""A database with one of everything. PostgreSQL 18 for the last table."""


@pytest_asyncio.fixture
async def owner(empty_database: str) -> AsyncIterator["Connection"]:
    """A connection to a database with SCHEMA."""
    connection = await asyncpg.connect(empty_database)
    try:
        await connection.execute(SCHEMA)
        yield connection
    finally:
        await connection.close()


async def read(owner: "Connection", schema: str = "public") -> LiveSchema:
    """Read the whole catalogue."""
    row = await owner.fetchrow(CATALOGUE)
    assert row is not None
    return LiveSchema.parse(schema, row["told"], row["fingerprint"])


async def fingerprint(owner: "Connection") -> str:
    """Read what tells whether anything changed."""
    return str(await owner.fetchval(FINGERPRINT))


async def test_tables_of_every_schema_are_told(owner: "Connection") -> None:
    """Those of the main schema by their names, those of others with their schema; views apart; nothing of the system, no partitions."""
    await owner.execute("CREATE TEMPORARY TABLE passing (account_id text)")
    live = await read(owner)
    assert sorted(live.tables) == [
        "accounts", "clicks", "crm.accounts", "crm.contacts", "events", "figures", "hints", "logs", "notes", "odd name.a.b", "orders",
    ]  # fmt: skip
    assert sorted(live.views) == ["crm.shown"]
    of = live.tables["odd name.a.b"]
    assert (of.schema, of.relation, of.name) == ("odd name", "a.b", "odd name.a.b")
    other = await read(owner, "crm")
    assert {"accounts", "contacts", "public.accounts"} <= set(other.tables)
    assert sorted(live.only("crm").tables) == ["crm.accounts", "crm.contacts"]
    assert live.slots == ()


async def test_columns_are_told_with_what_limits_them(owner: "Connection") -> None:
    """Length below domains, CHECK constraints, what the database fills in itself, labels, elements, numbers of large objects."""
    columns = (await read(owner)).tables["accounts"].columns
    assert {name: column.length for name, column in columns.items() if column.length} == {
        "email": 60,
        "code": 3,
        "nick": 40,
    }
    assert (columns["email"].type, columns["email"].base, columns["email"].not_null) == (
        "work_mail",
        "character varying",
        True,
    )
    assert columns["score"].checks == ("CHECK (((score < 10) OR (code IS NOT NULL)))", "CHECK ((score > 0))")
    assert columns["code"].checks == columns["score"].checks[:1]
    assert [name for name, column in columns.items() if column.generated] == ["low"]
    assert [name for name, column in columns.items() if column.identity_always] == ["number"]
    assert [name for name, column in columns.items() if column.has_default] == ["score"]
    assert (columns["feeling"].enum, columns["feelings"].enum) == (("good", "bad"), ())
    assert {name: column.element for name, column in columns.items() if column.element} == {
        "feelings": "mood",
        "tags": "text",
    }
    assert [name for name, column in columns.items() if column.is_large_object] == ["picture"]


async def test_tables_are_told_with_all_that_acts_on_them(owner: "Connection") -> None:
    """Parents, leaves, rules, triggers of the table and its partitions, publications, what views read."""
    tables = (await read(owner)).tables
    assert (tables["clicks"].inherits, tables["events"].inherits) == (("events",), ())
    assert (tables["logs"].leaves, tables["events"].leaves) == (3, 0)
    assert {name: table.rule_names for name, table in tables.items() if table.rules} == {"events": ("nothing",)}
    assert {name: table.publications for name, table in tables.items() if table.publications} == {
        "accounts": ("copies",),
        "logs": ("copies",),
    }
    assert tables["figures"].reads == ("accounts", "crm.contacts", "logs")
    assert (await read(owner)).views["crm.shown"].reads == ("accounts", "crm.contacts")
    [told] = tables["accounts"].triggers
    assert told == LiveTrigger(
        name="told",
        events=("insert", "update"),
        timing="before",
        for_each_row=True,
        function="crm.acted",
        columns=("email",),
        language="plpgsql",
        source="BEGIN RETURN NEW; END",
    )
    done, later = tables["crm.contacts"].triggers
    assert (done.events, done.for_each_row, done.enabled) == (("delete",), False, False)
    assert (later.timing, later.deferrable, later.enabled) == ("after", True, True)
    assert [trigger.name for trigger in tables["logs"].triggers] == ["leaf", "whole"]


async def test_uniqueness_without_regard_to_case(owner: "Connection") -> None:
    """Only a unique index on lower() of the column alone, for every row, or one over columns that know no case."""
    accounts = (await read(owner)).tables["accounts"]
    assert accounts.unique_expressions == ("email",)
    assert [accounts.is_unique_caseless([name]) for name in ("email", "nick", "code", "id")] == [
        True,
        False,
        False,
        False,
    ]
    assert (await read(owner)).tables["crm.accounts"].is_unique_caseless(["id"])


async def test_foreign_keys_are_told_down_to_the_partitions(owner: "Connection") -> None:
    """Under their top tables, once; what the database does not enforce does nothing on its own."""
    keys = {key.name: key for key in (await read(owner)).foreign_keys}
    assert sorted(keys) == [
        "contacts_account_id_fkey", "every", "hints_log_id_log_at_fkey", "notes_log_id_log_at_fkey", "one", "orders_account_id_fkey",
        "to contact",
    ]  # fmt: skip
    assert keys["one"] == ForeignKey(
        "logs", ("account_id",), "accounts", ("id",), "restrict", name="one", enforced_on="logs_1"
    )
    assert (keys["every"].table, keys["every"].enforced_on, keys["every"].to_table) == ("logs", "", "crm.contacts")
    pointing = keys["hints_log_id_log_at_fkey"]
    assert (pointing.table, pointing.to_table, pointing.to_columns, pointing.to_partition) == (
        "hints",
        "logs",
        ("id", "at"),
        "logs_1",
    )
    assert keys["notes_log_id_log_at_fkey"].to_partition == ""
    assert keys["to contact"].set_columns == ("contact_id",)
    contacts = keys["contacts_account_id_fkey"]
    assert (contacts.on_delete, contacts.on_update, contacts.deferrable, contacts.deferred) == (
        "cascade",
        "cascade",
        True,
        True,
    )
    assert keys["orders_account_id_fkey"].on_delete == "no action"


async def test_row_security_counts_where_it_holds(owner: "Connection") -> None:
    """For a role that bypasses it there is none."""
    assert not (await read(owner)).tables["events"].row_security
    await owner.execute("CREATE ROLE catalogue_reader; SET ROLE catalogue_reader")
    try:
        live = await read(owner)
    finally:
        await owner.execute("RESET ROLE; DROP ROLE catalogue_reader")
    assert [name for name, table in live.tables.items() if table.row_security] == ["events"]


async def test_statements_are_prepared_once_in_a_connection(owner: "Connection") -> None:
    """The fingerprint is asked before every erasure; asyncpg keeps no longer texts than 15 KiB."""
    for statement in (FINGERPRINT, CATALOGUE):
        for _ in range(3):
            await owner.fetchrow(statement)
        prepared = "SELECT generic_plans + custom_plans FROM pg_prepared_statements WHERE statement = $1"
        assert await owner.fetchval(prepared, statement) == 3


CHANGES: Final = (
    "ALTER TABLE accounts ADD COLUMN later text",
    "ALTER TABLE accounts DROP COLUMN later",
    "ALTER TABLE crm.contacts ALTER COLUMN a TYPE bigint",
    "ALTER TABLE crm.contacts RENAME COLUMN a TO c",
    "ALTER TABLE crm.contacts ALTER COLUMN c SET NOT NULL",
    "ALTER TABLE crm.contacts ALTER COLUMN c SET DEFAULT 1",
    "ALTER TABLE crm.contacts RENAME TO people",
    "ALTER SCHEMA crm RENAME TO crm2",
    "CREATE TABLE crm2.more (id int NOT NULL)",
    "ALTER TABLE crm2.more ADD CONSTRAINT few CHECK (id < 9)",
    "CREATE UNIQUE INDEX few_ids ON crm2.more (id)",
    "DROP INDEX crm2.few_ids",
    "ALTER TABLE crm2.more ADD CONSTRAINT towards FOREIGN KEY (id) REFERENCES crm2.people",
    "ALTER TABLE crm2.more DROP CONSTRAINT towards",
    "ALTER TABLE logs_2a ADD CONSTRAINT leaf FOREIGN KEY (account_id) REFERENCES accounts",
    "ALTER TABLE crm2.more INHERIT crm2.accounts",
    "CREATE TRIGGER new AFTER DELETE ON logs_2a FOR EACH ROW EXECUTE FUNCTION crm2.acted()",
    "ALTER TABLE crm2.people ENABLE TRIGGER done",
    "ALTER TABLE crm2.people DISABLE TRIGGER later",
    "ALTER TABLE logs_1 DISABLE TRIGGER whole",
    "CREATE OR REPLACE FUNCTION crm2.acted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
    "CREATE RULE more AS ON UPDATE TO events DO ALSO NOTHING",
    "CREATE OR REPLACE VIEW crm2.shown AS SELECT c.id, a.email FROM crm2.people c JOIN accounts a ON a.id = c.account_id WHERE c.id > 1",
    "ALTER DOMAIN mail ADD CONSTRAINT more CHECK (VALUE <> 'a@b')",
    "ALTER DOMAIN lo SET NOT NULL",
    "ALTER TYPE mood ADD VALUE 'fair'",
    "ALTER TYPE mood RENAME TO moods",
    "ALTER PUBLICATION copies ADD TABLE events",
    "DROP PUBLICATION copies",
    "ALTER TABLE logs DETACH PARTITION logs_1",
    "CREATE MATERIALIZED VIEW rows AS SELECT id FROM accounts",
    "DROP MATERIALIZED VIEW rows",
    "DROP TABLE notes",
)
"""Each of these is to be seen."""

NO_CHANGES: Final = (
    "INSERT INTO accounts (id, email, picture) VALUES ('a', 'a@x.example', 1)",
    "CREATE TABLE logs_3 PARTITION OF logs FOR VALUES FROM ('2022-01-01') TO ('2023-01-01')",
    "ALTER TABLE logs DETACH PARTITION logs_3; DROP TABLE logs_3",
    "CREATE TEMPORARY TABLE passing (id int PRIMARY KEY)",
    "CREATE INDEX ON accounts (nick)",
    "REFRESH MATERIALIZED VIEW figures",
    "TRUNCATE logs_1 CASCADE",
    "ANALYZE",
    "VACUUM",
    "VACUUM FULL events",
    "REINDEX TABLE accounts",
)
"""None of these concerns anybody: asking again costs nothing more."""


async def test_fingerprint_changes_with_all_that_is_told_and_with_nothing_else(owner: "Connection") -> None:
    """What only moves rows about, or adds a partition like the others, leaves it as it is."""
    known = await fingerprint(owner)
    for statement in NO_CHANGES:
        await owner.execute(statement)
        assert await fingerprint(owner) == known, statement
    assert (await read(owner)).fingerprint == known
    for statement in CHANGES:
        await owner.execute(statement)
        now = await fingerprint(owner)
        assert now != known, statement
        known = now
