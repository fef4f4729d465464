"""Policy changes: everybody told once, in time, and nothing left of who they were."""

from datetime import date, timedelta

import pytest

from habeas.datamap.postgres import PostgresStore
from habeas.datamap.stores import Stores
from habeas_embedded.mailbox import Faults, recipient_hash
from notification_mailer.sweeps import watch_notice
from tests.integration.notification_mailer.conftest import PEOPLE, Mailer, changed
from tests.integration.notification_mailer.test_request_mails import text_of

# 24 November 2026 + 30 days, counted on a calendar.
EARLIEST = "2026-12-24"


async def test_everybody_is_told_once_in_their_language(mailer: Mailer) -> None:
    """Every account of the store gets one notice, in its own language, over several pages; counts and dates are told."""
    await mailer.owner.execute("UPDATE accounts SET language = 'de' WHERE id = 'acc_2'")
    await mailer.owner.execute("UPDATE accounts SET name = NULL WHERE id = 'acc_3'")
    await mailer.receive(changed())
    await mailer.campaign()
    await mailer.receive(changed())
    await mailer.campaign()

    by_recipient = {}
    for row in await mailer.mails():
        (mail,) = mailer.delivered(row["mail_id"])
        by_recipient[mail.recipients[0]] = mail.message
    assert sorted(by_recipient) == [f"{person}@example.org" for person in PEOPLE]
    german, nameless = by_recipient["acc_2@example.org"], by_recipient["acc_3@example.org"]
    assert german["Subject"] == "Unsere Datenschutzerklärung ändert sich"
    assert "Wir protokollieren weniger." in text_of(german)
    assert "15. Januar 2027" in text_of(german)
    assert german["X-Habeas-Kind"] == "policy_change"
    assert text_of(nameless).startswith("Hello,")
    assert "We log less." in text_of(nameless)
    (scheduled,) = await mailer.told("policy_change.scheduled")
    assert scheduled["earliest_effective_on"] == EARLIEST
    (end,) = await mailer.told("policy_change.notified")
    assert (end["sent"], end["refused"], end["uncertain"], end["suppressed"]) == (5, 0, 0, 0)
    assert end["earliest_effective_on"] == EARLIEST
    assert await mailer.told("policy_change.too_early") == []


async def test_a_forgotten_announcement_mails_nobody(mailer: Mailer) -> None:
    """A change of which the database knows only that it was announced is taken at its word; its date may still be mended."""
    await mailer.receive(changed())
    await mailer.campaign()
    before = await mailer.mails()
    async with mailer.db.pool.acquire() as conn:
        await conn.execute(
            "UPDATE notification_mailer.campaigns SET content_digest = $1, version = '', summary = '{}', url = ''",
            bytes(32),
        )
        await conn.execute("DELETE FROM notification_mailer.seen")
    await mailer.receive(changed(), changed(effective_on=date(2027, 2, 1)), changed(version="another"))
    await mailer.campaign()
    assert await mailer.mails() == before
    campaign = await mailer.reader.fetchrow("SELECT * FROM notification_mailer.campaigns")
    assert campaign is not None
    assert (campaign["state"], campaign["version"], campaign["effective_on"]) == (
        "notified",
        "2027-01-15",
        date(2027, 2, 1),
    )
    parked = await mailer.reader.fetch("SELECT reason FROM notification_mailer.inbox WHERE state = 'parked'")
    assert [row["reason"] for row in parked] == ["id_conflict"]


async def test_nothing_is_left_of_who_was_told(mailer: Mailer) -> None:
    """With its end a campaign has no key and no account ids, sealed or not, and its log has counts instead of people."""
    await mailer.receive(changed())
    await mailer.campaign()
    campaign = await mailer.reader.fetchrow("SELECT * FROM notification_mailer.campaigns")
    assert campaign is not None
    assert (campaign["state"], campaign["wrapped_key"], campaign["kek_id"]) == ("notified", None, None)
    assert {row["account"] for row in await mailer.mails()} == {None}
    facts = await mailer.facts()
    assert sum(_count(fact) for fact in facts if fact.startswith("action=mail.queued ")) == len(PEOPLE)
    assert sum(_count(fact) for fact in facts if fact.startswith("action=mail.sent ")) == len(PEOPLE)
    assert facts[0].startswith("action=campaign.scheduled ")
    assert (
        facts[-1]
        == f"action=campaign.notified request=- subject=- outcome=policy_change count={len(PEOPLE)} commitments=-"
    )


async def test_who_was_erased_meanwhile_is_not_written_to(mailer: Mailer) -> None:
    """Addresses are read when a mail is sent: an account that is gone by then is counted as suppressed, a bad address as refused."""
    mailer.mailbox.misbehave(Faults(refuse_recipients=frozenset({recipient_hash("acc_5@example.org")})))
    await mailer.owner.execute(
        "DELETE FROM profiles; DELETE FROM invoices; DELETE FROM contents; DELETE FROM steps; DELETE FROM tasks"
    )
    await mailer.receive(changed())
    mailer.page = 10
    await mailer.gather()
    await mailer.owner.execute("DELETE FROM accounts WHERE id = 'acc_4'")
    await mailer.campaign()
    (end,) = await mailer.told("policy_change.notified")
    assert (end["sent"], end["refused"], end["uncertain"], end["suppressed"]) == (3, 1, 0, 1)


