"""From a store's map and its live schema to its plan."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from habeas.contracts.vocabulary import TableResult
from habeas.datamap.catalogue.schema import ForeignKey, LiveColumn, LiveSchema
from habeas.datamap.map.dataset import Action, Export, Portable
from habeas.datamap.map.model import Column, Kept, StoreMap, Table
from habeas.datamap.map.paths import Edge, ReferenceCycleError, SubjectPath, children_first
from habeas.datamap.planner.identity import identity_type
from habeas.datamap.planner.plan import AgeKind, ExportPlan, LayerPlan, PlanError, RootPlan, StorePlan, TablePlan
from habeas.datamap.planner.purge import purge_rules, references_to
from habeas.datamap.planner.sql import (
    CASELESS,
    ID_TYPES,
    Reach,
    any_of,
    conditions,
    ids,
    literal,
    quoted,
    spelled,
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


def erasure_order(store: StoreMap, live: LiveSchema) -> tuple[tuple[str, ...], ...]:
    """Every mapped table in layers, children first, by the references of the map and of the database; raises PlanError."""
    enforced = [
        Edge(key.table, column, key.to_table, to_column)
        for key in live.foreign_keys
        for column, to_column in zip(key.columns, key.to_columns, strict=True)
    ]
    try:
        return children_first(store.tables, [*store.edges, *enforced])
    except ReferenceCycleError as error:
        what = f"references go in a circle: {error}"
        write = "a table of that circle as `on_erasure: anonymise`, with the reference set to null"
        raise PlanError([store.tables[error.tables[0]].place.problem(what, write)]) from None


class _Compiler:
    """One pass over a store; collects problems and goes on, so that all of them are told."""

    def __init__(self, store: StoreMap, live: LiveSchema) -> None:
        self.store = store
        self.live = live
        self.problems: list[Problem] = []

    def plan(self) -> StorePlan:
        ordered = [[self.store.tables[name] for name in layer] for layer in erasure_order(self.store, self.live)]
        order = [table for layer in ordered for table in layer]
        planned = [tuple(self._table(table) for table in layer if table.path is not None) for layer in ordered]
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
            purges=tuple(purge_rules(self.store, self.live, order, self.problems)),
            nobodys=frozenset(
                self._full_name(table.name) for table in self.store.tables.values() if not table.personal
            ),
            loosened=frozenset(self._full_name(key.table) for key in self.live.foreign_keys if self._is_loosened(key)),
            foreign=frozenset(self._full_name(name) for name, table in self.live.tables.items() if table.kind == "f"),
            fingerprint=self.live.fingerprint,
        )

    def _is_loosened(self, key: ForeignKey) -> bool:
        """Whether the database itself lets go of a row that an erasure or a sweep deletes."""
        return key.to_table in self.store.tables and key.on_delete in {"set null", "set default"}

    def _full_name(self, table: str) -> str:
        """Give a table with its schema; those of other schemas are named with theirs already, see ForeignKey."""
        return table if "." in table else f"{self.store.schema}.{table}"

    def root(self) -> RootPlan:
        root = self.store.tables[self.store.root]
        reach = self._reach(root, SubjectPath(root.name, (), self.store.identity))
        contacts = self.store.contacts()
        columns = [words(quoted("t0", column) + "::text", "AS", quoted(part)) for part, column in contacts.items()]
        asked = conditions(reach.is_one_of)
        every = words("SELECT", account_id(reach), "FROM", reach.own)
        in_order = words("ORDER BY", reach.subject)
        exists = words(every, asked)
        return RootPlan(
            table=root.name,
            identity_type=reach.subject_type,
            contact=words("SELECT", ", ".join([account_id(reach), *columns]), "FROM", reach.own, asked),
            parts=tuple(contacts),
            exists=exists,
            # One lock order everywhere: no deadlocks between batches.
            lock=words(exists, in_order, "FOR UPDATE"),
            # Two statements and not one with OR, so that every page is a range of the identity's index.
            first_page=words(every, "WHERE", reach.subject, "IS NOT NULL", in_order, "LIMIT $1::int"),
            next_page=words(every, "WHERE", reach.subject, ">", one_id(reach.subject_type), in_order, "LIMIT $2::int"),
        )

    def _reach(self, table: Table, path: SubjectPath) -> Reach:
        holder = path.tables[-1]
        kind = self.live.type_of(holder, path.subject_column) or ""
        if kind not in ID_TYPES:
            what = (
                f"`{holder}.{path.subject_column}` has the type `{kind or 'unknown'}`, which can't hold an account id"
            )
            self.problems.append(table.place.problem(what, "a column of type text, uuid or integer"))
        return Reach.of(self.store.schema, path, kind)

    def _table(self, table: Table) -> TablePlan:
        assert table.path is not None, "only tables with a path are planned"  # noqa: S101 - the caller's filter, for mypy
        reach = self._reach(table, table.path)
        kept = table.erasure if isinstance(table.erasure, Kept) else None
        change = _erase(table, reach)
        mentions, unmentioned = self._mentions(table)
        newest = self._newest(table) if kept else None
        return TablePlan(
            table=table.name,
            category=table.category or next((c.category for c in table.columns if c.category), ""),
            result=_result(table),
            direct=reach.joins == (),
            locate=self._locate(table, reach, newest),
            erase=change.counted if change else None,
            erase_one=change.alone if change else None,
            verify=change.verify if change else None,
            gone=change.returning if change else None,
            mentions=mentions,
            unmentioned=unmentioned,
            ground=kept.ground if kept else None,
            until=kept.until if kept else None,
            newest=newest,
            stays_for=tuple(self._staying(table)) if kept else (),
            export=self._export(table, reach, (Portable.GIVEN, Portable.OBSERVED, Portable.NO)),
            portable=self._export(table, reach, (Portable.GIVEN, Portable.OBSERVED)),
        )

    def _staying(self, table: Table) -> Iterator[str]:
        """Tables that an erasure leaves referring to this one."""
        for name, column, _ in references_to(self.store, self.live, table):
            child = self.store.tables.get(name)
            if child is None or name == table.name or child.erasure is Action.DELETE:
                continue
            if column not in {each.name for each in child.blanked if each.constant is None}:
                yield name

    def _newest(self, table: Table) -> AgeKind | None:
        if table.age is None or table.age.table != table.name:
            return None
        kind = self.live.type_of(table.age.table, table.age.column)
        return AgeKind(kind) if kind in set(AgeKind) else None

    def _locate(self, table: Table, reach: Reach, newest: AgeKind | None) -> str:
        counted = [account_id(reach), "count(*) AS rows"]
        if newest is not None and table.age is not None:
            # A row without an age stays: then nobody knows a day on which all of them are gone.
            age = quoted("t0", table.age.column)
            counted.append(words(f"CASE WHEN count(*) = count({age}) THEN max({age}) END AS newest"))
        where = conditions(reach.on, reach.is_one_of)
        return words("SELECT", ", ".join(counted), "FROM", reach.tables, where, "GROUP BY", reach.subject)

    def _export(self, table: Table, reach: Reach, portable: Iterable[Portable]) -> ExportPlan | None:
        """None where the table has nothing that may be shown or named in this kind of export."""
        wanted = [column for column in table.columns if column.portable in set(portable)]
        shown = [column.name for column in wanted if column.export is Export.SHOWN]
        named = tuple(column.name for column in wanted if column.export is Export.NAMED_ONLY)
        if not shown and not named:
            return None
        live = [self.live.column(table.name, name) or LiveColumn(name, "text") for name in shown]
        values = [spelled(quoted("t0", column.name), column.base) for column in live]
        where = conditions(reach.on, reach.is_one_of)
        return ExportPlan(
            table=table.name,
            category=table.category or next((c.category for c in table.columns if c.category), ""),
            sql=words("SELECT", ", ".join([account_id(reach), *values]), "FROM", reach.tables, where),
            columns=tuple(shown),
            types=tuple(column.type for column in live),
            bases=tuple(column.base for column in live),
            named=named,
        )

    def _mentions(self, table: Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
        changed: list[str] = []
        left: list[str] = []
        for column in table.mentions:
            reach = self._reach(table, SubjectPath(table.name, (), column.name))
            changed.append(
                words(
                    "UPDATE", reach.own, "SET", assigned([column]), conditions(reach.is_one_of),
                )
            )  # fmt: skip
            left.append(words("SELECT count(*) AS rows FROM", reach.own, conditions(reach.is_one_of)))
        return tuple(changed), tuple(left)


def one_id(kind: str) -> str:
    """An account id as parameter `$1`, compared as the column's own type would; `character` alone means one character."""
    return "$1::text" if kind in {"text", "character varying", "character"} else f"$1::text::{kind}"


