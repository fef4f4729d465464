"""Opening requests: one that does not open holds nobody else up, and is opened once what was missing is there again."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeAlias, cast
from uuid import UUID

import pytest
from typing_extensions import override

from habeas.chassis.clock import FakeClock
from habeas.contracts.vocabulary import StuckReason
from habeas.datamap.errors import StoreRefused, StoreUnavailable, Unavailability
from habeas.datamap.postgres import ContactDetails
from habeas.datamap.stores import Store, Stores
from habeas.sealing import KeyKind, Place, open_text
from request_intake import lifecycle, sweeps
from request_intake.gateways import BoundedAddressBook
from request_intake.lifecycle import Decision, Request
from request_intake.store import COUNT_STUCK
from tests.integration.request_intake.conftest import Counter

Mend: TypeAlias = Callable[[], Awaitable[None]]

LOOK = "SELECT subject_id, state, stuck_reason FROM request_intake.requests"
SET_ACCOUNT = "UPDATE request_intake.requests SET account = $1 WHERE subject_id = $2"
STUCK_FACTS = "SELECT count(*) FROM request_intake.audit_outbox WHERE tail LIKE '%request.stuck%key\\_missing%'"


class NoAddresses:
    """An address book that knows nobody."""

    async def contacts(self, _: Sequence[str]) -> Mapping[str, ContactDetails]:
        """Nobody has an address."""
        return {}


class Known:
    """A store's contacts, as an address book or a store gives them."""

    root = "accounts"

    def __init__(self, **known: ContactDetails) -> None:
        self.known = known

    async def contacts(self, account_ids: Sequence[str]) -> Mapping[str, ContactDetails]:
        """Those of them that exist here."""
        return {each: self.known[each] for each in account_ids if each in self.known}


async def states(counter: Counter) -> dict[str, tuple[str, str | None]]:
    """State and reason by subject."""
    rows = await counter.db.read("test-look", LOOK)
    return {str(row["subject_id"]): (row["state"], row["stuck_reason"]) for row in rows}


async def stuck_facts(counter: Counter) -> int:
    """How often the log was told that something is stuck."""
    (row,) = await counter.db.read("test-look", STUCK_FACTS)
    return int(row["count"])


async def spoil_account(counter: Counter, subject: UUID) -> Mend:
    """Alter the sealed account of a request; gives what puts it right."""
    (row,) = await counter.db.read(
        "test-look", "SELECT account FROM request_intake.requests WHERE subject_id = $1", subject
    )
    await counter.owner.execute(SET_ACCOUNT, row["account"][:-4] + "AAAA", subject)

    async def mend() -> None:
        await counter.owner.execute(SET_ACCOUNT, row["account"], subject)

    return mend


async def lose_case_key(counter: Counter, subject: UUID) -> Mend:
    """Take away the case key of a person; gives what brings it back."""
    await counter.owner.execute("CREATE TABLE public.lost AS SELECT * FROM sealing.subject_keys WHERE kind = 'case'")
    await counter.owner.execute("DELETE FROM sealing.subject_keys WHERE kind = 'case' AND subject_id = $1", subject)

    async def mend() -> None:
        await counter.owner.execute("INSERT INTO sealing.subject_keys TABLE public.lost ON CONFLICT DO NOTHING")

    return mend


class Picky(NoAddresses):
    """An address book that does not answer when somebody is asked for."""

    def __init__(self, bad: str, error: Exception) -> None:
        self._bad = bad
        self._error = error

    @override
    async def contacts(self, account_ids: Sequence[str]) -> Mapping[str, ContactDetails]:
        """Fail for one of the accounts, and so for all that are asked for with it."""
        if self._bad in account_ids:
            raise self._error
        return {each: ContactDetails(f"{each}@example.org", None, None) for each in account_ids}


class Away(NoAddresses):
    """An address book whose store is away."""

    asked = 0

    @override
    async def contacts(self, account_ids: Sequence[str]) -> Mapping[str, ContactDetails]:
        """Nobody answers."""
        self.asked += 1
        raise StoreUnavailable("platform", Unavailability.NO_CONNECTION)


def wait_out(counter: Counter) -> None:
    """Let the pause of what could not be opened pass."""
    cast("FakeClock", counter.db.clock).advance(timedelta(minutes=1))


