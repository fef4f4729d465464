"""Constants of the data map, tried on the live database: types, domains and CHECK constraints say themselves what they take.

Nothing is written and no row is read: an UPDATE is planned, which computes what it would write, and constraints are evaluated over
the constants alone.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import asyncpg

from habeas.datamap.catalogue.schema import LiveColumn, LiveSchema, LiveTable
from habeas.datamap.check.constants import detached
from habeas.datamap.map.model import Column, StoreMap, Table, names
from habeas.datamap.planner import StorePlan
from habeas.datamap.planner.sql import literal, quoted, written
from habeas.datamap.postgres.connection import Connection
from habeas.datamap.source import Problem

REFUSALS: Final = frozenset({"42804", "42846", "428C9", "42883"})
"""datatype_mismatch, cannot_coerce, generated_always, undefined_function (a comparison or cast that the type lacks)."""

REFUSAL_CLASSES: Final = frozenset({"22", "23", "P0"})
"""data_exception, integrity_constraint_violation, and what a function of a constraint raises."""

NO_RIGHTS: Final = "42501"
"""insufficient_privilege: who checks may have fewer rights than who erases."""

UNLIMITED: Final = {"character": '"bpchar"', "bit": '"bit"'}
"""Types that mean a length of one where none is said."""

LOCKED: Final = "55P03"
"""lock_not_available: one table that somebody holds must not keep work from all others; the database refuses again when it comes to it."""

CHECK: Final = re.compile(r"CHECK \((?P<condition>.*)\)(?: NO INHERIT)?(?: NOT VALID)?", re.DOTALL)
"""A constraint as PostgreSQL writes it; one that is NOT ENFORCED does not match."""


async def try_values(conn: Connection, store: StoreMap, live: LiveSchema) -> tuple[Problem, ...]:
    """Everything that the database would refuse to write, and ghosts that are not there."""
    return await try_constants(conn, store, live) or await find_ghosts(conn, store, live)


async def try_constants(conn: Connection, store: StoreMap, live: LiveSchema) -> tuple[Problem, ...]:
    """Everything that the database would refuse to write; a constraint that other columns have a part in is left to the rows themselves."""
    problems: list[Problem] = []
    for table in store.tables.values():
        found = live.tables.get(table.name)
        if found is None or found.kind == "m":
            continue
        for columns in filter(None, _together(table)):
            if not await _is_taken(conn, store, found, columns):
                refused = [column for column in columns if not await _is_taken(conn, store, found, [column])]
                problems += _refused(found, refused) if refused else _refused_together(found, columns)
    return tuple(problems)


async def try_statements(conn: Connection, store: StoreMap, plan: StorePlan) -> tuple[Problem, ...]:
    """Statements of a plan that the server does not even parse for the live schema, by the table for which they are made."""
    problems: list[Problem] = []
    for table, statement in statements(plan):
        try:
            async with conn.transaction():
                await conn.prepare(statement)
        except asyncpg.PostgresError as error:
            if error.sqlstate == NO_RIGHTS:
                continue
            what = f"the database does not take a statement that is made for `{table}` (SQLSTATE {error.sqlstate})"
            write = "nothing: this is a fault of Habeas, please tell of it with the table's definition and its part of the map"
            problems.append(store.tables[table].place.problem(what, write))
    return tuple(dict.fromkeys(problems))


def statements(plan: StorePlan) -> Iterator[tuple[str, str]]:
    """Every statement of a plan that a table has for itself, with the table's name."""
    for table in plan.tables:
        own = [
            table.locate,
            table.erase,
            table.erase_one,
            table.verify,
            *table.again,
            *table.mentions,
            *table.unmentioned,
        ]
        own += [source.sql for source in (table.export, table.portable) if source is not None]
        yield from ((table.table, sql) for sql in own if sql)
    for each in plan.collected.values():
        own = [each.found, each.delete, *(follow.sql for follow in each.follows), *(one.sql for one in each.holders)]
        own += [one.sql for one in each.detaches]
        changes = [*each.links, *([each.kept] if each.kept is not None else [])]
        own += [sql for link in changes for sql in (link.change, link.left)]
        yield from ((each.table, sql) for sql in own if sql)
    for rule in plan.purges:
        yield from ((rule.table, sql) for sql in (rule.delete, rule.delete_some, rule.oldest))