def account_id(reach: Reach) -> str:
    """The account id in a list of columns, always as text, in one spelling where the column takes several for the same."""
    text = f"{reach.subject}::text"
    return words(f"pg_catalog.lower({text})" if reach.subject_type == CASELESS else text, "AS account_id")


def assigned(columns: Iterable[Column]) -> str:
    """Assignments of an anonymisation."""
    return ", ".join(words(quoted(column.name), "=", literal(column.constant)) for column in columns)


def _still_there(columns: Iterable[Column]) -> Iterator[str]:
    """Conditions that hold for a row which is not anonymised yet; `IS NOT NULL` because some types have no equality."""
    for column in columns:
        name = quoted("t0", column.name)
        if column.constant is None:
            yield words(name, "IS NOT NULL")
        else:
            yield words(name, "IS DISTINCT FROM", literal(column.constant))


def _result(table: Table) -> TableResult | None:
    if isinstance(table.erasure, Kept):
        return TableResult.KEPT
    return {Action.DELETE: TableResult.ERASED, Action.ANONYMISE: TableResult.ANONYMISED}.get(table.erasure)


@dataclass(frozen=True)
class _Change:
    """A statement that erases, the same giving accounts or counting them, and the one that finds what it left."""

    alone: str
    returning: str
    counted: str
    verify: str

    @classmethod
    def of(cls, statement: str, giving: str, verify: str) -> Self:
        returning = words(statement, "RETURNING", giving)
        counting = words(
            "WITH gone AS (", returning, ")", "SELECT account_id, count(*) AS rows FROM gone GROUP BY account_id"
        )
        return cls(statement, returning, counting, verify)


