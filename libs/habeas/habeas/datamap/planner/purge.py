"""Statements of the retention sweep: rows that go because of their age, never early, never leaving orphans."""

from collections.abc import Iterator
from typing import Final

from habeas.datamap.map.dataset import Action
from habeas.datamap.map.model import Age, Table
from habeas.datamap.map.paths import Join, Reference, SubjectPath
from habeas.datamap.planner.plan import AgeKind, PartitionPlan, PurgeRule
from habeas.datamap.planner.shape import LOOSENS, Shape
from habeas.datamap.planner.sql import Names, Reach, conditions, equal, literal, quoted, words
from habeas.datamap.source import Problem

BUCKETS: Final = 65_536
"""Into so many the rows of a table are divided, by a hash of their keys, to find one that does not go."""


def purge_rules(shape: Shape, names: Names, problems: list[Problem]) -> Iterator[PurgeRule]:
    """Rules of one store, children first.

    A table with an age has a rule of its own. When the account itself is past its retention, everything that would be
    deleted with the person goes with it (a second rule on the account's age); what a ground keeps stays.
    """
    root = shape.store.tables.get(shape.store.root)
    for table in (shape.store.tables[name] for name in shape.by_age):
        if table.age is not None and table.retention is not None:
            yield from _rule(shape, names, table, (table.age, table.retention), problems)
        if root is None:
            continue
        # Rows that several people own, or that others still need, stay until an erasure has judged about them.
        is_alone = table.erasure is Action.DELETE and table.name not in shape.shared and table.path is not None
        if is_alone and table is not root and root.age is not None and root.retention not in {None, table.retention}:
            yield from _rule(shape, names, table, (root.age, root.retention or ""), problems)


def references_to(shape: Shape, table: Table) -> list[Reference]:
    """References to a table that a deletion would leave dangling or be stopped by."""
    found: list[Reference] = []
    for reference in shape.references_to(table.name):
        key = shape.enforced(reference)
        if key is None or key.on_delete not in LOOSENS:
            found.append(reference)
    return sorted(found, key=lambda each: (each.table, each.on))


