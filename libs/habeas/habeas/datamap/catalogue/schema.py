"""The live schema of a store, as its catalogue tells it in one query, and its comparison with the data map."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

# The fingerprint is made of the catalogue's own numbers and names by index look-ups, since it is asked before every erasure; the rest,
# which is a function of the same rows, is only computed when the fingerprint is another one (PostgreSQL evaluates it nowhere else).
CATALOGUE: Final = """
    WITH tables AS MATERIALIZED (
        SELECT c.oid, c.relname, c.relkind
          FROM pg_catalog.pg_class AS c
         WHERE c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = $1)
           AND c.relkind IN ('r', 'p', 'f', 'm') AND NOT c.relispartition
    ), refs AS MATERIALIZED (
        SELECT k.oid, k.conname, cn.nspname AS schema, c.relname AS child, pn.nspname AS to_schema, p.relname AS parent,
               k.confdeltype, k.conrelid, k.conkey, k.confrelid, k.confkey
          FROM pg_catalog.pg_constraint AS k
          JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid AND NOT c.relispartition
          JOIN pg_catalog.pg_namespace AS cn ON cn.oid = c.relnamespace
          JOIN pg_catalog.pg_class AS p ON p.oid = k.confrelid AND NOT p.relispartition
          JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
         WHERE k.contype = 'f'
    ), seen AS MATERIALIZED (
        SELECT md5(concat_ws(E'\\n',
            (SELECT array_agg(ROW(t.oid, t.relname, t.relkind,
                       (SELECT array_agg(ROW(a.attnum, a.attname, format_type(a.atttypid, NULL), a.attnotnull) ORDER BY a.attnum)
                          FROM pg_catalog.pg_attribute AS a
                         WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped),
                       (SELECT array_agg(ROW(i.indisprimary, i.indisvalid, i.indkey, i.indexprs, i.indpred) ORDER BY i.indexrelid)
                          FROM pg_catalog.pg_index AS i
                         WHERE i.indrelid = t.oid AND i.indisunique),
                       (SELECT ROW(p.partstrat, p.partattrs) FROM pg_catalog.pg_partitioned_table AS p WHERE p.partrelid = t.oid))
                    ORDER BY t.oid)::text FROM tables AS t),
            (SELECT array_agg(ROW(r.schema, r.child, r.conkey, r.to_schema, r.parent, r.confkey, r.confdeltype,
                       (SELECT array_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
                         WHERE a.attrelid = r.conrelid AND a.attnum = ANY(r.conkey)),
                       (SELECT array_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
                         WHERE a.attrelid = r.confrelid AND a.attnum = ANY(r.confkey)))
                    ORDER BY r.oid)::text FROM refs AS r))) AS fingerprint
    )
    SELECT fingerprint, CASE WHEN fingerprint IS DISTINCT FROM $2::text THEN (
        SELECT json_build_object(
            'tables', (SELECT json_agg(json_build_array(t.relname, t.relkind,
                                  (SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, NULL), a.attnotnull,
                                                                    coalesce(b.array_of_labels, format_type(b.oid, NULL)))
                                                   ORDER BY a.attnum)
                                     FROM pg_catalog.pg_attribute AS a
                                    CROSS JOIN LATERAL (
                                          WITH RECURSIVE below AS (
                                              SELECT y.oid, y.typtype, y.typbasetype, y.typcategory, y.typelem
                                                FROM pg_catalog.pg_type AS y WHERE y.oid = a.atttypid
                                              UNION ALL
                                              SELECT y.oid, y.typtype, y.typbasetype, y.typcategory, y.typelem
                                                FROM below
                                                JOIN pg_catalog.pg_type AS y ON y.oid = below.typbasetype AND below.typtype = 'd')
                                          SELECT below.oid,
                                                 (SELECT 'anyenum[]' FROM pg_catalog.pg_type AS e
                                                   WHERE e.oid = below.typelem AND below.typcategory = 'A' AND e.typtype = 'e')
                                                     AS array_of_labels
                                            FROM below WHERE below.typtype <> 'd') AS b
                                    WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped))
                               ORDER BY t.relname) FROM tables AS t),
            'foreign_keys', (SELECT json_agg(json_build_array(r.schema, r.child,
                                  (SELECT json_agg(a.attname ORDER BY x.ord) FROM unnest(r.conkey) WITH ORDINALITY AS x (num, ord)
                                     JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.conrelid AND a.attnum = x.num),
                                  r.to_schema, r.parent,
                                  (SELECT json_agg(a.attname ORDER BY x.ord) FROM unnest(r.confkey) WITH ORDINALITY AS x (num, ord)
                                     JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.confrelid AND a.attnum = x.num),
                                  r.confdeltype) ORDER BY r.schema, r.child, r.conname) FROM refs AS r),
            'uniques', (SELECT json_agg(json_build_array(u.relname, u.indisprimary, u.whole, u.list)
                                        ORDER BY u.relname, u.indisprimary, u.whole, u.list::text)
                          FROM (SELECT t.relname, i.indisprimary,
                                       i.indisvalid AND i.indexprs IS NULL AND i.indpred IS NULL AS whole,
                                       (SELECT json_agg(a.attname ORDER BY array_position(i.indkey::smallint[], a.attnum), a.attnum)
                                          FROM pg_catalog.pg_attribute AS a
                                         WHERE a.attrelid = i.indrelid
                                           AND (a.attnum = ANY(i.indkey[0:i.indnkeyatts - 1])
                                                OR a.attnum IN (SELECT d.refobjsubid FROM pg_catalog.pg_depend AS d
                                                                 WHERE d.classid = 'pg_catalog.pg_class'::regclass
                                                                   AND d.objid = i.indexrelid
                                                                   AND d.refclassid = 'pg_catalog.pg_class'::regclass
                                                                   AND d.refobjid = i.indrelid
                                                                   AND d.refobjsubid <> ALL(i.indkey)))) AS list
                                  FROM tables AS t
                                  JOIN pg_catalog.pg_index AS i ON i.indrelid = t.oid AND i.indisunique) AS u),
            'partitions', (SELECT json_agg(json_build_array(t.relname, p.partstrat,
                                  (SELECT json_agg(a.attname ORDER BY x.ord)
                                     FROM unnest(p.partattrs) WITH ORDINALITY AS x (num, ord)
                                     JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = x.num))
                               ORDER BY t.relname)
                             FROM tables AS t JOIN pg_catalog.pg_partitioned_table AS p ON p.partrelid = t.oid)
        )::text) END AS told
      FROM seen