async def test_a_store_that_is_away_holds_the_campaign_up_and_nothing_else(mailer: Mailer) -> None:
    """While the store is away nobody is claimed or suppressed; mails about requests go out."""
    await mailer.receive(changed())
    await mailer.gather()
    await mailer.owner.execute("ALTER TABLE accounts RENAME TO away")
    accepted = await mailer.accept("meanwhile@example.net")
    await mailer.send()
    with pytest.raises(Exception, match="shop"):
        await mailer.campaign()
    assert (await mailer.mail(accepted.request_id, "acknowledgement"))["state"] == "sent"
    assert {row["state"] for row in await mailer.mails() if row["campaign_id"]} == {"queued"}
    await mailer.owner.execute("ALTER TABLE away RENAME TO accounts")
    await mailer.campaign()
    (end,) = await mailer.told("policy_change.notified")
    assert end["sent"] == len(PEOPLE)


async def test_a_change_that_comes_too_early_is_told_daily_until_its_date_is_mended(mailer: Mailer) -> None:
    """Less than the promised 30 days: told at once and once a day; a later date under the same id ends it, nobody is mailed again."""
    await mailer.receive(changed(effective_on=date(2026, 12, 10)))
    await mailer.campaign()
    assert len(await mailer.told("policy_change.too_early")) == 1
    for days in (1, 1, 0):
        mailer.after(timedelta(days=days))
        await watch_notice(mailer.db, mailer.room.notice)
    early = await mailer.told("policy_change.too_early")
    assert [event["earliest_effective_on"] for event in early] == [EARLIEST] * 3
    await mailer.receive(changed(effective_on=date(2026, 12, 24)))
    mailer.after(timedelta(days=1))
    assert (await watch_notice(mailer.db, mailer.room.notice)).handled == 0
    await mailer.campaign()
    assert len(await mailer.mails()) == len(PEOPLE)
    # People were told the day that the promise allows, not the one that breaks it.
    (mail,) = mailer.delivered((await mailer.mails())[0]["mail_id"])
    assert "24 December 2026" in text_of(mail.message)


async def test_a_late_notice_moves_the_earliest_day(mailer: Mailer) -> None:
    """The notice period runs from the last mail that was accepted: one sent two days later moves the earliest day by two."""
    mailer.mailbox.misbehave(
        Faults(refuse_recipients=frozenset({recipient_hash("acc_5@example.org")}), refuse_code=450)
    )
    await mailer.receive(changed(effective_on=date(2026, 12, 25)))
    await mailer.campaign()
    assert await mailer.told("policy_change.notified") == []
    mailer.mailbox.behave()
    mailer.after(timedelta(days=2))
    await mailer.campaign()
    (end,) = await mailer.told("policy_change.notified")
    assert (end["sent"], end["earliest_effective_on"]) == (5, "2026-12-26")
    assert len(await mailer.told("policy_change.too_early")) == 1


async def test_a_change_that_is_not_material_mails_nobody(mailer: Mailer) -> None:
    """It is recorded, and nothing more."""
    await mailer.receive(changed(material=False, effective_on=date(2026, 11, 25)))
    await mailer.campaign()
    assert await mailer.mails() == []
    assert await mailer.reader.fetchval("SELECT state FROM notification_mailer.campaigns") == "recorded"
    assert await mailer.facts() == ["action=campaign.scheduled request=- subject=- outcome=- count=0 commitments=-"]


async def test_another_text_under_a_known_id_is_parked(mailer: Mailer) -> None:
    """What was mailed cannot be changed by a later message of the same id."""
    await mailer.receive(changed())
    await mailer.receive(changed(summary={"en": "We log more."}))
    rows = await mailer.reader.fetch("SELECT reason, field FROM notification_mailer.inbox WHERE state = 'parked'")
    assert [tuple(row) for row in rows] == [("id_conflict", "change_id")]


async def test_pages_of_accounts_are_complete_and_in_order(mailer: Mailer) -> None:
    """A store gives each account once, page after page, whatever the size of the pages."""
    store = _the_store(mailer)
    for size in (1, 2, 3, 5, 7):
        found: list[str] = []
        while page := await store.account_ids(found[-1] if found else None, size):
            assert len(page) <= size
            found += page
        assert found == list(PEOPLE)


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        ("bigint", ["2", "10", "300"]),  # as numbers: 10 comes after 2
        ("uuid", ["01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3e", "01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3f"]),
        ("character varying(20)", ["B", "a", "b"]),
        ("character(3)", ["abc", "abd", "abe"]),
    ],
)
async def test_pages_follow_the_order_of_the_identitys_type(mailer: Mailer, kind: str, ids: list[str]) -> None:
    """Whatever type holds the account id, a page begins where the last one ended: nobody is left out, nobody comes twice."""
    store = _the_store(mailer)
    await mailer.owner.execute("ALTER TABLE accounts RENAME TO old")
    await mailer.owner.execute(f"CREATE TABLE accounts (id {kind} PRIMARY KEY, email text, name text, language text)")
    for account_id in ids:
        await mailer.owner.execute(f"INSERT INTO accounts (id) VALUES ($1::text::{kind})", account_id)
    found: list[str] = []
    while page := await store.account_ids(found[-1] if found else None, 1):
        found += page
        assert len(found) <= len(ids)
    assert sorted(found) == sorted(ids)


def _the_store(mailer: Mailer) -> PostgresStore:
    """Return the real store behind the protocol."""
    assert isinstance(mailer.room.audience, Stores)
    store = mailer.room.audience.named("shop")
    assert isinstance(store, PostgresStore)
    return store


def _count(fact: str) -> int:
    return int(fact.partition("count=")[2].partition(" ")[0])
