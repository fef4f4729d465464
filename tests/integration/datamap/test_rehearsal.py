"""`habeas erase plan`, `habeas datamap check --sample` and `habeas datamap explain` on a real database: told, and nothing changed."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from habeas.cli.main import habeas
from habeas.contracts.vocabulary import TableResult
from tests.integration.datamap.conftest import PEOPLE, Shop
from tests.support.shop import DATAMAP, PERSONAL, write_map

WHO = PEOPLE[7]

ANSWERS = """
CREATE TABLE answers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, author_id text REFERENCES accounts (id),
    parent_id bigint REFERENCES answers (id), body text
);
"""
ANSWERS_MAP = """
      - name: answers
        habeas: {category: content, on_erasure: delete, links: {written: {by: author_id, where: {body: [said, asked]}}}}
        fields:
          - {name: id, fides_meta: {primary_key: true}}
          - name: author_id
            fides_meta: {references: [{dataset: shop, field: accounts.id, direction: from}]}
          - name: parent_id
            fides_meta: {references: [{dataset: shop, field: answers.id, direction: from}]}
            habeas: {when_parent_goes: detach}
          - {name: body}
""".replace(", where: {body: [said, asked]}", "")

DRAGS = """
CREATE FUNCTION drag() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN DELETE FROM profiles WHERE account_id <> OLD.id; RETURN OLD; END $$;
CREATE TRIGGER drag AFTER DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION drag();
"""
DRAGS_MAP = DATAMAP.replace("age: closed_at, on_erasure", "age: closed_at, triggers: [drag], on_erasure")


async def _run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, habeas, arguments)


def _files(shop: Shop, directory: Path, text: str = DATAMAP) -> Sequence[str]:
    path, _ = write_map(directory, text)
    return ["--map", str(path), "--policy", str(directory / "policy.yaml"), "--dsn", shop.dsn]


async def _everything(shop: Shop) -> dict[str, list[str]]:
    return {
        table: [row[0] for row in await shop.owner.fetch(f"SELECT t::text FROM {table} AS t ORDER BY 1")]
        for table in (*PERSONAL, "models")
    }


async def test_plan_tells_what_the_erasure_then_does(shop: Shop, tmp_path: Path) -> None:
    """The plan has the rows, results, grounds and dates of the erasure itself, changes no byte, and names no account."""
    before = await _everything(shop)
    result = await _run("erase", "plan", "--account", WHO, "--json", *_files(shop, tmp_path))
    assert result.exit_code == 0, result.output
    assert await _everything(shop) == before
    assert WHO not in result.output
    (store,) = json.loads(result.output)["stores"]
    outcomes = (await shop.store.erase([WHO]))[WHO]
    assert [
        (each["table"], each["result"], each["rows"], each["ground"], each["until"]) for each in store["tables"]
    ] == [(each.table, each.result, each.rows, each.ground, each.until and each.until.isoformat()) for each in outcomes]
    assert any(each["rows"] and each["until"] for each in store["tables"])


async def test_plan_explains_links_and_statements_without_values(shop: Shop, tmp_path: Path) -> None:
    """With --explain the ways to the person and the SQL stand there, with placeholders for the person."""
    arguments = ["erase", "plan", "--account", WHO, "--explain", *_files(shop, tmp_path)]
    result = await _run(*arguments)
    assert result.exit_code == 0, result.output
    assert "leads by `step_id` to the row of `steps` with that `id`" in result.output
    assert "DELETE FROM" in result.output
    assert "$1" in result.output
    assert WHO not in result.output
    (store,) = json.loads((await _run(*arguments, "--json")).output)["stores"]
    assert "FOR UPDATE" in store["statements"][0]
    assert any("DELETE FROM" in statement for statement in store["statements"][1:])


async def test_plan_tells_rows_of_others(shop: Shop, tmp_path: Path) -> None:
    """Answers of others below one that goes are told as detached, apart from the person's own."""
    await shop.owner.execute(ANSWERS)
    mine = await shop.owner.fetchval("INSERT INTO answers (author_id, body) VALUES ($1, 'a') RETURNING id", WHO)
    await shop.owner.execute("INSERT INTO answers (author_id, parent_id, body) VALUES ($1, $2, 'b')", PEOPLE[8], mine)
    files = _files(shop, tmp_path, DATAMAP + ANSWERS_MAP)
    result = await _run("erase", "plan", "--account", WHO, "--json", *files)
    assert result.exit_code == 0, result.output
    (store,) = json.loads(result.output)["stores"]
    told = {(each["result"], each["rows"], each["of_others"]) for each in store["tables"] if each["table"] == "answers"}
    assert told == {(TableResult.ERASED, 1, False), (TableResult.DETACHED, 1, True)}
    assert await shop.owner.fetchval("SELECT count(*) FROM answers WHERE parent_id = $1", mine) == 1


