"""Constants of the map that the database would refuse, as far as the catalogue tells; `habeas.datamap.postgres.trial` tries the rest."""

from collections.abc import Iterator
from typing import Final

from habeas.datamap.catalogue.schema import ForeignKey, LiveColumn, LiveSchema, LiveTable
from habeas.datamap.map.dataset import Template
from habeas.datamap.map.model import Column, StoreMap, Table, names
from habeas.datamap.planner.sql import RANDOM_DIGITS
from habeas.datamap.source import Problem

TEMPLATE: Final = '`habeas: {anonymise: {template: "erased-{random}"}}`'


def unfit_constants(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Constants that do not fit their columns, and columns that must not change."""
    for table in store.tables.values():
        found = live.tables.get(table.name)
        for column in changed_columns(table) if found is not None else ():
            for one in (found, *_heirs(store, live, table.name)):
                known = one.columns.get(column.name) if one is not None else None
                if one is not None and known is not None:
                    yield from _unfit(one, column, known)
            yield from _referred(store, live, table, column)


def changed_columns(table: Table) -> tuple[Column, ...]:
    """Return the columns that an erasure overwrites, each once."""
    return tuple({each.name: each for each in (*table.blanked, *table.mentions)}.values())


def _heirs(store: StoreMap, live: LiveSchema, name: str) -> list[LiveTable]:
    """Unmapped tables that inherit from this one: they are changed with it."""
    heirs: list[LiveTable] = []
    below = {name}
    grown = True
    while grown:
        more = [
            each
            for each in live.tables.values()
            if each.name not in below and each.name not in store.tables and not below.isdisjoint(each.inherits)
        ]
        heirs += more
        below |= {each.name for each in more}
        grown = bool(more)
    return heirs


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
        yield column.place.problem(what, f"`habeas: {{anonymise: CONSTANT}}`, {TEMPLATE}, or make the column nullable")
    if constant is None:
        return
    if isinstance(constant, Template):
        yield from _too_long(name, column, known, constant)
        return
    if _would_clash(table, column.name):
        what = f"{name} is unique: a constant fits only the first person"
        yield column.place.problem(what, f"`habeas: {{anonymise: null}}`, or {TEMPLATE}")
    if known.length is not None and isinstance(constant, str) and len(constant.rstrip(" ")) > known.length:
        what = f"{name} holds {known.length} characters, the constant has {len(constant)}"
        yield column.place.problem(what, "a shorter constant, or `habeas: {anonymise: null}`")
    if known.enum and constant not in known.enum:
        what = f"{name} takes only the labels of its enumeration, and the constant is none of them"
        yield column.place.problem(what, f"one of {names(known.enum)}, or `habeas: {{anonymise: null}}`")


def _too_long(name: str, column: Column, known: LiveColumn, template: Template) -> Iterator[Problem]:
    """A template whose values do not fit; of a key nobody knows how long it gets, so the database says so at the trial."""
    text = template.template.replace("{random}", "0" * RANDOM_DIGITS)
    if known.length is not None and "{key}" not in text and len(text) > known.length:
        what = f"{name} holds {known.length} characters, the template makes {len(text)}"
        yield column.place.problem(what, "fewer characters around `{random}`, which is 32 of them")
    if known.enum:
        what = f"{name} takes only the labels of its enumeration, and a template makes others"
        yield column.place.problem(what, f"one of {names(known.enum)}, or `habeas: {{anonymise: null}}`")


def _would_clash(found: LiveTable, column: str) -> bool:
    """Whether the same value in two rows may break a unique index, over expressions and parts of the rows too."""
    return any(column in unique and not found.is_unique(set(unique) - {column}) for unique in found.uniques)


def _referred(store: StoreMap, live: LiveSchema, table: Table, column: Column) -> Iterator[Problem]:
    """A column that other rows refer to: the database would refuse the new value, or write it into those rows too."""
    for key in live.foreign_keys:
        if key.to_table != table.name or column.name not in key.to_columns or _lets_go(store, key):
            continue
        also = {"no action": "", "restrict": ""}.get(key.on_update, f" (ON UPDATE {key.on_update.upper()})")
        does = "changes with it" if also else "forbids the change"
        what = f"`{table.name}.{column.name}` is to be anonymised, but `{key.table}` refers to it and {does}{also}"
        write = f"no `anonymise` on it, or a foreign key of `{key.table}` to a column that stays"
        yield column.place.problem(what, write)


def _lets_go(store: StoreMap, key: ForeignKey) -> bool:
    """Whether the rows that refer are gone by then, or their reference is set to null before."""
    child = store.tables.get(key.table)
    if child is None or key.table == key.to_table:
        return False
    going = [path for link in child.owning if link.deletes for path in link.paths]
    if any(not set(path.own_columns).isdisjoint(key.columns) for path in going):
        return True
    return any(c.name in key.columns and c.constant is None for c in (*child.blanked, *child.mentions))
