"""What request-intake reaches outside of its database: the stores, for the address to answer to."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from habeas.datamap.postgres import ContactDetails, PostgresStore


class AddressBook(Protocol):
    """Finds where a person can be written to."""

    async def contacts(self, account_ids: Sequence[str]) -> Mapping[str, ContactDetails]:
        """Return what is known of each account that exists; without ``address`` where no store knows one.

        Raise ``StoreError`` when a store does not answer.
        """
        ...


class StoreAddressBook:
    """Asks the stores that the data map names, in its order; the first that knows an address gives it."""

    def __init__(self, stores: Sequence[PostgresStore]) -> None:
        self._stores = stores

    async def contacts(self, account_ids: Sequence[str]) -> Mapping[str, ContactDetails]:
        """Return what is known of each account that exists, one statement per store.

        A store that has the account and no address keeps no other store from being asked.
        """
        found: dict[str, ContactDetails] = {}
        for store in self._stores:
            missing = [each for each in account_ids if each not in found or not found[each].address]
            if missing:
                for account_id, contact in (await store.contacts(missing)).items():
                    if contact.address or account_id not in found:
                        found[account_id] = contact
        return found
