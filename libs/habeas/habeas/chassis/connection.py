"""Connections to PostgreSQL that know its own types: the driver asks the server about them once in a process, not once in a connection."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Final

import asyncpg

# PostgreSQL assigns the numbers of its own types below this one by hand and never changes them (its documentation, 52.3).
_ASSIGNED_BY_HAND: Final = 10_000

_ARRAYS: Final = frozenset({1000, 1001, 1005, 1007, 1009, 1016, 1022, 1182, 1185, 1187, 1231, 2951, 3807})
"""Arrays that parameters have: bool, bytea, int2, int4, text, int8, float8, date, timestamptz, interval, numeric, uuid, jsonb."""

_KNOWN: Final[dict[frozenset[int], object]] = {}
_NOT_ASKED: Final = SimpleNamespace(name="not asked")


class Connection(asyncpg.Connection):
    """A connection of asyncpg. Its question about unknown types costs ten milliseconds and more, several times for each connection."""

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> tuple[object, object]:
        """Give what is known of PostgreSQL's own types; types that were made in a database are asked for each time."""
        asked = frozenset(typeoids)
        wanted = _ARRAYS if asked.issubset(_ARRAYS) else asked  # all of them at the first need of one, then never again
        known = _KNOWN.get(wanted)
        if known is not None:
            return known, _NOT_ASKED
        types, statement = await super()._introspect_types(wanted, timeout)  # type: ignore[misc]  # asyncpg-stubs leave out what is private; there is no public hook
        if all(oid < _ASSIGNED_BY_HAND for oid in wanted):
            _KNOWN[wanted] = types
        return types, statement


__all__ = ["Connection"]
