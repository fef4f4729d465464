"""From a store's map and its live schema to its plan."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from habeas.contracts.vocabulary import TableResult
from habeas.datamap.catalogue.schema import ForeignKey, LiveColumn, LiveSchema
from habeas.datamap.map.dataset import Action, Export, Portable, Role
from habeas.datamap.map.model import Column, Kept, Link, StoreMap, Table
from habeas.datamap.map.paths import SubjectPath
from habeas.datamap.planner.collect import Collecting, account_text, assignments, holding, reached
from habeas.datamap.planner.identity import identity_type
from habeas.datamap.planner.plan import (
    AgeKind,
    CollectPlan,
    ExportPlan,
    LayerPlan,
    PlanError,
    RootPlan,
    StorePlan,
    TablePlan,
)
from habeas.datamap.planner.purge import purge_rules
from habeas.datamap.planner.refresh import refreshes
from habeas.datamap.planner.shape import LOOSENS, Shape
from habeas.datamap.planner.sql import (
    ID_TYPES,
    Names,
    Reach,
    any_of,
    conditions,
    ids,
    literal,
    quoted,
    spelled,
    unwritten,
    without,
    words,
)
from habeas.datamap.source import Problem


def compile_store(store: StoreMap, live: LiveSchema) -> StorePlan:
    """Make the plan of one store; the same input gives the same statements.

    Types, keys and the foreign keys that the database enforces come from `live`, everything else from the map. Raises
    PlanError for a cycle of references, and for an identity or age of a type that cannot be compared.
    """
    compiler = _Compiler(store, live)
    plan = compiler.plan()
    if compiler.problems:
        raise PlanError(compiler.problems)
    return plan


def compile_root(store: StoreMap, live: LiveSchema) -> RootPlan:
    """Make only what concerns the root; raises PlanError for an identity of a type that cannot be compared."""
    compiler = _Compiler(store, live)
    plan = compiler.root()
    if compiler.problems:
        raise PlanError(compiler.problems)
    return plan


class _Compiler:
    """One pass over a store; collects problems and goes on, so that all of them are told."""

    def __init__(self, store: StoreMap, live: LiveSchema) -> None:
        self.store = store
        self.live = live
        self.problems: list[Problem] = []
        self.shape = Shape(store, live)
        self.names = Names(store.schema, frozenset(self._alone()))

    def _alone(self) -> Iterator[str]:
        """Tables from which tables of the map inherit: each of them then stands for its own rows."""
        for name in self.store.tables:
            live = self.live.tables.get(name)
            for above in live.inherits if live is not None else ():
                if above in self.store.tables:
                    yield above

    def plan(self) -> StorePlan:
        ordered = [[self.store.tables[name] for name in layer] for layer in self.shape.layers]
        collecting = Collecting(self.shape, self.names, self.problems)
        collected = {
            name: plan
            for name in sorted(self.shape.collected, key=self.shape.level, reverse=True)
            if (plan := self._collect(collecting, self.store.tables[name])) is not None
        }
        planned = [
            tuple(self._table(table) for table in layer if table.links or table.name in collected) for layer in ordered
        ]
        tables = tuple(table for layer in planned for table in layer)
        return StorePlan(
            store=self.store.name,
            schema=self.store.schema,
            identity_type=identity_type(self.store, self.live, self.problems),
            root=self.root() if self.store.has_root else None,
            located=_located(tables),
            read_again=_read_again(tables),
            layers=tuple(_layers([layer for layer in planned if layer])),
            tables=tables,
            collected=collected,
            purges=tuple(purge_rules(self.shape, self.names, self.problems)),
            ghosts=self.store.ghosts,
            nobodys=frozenset(
                self._full_name(table.name) for table in self.store.tables.values() if not table.personal
            ),
            loosened=frozenset(self._full_name(key.table) for key in self.live.foreign_keys if self._is_loosened(key)),
            foreign=frozenset(self._full_name(name) for name, table in self.live.tables.items() if table.kind == "f"),
            fingerprint=self.live.fingerprint,
            refreshes=tuple(refreshes(self.store, self.live)),
        )

    def _collect(self, collecting: Collecting, table: Table) -> CollectPlan | None:
        reaches = [
            (rank, link, self._reach(table, path)) for rank, link in enumerate(table.links) for path in link.paths
        ]
        kept = any(isinstance(link.erasure, Kept) for link in table.links)
        newest = quoted("t0", table.age.column) if kept and self._newest(table) and table.age else "NULL"
        return collecting.plan(table, reaches, newest)

    def _is_loosened(self, key: ForeignKey) -> bool:
        """Whether the database itself lets go of a row that an erasure or a sweep deletes, in a table that the map knows."""
        return {key.table, key.to_table} <= set(self.store.tables) and key.on_delete in {"set null", "set default"}

    def _full_name(self, table: str) -> str:
        """Give a table with its schema; those of other schemas are named with theirs already, see ForeignKey."""
        return table if "." in table else f"{self.store.schema}.{table}"

    def root(self) -> RootPlan:
        root = self.store.tables[self.store.root]
        reach = self._reach(root, SubjectPath(root.name, (), self.store.identity))
        contacts = self.store.contacts()
        columns = [words(quoted("t0", column) + "::text", "AS", quoted(part)) for part, column in contacts.items()]
        somebody = self._is_somebody(reach)
        asked = conditions(reach.is_one_of, somebody)
        every = words("SELECT", account_id(reach), "FROM", reach.own)
        in_order = words("ORDER BY", reach.subject)
        exists = words(every, asked)
        after = words(reach.subject, ">", one_id(reach.subject_type))
        return RootPlan(
            table=root.name,
            identity_type=reach.subject_type,
            contact=words("SELECT", ", ".join([account_id(reach), *columns]), "FROM", reach.own, asked),
            parts=tuple(contacts),
            exists=exists,
            # One lock order everywhere: no deadlocks between batches.
            lock=words(exists, in_order, "FOR UPDATE"),
            # Two statements and not one with OR, so that every page is a range of the identity's index.
            first_page=words(
                every, conditions(words(reach.subject, "IS NOT NULL"), somebody), in_order, "LIMIT $1::int"
            ),
            next_page=words(every, conditions(after, somebody), in_order, "LIMIT $2::int"),
        )

    def _is_somebody(self, reach: Reach) -> str:
        """Condition that keeps ghosts out: rows that stand for nobody, to which what is left of erased people refers."""
        ghosts = sorted(self.store.ghosts)
        if not ghosts:
            return ""
        listed = ", ".join(literal(each) for each in ghosts)
        return f"{reach.subject}::text <> ALL(ARRAY[{listed}]::text[])"

    def _reach(self, table: Table, path: SubjectPath) -> Reach:
        reach = self.shape.reach(self.names, path)
        holder, column = path.tables[-1], path.subject_column
        kind = self.live.type_of(holder, column) or "unknown"
        if path.within is not None and path.within.keys is not None and kind not in {"jsonb", "json"}:
            what = f"`{holder}.{column}` has the type `{kind}`, in which no `at` finds anything"
            self.problems.append(table.place.problem(what, "`at` for a column of type jsonb or json"))
        elif reach.subject_type not in ID_TYPES:
            what = f"`{holder}.{column}` has the type `{kind}`, which can't hold an account id"
            self.problems.append(table.place.problem(what, "a column of type text, uuid or integer"))
        return reach

    def _table(self, table: Table) -> TablePlan:
        reaches = [
            (rank, link, self._reach(table, path)) for rank, link in enumerate(table.links) for path in link.paths
        ]
        owning = [(rank, reach) for rank, link, reach in reaches if link.role is not Role.ACCESSOR]
        is_collected = table.name in self.shape.collected
        kept = next((link.erasure for link in table.links if isinstance(link.erasure, Kept)), None)
        changing = [
            (link, reach) for _, link, reach in reaches if link in table.owning and (link.deletes or link.blanked)
        ]
        change = self._erase(table, *changing[0]) if changing and not is_collected else None
        mentions, unmentioned = self._mentions(table)
        newest = self._newest(table) if kept else None
        return TablePlan(
            table=table.name,
            category=table.category or next((c.category for c in table.columns if c.category), ""),
            result=_result(changing[0][0].erasure if changing else table.erasure),
            is_collected=is_collected,
            locate=self._locate(table, owning or [(rank, reach) for rank, _, reach in reaches], newest)
            if reaches
            else "",
            erase=change.counted if change else None,
            erase_one=change.alone if change else None,
            verify=change.verify if change else None,
            gone=change.returning if change else None,
            again=tuple(self._again(reaches, change)),
            mentions=mentions,
            unmentioned=unmentioned,
            ground=kept.ground if kept else None,
            until=kept.until if kept else None,
            newest=newest,
            stays_for=tuple(self._staying(table)) if kept else (),
            export=self._export(table, reaches, (Portable.GIVEN, Portable.OBSERVED, Portable.NO)),
            portable=self._export(table, reaches, (Portable.GIVEN, Portable.OBSERVED)),
        )

    @staticmethod
    def _again(reaches: Sequence[tuple[int, Link, Reach]], change: "_Change | None") -> Iterator[str]:
        """Counts of what carries the account id itself and should not be there any more, also when the rest is gone."""
        if change is not None and change.is_direct:
            yield change.verify
        for _, link, reach in reaches if change is None else ():
            cleared = {column.name for column in link.blanked}
            is_gone = (link.deletes and link.role is Role.OWNER) or reach.path.subject_column in cleared
            if reach.path.direct and is_gone and not link.is_mention:
                yield _count(reach, ())

    def _staying(self, table: Table) -> Iterator[str]:
        """Tables that an erasure leaves referring to this one."""
        for reference in self.shape.references_to(table.name):
            child = self.store.tables.get(reference.table)
            if child is None or child is table or child.erasure is Action.DELETE:
                continue
            key = self.shape.enforced(reference)
            lets_go = (key is not None and key.on_delete in LOOSENS) or bool(reference.detached)
            cleared = {each.name for each in child.blanked if each.constant is None}
            if not lets_go and cleared.isdisjoint(reference.columns):
                yield child.name

    def _newest(self, table: Table) -> AgeKind | None:
        if table.age is None or table.age.table != table.name:
            return None
        kind = self.live.type_of(table.age.table, table.age.column)
        return AgeKind(kind) if kind in set(AgeKind) else None

    def _locate(self, table: Table, ways: Sequence[tuple[int, Reach]], newest: AgeKind | None) -> str:
        counted = ["count(*) AS rows"]
        if newest is not None and table.age is not None:
            # A row without an age stays: then nobody knows a day on which all of them are gone.
            age = quoted("t0", table.age.column)
            counted.append(words(f"CASE WHEN count(*) = count({age}) THEN max({age}) END AS newest"))
        if len(ways) == 1 and _is_single(ways[0][1]):
            reach = ways[0][1]
            where = conditions(reach.on, reach.is_one_of)
            listed = ", ".join([account_id(reach), *counted])
            return words("SELECT", listed, "FROM", reach.tables, where, "GROUP BY", reach.subject)
        return words(
            "SELECT", ", ".join(["r.id AS account_id", *counted]), "FROM", self._whole(table, ways), "GROUP BY r.id"
        )

    def _whole(self, table: Table, ways: Sequence[tuple[int, Reach]]) -> str:
        """Rows of a table as t0, each once for every account to which it leads, with the numbers of the ways as `r.ranks`."""
        found = reached(ways, ("tableoid", "ctid"))
        own = words(self.names.of(table.name), "AS t0")
        return words("(", found, ") AS r JOIN", own, "ON t0.ctid = r.k1 AND t0.tableoid = r.k0")

    def _export(
        self, table: Table, reaches: Sequence[tuple[int, Link, Reach]], portable: Iterable[Portable]
    ) -> ExportPlan | None:
        """None where the table has nothing that may be shown or named in this kind of export."""
        wanted = [column for column in table.columns if column.portable in set(portable)]
        shown = [column.name for column in wanted if column.export is Export.SHOWN]
        named = tuple(column.name for column in wanted if column.export is Export.NAMED_ONLY)
        ways = [(rank, link, reach) for rank, link, reach in reaches if link.is_shown and not link.is_reviewed]
        if (not shown and not named) or not ways:
            return None
        live = [self.live.column(table.name, name) or LiveColumn(name, "text") for name in shown]
        values = [spelled(quoted("t0", column.name), column.base) for column in live]
        redacted = {
            name: sorted({rank for rank, link, _ in ways if name in link.redacted})
            for name in dict.fromkeys(name for _, link, _ in ways for name in link.redacted)
        }
        single = ways[0][2]
        if len(ways) == 1 and _is_single(single) and not redacted:
            where = conditions(single.on, single.is_one_of)
            sql = words("SELECT", ", ".join([account_id(single), *values]), "FROM", single.tables, where)
        else:
            for at, name in enumerate(shown):
                if name in redacted:
                    hidden = ", ".join(str(rank) for rank in redacted[name])
                    values[at] = f"CASE WHEN NOT r.ranks <@ ARRAY[{hidden}] THEN {values[at]} END"
            listed = ", ".join(["r.id AS account_id", *values])
            whole = self._whole(table, [(rank, reach) for rank, _, reach in ways])
            sql = words("SELECT", listed, "FROM", whole, "ORDER BY r.id")
        return ExportPlan(
            table=table.name,
            category=table.category or next((c.category for c in table.columns if c.category), ""),
            sql=sql,
            columns=tuple(shown),
            types=tuple(column.type for column in live),
            bases=tuple(column.base for column in live),
            named=named,
        )

    def _mentions(self, table: Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
        changed: list[str] = []
        left: list[str] = []
        for link in table.links:
            if not link.is_mention or (not link.blanked and link.paths[0].within is None):
                continue
            for path in link.paths:
                reach = self._reach(table, path)
                if path.within is not None:
                    statement, still = self._emptied(table, link, reach)
                else:
                    still = self._still(link.blanked, reach)
                    others = words("FROM", ", ".join(reach.others)) if reach.others else ""
                    statement = words(
                        "UPDATE", reach.own, "SET", assignments(table, link.blanked, self.shape), others,
                        conditions(reach.on, reach.is_one_of, still),
                    )  # fmt: skip
                changed.append(statement)
                left.append(_count(reach, still))
        return tuple(changed), tuple(left)

    @staticmethod
    def _still(columns: Sequence[Column], reach: Reach) -> list[str]:
        """Condition for rows that are not anonymised yet; none where the id itself goes, which tells already."""
        if reach.path.direct and reach.path.subject_column in {column.name for column in columns}:
            return []
        return [any_of([unwritten(quoted("t0", column.name), column.constant) for column in columns])]

    def _emptied(self, table: Table, link: Link, reach: Reach) -> tuple[str, list[str]]:
        """A statement that takes ids out of arrays or JSON, and what else is said about those rows."""
        within, column = reach.path.within, reach.path.subject_column
        assert within is not None, "only for a subject within a column"  # noqa: S101 - for mypy
        also = assignments(table, link.blanked, self.shape)
        value = without(reach.own_value, within, ids("$1", reach.subject_type))
        value = f"({value})::json" if reach.is_json else value
        is_blanked = column in {each.name for each in link.blanked}
        assigned = ", ".join(filter(None, ["" if is_blanked else words(quoted(column), "=", value), also]))
        return words(
            "UPDATE", reach.own, "SET", assigned, conditions(holding(reach.path.where), reach.leads_to_any_of("$1"))
        ), []

    def _erase(self, table: Table, link: Link, reach: Reach) -> "_Change":
        if link.deletes:
            using = words("USING", ", ".join(reach.others)) if reach.others else ""
            delete = words("DELETE FROM", reach.own, using, conditions(reach.on, reach.is_one_of))
            return _Change.of(delete, account_id(reach), _count(reach, ()), is_direct=reach.path.direct)
        still = any_of([unwritten(quoted("t0", column.name), column.constant) for column in link.blanked])
        # The account ids come as a table, because an UPDATE that blanks the id could not give the old one back.
        asked = words(f"unnest({ids('$1', reach.subject_type)})", "AS asked (account_id)")
        where = conditions(reach.on, words(reach.subject, "= asked.account_id"), still)
        update = words(
            "UPDATE", reach.own, "SET", assignments(table, link.blanked, self.shape),
            "FROM", ", ".join([asked, *reach.others]), where,
        )  # fmt: skip
        return _Change.of(
            update, "asked.account_id::text AS account_id", _count(reach, [still]), is_direct=reach.path.direct
        )


def one_id(kind: str) -> str:
    """An account id as parameter `$1`, compared as the column's own type would; `character` alone means one character."""
    return "$1::text" if kind in {"text", "character varying", "character"} else f"$1::text::{kind}"


