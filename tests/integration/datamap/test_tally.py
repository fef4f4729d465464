"""Rows of others stay whatever the check of the map overlooks: the database's own counts stop what the plan does not name.

The check is out of the way here, so that nothing but the counts stands between an erasure and the rows of others.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from habeas.datamap.errors import OthersTouched
from habeas.datamap.postgres import PostgresStore, StoreOptions
from tests.integration.datamap.conftest import PEOPLE, Shop
from tests.support.shop import DATAMAP, checksums, read_map

ONE, OTHER = PEOPLE[3], PEOPLE[8]
LONG_AGO: Final = datetime(2025, 1, 1, tzinfo=UTC)

REPLIES: Final = """
      - name: replies
        habeas: {category: content, on_erasure: delete, path: account_id, retention: execution, age: created_at}
        fields:
          - {name: id, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - {name: account_id, data_categories: [user.unique_id], fides_meta: {identity: account_id}}
          - {name: reply_to, data_categories: [system.operations]}
          - {name: created_at, data_categories: [system.operations]}
"""
ANSWERS: Final = REPLIES.replace("replies", "answers").replace("reply_to", "task_id")
COPY: Final = """
    CREATE TABLE copies (what text, row_was jsonb);
    CREATE FUNCTION copied() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO {schema}copies VALUES (TG_TABLE_NAME, to_jsonb(OLD)); RETURN NULL; END $$;
"""


@pytest.fixture(autouse=True)
def _no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("habeas.datamap.postgres.store.compare", lambda *_: ())


def opened(shop: Shop, directory: Path, more: str = "") -> PostgresStore:
    """Give a store of the shop's map and these collections."""
    store_map, policy = read_map(directory, DATAMAP + more)
    return PostgresStore(store_map, policy, shop.dsn, StoreOptions(connections_max=1))


async def threads(shop: Shop, action: str) -> None:
    """Somebody else replies to one's words, and one to theirs."""
    await shop.owner.execute(
        "CREATE TABLE replies (id int PRIMARY KEY, account_id text, created_at timestamptz,"
        f" reply_to int REFERENCES replies ON DELETE {action})"
    )
    rows = [(1, ONE, None), (2, OTHER, 1), (3, ONE, 2), (4, OTHER, None), (5, ONE, 4)]
    await shop.owner.executemany("INSERT INTO replies VALUES ($1, $2, '2020-01-01Z', $3)", rows)


BESIDE: Final = {
    "cascade into rows of others": (
        (
            "CREATE TABLE answers (id int, account_id text, task_id bigint REFERENCES tasks ON DELETE CASCADE, created_at timestamptz);"
            " INSERT INTO answers SELECT 1, '{other}', min(id) FROM tasks WHERE account_id = '{one}'"
        ),
        "answers",
        (0, 0, 1),
    ),
    "cascade into another schema": (
        (
            "CREATE SCHEMA crm; CREATE TABLE crm.contacts (account_id text REFERENCES accounts ON DELETE CASCADE, note text);"
            " INSERT INTO crm.contacts VALUES ('{one}', 'x'), ('{one}', 'y'), ('{other}', 'z')"
        ),
        "crm.contacts",
        (0, 0, 2),
    ),
    "cascade that one partition alone declares": (
        (
            "CREATE TABLE hints (task_id bigint, hinted_at date) PARTITION BY RANGE (hinted_at);"
            " CREATE TABLE hints_old PARTITION OF hints FOR VALUES FROM (MINVALUE) TO ('2030-01-01');"
            " ALTER TABLE hints_old ADD FOREIGN KEY (task_id) REFERENCES tasks ON DELETE CASCADE;"
            " INSERT INTO hints SELECT min(id), '2026-01-01' FROM tasks WHERE account_id = '{one}'"
        ),
        "hints",
        (0, 0, 1),
    ),
    "reference set null in a table that nobody mapped": (
        (
            "CREATE TABLE hints (task_id bigint) PARTITION BY LIST (task_id); CREATE TABLE hints_all PARTITION OF hints DEFAULT;"
            " ALTER TABLE hints_all ADD FOREIGN KEY (task_id) REFERENCES tasks ON DELETE SET NULL;"
            " INSERT INTO hints SELECT min(id) FROM tasks WHERE account_id = '{one}'"
        ),
        "hints",
        (0, 1, 0),
    ),
    "copy by a trigger": (
        COPY.format(schema="") + "CREATE TRIGGER kept AFTER DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION copied();",
        "copies",
        (1, 0, 0),
    ),
    "copy into another schema": (
        "CREATE SCHEMA audit; "
        + COPY.format(schema="audit.").replace("TABLE copies", "TABLE audit.copies")
        + "CREATE TRIGGER kept AFTER DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION copied();",
        "audit.copies",
        (2, 0, 0),
    ),
    "copy that waits for the commit": (
        COPY.format(schema="")
        + "CREATE CONSTRAINT TRIGGER kept AFTER DELETE ON accounts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION copied();",
        "copies",
        (1, 0, 0),
    ),
    "copy of what is overwritten": (
        COPY.format(schema="") + "CREATE TRIGGER kept AFTER UPDATE ON profiles FOR EACH ROW EXECUTE FUNCTION copied();",
        "copies",
        (1, 0, 0),
    ),
    "copy by a rule": (
        (
            "CREATE TABLE copies (id text, email text);"
            " CREATE RULE kept AS ON DELETE TO accounts DO ALSO INSERT INTO copies VALUES (OLD.id, OLD.email);"
        ),
        "copies",
        (1, 0, 0),
    ),
    "deletion of others by a rule": (
        "CREATE RULE gone AS ON DELETE TO accounts DO ALSO DELETE FROM profiles WHERE account_id = '{other}';",
        "profiles",
        (0, 0, 1),
    ),
    "change of others by a trigger": (
        (
            "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$"
            " BEGIN UPDATE accounts SET name = name WHERE id <> OLD.id; RETURN OLD; END $$;"
            " CREATE TRIGGER change BEFORE DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION change();"
        ),
        "accounts",
        (0, len(PEOPLE) - 1, 0),
    ),
}


@pytest.mark.parametrize("kind", BESIDE)
async def test_what_the_plan_does_not_name_rolls_back(shop: Shop, tmp_path: Path, kind: str) -> None:
    """Nothing of anybody has changed, and the table is named with what would have become of how many of its rows."""
    ddl, table, rows = BESIDE[kind]
    await shop.owner.execute(ddl.replace("{one}", ONE).replace("{other}", OTHER))
    before = await checksums(shop.owner)
    more = ANSWERS if table == "answers" else ""
    async with opened(shop, tmp_path, more) as store:
        with pytest.raises(OthersTouched) as caught:
            await store.erase([ONE])
        error = caught.value
        assert (error.table, error.inserted, error.updated, error.deleted) == (table, *rows)
        assert f"of the table {table}" in str(error)
        assert not any(person in str(error) for person in PEOPLE)
        assert await checksums(shop.owner) == before


async def test_replies_of_others_stay(shop: Shop, tmp_path: Path) -> None:
    """A thread that goes with its first words would take the words of others."""
    await threads(shop, "CASCADE")
    async with opened(shop, tmp_path, REPLIES) as store:
        with pytest.raises(OthersTouched) as caught:
            await store.erase([ONE])
        assert (caught.value.table, caught.value.deleted) == ("replies", 1)
        assert await shop.owner.fetchval("SELECT count(*) FROM replies") == 5


async def test_own_threads_go(shop: Shop, tmp_path: Path) -> None:
    """A cascade from one's own row to one's own is nothing beside: the statement deletes both."""
    await threads(shop, "CASCADE")
    await shop.owner.execute("UPDATE replies SET account_id = $1 WHERE id IN (1, 2, 3)", ONE)
    async with opened(shop, tmp_path, REPLIES) as store:
        await store.erase([ONE])
    assert await shop.owner.fetchval("SELECT array_agg(id) FROM replies") == [4]


async def test_what_the_map_names_goes_through(shop: Shop, tmp_path: Path) -> None:
    """References set null by the database, rows that move to another partition, and tables of nobody are no rows of others."""
    await threads(shop, "SET NULL")
    await shop.owner.execute(
        """
        CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN UPDATE models SET price = price + 1; INSERT INTO models VALUES (gen_random_uuid()::text, 0); RETURN NULL; END $$;
        CREATE TRIGGER counted AFTER DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION counted();
        ALTER TABLE profiles RENAME TO flat;
        CREATE TABLE profiles (account_id text, bio text, region text NOT NULL) PARTITION BY LIST (region);
        CREATE TABLE profiles_erased PARTITION OF profiles FOR VALUES IN ('o''erased');
        CREATE TABLE profiles_rest PARTITION OF profiles DEFAULT;
        INSERT INTO profiles SELECT account_id, bio, region FROM flat;
        """
    )
    async with opened(shop, tmp_path, REPLIES) as store:
        for people in ([ONE], PEOPLE[10:20]):
            outcomes = await store.erase(people)
            assert all(outcome.rows for person in people for outcome in outcomes[person] if outcome.table != "replies")
    assert await shop.owner.fetchval("SELECT array_agg(id ORDER BY id) FROM replies WHERE reply_to IS NULL") == [2, 4]
    assert await shop.owner.fetchval("SELECT count(*) FROM profiles_erased") == 11


async def test_others_of_the_batch_go_without_the_one(shop: Shop, tmp_path: Path) -> None:
    """Each try is a transaction of its own: what is counted of one does not stick to the session."""
    await threads(shop, "CASCADE")
    async with opened(shop, tmp_path, REPLIES) as store:
        with pytest.raises(OthersTouched):
            await store.erase([ONE, PEOPLE[5]])
        await store.erase([PEOPLE[5]])
        with pytest.raises(OthersTouched):
            await store.erase([ONE])
    assert await shop.owner.fetchval("SELECT count(*) FROM accounts WHERE id = ANY($1::text[])", [ONE, PEOPLE[5]]) == 1


async def test_a_sweep_takes_nobodys_young_rows(shop: Shop, tmp_path: Path) -> None:
    """A sweep leaves old rows to which others refer; what a trigger would do besides rolls back."""
    await threads(shop, "SET NULL")
    await shop.owner.execute(
        COPY.format(schema="") + "CREATE TRIGGER kept AFTER DELETE ON replies FOR EACH ROW EXECUTE FUNCTION copied();"
    )
    async with opened(shop, tmp_path, REPLIES) as store:
        rule = next(
            rule for rule in await store.purge_rules() if (rule.table, rule.retention) == ("replies", "execution")
        )
        for buckets in (None, range(65_536)):
            with pytest.raises(OthersTouched) as caught:
                await store.purge(rule, LONG_AGO, 100, buckets=buckets)
            assert (caught.value.table, caught.value.inserted) == ("copies", 5)
        assert await shop.owner.fetchval("SELECT count(*) FROM replies") == 5
        await shop.owner.execute("DROP TRIGGER kept ON replies")
        assert (await store.purge(rule, LONG_AGO, 100)).rows == 5


async def test_a_database_that_does_not_count_is_refused(shop: Shop, tmp_path: Path) -> None:
    """With `track_counts` off nobody would see what a cascade takes along."""
    name = await shop.owner.fetchval("SELECT current_database()")
    await shop.owner.execute(f'ALTER DATABASE "{name}" SET track_counts = off')
    before = await checksums(shop.owner)
    async with opened(shop, tmp_path) as store:
        with pytest.raises(OthersTouched, match="track_counts"):
            await store.erase([ONE])
    assert await checksums(shop.owner) == before
