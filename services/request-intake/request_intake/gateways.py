"""What request-intake reaches outside of its database: the stores, for the spelling of account ids and the address to answer to."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from habeas.contracts.model import LANGUAGE_CHARACTERS_MAX
from habeas.datamap.addresses import TEXT_CHARACTERS_MAX
from habeas.datamap.postgres import ContactDetails
from habeas.datamap.stores import Spelling, Stores

__all__ = ["AddressBook", "BoundedAddressBook", "Identities", "Spelling"]

_NAME_CHARACTERS_MAX: Final = 1000  # mails show a fifth of it


class AddressBook(Protocol):
    """Finds where a person can be written to."""

    async def contacts(self, account_ids: Sequence[str]) -> Mapping[str, ContactDetails]:
        """Return what is known of each account that exists; without ``address`` where no store knows one.

        Raise ``StoreError`` when a store does not answer.
        """
        ...


class BoundedAddressBook:
    """Asks all stores; columns of a store may hold texts of any length, so what it returns is cut to what a mail can use."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def contacts(self, account_ids: Iterable[str]) -> Mapping[str, ContactDetails]:
        """Return what is known of each account that exists, one statement per store; what is too long to be an address is none."""
        found = await self._stores.contacts(account_ids)
        return {account_id: _of_bounded_size(held) for account_id, held in found.items()}


def _of_bounded_size(held: ContactDetails) -> ContactDetails:
    """Return what a mail can use of a contact."""
    address = (held.address or "").strip()
    is_language = len(held.language or "") <= LANGUAGE_CHARACTERS_MAX
    return ContactDetails(
        address if 0 < len(address) <= TEXT_CHARACTERS_MAX else None,
        None if held.name is None else held.name[:_NAME_CHARACTERS_MAX],
        held.language if is_language else None,
    )


class Identities(Protocol):
    """Knows how the platform spells account ids."""

    async def spelling(self) -> Spelling:
        """Return the rule of spelling. Raise ``StoreError`` while a store that is to tell it does not answer."""
        ...
