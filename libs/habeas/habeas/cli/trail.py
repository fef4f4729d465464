"""`habeas trail REQUEST`: one request's way through all services, as their own tables tell it. Holds nobody's data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from habeas.cli.connection import OPERATOR_DSN, run
from habeas.cli.output import AS_JSON, say, span, write_facts, write_json, write_table

if TYPE_CHECKING:
    import asyncpg

    from habeas.cli.connection import Connection


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened; ``took`` is how long until it was published, of what a service told."""

    at: datetime
    service: str
    what: str
    took: timedelta | None


@click.command(name="trail")
@click.argument("request_id", metavar="REQUEST", type=click.UUID)
@OPERATOR_DSN
@AS_JSON
def trail(request_id: UUID, dsn: str, *, as_json: bool) -> None:
    """Show the way of one REQUEST through all services, also of one that was parked and never became a request.

    Exit code 1 when none of them knows it.
    """
    request, open_work, lines = run(_follow(dsn, request_id))
    if request is None and not lines:
        raise click.ClickException("no service knows this request")
    if as_json:
        plain = [{**asdict(line), "took": None if line.took is None else line.took.total_seconds()} for line in lines]
        write_json({"request": request, "open": open_work, "trail": plain})
        return
    if request is not None:
        closed = request["closed_at"]
        took = span(closed - request["received_at"]) if closed else None
        write_facts({**request, "accepted_at": None, "took": took})
        say("")
    write_table("", ("time", "service", "what", "took"), [(e.at, e.service, e.what, span(e.took)) for e in lines])
    for each in open_work:
        say(f"{each['service']}: {each['what']}" + (f" ({each['stuck_reason']})" if each["stuck_reason"] else ""))


async def _follow(dsn: str, request_id: UUID) -> tuple[Mapping[str, Any] | None, list[Mapping[str, Any]], list[Line]]:
    from habeas.cli import store
    from habeas.cli.connection import connected

    async with connected(dsn) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        request = await store.find_request(conn, request_id)
        lines = [] if request is None else [*_of_request(request)]
        told = {service: await store.find_told(conn, service, request_id) for service in store.SERVICES}
        types = {row["event_id"]: row["type"] for rows in told.values() for row in rows}
        for service in store.SERVICES:
            lines += await _of_service(conn, service, request_id, types, told[service])
        open_work: list[Mapping[str, Any]] = []
        for row in await store.find_states(conn, request_id):
            if row["at"] is None:
                open_work.append({name: row[name] for name in ("service", "what", "stuck_reason", "attempts")})
            else:
                attempts = f", attempt {row['attempts']}" if row["attempts"] > 1 else ""
                lines.append(Line(row["at"], row["service"], row["what"] + attempts, None))
    return None if request is None else dict(request), open_work, sorted(lines, key=lambda line: line.at)


async def _of_service(
    conn: "Connection", service: str, request_id: UUID, types: Mapping[UUID, str], told: "Sequence[asyncpg.Record]"
) -> list[Line]:
    from habeas.cli import store

    taken = await store.find_taken(conn, service, request_id, types)
    logged = await store.find_logged(conn, service, request_id)
    return [
        *(Line(row["at"], service, _message(service, row), None) for row in taken),
        *(Line(row["at"], service, f"tells {row['type']}", row["took"]) for row in told),
        *(Line(row["at"], service, _entry(row), None) for row in logged),
    ]


def _message(service: str, row: "asyncpg.Record") -> str:
    """Say what became of a message that came: taken, or waiting or parked, why, and under which number."""
    if row["state"] in {"handled", "resolved"}:
        return f"takes {row['type']}"
    why = f" ({' '.join(filter(None, (row['reason'], row['field'])))})" if row["reason"] else ""
    number = f" as {service}/{row['inbox_id']}" if row["state"] == "parked" else ""
    return f"has {row['type']} {row['state']}{why}{number}"


def _of_request(request: "asyncpg.Record") -> Iterator[Line]:
    yield Line(request["received_at"], "platform", f"received the request ({request['channel']})", None)


def _entry(row: "asyncpg.Record") -> str:
    """Say an audit entry in short: its action and outcome, with its number where it has one."""
    parts = dict(part.partition("=")[::2] for part in row["entry"].split(" "))
    outcome = f" ({parts['outcome']})" if parts.get("outcome", "-") != "-" else ""
    number = "" if row["seq"] is None else f" as entry {row['seq']}"
    return f"logs {parts.get('action', 'an entry')}{outcome}{number}"
