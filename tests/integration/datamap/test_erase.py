"""Erasure in a real PostgreSQL: complete, alone, verified, idempotent, and refused rather than half done."""

from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from habeas.contracts.vocabulary import KeepGround, TableResult
from habeas.datamap.errors import NotErased, Rule, SchemaMismatch, StoreRefused, StoreUnavailable, Unavailability
from habeas.datamap.postgres import PostgresStore, StoreOptions
from tests.integration.datamap.conftest import PEOPLE, Shop
from tests.support.shop import DATAMAP, checksums, read_map

ONE = PEOPLE[7]


async def test_erases_every_row_of_one_person_and_no_other(shop: Shop) -> None:
    """All 20 rows of one person go or stay as the map says; the rows of the other 59 are the same bytes as before."""
    before = await checksums(shop.owner, without=[ONE])
    outcomes = (await shop.store.erase([ONE]))[ONE]
    told = {outcome.table: (outcome.result, outcome.rows) for outcome in outcomes}
    assert told == {
        "contents": (TableResult.ERASED, 8),
        "steps": (TableResult.ERASED, 4),
        "tasks": (TableResult.ERASED, 2),
        "logs": (TableResult.ERASED, 3),
        "invoices": (TableResult.KEPT, 1),
        "profiles": (TableResult.ANONYMISED, 1),
        "accounts": (TableResult.ERASED, 1),
    }
    after = await checksums(shop.owner, without=[ONE])
    kept = await shop.owner.fetch("SELECT billing_name, account_id FROM invoices WHERE account_id IS NULL")
    assert [tuple(row) for row in kept] == [("erased", None)]
    profile = await shop.owner.fetchrow("SELECT bio, region FROM profiles WHERE account_id = $1", ONE)
    assert profile is not None
    assert tuple(profile) == (None, "o'erased")
    del before["invoices"], after["invoices"]  # the kept row carries no name any more and is seen above
    assert after == before


async def test_kept_rows_name_ground_and_end(shop: Shop) -> None:
    """An invoice of 2026 is kept ten years from the end of its year (§ 147(3), (4) AO): until 31 December 2036."""
    outcomes = (await shop.store.erase([ONE]))[ONE]
    (kept,) = [outcome for outcome in outcomes if outcome.table == "invoices"]
    assert (kept.ground, kept.until) == (KeepGround.LEGAL_OBLIGATION, date(2036, 12, 31))


async def test_second_run_finds_nothing(shop: Shop) -> None:
    """Erasing again, or somebody unknown, changes nothing and says so."""
    await shop.store.erase([ONE])
    before = await checksums(shop.owner)
    again = await shop.store.erase([ONE, "acc_unknown", "' OR true --"])
    assert {outcome.result for outcomes in again.values() for outcome in outcomes} == {TableResult.NOTHING_HELD}
    assert set(again) == {ONE, "acc_unknown", "' OR true --"}
    assert await checksums(shop.owner) == before


async def test_batch_uses_as_many_statements_as_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty people cost as many statements as one."""
    sent: list[str] = []
    driver: Any = asyncpg.Connection
    real = driver._execute

    async def counting(self: object, query: str, *args: object, **kwargs: object) -> object:
        if self is not shop.owner:
            sent.append(query)
        return await real(self, query, *args, **kwargs)

    await shop.store.check()
    monkeypatch.setattr(driver, "_execute", counting)
    await shop.store.erase(PEOPLE[:1])
    one = len(sent)
    outcomes = await shop.store.erase(PEOPLE[5:55])
    assert len(sent) == 2 * one
    assert one <= 25
    assert sum(outcome.rows for each in outcomes.values() for outcome in each if outcome.table == "contents") == 50 * 8


async def test_clears_mentions_in_rows_of_others(shop: Shop) -> None:
    """Who approved another person's task is forgotten there; the task stays."""
    await shop.owner.execute("UPDATE tasks SET approved_by = $1 WHERE account_id = $2", ONE, PEOPLE[8])
    await shop.store.erase([ONE])
    rows = await shop.owner.fetch("SELECT approved_by FROM tasks WHERE account_id = $1", PEOPLE[8])
    assert [row["approved_by"] for row in rows] == [None, None]


