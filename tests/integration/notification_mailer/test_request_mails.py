"""Acknowledgements and outcomes: sent once, refused, postponed, uncertain."""

from datetime import timedelta
from email.message import EmailMessage
from uuid import UUID

import asyncpg
import pytest

from habeas.chassis import log
from habeas.contracts.request_intake import RequestCompleted
from habeas.contracts.vocabulary import Outcome, Right
from habeas_embedded.mailbox import Faults, recipient_hash
from habeas_embedded.provision import Access
from tests.integration.notification_mailer.conftest import NOW, Mailer, changed, fulfilled, smtp_settings
from tests.support.waiting import until

DESTROY = "DELETE FROM sealing.subject_keys WHERE subject_id = $1 AND kind = 'data'"


def text_of(message: EmailMessage) -> str:
    """The plain text, decoded."""
    part = message.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


async def test_each_mail_is_sent_once_and_told(mailer: Mailer) -> None:
    """An acknowledgement and an outcome go out once each, in the person's language; then nothing says where to write to."""
    accepted = await mailer.accept("ann@example.net", name="Ann Müller", language="de-AT")
    assert await mailer.send() == 1
    await mailer.receive(fulfilled(accepted))
    assert await mailer.send() == 1
    assert await mailer.send() == 0

    for kind, subject in (
        ("acknowledgement", "Wir haben Ihr Anliegen erhalten"),
        ("outcome", "Ihr Anliegen ist erledigt"),
    ):
        row = await mailer.mail(accepted.request_id, kind)
        (mail,) = mailer.delivered(row["mail_id"])
        assert row["state"] == "sent"
        assert row["attempt"] == 1
        assert row["content"] is None
        assert mail.recipients == ("ann@example.net",)
        assert mail.message["Subject"] == subject
        assert mail.message["Content-Language"] == "de"
        assert mail.message["Auto-Submitted"] == "auto-generated"
        assert mail.message["X-Habeas-Kind"] == kind
        assert mail.message["X-Habeas-Request"] == str(accepted.request_id)
        assert "Guten Tag Ann Müller," in text_of(mail.message)
    (mail,) = mailer.delivered((await mailer.mail(accepted.request_id, "outcome"))["mail_id"])
    told = text_of(mail.message)
    assert "Kontodaten: 1 Eintrag gelöscht" in told
    assert "Zahlungsdaten: 3 Einträge aufbewahrt" in told
    assert "31. Dezember 2036" in told
    assert [event["kind"] for event in await mailer.told("mail.sent")] == ["acknowledgement", "outcome"]
    hexed = accepted.request_id.hex
    assert await mailer.facts() == [
        f"action=mail.queued request={hexed} subject=- outcome=acknowledgement count=- commitments=-",
        f"action=mail.sent request={hexed} subject=- outcome=acknowledgement count=- commitments=-",
        f"action=mail.queued request={hexed} subject=- outcome=outcome count=- commitments=-",
        f"action=mail.sent request={hexed} subject=- outcome=outcome count=- commitments=-",
    ]
    assert await mailer.reader.fetchval("SELECT count(*) FROM notification_mailer.contacts") == 0


async def test_nobody_is_mailed_without_an_address(mailer: Mailer) -> None:
    """A request whose contact nobody knows gets neither mail, and leaves nothing behind."""
    accepted = await mailer.accept(None)
    await mailer.receive(fulfilled(accepted))
    assert await mailer.send() == 0
    assert await mailer.mails() == []
    assert await mailer.reader.fetchval("SELECT count(*) FROM notification_mailer.contacts") == 0


async def test_who_asks_again_is_told_what_became_of_the_mail(mailer: Mailer) -> None:
    """A second word that the answer may be given, as after a restored database, sends nothing and is answered as the first was."""
    accepted = await mailer.accept("again@example.net")
    await mailer.receive(fulfilled(accepted))
    await mailer.send()
    before = await mailer.told("mail.sent")
    await mailer.receive(fulfilled(accepted))
    assert await mailer.send() == 0
    assert await mailer.told("mail.sent") == [*before, before[-1]]
    for state, kind in (("refused", "mail.refused"), ("uncertain", "mail.uncertain"), ("suppressed", None)):
        async with mailer.db.pool.acquire() as conn:
            await conn.execute("UPDATE notification_mailer.messages SET state = $1", state)
        await mailer.receive(fulfilled(accepted))
        assert kind is None or [each["mail_id"] for each in await mailer.told(kind)] == [before[-1]["mail_id"]]


