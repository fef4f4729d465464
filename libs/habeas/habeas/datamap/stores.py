"""The stores of a data map: what a connector can do for one of them, and all of them as one.

A store has a root, its table of people, or has none: then it holds rows that carry account ids, and who exists, how they are written to
and how their ids are spelled is asked of the other stores.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

from habeas.contracts.outcomes import TableOutcome
from habeas.datamap.addresses import TEXT_CHARACTERS_MAX
from habeas.datamap.errors import SchemaMismatch, StoreError
from habeas.datamap.planner import ExportPlan, PurgeRule
from habeas.datamap.planner.sql import TEXT_TYPES
from habeas.datamap.postgres import ContactDetails, ExportedRows, PurgeResult, canonical

Guard: TypeAlias = Callable[[], Awaitable[None]]
"""Called when a store is about to commit; what it raises rolls the store back."""

Outcomes: TypeAlias = Mapping[str, tuple[TableOutcome, ...]]
"""Per account, one outcome for each table."""

Spelling: TypeAlias = Callable[[str], str | None]
"""Returns the one spelling of an account id; None for an id that no account can have."""


class Store(Protocol):
    """A connector of one store. Every call may raise ``StoreError``."""

    @property
    def name(self) -> str:
        """Name of the store in outcomes, events and alarms."""
        ...

    @property
    def root(self) -> str | None:
        """The table in which people begin; None in a store that only holds rows of people whom other stores know."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...

    async def check(self) -> None:
        """Compare the live schema with the map. Raise ``SchemaMismatch`` where they differ."""
        ...

    async def identity_type(self) -> str:
        """Return the type of the columns that hold the account id, in PostgreSQL's words."""
        ...

    async def existing(self, account_ids: Iterable[str]) -> frozenset[str]:
        """Return those of the accounts that have a row in the root; none where there is no root."""
        ...

    async def contacts(self, account_ids: Iterable[str]) -> Mapping[str, ContactDetails]:
        """Return what the root knows of each of these accounts that exists; nothing where there is no root."""
        ...

    async def account_ids(self, after: str | None, limit: int) -> Sequence[str]:
        """Return the next account ids of the root in its own fixed order; fewer than ``limit`` means the end."""
        ...

    async def planned(self, account_ids: Sequence[str]) -> Outcomes:
        """Count what an erasure would touch, in one snapshot: an outcome for each table that holds rows of an account."""
        ...

    async def erase(self, account_ids: Iterable[str], guard: Guard | None = None) -> Outcomes:
        """Erase and read again, in one transaction; may be repeated. Raise also what ``guard`` raises, which rolls back."""
        ...

    async def sources(self, *, portable_only: bool = False) -> Sequence[ExportPlan]:
        """Return every table that an export of this kind reads."""
        ...

    def export(self, account_ids: Iterable[str], *, portable_only: bool = False) -> AsyncGenerator[ExportedRows, None]:
        """Return all rows of many accounts, in one snapshot, some rows of one account and one table at a time."""
        ...

    async def purge_rules(self) -> Sequence[PurgeRule]:
        """Return the rules of the retention sweep, children before parents."""
        ...

    async def purge(
        self,
        rule: PurgeRule,
        cutoff: datetime,
        limit: int,
        held: Iterable[str] = (),
        buckets: Sequence[int] | None = None,
    ) -> PurgeResult:
        """Let go what is older than ``cutoff``, at most ``limit`` rows, none of an account in ``held``; may be repeated."""
        ...


@dataclass(frozen=True)
class Page:
    """Some account ids, and where the page ends: after the account ``last`` of ``store``, or with the end of that store for None."""

    account_ids: tuple[str, ...] = field(repr=False)
    store: str
    last: str | None = field(repr=False)