async def test_unknown_table_stops_everything(shop: Shop) -> None:
    """A new table that leads to a person is found before anything is touched."""
    before = await checksums(shop.owner)
    await shop.store.check()
    await shop.owner.execute("CREATE TABLE gifts (id int, task_id bigint REFERENCES tasks (id))")
    with pytest.raises(SchemaMismatch) as caught:
        await shop.store.erase([ONE])
    assert [problem.what for problem in caught.value.problems] == [
        "the table `gifts` is not in the data map, but its foreign key on `task_id` leads to `tasks`"
    ]
    assert await checksums(shop.owner) == before
    await shop.owner.execute("DROP TABLE gifts")
    await shop.store.erase([ONE])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ALTER TABLE contents RENAME TO content", "no table `public.contents`"),
        ("ALTER TABLE tasks ADD COLUMN ip inet", "the column `tasks.ip` (inet) is not in the data map"),
        ("ALTER TABLE tasks DROP COLUMN prompt", "no column `prompt`"),
        ("ALTER TABLE tasks RENAME prompt TO words", "the column `tasks.words` (text) is not in the data map"),
        ("CREATE TABLE visits (account_id text)", "its column `account_id` is named like an account id"),
        (
            "CREATE SCHEMA x; CREATE TABLE x.y (t bigint REFERENCES public.tasks)",
            "the table `x.y` is not in the data map",
        ),
        ("CREATE MATERIALIZED VIEW m AS SELECT account_id FROM logs", "the table `m` is not in the data map"),
        ("ALTER TABLE profiles ALTER bio SET DEFAULT '', ALTER bio SET NOT NULL", "`profiles.bio` is NOT NULL"),
        (
            "UPDATE profiles SET region = account_id; ALTER TABLE profiles ADD UNIQUE (region)",
            "`profiles.region` is unique",
        ),
        ("ALTER TABLE models ADD fan text REFERENCES accounts", "`models` is said to hold no person's data"),
        ("ALTER TABLE profiles ADD FOREIGN KEY (account_id) REFERENCES accounts", "forbid that `accounts` is deleted"),
        (
            "ALTER TABLE profiles ADD FOREIGN KEY (account_id) REFERENCES accounts ON DELETE CASCADE",
            "the database deletes them with `accounts` (ON DELETE CASCADE)",
        ),
    ],
)
async def test_every_difference_is_a_mismatch(shop: Shop, change: str, words: str) -> None:
    """Whatever is missing, new, or would make an erasure fail or go too far is told before it starts."""
    await shop.store.check()
    await shop.owner.execute(change)
    with pytest.raises(SchemaMismatch, match="differs from its data map") as caught:
        await shop.store.erase([ONE])
    assert any(words in problem.what for problem in caught.value.problems), caught.value.problems
    assert await shop.store.existing([ONE]) == {ONE}, "a request is accepted all the same"


async def test_tables_that_cannot_go_together_go_one_by_one(shop: Shop, tmp_path: Path) -> None:
    """A rule forbids its table in a larger statement: it is erased all the same, with the same outcomes."""
    await shop.owner.execute(
        "CREATE TABLE seen (id bigint); CREATE RULE seen AS ON DELETE TO contents DO ALSO INSERT INTO seen VALUES (OLD.id)"
    )
    looked_at = DATAMAP.replace(
        "- name: contents\n        habeas: {", "- name: contents\n        habeas: {triggers: [seen], "
    )
    store_map, policy = read_map(tmp_path, looked_at + SEEN)
    async with PostgresStore(store_map, policy, shop.dsn) as store:
        erased = await store.erase([ONE])
    outcomes = {outcome.table: outcome.rows for outcome in erased[ONE]}
    assert (outcomes["contents"], outcomes["steps"], outcomes["accounts"]) == (8, 4, 1)
    assert (
        await shop.owner.fetchval(
            "SELECT count(*) FROM contents AS c JOIN steps AS s ON s.id = c.step_id JOIN tasks AS t"
            " ON t.id = s.task_id WHERE t.account_id = $1",
            ONE,
        )
        == 0
    )


