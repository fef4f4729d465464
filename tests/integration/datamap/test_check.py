"""What the check refuses of real databases, each with what to write; and what it lets through beside it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import asyncpg
import pytest
import pytest_asyncio

from habeas.datamap.check import notices
from habeas.datamap.errors import SchemaMismatch
from habeas.datamap.postgres import PostgresStore, StoreOptions, read_live_schema
from habeas.datamap.source import Problem
from tests.support.shop import read_map

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

ACCOUNTS: Final = "CREATE TABLE accounts (id text PRIMARY KEY, email text, note text);"
EMAIL: Final = "{name: email, habeas: {contact: address}}"
MAP: Final = """
dataset:
  - fides_key: shop
    habeas: {store: shop, connection: SHOP_DSN, root: accounts}
    collections:
      - {name: accounts, habeas: {category: account, on_erasure: DELETE}, fields: [
          {name: id, fides_meta: {primary_key: true, identity: account_id}}, EMAIL, {name: note, habeas: {anonymise: gone}}]}
"""
GONE: Final = "{name: note, habeas: {anonymise: gone}}"


def mapped(*collections: str, erasure: str = "delete", notes: str = "", **fields: str) -> str:
    """Give a map of accounts and what else there is; `fields` says another thing of `email` or `note`."""
    text = MAP.replace("on_erasure: DELETE", f"on_erasure: {erasure}{', ' if notes else ''}{notes}")
    text = text.replace("EMAIL", fields.get("email", EMAIL)).replace(GONE, fields.get("note", GONE))
    return text + "".join(f"      - {collection}\n" for collection in collections)


class Platform:
    """A database of one test, and the check of maps against it."""

    def __init__(self, dsn: str, owner: "Connection", directory: Path) -> None:
        self.dsn = dsn
        self.owner = owner
        self.directory = directory

    def store(self, text: str) -> PostgresStore:
        """Give the connector of the first store of a map."""
        store_map, policy = read_map(self.directory, text)
        return PostgresStore(store_map, policy, self.dsn, StoreOptions(connections_max=1))

    async def problems(self, text: str) -> tuple[Problem, ...]:
        """Give what the check finds, as every erasure asks it."""
        async with self.store(text) as store:
            try:
                await store.check()
            except SchemaMismatch as error:
                return error.problems
        return ()

    async def refused(self, text: str) -> str:
        """Give the one thing that the check finds, with what to write."""
        [problem] = await self.problems(text)
        assert problem.line > 1
        return f"{problem.what}; write {problem.write}"


@pytest_asyncio.fixture
async def platform(empty_database: str, tmp_path: Path) -> AsyncIterator[Platform]:
    """A database with accounts alone."""
    owner = await asyncpg.connect(empty_database)
    try:
        await owner.execute(ACCOUNTS)
        yield Platform(empty_database, owner, tmp_path)
    finally:
        await owner.close()


async def test_tables_of_other_schemas_are_asked_for(platform: Platform) -> None:
    """By foreign key over any hops, and by a column named like an account id; told with the dataset to write."""
    await platform.owner.execute(
        "CREATE SCHEMA crm; CREATE SCHEMA log; CREATE TABLE crm.contacts (id int PRIMARY KEY, owner text REFERENCES accounts);"
        " CREATE TABLE log.calls (contact_id int REFERENCES crm.contacts); CREATE TABLE log.visits (account_id text);"
        " CREATE TABLE log.prices (amount int)"
    )
    problems = await platform.problems(mapped())
    assert [problem.what.split("`")[1] for problem in problems] == ["crm.contacts", "log.calls", "log.visits"]
    assert "`schema: log`, and in it a collection `visits`" in problems[2].write


async def test_columns_of_the_account_ids_own_type_are_asked_for(platform: Platform) -> None:
    """Whatever they are called; a type of PostgreSQL's own says nothing."""
    await platform.owner.execute("CREATE TABLE visits (who text)")
    assert await platform.problems(mapped()) == ()
    await platform.owner.execute(
        "CREATE DOMAIN person AS text; ALTER TABLE accounts ALTER id TYPE person; ALTER TABLE visits ALTER who TYPE person"
    )
    assert "`visits` is not in the data map, but its column `who` has the account id's type" in str(
        await platform.problems(mapped())
    )


