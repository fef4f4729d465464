"""The live view of a running fleet: who runs, what waits, how requests stand. Counts only; it shows nobody's data."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import asyncpg
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from habeas_embedded.fleet import Fleet, Member
from habeas_embedded.mailbox import Mailbox
from habeas_embedded.probing import is_ready, read_metrics

__all__ = ["Look", "Observer", "Pace", "render"]

_CONNECT_LIMIT_S: Final = 5.0
_QUERY_LIMIT_S: Final = 2.0
_OFTEN_S: Final = 1.0
_SELDOM_S: Final = 10.0
_SHARE_MAX: Final = 0.1

_COUNT_REQUESTS: Final = """
    SELECT dsr_right, state, count(*) AS requests
      FROM request_intake.requests
     GROUP BY dsr_right, state
     ORDER BY dsr_right, state
"""

_COLUMNS: Final = {
    "waiting": "habeas_inbox_pending_rows",
    "parked": "habeas_inbox_parked_rows",
    "unsent": "habeas_outbox_unpublished_rows",
    "lag": "habeas_kafka_lag_messages",
}


@dataclass(frozen=True)
class Look:
    """What was seen in one look; a count that could not be had is absent, never zero."""

    states: Mapping[str, str]
    restarts: Mapping[str, int]
    counts: Mapping[str, Mapping[str, float]]
    requests: Mapping[tuple[str, str], int] | None
    mails: int | None
    notes: tuple[str, ...] = field(default=())


class Pace:
    """The pause between two looks: 1 s while things change, doubling to 10 s while nothing does.

    Looks that take long, as with millions of requests, are rarer still: looking takes a tenth of the time at most.
    """

    def __init__(self) -> None:
        self._pause_s = _OFTEN_S

    def after(self, took_s: float, *, changed: bool) -> float:
        """Return the pause after a look."""
        self._pause_s = _OFTEN_S if changed else min(self._pause_s * 2, _SELDOM_S)
        return max(self._pause_s, took_s / _SHARE_MAX)


class Observer:
    """Looks at a fleet again and again, over its health ports and as the operator's role, which changes nothing."""

    def __init__(self, fleet: Fleet, operator_dsn: str, mailbox: Mailbox | None) -> None:
        self._fleet = fleet
        self._operator_dsn = operator_dsn
        self._mailbox = mailbox
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def look(self) -> Look:
        """Look once; bounded by the limits of the single questions."""
        members = self._fleet.members
        states = await asyncio.gather(*(_state(member) for member in members))
        metrics = await asyncio.gather(*(read_metrics(member.health_port) for member in members))
        counts = {
            member.name: {column: found[name] for column, name in _COLUMNS.items() if name in found}
            for member, found in zip(members, metrics, strict=True)
        }
        return Look(
            states={member.name: state for member, state in zip(members, states, strict=True)},
            restarts={member.name: member.restarts for member in members},
            counts=counts,
            requests=await self._requests(),
            mails=None if self._mailbox is None else self._mailbox.count(),
        )

    async def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            await self._connection.close()

    async def _requests(self) -> dict[tuple[str, str], int] | None:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self._operator_dsn, timeout=_CONNECT_LIMIT_S)
            rows = await self._connection.fetch(_COUNT_REQUESTS, timeout=_QUERY_LIMIT_S)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None
        return {(row["dsr_right"], row["state"]): row["requests"] for row in rows}


async def _state(member: Member) -> str:
    if not member.child.alive:
        return "down"
    return "ready" if await is_ready(member.health_port) else "not ready"


def render(look: Look) -> RenderableType:
    """Draw one look."""
    services = _table("services")
    for heading in ("service", "state", "restarts", *_COLUMNS):
        services.add_column(heading, justify="left" if heading in ("service", "state") else "right", overflow="fold")
    for name, state in look.states.items():
        style = {"ready": "green", "not ready": "yellow"}.get(state, "red")
        cells = [_number(look.counts[name].get(column), column) for column in _COLUMNS]
        services.add_row(name, Text(state, style), str(look.restarts[name]), *cells)
    requests = _table("requests")
    for heading in ("right", "state", "requests"):
        requests.add_column(heading, justify="right" if heading == "requests" else "left", overflow="fold")
    for (right, state), count in (look.requests or {}).items():
        requests.add_row(right, state, str(count))
    if look.requests is None:
        requests.add_row("?", "not to be seen", "?")
    mails = "" if look.mails is None else f"{look.mails} mails delivered"
    return Group(Columns([services, requests], padding=(0, 3)), Text(mails))


def _table(title: str) -> Table:
    """Make a table without lines around its cells: names and counts of six digits fit into 80 columns, and what does not is wrapped."""
    return Table(title=title, title_justify="left", box=None, pad_edge=False)


def _number(value: float | None, column: str) -> Text:
    if value is None:
        return Text("?", "yellow")
    return Text(f"{value:.0f}", "red" if column == "parked" and value else "")
