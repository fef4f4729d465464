"""Several stores as one: who exists, how they are written to and spelled, and everybody once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import pytest

from habeas.datamap.addresses import TEXT_CHARACTERS_MAX
from habeas.datamap.errors import SchemaMismatch, StoreUnavailable, Unavailability
from habeas.datamap.postgres import ContactDetails, PostgresStore
from habeas.datamap.stores import Store, Stores

UPPER, LOWER = "0197F1C0-5B1E-7C11-8A39-0F6D2C4B9E01", "0197f1c0-5b1e-7c11-8a39-0f6d2c4b9e01"


class People:
    """A store in which these people begin; without any it has no root, and is asked for nobody."""

    def __init__(
        self, name: str, people: Mapping[str, ContactDetails | None] | None = None, kind: str = "text"
    ) -> None:
        self.name = name
        self.root = None if people is None else "accounts"
        self.people = people
        self.kind = kind
        self.is_open = True
        self.refuses_to_close = False

    async def identity_type(self) -> str:
        """Return the type of the identity column."""
        self._require_root()
        return self.kind

    async def existing(self, account_ids: Iterable[str]) -> frozenset[str]:
        """Return those that have a row."""
        return frozenset(account_ids) & self._require_root().keys()

    async def contacts(self, account_ids: Iterable[str]) -> Mapping[str, ContactDetails]:
        """Return what is held of them."""
        people = self._require_root()
        return {each: people[each] or ContactDetails() for each in account_ids if each in people}

    async def account_ids(self, after: str | None, limit: int) -> Sequence[str]:
        """Return a page."""
        return sorted(each for each in self._require_root() if after is None or each > after)[:limit]

    async def close(self) -> None:
        """Close, or refuse to."""
        if self.refuses_to_close:
            raise StoreUnavailable(self.name, Unavailability.CLOSED)
        self.is_open = False

    def _require_root(self) -> Mapping[str, ContactDetails | None]:
        assert self.people is not None, "a store without a root is asked for nobody"
        return self.people


def together(*stores: People) -> Stores:
    """Return them as one."""
    return Stores(cast("list[Store]", list(stores)))


def fulfils(store: PostgresStore) -> Store:
    """Say to mypy that the one connector there is does all that a connector can do."""
    return store


def at(host: str) -> ContactDetails:
    """Return a contact with an address there."""
    return ContactDetails(f"ann@{host}", f"Ann of {host}")


async def everybody(stores: Stores, limit: int) -> list[str]:
    """Return all account ids, page by page."""
    found: list[str] = []
    page = await stores.account_ids(None, None, limit)
    while page is not None:
        found += page.account_ids
        page = await stores.account_ids(page.store, page.last, limit)
    return found


@pytest.mark.parametrize(
    ("kinds", "account_id", "spelled"),
    [
        (["text"], UPPER, UPPER),
        (["uuid"], UPPER, LOWER),
        (["uuid"], "acc_1", None),
        (["text", "uuid"], UPPER, LOWER),
        (["uuid", "text"], UPPER, LOWER),
        (["uuid", "text"], "acc_1", "acc_1"),
        (["text", "bigint"], "007", "7"),
        (["integer", "bigint"], "00000000003000000000", "3000000000"),
        (["integer"], "3000000000", None),
    ],
)
async def test_the_strictest_type_that_can_hold_an_id_spells_it(
    kinds: list[str], account_id: str, spelled: str | None
) -> None:
    """In whatever order the map names the stores: uuid and integers before text, which holds everything; None where no type can."""
    spelling = await together(People("support"), *[People(kind, {}, kind) for kind in kinds]).spelling()
    assert spelling(account_id) == spelled


async def test_the_first_store_that_knows_an_address_gives_it() -> None:
    """In the order of the map; whoever one store has without a usable address is asked for in the others, and stays known."""
    long = ContactDetails("a" * TEXT_CHARACTERS_MAX + "@example.net")
    first = People("z", {"both": at("z"), "bare": None, "blank": ContactDetails(" "), "long": long, "nowhere": None})
    second = People("a", {"both": at("a"), "bare": at("a"), "blank": at("a"), "long": at("a"), "second": at("a")})
    stores = together(first, People("support"), second)
    asked = ["both", "bare", "blank", "long", "nowhere", "second", "unknown"]
    assert await stores.contacts(asked) == {
        "both": at("z"),
        "bare": at("a"),
        "blank": at("a"),
        "long": at("a"),
        "nowhere": ContactDetails(),
        "second": at("a"),
    }
    assert await stores.existing(asked) == set(asked) - {"unknown"}


async def test_an_address_that_nobody_can_use_is_given_where_there_is_no_other() -> None:
    """So that it can be said why nobody is written to; a store without any text gives way to it."""
    long = ContactDetails("a" * TEXT_CHARACTERS_MAX + "@example.net")
    assert await together(People("a", {"one": None}), People("b", {"one": long})).contacts(["one"]) == {"one": long}


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_everybody_is_given_once(limit: int) -> None:
    """Whatever the pages and the order of the map: who has an account in two stores comes with the first by name."""
    some, more = {f"acc_{n}": None for n in range(7)}, {f"acc_{n}": None for n in range(3, 12)}
    stores = together(People("b", more), People("support"), People("a", some), People("c", {}), People("d", some))
    found = await everybody(stores, limit)
    assert sorted(found) == sorted({*some, *more})
    assert len(found) == len(set(found))


async def test_a_page_goes_on_when_its_store_has_left_the_map() -> None:
    """With the next store by name; nobody of the stores that were read before is read again."""
    page = await together(People("b", {"acc_1": None, "acc_2": None})).account_ids(None, None, 1)
    assert page is not None
    rest = together(People("a", {"acc_0": None}), People("c", {"acc_3": None}))
    following = await rest.account_ids(page.store, page.last, 1)
    assert following is not None
    assert following.account_ids == ("acc_3",)


async def test_a_page_without_anybody_new_is_not_the_last() -> None:
    """It says where to go on all the same."""
    stores = together(People("a", {"acc_1": None}), People("b", {"acc_1": None, "acc_2": None}))
    page = await stores.account_ids("a", None, 1)
    assert page is not None
    assert (page.account_ids, page.store, page.last) == ((), "b", "acc_1")
    assert "acc" not in repr(page)


async def test_a_store_that_the_map_lacks_is_a_mismatch() -> None:
    """It is named by the error."""
    with pytest.raises(SchemaMismatch) as raised:
        together(People("a")).named("b")
    assert raised.value.store == "b"


async def test_all_stores_are_closed_also_when_one_does_not_let_go() -> None:
    """The error of the one is told after that."""
    people = [People(name) for name in "abc"]
    people[1].refuses_to_close = True
    with pytest.raises(StoreUnavailable):
        await together(*people).close()
    assert [each.is_open for each in people] == [False, True, False]
