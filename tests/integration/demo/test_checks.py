import datetime as dt

import pytest

from habeas_demo.checks import Check, Witness
from habeas_demo.generator import Connection
from habeas_demo.people import Person
from habeas_demo.platform import PlatformAccess

AS_OF = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
pytestmark = pytest.mark.asyncio(loop_scope="session")

# What a perfect erasure and a perfect sweep do, written by hand.
ERASE = """
    DELETE FROM task_contents WHERE step_id IN
        (SELECT s.id FROM task_steps s JOIN tasks t ON t.id = s.task_id WHERE t.account_id = ANY ($1));
    DELETE FROM task_steps WHERE task_id IN (SELECT id FROM tasks WHERE account_id = ANY ($1));
    DELETE FROM ticket_messages WHERE ticket_id IN (SELECT id FROM support_tickets WHERE account_id = ANY ($1));
    DELETE FROM tasks WHERE account_id = ANY ($1);
    DELETE FROM support_tickets WHERE account_id = ANY ($1);
    DELETE FROM sessions WHERE account_id = ANY ($1);
    DELETE FROM api_keys WHERE account_id = ANY ($1);
    DELETE FROM provider_keys WHERE account_id = ANY ($1);
    DELETE FROM execution_logs WHERE account_id = ANY ($1);
    DELETE FROM cookie_consents WHERE account_id = ANY ($1);
    DELETE FROM quality_scores WHERE account_id = ANY ($1);
    UPDATE invoices SET account_id = NULL, billing_name = NULL, billing_address = NULL WHERE account_id = ANY ($1);
    UPDATE credit_ledger SET account_id = NULL WHERE account_id = ANY ($1);
    DELETE FROM accounts WHERE id = ANY ($1)
"""
CUT = "timestamptz '2026-08-26 00:00:00+00'"  # 24 November minus 90 days: 24 in November, 31 in October, 30 in September, 5 left
SWEEP = f"""
    DELETE FROM task_contents WHERE created_at < {CUT};
    DELETE FROM task_steps WHERE finished_at < {CUT};
    DELETE FROM tasks WHERE finished_at < {CUT};
    DELETE FROM execution_logs WHERE logged_at < {CUT};
    DELETE FROM invoices WHERE issued_on <= '2015-12-31';
    DELETE FROM credit_ledger WHERE booked_on <= '2015-12-31'
"""
CLOSED = f"SELECT array_agg(id) FROM accounts WHERE closed_at < {CUT}"


def some(platform: PlatformAccess, number: int) -> list[Person]:
    """Open accounts, one of them with books older than ten years."""
    return [person for person in platform.loaded.people if person.closed_at is None][:number]


async def erase(conn: Connection, ids: list[str]) -> None:
    """Erase as the data map says."""
    for statement in ERASE.split(";"):
        await conn.execute(statement, ids)


async def sweep(conn: Connection) -> None:
    """Purge as the policy says."""
    for day in await conn.fetch("SELECT generate_series(date '2026-07-27', date '2026-08-25', '1 day')::date AS day"):
        await conn.execute(f"DROP TABLE execution_logs_{day['day']:%Y_%m_%d}")
    closed = await conn.fetchval(CLOSED)
    await conn.execute(SWEEP)
    for statement in ERASE.split(";"):
        if "billing_name" not in statement:
            await conn.execute(statement, closed)


def failed(checks: list[Check]) -> set[str]:
    """Names of what is not as it should be."""
    return {check.name for check in checks if not check.passed}


async def test_perfect_work_passes(platform: PlatformAccess, conn: Connection) -> None:
    """An erasure and a sweep done by hand pass every check, and none of the checks looks at nothing."""
    ids = [person.account_id for person in some(platform, 10)]
    witness = await Witness.begin(conn, AS_OF)
    await erase(conn, ids)
    await sweep(conn)
    checks = await witness.check_platform(ids)
    assert failed(checks) == set(), [check for check in checks if not check.passed]
    assert len(checks) >= 40


async def test_nothing_done_fails(platform: PlatformAccess, conn: Connection) -> None:
    """Without any work, everything about erasure and retention is false, and others are untouched."""
    ids = [person.account_id for person in some(platform, 10)]
    witness = await Witness.begin(conn, AS_OF)
    names = failed(await witness.check_platform(ids))
    assert {name.split(" · ")[0] for name in names} == {"erased", "kept without the person", "retention"}
    assert "retention · days of the log" in names
    assert len([name for name in names if name.startswith("erased")]) == 12


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        ("UPDATE accounts SET name = 'x' WHERE id = $1", "others untouched · accounts"),
        ("DELETE FROM quality_scores WHERE account_id = $1", "others untouched · quality_scores"),
        ("UPDATE invoices SET billing_address = NULL WHERE account_id = $1", "others untouched · invoices"),
        ("UPDATE invoices SET account_id = NULL WHERE account_id = $1", "others untouched · invoices"),
        ("UPDATE invoices SET gross = gross + 1 WHERE account_id = $1", "others untouched · invoices"),
        ("DELETE FROM credit_ledger WHERE account_id = $1", "others untouched · credit_ledger"),
        ("UPDATE execution_logs SET latency_ms = 1 WHERE account_id = $1", "others untouched · execution_logs"),
    ],
)
async def test_damage_to_others_is_seen(platform: PlatformAccess, conn: Connection, damage: str, name: str) -> None:
    """Whatever happens to somebody who asked for nothing is found, in the table where it happened."""
    people = some(platform, 11)
    ids = [person.account_id for person in people[:10]]
    witness = await Witness.begin(conn, None)
    await erase(conn, ids)
    await conn.execute(damage, people[10].account_id)
    assert failed(await witness.check_platform(ids)) == {name}


