"""Materialised views, filled anew in the transaction of an erasure, so that both are there or neither."""

from habeas.datamap.planner import StorePlan
from habeas.datamap.planner.sql import quoted
from habeas.datamap.postgres.connection import Connection, Link


async def refresh_views(conn: Connection, link: Link, plan: StorePlan) -> None:
    """Fill the views of a plan anew; one that was never filled is left alone."""
    for name, statement in plan.refreshes:
        with link.told(name):
            if await conn.fetchval(
                "SELECT relispopulated FROM pg_catalog.pg_class WHERE oid = $1::text::regclass", _spelled(plan, name)
            ):
                await conn.execute(statement)


def _spelled(plan: StorePlan, name: str) -> str:
    schema, _, relation = name.rpartition(".")
    return quoted(schema or plan.schema, relation)
