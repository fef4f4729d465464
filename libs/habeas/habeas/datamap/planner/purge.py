"""Statements of the retention sweep: rows that go because of their age, never early, never leaving orphans."""

from collections.abc import Iterator, Sequence
from typing import Final

from habeas.datamap.catalogue.schema import LiveSchema
from habeas.datamap.map.dataset import Action
from habeas.datamap.map.model import Age, StoreMap, Table
from habeas.datamap.map.paths import Join
from habeas.datamap.planner.plan import AgeKind, PartitionPlan, PurgeRule
from habeas.datamap.planner.sql import Reach, alias, conditions, holds, ids, quoted, words
from habeas.datamap.source import Problem

BUCKETS: Final = 65_536
"""Into so many the rows of a table are divided, by a hash of their keys, to find one that does not go."""


def purge_rules(
    store: StoreMap, live: LiveSchema, order: Sequence[Table], problems: list[Problem]
) -> Iterator[PurgeRule]:
    """Rules of one store, children first.

    A table with an age has a rule of its own. When the account itself is past its retention, everything that would be
    deleted with the person goes with it (a second rule on the account's age); what a ground keeps stays.
    """
    root = store.tables.get(store.root)
    for table in order:
        if table.age is not None and table.retention is not None:
            yield from _rule(store, live, table, (table.age, table.retention), problems)
        if root is None:
            continue
        goes_with_root = table.erasure is Action.DELETE and table.path is not None and table is not root
        if goes_with_root and root.age is not None and root.retention is not None and table.retention != root.retention:
            yield from _rule(store, live, table, (root.age, root.retention), problems)


def references_to(store: StoreMap, live: LiveSchema, table: Table) -> list[tuple[str, str, str]]:
    """References (table, its column, column referred to) that a deletion would leave dangling or be stopped by."""
    stated = {(e.table, e.column, e.to_column) for e in store.edges if e.to_table == table.name}
    loosened: set[tuple[str, str, str]] = set()
    for key in live.foreign_keys:
        if key.to_table != table.name:
            continue
        pairs = {(key.table, own, theirs) for own, theirs in zip(key.columns, key.to_columns, strict=True)}
        if key.on_delete in {"set null", "set default"}:
            loosened |= pairs
        elif len(pairs) == 1:
            stated |= pairs
    return sorted(stated - loosened)


def _rule(
    store: StoreMap, live: LiveSchema, table: Table, by: tuple[Age, str], problems: list[Problem]
) -> Iterator[PurgeRule]:
    age, retention = by
    kind = live.type_of(age.table, age.column)
    if kind not in set(AgeKind):
        what = f"`{age.table}.{age.column}` has the type `{kind or 'unknown'}`, from which no retention can run"
        problems.append(table.place.problem(what, "a column with a date or a timestamp", "habeas", "age"))
        return
    aged = _Aged(store, live, table, age, AgeKind(kind))
    yield PurgeRule(
        store=store.name,
        table=table.name,
        category=table.category or next((c.category for c in table.columns if c.category), ""),
        retention=retention,
        age=age.column if age.table == table.name else f"{age.table}.{age.column}",
        kind=AgeKind(kind),
        delete=aged.delete(),
        delete_some=aged.delete(some=True),
        oldest=aged.oldest(),
        partitions=aged.partitions(),
    )