async def test_a_request_that_is_taken_anew_is_answered_under_its_new_subject(mailer: Mailer) -> None:
    """Sent again to a restored database, a request has a contact that the first subject's key does not open: the newer one counts."""
    accepted = await mailer.accepted("first@example.net")
    anew = (await mailer.accepted("second@example.net")).subject_id
    sealed = await mailer.sealed(accepted.request_id, anew, "second@example.net")
    again = accepted.model_copy(update={"subject_id": anew, "contact": sealed})
    await mailer.receive(accepted)
    await mailer.receive(again, fulfilled(again))
    await mailer.send()
    found = await mailer.mails()
    assert sorted((row["kind"], row["state"]) for row in found) == [("acknowledgement", "sent"), ("outcome", "sent")]
    recipients = [mail.recipients for row in found for mail in mailer.delivered(row["mail_id"])]
    assert recipients == [("second@example.net",), ("second@example.net",)]


async def test_events_that_come_twice_make_one_mail(mailer: Mailer) -> None:
    """The same event under another event id, as after a replay, makes no second mail."""
    accepted = await mailer.accept("twice@example.net")
    await mailer.receive(accepted, fulfilled(accepted))
    await mailer.send()
    await mailer.receive(fulfilled(accepted))
    assert await mailer.send() == 0
    assert [len(mailer.delivered(row["mail_id"])) for row in await mailer.mails()] == [1, 1]


async def test_an_outcome_of_an_unknown_request_is_parked(mailer: Mailer) -> None:
    """Nobody stays untold unseen: what was never accepted here is parked, and the rest of the batch goes on."""
    unknown, known = await mailer.accepted("x@example.net"), await mailer.accepted("known@example.net")
    await mailer.receive(fulfilled(unknown), known)
    rows = await mailer.reader.fetch("SELECT reason, field FROM notification_mailer.inbox WHERE state = 'parked'")
    assert [tuple(row) for row in rows] == [("unknown_reference", "request_id")]
    assert await mailer.send() == 1


async def test_a_refused_mail_is_told_and_never_tried_again(mailer: Mailer) -> None:
    """550 to the recipient is final: `mail.refused` with the code, no further attempt; others on the same connection are sent."""
    mailer.mailbox.misbehave(Faults(refuse_recipients=frozenset({recipient_hash("gone@example.net")})))
    gone, there = await mailer.accept("gone@example.net"), await mailer.accept("there@example.net")
    await mailer.send()
    mailer.mailbox.behave()
    mailer.after(timedelta(days=1))
    assert await mailer.send() == 0
    (refused,) = await mailer.told("mail.refused")
    assert (refused["request_id"], refused["smtp_code"]) == (str(gone.request_id), 550)
    assert (await mailer.mail(gone.request_id, "acknowledgement"))["state"] == "refused"
    assert len(mailer.delivered((await mailer.mail(there.request_id, "acknowledgement"))["mail_id"])) == 1


@pytest.mark.parametrize(
    "faults",
    [Faults(refuse_all=True, refuse_code=450), Faults(after_dot="refuse", times=1)],
    ids=["recipient", "final dot"],
)
async def test_a_postponed_mail_is_sent_later_under_its_message_id(mailer: Mailer, faults: Faults) -> None:
    """4yz, to the recipient or to the dot, is definite: the same mail again after a wait, delivered once."""
    mailer.mailbox.misbehave(faults)
    accepted = await mailer.accept("busy@example.net")
    await mailer.send()
    row = await mailer.mail(accepted.request_id, "acknowledgement")
    assert (row["state"], row["next_attempt_at"]) == ("queued", NOW + timedelta(seconds=2))
    mailer.mailbox.behave()
    assert await mailer.send() == 0
    mailer.after(timedelta(seconds=2))
    await mailer.send()
    row = await mailer.mail(accepted.request_id, "acknowledgement")
    assert (row["state"], row["attempt"]) == ("sent", 2)
    assert len(mailer.delivered(row["mail_id"])) == 1
    assert await mailer.told("mail.uncertain") == []


@pytest.mark.parametrize(
    ("faults", "arrived"),
    [
        (Faults(after_dot="drop"), {0}),
        (Faults(after_dot="deliver_and_drop"), {1}),
        (Faults(delay_s=1.5), {0, 1}),
    ],
    ids=["lost by the server", "taken by the server", "reply too late"],
)
async def test_an_outcome_lost_after_the_dot_is_uncertain_and_not_sent_again(
    mailer: Mailer, faults: Faults, arrived: set[int]
) -> None:
    """Without a reply to the dot nobody knows, whatever the server did: told, counted, never sent again by itself."""
    accepted = await mailer.accept("lost@example.net")
    await mailer.send()
    await mailer.receive(fulfilled(accepted))
    mailer.mailbox.misbehave(faults)
    if faults.delay_s:
        mailer.lose_patience()
    await mailer.send()
    row = await mailer.mail(accepted.request_id, "outcome")
    await until(lambda: len(mailer.delivered(row["mail_id"])) in arrived, f"{arrived} deliveries")
    mailer.mailbox.behave()
    mailer.after(timedelta(days=30))
    assert await mailer.send() == 0
    assert row["state"] == "uncertain"
    (uncertain,) = await mailer.told("mail.uncertain")
    assert (uncertain["request_id"], uncertain["kind"]) == (str(accepted.request_id), "outcome")
    assert len(mailer.delivered(row["mail_id"])) in arrived
    # A person may still need the address to answer in another way.
    assert await mailer.reader.fetchval("SELECT count(*) FROM notification_mailer.contacts") == 1
    await mailer.receive(completed(accepted))
    assert await mailer.reader.fetchval("SELECT count(*) FROM notification_mailer.contacts") == 0


