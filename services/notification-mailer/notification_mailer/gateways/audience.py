"""The account holders of all stores, and where they can be written to."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from habeas.datamap.postgres import ContactDetails, PostgresStore


class Audience(Protocol):
    """Everybody whom a change of the policy concerns."""

    @property
    def stores(self) -> Sequence[str]:
        """Names of the stores, in the order in which they are read."""
        ...

    async def account_ids(self, store: str, after: str | None, limit: int) -> Sequence[str]:
        """Give the next account ids of a store in its own fixed order; fewer than ``limit`` means the end.

        Raises ``StoreError`` when the store does not answer.
        """
        ...

    async def contacts(self, account_ids: Iterable[str]) -> Mapping[str, ContactDetails]:
        """Give the contact of each account that still exists. Raises ``StoreError`` when a store does not answer."""
        ...


class StoreAudience:
    """Asks the stores that the data map names; the first that knows an address gives it."""

    def __init__(self, stores: Sequence[PostgresStore]) -> None:
        self._stores = {store.name: store for store in stores}

    @property
    def stores(self) -> Sequence[str]:
        """Names of the stores, in one order in every process."""
        return sorted(self._stores)

    async def account_ids(self, store: str, after: str | None, limit: int) -> Sequence[str]:
        """Give the next page of a store's account ids, one statement."""
        return await self._stores[store].account_ids(after, limit)

    async def contacts(self, account_ids: Iterable[str]) -> Mapping[str, ContactDetails]:
        """Give the contact of each account that has one, one statement per store."""
        found: dict[str, ContactDetails] = {}
        asked = sorted(set(account_ids))
        for name in self.stores:
            missing = [account_id for account_id in asked if account_id not in found]
            if missing:
                contacts = await self._stores[name].contacts(missing)
                found.update({account_id: each for account_id, each in contacts.items() if each.address})
        return found
