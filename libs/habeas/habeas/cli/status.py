"""`habeas status`: how requests stand, and what waits, is stuck or parked. Counts only; nobody's data."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from habeas.cli.connection import OPERATOR_DSN, run
from habeas.cli.output import AS_JSON, age, say, write_json, write_table

if TYPE_CHECKING:
    import asyncpg


@click.command(name="status")
@OPERATOR_DSN
@AS_JSON
def status(dsn: str, *, as_json: bool) -> None:
    """Say how requests stand, and what waits, is stuck or parked."""
    from habeas.chassis.clock import SystemClock

    seen = run(_look(dsn))
    if as_json:
        write_json(seen)
    else:
        _show(seen, SystemClock().now())


async def _look(dsn: str) -> dict[str, Any]:
    """Look once; every count is of the same moment."""
    from habeas.cli import store
    from habeas.cli.connection import connected

    async with connected(dsn) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        requests = [dict(row) for row in await store.count_requests(conn)]
        work = [dict(row) for row in await store.count_work(conn)]
        services = []
        for service in store.SERVICES:
            found: asyncpg.Record | None = await store.count_delivery(conn, service)
            services.append({"service": service, **(dict(found) if found else {})})
    return {"requests": requests, "services": services, "work": work}


def _show(seen: Mapping[str, Any], now: datetime) -> None:
    if seen["requests"]:
        rows: list[tuple[object, ...]] = [
            (
                each["dsr_right"],
                each["state"],
                each["requests"],
                each["stuck"],
                age(each["oldest_at"], now),
                each["next_due_on"],
            )
            for each in seen["requests"]
        ]
        write_table("requests", ("right", "state", "requests", "stuck", "oldest", "next due"), rows)
    else:
        say("no requests yet")
    rows = [
        (
            each["service"],
            each["waiting"],
            each["parked"],
            age(each["oldest_waiting_at"], now),
            each["unpublished"],
            each["unlogged"],
            age(each["oldest_unpublished_at"], now),
        )
        for each in seen["services"]
    ]
    say("")
    write_table("messages", ("service", "waiting", "parked", "oldest", "unpublished", "not logged", "oldest"), rows)
    if seen["work"]:
        say("")
        rows = [tuple(each[name] for name in ("service", "work", "state", "reason", "rows")) for each in seen["work"]]
        write_table("unfinished work", ("service", "what", "state", "reason", "count"), rows)
