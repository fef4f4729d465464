"""Which rows go: vectors counted by hand with a calendar of Berlin (clocks change on 29 March and 25 October 2026)."""

from datetime import datetime, timedelta

import pytest

from tests.integration.retention_sweeper.conftest import AS_OF, NOW, Shop, Sweeper, after_lease

SOON = timedelta(microseconds=1)


async def _run(sweeper: Sweeper, as_of: str) -> None:
    moment = datetime.fromisoformat(as_of)
    sweeper.clock.set(moment)
    await sweeper.tick(moment)
    await sweeper.run()
    assert set((await sweeper.states()).values()) == {"completed"}


@pytest.mark.parametrize(
    ("as_of", "cutoff"),
    [
        # Ninety days with no change of clocks: 30 January 2027, 10:00 UTC, back to 1 November 2026.
        ("2027-01-30T10:00:00Z", "2026-11-01T10:00:00Z"),
        # Back over the end of summer time: 01:00 in Berlin on 26 August, an hour before ninety times 24 hours.
        ("2026-11-24T00:00:00Z", "2026-08-25T23:00:00Z"),
        # Back over its beginning: ninety times 24 hours, an hour before 02:00 in Berlin on 31 January.
        ("2026-05-01T00:00:00Z", "2026-01-31T00:00:00Z"),
        # Back to 02:30 on 29 March, which Berlin did not have: read as summer time, an hour before the other reading.
        ("2026-06-27T00:30:00Z", "2026-03-29T00:30:00Z"),
        # Back to 02:30 on 25 October, which Berlin had twice: the first of the two.
        ("2027-01-23T01:30:00Z", "2026-10-25T00:30:00Z"),
    ],
)
async def test_row_at_the_cutoff_stays_and_a_microsecond_older_goes(
    sweeper: Sweeper, shop: Shop, as_of: str, cutoff: str
) -> None:
    """The edge is exact, also where days have 23 or 25 hours: never early under either reading."""
    edge = datetime.fromisoformat(cutoff)
    await shop.owner.execute("DELETE FROM contents; DELETE FROM steps; DELETE FROM tasks")
    for created in (edge - SOON, edge, edge + SOON):
        await shop.owner.execute("INSERT INTO tasks (account_id, created_at) VALUES ('acc_1', $1)", created)
    await _run(sweeper, as_of)
    left = [row["created_at"] for row in await shop.owner.fetch("SELECT created_at FROM tasks ORDER BY created_at")]
    assert left == [edge, edge + SOON]
    (told,) = [
        event
        for event in await sweeper.told("sweep.completed")
        if (event["table"], event["retention"]) == ("tasks", "execution")
    ]
    assert (told["cutoff_at"], told["oldest_left_at"], told["rows"]) == (cutoff, cutoff, 1)


@pytest.mark.parametrize(
    ("as_of", "left"),
    [
        # In Berlin it is still 2026 for a microsecond: the year 2016 is kept until its end.
        ("2026-12-31T22:59:59.999999Z", ["2016-01-01", "2016-12-31", "2017-01-01"]),
        # Ten years from the end of 2016 are over when 2027 begins in Berlin.
        ("2026-12-31T23:00:00Z", ["2017-01-01"]),
        ("2027-12-31T22:59:59.999999Z", ["2017-01-01"]),
        ("2027-12-31T23:00:00Z", []),
    ],
)
async def test_ten_years_from_the_end_of_the_year(sweeper: Sweeper, shop: Shop, as_of: str, left: list[str]) -> None:
    """Invoices of a year go all together, ten years after that year has ended in Berlin (§ 147 AO)."""
    await shop.owner.execute("DELETE FROM invoices")
    await shop.owner.execute(
        "INSERT INTO invoices (cents, issued_on)"
        " SELECT 1, d::date FROM unnest('{2015-12-31,2016-01-01,2016-12-31,2017-01-01}'::text[]) AS d"
    )
    await _run(sweeper, as_of)
    rows = await shop.owner.fetch("SELECT issued_on FROM invoices ORDER BY issued_on")
    assert [row["issued_on"].isoformat() for row in rows] == left


async def test_closed_account_goes_with_all_that_hangs_on_it(sweeper: Sweeper, shop: Shop) -> None:
    """Thirty days after it was closed an account goes with its rows; open ones and those closed a moment later stay."""
    closed = AS_OF - timedelta(days=30)
    for person, at in (("acc_1", closed - SOON), ("acc_2", closed)):
        await shop.owner.execute("UPDATE accounts SET closed_at = $2 WHERE id = $1", person, at)
    await _run(sweeper, AS_OF.isoformat())
    rows = await shop.owner.fetch("SELECT id FROM accounts ORDER BY id")
    assert [row["id"] for row in rows] == ["acc_2", "acc_3"]
    assert await shop.owner.fetchval("SELECT count(*) FROM tasks WHERE account_id = 'acc_1'") == 0
    assert await shop.owner.fetchval("SELECT count(*) FROM tasks") == 4
    assert await shop.owner.fetchval("SELECT count(*) FROM invoices WHERE account_id IS NULL") == 1


