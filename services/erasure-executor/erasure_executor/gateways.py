"""What erasure-executor reaches outside of its database: the stores in which people are erased."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from habeas.chassis import log
from habeas.contracts.outcomes import TableOutcome
from habeas.datamap.errors import OthersTouched, StoreRefused
from habeas.datamap.postgres import PostgresStore

_TOLD_MAX: Final = 100

Guard = Callable[[], Awaitable[None]]
"""Called when a store is about to commit; what it raises rolls the store back."""

Outcomes = Mapping[str, tuple[TableOutcome, ...]]
"""Per account, what became of its rows in each table of every store, one outcome for each result."""


class Stores(Protocol):
    """All stores of the data map as one."""

    async def plan(self, account_ids: Sequence[str]) -> Outcomes:
        """Count what an erasure would touch. Raises ``StoreError``."""
        ...

    async def check(self) -> None:
        """Ask each store whether it still fits the data map. Raises ``StoreError``."""
        ...

    async def erase(self, account_ids: Sequence[str], guard: Guard) -> Outcomes:
        """Erase and read again, one transaction per store; may be repeated. Raises ``StoreError``, and what ``guard`` raises."""
        ...


class MappedStores:
    """The stores that the data map names, worked on one after another."""

    def __init__(self, stores: Sequence[PostgresStore]) -> None:
        self._stores = stores
        self._told: set[str] = set()

    async def plan(self, account_ids: Sequence[str]) -> Outcomes:
        """Count rows per table and result, by what an erasure would do now."""
        planned: dict[str, tuple[TableOutcome, ...]] = dict.fromkeys(account_ids, ())
        for store in self._stores:
            for account_id, outcomes in (await store.planned(account_ids)).items():
                planned[account_id] += outcomes
        return planned

    async def check(self) -> None:
        """Compare each store with the map, and count nobody's rows: what is planned once is planned now."""
        for store in self._stores:
            await store.check()
            await store.locate(())

    async def erase(self, account_ids: Sequence[str], guard: Guard) -> Outcomes:
        """Erase store by store; a store that fails leaves those before it erased, which a repetition finds so."""
        done: dict[str, tuple[TableOutcome, ...]] = dict.fromkeys(account_ids, ())
        for store in self._stores:
            try:
                erased = await store.erase(account_ids, guard)
            except (StoreRefused, OthersTouched) as error:
                self._tell(error)
                raise
            for account_id, outcomes in erased.items():
                done[account_id] += outcomes
        return done

    def _tell(self, error: StoreRefused | OthersTouched) -> None:
        """Log what refused, table and constraint, once and not for each person and attempt; it names the schema and no row."""
        told = str(error)
        if told not in self._told:
            if len(self._told) >= _TOLD_MAX:
                self._told.clear()
            self._told.add(told)
            log.event("stores.refused", why=log.Words(told), error=error)