@pytest.mark.parametrize("what", ["account", "case key"])
async def test_one_that_does_not_open_holds_nobody_up(counter: Counter, what: str) -> None:
    """Whoever came before and after it is opened; it stays received with the reason, told once, until it opens after all."""
    first, broken, last = [await counter.submit(account) for account in ("acc_1", "acc_2", "acc_3")]
    mend = await (spoil_account(counter, broken) if what == "account" else lose_case_key(counter, broken))
    keys, nobody = counter.desk.keys, NoAddresses()

    swept = await sweeps.open_received(counter.db, nobody, keys)
    assert (swept.handled, swept.more) == (3, False)
    for _ in range(2):
        assert (await sweeps.open_received(counter.db, nobody, keys)).handled == 0
        wait_out(counter)
        assert (await sweeps.open_received(counter.db, nobody, keys)).handled == 1
    found = await states(counter)
    assert found[str(broken)] == ("received", StuckReason.KEY_MISSING)
    assert {found[str(subject)] for subject in (first, last)} == {("awaiting_identity", StuckReason.NEEDS_IDENTITY)}
    assert await stuck_facts(counter) == 1

    await mend()
    assert (await sweeps.open_received(counter.db, nobody, keys)).handled == 0
    wait_out(counter)
    assert (await sweeps.open_received(counter.db, nobody, keys)).handled == 1
    assert (await states(counter))[str(broken)] == ("awaiting_identity", StuckReason.NEEDS_IDENTITY)


async def test_how_each_can_be_answered_is_found_out_when_the_request_is_opened(counter: Counter) -> None:
    """Whoever has an address in any store is written to; an account without one is the platform's, and nobody's is not reachable."""
    addressed, bare, blank, gone = [await counter.submit(f"acc_{number}") for number in (1, 2, 3, 4)]
    nameless = ContactDetails()
    first = Known(acc_1=nameless, acc_2=nameless, acc_3=ContactDetails(" "))
    second = Known(acc_1=ContactDetails("ann@example.net"))
    book = BoundedAddressBook(Stores(cast("Sequence[Store]", [first, second])))
    await sweeps.open_received(counter.db, book, counter.desk.keys)
    rows = await counter.db.read(
        "test-look", "SELECT subject_id, reach, contact IS NOT NULL AS has_contact FROM request_intake.requests"
    )
    found = {row["subject_id"]: (row["reach"], row["has_contact"]) for row in rows}
    assert [found[each] for each in (addressed, bare, blank, gone)] == [
        ("mail", True),
        ("platform", False),
        ("platform", False),
        ("not_reachable", False),
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StoreRefused("platform", "accounts", "22P02"), StuckReason.STORE_REFUSED),
        (StoreUnavailable("platform", Unavailability.NO_CONNECTION), StuckReason.STORE_UNAVAILABLE),
        (KeyError(), StuckReason.UNEXPECTED),
    ],
    ids=["refused", "brings the server down", "unforeseen"],
)
async def test_one_account_that_a_store_objects_to_holds_nobody_up(
    counter: Counter, error: Exception, reason: StuckReason
) -> None:
    """All others are opened in the first round; the one says why, and is opened by itself later."""
    subjects = {account: await counter.submit(account) for account in (f"acc_{number}" for number in range(30))}
    keys, bad = counter.desk.keys, "acc_17"
    await sweeps.open_received(counter.db, Picky(bad, error), keys)
    found = await states(counter)
    assert {account for account in subjects if found[str(subjects[account])][0] == "received"} == {bad}
    assert found[str(subjects[bad])] == ("received", reason)
    wait_out(counter)
    await sweeps.open_received(counter.db, NoAddresses(), keys)
    assert {state for state, _ in (await states(counter)).values()} == {"awaiting_identity"}


async def test_requests_say_that_a_store_is_away(counter: Counter) -> None:
    """All wait with the reason; the store is not asked for each of them, and they are opened once it answers."""
    for number in range(10):
        await counter.submit(f"acc_{number}")
    away = Away()
    await sweeps.open_received(counter.db, away, counter.desk.keys)
    assert away.asked == 3
    assert set((await states(counter)).values()) == {("received", StuckReason.STORE_UNAVAILABLE)}
    wait_out(counter)
    await sweeps.open_received(counter.db, NoAddresses(), counter.desk.keys)
    assert {state for state, _ in (await states(counter)).values()} == {"awaiting_identity"}


