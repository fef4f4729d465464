"""What erasure-executor reaches outside of its database: the stores in which people are erased."""

from collections.abc import Sequence
from typing import Final, Protocol

from typing_extensions import override

from habeas.chassis import log
from habeas.datamap.errors import OthersTouched, StoreError, StoreRefused
from habeas.datamap.stores import Guard, Outcomes, Store, Stores

__all__ = ["Erasable", "Guard", "LoggedStores", "Outcomes"]

_TOLD_MAX: Final = 100


class Erasable(Protocol):
    """All stores of the data map as one, as far as an erasure needs them."""

    async def plan(self, account_ids: Sequence[str]) -> Outcomes:
        """Count what an erasure would touch. Raises ``StoreError``."""
        ...

    async def check(self) -> Sequence[StoreError]:
        """Ask each store whether it still fits the data map; returns what is wrong."""
        ...

    async def erase(self, account_ids: Sequence[str], guard: Guard) -> Outcomes:
        """Erase and read again, one transaction per store; may be repeated. Raises ``StoreError``, and what ``guard`` raises."""
        ...


class LoggedStores(Stores):
    """The stores that the data map names, worked on one after another; what refuses is logged."""

    def __init__(self, stores: Sequence[Store]) -> None:
        super().__init__(stores)
        self._told: set[str] = set()

    @override
    async def erase(self, account_ids: Sequence[str], guard: Guard) -> Outcomes:
        """Erase store by store; a store that fails leaves those before it erased, which a repetition finds so."""
        try:
            return await super().erase(account_ids, guard)
        except (StoreRefused, OthersTouched) as error:
            self._tell(error)
            raise

    def _tell(self, error: StoreRefused | OthersTouched) -> None:
        """Log what refused, table and constraint, once and not for each person and attempt; it names the schema and no row."""
        told = str(error)
        if told not in self._told:
            if len(self._told) >= _TOLD_MAX:
                self._told.clear()
            self._told.add(told)
            log.event("stores.refused", why=log.Words(told), error=error)