async def test_tables_that_another_store_of_the_same_database_maps_are_known(
    platform: Platform, tmp_path: Path
) -> None:
    """A column named like an account id is no reason then."""
    await platform.owner.execute("CREATE SCHEMA crm; CREATE TABLE crm.contacts (account_id text PRIMARY KEY)")
    other = """
  - fides_key: crm
    habeas: {store: crm, connection: SHOP_DSN, schema: crm, root: contacts}
    collections:
      - {name: contacts, habeas: {category: account, on_erasure: delete}, fields: [
          {name: account_id, fides_meta: {primary_key: true, identity: account_id}}]}
"""
    assert await platform.problems(mapped() + other) == ()
    assert "`crm.contacts` is not in the data map" in await platform.refused(
        mapped() + other.replace("SHOP_DSN", "CRM_DSN")
    )


EVENTS: Final = (
    "{name: events, habeas: {category: account, on_erasure: delete}, fields: ["
    "{name: account_id, fides_meta: {identity: account_id}}]}"
)


async def test_foreign_keys_of_partitions_alone_set_the_order(platform: Platform) -> None:
    """Rows of the partition go before those that they refer to; a table that refers to a partition alone is asked for."""
    await platform.owner.execute(
        "CREATE TABLE zlogs (id int, account_id text, at date) PARTITION BY RANGE (at);"
        " CREATE TABLE zlogs_1 PARTITION OF zlogs FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');"
        " ALTER TABLE zlogs_1 ADD FOREIGN KEY (account_id) REFERENCES accounts ON DELETE RESTRICT;"
        " ALTER TABLE zlogs_1 ADD PRIMARY KEY (id);"
        " INSERT INTO accounts VALUES ('a'), ('b'); INSERT INTO zlogs VALUES (1, 'a', '2026-01-01'), (2, 'b', '2026-01-01')"
    )
    zlogs = EVENTS.replace("events", "zlogs").replace("fields: [", "fields: [{name: id}, {name: at}, ")
    async with platform.store(mapped(zlogs)) as store:
        await store.erase(["a"])
    assert await platform.owner.fetchval("SELECT array_agg(account_id) FROM zlogs") == ["b"]
    await platform.owner.execute("CREATE TABLE hints (log int REFERENCES zlogs_1)")
    assert "`hints` is not in the data map, but its foreign key on `log` leads to `zlogs`" in await platform.refused(
        mapped(zlogs)
    )


async def test_children_with_columns_of_their_own_are_asked_for(platform: Platform) -> None:
    """What is done to a table is done to those that inherit from it, but their further columns nobody knows."""
    await platform.owner.execute(
        "CREATE TABLE events (account_id text); CREATE TABLE same () INHERITS (events); CREATE TABLE clicks (url text) INHERITS (same)"
    )
    assert "`clicks` inherits from `events` and has columns of its own, `url`" in await platform.refused(mapped(EVENTS))
    await platform.owner.execute(
        "DROP TABLE clicks; ALTER TABLE same ADD PRIMARY KEY (account_id); CREATE TABLE seen (what text REFERENCES same)"
    )
    problems = await platform.problems(mapped(EVENTS))
    assert ["`seen` refers to its rows" in problem.what for problem in problems] == [True]
    await platform.owner.execute("DROP TABLE seen; CREATE TABLE others (what text) INHERITS (events)")
    others = EVENTS.replace("name: events", "name: others").replace("fields: [", "fields: [{name: what}, ")
    assert "`same` inherits from `events` beside a table of the data map" in await platform.refused(
        mapped(EVENTS, others)
    )
    await platform.owner.execute("DROP TABLE others")
    assert await platform.problems(mapped(EVENTS)) == ()