async def test_counting_is_refused_by_name(shop: Shop) -> None:
    """A table that the role may not read refuses the count of what is held, and is named."""
    async with await _limited(shop, "REVOKE SELECT ON tasks FROM $role") as store:
        with pytest.raises(StoreRefused) as caught:
            await store.locate([ONE])
    await _forget(shop)
    assert caught.value.code == "42501"
    assert caught.value.table in {"contents", "steps", "tasks"}, "the first that cannot be counted without it"


async def test_rows_that_survive_are_found_before_their_parents_go(shop: Shop) -> None:
    """A trigger that swallows deletions would leave orphans nobody finds; reading again finds them and undoes all."""
    before = await checksums(shop.owner)
    await shop.owner.execute(
        """
        CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF OLD.id % 2 = 0 THEN RETURN NULL; END IF; RETURN OLD; END $$;
        ALTER TABLE contents DROP CONSTRAINT contents_step_id_fkey;
        CREATE TRIGGER swallow BEFORE DELETE ON contents FOR EACH ROW EXECUTE FUNCTION swallow();
        """
    )
    with pytest.raises(NotErased) as caught:
        await shop.store.erase([ONE])
    assert (caught.value.table, caught.value.rows, caught.value.committed) == ("contents", 4, False)
    assert await checksums(shop.owner) == before


async def test_rows_written_meanwhile_are_found_after_the_commit(shop: Shop) -> None:
    """A log line that somebody writes while the erasure runs is found after it; the next run takes it along."""

    async def write() -> None:
        await shop.owner.execute("INSERT INTO logs VALUES (999, $1, '2026-11-23T10:00Z', 'late')", ONE)

    with pytest.raises(NotErased) as caught:
        await shop.store.erase([ONE], guard=write)
    assert (caught.value.table, caught.value.committed) == ("logs", True)
    again = {outcome.table: outcome for outcome in (await shop.store.erase([ONE]))[ONE]}
    assert (again["logs"].result, again["logs"].rows) == (TableResult.ERASED, 1)
    assert again["accounts"].result is TableResult.NOTHING_HELD


async def _limited(shop: Shop, *grants: str) -> PostgresStore:
    """A connector whose role has just these grants."""
    name = "limited_" + shop.dsn.rpartition("/")[2].partition("?")[0]
    await shop.owner.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'x'")
    await shop.owner.execute(f'GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{name}"')
    for grant in grants:
        await shop.owner.execute(grant.replace("$role", f'"{name}"'))
    server = urlsplit(shop.dsn)
    dsn = server._replace(netloc=f"{name}:x@{server.hostname}:{server.port}")
    return PostgresStore(shop.map, shop.policy, dsn.geturl(), StoreOptions(connections_max=1))


async def _forget(shop: Shop) -> None:
    name = "limited_" + shop.dsn.rpartition("/")[2].partition("?")[0]
    await shop.owner.execute(f'DROP OWNED BY "{name}"; DROP ROLE "{name}"')


async def test_revoked_table_refuses_and_undoes(shop: Shop) -> None:
    """A table that the role may not delete from leaves everything as it was, and is named."""
    before = await checksums(shop.owner)
    async with await _limited(shop, "REVOKE DELETE ON tasks FROM $role") as store:
        with pytest.raises(StoreRefused) as caught:
            await store.erase([ONE])
    await _forget(shop)
    assert (caught.value.table, caught.value.code) == ("tasks", "42501")
    assert await checksums(shop.owner) == before


