"""Materialised views that an erasure fills anew."""

from collections.abc import Iterator

from habeas.datamap.catalogue.schema import LiveSchema
from habeas.datamap.map.model import StoreMap
from habeas.datamap.planner.sql import quoted, words


def refreshes(store: StoreMap, live: LiveSchema) -> Iterator[tuple[str, str]]:
    """Give each view with its statement, after those that it reads.

    With a unique index others may go on reading it meanwhile. One that was never filled holds nothing, and stays so.
    """
    views = [live.tables[name] for name, table in store.tables.items() if table.materialised and name in live.tables]
    mapped = {view.name for view in views}
    # What a view reads names also what those read that it reads: fewer of them always come first.
    for view in sorted(views, key=lambda view: (len(mapped & set(view.reads)), view.name)):
        name = quoted(view.schema or store.schema, view.relation)
        yield view.name, words("REFRESH MATERIALIZED VIEW", "CONCURRENTLY" if view.keys else "", name)