async def test_one_request_that_cannot_be_decided_holds_nobody_up(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody foresaw is that request's own."""
    subjects = [await counter.submit(f"acc_{number}") for number in range(5)]
    decide = lifecycle.open_request

    def spoiled(request: Request, *args: Any, **more: Any) -> Decision:
        if request.subject_id == subjects[2]:
            raise AttributeError
        return decide(request, *args, **more)

    monkeypatch.setattr(lifecycle, "open_request", spoiled)
    await sweeps.open_received(counter.db, NoAddresses(), counter.desk.keys)
    found = await states(counter)
    assert [found[str(subject)] for subject in subjects] == [
        ("received", StuckReason.UNEXPECTED) if number == 2 else ("awaiting_identity", StuckReason.NEEDS_IDENTITY)
        for number in range(5)
    ]


OLD_LANGUAGE = "UPDATE request_intake.requests SET language = $1 WHERE subject_id = $2"
OLD_CATEGORIES = "UPDATE request_intake.requests SET is_verified = true, categories = $1 WHERE subject_id = $2"
EVENTS = "SELECT type, value FROM request_intake.outbox ORDER BY event_id"


async def told(counter: Counter, kind: str) -> dict[str, dict[str, Any]]:
    """What was emitted of one type, by subject."""
    rows = await counter.db.read("test-look", EVENTS)
    values = [json.loads(bytes(row["value"])) for row in rows if row["type"] == kind]
    return {value["subject_id"]: value for value in values}


async def test_a_request_too_large_to_be_told_of_holds_nobody_up(counter: Counter) -> None:
    """One of an earlier version, of which no record can tell, keeps its reason; all others are opened in the same round, as ever after."""
    first, large, last = [await counter.submit(account) for account in ("acc_1", "acc_2", "acc_3")]
    await counter.owner.execute(OLD_CATEGORIES, ["a" * 79] * 11_400, large)
    for _ in range(2):
        await sweeps.open_received(counter.db, NoAddresses(), counter.desk.keys)
        found = await states(counter)
        assert found[str(large)] == ("received", StuckReason.UNEXPECTED)
        assert {found[str(subject)] for subject in (first, last)} == {("awaiting_identity", StuckReason.NEEDS_IDENTITY)}
        assert set(await told(counter, "request.accepted")) == {str(first), str(last)}
        wait_out(counter)
    (stuck,) = await counter.db.read("test-look", COUNT_STUCK)
    assert (stuck["reason"], stuck["rows"]) == ("unexpected", 1)
    late = await counter.submit("acc_4")
    await sweeps.open_received(counter.db, NoAddresses(), counter.desk.keys)
    assert (await states(counter))[str(late)] == ("awaiting_identity", StuckReason.NEEDS_IDENTITY)


async def test_a_language_too_long_to_be_one_is_none(counter: Counter) -> None:
    """A request that an earlier version took with such a language is opened, in the account's language."""
    subject = await counter.submit("acc_1")
    await counter.owner.execute(OLD_LANGUAGE, "de" + "-aaaaaaaa" * 150_000, subject)
    book = Known(acc_1=ContactDetails("ann@example.net", "Ann", "fr"))
    await sweeps.open_received(counter.db, book, counter.desk.keys)
    assert (await states(counter))[str(subject)] == ("awaiting_identity", StuckReason.NEEDS_IDENTITY)
    accepted = (await told(counter, "request.accepted"))[str(subject)]
    assert accepted["language"] is None
    assert (await sealed_contact(counter, subject))["language"] == "fr"


async def sealed_contact(counter: Counter, subject: UUID) -> dict[str, Any]:
    """What was sealed of a person's contact."""
    sql = "SELECT request_id, contact FROM request_intake.requests WHERE subject_id = $1"
    (row,) = await counter.db.read("test-look", sql, subject)
    async with counter.db.transaction("test-key") as tx:
        key = (await counter.desk.keys.require(tx, [subject], KeyKind.CASE))[subject]
    contact: dict[str, Any] = json.loads(open_text(key, Place("request", row["request_id"], "contact"), row["contact"]))
    return contact


@pytest.mark.parametrize("long", [60_000, 2_000_000])
async def test_columns_of_any_length_keep_nobody_from_an_answer(counter: Counter, long: int) -> None:
    """A long name is cut, an address longer than any is none, and the next store is asked; spaces around one do not count."""
    named, none, spaced, elsewhere = [await counter.submit(f"acc_{number}") for number in (1, 2, 3, 4)]
    too_long = ContactDetails("a" * long + "@example.net", "Ann", "x" * long)
    first = Known(
        acc_1=ContactDetails("ann@example.net", "\u0001" * long, "x" * long),
        acc_2=too_long,
        acc_3=ContactDetails(" " * long + "bob@example.net\n" + " " * long),
        acc_4=too_long,
    )
    second = Known(acc_4=ContactDetails("cy@example.net", "Cy"))
    book = BoundedAddressBook(Stores(cast("Sequence[Store]", [first, second])))
    await sweeps.open_received(counter.db, book, counter.desk.keys)
    assert set((await states(counter)).values()) == {("awaiting_identity", StuckReason.NEEDS_IDENTITY)}
    rows = await counter.db.read("test-look", "SELECT subject_id, reach FROM request_intake.requests")
    reach = {row["subject_id"]: row["reach"] for row in rows}
    assert [reach[each] for each in (named, none, spaced, elsewhere)] == ["mail", "platform", "mail", "mail"]
    assert await sealed_contact(counter, named) == {
        "address": "ann@example.net",
        "name": "\u0001" * 1000,
        "language": None,
    }
    addresses = [(await sealed_contact(counter, each))["address"] for each in (spaced, elsewhere)]
    assert addresses == ["bob@example.net", "cy@example.net"]
