"""References of the map and of the database: what becomes of both ends, and whether they lead to one person."""

from collections.abc import Iterator

from habeas.datamap.catalogue.schema import ForeignKey, LiveSchema
from habeas.datamap.map.dataset import IDENTITY, Action
from habeas.datamap.map.model import Column, Kept, StoreMap, Table, names
from habeas.datamap.map.paths import Join
from habeas.datamap.planner.sql import CASELESS, INTEGER_TYPES, TEXT_TYPES
from habeas.datamap.source import Problem

CASCADES = frozenset({"cascade"})
LOOSENS = frozenset({"set null", "set default"})


def unsafe_references(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """References by which an erasure would hurt rows of others, leave a person named, or take two people for one."""
    for key in live.foreign_keys:
        yield from _survivable(store, key)
    yield from _mentions(store, live)
    yield from _claims_nobody(store, live)
    yield from _ambiguous(store, live)


def _survivable(store: StoreMap, key: ForeignKey) -> Iterator[Problem]:
    """What becomes of rows that stay when the row they refer to is deleted."""
    child, parent = store.tables.get(key.table), store.tables.get(key.to_table)
    if child is None or parent is None or parent.erasure is not Action.DELETE or child is parent:
        return
    own_way = child.path is not None and child.path.own_column in key.columns
    if child.erasure is Action.DELETE and own_way:
        return
    if key.on_delete in LOOSENS:
        return
    loosened = [c for c in (*child.blanked, *child.mentions) if c.name in key.columns and c.constant is None]
    if loosened:
        return
    stays = "stay" if child.erasure is not Action.DELETE else "may be another person's"
    if key.on_delete in CASCADES and (child.erasure is not Action.DELETE or key.to_table == store.root):
        what = f"rows of `{child.name}` {stays}, but the database deletes them with `{parent.name}` (ON DELETE CASCADE)"
    elif child.erasure is not Action.DELETE:
        what = f"rows of `{child.name}` stay and forbid that `{parent.name}` is deleted (foreign key on {names(key.columns)})"
    else:
        return
    yield child.place.problem(
        what, f"{names(key.columns)} anonymised to null, or the foreign key with ON DELETE SET NULL", "habeas"
    )


def _mentions(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Columns that name a person other than the one whose row it is, and that nothing would clear."""
    loosened = {(key.table, column) for key in live.foreign_keys if key.on_delete in LOOSENS for column in key.columns}
    enforced = {
        (key.table, column)
        for key in live.foreign_keys
        for column, to_column in zip(key.columns, key.to_columns, strict=True)
        if (key.to_table, to_column) == (store.root, store.identity)
    }
    stated = {(e.table, e.column) for e in store.edges if (e.to_table, e.to_column) == (store.root, store.identity)}
    for name, column_name in sorted(enforced | stated):
        table = store.tables.get(name)
        column = table.column(column_name) if table else None
        if table is None or column is None or (name, column_name) in loosened or _cleared(table, column):
            continue
        what = f"`{name}.{column_name}` can name another person than the one whose row it is, and nothing clears it"
        write = (
            "`habeas: {anonymise: null}` on it with a reference to the root, or a foreign key with ON DELETE SET NULL"
        )
        yield column.place.problem(what, write)


def _cleared(table: Table, column: Column) -> bool:
    """Whether it is the table's own path (what becomes of those rows is said elsewhere), or blanked as a mention."""
    own = table.path is not None and table.path.own_column == column.name
    return own or column in table.mentions


def _claims_nobody(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Tables said to hold nothing personal, while the database leads from them to a person."""
    people = {table.name for table in store.personal}
    for table in store.tables.values():
        if table.path is not None or isinstance(table.erasure, Kept):
            continue
        leading = [key for key in live.foreign_keys if key.table == table.name and key.to_table in people]
        if leading:
            what = f"`{table.name}` is said to hold no person's data, but {names(leading[0].columns)} leads to `{leading[0].to_table}`"
            write = "`references` on that field, and what an erasure does to the rows"
            yield table.place.problem(what, write, "habeas")


def _ambiguous(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Ids and references that several rows answer to, so that rows of others would be taken for this person's, and types that differ."""
    root = live.tables.get(store.root)
    if root is not None and store.identity in root.columns and not root.is_unique([store.identity]):
        what = f"`{store.root}.{store.identity}` is not unique, so one account id could be two people"
        write = (
            "a column with a primary key or a unique index on it alone as the identity, or such an index on this one"
        )
        yield store.tables[store.root].place.problem(what, write)
    for table in store.personal:
        yield from _alike(store, table, live)
        yield from _of_one_kind(store, table, live)
        for join in table.path.joins[:1] if table.path is not None else ():
            yield from _leads_to_one(table, join, live)


def _alike(store: StoreMap, table: Table, live: LiveSchema) -> Iterator[Problem]:
    """An id that is one with another in one table must not be two in the next: there, rows would be left behind."""
    if table.path is None or not table.path.direct:
        return
    own, root = (live.type_of(*of) for of in ((table.name, table.path.subject_column), (store.root, store.identity)))
    if own != root and own is not None and CASELESS in {own, root}:
        what = f"`{table.name}.{table.path.subject_column}` ({own}) tells ids apart otherwise than `{store.root}.{store.identity}` ({root})"
        yield table.place.problem(what, "both as `citext`, or none of them")


def _of_one_kind(store: StoreMap, table: Table, live: LiveSchema) -> Iterator[Problem]:
    """An id beside a column that tells of what it is the id may be that of a team: `owner_id` and `owner_type`.

    Not so on the root, nor where the column is named like the account id itself, or has a foreign key.
    """
    if table.path is None or table.name == store.root or table.name not in live.tables:
        return
    own = table.path.own_column
    kind = own.removesuffix("_id") + "_type"
    enforced = any(own in key.columns for key in live.foreign_keys if key.table == table.name)
    told = {column for column, _ in table.path.where}
    is_named = own in {IDENTITY, store.identity}
    if kind in live.tables[table.name].columns and own.endswith("_id") and not (is_named or enforced or kind in told):
        what = f"`{table.name}.{own}` may be the id of something else than a person, as `{kind}` says"
        yield table.place.problem(what, f"`where: {{{kind}: VALUE}}` with what it says of people's rows", "habeas")


def _leads_to_one(table: Table, join: Join, live: LiveSchema) -> Iterator[Problem]:
    """A reference has to lead to one row, and both of its ends have to be of types that PostgreSQL compares."""
    column = table.column(join.column)
    place = column.place if column is not None else table.place
    own, other = live.type_of(table.name, join.column), live.type_of(join.table, join.to_column)
    if own is None or other is None:
        return
    reference = f"`{table.name}.{join.column}` refers to `{join.table}.{join.to_column}`"
    if not live.tables[join.table].is_unique([join.to_column]):
        what = f"{reference}, which is not unique: rows of others would be taken for the same person's"
        yield place.problem(what, "a reference to a column with a primary key or a unique index on it alone")
    if own != other and not any({own, other} <= alike for alike in (TEXT_TYPES - {CASELESS}, INTEGER_TYPES)):
        what = f"{reference}, but `{own}` and `{other}` are not compared with each other"
        yield place.problem(what, "a reference to a column of the same type")
