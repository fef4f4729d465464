import smtplib
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest
import pytest_asyncio

from habeas_embedded.mailbox import AfterDot, Faults, Mailbox, recipient_hash
from habeas_embedded.servers import Servers


@pytest_asyncio.fixture
async def sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Servers]:
    """The sink alone, with a home of its own."""
    monkeypatch.setenv("HABEAS_HOME", str(tmp_path))
    async with Servers("mail", only=["smtp"], env={}) as servers:
        yield servers


def send(sink: Servers, message_id: str, to: str = "ada@example.org") -> None:
    """Send one mail with Python's own client, another implementation than the fleet's."""
    mail = EmailMessage()
    mail["Message-ID"], mail["From"], mail["To"], mail["Subject"] = message_id, "dpo@example.org", to, "Grüße"
    mail.set_content("Schöne Grüße")
    with smtplib.SMTP(sink.smtp_host, sink.smtp_port, timeout=10) as client:
        client.send_message(mail)


async def test_accepted_mail_is_one_file(sink: Servers) -> None:
    """What was sent is found by its Message-ID, with envelope and text as sent."""
    send(sink, "<1@example.org>")
    (mail,) = sink.mailbox.find("<1@example.org>")
    assert mail.recipients == ("ada@example.org",)
    assert mail.message["Return-Path"] == "<dpo@example.org>"
    assert mail.message["Subject"] == "Grüße"
    assert mail.message.get_content().strip() == "Schöne Grüße"
    assert sink.mailbox.find("<2@example.org>") == ()


@pytest.mark.parametrize("code", [450, 550])
async def test_refused_recipient_gets_nothing(sink: Servers, code: int) -> None:
    """A recipient named by its hash is refused for now or for good; others still get their mail."""
    sink.mailbox.misbehave(
        Faults.model_validate({"refuse_recipients": [recipient_hash("ADA@example.org")], "refuse_code": code})
    )
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        send(sink, "<1@example.org>")
    assert refused.value.recipients["ada@example.org"][0] == code
    send(sink, "<2@example.org>", to="grace@example.org")
    assert [mail.message_id for mail in sink.mailbox] == ["<2@example.org>"]


@pytest.mark.parametrize(("fault", "delivered"), [("refuse", 0), ("drop", 0), ("deliver_and_drop", 1)])
async def test_fault_after_the_dot(sink: Servers, fault: AfterDot, delivered: int) -> None:
    """The sender gets an error and cannot tell a lost mail from a delivered one; the fault happens as often as told."""
    sink.mailbox.misbehave(Faults(after_dot=fault, times=1))
    with pytest.raises((smtplib.SMTPDataError, smtplib.SMTPServerDisconnected)):
        send(sink, "<1@example.org>")
    assert len(sink.mailbox.find("<1@example.org>")) == delivered
    send(sink, "<1@example.org>")
    assert len(sink.mailbox.find("<1@example.org>")) == delivered + 1


async def test_mail_survives_a_killed_sink(sink: Servers) -> None:
    """The sink comes back at its port after a crash, keeps what it delivered and numbers on."""
    send(sink, "<1@example.org>")
    await sink.smtp.kill()
    with pytest.raises(OSError, match="refused"):
        send(sink, "<2@example.org>")
    await sink.smtp.start()
    send(sink, "<2@example.org>")
    assert [mail.message_id for mail in sink.mailbox] == ["<1@example.org>", "<2@example.org>"]


async def test_a_mail_that_was_being_written_at_a_kill_was_not_delivered(sink: Servers) -> None:
    """Half a mail in the spool is cut off at the next start, and what comes then is found whole."""
    send(sink, "<1@example.org>")
    await sink.smtp.kill()
    with (sink.mail_dir / "spool").open("ab") as spool:
        spool.write(b"000000002 0123456789abcdef0123456789abcdef 5000\nReturn-Path: <x")
    assert sink.mailbox.count() == 1
    await sink.smtp.start()
    send(sink, "<2@example.org>")
    assert [mail.message_id for mail in sink.mailbox] == ["<1@example.org>", "<2@example.org>"]


async def test_looking_again_brings_nothing_back(sink: Servers) -> None:
    """A mail's file that was removed stays away, for every mailbox of the directory, and later mails are found."""
    send(sink, "<1@example.org>")
    (first,) = sink.mailbox.mails()
    first.path.unlink()
    send(sink, "<2@example.org>")
    for mailbox in (sink.mailbox, Mailbox(sink.mail_dir)):
        assert [mail.message_id for mail in mailbox] == ["<2@example.org>"]


async def test_faults_that_cannot_be_read_refuse_everything(sink: Servers) -> None:
    """A test that breaks the sink with a wrong word sees mail refused, not silently accepted."""
    sink.mailbox.misbehave(Faults())
    (sink.mail_dir / "faults.json").write_text('{"refuse": true}')
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(sink, "<1@example.org>")
