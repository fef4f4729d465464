"""Reading a person's rows out: in pieces for many accounts, by COPY for a large one; the database writes the JSON."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias

from habeas.datamap.planner import ExportPlan
from habeas.datamap.postgres.connection import Connection
from habeas.datamap.postgres.ids import AskedIds

Sink: TypeAlias = Callable[[ExportPlan, bytes], Awaitable[None]]


@dataclass(frozen=True)
class ExportedRows:
    """Some rows of one account in one table; each line is one JSON object with the source's columns as keys."""

    account_id: str = field(repr=False)
    source: ExportPlan
    lines: tuple[str, ...] = field(repr=False)


async def read_out(conn: Connection, source: ExportPlan, asked: AskedIds, rows: int) -> AsyncIterator[ExportedRows]:
    """Rows of all accounts through a server-side cursor, `rows` in memory at a time; needs a transaction."""
    cursor = await conn.cursor(source.sql, asked.parameter)
    while records := await cursor.fetch(rows):
        for spelled, group in groupby(records, key=itemgetter(0)):
            lines = tuple(record[1] for record in group)
            for account_id in asked.given(spelled):
                yield ExportedRows(account_id, source, lines)


async def copy_out(conn: Connection, source: ExportPlan, asked: AskedIds, sink: Sink) -> int:
    """Rows of one account as JSON Lines; gives their number."""

    async def take(chunk: bytes) -> None:
        await sink(source, chunk)

    # JSON text holds no control characters, so with these two the CSV form is the text itself, nothing quoted.
    status = await conn.copy_from_query(
        source.copy, asked.parameter, output=take, format="csv", delimiter="\x02", quote="\x01"
    )
    return int(status.split()[-1])