async def test_refusal_is_told_with_the_other_table(shop: Shop, tmp_path: Path) -> None:
    """Rows of others that a trigger would take: the plan and the sample say so, name the table, end with 1, and take nothing."""
    await shop.owner.execute(DRAGS)
    before = await _everything(shop)
    files = _files(shop, tmp_path, DRAGS_MAP)
    result = await _run("erase", "plan", "--account", WHO, *files)
    assert (result.exit_code, "would be refused" in result.output) == (1, True), result.output
    assert "of the table profiles, which the data map does not name" in result.output
    assert (await _run("datamap", "check", *files)).exit_code == 0
    sampled = await _run("datamap", "check", "--sample", "2", "--json", *files)
    assert sampled.exit_code == 1
    (store,) = json.loads(sampled.output)["sample"]
    assert [(each["work"], each["person"], each["table"]) for each in store["refused"]] == [
        ("erasure", 1, "profiles"),
        ("erasure", 2, "profiles"),
    ]
    assert await _everything(shop) == before


async def test_refusal_by_a_foreign_key_names_the_table_that_refers(shop: Shop, tmp_path: Path) -> None:
    """What the server refuses is told with the table whose rows are in the way, without the server's text, which quotes rows."""
    await shop.owner.execute(
        """
        CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'still referred to: %', OLD.email USING ERRCODE = '23503',
                SCHEMA = 'public', TABLE = 'badges', CONSTRAINT = 'k';
        END $$;
        CREATE TRIGGER forbid BEFORE DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION forbid();
        """
    )
    files = _files(shop, tmp_path, DRAGS_MAP.replace("[drag]", "[forbid]"))
    email = await shop.owner.fetchval("SELECT email FROM accounts WHERE id = $1", WHO)
    result = await _run("erase", "plan", "--account", WHO, *files)
    assert (result.exit_code, "foreign key k of the table badges" in result.output) == (1, True), result.output
    assert email not in result.output
    (store,) = json.loads((await _run("erase", "plan", "--account", WHO, "--json", *files)).output)["stores"]
    assert store["table"] == "badges"
    sampled = await _run("datamap", "check", "--sample", "60", *files)
    assert (sampled.exit_code, "foreign key k of the table badges" in sampled.output) == (1, True), sampled.output
    assert "@" not in sampled.output


async def test_foreign_key_of_a_table_made_meanwhile_is_told(shop: Shop, tmp_path: Path) -> None:
    """A map that differs from the schema is a refusal of the plan, with what to write."""
    await shop.owner.execute("CREATE TABLE badges (account_id text REFERENCES accounts (id))")
    result = await _run("erase", "plan", "--account", WHO, *_files(shop, tmp_path))
    assert (result.exit_code, "badges" in result.output) == (1, True), result.output


