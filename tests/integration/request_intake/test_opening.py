"""Opening requests: one that does not open holds nobody else up, and is opened once what was missing is there again."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias, cast
from uuid import UUID

import pytest

from habeas.contracts.vocabulary import StuckReason
from habeas.datamap.postgres import ContactDetails, PostgresStore
from request_intake import sweeps
from request_intake.gateways import StoreAddressBook
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
        assert (await sweeps.open_stuck(counter.db, nobody, keys)).handled == 0
    found = await states(counter)
    assert found[str(broken)] == ("received", StuckReason.KEY_MISSING)
    assert {found[str(subject)] for subject in (first, last)} == {("awaiting_identity", None)}
    assert await stuck_facts(counter) == 1

    await mend()
    assert (await sweeps.open_received(counter.db, nobody, keys)).handled == 0
    assert (await sweeps.open_stuck(counter.db, nobody, keys)).handled == 1
    assert (await states(counter))[str(broken)] == ("awaiting_identity", None)


async def test_how_each_can_be_answered_is_found_out_when_the_request_is_opened(counter: Counter) -> None:
    """Whoever has an address in any store is written to; an account without one is the platform's, and nobody's is not reachable."""
    addressed, bare, blank, gone = [await counter.submit(f"acc_{number}") for number in (1, 2, 3, 4)]
    nameless = ContactDetails()
    first = Known(acc_1=nameless, acc_2=nameless, acc_3=ContactDetails(" "))
    second = Known(acc_1=ContactDetails("ann@example.net"))
    book = StoreAddressBook(cast("Sequence[PostgresStore]", [first, second]))
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