@pytest.mark.parametrize(
    ("mistake", "name"),
    [
        ("UPDATE invoices SET billing_name = 'x' WHERE id = $1::uuid", "kept without the person · invoices"),
        ("UPDATE invoices SET gross = 0 WHERE id = $1::uuid", "kept without the person · invoices"),
        ("DELETE FROM invoices WHERE id = $1::uuid", "kept without the person · invoices"),
    ],
)
async def test_broken_books_are_seen(platform: PlatformAccess, conn: Connection, mistake: str, name: str) -> None:
    """A kept row that still names the person, has another amount, or is gone, is found."""
    ids = [person.account_id for person in some(platform, 3)]
    witness = await Witness.begin(conn, None)
    invoice = await conn.fetchval("SELECT id::text FROM invoices WHERE account_id = ANY ($1) LIMIT 1", ids)
    await erase(conn, ids)
    await conn.execute(mistake, invoice)
    assert failed(await witness.check_platform(ids)) == {name}


async def test_resurrection_is_seen(platform: PlatformAccess, conn: Connection) -> None:
    """A row that arrives after the erasure for an erased person is found."""
    ids = [person.account_id for person in some(platform, 3)]
    witness = await Witness.begin(conn, None)
    await erase(conn, ids)
    await conn.execute(
        "INSERT INTO execution_logs SELECT gen_random_uuid(), $2, $1, NULL, NULL, 'gpt-small', 'ok', 1, 1, 1, '::1', 'x'",
        ids[0],
        AS_OF,
    )
    assert failed(await witness.check_platform(ids)) == {"erased · execution_logs", "others untouched · execution_logs"}


async def test_early_purge_is_seen(platform: PlatformAccess, conn: Connection) -> None:
    """A day of the log dropped too early is found, as a day and as rows."""
    ids = [person.account_id for person in some(platform, 10)]
    witness = await Witness.begin(conn, AS_OF)
    await erase(conn, ids)
    await sweep(conn)
    await conn.execute("DROP TABLE execution_logs_2026_08_26")
    names = failed(await witness.check_platform(ids))
    assert names == {"others untouched · execution_logs", "retention · days of the log"}


async def test_late_and_early_are_told_to_the_microsecond(platform: PlatformAccess, conn: Connection) -> None:
    """A row a microsecond short of its 90 days must stay; one that ended a day before the tick must be gone."""
    ids = [person.account_id for person in some(platform, 3)]
    line = """
        INSERT INTO execution_logs
        SELECT gen_random_uuid(), $2, $1, NULL, NULL, 'gpt-small', 'ok', 1, 1, 1, '::1', 'x' RETURNING id
    """
    cut = dt.datetime(2026, 8, 26, tzinfo=dt.UTC)
    young = await conn.fetchval(line, platform.loaded.people[50].account_id, cut + dt.timedelta(microseconds=1))
    late = await conn.fetchval(line, platform.loaded.people[51].account_id, cut - dt.timedelta(days=1))
    witness = await Witness.begin(conn, AS_OF)
    await erase(conn, ids)
    await sweep(conn)
    assert failed(await witness.check_platform(ids)) == set()
    await conn.execute("DELETE FROM execution_logs WHERE id = $1", young)
    assert failed(await witness.check_platform(ids)) == {"others untouched · execution_logs"}
    notes = "SELECT wanted FROM before_rows WHERE id = $1"
    assert (await conn.fetchval(notes, str(young)), await conn.fetchval(notes, str(late))) == ("there", "gone")


async def test_rows_are_counted_per_person(platform: PlatformAccess, conn: Connection) -> None:
    """What a person held in each table is counted with and without what retention takes."""
    person = some(platform, 4)[3]
    assert person.old_customer
    witness = await Witness.begin(conn, AS_OF)
    held = (await witness.count_rows([person.account_id]))[person.account_id]
    invoices = await conn.fetch("SELECT issued_on FROM invoices WHERE account_id = $1", person.account_id)
    assert held["invoices"].all == len(invoices)
    assert (
        held["invoices"].staying == len([row for row in invoices if row["issued_on"].year > 2015]) == len(invoices) - 1
    )
    assert held["task_contents"].all == 16
    assert 0 < held["execution_logs"].staying < held["execution_logs"].all == 20


async def test_a_missing_table_is_not_an_empty_one(platform: PlatformAccess, conn: Connection) -> None:
    """A table that is gone holds no row of the erased, and yet nothing about it passes."""
    ids = [person.account_id for person in some(platform, 10)]
    witness = await Witness.begin(conn, None)
    await erase(conn, ids)
    await conn.execute("ALTER TABLE quality_scores RENAME TO quality_scores_away")
    checks = await witness.check_platform(ids)
    assert [check.name for check in checks if check.name.endswith(" quality_scores")] == ["seen · quality_scores"]
    assert failed(checks) == {"seen · quality_scores"}
