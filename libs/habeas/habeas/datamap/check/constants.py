"""Constants of the map that the database would refuse, as far as the catalogue tells; `habeas.datamap.postgres.trial` tries the rest."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from habeas.datamap.catalogue.schema import ForeignKey, LiveColumn, LiveSchema, LiveTable
from habeas.datamap.check.references import goes_along
from habeas.datamap.map.dataset import Constant, Template
from habeas.datamap.map.model import Column, StoreMap, Table, names
from habeas.datamap.map.paths import Reference
from habeas.datamap.planner.shape import Shape
from habeas.datamap.planner.sql import RANDOM_DIGITS
from habeas.datamap.source import Problem

TEMPLATE: Final = '`habeas: {anonymise: {template: "erased-{random}"}}`'


def unfit_constants(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Constants that do not fit their columns, and columns that must not change."""
    shape = Shape(store, live)
    for table in store.tables.values():
        found = live.tables.get(table.name)
        for column in changed_columns(table) if found is not None else ():
            for one in (found, *heirs(store, live, table.name)):
                known = one.columns.get(column.name) if one is not None else None
                if one is not None and known is not None:
                    yield from _unfit(one, column, known)
            yield from _referred(shape, table, column)


def changed_columns(table: Table) -> tuple[Column, ...]:
    """Return the columns that an erasure overwrites, each once for every value; those that let go of a row by null are not among them."""
    let_go = [column for reference in table.references for column in detached(table, reference)]
    columns = (*table.blanked, *table.mentions, *let_go)
    return tuple({(each.name, repr(each.constant)): each for each in columns}.values())


def detached(table: Table, reference: Reference) -> tuple[Column, ...]:
    """Return the columns of a reference that let go of a row by a constant, with it."""
    known = ((table.column(name), constant) for name, constant in reference.detached if constant is not None)
    return tuple(replace(column, constant=constant) for column, constant in known if column is not None)


def heirs(store: StoreMap, live: LiveSchema, name: str) -> list[LiveTable]:
    """Unmapped tables that inherit from this one: they are changed with it."""
    found: list[LiveTable] = []
    below = {name}
    grown = True
    while grown:
        more = [
            each
            for each in live.tables.values()
            if each.name not in below and each.name not in store.tables and not below.isdisjoint(each.inherits)
        ]
        found += more
        below |= {each.name for each in more}
        grown = bool(more)
    return found


def _unfit(table: LiveTable, column: Column, known: LiveColumn) -> Iterator[Problem]:
    name, constant = f"`{table.name}.{column.name}`", column.constant
    if known.generated or known.identity_always:
        what = f"{name} is filled in by the database itself and can't be anonymised"
        write = (
            "`anonymise` on the columns that it is made of"
            if known.generated
            else "no `anonymise` on it, or another column"
        )
        yield column.place.problem(what, write)
        return
    if known.not_null and constant is None:
        what = f"{name} is NOT NULL and can't be anonymised to null"
        yield column.place.problem(what, f"{TEMPLATE} or a constant, or make the column nullable")
    if constant is None:
        return
    if not isinstance(constant, Template) and _would_clash(table, column.name):
        what = f"{name} is unique: a constant fits only the first person"
        yield column.place.problem(what, f"{TEMPLATE}, or null")
    length = _length(constant)
    if known.length is not None and length > known.length:
        what = f"{name} holds {known.length} characters, what it is to be anonymised to has {length}"
        yield column.place.problem(what, "a shorter value, or `habeas: {anonymise: null}`")
    if known.enum and constant not in known.enum:
        what = f"{name} takes only the labels of its enumeration, and what it is to be anonymised to is none of them"
        yield column.place.problem(what, f"one of {names(known.enum)}, or `habeas: {{anonymise: null}}`")


def _length(constant: Constant | Template) -> int:
    """Return the least number of characters that a text has; blanks at its end are cut off where they are too many."""
    if isinstance(constant, Template):
        return len(constant.template.replace("{random}", "0" * RANDOM_DIGITS).replace("{key}", "0"))
    return len(constant.rstrip(" ")) if isinstance(constant, str) else 0


def _would_clash(found: LiveTable, column: str) -> bool:
    """Whether the same value in two rows may break a unique index, over expressions and parts of the rows too."""
    return any(column in unique and not found.is_unique(set(unique) - {column}) for unique in found.uniques)


def _referred(shape: Shape, table: Table, column: Column) -> Iterator[Problem]:
    """A column that other rows refer to: the database would refuse the new value, or write it into those rows too."""
    for key in shape.live.foreign_keys:
        if key.to_table != table.name or column.name not in key.to_columns or _lets_go(shape, key):
            continue
        also = {"no action": "", "restrict": ""}.get(key.on_update, f" (ON UPDATE {key.on_update.upper()})")
        does = "changes with it" if also else "forbids the change"
        what = f"`{table.name}.{column.name}` is to be anonymised, but `{key.table}` refers to it and {does}{also}"
        write = f"no `anonymise` on it, or a foreign key of `{key.table}` to a column that stays"
        yield column.place.problem(what, write)


def _lets_go(shape: Shape, key: ForeignKey) -> bool:
    """Whether the rows that refer are gone by then, or have let go of it before."""
    child, parent = shape.store.tables.get(key.table), shape.store.tables.get(key.to_table)
    return child is not None and parent is not None and child is not parent and goes_along(shape, child, parent, key)