async def test_partition_goes_whole_and_never_early(sweeper: Sweeper, shop: Shop) -> None:
    """A day of the log is dropped when all of it is past its time; the day that the cutoff lies in loses rows only."""
    # Ninety days before 20 February 2027, 13:00 UTC: 22 November 2026, 13:00; no change of clocks lies between.
    await _run(sweeper, "2027-02-20T13:00:00Z")
    rows = await shop.owner.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'logs'::regclass ORDER BY 1"
    )
    assert [row["name"] for row in rows] == ["logs_22", "logs_23", "logs_24"]
    assert await shop.owner.fetchval("SELECT count(*) FROM logs") == 0
    (told,) = [event for event in await sweeper.told("sweep.completed") if event["partitions_dropped"]]
    assert (told["table"], told["partitions_dropped"], told["rows"]) == ("logs", 2, 3)


async def test_unknown_table_stops_everything(sweeper: Sweeper, shop: Shop) -> None:
    """A table that the map lacks leaves the tick stuck, and nothing is touched; once it is mapped or gone, the tick is done."""
    await shop.owner.execute("CREATE TABLE notes (id int PRIMARY KEY, task_id bigint REFERENCES tasks (id))")
    sweeper.clock.set(NOW + timedelta(hours=2))
    await sweeper.tick(NOW + timedelta(hours=2))
    await sweeper.run()
    assert await sweeper.states() == {}
    (told,) = await sweeper.told("sweep.stuck")
    assert (told["store"], told["table"], told["reason"]) == ("shop", "accounts", "schema_mismatch")
    assert await shop.owner.fetchval("SELECT count(*) FROM tasks") == 6
    await shop.owner.execute("DROP TABLE notes")
    after_lease(sweeper)
    await sweeper.run()
    assert set((await sweeper.states()).values()) == {"completed"}
    assert await shop.owner.fetchval("SELECT count(*) FROM tasks") == 0


async def test_old_parent_of_a_young_child_stays(sweeper: Sweeper, shop: Shop) -> None:
    """A row that a younger one refers to does not leave it alone: it stays and is told as the oldest that is left."""
    await shop.owner.execute(
        "UPDATE accounts SET closed_at = '2026-01-01T00:00Z' WHERE id = 'acc_1';"
        "UPDATE tasks SET approved_by = 'acc_1' WHERE account_id = 'acc_2'"
    )
    await sweeper.tick()
    await sweeper.run()
    (told,) = [event for event in await sweeper.told("sweep.completed") if event["table"] == "accounts"]
    assert (told["rows"], told["oldest_left_at"]) == (0, "2026-01-01T00:00:00Z")
    assert await shop.owner.fetchval("SELECT count(*) FROM accounts") == 3
    facts = await sweeper.facts()
    assert facts[-1] == "action=sweep.completed request=- subject=- outcome=partly_kept count=0 commitments=-"


async def test_batches_are_bounded_and_sums_are_told(sweeper: Sweeper, shop: Shop) -> None:
    """However small the batches, every rule is told once, with the sum of its rows."""
    sweeper.rows_max = 5
    sweeper.clock.set(NOW + timedelta(hours=2))
    await sweeper.tick(NOW + timedelta(hours=2), "execution")
    await sweeper.run()
    told = {event["table"]: event["rows"] for event in await sweeper.told("sweep.completed")}
    assert told == {"contents": 24, "logs": 0, "steps": 12, "tasks": 6}
    assert [table for _, table, _ in sweeper.stores.purged] == [
        *["contents"] * 5,
        "logs",
        *["steps"] * 3,
        *["tasks"] * 2,
    ]


async def test_rows_of_others_stay_as_they_are(sweeper: Sweeper, shop: Shop) -> None:
    """What is younger than every cutoff is untouched to the byte while older rows go beside it."""
    await shop.owner.execute(
        "UPDATE tasks SET created_at = '2027-01-15T00:00Z' WHERE account_id <> 'acc_1';"
        "CREATE TABLE before AS SELECT t::text AS row FROM tasks AS t WHERE account_id <> 'acc_1'"
    )
    kept = await shop.owner.fetchval("SELECT string_agg(row, '|' ORDER BY row) FROM before")
    await shop.owner.execute("DROP TABLE before")
    sweeper.clock.set(NOW + timedelta(hours=2))
    await sweeper.tick(NOW + timedelta(hours=2))
    await sweeper.run()
    assert await shop.owner.fetchval("SELECT string_agg(t::text, '|' ORDER BY t::text) FROM tasks AS t") == kept
    assert await shop.owner.fetchval("SELECT count(*) FROM contents") == 16
