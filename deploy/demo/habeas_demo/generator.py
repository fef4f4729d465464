"""Fills the demo platform with invented people: seeded, of any size, by COPY.

Equal seed, size and `now` give equal rows, and a person is the same whatever the size. Every person has at least one
row in every table of persons, on both sides of the 90 days where a table has an age.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final, TypeAlias

import asyncpg

from habeas_demo import texts
from habeas_demo.histories import COLUMNS, History, Rows, Size
from habeas_demo.people import DAY, Person, make_person, person_rng

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
"""A connection to the platform's database (written as text: asyncpg's class takes no parameter while running)."""

PLATFORM_DIR: Final = Path(__file__).resolve().parents[1]
"""Where schema.sql, roles.sql, policy.yaml and datamap/ stand."""

_CHUNK_PEOPLE = 2_000

AGGREGATE_USAGE = """
    INSERT INTO usage_daily (day, model_id, people, calls, tokens, latency_ms_mean)
    SELECT (logged_at AT TIME ZONE 'UTC')::date, model_id, count(DISTINCT account_id), count(*),
           sum(tokens_in + tokens_out), avg(latency_ms)
      FROM execution_logs
     GROUP BY 1, 2
    HAVING count(DISTINCT account_id) >= 5
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was written: people in order of their position, rows per table."""

    people: list[Person] = field(repr=False)
    rows: dict[str, int]


async def create_platform(conn: Connection) -> None:
    """Create tables and Habeas' roles in an empty database; `conn` belongs to the platform's owner."""
    for name in ("schema.sql", "roles.sql"):
        await conn.execute((PLATFORM_DIR / name).read_text(encoding="utf-8"))


async def load_platform(conn: Connection, *, seed: int, now: dt.datetime, size: Size | None = None) -> Loaded:
    """Write the invented platform into empty tables, in one transaction.

    Days of the log exist from `size.days` ago until tomorrow. `now` must be aware; it is the end of the history.
    """
    size = size or Size()
    people: list[Person] = []
    counts = dict.fromkeys(COLUMNS, 0)
    async with conn.transaction():
        today = now.astimezone(dt.UTC).date()
        await conn.execute("SELECT ensure_execution_log_days($1, $2)", today - size.days * DAY, today + DAY)
        plans = [(plan, name, Decimal(price), included) for plan, name, price, included in texts.PLANS]
        models = [(model, provider, name, Decimal(rate)) for model, provider, name, rate in texts.MODELS]
        await conn.copy_records_to_table("plans", records=plans)
        await conn.copy_records_to_table("models", records=models)
        for chunk, rows in _chunks(seed, now, size):
            people += chunk
            for table, records in rows.items():
                await conn.copy_records_to_table(table, records=records, columns=COLUMNS[table])
                counts[table] += len(records)
        await conn.execute(AGGREGATE_USAGE)
    await conn.execute("ANALYZE")
    return Loaded(people, counts)


def _chunks(seed: int, now: dt.datetime, size: Size) -> Iterator[tuple[list[Person], Rows]]:
    """People and their rows, so many at a time that memory stays small at any size."""
    for start in range(0, size.accounts, _CHUNK_PEOPLE):
        chunk: list[Person] = []
        rows: Rows = {table: [] for table in COLUMNS}
        for index in range(start, min(start + _CHUNK_PEOPLE, size.accounts)):
            rng = person_rng(seed, index)
            person = make_person(seed, index, now, rng)
            chunk.append(person)
            History(person, rng, now, size, rows).write()
        yield chunk, rows