class _Aged:
    """Statements for the rows of one table by one age."""

    def __init__(self, store: StoreMap, live: LiveSchema, table: Table, age: Age, kind: AgeKind) -> None:
        self.store = store
        self.live = live
        self.table = table
        self.own = age.table == table.name
        lineage = table.path.lineage(store.root, store.identity) if table.path else ()
        self.joins = () if self.own else _up_to(lineage, age.table)
        self.age = quoted(alias(len(self.joins)), age.column)
        self.cutoff = f"$1::{kind}"
        self.column = age.column
        self.where = table.path.where if table.path is not None and not self.own else ()
        self.key = live.tables[table.name].key if table.name in live.tables else ()

    def delete(self, *, some: bool = False) -> str:
        """Delete by primary key, which every role that may sweep can read; by ctid only where a table has none.

        The age is compared again by the DELETE itself: a row that was touched in between is judged by what it is then. With ``some``
        only rows go whose key falls into one of the buckets in `$4`.
        """
        reach = Reach(self.store.schema, self.table.name, self.joins, self.column, "", self.where)
        key = [quoted(name) for name in self.key] or ["ctid"]
        picked = ", ".join(f"t0.{name}" for name in key)
        bucket = f"(pg_catalog.hashtext(ROW({picked})::text) & {BUCKETS - 1}) = ANY($4::integer[])" if some else ""
        old = words(
            "SELECT", picked, "FROM", reach.tables,
            conditions(reach.on, f"{self.age} < {self.cutoff}", self._not_held(), self._unreferenced(), bucket), "LIMIT $2::bigint",
        )  # fmt: skip
        # IS TRUE, so that no index serves it: all old rows would be read again for each batch, beside those that were picked.
        again = f"(d.{quoted(self.column)} < {self.cutoff}) IS TRUE" if self.own else ""
        same = [f"d.{name} = old.{name}" for name in key]
        return words(
            "WITH old AS MATERIALIZED (", old, "), gone AS (", "DELETE FROM", quoted(self.store.schema, self.table.name), "AS d",
            "USING old", conditions(same, again), "RETURNING 1 )", "SELECT count(*) FROM gone",
        )  # fmt: skip

    def oldest(self) -> str:
        """The least age among rows that are left, of whatever reason."""
        reach = Reach(self.store.schema, self.table.name, self.joins, self.column, "", self.where)
        return words("SELECT", f"min({self.age})", "FROM", reach.tables, conditions(reach.on))

    def partitions(self) -> PartitionPlan | None:
        """Only where the live table is partitioned by exactly this age, and no row refers to the table."""
        found = self.live.tables.get(self.table.name)
        if not self.own or not self.table.partitioned or found is None or found.partitioned_by != (self.column,):
            return None
        if references_to(self.store, self.live, self.table):
            return None
        name = words(
            "SELECT n.nspname AS schema, c.relname AS name, pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS bound",
            "FROM pg_catalog.pg_inherits AS i",
            "JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid",
            "JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace",
            "JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent",
            "JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace",
            "WHERE pn.nspname = $1 AND p.relname = $2 AND NOT i.inhdetachpending",
        )
        return PartitionPlan(self.store.schema, self.table.name, name, quoted(self.column), self._held())

    def _held(self) -> str | None:
        path = self.table.path
        if path is None:
            return None
        reach = Reach.of(self.store.schema, path, self._subject_type())
        age = quoted("t0", self.column)
        inside = [f"{age} >= {self.cutoff}", f"{age} < {self.cutoff.replace('$1', '$2')}"]
        rows = words("SELECT FROM", reach.tables, conditions(reach.on, inside, reach.is_any_of("$3")))
        return words("SELECT EXISTS (", rows, ")")

    def _subject_type(self) -> str:
        path = self.table.path
        return (self.live.type_of(path.tables[-1], path.subject_column) or "") if path else ""

    def _not_held(self) -> str:
        """Rows of nobody, and rows of everybody but the accounts in `$3`.

        A subquery, so that a row whose parents are gone counts as nobody's instead of vanishing from the join.
        """
        path = self.table.path
        if path is None:
            return "$3::text[] IS NOT NULL"
        names = ["t0", *(f"h{index}" for index in range(1, len(path.joins) + 1))]
        held = f"{names[-1]}.{quoted(path.subject_column)} = ANY({ids('$3', self._subject_type())})"
        tables = zip(names, (path.where, *(join.where for join in path.joins)), strict=True)
        theirs = [held, *(each for name, where in tables for each in holds(name, where))]
        if not path.joins:
            return f"({' AND '.join(theirs)}) IS NOT TRUE"
        others = ", ".join(
            words(quoted(self.store.schema, join.table), "AS", name)
            for join, name in zip(path.joins, names[1:], strict=True)
        )
        steps = [
            f"{names[at]}.{quoted(join.column)} = {names[at + 1]}.{quoted(join.to_column)}"
            for at, join in enumerate(path.joins)
        ]
        return words("NOT EXISTS ( SELECT FROM", others, conditions(steps, theirs), ")")

    def _unreferenced(self) -> list[str]:
        """No row refers to this one; where rows of a table refer to each other, the last of the chain goes first."""
        parts: list[str] = []
        for child, column, own in references_to(self.store, self.live, self.table):
            mine = quoted(own)
            other = f"c.{mine} IS DISTINCT FROM t0.{mine}" if child == self.table.name else ""
            where = conditions(f"c.{quoted(column)} = t0.{mine}", other)
            name = quoted(*_schema_and_table(self.store.schema, child))
            parts.append(words("NOT EXISTS ( SELECT FROM", name, "AS c", where, ")"))
        return parts


def _schema_and_table(schema: str, name: str) -> tuple[str, ...]:
    """Tables of other schemas are named with theirs, see ForeignKey."""
    return tuple(name.split(".", 1)) if "." in name else (schema, name)


def _up_to(lineage: tuple[Join, ...], wanted: str) -> tuple[Join, ...]:
    names = [join.table for join in lineage]
    return lineage[: names.index(wanted) + 1]