def completed(accepted: object) -> RequestCompleted:
    """The end of a request."""
    done = fulfilled(accepted)  # type: ignore[arg-type]  # what accept() gave
    return RequestCompleted(
        request_id=done.request_id,
        subject_id=done.subject_id,
        right=done.right,
        outcome=Outcome.DONE,
        categories=(),
        completed_at=NOW,
    )


async def test_an_acknowledgement_lost_after_the_dot_is_sent_again_under_its_message_id(mailer: Mailer) -> None:
    """Being told late is worse than being told twice: the repetition has the same Message-ID, and the doubt is counted."""
    mailer.mailbox.misbehave(Faults(after_dot="deliver_and_drop", times=1))
    accepted = await mailer.accept("again@example.net")
    await mailer.send()
    mailer.after(timedelta(minutes=1))
    await mailer.send()
    row = await mailer.mail(accepted.request_id, "acknowledgement")
    assert (row["state"], row["attempt"]) == ("sent", 2)
    assert len(mailer.delivered(row["mail_id"])) == 2
    assert [event["kind"] for event in await mailer.told("mail.uncertain")] == ["acknowledgement"]
    assert len(await mailer.told("mail.sent")) == 1


async def test_a_server_that_always_cuts_after_the_dot_gets_four_acknowledgements_in_all(mailer: Mailer) -> None:
    """The first and three more, minutes apart, each told of; after that it is uncertain, and nothing more goes out for a month."""
    mailer.mailbox.misbehave(Faults(after_dot="deliver_and_drop"))
    accepted = await mailer.accept("flooded@example.net")
    for minute in range(60):
        await mailer.send()
        assert len(await mailer.told("mail.uncertain")) <= 1 + minute
        mailer.after(timedelta(minutes=1))
    for _ in range(30):
        mailer.after(timedelta(days=1))
        await mailer.send()
    row = await mailer.mail(accepted.request_id, "acknowledgement")
    assert (row["state"], row["attempt"], row["doubts"]) == ("uncertain", 4, 4)
    await until(lambda: len(mailer.delivered(row["mail_id"])) == 4, "4 deliveries")
    told = await mailer.told("mail.uncertain")
    assert [event["times"] for event in told] == [1, 2, 3, 4]
    assert [event["again_at"] is None for event in told] == [False, False, False, True]


async def test_one_bad_address_fails_nobody_else(mailer: Mailer) -> None:
    """It is refused at once, with its reason; the nineteen others go out in the same pass."""
    bad = await mailer.accept("me@[mail.example.org")
    others = [await mailer.accept(f"other{number}@example.net") for number in range(19)]
    assert await mailer.send() == 20
    refused = await mailer.mail(bad.request_id, "acknowledgement")
    assert (refused["state"], refused["refusal"]) == ("refused", "address_literal")
    assert [event["reason"] for event in await mailer.told("mail.refused")] == ["address_literal"]
    for other in others:
        assert (await mailer.mail(other.request_id, "acknowledgement"))["state"] == "sent"


@pytest.mark.parametrize(
    ("address", "recipient"),
    [
        ("person@straße.de", "person@xn--strae-oqa.de"),
        ("person@faß.de", "person@xn--fa-hia.de"),
        ("person@βόλος.com", "person@xn--nxasmm1c.com"),
        ('"a b"@example.net', '"a b"@example.net'),
        ("me@[192.0.2.1]", "me@[192.0.2.1]"),
    ],
)
async def test_mail_goes_where_the_address_says(mailer: Mailer, address: str, recipient: str) -> None:
    """The envelope that the server took has the domain of IDNA 2008, and any local part that SMTP allows."""
    accepted = await mailer.accept(address)
    await mailer.send()
    (mail,) = mailer.delivered((await mailer.mail(accepted.request_id, "acknowledgement"))["mail_id"])
    assert mail.recipients == (recipient,)