async def test_children_are_erased_with_what_acts_on_them(platform: Platform) -> None:
    """Their triggers fire with the table that they inherit from; a foreign key that both have is no news."""
    await act(platform.owner, TRIGGERS["copies"][0], "AFTER DELETE")
    await platform.owner.execute(
        "DROP TRIGGER acts ON accounts; CREATE TABLE events (account_id text REFERENCES accounts);"
        " CREATE TABLE same (FOREIGN KEY (account_id) REFERENCES accounts) INHERITS (events)"
    )
    assert await platform.problems(mapped(EVENTS)) == ()
    await platform.owner.execute("CREATE TRIGGER acts AFTER DELETE ON same FOR EACH ROW EXECUTE FUNCTION acted()")
    assert "the trigger `acts` of `events` writes to `copies`" in await platform.refused(mapped(EVENTS))
    await platform.owner.execute("DROP TRIGGER acts ON same; ALTER TABLE events DROP CONSTRAINT events_account_id_fkey")
    assert "`same` is not in the data map, but its foreign key" in await platform.refused(mapped(EVENTS))


async def test_ghosts_have_to_fit_too(platform: Platform) -> None:
    """A constant by which rows let go of one that is deleted is tried like any other."""
    await platform.owner.execute(
        "CREATE TABLE posts (id int PRIMARY KEY, account_id text NOT NULL REFERENCES accounts CHECK (account_id <> 'nobody'));"
        " INSERT INTO accounts VALUES ('ghost')"
    )
    posts = (
        "{name: posts, habeas: {category: account, on_erasure: none, reason: words stay}, fields: [{name: id}, "
        "{name: account_id, fides_meta: {references: [{dataset: shop, field: accounts.id}]}, "
        "habeas: {when_parent_goes: {detach: {to: nobody}}}}]}"
    )
    assert "`posts.account_id` (text) does not take" in await platform.refused(mapped(posts))
    assert await platform.problems(mapped(posts.replace("to: nobody", "to: ghost"))) == ()


def anonymised(constant: str) -> str:
    """Give a map that overwrites `note`."""
    return mapped(erasure="anonymise", note=f"{{name: note, habeas: {{anonymise: {constant}}}}}")


