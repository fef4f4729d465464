"""One spelling of an account id, by PostgreSQL's own word."""

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from habeas.datamap.postgres import canonical

HEX = st.text("0123456789abcdefABCDEF", min_size=32, max_size=32)
OPAQUE = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:\-]{0,40}", fullmatch=True)


def hyphened(digits: str, places: list[bool]) -> str:
    """Put hyphens behind some groups of four digits."""
    groups = [digits[at : at + 4] for at in range(0, 32, 4)]
    return "".join(group + ("-" if place else "") for group, place in zip(groups, [*places, False], strict=True))


UUIDS = st.builds(hyphened, HEX, st.lists(st.booleans(), min_size=7, max_size=7))
NEARLY = st.builds(
    lambda text, at, put: text[:at] + put + text[at:], UUIDS, st.integers(0, 40), st.sampled_from("-_g0:")
)
NUMBERS = st.integers(-(2**64), 2**64).map(str) | st.integers(0, 2**63).map(lambda number: f"000{number}")


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("uuid", UUIDS | NEARLY | OPAQUE),
        ("bigint", NUMBERS | OPAQUE),
        ("integer", NUMBERS | st.integers(-(2**32), 2**32).map(str) | OPAQUE),
        ("smallint", st.integers(-70_000, 70_000).map(str) | OPAQUE),
    ],
)
async def test_an_id_is_spelled_as_postgresql_spells_it(
    empty_database: str, kind: str, texts: st.SearchStrategy[str]
) -> None:
    """What has a canonical form is what the column reads, in the spelling that it gives back; of the rest no two are one value.

    PostgreSQL reads some more forms of integers (`0x1F`, `1_000`); these have none here and are parked.
    """
    spelled: list[str] = []

    @settings(max_examples=300, database=None)
    @given(texts)
    def collect(text: str) -> None:
        spelled.append(text)

    collect()
    connection = await asyncpg.connect(empty_database)
    try:
        for text in spelled:
            try:
                read = await connection.fetchval(f"SELECT $1::text::{kind}::text", text)
            except (asyncpg.InvalidTextRepresentationError, asyncpg.NumericValueOutOfRangeError):
                read = None
            ours = canonical(text, kind)
            if ours is not None or kind == "uuid":
                assert ours == read, text
            elif read is not None:
                assert not text.isdigit(), text
    finally:
        await connection.close()
