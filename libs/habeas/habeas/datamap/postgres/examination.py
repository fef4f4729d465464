"""A store's database looked at by hand, with a connection of its own: what differs from the map, and what is worth knowing."""

from dataclasses import dataclass

from habeas.datamap.catalogue.schema import LiveSchema
from habeas.datamap.check import compare, notices
from habeas.datamap.map.model import StoreMap
from habeas.datamap.planner import compile_store
from habeas.datamap.postgres.connection import Link, StoreOptions, read_catalogue
from habeas.datamap.postgres.trial import try_statements, try_values
from habeas.datamap.source import Problem


@dataclass(frozen=True)
class Examination:
    """What `habeas datamap check` says of one store; `notices` are no reason to refuse."""

    problems: tuple[Problem, ...]
    notices: tuple[str, ...]


async def examine(store: StoreMap, dsn: str, variable: str = "the DSN") -> Examination:
    """Compare a map with its database as every erasure does; raises StoreUnavailable, which names ``variable``, or StoreRefused."""
    link = Link(store.name, dsn, store.schema, StoreOptions(connections_max=1), variable)
    try:
        async with link.connection() as conn:
            live = await read_catalogue(conn, store.schema) or LiveSchema({})
            problems = compare(store, live) or await try_values(conn, store, live)
            if not problems:
                problems = await try_statements(conn, store, compile_store(store, live))
            return Examination(problems, notices(store, live))
    finally:
        await link.close()
