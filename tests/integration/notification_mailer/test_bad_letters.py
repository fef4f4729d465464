"""One mail among many that cannot be written, or whose account a store objects to: it waits alone, and says why."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from typing_extensions import override

from habeas.contracts.vocabulary import StuckReason
from habeas.datamap.errors import StoreRefused, StoreUnavailable, Unavailability
from habeas.datamap.postgres import ContactDetails
from habeas.datamap.stores import Page
from notification_mailer.errors import Unaddressable
from notification_mailer.gateways import Audience, Letter, Letters, Recipient
from notification_mailer.gateways.post import BeforeDot
from notification_mailer.lifecycle.mails import Mail, Report
from notification_mailer.store import messages
from tests.integration.notification_mailer.conftest import Mailer, MortalPost, changed

MANY = [f"many{number}@example.net" for number in range(250)]
BAD = MANY[137]


class Spoiled(Letters):
    """Fails, in a way that nobody foresaw, for one recipient."""

    def __init__(self, inner: Letters) -> None:
        self.__dict__.update(inner.__dict__)

    @override
    def acknowledgement(self, mail: Mail, to: Recipient, now: datetime) -> Letter | Unaddressable:
        if to.address == BAD:
            raise AttributeError
        return super().acknowledgement(mail, to, now)


class Picky(Audience):
    """The store objects to one account, and so to all that are asked for with it."""

    def __init__(self, inner: Audience, bad: str, error: Exception) -> None:
        self._inner = inner
        self._bad = bad
        self._error = error

    @override
    async def account_ids(self, store: str | None, last: str | None, limit: int) -> Page | None:
        return await self._inner.account_ids(store, last, limit)

    @override
    async def contacts(self, account_ids: Iterable[str]) -> Mapping[str, ContactDetails]:
        asked = list(account_ids)
        if self._bad in asked:
            raise self._error
        return await self._inner.contacts(asked)


async def stuck(mailer: Mailer) -> dict[str, int]:
    """Count what is shown as stuck, by reason."""
    return {row["reason"]: row["rows"] for row in await mailer.db.read("test-stuck", messages.COUNT_STUCK)}


async def test_one_letter_among_many_that_cannot_be_written_waits_alone(mailer: Mailer) -> None:
    """The other 249 go out in the first round; the one says why, and goes out by itself once it can be written."""
    await mailer.receive(*[await mailer.accepted(address) for address in MANY])
    good = mailer.room.letters
    mailer.room = replace(mailer.room, letters=Spoiled(good), batch_mails_max=250)
    await mailer.send_once()
    states = [row["state"] for row in await mailer.mails()]
    assert (states.count("sent"), states.count("queued")) == (249, 1)
    assert await stuck(mailer) == {StuckReason.UNEXPECTED: 1}
    assert await mailer.send() == 0, "it has a pause of its own"
    mailer.room = replace(mailer.room, letters=good)
    mailer.after(timedelta(minutes=1))
    await mailer.send()
    assert ({row["state"] for row in await mailer.mails()}, await stuck(mailer)) == ({"sent"}, {})


async def test_a_letter_that_can_never_be_written_is_refused_in_the_end(mailer: Mailer) -> None:
    """After as long as mails are tried a person has to find another way, and is told so."""
    await mailer.accept(BAD)
    mailer.room = replace(mailer.room, letters=Spoiled(mailer.room.letters))
    await mailer.send()
    mailer.after(timedelta(days=5, seconds=1))
    await mailer.send()
    assert ({row["state"] for row in await mailer.mails()}, await stuck(mailer)) == ({"refused"}, {})
    assert len(await mailer.told("mail.refused")) == 1


class Breaking(MortalPost):
    """Breaks, in a way that nobody foresaw, with one letter: before its dot, or after it."""

    def __init__(self, inner: MortalPost, *, after_dot: bool) -> None:
        self.__dict__.update(inner.__dict__)
        self.after_dot = after_dot

    @override
    async def deliver(self, letter: Letter, before_dot: BeforeDot) -> Report:
        if letter.recipient != BAD:
            return await super().deliver(letter, before_dot)
        if self.after_dot:
            assert await before_dot()
        raise AttributeError


@pytest.mark.parametrize("after_dot", [False, True])
async def test_one_letter_that_breaks_on_its_way_breaks_no_other(mailer: Mailer, *, after_dot: bool) -> None:
    """The others are sent; before the dot it is sent again, and after it nobody knows whether it arrived."""
    await mailer.receive(*[await mailer.accepted(address) for address in [*MANY[:20], BAD]])
    breaking = Breaking(mailer.post, after_dot=after_dot)
    mailer.room = replace(mailer.room, post=breaking, batch_mails_max=250)
    await mailer.send_once()
    assert [row["state"] for row in await mailer.mails()].count("sent") == 20
    assert len(await mailer.told("mail.uncertain")) == after_dot
    mailer.room = replace(mailer.room, post=mailer.post)
    mailer.after(timedelta(minutes=5))
    await mailer.send()
    assert {row["state"] for row in await mailer.mails()} == {"sent"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StoreRefused("shop", "accounts", "22P02"), StuckReason.STORE_REFUSED),
        (StoreUnavailable("shop", Unavailability.NO_CONNECTION), StuckReason.STORE_UNAVAILABLE),
        (KeyError(), StuckReason.UNEXPECTED),
    ],
    ids=["refused", "brings the server down", "unforeseen"],
)
async def test_one_account_among_many_holds_up_no_campaign(
    mailer: Mailer, error: Exception, reason: StuckReason
) -> None:
    """The other 249 are told in the first round; the one says why, is told later, and the campaign ends."""
    await mailer.owner.execute(
        "INSERT INTO accounts (id, email) SELECT 'acc_' || n, 'acc_' || n || '@example.org' FROM generate_series(6, 250) AS n"
    )
    await mailer.receive(changed())
    mailer.page = 500
    good = mailer.room.audience
    mailer.room = replace(mailer.room, audience=Picky(good, "acc_137", error), batch_mails_max=250)
    await mailer.campaign()
    states = [row["state"] for row in await mailer.mails()]
    assert (states.count("sent"), states.count("queued")) == (249, 1)
    assert await stuck(mailer) == {reason: 1}
    assert await mailer.told("policy_change.notified") == []
    mailer.room = replace(mailer.room, audience=good)
    mailer.after(timedelta(minutes=1))
    await mailer.campaign()
    (end,) = await mailer.told("policy_change.notified")
    assert (end["sent"], await stuck(mailer)) == (250, {})


async def test_a_mail_that_no_server_takes_says_so_from_the_second_attempt_on(mailer: Mailer) -> None:
    """Once may be a server that greets strangers with a pause; twice is something to look at."""
    mailer.post._settings = mailer.post._settings.model_copy(update={"smtp_port": 9})
    await mailer.accept("waits@example.net")
    await mailer.send()
    assert await stuck(mailer) == {}
    mailer.after(timedelta(seconds=2))
    await mailer.send()
    assert await stuck(mailer) == {"mail_postponed": 1}
