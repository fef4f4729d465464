"""The live schema of a store, as its catalogue tells it in one query, and its comparison with the data map."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

_Named = tuple[str, str]
_Columns = defaultdict[_Named, list[tuple[str, ...]]]

ON_DELETE: Final = {"a": "no action", "r": "restrict", "c": "cascade", "n": "set null", "d": "set default"}
EVENTS: Final = {4: "insert", 8: "delete", 16: "update", 32: "truncate"}
"""Bits of `pg_trigger.tgtype`; 1 is a trigger for each row, 2 one before the change, 64 one instead of it."""


@dataclass(frozen=True)
class LiveColumn:
    """One column; `type` is PostgreSQL's name of it without length (`text`, `timestamp with time zone`).

    `base` is the type below its domains, the same where there are none; arrays of any enumeration are `anyenum[]`. `length` is that of
    `character varying(n)` and `character(n)`, `checks` are the CHECK constraints of the table that name the column, `enum` the labels
    of an enumeration, `element` the type of an array's elements.
    """

    name: str
    type: str
    not_null: bool = False
    base: str = ""
    length: int | None = None
    generated: bool = False
    identity_always: bool = False
    has_default: bool = False
    checks: tuple[str, ...] = ()
    enum: tuple[str, ...] = ()
    element: str = ""

    def __post_init__(self) -> None:
        """Take the type itself for a base that was not given."""
        object.__setattr__(self, "base", self.base or self.type)

    @property
    def is_large_object(self) -> bool:
        """Whether the value may be the number of a large object, which stays when the row goes: `oid`, or the type `lo`."""
        return self.base == "oid" or self.type.rpartition(".")[2] == "lo"


@dataclass(frozen=True)
class ForeignKey:
    """A reference that the database enforces; tables of other schemas are named `schema.table`.

    One that is declared on partitions alone has the name of the first in `enforced_on`; one that leads to a partition alone has that in
    `to_partition`. `set_columns` are the columns that ON DELETE SET NULL or SET DEFAULT is limited to.
    """

    table: str
    columns: tuple[str, ...]
    to_table: str
    to_columns: tuple[str, ...]
    on_delete: str = "no action"
    name: str = ""
    on_update: str = "no action"
    set_columns: tuple[str, ...] = ()
    deferrable: bool = False
    deferred: bool = False
    enforced_on: str = ""
    to_partition: str = ""


@dataclass(frozen=True)
class LiveTrigger:
    """A trigger that somebody made, on a table or on any of its partitions.

    `function` is `schema.name`, `source` its text in `language`; `columns` are those of UPDATE OF, `arguments` what it gives the function.
    Not `enabled` is one that no ordinary session fires; `search_path` is what the function sets for itself.
    """

    name: str
    events: tuple[str, ...]
    timing: str
    for_each_row: bool
    function: str
    enabled: bool = True
    deferrable: bool = False
    columns: tuple[str, ...] = ()
    language: str = ""
    source: str = field(default="", repr=False)
    arguments: tuple[str, ...] = ()
    search_path: str | None = None


@dataclass(frozen=True)
class LiveTable:
    """A table, partitioned or foreign table, or materialised view (all of them can hold a person's data), or a view.

    `keys` are the columns of each unique index that holds for every row. `uniques` are those of each unique index, whatever it
    leaves out, with the columns of its expressions and of its predicate. `unique_expressions` are columns with a unique index on
    `lower(column)` alone that holds for every row. `inherits` names the parents of a table that is no partition, `reads` the tables that a
    view is made of, through other views too. `rules` tells of rewrite rules other than a view's own, by `rule_names`. `row_security` is
    true only where it holds for the connected role.
    """

    name: str
    columns: Mapping[str, LiveColumn]
    kind: str = "r"
    key: tuple[str, ...] = ()
    uniques: tuple[tuple[str, ...], ...] = ()
    partitioned_by: tuple[str, ...] = ()
    keys: tuple[tuple[str, ...], ...] = ()
    schema: str = ""
    relation: str = ""
    inherits: tuple[str, ...] = ()
    leaves: int = 0
    triggers: tuple[LiveTrigger, ...] = ()
    rules: bool = False
    row_security: bool = False
    unique_expressions: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    publications: tuple[str, ...] = ()
    rule_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Take the name itself for the bare one that was not given."""
        object.__setattr__(self, "relation", self.relation or self.name)

    def is_unique(self, columns: Collection[str]) -> bool:
        """Whether two rows cannot have the same values in these columns."""
        return any(set(key) <= set(columns) for key in (*self.keys, self.key) if key)

    def is_unique_caseless(self, columns: Collection[str]) -> bool:
        """Whether two rows cannot have the same values in these columns even when small and capital letters count as the same."""
        if not set(columns).isdisjoint(self.unique_expressions):
            return True
        blind = {name for name in columns if name in self.columns and self.columns[name].base not in CASED}
        return self.is_unique(blind)


CASED: Final = frozenset({"text", "character varying", "character", "name", '"char"'})
"""Types that tell small from capital letters."""


@dataclass(frozen=True)
class LiveSchema:
    """Every schema of a database but the system's; partitions are part of their table.

    `tables` and `views` of the main schema are named as they are, those of others `schema.table`. `slots` are the logical replication
    slots of the database.
    """

    tables: Mapping[str, LiveTable]
    foreign_keys: tuple[ForeignKey, ...] = ()
    fingerprint: str = field(default="", compare=False)
    views: Mapping[str, LiveTable] = field(default_factory=dict)
    slots: tuple[str, ...] = ()

    def type_of(self, table: str, column: str) -> str | None:
        """Type of a column, None where there is none."""
        known = self.column(table, column)
        return known.type if known else None

    def column(self, table: str, column: str) -> LiveColumn | None:
        """Return a column, None where there is none."""
        found = self.tables.get(table)
        return found.columns.get(column) if found else None

    def only(self, *schemas: str) -> Self:
        """Return the same of these schemas' tables alone; those made by hand, without a schema, count as of them."""
        tables = {name: table for name, table in self.tables.items() if table.schema in {"", *schemas}}
        return replace(self, tables=tables)

    @classmethod
    def parse(cls, schema: str, told: str, fingerprint: str = "") -> Self:
        """Read what CATALOGUE tells, seen from the main schema ``schema``."""
        document = json.loads(told)
        reading = _Reading(schema, document)
        tables = [reading.table(told) for told in document["tables"] or ()]
        return cls(
            {table.name: table for table in tables if table.kind != "v"},
            tuple(_once(reading.foreign_key(told) for told in document["foreign_keys"] or ())),
            fingerprint,
            {table.name: table for table in tables if table.kind == "v"},
            tuple(document["slots"] or ()),
        )


class _Reading:
    """What CATALOGUE tells beside the tables, by the table that it belongs to."""

    def __init__(self, schema: str, document: Mapping[str, Any]) -> None:
        self.schema = schema
        self.primary, self.keys, self.uniques = _uniques(document["uniques"] or ())
        self.ranges = {
            (of, name): tuple(columns)
            for of, name, strategy, columns in document["partitions"] or ()
            if strategy == "r" and columns
        }
        self.caseless = _gathered((of, name, column) for of, name, column in document["caseless"] or ())
        self.publications = _gathered(document["publications"] or ())
        self.reads = _gathered((of, name, self.named(read)) for of, name, *read in document["reads"] or ())
        self.triggers = _gathered((of, name, _trigger(told)) for of, name, *told in document["triggers"] or ())

    def named(self, of: Iterable[str]) -> str:
        schema, table = of
        return table if schema == self.schema else f"{schema}.{table}"

    def table(self, told: Sequence[Any]) -> LiveTable:
        schema, relation, kind, is_secured, rules, leaves, parents, columns = told
        of = (schema, relation)
        return LiveTable(
            name=self.named(of),
            columns={column[0]: _column(column) for column in columns or ()},
            kind=kind,
            key=self.primary.get(of, ()),
            uniques=tuple(self.uniques[of]),
            partitioned_by=self.ranges.get(of, ()),
            keys=tuple(self.keys[of]),
            schema=schema,
            relation=relation,
            inherits=tuple(self.named(parent) for parent in parents or ()),
            leaves=leaves,
            triggers=tuple(self.triggers[of]),
            rules=bool(rules),
            rule_names=tuple(rules or ()),
            row_security=is_secured,
            unique_expressions=tuple(self.caseless[of]),
            reads=tuple(sorted(self.reads[of])),
            publications=tuple(sorted(self.publications[of])),
        )

    def foreign_key(self, told: Sequence[Any]) -> ForeignKey:
        name, child, own, parent, theirs, on_delete, on_update, set_columns, *rest = told
        is_deferrable, is_deferred, enforced_on, to_partition = rest
        return ForeignKey(
            table=self.named(child),
            columns=tuple(own),
            to_table=self.named(parent),
            to_columns=tuple(theirs),
            on_delete=ON_DELETE[on_delete],
            name=name,
            on_update=ON_DELETE[on_update],
            set_columns=tuple(set_columns or ()),
            deferrable=is_deferrable,
            deferred=is_deferred,
            enforced_on=self.named(enforced_on) if enforced_on else "",
            to_partition=self.named(to_partition) if to_partition else "",
        )


def _once(keys: Iterable[ForeignKey]) -> Iterable[ForeignKey]:
    """Leave out what the same table says once more: on the whole, or on partition after partition. Those of the whole come first."""
    told: set[ForeignKey] = set()
    for key in keys:
        same = replace(key, name="", enforced_on="", to_partition="")
        if not (key.enforced_on or key.to_partition) or same not in told:
            yield key
        told.add(same)


def _column(told: Sequence[Any]) -> LiveColumn:
    values: list[Any] = [tuple(value) if isinstance(value, list) else value for value in told]
    return LiveColumn(*values)


def _trigger(told: Sequence[Any]) -> LiveTrigger:
    name, kind, function, is_enabled, is_deferrable, columns, *rest = told
    language, source, arguments, search_path = rest
    return LiveTrigger(
        name=name,
        events=tuple(event for bit, event in EVENTS.items() if kind & bit),
        timing="before" if kind & 2 else "instead of" if kind & 64 else "after",
        for_each_row=bool(kind & 1),
        function=function,
        enabled=is_enabled,
        deferrable=is_deferrable,
        columns=tuple(columns),
        language=language,
        source=source,
        arguments=tuple(arguments),
        search_path=search_path,
    )


def _gathered(rows: Iterable[tuple[str, str, Any]]) -> defaultdict[_Named, list[Any]]:
    found: defaultdict[_Named, list[Any]] = defaultdict(list)
    for schema, table, value in rows:
        found[schema, table].append(value)
    return found


def _uniques(rows: Iterable[Any]) -> tuple[dict[_Named, tuple[str, ...]], _Columns, _Columns]:
    """Return by table the primary key, the keys that hold for every row, and the columns of all unique indexes."""
    primary: dict[_Named, tuple[str, ...]] = {}
    keys, uniques = _Columns(list), _Columns(list)
    for schema, table, is_primary, is_whole, columns in rows:
        of = (schema, table)
        if is_primary:
            primary[of] = tuple(columns)
        if is_whole:
            keys[of].append(tuple(columns))
        uniques[of].append(tuple(columns or ()))
    return primary, keys, uniques
