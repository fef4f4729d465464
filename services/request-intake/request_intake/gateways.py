"""What request-intake reaches outside of its database: the stores, for the address to answer to."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from habeas.datamap.postgres import ContactDetails, PostgresStore


class AddressBook(Protocol):
    """Finds where a person can be written to."""

    async def contacts(self, account_ids: Sequence[str]) -> Mapping[str, ContactDetails]:
        """Give the contact of each account that has one. Raises ``StoreError`` when a store does not answer."""
        ...


class StoreAddressBook:
    """Asks the stores that the data map names, in its order; the first that knows an address gives it."""

    def __init__(self, stores: Sequence[PostgresStore]) -> None:
        self._stores = stores

    async def contacts(self, account_ids: Sequence[str]) -> Mapping[str, ContactDetails]:
        """Give the contact of each account that has one, one statement per store."""
        found: dict[str, ContactDetails] = {}
        for store in self._stores:
            missing = [account_id for account_id in account_ids if account_id not in found]
            if missing:
                found.update(await store.contacts(missing))
        return found
