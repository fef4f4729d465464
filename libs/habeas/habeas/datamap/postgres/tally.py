"""The database's own count of the rows that a transaction changes, compared with what its statements gave back.

PostgreSQL counts every row that a transaction inserts, updates or deletes, whatever did it: a statement, a cascade, a trigger, a rule.
(The functions behind `pg_stat_xact_all_tables`; any role may call them.) So rows that no statement of a plan names are seen before the
commit, whatever the check of the map has overlooked.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

import asyncpg

from habeas.datamap.errors import OthersTouched
from habeas.datamap.planner import StorePlan
from habeas.datamap.postgres.connection import Connection

COUNTS: Final = """
    WITH RECURSIVE changed AS MATERIALIZED (
        SELECT c.oid, x.inserted, x.updated, x.deleted
          FROM pg_catalog.pg_class AS c
         CROSS JOIN LATERAL (
               SELECT pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid) AS inserted,
                      pg_catalog.pg_stat_get_xact_tuples_updated(c.oid) AS updated,
                      pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid) AS deleted) AS x
         WHERE c.relkind IN ('r', 'm') AND c.oid >= 16384 AND x.inserted + x.updated + x.deleted > 0
    ), lineage AS (
        SELECT changed.oid, changed.oid AS above, 0 AS depth FROM changed
         UNION ALL
        SELECT lineage.oid, i.inhparent, depth + 1 FROM lineage JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = lineage.above
    )
    SELECT changed.oid, changed.inserted, changed.updated, changed.deleted,
           (SELECT array_agg(named.name ORDER BY l.depth)
              FROM lineage AS l
             CROSS JOIN LATERAL (
                   SELECT format('%s.%s', n.nspname, c.relname) AS name
                     FROM pg_catalog.pg_class AS c
                     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                    WHERE c.oid = l.above
                   OFFSET 0) AS named
             WHERE l.oid = changed.oid) AS names
      FROM changed
"""
"""Tables that this session changes, not those of the system: rows by what became of them, and the names of the table and of those above
it (of a partition, of a table that inherits), the nearest first. Toast tables are left out, since a long value counts there too.

OFFSET 0 has names looked up by the index: the planner expects thousands of rows where there are some dozens, and would rather read the
whole catalogue."""


class Rows(NamedTuple):
    """Numbers of rows."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def plus(self, other: "Rows") -> "Rows":
        """Return the sums."""
        return Rows(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: "Rows") -> "Rows":
        """Return the differences."""
        return Rows(*(a - b for a, b in zip(self, other, strict=True)))


@dataclass
class Tally:
    """Rows that the statements of one transaction said to have changed, and what the database had counted before the first.

    Of tables that hold nobody's data everything may change; where the database itself lets go of a reference to a row that is deleted
    (ON DELETE SET NULL or SET DEFAULT), rows may be updated.
    """

    plan: StorePlan
    _before: Mapping[int, Rows]
    _deleted: Counter[str] = field(default_factory=Counter)
    _updated: Counter[str] = field(default_factory=Counter)

    @classmethod
    async def begin(cls, conn: Connection, plan: StorePlan) -> Self:
        """Read what is counted already: the session's earlier transactions may be in it."""
        return cls(plan, {row["oid"]: _rows(row) for row in await conn.fetch(COUNTS)})

    def deleted(self, table: str, rows: int) -> None:
        """Note that a statement deleted so many rows of a table of the map."""
        self._deleted[self._full(table)] += rows

    def updated(self, table: str, rows: int) -> None:
        """Note that a statement updated so many rows of a table of the map."""
        self._updated[self._full(table)] += rows

    async def require_nothing_else(self, conn: Connection) -> None:
        """Raise OthersTouched where anything else changed than what the statements and the map name. The last thing before the commit.

        What waits for the commit (deferred constraints and triggers) is made to happen now, to be counted too.
        """
        await conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
        counted: dict[str, Rows] = defaultdict(Rows)
        families: dict[str, str] = {}
        has_parts: set[str] = set()
        for row in await conn.fetch(COUNTS):
            rows = _rows(row).minus(self._before.get(row["oid"], Rows()))
            if any(rows):
                *below, top = row["names"]
                families |= dict.fromkeys((*below, top), top)
                counted[top] = counted[top].plus(rows)
                if below:
                    has_parts.add(top)
        deleted, updated = (_by_family(said, families) for said in (self._deleted, self._updated))
        for table in sorted({*counted, *deleted, *updated}):
            rows = counted[table]
            # An update that moves a row to another partition counts as a deletion and an insertion.
            moved = min(rows.inserted, updated[table]) if table in has_parts else 0
            rest = rows.minus(Rows(moved, updated[table] - moved, deleted[table] + moved))
            if any(count < 0 for count in rest) and table not in self.plan.foreign:
                raise OthersTouched(self.plan.store, self._named(table), uncounted=True)
            if any(count > 0 for count in rest) and not self._is_owned(
                rest, {name for name, top in families.items() if top == table}
            ):
                raise OthersTouched(self.plan.store, self._named(table), *rest)

    def _is_owned(self, rest: Rows, names: Collection[str]) -> bool:
        if not self.plan.nobodys.isdisjoint(names):
            return True
        return not (rest.inserted or rest.deleted or self.plan.loosened.isdisjoint(names))

    def _full(self, table: str) -> str:
        """Give a table with its schema; the plan names those of other schemas with theirs."""
        return table if "." in table else f"{self.plan.schema}.{table}"

    def _named(self, table: str) -> str:
        return table.removeprefix(f"{self.plan.schema}.")


def _by_family(said: Mapping[str, int], families: Mapping[str, str]) -> Counter[str]:
    summed: Counter[str] = Counter()
    for name, rows in said.items():
        summed[families.get(name, name)] += rows
    return summed


def _rows(row: "asyncpg.Record") -> Rows:
    return Rows(row["inserted"], row["updated"], row["deleted"])