def _erase(table: Table, reach: Reach) -> _Change | None:
    """None where rows simply stay."""
    if table.erasure is Action.DELETE:
        using = words("USING", ", ".join(reach.others)) if reach.others else ""
        delete = words("DELETE FROM", reach.own, using, conditions(reach.on, reach.is_one_of))
        return _Change.of(delete, account_id(reach), _count(reach, ()))
    if not table.blanked:
        return None
    still = any_of(list(_still_there(table.blanked)))
    # The account ids come as a table, because an UPDATE that blanks the id could not give the old one back.
    asked = words(f"unnest({ids('$1', reach.subject_type)})", "AS asked (account_id)")
    where = conditions(reach.on, words(reach.subject, "= asked.account_id"), still)
    update = words(
        "UPDATE", reach.own, "SET", assigned(table.blanked), "FROM", ", ".join([asked, *reach.others]), where
    )
    return _Change.of(update, "asked.account_id::text AS account_id", _count(reach, [still]))


def _located(tables: Iterable[TablePlan]) -> str:
    return " UNION ALL ".join(
        words("SELECT", literal(table.table), "AS name, account_id, rows FROM (", table.locate, ") AS l")
        for table in tables
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
        words("SELECT", literal(name), "AS name, rows FROM (", left, ") AS c")
        for name, left in _left(table for table in tables if table.direct)
    ]
    return " UNION ALL ".join(counts) or None


def _count(reach: Reach, also: Iterable[str]) -> str:
    return words("SELECT count(*) AS rows FROM", reach.tables, conditions(reach.on, reach.is_one_of, also))
