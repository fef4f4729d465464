"""The type in which a store is asked for account ids."""

from collections.abc import Iterable
from typing import Final

from habeas.datamap.catalogue.schema import LiveSchema
from habeas.datamap.map.model import StoreMap
from habeas.datamap.map.paths import SubjectPath
from habeas.datamap.planner.sql import INTEGER_TYPES
from habeas.datamap.source import Problem

_ANY_TEXT: Final = frozenset({"text", "character varying"})
_WIDTHS: Final = ("smallint", "integer", "bigint")


def identity_type(store: StoreMap, live: LiveSchema, problems: list[Problem]) -> str:
    """Return the type of the root's identity; without a root that in which all columns that hold account ids agree.

    No root there says which spelling is right, so columns that spell the same id otherwise are a problem.
    """
    if store.has_root:
        return live.type_of(store.root, store.identity) or ""
    held = [
        (table, f"{path.tables[-1]}.{path.subject_column}", _kind(path, live))
        for table in store.personal
        for link in table.links
        for path in link.paths
        if path.within is None or path.within.keys is None  # ids in JSON are compared as texts
    ]
    agreed = _agreed({kind for _, _, kind in held})
    if agreed is None:
        _, first, expected = held[0]
        for table, column, kind in held:
            if _agreed({kind, expected}) is None:
                what = f"`{first}` ({expected}) and `{column}` ({kind}) hold account ids in types that spell them otherwise"
                problems.append(table.place.problem(what, "the same type for both columns"))
    return agreed or ""


def _kind(path: SubjectPath, live: LiveSchema) -> str:
    kind = live.type_of(path.tables[-1], path.subject_column) or ""
    return kind if path.within is None else kind.removesuffix("[]")


def _agreed(kinds: Iterable[str]) -> str | None:
    """Return the type that holds the ids of all of these, each spelled as its own column spells it; None where there is none."""
    found = set(kinds)
    if found <= INTEGER_TYPES and found:
        return max(found, key=_WIDTHS.index)
    if found <= _ANY_TEXT:
        return "text"
    return found.pop() if len(found) == 1 else None