GONE_FOR_EACH: Final = "{template: 'gone-{random}-{key}'}"
CONSTANTS: Final = {
    "domain": ("CREATE DOMAIN mail AS text CHECK (VALUE ~ '@'); {set} mail", "erased", "gone@x.example", "its type"),
    "domain without null": ("CREATE DOMAIN word AS text CHECK (VALUE IS NOT NULL); {set} word", "null", "x", "its type"),
    "domain over a domain": (
        "CREATE DOMAIN short AS varchar(9); CREATE DOMAIN mail AS short CHECK (VALUE ~ '@'); {set} mail",
        "erased",
        "a@b",
        "its type",
    ),
    "length": ("{set} varchar(3)", "erased", "x", "holds 3 characters, what it is to be anonymised to has 6"),
    "length of a domain": ("CREATE DOMAIN code AS char(3); {set} code", "erased", "x", "holds 3 characters"),
    "enumeration": ("CREATE TYPE mood AS ENUM ('good', 'bad'); {set} mood USING NULL", "erased", "good", "`good`, `bad`"),
    "number": ("{set} int USING NULL", "erased", "0", "its type"),
    "small number": ("{set} smallint USING NULL", "40000", "0", "its type"),
    "date": ("{set} date USING NULL", "erased", '"1900-01-01"', "its type"),
    "digits": ("{set} numeric(3,1) USING NULL", "1000", "1.5", "its type"),
    "bits": ("{set} bit(3) USING NULL", '"1"', '"101"', "its type"),
    "length of a template": ("{set} varchar(38)", GONE_FOR_EACH, GONE_FOR_EACH.replace("gone-", ""), "has 39"),
    "domain of a template": (
        "CREATE DOMAIN mail AS text CHECK (VALUE ~ '@'); {set} mail", GONE_FOR_EACH, GONE_FOR_EACH.replace("gone", "@"), "its type"
    ),
    "check of a template": ("ALTER TABLE accounts ADD CHECK (note ~ '@')", GONE_FOR_EACH, GONE_FOR_EACH.replace("gone", "@"), "CHECK"),
    "uuid of a template": ("{set} uuid USING NULL", GONE_FOR_EACH, "{template: '{random}'}", "its type"),
    "check": ("ALTER TABLE accounts ADD CHECK (note <> 'erased')", "erased", "x", "CHECK constraint"),
    "check of a table": ("ALTER TABLE accounts ADD CHECK (length(note) BETWEEN 1 AND 3 OR note IS NULL) NOT VALID", "erased", "x", "CHECK"),
    "check by a function": (
        ("CREATE FUNCTION judged(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN IF $1 = 'erased' THEN RAISE 'no'; END IF;"
        " RETURN TRUE; END $$; ALTER TABLE accounts ADD CHECK (judged(note))"), "erased", "x", "CHECK constraint"
    ),
    "check of null": ("ALTER TABLE accounts ADD CHECK (note IS NOT NULL)", "null", "x", "CHECK constraint"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONSTANTS)
async def test_constants_that_the_database_refuses_are_told(platform: Platform, kind: str) -> None:
    """Whatever would refuse them at run time; a constant that fits is let through."""
    change, bad, good, told = CONSTANTS[kind]
    await platform.owner.execute(change.replace("{set}", "ALTER TABLE accounts ALTER note TYPE"))
    assert told in await platform.refused(anonymised(bad))
    assert await platform.problems(anonymised(good)) == ()
    assert await platform.problems(mapped(note="{name: note}")) == ()


async def test_columns_that_the_database_fills_are_not_anonymised(platform: Platform) -> None:
    """Generated ones, and identities that are always generated."""
    await platform.owner.execute(
        "ALTER TABLE accounts DROP note, ADD note text GENERATED ALWAYS AS (lower(email)) STORED"
    )
    assert "filled in by the database itself" in await platform.refused(anonymised("x"))
    await platform.owner.execute("ALTER TABLE accounts DROP note, ADD note bigint GENERATED ALWAYS AS IDENTITY")
    assert "filled in by the database itself" in await platform.refused(anonymised("1"))
    await platform.owner.execute("ALTER TABLE accounts ALTER note SET GENERATED BY DEFAULT")
    assert await platform.problems(anonymised("1")) == ()


async def test_constraints_over_several_columns_are_tried_together(platform: Platform) -> None:
    """Only where nothing else has a part in them: the rest only rows can say."""
    both = mapped(
        erasure="anonymise",
        email="{name: email, habeas: {anonymise: null}}",
        note="{name: note, habeas: {anonymise: null}}",
    )
    await platform.owner.execute("ALTER TABLE accounts ADD CHECK (num_nonnulls(email, note) > 0)")
    assert "refuses what `email`, `note` are to be anonymised to together" in await platform.refused(both)
    assert await platform.problems(anonymised("null")) == ()


@pytest.mark.parametrize("action", ["NO ACTION", "CASCADE", "SET NULL"])
async def test_anonymised_columns_that_others_refer_to_are_told(platform: Platform, action: str) -> None:
    """The database would refuse the new value, or write it into the rows of others."""
    await platform.owner.execute(
        f"ALTER TABLE accounts ADD UNIQUE (note); CREATE TABLE posts (note text REFERENCES accounts (note) ON UPDATE {action})"
    )
    posts = "{name: posts, habeas: {personal: false, reason: words}, fields: []}"
    problems = await platform.problems(
        mapped(posts, erasure="anonymise", note="{name: note, habeas: {anonymise: null}}")
    )
    told = [problem.what for problem in problems if "is to be anonymised, but `posts` refers to it" in problem.what]
    assert [("ON UPDATE" in what) for what in told] == [action != "NO ACTION"]


COPIES: Final = "CREATE TABLE copies (what text, row_was jsonb);"
NOBODYS: Final = "{name: copies, habeas: {personal: false, reason: kinds of changes only}, fields: []}"
TRIGGERS: Final = {
    "copies": ("INSERT INTO copies VALUES (TG_TABLE_NAME, to_jsonb(OLD)); RETURN OLD;", "writes to `copies`, which"),
    "copies in another schema": ('INSERT INTO "Audit".copies SELECT 1; RETURN OLD;', "writes to `Audit.copies`, which"),
    "copies in a branch": (
        "IF TG_OP = 'x' THEN WITH w AS (DELETE FROM ONLY copies) SELECT 1; END IF; RETURN OLD;",
        "`copies`",
    ),
    "tells others": ("PERFORM pg_notify('gone', OLD.email); RETURN OLD;", "`pg_notify()`"),
    "another database": ("PERFORM public.dblink_exec('x', 'y'); RETURN OLD;", "`public.dblink_exec()`"),
    "calls others": ("PERFORM helper(OLD); RETURN OLD;", "`helper()`"),
    "by a text": ("EXECUTE 'INSERT INTO ' || 'copies' || ' VALUES (1)'; RETURN OLD;", "`EXECUTE`"),
    "of people": ("UPDATE accounts SET note = 'left'; RETURN OLD;", "writes to `accounts`, whose rows are people's"),
    "keeps": ("RETURN NEW;", "which keeps the row"),
}
HARMLESS: Final = {
    "looks": "IF EXISTS (SELECT FROM copies c WHERE c.what = OLD.id FOR UPDATE) THEN RAISE EXCEPTION 'held'; END IF; RETURN OLD;",
    "stamps": "IF TG_OP = 'UPDATE' THEN NEW.note := lower(NEW.note) || now(); RETURN NEW; END IF; RETURN OLD;",
    "says": "-- insert into copies values (1)\n /* delete /* from */ copies */ RAISE NOTICE 'update copies'; RETURN OLD;",
}


async def act(owner: "Connection", body: str, event: str = "BEFORE DELETE", language: str = "plpgsql") -> None:
    """Make a trigger of accounts that does this."""
    await owner.execute(
        f"{COPIES} CREATE FUNCTION acted() RETURNS trigger LANGUAGE {language} AS $body$ BEGIN {body} END $body$;"
        f" CREATE TRIGGER acts {event} ON accounts FOR EACH ROW EXECUTE FUNCTION acted()"
    )


@pytest.mark.parametrize("kind", TRIGGERS)
async def test_triggers_that_may_write_elsewhere_are_told(platform: Platform, kind: str) -> None:
    """Until a person has looked at them, or they fire at nothing that an erasure does."""
    body, told = TRIGGERS[kind]
    await act(platform.owner, body)
    assert told in await platform.refused(mapped())
    assert "`triggers: [acts]`" in await platform.refused(mapped())
    assert await platform.problems(mapped(notes="triggers: [acts]")) == ()
    assert "no trigger or rule `act`" in str(await platform.problems(mapped(notes="triggers: [act]")))
    assert await platform.problems(mapped(erasure="anonymise")) == ()
    await platform.owner.execute("ALTER TABLE accounts DISABLE TRIGGER acts")
    assert await platform.problems(mapped()) == ()


@pytest.mark.parametrize("kind", HARMLESS)
async def test_triggers_that_look_compute_or_refuse_are_let_through(platform: Platform, kind: str) -> None:
    """They write nothing down."""
    await act(platform.owner, HARMLESS[kind], "BEFORE UPDATE OR DELETE")
    assert await platform.problems(mapped()) == ()


async def test_triggers_may_write_to_tables_that_are_nobodys(platform: Platform) -> None:
    """Somebody has said so, with a reason; the erasure then runs."""
    await act(platform.owner, "INSERT INTO copies VALUES (TG_OP); RETURN OLD;")
    assert await platform.problems(mapped(NOBODYS)) == ()
    await platform.owner.execute("INSERT INTO accounts VALUES ('a')")
    async with platform.store(mapped(NOBODYS)) as store:
        await store.erase(["a"])
    assert await platform.owner.fetchval("SELECT count(*) FROM copies") == 1


async def test_triggers_write_where_their_own_search_path_leads(platform: Platform) -> None:
    """A table of the same name in another schema is another table."""
    await act(platform.owner, "INSERT INTO copies VALUES (OLD.email); RETURN OLD;")
    await platform.owner.execute("CREATE SCHEMA audit; CREATE TABLE audit.copies (what text)")
    assert await platform.problems(mapped(NOBODYS)) == ()
    await platform.owner.execute("ALTER FUNCTION acted() SET search_path = audit, public")
    assert "writes to `audit.copies`" in await platform.refused(mapped(NOBODYS))


async def test_triggers_count_for_the_columns_that_an_erasure_changes(platform: Platform) -> None:
    """UPDATE OF another column is not fired; one of a partition is."""
    await act(platform.owner, TRIGGERS["copies"][0], "AFTER UPDATE OF email")
    assert await platform.problems(anonymised("x")) == ()
    assert "writes to `copies`" in await platform.refused(
        mapped(erasure="anonymise", email="{name: email, habeas: {anonymise: null}}")
    )
    await platform.owner.execute(
        "DROP TRIGGER acts ON accounts; CREATE TABLE events (account_id text) PARTITION BY LIST (account_id);"
        " CREATE TABLE events_all PARTITION OF events DEFAULT;"
        " CREATE TRIGGER acts AFTER DELETE ON events_all FOR EACH ROW EXECUTE FUNCTION acted()"
    )
    assert "the trigger `acts` of `events` writes to `copies`" in await platform.refused(mapped(EVENTS))


async def test_triggers_in_other_languages_ask_for_a_person(platform: Platform) -> None:
    """Nobody can see into them from here; those of PostgreSQL itself are known."""
    await platform.owner.execute(
        "CREATE EXTENSION moddatetime; CREATE TRIGGER stamped BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION moddatetime(note)"
    )
    assert "runs `public.moddatetime` (c)" in await platform.refused(anonymised("x"))
    await platform.owner.execute(
        "DROP TRIGGER stamped ON accounts;"
        " CREATE TRIGGER same BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )
    assert await platform.problems(anonymised("x")) == ()


VIEW: Final = "{{name: figures, habeas: {{{}}}, fields: []}}"


async def test_materialised_views_over_people_are_asked_for_and_filled_anew(platform: Platform) -> None:
    """Through other views too, those that they read first; one that is said to be nobody's stays as it is."""
    await platform.owner.execute(
        "INSERT INTO accounts VALUES ('a', 'a@x.example'), ('b', 'b@x.example'); CREATE SCHEMA seen;"
        " CREATE VIEW shown AS SELECT id, email FROM accounts;"
        " CREATE MATERIALIZED VIEW figures AS SELECT email FROM shown;"
        " CREATE MATERIALIZED VIEW again AS SELECT * FROM figures; CREATE UNIQUE INDEX ON again (email);"
        " CREATE MATERIALIZED VIEW empty AS SELECT email FROM accounts WITH NO DATA"
    )
    problems = await platform.problems(mapped())
    assert [problem.what.split("`")[1] for problem in problems] == ["again", "empty", "figures"]
    assert all("{materialised: refresh}" in problem.write for problem in problems)
    views = [VIEW.format("materialised: refresh").replace("figures", name) for name in ("again", "empty", "figures")]
    assert await platform.problems(mapped(*views)) == ()
    async with platform.store(mapped(*views)) as store:
        await store.erase(["a"])
    assert await platform.owner.fetchval("SELECT array_agg(email) FROM again") == ["b@x.example"]
    nobodys = [VIEW.format("personal: false, reason: counts").replace("figures", name) for name in ("empty", "figures")]
    assert await platform.problems(mapped(views[0], *nobodys)) == ()


async def test_materialised_views_are_not_erased_row_by_row(platform: Platform) -> None:
    """Nor is a table filled anew."""
    await platform.owner.execute("CREATE MATERIALIZED VIEW figures AS SELECT id AS account_id FROM accounts")
    row_by_row = VIEW.format("category: account, on_erasure: delete").replace(
        "[]", "[{name: account_id, fides_meta: {identity: account_id}}]"
    )
    assert "is a materialised view, of which no row can be deleted" in await platform.refused(mapped(row_by_row))
    await platform.owner.execute("DROP MATERIALIZED VIEW figures; CREATE TABLE figures (sum int)")
    assert "`figures` is no materialised view" in await platform.refused(mapped(VIEW.format("materialised: refresh")))


async def test_rules_and_row_security_are_told(platform: Platform) -> None:
    """A rule does something else than is said; row level security hides rows from roles that it holds for."""
    await platform.owner.execute(
        f"{COPIES} CREATE RULE kept AS ON DELETE TO accounts DO ALSO INSERT INTO copies VALUES (OLD.id)"
    )
    assert "the rule `kept` of `accounts` may" in await platform.refused(mapped(NOBODYS))
    assert await platform.problems(mapped(NOBODYS, notes="triggers: [kept]")) == ()
    role = f"reader_{platform.dsn.rsplit('_', 1)[-1]}"
    await platform.owner.execute(
        f"DROP RULE kept ON accounts; ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;"
        f" CREATE ROLE {role} LOGIN; GRANT ALL ON accounts TO {role}"
    )
    try:
        assert await platform.problems(mapped(NOBODYS)) == ()
        platform.dsn += f"{'&' if '?' in platform.dsn else '?'}options=-c%20role%3D{role}"
        assert "row level security hides rows of `accounts`" in await platform.refused(mapped(NOBODYS))
    finally:
        await platform.owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_large_objects_are_asked_for(platform: Platform) -> None:
    """They stay when the row goes, unless the trigger of the extension `lo` takes them along."""
    await platform.owner.execute("CREATE EXTENSION lo; ALTER TABLE accounts ALTER note TYPE lo USING NULL")

    def note(told: str) -> str:
        return mapped(note=f"{{name: note{told}}}")

    assert "may be the number of a large object" in await platform.refused(note(""))
    assert await platform.problems(note(", habeas: {large_object: false}")) == ()
    assert "nothing removes the large object" in await platform.refused(note(", habeas: {large_object: true}"))
    await platform.owner.execute(
        "CREATE TRIGGER gone BEFORE UPDATE OR DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION lo_manage(note)"
    )
    assert await platform.problems(note(", habeas: {large_object: true}")) == ()
    await platform.owner.execute("INSERT INTO accounts VALUES ('a', 'x', lo_from_bytea(0, 'secret'))")
    async with platform.store(note(", habeas: {large_object: true}")) as store:
        await store.erase(["a"])
    assert await platform.owner.fetchval("SELECT count(*) FROM pg_largeobject_metadata") == 0
    await platform.owner.execute("DROP TRIGGER gone ON accounts; ALTER TABLE accounts ALTER note TYPE text")
    assert "is no number of a large object" in await platform.refused(note(", habeas: {large_object: true}"))


async def test_publications_are_told_and_not_refused(platform: Platform) -> None:
    """Rows leave the database there; what becomes of them is not the map's."""
    await platform.owner.execute("CREATE PUBLICATION copies FOR TABLE accounts")
    assert await platform.problems(mapped()) == ()
    store_map, _ = read_map(platform.directory, mapped())
    live = await read_live_schema("shop", platform.dsn, "public")
    assert notices(store_map, live) == ("rows of `accounts` leave the database by the publication `copies`",)
