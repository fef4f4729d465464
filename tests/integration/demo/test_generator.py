import datetime as dt
from pathlib import Path

import asyncpg
import pytest
import yaml
from fideslang.models import Dataset

from habeas_demo.canary import Canary, needles_of
from habeas_demo.generator import PLATFORM_DIR, Connection, create_platform, load_platform
from habeas_demo.histories import COLUMNS, Size
from habeas_demo.platform import PlatformAccess
from tests.integration.demo.conftest import NOW

pytestmark = pytest.mark.asyncio(loop_scope="session")
CUT = dt.datetime(2026, 8, 26, tzinfo=dt.UTC)


async def create_empty(platform: PlatformAccess, name: str) -> Connection:
    """Make an empty platform of its own on the same server."""
    conn = await asyncpg.connect(platform.owner_dsn.rsplit("/", 1)[0] + "/postgres")
    await conn.execute(f"CREATE DATABASE {name}")
    await conn.close()
    other = await asyncpg.connect(platform.owner_dsn.rsplit("/", 1)[0] + "/" + name)
    await create_platform(other)
    return other


async def test_everybody_has_a_row_everywhere(conn: Connection, platform: PlatformAccess) -> None:
    """Every account has at least one row in every table of persons."""
    through = {
        "task_steps": "JOIN tasks o ON o.id = t.task_id",
        "task_contents": "JOIN task_steps s ON s.id = t.step_id JOIN tasks o ON o.id = s.task_id",
        "ticket_messages": "JOIN support_tickets o ON o.id = t.ticket_id",
    }
    for table in COLUMNS:
        column = "id" if table == "accounts" else "o.account_id" if table in through else "account_id"
        query = f"SELECT count(DISTINCT {column}) FROM {table} t {through.get(table, '')}"
        assert await conn.fetchval(query) == 100, table


async def test_logs_and_contents_lie_on_both_sides_of_the_cut(conn: Connection) -> None:
    """Everybody has log lines and tasks past 90 days; everybody whose account is open has younger ones as well."""
    for table, age in (("execution_logs", "logged_at"), ("tasks", "finished_at")):
        old = await conn.fetchval(f"SELECT count(DISTINCT account_id) FROM {table} WHERE {age} < $1", CUT)
        young = await conn.fetchval(f"SELECT count(DISTINCT account_id) FROM {table} WHERE {age} >= $1", CUT)
        assert (old, young) == (100, 98), table
    edges = "SELECT count(*) FROM execution_logs WHERE abs(extract(epoch FROM logged_at - $1)) < 0.00001"
    assert await conn.fetchval(edges, CUT) == 2


async def test_children_are_never_younger_than_parents(conn: Connection) -> None:
    """Retention can take contents, then steps, then tasks, without meeting a younger child."""
    assert (
        await conn.fetchval(
            "SELECT count(*) FROM task_steps s JOIN tasks t ON t.id = task_id WHERE s.finished_at > t.finished_at"
        )
        == 0
    )
    assert (
        await conn.fetchval(
            "SELECT count(*) FROM task_contents c JOIN task_steps s ON s.id = step_id WHERE c.created_at > s.finished_at"
        )
        == 0
    )


async def test_same_arguments_give_same_rows(conn: Connection, platform: PlatformAccess) -> None:
    """Loading again with the same seed, size and now gives the same bytes; another seed shares no account."""
    again = await create_empty(platform, "again")
    await load_platform(again, seed=7, now=NOW, size=Size(accounts=100))
    for table in COLUMNS:
        query = f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} AS t"
        assert await conn.fetchval(query) == await again.fetchval(query), table
    await again.close()
    other = await create_empty(platform, "other")
    loaded = await load_platform(other, seed=8, now=NOW, size=Size(accounts=100))
    await other.close()
    assert not {person.account_id for person in loaded.people} & {
        person.account_id for person in platform.loaded.people
    }