async def test_row_level_rules_refuse_instead_of_hiding(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that a policy would hide from Habeas are an error, never `nothing held`: told by the check, and stopped without it."""
    await shop.owner.execute("ALTER TABLE contents ENABLE ROW LEVEL SECURITY")
    async with await _limited(shop) as store:
        with pytest.raises(SchemaMismatch, match="row level security hides rows of `contents`"):
            await store.erase([ONE])
        monkeypatch.setattr("habeas.datamap.postgres.store.compare", lambda *_: ())
        with pytest.raises(StoreRefused) as caught:
            await store.erase([ONE])
    await _forget(shop)
    assert (caught.value.table, caught.value.code) == ("contents", "42501")


async def test_locked_person_is_unavailable_and_errors_say_no_value(shop: Shop) -> None:
    """A row that somebody else holds makes the store busy after the lock timeout; the error quotes no id."""
    async with shop.owner.transaction():
        await shop.owner.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", ONE)
        options = StoreOptions(connections_max=1, lock_timeout_s=0.2)
        async with PostgresStore(shop.map, shop.policy, shop.dsn, options) as store:
            with pytest.raises(StoreUnavailable) as caught:
                await store.erase([ONE])
    assert caught.value.reason is Unavailability.BUSY
    assert ONE not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_constraint_refuses_without_quoting_rows(shop: Shop) -> None:
    """A foreign key that nobody mapped cannot exist, but a trigger may refuse: told by table and code alone."""
    await shop.owner.execute(
        """
        CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not %', OLD.email; END $$;
        CREATE TRIGGER no BEFORE DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION no();
        """
    )
    with pytest.raises(StoreRefused) as caught:
        await shop.store.erase([ONE])
    assert (caught.value.table, caught.value.code) == ("accounts", "P0001")
    assert "example.org" not in str(caught.value) + repr(caught.value)


ANSWERS = """
      - name: answers
        habeas: {category: content, on_erasure: delete, path: account_id}
        fields:
          - {name: id, data_categories: [system.operations], fides_meta: {primary_key: true}}
          - {name: account_id, data_categories: [user.unique_id], fides_meta: {identity: account_id}}
          - {name: task_id, data_categories: [system.operations]}
"""


SEEN = """
      - name: seen
        habeas: {personal: false, reason: numbers of contents that are no more}
        fields: []
"""


@pytest.mark.parametrize("action", ["NO ACTION", "RESTRICT", "NO ACTION DEFERRABLE INITIALLY DEFERRED"])
async def test_foreign_key_that_refuses_is_named_with_its_table(
    shop: Shop, tmp_path: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's answer refers to a task that is to go: the table of answers and the constraint are named, and no value is.

    The check refuses such a map; here it is out of the way.
    """
    monkeypatch.setattr("habeas.datamap.postgres.store.compare", lambda *_: ())
    await shop.owner.execute(
        f"""
        CREATE TABLE answers (
            id bigint PRIMARY KEY, account_id text,
            task_id bigint CONSTRAINT answered REFERENCES tasks (id) ON DELETE {action}
        );
        """
    )
    await shop.owner.execute(
        "INSERT INTO answers SELECT 1, $1, min(id) FROM tasks WHERE account_id = $2", PEOPLE[8], ONE
    )
    store_map, policy = read_map(tmp_path, DATAMAP + ANSWERS)
    async with PostgresStore(store_map, policy, shop.dsn) as store:
        with pytest.raises(StoreRefused) as caught:
            await store.erase([ONE])
    assert caught.value.rule == Rule("answers", "answered", is_foreign_key=True)
    assert "by the foreign key answered of the table answers" in str(caught.value)
    assert not any(person in str(caught.value) for person in PEOPLE)


async def test_unreachable_store_is_unavailable(shop: Shop) -> None:
    """No server at the address is told as no connection."""
    async with PostgresStore(shop.map, shop.policy, "postgresql://x:y@127.0.0.1:1/none") as store:
        with pytest.raises(StoreUnavailable) as caught:
            await store.erase([ONE])
    assert caught.value.reason is Unavailability.NO_CONNECTION


async def test_contacts_and_existence(shop: Shop) -> None:
    """Contact details come for those who exist, in one call."""
    found = await shop.store.contacts([ONE, "acc_unknown"])
    assert set(found) == {ONE}
    assert (found[ONE].address, found[ONE].name, found[ONE].language) == (f"{ONE}@example.org", f"Name of {ONE}", "en")
    assert ONE not in repr(found[ONE])
    assert await shop.store.existing([ONE, "acc_unknown"]) == {ONE}


async def test_locate_counts_every_table(shop: Shop) -> None:
    """Rows per table and account, zeros included."""
    held = await shop.store.locate([PEOPLE[0], "acc_unknown"])
    assert held[PEOPLE[0]] == {
        "accounts": 1, "contents": 8, "invoices": 1, "logs": 3, "profiles": 1, "steps": 4, "tasks": 2,
    }  # fmt: skip
    assert set(held["acc_unknown"].values()) == {0}
