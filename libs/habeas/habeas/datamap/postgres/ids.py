"""Account ids in one spelling: that in which the database gives them back, by the type of the identity column."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from habeas.datamap.planner.sql import CASELESS, TEXT_TYPES

INTEGER_BITS: Final = {"smallint": 16, "integer": 32, "bigint": 64}

# What PostgreSQL 18 reads as a uuid (8.12), apart from braces: a hyphen may follow each group of four digits.
_UUID: Final = re.compile(r"[0-9a-f]{4}(?:-?[0-9a-f]{4}){7}", re.ASCII | re.IGNORECASE)
_TEXT: Final[Mapping[str, Callable[[str], str]]] = {CASELESS: str.lower, "character": lambda text: text.rstrip(" ")}
_DIGITS: Final = re.compile(r"-?[0-9]{1,100}", re.ASCII)


def canonical(account_id: str, kind: str) -> str | None:
    """Return the one spelling of an account id that a column of this type stands for; None when the type cannot hold it.

    A uuid in lower case with hyphens, an integer in decimal without leading zeros, `citext` in lower case, `character` without blanks
    at its end, other text as it is.
    """
    if kind in TEXT_TYPES:
        if "\x00" in account_id:
            return None
        return _TEXT.get(kind, str)(account_id)
    if kind == "uuid":
        if not _UUID.fullmatch(account_id):
            return None
        digits = account_id.replace("-", "").lower()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    if not _DIGITS.fullmatch(account_id):
        return None
    number = int(account_id)
    half = 1 << (INTEGER_BITS[kind] - 1)
    return str(number) if -half <= number < half else None


class AskedIds:
    """The accounts of one call.

    An id that the column's type cannot hold names no account: nothing is held for it, and it must not spoil the batch. Nor does one of
    ``ghosts``, which stand for nobody.
    """

    def __init__(self, account_ids: Iterable[str], kind: str, ghosts: frozenset[str] = frozenset()) -> None:
        self._kind = kind
        self.asked = tuple(dict.fromkeys(account_ids))
        self._given: dict[str, list[str]] = {}
        for account_id in self.asked:
            spelled = canonical(account_id, kind)
            if spelled is not None and spelled not in ghosts:
                self._given.setdefault(spelled, []).append(account_id)

    @property
    def parameter(self) -> list[str]:
        """What is sent as `$1`."""
        return list(self._given)

    def given(self, spelled: str) -> list[str]:
        """The caller's spellings of an id that the database gave back."""
        return self._given.get(canonical(spelled, self._kind) or spelled, [])

    def by_asked(self, spelled: Mapping[str, int]) -> dict[str, int]:
        """Counts by the caller's spelling."""
        return {given: count for each, count in spelled.items() for given in self.given(each)}
