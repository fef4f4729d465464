"""Copies of personal data that the database itself keeps: materialised views, large objects, publications."""

from collections.abc import Iterator

from habeas.datamap.catalogue.schema import LiveSchema
from habeas.datamap.check.acting import LARGE_OBJECTS
from habeas.datamap.map.model import StoreMap, Table, names
from habeas.datamap.source import Problem


def copies(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    """Copies that an erasure would leave behind."""
    yield from _materialised(store, live)
    for table in store.personal:
        yield from _large_objects(table, live)


def notices(store: StoreMap, live: LiveSchema) -> tuple[str, ...]:
    """What is no mistake of the map, but worth knowing: where rows of people leave the database."""
    told = [
        f"rows of {names([table.name])} leave the database by the publication {names(live.tables[table.name].publications)}"
        for table in store.personal
        if table.name in live.tables and live.tables[table.name].publications
    ]
    if live.slots:
        told.append(f"changes leave the database by the logical replication slots {names(live.slots)}")
    return tuple(told)


def _materialised(store: StoreMap, live: LiveSchema) -> Iterator[Problem]:
    people = {table.name for table in store.personal}
    for name, found in live.tables.items():
        table = store.tables.get(name)
        if found.kind != "m":
            if table is not None and table.materialised:
                what = f"`{name}` is no materialised view, so nothing fills it anew"
                yield table.place.problem(what, "no `materialised`", "habeas", "materialised")
            continue
        read = sorted(people & set(found.reads))
        write = "`{materialised: refresh}`, or `{personal: false, reason: …}` if nothing in it is about a single person"
        if table is None and read:
            what = f"the table `{name}` is not in the data map, but as a materialised view it keeps what it read of {names(read)}"
            yield store.place.problem(what, f"a collection `{name}` with {write}", "collections")
        elif table is not None and table.personal:
            what = f"`{name}` is a materialised view, of which no row can be deleted or changed"
            yield table.place.problem(what, write, "habeas")


def _large_objects(table: Table, live: LiveSchema) -> Iterator[Problem]:
    """Numbers of large objects: these stay when the row goes, unless a trigger of the extension `lo` removes them."""
    found = live.tables.get(table.name)
    for column in table.columns:
        known = found.columns.get(column.name) if found is not None else None
        if found is None or known is None or not known.is_large_object:
            if column.large_object is not None and known is not None:
                what = f"`{table.name}.{column.name}` ({known.type}) is no number of a large object"
                yield column.place.problem(what, "no `large_object`", "habeas", "large_object")
            continue
        if column.large_object is None:
            what = f"`{table.name}.{column.name}` ({known.type}) may be the number of a large object, which stays when the row goes"
            yield column.place.problem(what, "`habeas: {large_object: true}` if it is one, `false` if not", "habeas")
        elif column.large_object and not any(
            trigger.enabled
            and trigger.function.endswith(LARGE_OBJECTS)
            and column.name in trigger.arguments
            and {"update", "delete"} <= set(trigger.events)
            for trigger in found.triggers
        ):
            what = f"nothing removes the large object of `{table.name}.{column.name}` when its row goes"
            write = (
                f"`CREATE TRIGGER … BEFORE UPDATE OR DELETE ON {table.name} FOR EACH ROW EXECUTE FUNCTION lo_manage({column.name})` in the "
                "database, with its extension `lo`"
            )
            yield column.place.problem(what, write, "habeas", "large_object")