class Stores:
    """All stores that a data map names, in its order. Every call may raise ``StoreError``, which names the store."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = tuple(stores)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stores, in the order of the map."""
        return tuple(store.name for store in self._stores)

    def named(self, name: str) -> Store:
        """Return one store. Raise ``SchemaMismatch`` for one that the map has no more."""
        for store in self._stores:
            if store.name == name:
                return store
        raise SchemaMismatch(name, ())

    async def close(self) -> None:
        """Close every connection of every store, also when one does not let go."""
        async with AsyncExitStack() as closing:
            for store in self._stores:
                closing.push_async_callback(store.close)

    async def check(self) -> Sequence[StoreError]:
        """Compare each store with the map, and count nobody's rows: what is planned once is planned now.

        Return what is wrong with stores instead of raising it, so that one hides nothing about another.
        """
        unfit: list[StoreError] = []
        for store in self._stores:
            try:
                await store.check()
                await store.planned(())
            except StoreError as error:
                unfit.append(error)
        return unfit

    async def spelling(self) -> Spelling:
        """Return the rule by which account ids are spelled: by the first type of a root's identity that can hold them.

        That is uuid and integers before text, which holds everything.
        """
        kinds = {await store.identity_type() for store in self._with_root()}
        order = sorted(kinds, key=lambda kind: (kind in TEXT_TYPES, kind))

        def spelled(account_id: str) -> str | None:
            return next((found for kind in order if (found := canonical(account_id, kind)) is not None), None)

        return spelled

    async def existing(self, account_ids: Iterable[str]) -> frozenset[str]:
        """Return those of the accounts that any store has."""
        return await _existing(self._with_root(), tuple(dict.fromkeys(account_ids)))

    async def contacts(self, account_ids: Iterable[str]) -> Mapping[str, ContactDetails]:
        """Return what is known of each account that exists in any store; the first store that knows an address gives it.

        A store that has the account without an address, or with a text that is too long to be one, keeps no other from being asked.
        """
        asked = tuple(dict.fromkeys(account_ids))
        found: dict[str, ContactDetails] = {}
        for store in self._with_root():
            missing = [each for each in asked if each not in found or _worth(found[each]) < _ADDRESS]
            if missing:
                for account_id, contact in (await store.contacts(missing)).items():
                    if account_id not in found or _worth(contact) > _worth(found[account_id]):
                        found[account_id] = contact
        return found

    async def account_ids(self, store: str | None, last: str | None, limit: int) -> Page | None:
        """Return the page behind the account ``last`` of ``store``, or of the next store where ``last`` is None; None after the last.

        Begin with None for both. Stores come in the order of their names, so that a store that joins or leaves the map meanwhile moves
        no other. Who has an account in a store before is left out, so a page may be short, or empty, and not be the last.
        An account that is made, or moved to another store, while somebody pages may be missed.
        """
        ordered = sorted(self._with_root(), key=lambda each: each.name)
        for at, reading in enumerate(ordered):
            goes_on = reading.name == store and last is not None
            if store is None or reading.name > store or goes_on:
                found = await reading.account_ids(last if goes_on else None, limit)
                given = await _existing(ordered[:at], found)
                fresh = tuple(each for each in found if each not in given)
                return Page(fresh, reading.name, None if len(found) < limit else found[-1])
        return None

    async def plan(self, account_ids: Sequence[str]) -> Outcomes:
        """Count what an erasure would touch, each table with what the data map says will become of its rows."""
        planned: dict[str, tuple[TableOutcome, ...]] = dict.fromkeys(account_ids, ())
        for store in self._stores:
            for account_id, outcomes in (await store.planned(account_ids)).items():
                planned[account_id] += outcomes
        return planned

    async def erase(self, account_ids: Sequence[str], guard: Guard) -> Outcomes:
        """Erase store by store; one that fails leaves those before it erased, which a repetition finds so."""
        done: dict[str, tuple[TableOutcome, ...]] = dict.fromkeys(account_ids, ())
        for store in self._stores:
            for account_id, outcomes in (await store.erase(account_ids, guard)).items():
                done[account_id] += outcomes
        return done

    async def sources(self, *, portable_only: bool) -> Sequence[tuple[str, ExportPlan]]:
        """Return the name of the store and the source for every table that an export reads, also where it turns out to hold nothing."""
        found: list[tuple[str, ExportPlan]] = []
        for store in self._stores:
            found += [(store.name, source) for source in await store.sources(portable_only=portable_only)]
        return found

    async def export(
        self, account_ids: Iterable[str], *, portable_only: bool
    ) -> AsyncGenerator[tuple[str, ExportedRows], None]:
        """Return all rows of many accounts, with the name of their store, one snapshot for each store, some rows at a time.

        Close the iterator (``contextlib.aclosing``) when leaving early: it holds a snapshot open.
        """
        wanted = tuple(account_ids)
        for store in self._stores:
            async with aclosing(store.export(wanted, portable_only=portable_only)) as pieces:
                async for piece in pieces:
                    yield store.name, piece

    def _with_root(self) -> list[Store]:
        return [store for store in self._stores if store.root is not None]


_ADDRESS = 2
"""Worth of a contact with an address; a text that cannot be one is worth less, and no text nothing."""


def _worth(contact: ContactDetails) -> int:
    """Return how much a contact is worth beside that of another store."""
    if not contact.address:
        return 0
    return _ADDRESS if 0 < len(contact.address.strip()) <= TEXT_CHARACTERS_MAX else 1


async def _existing(stores: Sequence[Store], account_ids: Collection[str]) -> frozenset[str]:
    """Return those of the accounts that any of these stores has."""
    found: frozenset[str] = frozenset()
    for store in stores:
        missing = [each for each in account_ids if each not in found]
        if missing:
            found |= await store.existing(missing)
    return found