async def test_sample_rehearses_everything_and_changes_nothing(shop: Shop, tmp_path: Path) -> None:
    """Erasure, export and purge of people at random: rows by table, no account in the output, no byte changed."""
    await shop.owner.execute("UPDATE accounts SET closed_at = '2001-01-01' WHERE id = $1", WHO)
    await shop.owner.execute("UPDATE tasks SET created_at = '2001-01-01' WHERE account_id = $1", WHO)
    contents = await shop.owner.fetchval(
        "SELECT count(*) FROM contents JOIN steps ON steps.id = step_id JOIN tasks ON tasks.id = task_id WHERE account_id = $1",
        WHO,
    )
    before = await _everything(shop)
    arguments = ["datamap", "check", "--sample", "3", *_files(shop, tmp_path)]
    result = await _run(*arguments)
    assert result.exit_code == 0, result.output
    assert "rehearsed with 3 people, and nothing was changed" in result.output
    assert "acc_" not in result.output
    (store,) = json.loads((await _run(*arguments, "--json")).output)["sample"]
    rows: dict[tuple[str, str], Any] = {(each["table"], each["what"]): each["rows"] for each in store["tables"]}
    assert (rows["accounts", "erased"], rows["accounts", "exported"]) == (3, 3)
    assert rows["steps", "erased"] == rows["steps", "exported"]
    assert rows["contents", "purged by execution"] == rows["contents", "purged by account"] == contents
    assert store["refused"] == []
    assert await _everything(shop) == before


async def test_sample_of_nobody_is_no_success(shop: Shop, tmp_path: Path) -> None:
    """Where there is nobody to rehearse with, nothing was shown: exit code 1, but for --offline, which promises nothing."""
    await shop.owner.execute("TRUNCATE accounts CASCADE")
    files = _files(shop, tmp_path)
    result = await _run("datamap", "check", "--sample", "3", *files)
    assert (result.exit_code, "nobody was rehearsed with" in result.output) == (1, True), result.output
    assert (await _run("datamap", "check", "--sample", "3", "--offline", *files[:4])).exit_code == 0


async def test_explain_tells_whose_rows_are(shop: Shop, tmp_path: Path) -> None:
    """Links, treatment, references, foreign keys and retention in words; a table of nobody's with its reason."""
    await shop.owner.execute(ANSWERS)
    files = _files(shop, tmp_path, DATAMAP + ANSWERS_MAP)
    told = (await _run("datamap", "explain", "answers", *files)).output
    assert "A row of `answers` is the person's whose `id` in `accounts` stands in `author_id`." in told
    assert "they stay and let go of it: `parent_id` becomes null" in told
    assert "(ON DELETE NO ACTION)" in told
    told = (await _run("datamap", "explain", "invoices", *files)).output
    assert "keeps them under the ground `legal_obligation`" in told
    assert "`billing_name` (to 'erased')" in told
    assert "(ON DELETE SET NULL)" in told
    assert "counted from `invoices.issued_on`" in told
    told = (await _run("datamap", "explain", "accounts", *files)).output
    assert "never shows `secret`" in told
    told = (await _run("datamap", "explain", "tasks", *files)).output
    assert "(accessor)" in told
    assert "`approved_by` (to null)" in told
    offline = (await _run("datamap", "explain", "models", "--offline", *files[:4])).output
    assert "Reason in the map: the price list." in offline
    assert "foreign keys" in offline


async def test_explain_of_an_unknown_table_gives_the_nearest(shop: Shop, tmp_path: Path) -> None:
    """A slip of the pen is answered with the names that are near; JSON holds the same sentences."""
    files = _files(shop, tmp_path)
    result = await _run("datamap", "explain", "invoice", *files)
    assert (result.exit_code, "nearest: invoices" in result.output) == (1, True)
    (told,) = json.loads((await _run("datamap", "explain", "contents", "--json", *files)).output)
    assert told["table"] == "contents"
    assert told["links"][0]["ways"][0].startswith("A row of `contents` leads by `step_id` to the row of `steps`")