async def test_mails_wait_for_a_server_that_is_away(mailer: Mailer, unused_tcp_port: int) -> None:
    """Nothing is refused because nobody answers; the mails go out when the server is back."""
    right = mailer.post._settings
    mailer.post._settings = smtp_settings("127.0.0.1", unused_tcp_port)
    requests = [await mailer.accept(f"p{number}@example.net") for number in range(8)]
    await mailer.send()
    assert {row["state"] for row in await mailer.mails()} == {"queued"}
    mailer.post._settings = right
    mailer.after(timedelta(seconds=2))
    await mailer.send()
    for request in requests:
        assert len(mailer.delivered((await mailer.mail(request.request_id, "acknowledgement"))["mail_id"])) == 1


async def test_a_mail_that_nobody_takes_for_days_is_refused(mailer: Mailer) -> None:
    """After five days a person has to find another way to answer."""
    mailer.mailbox.misbehave(Faults(refuse_all=True, refuse_code=450))
    accepted = await mailer.accept("never@example.net")
    await mailer.send()
    mailer.after(timedelta(days=5, seconds=1))
    await mailer.send()
    assert (await mailer.mail(accepted.request_id, "acknowledgement"))["state"] == "refused"
    assert [event["smtp_code"] for event in await mailer.told("mail.refused")] == [450]


@pytest.mark.parametrize("address", ["nobody", "a@b@c d", "x\r\nRCPT TO:<evil@example.net>", "@example.net", ""])
async def test_what_is_no_address_is_refused_without_asking(mailer: Mailer, address: str) -> None:
    """An address that no server could take is refused at once, and nothing of it is said to the server."""
    before = mailer.mailbox.count()
    await mailer.accept(address)
    await mailer.send()
    assert [event["smtp_code"] for event in await mailer.told("mail.refused")] == [None]
    assert mailer.mailbox.count() == before


async def test_connections_are_reused(mailer: Mailer) -> None:
    """Many mails go over the few connections that the settings allow."""
    for number in range(30):
        await mailer.accept(f"many{number}@example.net")
    await mailer.send()
    assert {row["state"] for row in await mailer.mails()} == {"sent"}
    assert 1 <= len(mailer.post._idle) <= mailer.post.connections_max


async def test_no_address_is_stored_or_logged(
    mailer: Mailer, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """Addresses, names and account ids are in mails only: neither in any table nor in any log line, also when all goes wrong."""
    lines: list[bytes] = []
    monkeypatch.setattr(log._log, "write", lines.append)
    monkeypatch.setattr(log._log, "rank", 0)
    mailer.mailbox.misbehave(Faults(refuse_recipients=frozenset({recipient_hash("secret1@example.net")})))
    for number in range(3):
        accepted = await mailer.accept(f"secret{number}@example.net", name=f"Sechet Secret{number}")
        await mailer.receive(fulfilled(accepted))
    await mailer.receive(changed())
    await mailer.send()
    await mailer.campaign()
    mailer.post._settings = smtp_settings("127.0.0.1", unused_tcp_port)
    await mailer.restart()
    await mailer.accept("secret9@example.net", name="Sechet Secret9")
    await mailer.send()
    held = await mailer.dump()
    said = b"".join(lines).decode()
    assert "mail.server_unreachable" in said
    for needle in ("secret", "Secret", "acc_1@", "Name of acc", "acc_3"):
        assert needle not in held
        assert needle not in said


async def test_stopping_leaves_the_rest_for_the_next_start(mailer: Mailer) -> None:
    """A process that is told to stop begins no further mail; what it had claimed is due again at once."""
    for number in range(5):
        await mailer.accept(f"stop{number}@example.net")
    mailer.room.stopping.set()
    await mailer.send_once()
    assert {row["state"] for row in await mailer.mails()} == {"queued"}
    mailer.room.stopping.clear()
    await mailer.send()
    assert [row["state"] for row in await mailer.mails()] == ["sent"] * 5


@pytest.mark.parametrize("is_erased", [True, False])
async def test_a_mail_names_no_copy_of_a_person_who_was_erased_meanwhile(
    mailer: Mailer, database: Access, *, is_erased: bool
) -> None:
    """The copy was built and the mail written down; what counts is whether it is there when the letter is written."""
    accepted = await mailer.accept("copy@example.net", right=Right.ACCESS)
    export_id = UUID(int=7)
    await mailer.receive(fulfilled(accepted, outcome=Outcome.DONE, export_id=export_id))
    if is_erased:
        owner = await asyncpg.connect(database.admin_dsn)
        await owner.execute(DESTROY, accepted.subject_id)
        await owner.close()
    assert await mailer.send() == 2
    (mail,) = mailer.delivered((await mailer.mail(accepted.request_id, "outcome"))["mail_id"])
    said = text_of(mail.message)
    assert (str(export_id) in said) is not is_erased
    assert ("Your copy is ready" in said) is not is_erased
    assert ("Your copy was deleted with everything else" in said) is is_erased
