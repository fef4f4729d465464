"""Comparison of a store's data map with its live schema: whatever a person's data could hide in is an error."""

from collections.abc import Iterator

from habeas.datamap.catalogue.schema import LiveSchema, LiveTable
from habeas.datamap.check_links import link_problems
from habeas.datamap.explain import one_of
from habeas.datamap.map.dataset import IDENTITY, Template
from habeas.datamap.map.model import StoreMap, Table, names
from habeas.datamap.planner import PlanError, compile_store
from habeas.datamap.source import Problem


def compare(store: StoreMap, live: LiveSchema) -> tuple[Problem, ...]:
    """Everything in which map and live schema differ so that an erasure or export could miss or hurt something.

    Empty when they agree. Pure: `live` is what one catalogue query told.
    """
    problems = [*_missing(store, live), *_unlisted_columns(store, live), *_unmapped_tables(store, live)]
    for table in store.tables.values():
        found = live.tables.get(table.name)
        if found is not None:
            problems += [*_anonymisable(table, found), *_droppable(table, found)]
    try:
        problems += link_problems(store, live)
    except PlanError as error:
        problems += error.problems
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
        telling |= {path.subject_column for link in table.owning for path in link.paths if path.direct}
    return frozenset(telling - {"id"})


def _anonymisable(table: Table, found: LiveTable) -> Iterator[Problem]:
    """Constants that the database would refuse."""
    for column in {each.name: each for each in (*table.blanked, *table.mentions)}.values():
        live = found.columns.get(column.name)
        if live is not None and live.not_null and column.constant is None:
            what = f"`{table.name}.{column.name}` is NOT NULL and can't be anonymised to null"
            write = '`habeas: {anonymise: {template: "erased-{random}"}}` or a constant, or make the column nullable'
            yield column.place.problem(what, write)
        if column.constant is None or isinstance(column.constant, Template):
            continue
        if _would_clash(found, column.name):
            what = f"`{table.name}.{column.name}` is unique: a constant fits only the first person"
            yield column.place.problem(what, '`habeas: {anonymise: {template: "erased-{random}"}}`, or null')


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
