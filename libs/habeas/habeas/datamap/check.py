"""Comparison of a store's data map with its live schema: whatever a person's data could hide in is an error."""

from collections.abc import Iterator

from habeas.datamap.catalogue.schema import ForeignKey, LiveSchema, LiveTable
from habeas.datamap.explain import one_of
from habeas.datamap.map.dataset import IDENTITY, Action
from habeas.datamap.map.model import Column, Kept, StoreMap, Table, names
from habeas.datamap.map.paths import Join
from habeas.datamap.planner import PlanError, compile_store
from habeas.datamap.planner.sql import CASELESS, INTEGER_TYPES, TEXT_TYPES
from habeas.datamap.source import Problem

CASCADES = frozenset({"cascade"})
LOOSENS = frozenset({"set null", "set default"})


def compare(store: StoreMap, live: LiveSchema) -> tuple[Problem, ...]:
    """Everything in which map and live schema differ so that an erasure or export could miss or hurt something.

    Empty when they agree. Pure: `live` is what one catalogue query told.
    """
    problems = [*_missing(store, live), *_unlisted_columns(store, live), *_unmapped_tables(store, live)]
    for table in store.tables.values():
        found = live.tables.get(table.name)
        if found is not None:
            problems += [*_anonymisable(table, found), *_droppable(table, found)]
    for key in live.foreign_keys:
        problems += _survivable(store, key)
    problems += [*_mentions(store, live), *_claims_nobody(store, live), *_ambiguous(store, live)]
    if not problems:
        try:
            compile_store(store, live)
        except PlanError as error:
            problems += error.problems
    return tuple(
        sorted(set(problems), key=lambda problem: (str(problem.file), problem.line, problem.path, problem.what))
    )


def _missing(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Tables and columns that the map names and the database lacks."""
    for table in store.tables.values():
        found = live.tables.get(table.name)
        if found is None:
            what = f"the database has no table `{store.schema}.{table.name}`"
            yield table.place.problem(what, one_of(table.name, live.tables), "name")
            continue
        for column in table.columns:
            if column.name not in found.columns:
                what = f"the table `{table.name}` has no column `{column.name}`"
                yield column.place.problem(what, one_of(column.name, found.columns), "name")


def _unlisted_columns(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Columns of mapped tables that the map lacks; a table declared as not personal need not list them."""
    for table in store.tables.values():
        found = live.tables.get(table.name)
        if found is None or not table.personal:
            continue
        listed = {column.name for column in table.columns}
        for column in found.columns.values():
            if column.name not in listed:
                what = f"the column `{table.name}.{column.name}` ({column.type}) is not in the data map"
                yield table.place.problem(what, f"`- {{name: {column.name}, …}}` with its category", "fields")


def _unmapped_tables(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Tables that could hold a person's data and that the map lacks: by foreign key, over any hops, or by column name."""
    reached = {table.name: "" for table in store.personal}
    grown = True
    while grown:
        grown = False
        for key in live.foreign_keys:
            if key.to_table in reached and key.table not in reached and key.table not in store.tables:
                reached[key.table] = f"its foreign key on {names(key.columns)} leads to `{key.to_table}`"
                grown = True
    telling = _telling_names(store)
    for name, found in live.tables.items():
        named = sorted(telling & set(found.columns))
        if name not in store.tables and name not in reached and named:
            reached[name] = f"its column {names(named)} is named like an account id"
    for name, why in reached.items():
        if name not in store.tables:
            what = f"the table `{name}` is not in the data map, but {why}"
            write = f"a collection `{name}`, or `{{personal: false, reason: …}}` for it if no row is a person's"
            yield store.place.problem(what, write, "collections")


def _telling_names(store: StoreMap) -> frozenset[str]:
    """Column names by which a table gives away that its rows belong to somebody."""
    telling = {IDENTITY, store.identity}
    for table in store.personal:
        if table.path is not None and table.path.direct:
            telling.add(table.path.subject_column)
    return frozenset(telling - {"id"})


def _anonymisable(table: Table, found: LiveTable) -> Iterator[Problem]:
    """Constants that the database would refuse."""
    for column in {each.name: each for each in (*table.blanked, *table.mentions)}.values():
        live = found.columns.get(column.name)
        if live is not None and live.not_null and column.constant is None:
            what = f"`{table.name}.{column.name}` is NOT NULL and can't be anonymised to null"
            yield column.place.problem(what, "`habeas: {anonymise: CONSTANT}`, or make the column nullable")
        if column.constant is not None and _would_clash(found, column.name):
            what = f"`{table.name}.{column.name}` is unique: a constant fits only the first person"
            yield column.place.problem(what, "`habeas: {anonymise: null}`")


def _would_clash(found: LiveTable, column: str) -> bool:
    """Whether the same value in two rows may break a unique index, over expressions and parts of the rows too."""
    return any(column in unique and not found.is_unique(set(unique) - {column}) for unique in found.uniques)


def _droppable(table: Table, found: LiveTable) -> Iterator[Problem]:
    own = table.age is not None and table.age.table == table.name
    if not table.partitioned or not own or table.age is None:
        return
    if found.partitioned_by != (table.age.column,):
        by = names(found.partitioned_by) if found.partitioned_by else "no range of a column"
        what = f"`{table.name}` is partitioned by {by}, not by its age `{table.age.column}`"
        yield table.place.problem(
            what, "no `partitioned` here, or the partitioned column as `age`", "habeas", "partitioned"
        )


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
            "a column with a primary key or a unique index on it alone as the identity, or such an index on this one; `root: none` if the "
            "store has no table of people"
        )
        yield store.tables[store.root].place.problem(what, write)
    for table in store.personal:
        yield from _alike(store, table, live)
        yield from _of_one_kind(store, table, live)
        for join in table.path.joins[:1] if table.path is not None else ():
            yield from _leads_to_one(table, join, live)


def _alike(store: StoreMap, table: Table, live: LiveSchema) -> Iterator[Problem]:
    """An id that is one with another in one table must not be two in the next: there, rows would be left behind."""
    if table.path is None or not table.path.direct or not store.has_root:
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
