"""Account ids as a caller spells them, and as the database spells the same ones back."""

from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

from habeas.datamap.planner.sql import TEXT_TYPES

INTEGER_BITS: Final = {"smallint": 16, "integer": 32, "bigint": 64}


class AskedIds:
    """The accounts of one call.

    An id that the column's type cannot hold names no account: nothing is held for it, and it must not spoil the batch.
    """

    def __init__(self, account_ids: Iterable[str], kind: str) -> None:
        self.asked = tuple(dict.fromkeys(account_ids))
        self._given: dict[str, list[str]] = {}
        for account_id in self.asked:
            spelled = _spelled(account_id, kind)
            if spelled is not None:
                self._given.setdefault(spelled, []).append(account_id)

    @property
    def parameter(self) -> list[str]:
        """What is sent as `$1`."""
        return list(self._given)

    def given(self, spelled: str) -> list[str]:
        """The caller's spellings of an id that the database gave back."""
        return self._given.get(spelled, [])

    def by_asked(self, spelled: Mapping[str, int]) -> dict[str, int]:
        """Counts by the caller's spelling."""
        return {given: count for each, count in spelled.items() for given in self.given(each)}


def _spelled(account_id: str, kind: str) -> str | None:
    if kind in TEXT_TYPES:
        return None if "\x00" in account_id else account_id
    if kind == "uuid":
        try:
            return str(UUID(account_id))
        except ValueError:
            return None
    bits = INTEGER_BITS[kind]
    digits = account_id.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > len(str(1 << bits)):
        return None
    number = int(account_id)
    # "007" names nobody: the database would not spell it so.
    fits = -(1 << (bits - 1)) <= number < 1 << (bits - 1)
    return account_id if fits and str(number) == account_id else None
