"""Reading people's rows out: in pieces, every value as the text that PostgreSQL reads back as the same value."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Final, TypeAlias

import asyncpg

from habeas.datamap.planner import ExportPlan
from habeas.datamap.postgres.connection import Connection
from habeas.datamap.postgres.ids import AskedIds

Row: TypeAlias = tuple[str | None, ...]

_ROWS_FIRST: Final = 100
_FETCH_CHARACTERS_MAX: Final = 4 * 1024 * 1024


@dataclass(frozen=True)
class ExportedRows:
    """Some rows of one account in one table; each has the values of the source's columns, None for NULL."""

    account_id: str = field(repr=False)
    source: ExportPlan
    rows: tuple[Row, ...] = field(repr=False)


async def read_out(conn: Connection, source: ExportPlan, asked: AskedIds, rows_max: int) -> AsyncIterator[ExportedRows]:
    """Rows of all accounts through a server-side cursor; needs a transaction.

    Nobody knows beforehand how wide rows are, and a server sends all of a fetch at once. So the first fetch is a small one, and each
    after it asks for as many rows as fit into some megabytes if all are as wide as the widest so far, at most `rows_max`.
    """
    cursor = await conn.cursor(source.sql, asked.parameter)
    rows, widest = min(_ROWS_FIRST, rows_max), 1
    while records := await cursor.fetch(rows):
        for spelled, group in groupby(records, key=itemgetter(0)):
            found = tuple(record[1:] for record in group)
            for account_id in asked.given(spelled):
                yield ExportedRows(account_id, source, found)
        if len(records) < rows:
            return  # the last ones: nobody needs to know how wide they were
        widest = max(widest, _widest(records))
        rows = max(1, min(rows_max, _FETCH_CHARACTERS_MAX // widest))


def _widest(records: Sequence[asyncpg.Record]) -> int:
    return max(sum(len(value) for value in record if value is not None) for record in records)