async def test_data_map_names_every_column(conn: Connection) -> None:
    """The data map lists exactly the tables and columns that the schema has, and is a valid Fides dataset."""
    raw = yaml.safe_load((PLATFORM_DIR / "datamap" / "platform.yaml").read_text(encoding="utf-8"))
    dataset = Dataset.model_validate({key: value for key, value in raw["dataset"][0].items() if key != "habeas"})
    mapped = {(table.name, field.name) for table in dataset.collections for field in table.fields}
    live = await conn.fetch(
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name NOT LIKE 'execution\\_logs\\_%'"
    )
    assert mapped == {(row["table_name"], row["column_name"]) for row in live}


async def test_canary_finds_everybody_in_a_dump(conn: Connection, tmp_path: Path, platform: PlatformAccess) -> None:
    """Every value of every person stands in the tables as the scanner searches it, also inside bytea and jsonb."""
    dump = tmp_path / "dump.txt"
    with dump.open("wb") as file:
        for table in COLUMNS:
            await conn.copy_from_query(f"SELECT * FROM {table}", output=file)
    needles = needles_of(platform.loaded.people)
    scan = Canary(needles).scan([tmp_path])
    assert {(hit.kind, hit.person) for hit in scan.hits} == {(needle.kind, needle.person) for needle in needles}
    assert "hex" in {hit.form for hit in scan.hits}


async def test_a_thousand_people_are_loaded(conn: Connection, platform: PlatformAccess) -> None:
    """The default size is what it says."""
    full = await create_empty(platform, "thousand")
    loaded = await load_platform(full, seed=7, now=NOW)
    await full.close()
    assert loaded.rows["accounts"] == 1_000
    assert sum(loaded.rows.values()) > 60_000


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("habeas_intake", "SELECT born_on FROM accounts"),
        ("habeas_intake", "SELECT 1 FROM tasks"),
        ("habeas_mailer", "SELECT country FROM accounts"),
        ("habeas_exporter", "SELECT sealed FROM provider_keys"),
        ("habeas_exporter", "SELECT hash FROM api_keys"),
        ("habeas_exporter", "DELETE FROM tasks"),
        ("habeas_eraser", "UPDATE invoices SET gross = 0"),
        ("habeas_eraser", "DELETE FROM invoices"),
        ("habeas_eraser", "UPDATE accounts SET id = 'acc_0000'"),
        ("habeas_sweeper", "SELECT body FROM task_contents"),
        ("habeas_sweeper", "SELECT email FROM accounts"),
        ("habeas_sweeper", "DROP TABLE execution_logs"),
        ("habeas_sweeper", "DROP TABLE accounts"),
        ("habeas_sweeper", "TRUNCATE tasks"),
        ("habeas_sweeper", "CREATE TABLE mine (id integer)"),
    ],
)
async def test_roles_may_no_more_than_they_need(conn: Connection, role: str, statement: str) -> None:
    """A service's role is refused what another service does."""
    async with conn.transaction():
        await conn.execute(f"SET LOCAL ROLE {role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with conn.transaction():
                await conn.execute(statement)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("habeas_intake", "SELECT id, email, name, language, country FROM accounts"),
        ("habeas_mailer", "SELECT id, email, name, language FROM accounts"),
        ("habeas_exporter", "SELECT count(*) FROM execution_logs"),
        ("habeas_exporter", "SELECT id, account_id, provider, label, created_at FROM provider_keys"),
        ("habeas_eraser", "SELECT 1 FROM accounts FOR UPDATE"),
        ("habeas_eraser", "DELETE FROM execution_logs"),
        ("habeas_eraser", "UPDATE invoices SET account_id = NULL, billing_name = NULL, billing_address = NULL"),
        ("habeas_sweeper", "DELETE FROM task_contents WHERE created_at < now()"),
        ("habeas_sweeper", "DROP TABLE execution_logs_2026_07_27"),
    ],
)
async def test_roles_may_what_they_need(conn: Connection, role: str, statement: str) -> None:
    """A service's role can do its own work."""
    await conn.execute(f"SET LOCAL ROLE {role}")
    await conn.execute(statement)