"""
"""One row: a fingerprint of everything that the check looks at, and the whole only when it differs from `$2`."""

_Columns = defaultdict[str, list[tuple[str, ...]]]

ON_DELETE: Final = {"a": "no action", "r": "restrict", "c": "cascade", "n": "set null", "d": "set default"}


@dataclass(frozen=True)
class LiveColumn:
    """One column; `type` is PostgreSQL's name of it without length (`text`, `timestamp with time zone`).

    `base` is the type below its domains, the same where there are none; arrays of any enumeration are `anyenum[]`.
    """

    name: str
    type: str
    not_null: bool = False
    base: str = ""

    def __post_init__(self) -> None:
        """Take the type itself for a base that was not given."""
        object.__setattr__(self, "base", self.base or self.type)


@dataclass(frozen=True)
class ForeignKey:
    """A reference that the database enforces; tables of other schemas are named `schema.table`."""

    table: str
    columns: tuple[str, ...]
    to_table: str
    to_columns: tuple[str, ...]
    on_delete: str = "no action"


@dataclass(frozen=True)
class LiveTable:
    """A table, partitioned or foreign table, or materialised view (all of them can hold a person's data).

    `keys` are the columns of each unique index that holds for every row. `uniques` are those of each unique index, whatever it
    leaves out, with the columns of its expressions and of its predicate.
    """

    name: str
    columns: Mapping[str, LiveColumn]
    kind: str = "r"
    key: tuple[str, ...] = ()
    uniques: tuple[tuple[str, ...], ...] = ()
    partitioned_by: tuple[str, ...] = ()
    keys: tuple[tuple[str, ...], ...] = ()

    def is_unique(self, columns: Collection[str]) -> bool:
        """Whether two rows cannot have the same values in these columns."""
        return any(set(key) <= set(columns) for key in (*self.keys, self.key) if key)

    def is_unique_caseless(self, columns: Collection[str]) -> bool:
        """Whether two rows cannot have the same values in these columns, when they are compared without regard to case."""
        return False


@dataclass(frozen=True)
class LiveSchema:
    """One schema of a database; partitions are part of their table."""

    tables: Mapping[str, LiveTable]
    foreign_keys: tuple[ForeignKey, ...] = ()
    fingerprint: str = field(default="", compare=False)

    def type_of(self, table: str, column: str) -> str | None:
        """Type of a column, None where there is none."""
        known = self.column(table, column)
        return known.type if known else None

    def column(self, table: str, column: str) -> LiveColumn | None:
        """Return a column, None where there is none."""
        found = self.tables.get(table)
        return found.columns.get(column) if found else None

    @classmethod
    def parse(cls, schema: str, told: str, fingerprint: str = "") -> Self:
        """Read what CATALOGUE tells about `schema`."""
        document = json.loads(told)
        primary, keys, uniques = _uniques(document["uniques"] or ())
        ranges = {
            name: tuple(columns)
            for name, strategy, columns in document["partitions"] or ()
            if strategy == "r" and columns
        }
        tables = {
            name: LiveTable(
                name,
                {column[0]: LiveColumn(*column) for column in columns or ()},
                relkind,
                primary.get(name, ()),
                tuple(uniques[name]),
                ranges.get(name, ()),
                tuple(keys[name]),
            )
            for name, relkind, columns in document["tables"] or ()
        }
        foreign_keys = tuple(
            ForeignKey(_named(schema, *child), tuple(own), _named(schema, *parent), tuple(theirs), ON_DELETE[action])
            for *child, own, to_schema, to_table, theirs, action in document["foreign_keys"] or ()
            for parent in [(to_schema, to_table)]
        )
        return cls(tables, foreign_keys, fingerprint)


def _named(schema: str, of: str, table: str) -> str:
    return table if of == schema else f"{of}.{table}"


def _uniques(rows: Iterable[Any]) -> tuple[dict[str, tuple[str, ...]], _Columns, _Columns]:
    """Return by table the primary key, the keys that hold for every row, and the columns of all unique indexes."""
    primary: dict[str, tuple[str, ...]] = {}
    keys, uniques = _Columns(list), _Columns(list)
    for table, is_primary, is_whole, columns in rows:
        if is_primary:
            primary[table] = tuple(columns)
        if is_whole:
            keys[table].append(tuple(columns))
        uniques[table].append(tuple(columns or ()))
    return primary, keys, uniques
