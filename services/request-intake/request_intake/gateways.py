"""What request-intake reaches outside of its database: the stores, for the spelling of account ids and the address to answer to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from habeas.contracts.model import LANGUAGE_CHARACTERS_MAX
from habeas.datamap.addresses import TEXT_CHARACTERS_MAX
from habeas.datamap.planner.sql import TEXT_TYPES
from habeas.datamap.postgres import ContactDetails, PostgresStore, canonical

_NAME_CHARACTERS_MAX: Final = 1000  # mails show a fifth of it

Spelling: TypeAlias = Callable[[str], str | None]
"""Gives the one spelling of an account id; None for an id that no account can have."""


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

        A store that has the account and no address keeps no other store from being asked; what is too long to be one is none.
        """
        found: dict[str, ContactDetails] = {}
        for store in self._stores:
            missing = [each for each in account_ids if each not in found or not found[each].address]
            if missing:
                for account_id, held in (await store.contacts(missing)).items():
                    contact = _of_bounded_size(held)
                    if contact.address or account_id not in found:
                        found[account_id] = contact
        return found


def _of_bounded_size(held: ContactDetails) -> ContactDetails:
    """Return what a mail can use of a contact: columns of a store may hold texts of any length."""
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
        """Give the rule of spelling. Raises ``StoreError`` while a store that is to tell it does not answer."""
        ...


class StoreIdentities:
    """Follows the types of the identity columns in the stores, asked once in the life of a process."""

    def __init__(self, stores: Sequence[PostgresStore]) -> None:
        self._stores = stores

    async def spelling(self) -> Spelling:
        """Give the rule; an id is spelled by the first type that can hold it, uuid and integers before text, which holds everything."""
        kinds = {await store.identity_type() for store in self._stores}
        order = sorted(kinds, key=lambda kind: (kind in TEXT_TYPES, kind))

        def spelled(account_id: str) -> str | None:
            return next((found for kind in order if (found := canonical(account_id, kind)) is not None), None)

        return spelled