def _rule(
    shape: Shape, names: Names, table: Table, by: tuple[Age, str], problems: list[Problem]
) -> Iterator[PurgeRule]:
    age, retention = by
    kind = shape.live.type_of(age.table, age.column)
    if kind not in set(AgeKind):
        what = f"`{age.table}.{age.column}` has the type `{kind or 'unknown'}`, from which no retention can run"
        problems.append(table.place.problem(what, "a column with a date or a timestamp", "habeas", "age"))
        return
    aged = _Aged(shape, names, table, age, AgeKind(kind))
    yield PurgeRule(
        store=shape.store.name,
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

    def __init__(self, shape: Shape, names: Names, table: Table, age: Age, kind: AgeKind) -> None:
        self.shape = shape
        self.store = shape.store
        self.names = names
        self.table = table
        self.own = age.table == table.name
        self.age_table = age.table
        path = table.path
        lineage = path.lineage(self.store.root, self.store.identity) if path is not None else ()
        joins = () if self.own else _up_to(lineage, age.table)
        self.reach = Reach(
            names, SubjectPath(table.name, joins, age.column, path.where if path and not self.own else ()), ""
        )
        self.cutoff = f"$1::{kind}"
        self.column = age.column
        live = shape.live.tables.get(table.name)
        self.key = live.key if live is not None else ()

    def delete(self, *, some: bool = False) -> str:
        """Delete by primary key, which every role that may sweep can read; by ctid only where a table has none.

        The age is compared again by the DELETE itself: a row that was touched in between is judged by what it is then. With ``some``
        only rows go whose key falls into one of the buckets in `$4`.
        """
        reach = self.reach
        key = [quoted(name) for name in self.key] or ["ctid"]
        picked = ", ".join(f"t0.{name}" for name in key)
        bucket = f"(pg_catalog.hashtext(ROW({picked})::text) & {BUCKETS - 1}) = ANY($4::integer[])" if some else ""
        old = words(
            "SELECT", picked, "FROM", reach.tables,
            conditions(reach.on, f"{reach.subject} < {self.cutoff}", self._not_held(), self._unreferenced(), bucket), "LIMIT $2::bigint",
        )  # fmt: skip
        # IS TRUE, so that no index serves it: all old rows would be read again for each batch, beside those that were picked.
        again = f"(d.{quoted(self.column)} < {self.cutoff}) IS TRUE" if self.own else ""
        same = [f"d.{name} = old.{name}" for name in key]
        return words(
            "WITH old AS MATERIALIZED (", old, "), gone AS (", "DELETE FROM", self.names.of(self.table.name), "AS d",
            "USING old", conditions(same, again), "RETURNING 1 )", "SELECT count(*) FROM gone",
        )  # fmt: skip

    def oldest(self) -> str:
        """The least age among rows that are left, of whatever reason."""
        return words("SELECT", f"min({self.reach.subject})", "FROM", self.reach.tables, conditions(self.reach.on))

    def partitions(self) -> PartitionPlan | None:
        """Only where the live table is partitioned by exactly this age, and no row refers to the table."""
        found = self.shape.live.tables.get(self.table.name)
        if not self.own or not self.table.partitioned or found is None or found.partitioned_by != (self.column,):
            return None
        if references_to(self.shape, self.table) or len(self.ways) > 1:
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
        return PartitionPlan(*self.names.parts(self.table.name), name, quoted(self.column), self._held())

    @property
    def ways(self) -> list[Reach]:
        """Every way from the table to a person."""
        return [self.shape.reach(self.names, path, "h") for link in self.table.links for path in link.paths]

    def _held(self) -> str | None:
        if not self.ways:
            return None
        (reach,) = self.ways
        age = quoted("t0", self.column)
        inside = [f"{age} >= {self.cutoff}", f"{age} < {self.cutoff.replace('$1', '$2')}"]
        rows = words("SELECT FROM", reach.tables, conditions(reach.on, inside, reach.is_any_of("$3")))
        return words("SELECT EXISTS (", rows, ")")

    def _not_held(self) -> list[str]:
        """Rows of nobody, and rows of everybody but the accounts in `$3`.

        Not joined, so that a row whose parents are gone counts as nobody's instead of vanishing.
        """
        held = [words("NOT", way.leads_to_any_of("$3")) for way in self.ways] or ["$3::text[] IS NOT NULL"]
        if self.age_table != self.store.root or not self.store.ghosts:
            return held
        # A ghost is no account that was closed: it stays, and what refers to it with it.
        ghosts = "ARRAY[" + ", ".join(literal(each) for each in sorted(self.store.ghosts)) + "]"
        return [*held, *(words("NOT", way.leads_to_any_of(ghosts)) for way in self.ways)]

    def _unreferenced(self) -> list[str]:
        """No row refers to this one; where rows of a table refer to each other, the last of the chain goes first."""
        parts: list[str] = []
        for reference in references_to(self.shape, self.table):
            pairs = [(quoted("c", own), quoted("t0", theirs)) for own, theirs in reference.on]
            same = [equal(own, theirs, is_caseless=reference.is_caseless) for own, theirs in pairs]
            other = ""
            if reference.table == self.table.name:
                mine = [(quoted("c", theirs), quoted("t0", theirs)) for _, theirs in reference.on]
                other = "(" + " OR ".join(words(one, "IS DISTINCT FROM", two) for one, two in mine) + ")"
            name = quoted(*self.names.parts(reference.table))
            parts.append(words("NOT EXISTS ( SELECT FROM", name, "AS c", conditions(same, other), ")"))
        return parts


def _up_to(lineage: tuple[Join, ...], wanted: str) -> tuple[Join, ...]:
    names = [join.table for join in lineage]
    return lineage[: names.index(wanted) + 1]
