"""Export from a real PostgreSQL: whole, without secrets, exact, in bounded memory."""

import json
import resource
from collections import defaultdict
from contextlib import aclosing

import pytest

from habeas.datamap.errors import SchemaMismatch
from tests.integration.datamap.conftest import PEOPLE, Shop

ONE = PEOPLE[7]


async def _exported(
    shop: Shop, *people: str, portable_only: bool = False
) -> dict[str, dict[str, list[dict[str, str | None]]]]:
    found: dict[str, dict[str, list[dict[str, str | None]]]] = {person: defaultdict(list) for person in people}
    async with aclosing(shop.store.export(people, portable_only=portable_only)) as pieces:
        async for piece in pieces:
            columns = piece.source.columns
            found[piece.account_id][piece.source.table] += [dict(zip(columns, row, strict=True)) for row in piece.rows]
    return found


async def test_exports_every_row_of_each_person(shop: Shop) -> None:
    """Each of several people gets their own rows of every table, and nobody else's."""
    found = await _exported(shop, *PEOPLE[3:6], "acc_unknown")
    for person in PEOPLE[3:6]:
        rows = {table: len(lines) for table, lines in found[person].items()}
        assert rows == {"accounts": 1, "contents": 8, "invoices": 1, "logs": 3, "profiles": 1, "steps": 4, "tasks": 2}
        everything = json.dumps(found[person])
        assert not any(other in everything for other in PEOPLE if other != person)
    assert found["acc_unknown"] == {}


async def test_leaves_secrets_and_named_columns_out(shop: Shop) -> None:
    """A secret is not even named; a column that is named only is named, and its value never read."""
    found = await _exported(shop, ONE)
    assert set(found[ONE]["accounts"][0]) == {"id", "email", "name", "language", "closed_at"}
    assert set(found[ONE]["profiles"][0]) == {"account_id", "bio"}
    sources = {source.table: source for source in await shop.store.sources()}
    assert sources["profiles"].named == ("region",)
    assert sources["accounts"].named == ()


async def test_portability_has_no_derived_columns(shop: Shop) -> None:
    """What the controller derived is not portable (Art. 20(1); WP 242 rev.01, II); access shows it all the same."""
    access, portable = await _exported(shop, ONE), await _exported(shop, ONE, portable_only=True)
    assert "score" in access[ONE]["tasks"][0]
    assert "score" not in portable[ONE]["tasks"][0]
    assert "prompt" in portable[ONE]["tasks"][0]


async def test_values_keep_their_text(shop: Shop) -> None:
    """Quotes, line breaks, unusual letters and stored JSON come out as they are, and instants in ISO 8601."""
    text = 'a "quote", a \\ backslash,\na line\tand € 𝄞 \x01\x02'
    await shop.owner.execute("UPDATE tasks SET prompt = $2 WHERE account_id = $1", ONE, text)
    found = await _exported(shop, ONE)
    assert [task["prompt"] for task in found[ONE]["tasks"]] == [text, text]
    assert found[ONE]["tasks"][0]["notes"] == '{"a":\n1}'
    assert found[ONE]["tasks"][0]["created_at"] == "2026-11-01T10:00:00+00:00"


async def test_export_stops_at_an_unknown_table(shop: Shop) -> None:
    """A table that the map lacks stops the export: a reply that leaves something out is not an answer."""
    await shop.owner.execute("CREATE TABLE visits (account_id text)")
    with pytest.raises(SchemaMismatch):
        await _exported(shop, ONE)


async def test_wide_rows_are_fetched_a_few_at_a_time(shop: Shop) -> None:
    """Sixty megabytes in rows of 200 kB: once one of them was seen, no more than 4 MiB are fetched at once."""
    await shop.owner.execute(
        "INSERT INTO logs SELECT n, $1, '2026-11-24T00:00Z'::timestamptz + n * interval '1 ms', repeat('x', 200000)"
        " FROM generate_series(1, 300) AS n",
        ONE,
    )
    async with aclosing(shop.store.export([ONE])) as pieces:
        fetched = [
            sum(len(row[3] or "") for row in piece.rows) async for piece in pieces if piece.source.table == "logs"
        ]
    assert sum(fetched) == 300 * 200_000 + 3 * len("line")
    assert max(fetched[1:]) <= 4 * 1024 * 1024


async def test_large_person_in_bounded_memory(shop: Shop) -> None:
    """Forty megabytes of one person pass through with far less memory than they take."""
    await shop.owner.execute(
        "INSERT INTO logs SELECT n, $1, '2026-11-24T00:00Z'::timestamptz + n * interval '1 ms', repeat('x', 400)"
        " FROM generate_series(1, 100000) AS n",
        ONE,
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with aclosing(shop.store.export([ONE])) as pieces:
        rows = sum([len(piece.rows) async for piece in pieces if piece.source.table == "logs"])
    assert rows == 100_003
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 24 * 1024  # KiB
