"""Tables and columns that the database has and the map lacks, in any schema, and the other way round."""

from collections.abc import Iterator

from habeas.datamap.catalogue.schema import ForeignKey, LiveSchema, LiveTable
from habeas.datamap.explain import one_of
from habeas.datamap.map.dataset import IDENTITY
from habeas.datamap.map.model import StoreMap, names
from habeas.datamap.source import Problem


def unlisted(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Whatever only one of the two knows."""
    yield from _missing(store, live)
    yield from _unlisted_columns(store, live)
    yield from _unmapped_tables(store, live)
    yield from _children(store, live)


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
            is_new = key.to_table in reached and key.table not in reached and key.table not in store.tables
            if is_new and not _is_inherited(store, live, key):
                reached[key.table] = f"its foreign key on {names(key.columns)} leads to `{key.to_table}`"
                grown = True
    telling, domain = _telling_names(store), _telling_type(store, live)
    for name, found in live.tables.items():
        named = sorted(telling & set(found.columns))
        typed = sorted(column.name for column in found.columns.values() if column.type == domain)
        if name in store.tables or name in reached or not (named or typed) or _is_told_of(store, live, found):
            continue
        why = (
            f"{names(named)} is named like an account id"
            if named
            else f"{names(typed)} has the account id's type `{domain}`"
        )
        reached[name] = f"its column {why}"
    for name, why in reached.items():
        if name not in store.tables:
            what = f"the table `{name}` is not in the data map, but {why}"
            yield store.place.problem(what, _as_collection(name, store, live), "collections")


def _is_inherited(store: StoreMap, live: LiveSchema, key: ForeignKey) -> bool:
    """Whether a mapped table that this one inherits from has the same foreign key: what is done for that is done for both."""
    found = live.tables.get(key.table)
    parents = set(_mapped_parents(store, live, found)) if found is not None else set()
    same = (key.columns, key.to_table, key.to_columns, key.on_delete)
    return any(
        each.table in parents and (each.columns, each.to_table, each.to_columns, each.on_delete) == same
        for each in live.foreign_keys
    )


def _is_told_of(store: StoreMap, live: LiveSchema, found: LiveTable) -> bool:
    """Whether a table is judged by what it is made from, or mapped by another store of the same database."""
    people = {table.name for table in store.personal}
    is_made_of_people = found.kind == "m" and not people.isdisjoint(found.reads)
    is_part = not people.isdisjoint(_mapped_parents(store, live, found))
    return is_made_of_people or is_part or f"{found.schema}.{found.relation}" in store.elsewhere


def _as_collection(name: str, store: StoreMap, live: LiveSchema) -> str:
    found = live.tables.get(name)
    if found is None or found.schema in {"", store.schema}:
        return f"a collection `{name}`, or `{{personal: false, reason: …}}` for it if no row is a person's"
    return (
        f"a dataset with `store: {store.name}`, `connection: {store.connection}` and `schema: {found.schema}`, and in it a collection "
        f"`{found.relation}`, with `{{personal: false, reason: …}}` if no row is a person's"
    )


def _telling_names(store: StoreMap) -> frozenset[str]:
    """Column names by which a table gives away that its rows belong to somebody."""
    telling = {IDENTITY, store.identity}
    for table in store.personal:
        telling |= {path.subject_column for link in table.owning for path in link.paths if path.direct}
    return frozenset(telling - {"id"})


def _telling_type(store: StoreMap, live: LiveSchema) -> str | None:
    """Type by which a column gives away that it holds an account id: that of the root's, where somebody made one for it."""
    identity = live.column(store.root, store.identity)
    return identity.type if identity is not None and identity.type != identity.base else None


def _children(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Tables that inherit from a personal one: what is done to that is done to their rows, but of their own columns it knows nothing."""
    mapped = [live.tables[name] for name in store.tables if name in live.tables]
    alone = {above for table in mapped for above in table.inherits}
    for name, found in live.tables.items():
        parents = [parent for parent in _mapped_parents(store, live, found) if store.tables[parent].links]
        if name in store.tables or not parents:
            continue
        inherited = {column for parent in parents for column in live.tables[parent].columns}
        own = sorted(set(found.columns) - inherited)
        referring = sorted({key.table for key in live.foreign_keys if key.to_table == name})
        if own:
            what = f"the table `{name}` inherits from `{parents[0]}` and has columns of its own, {names(own)}, which no export would show"
        elif not alone.isdisjoint((*parents, name)):
            what = f"the table `{name}` inherits from `{parents[0]}` beside a table of the data map, so that each stands for its own rows"
        elif referring:
            what = f"the table `{name}` inherits from `{parents[0]}`, and {names(referring)} refers to its rows, which go with an erasure"
        else:
            continue
        yield store.tables[parents[0]].place.problem(what, _as_collection(name, store, live), "name")


def _mapped_parents(store: StoreMap, live: LiveSchema, found: LiveTable) -> list[str]:
    """Mapped tables that a table inherits from, over any hops, the nearest first."""
    above = list(found.inherits)
    for name in above:
        above += [
            parent for parent in (live.tables[name].inherits if name in live.tables else ()) if parent not in above
        ]
    return [name for name in above if name in store.tables]