async def find_ghosts(conn: Connection, store: StoreMap, live: LiveSchema) -> tuple[Problem, ...]:
    """Ids of nobody that references to a person become: rows of the root that are not there, where a foreign key asks for them."""
    if not store.ghosts or not store.has_root:
        return ()
    target = (store.root, store.identity)
    held = {
        (key.table, own)
        for key in live.foreign_keys
        for own, theirs in zip(key.columns, key.to_columns, strict=True)
        if (key.to_table, theirs) == target
    }
    wanted: dict[str, Column] = {}
    for table in store.tables.values():
        written_to = {column.name: column.constant for column in table.columns if column.anonymises}
        written_to |= {column: constant for each in table.references for column, constant in each.detached}
        for name, constant in written_to.items():
            column = table.column(name)
            if column is not None and (table.name, name) in held and str(constant) in store.ghosts:
                wanted[str(constant)] = column
    name = quoted(live.tables[store.root].schema or store.schema, live.tables[store.root].relation or store.root)
    sql = f"SELECT {quoted(store.identity)}::text FROM {name} WHERE {quoted(store.identity)}::text = ANY($1)"  # noqa: S608 - quoted
    there = {row[0] for row in await conn.fetch(sql, list(wanted))} if wanted else set()
    return tuple(
        column.place.problem(
            f"`{ghost}` is to stand for people who are erased, but `{store.root}` has no such row",
            f"the id of a row of `{store.root}` that is nobody's, or that row made first", "habeas",
        )
        for ghost, column in wanted.items()
        if ghost not in there
    )  # fmt: skip


def _together(table: Table) -> Iterator[Sequence[Column]]:
    """Columns that one statement overwrites."""
    for link in table.links:
        yield link.blanked
    for reference in table.references:
        yield detached(table, reference)


async def _is_taken(conn: Connection, store: StoreMap, found: LiveTable, columns: Sequence[Column]) -> bool:
    name = quoted(found.schema or store.schema, found.relation)
    values = {
        column.name: written(column.constant, found.columns[column.name].type, [literal("1")]) for column in columns
    }
    assigned = ", ".join(f"{quoted(column.name)} = {values[column.name]}" for column in columns)
    update = f"EXPLAIN UPDATE {name} SET {assigned} WHERE FALSE"  # noqa: S608 - names and constants of the map, quoted
    if not await _is_accepted(conn, update):
        return False
    cast = ", ".join(
        f"CAST({values[column.name]} AS {_type(found.columns[column.name])}) AS {quoted(column.name)}"
        for column in columns
    )
    # What nothing asks for the server would not compute.
    computed = f"num_nulls({', '.join(quoted(column.name) for column in columns)}) >= 0"
    asked = [computed, *_conditions(found, {column.name for column in columns})]
    conditions = ", ".join(f"({each})" for each in asked)
    tried = f"SELECT {conditions} FROM (SELECT {cast} OFFSET 0) AS {quoted(found.relation)}"  # noqa: S608 - as above
    return await _is_accepted(conn, tried)


def _type(column: LiveColumn) -> str:
    if column.length is not None and column.type == column.base:
        return f"{column.type}({column.length})"
    return UNLIMITED.get(column.type, column.type)


def _conditions(found: LiveTable, columns: Collection[str]) -> list[str]:
    """Return the constraints that only these columns have a part in."""
    others = {check for name, column in found.columns.items() if name not in columns for check in column.checks}
    told = dict.fromkeys(
        check for name in sorted(columns) for check in found.columns[name].checks if check not in others
    )
    return [match["condition"] for check in told if (match := CHECK.fullmatch(check))]


async def _is_accepted(conn: Connection, statement: str) -> bool:
    """Whether the server takes a statement, and answers none of a row's questions with a plain no."""
    try:
        async with conn.transaction():
            row = await conn.fetchrow(statement)
    except asyncpg.PostgresError as error:
        code = error.sqlstate or ""
        if code in REFUSALS or code[:2] in REFUSAL_CLASSES:
            return False
        if code in {NO_RIGHTS, LOCKED}:
            return True
        raise
    return row is None or not any(value is False for value in row.values())


def _refused(found: LiveTable, columns: Sequence[Column]) -> Iterator[Problem]:
    for column in columns:
        known = found.columns[column.name]
        by = " or its CHECK constraint" if known.checks else ""
        what = f"`{found.name}.{column.name}` ({known.type}) does not take what it is to be anonymised to: its type{by} refuses it"
        write = "another `anonymise` that the database takes" + ("" if known.not_null else ", or null")
        yield column.place.problem(what, write, "habeas", "anonymise")


def _refused_together(found: LiveTable, columns: Sequence[Column]) -> Iterator[Problem]:
    listed = names(column.name for column in columns)
    what = f"a CHECK constraint of `{found.name}` refuses what {listed} are to be anonymised to together"
    yield columns[0].place.problem(what, "another `anonymise` on one of them", "habeas", "anonymise")
