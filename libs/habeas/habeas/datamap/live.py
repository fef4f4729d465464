"""The live schema of a store, as its catalogue tells it in one query, and its comparison with the data map."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

CATALOGUE: Final = """
    WITH tables AS (
        SELECT c.oid, c.relname, c.relkind, n.nspname
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'f', 'm') AND NOT c.relispartition
    ), columns AS (
        SELECT t.relname, json_agg(json_build_array(a.attname, format_type(a.atttypid, NULL), a.attnotnull)
                                   ORDER BY a.attnum) AS list
          FROM tables AS t
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
         GROUP BY t.relname
    ), foreign_keys AS (
        SELECT k.conname, cn.nspname AS schema, c.relname AS child, pn.nspname AS to_schema, p.relname AS parent, k.confdeltype,
               (SELECT json_agg(a.attname ORDER BY x.ord) FROM unnest(k.conkey) WITH ORDINALITY AS x (num, ord)
                  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = x.num) AS own,
               (SELECT json_agg(a.attname ORDER BY x.ord) FROM unnest(k.confkey) WITH ORDINALITY AS x (num, ord)
                  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = x.num) AS theirs
          FROM pg_catalog.pg_constraint AS k
          JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid AND NOT c.relispartition
          JOIN pg_catalog.pg_namespace AS cn ON cn.oid = c.relnamespace
          JOIN pg_catalog.pg_class AS p ON p.oid = k.confrelid AND NOT p.relispartition
          JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
         WHERE k.contype = 'f'
    ), uniques AS MATERIALIZED (
        SELECT t.relname, i.indisprimary,
               (SELECT json_agg(a.attname ORDER BY x.ord) FROM unnest(i.indkey) WITH ORDINALITY AS x (num, ord)
                  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = x.num) AS list
          FROM tables AS t
          JOIN pg_catalog.pg_index AS i ON i.indrelid = t.oid AND i.indisunique AND i.indexprs IS NULL
    ), partitions AS (
        SELECT t.relname, p.partstrat,
               (SELECT json_agg(a.attname ORDER BY x.ord) FROM unnest(p.partattrs) WITH ORDINALITY AS x (num, ord)
                  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = x.num) AS list
          FROM tables AS t
          JOIN pg_catalog.pg_partitioned_table AS p ON p.partrelid = t.oid
    ), everything AS MATERIALIZED (
        SELECT json_build_object(
            'tables', (SELECT json_agg(json_build_array(t.relname, t.relkind, c.list) ORDER BY t.relname)
                         FROM tables AS t LEFT JOIN columns AS c USING (relname)),
            'foreign_keys', (SELECT json_agg(json_build_array(schema, child, own, to_schema, parent, theirs, confdeltype)
                                             ORDER BY schema, child, conname) FROM foreign_keys),
            'uniques', (SELECT json_agg(json_build_array(relname, indisprimary, list)
                                        ORDER BY relname, indisprimary, list::text) FROM uniques),
            'partitions', (SELECT json_agg(json_build_array(relname, partstrat, list) ORDER BY relname) FROM partitions)
        )::text AS told
    )
    SELECT md5(told) AS fingerprint, CASE WHEN md5(told) IS DISTINCT FROM $2::text THEN told END AS told
      FROM everything
"""
"""One row: a fingerprint of everything that the check looks at, and the whole only when it differs from `$2`."""

ON_DELETE: Final = {"a": "no action", "r": "restrict", "c": "cascade", "n": "set null", "d": "set default"}


@dataclass(frozen=True)
class LiveColumn:
    """One column; `type` is PostgreSQL's name of it without length (`text`, `timestamp with time zone`)."""

    name: str
    type: str
    not_null: bool = False


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
    """A table, partitioned or foreign table, or materialised view (all of them can hold a person's data)."""

    name: str
    columns: Mapping[str, LiveColumn]
    kind: str = "r"
    key: tuple[str, ...] = ()
    uniques: tuple[tuple[str, ...], ...] = ()
    partitioned_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class LiveSchema:
    """One schema of a database; partitions are part of their table."""

    tables: Mapping[str, LiveTable]
    foreign_keys: tuple[ForeignKey, ...] = ()
    fingerprint: str = field(default="", compare=False)

    def type_of(self, table: str, column: str) -> str | None:
        """Type of a column, None where there is none."""
        found = self.tables.get(table)
        known = found.columns.get(column) if found else None
        return known.type if known else None

    @classmethod
    def parse(cls, schema: str, told: str, fingerprint: str = "") -> Self:
        """Read what CATALOGUE tells about `schema`."""
        document = json.loads(told)
        keys, uniques = _uniques(document["uniques"] or ())
        ranges = {
            name: tuple(columns)
            for name, strategy, columns in document["partitions"] or ()
            if strategy == "r" and columns
        }
        tables = {
            name: LiveTable(
                name,
                {column: LiveColumn(column, kind, not_null) for column, kind, not_null in columns or ()},
                relkind,
                keys.get(name, ()),
                tuple(uniques.get(name, ())),
                ranges.get(name, ()),
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


def _uniques(rows: Iterable[Any]) -> tuple[dict[str, tuple[str, ...]], dict[str, list[tuple[str, ...]]]]:
    keys: dict[str, tuple[str, ...]] = {}
    uniques: dict[str, list[tuple[str, ...]]] = {}
    for table, primary, columns in rows:
        if primary:
            keys[table] = tuple(columns)
        uniques.setdefault(table, []).append(tuple(columns))
    return keys, uniques
