"""The demo's own eyes on the platform: what is gone, what is kept, what nobody touched, before and after compared.

Nothing of Habeas is used here, so that a mistake in its data map or planner can't hide behind itself.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import asyncpg

from habeas_demo.generator import Connection
from habeas_demo.looks import (
    COMPARE,
    COUNT_ROWS,
    FIND_STRANGERS,
    KEPT,
    LIST_LOG_DAYS,
    LOOKS,
    MAKE_NOTES,
    NOTE,
    PERSONLESS,
)
from habeas_demo.people import DAY, RETENTION

_LONG_AGO = dt.datetime(1900, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at, and whether it is as it should be; `detail` holds counts, never a person's values."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Held:
    """How many rows a person had in a table: all, and those that retention must leave."""

    all: int
    staying: int


@dataclass(slots=True)
class Witness:
    """Notes every row of the platform before, and compares afterwards.

    The notes are temporary tables of its own connection: nobody else sees them, and they vanish with it.
    `ticked_as_of` is the moment of the retention tick, or None when there is none and so nothing may be purged.
    """

    conn: Connection
    ticked_as_of: dt.datetime | None
    _digests: dict[str, str | None] = field(default_factory=dict)
    _log_days: set[str] = field(default_factory=set)

    @classmethod
    async def open(cls, dsn: str, ticked_as_of: dt.datetime | None) -> Self:
        """Connect as somebody who may read everything, and note what is there now."""
        conn = await asyncpg.connect(dsn)
        await conn.execute("SET idle_session_timeout = 0")
        return await cls.begin(conn, ticked_as_of)

    @classmethod
    async def begin(cls, conn: Connection, ticked_as_of: dt.datetime | None) -> Self:
        """Note what this connection sees now."""
        witness = cls(conn, ticked_as_of)
        await witness._note("before_rows")
        witness._digests = {name: await conn.fetchval(query) for name, query in PERSONLESS.items()}
        witness._log_days = await witness._list_log_days()
        return witness

    async def close(self) -> None:
        """Disconnect; the notes are gone."""
        await self.conn.close()

    async def count_rows(self, people: Sequence[str]) -> dict[str, dict[str, Held]]:
        """Give, for each account id, how many rows it had in each table before."""
        counts: dict[str, dict[str, Held]] = {person: dict.fromkeys(LOOKS, Held(0, 0)) for person in people}
        for row in await self.conn.fetch(COUNT_ROWS, list(people)):
            counts[row["person"]][row["table_name"]] = Held(row["held"], row["staying"])
        return counts

    async def check_platform(self, erased: Sequence[str]) -> list[Check]:
        """Compare now with before, for these erased account ids; every other person is somebody whose rows must stay."""
        await self.conn.execute("DROP TABLE IF EXISTS after_rows")
        absent = await self._note("after_rows")
        seen = {row["table_name"]: dict(row) for row in await self.conn.fetch(COMPARE, list(erased), sorted(KEPT))}
        strangers = {row["table_name"]: dict(row) for row in await self.conn.fetch(FIND_STRANGERS, list(erased))}
        checks = [
            check
            for table in LOOKS
            if table not in absent
            for check in _check_table(table, seen.get(table), strangers.get(table), len(erased))
        ]
        checks += [Check(f"seen · {table}", passed=False, detail="the table is not there") for table in sorted(absent)]
        checks += [
            Check(
                f"unchanged · {name}", await self.conn.fetchval(query) == self._digests[name], "a table without persons"
            )
            for name, query in PERSONLESS.items()
        ]
        return [*checks, await self._check_log_days()]

    async def _note(self, name: str) -> set[str]:
        """Note every row; gives the tables that are not there, of which nothing can be said."""
        absent = set()
        as_of = self.ticked_as_of or _LONG_AGO
        await self.conn.execute(MAKE_NOTES.format(name=name))
        for table, look in LOOKS.items():
            if not await self.conn.fetchval("SELECT to_regclass($1) IS NOT NULL", table):
                absent.add(table)
                continue
            await self.conn.execute(NOTE.format(name=name, table=table, look=look), as_of)
        await self.conn.execute(f"CREATE INDEX ON {name} (table_name, id)")
        await self.conn.execute(f"ANALYZE {name}")
        return absent

    async def _list_log_days(self) -> set[str]:
        return {row["name"] for row in await self.conn.fetch(LIST_LOG_DAYS)}

    async def _check_log_days(self) -> Check:
        """Whole days of the log past their retention are dropped, and only those."""
        cutoff = (self.ticked_as_of or _LONG_AGO) - RETENTION
        must_stay = {name for name in self._log_days if _day_of(name) + DAY > cutoff}
        must_go = {name for name in self._log_days if _day_of(name) + 2 * DAY <= cutoff}
        found = await self._list_log_days()
        detail = f"{len(found)} days kept, {len(found & must_go)} too old, {len(must_stay - found)} dropped too early"
        return Check("retention · days of the log", not found & must_go and must_stay <= found, detail)


def _day_of(partition: str) -> dt.datetime:
    return dt.datetime.strptime(partition.removeprefix("execution_logs_"), "%Y_%m_%d").replace(tzinfo=dt.UTC)


def _check_table(
    table: str, seen: Mapping[str, int] | None, strangers: Mapping[str, int] | None, people: int
) -> list[Check]:
    """Judge one table. Looking at fewer rows than people is a failure: nothing would have been shown."""
    if seen is None:
        return [Check(f"seen · {table}", passed=False, detail="held no rows before, so nothing can be shown")]
    of_erased = strangers["of_erased"] if strangers else 0
    new = strangers["new"] if strangers else 0
    checks = []
    if table in KEPT:
        passed = seen["keepable"] >= people and seen["not_kept"] == 0 and of_erased == 0
        detail = f"{seen['keepable']} rows, {seen['not_kept']} lost or altered or still named, {of_erased} still linked"
        checks.append(Check(f"kept without the person · {table}", passed, detail))
    else:
        passed = seen["erasable"] >= people and seen["not_erased"] == 0 and of_erased == 0
        checks.append(
            Check(f"erased · {table}", passed, f"{seen['erasable']} rows, {max(seen['not_erased'], of_erased)} left")
        )
    if seen["purgeable"]:
        detail = f"{seen['purgeable']} rows past their time, {seen['not_purged']} left"
        checks.append(Check(f"retention · {table}", seen["not_purged"] == 0, detail))
    passed = seen["others_touched"] == 0 and new == 0
    detail = f"{seen['others']} rows of others, {seen['others_touched']} missing or altered, {new} new"
    checks.append(Check(f"others untouched · {table}", passed, detail))
    return checks