def account_id(reach: Reach) -> str:
    """The account id in a list of columns, always as text, in one spelling where the column takes several for the same."""
    return words(account_text(reach), "AS account_id")


def _is_single(reach: Reach) -> bool:
    """Whether each row leads to one account at most."""
    return not reach.path.has_down and reach.path.within is None


def _result(erasure: Action | Kept) -> TableResult | None:
    if isinstance(erasure, Kept):
        return TableResult.KEPT
    return {Action.DELETE: TableResult.ERASED, Action.ANONYMISE: TableResult.ANONYMISED}.get(erasure)


@dataclass(frozen=True)
class _Change:
    """A statement that erases, the same giving accounts or counting them, and the one that finds what it left."""

    alone: str
    returning: str
    counted: str
    verify: str
    is_direct: bool

    @classmethod
    def of(cls, statement: str, giving: str, verify: str, *, is_direct: bool) -> Self:
        returning = words(statement, "RETURNING", giving)
        counting = words(
            "WITH gone AS (", returning, ")", "SELECT account_id, count(*) AS rows FROM gone GROUP BY account_id"
        )
        return cls(statement, returning, counting, verify, is_direct)


def _located(tables: Iterable[TablePlan]) -> str:
    return " UNION ALL ".join(
        words("SELECT", literal(table.table), "AS name, account_id, rows FROM (", table.locate, ") AS l")
        for table in tables
        if table.locate
    )


