"""The account holders of all stores, and where they can be written to."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from habeas.datamap.postgres import ContactDetails
from habeas.datamap.stores import Page


class Audience(Protocol):
    """Everybody whom a change of the policy concerns; what the stores of the data map are together."""

    async def account_ids(self, store: str | None, last: str | None, limit: int) -> Page | None:
        """Return the page behind the account ``last`` of ``store``, or of the next store where ``last`` is None; None after the last.

        Raise ``StoreError`` when a store does not answer.
        """
        ...

    async def contacts(self, account_ids: Iterable[str]) -> Mapping[str, ContactDetails]:
        """Return the contact of each account that still exists. Raise ``StoreError`` when a store does not answer."""
        ...