def _layers(layers: Sequence[Sequence[TablePlan]]) -> Iterator[LayerPlan]:
    """Each layer with the count of what is left in the one before; at the end that of the last one."""
    before: Sequence[TablePlan] = ()
    for layer in (*layers, ()):
        erasing = [(f"gone{at}", table) for at, table in enumerate(layer) if table.gone is not None]
        steps = ", ".join(words(step, "AS (", table.gone or "", ")") for step, table in erasing)
        counts = [
            words(
                "SELECT",
                literal(table.table),
                "AS name, account_id, count(*) AS rows FROM",
                step,
                "GROUP BY account_id",
            )
            for step, table in erasing
        ]
        counts += [
            words("SELECT", literal(name), "AS name, NULL::text AS account_id, rows FROM (", left, ") AS l")
            for name, left in _left(before)
        ]
        yield LayerPlan(tuple(layer), words("WITH" if steps else "", steps, " UNION ALL ".join(counts)))
        before = layer


def _left(tables: Iterable[TablePlan]) -> Iterator[tuple[str, str]]:
    """Statements that count what should not be there any more, each with its table's name."""
    for table in tables:
        for left in (table.verify, *table.unmentioned):
            if left is not None:
                yield table.table, left


def _read_again(tables: Iterable[TablePlan]) -> str | None:
    counts = [
        words("SELECT", literal(table.table), "AS name, rows FROM (", left, ") AS c")
        for table in tables
        for left in (*table.again, *table.unmentioned)
    ]
    return " UNION ALL ".join(counts) or None


def _count(reach: Reach, also: Iterable[str]) -> str:
    return words("SELECT count(*) AS rows FROM", reach.tables, conditions(reach.on, reach.is_one_of, also))
