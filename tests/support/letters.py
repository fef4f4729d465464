"""Mails as the mailer writes them, and how a receiver reads them."""

from datetime import UTC, date, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from uuid import UUID

from habeas.contracts.outcomes import CategoryOutcome
from habeas.contracts.request_intake import RequestAccepted, RequestFulfilled
from habeas.contracts.vocabulary import Outcome, Right
from habeas.datamap.policy.model import load_policy
from notification_mailer.gateways.letters import Letter, Letters, Verdict
from notification_mailer.lifecycle import mails
from notification_mailer.lifecycle.mails import Mail
from tests.support.shop import POLICY

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ONE = UUID("01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3e")


def letters_of(directory: Path, added: str = "", sender: str = "no-reply@example.org") -> Letters:
    """Letters of a policy that says this, too."""
    (directory / "policy.yaml").write_text(POLICY + added, encoding="utf-8")
    return Letters(load_policy(directory / "policy.yaml"), sender, "mail.example.org")


def acknowledgement(right: Right = Right.ERASURE, *, needs_identity: bool = False) -> Mail:
    """An acknowledgement of a request that came shortly before midnight in Berlin."""
    accepted = RequestAccepted(
        request_id=ONE,
        subject_id=ONE,
        right=right,
        regime="gdpr",
        law_version="2016-679",
        received_at=datetime(2026, 11, 23, 22, 30, tzinfo=UTC),
        accepted_at=NOW,
        due_on=date(2026, 12, 23),
        legal_limit_on=date(2026, 12, 28),
        language=None,
        contact=None,
        subject_ref="0" * 64,
        needs_identity=needs_identity,
    )
    return mails.acknowledge(accepted, None, NOW)


def outcome(
    right: Right,
    categories: tuple[CategoryOutcome, ...],
    word: Outcome,
    export: UUID | None = None,
    regime: str | None = "gdpr",
    *,
    copies: bool = False,
) -> Mail:
    """An outcome."""
    done = RequestFulfilled(
        request_id=ONE,
        subject_id=ONE,
        right=right,
        regime=regime,
        outcome=word,
        categories=categories,
        export_id=export,
        copies_deleted=copies,
        fulfilled_at=NOW,
    )
    return mails.answer(done, None, NOW)


def a_letter(written: Verdict) -> Letter:
    """What was written, which is a letter."""
    assert isinstance(written, Letter)
    return written


def read(written: Verdict) -> EmailMessage:
    """The mail as a receiver's parser sees it, without a defect."""
    letter = a_letter(written)
    message = message_from_bytes(letter.text, policy=default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def bodies(letter: Verdict) -> tuple[str, str]:
    """Plain text and HTML, decoded."""
    message = read(letter)
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    return str(plain.get_content()).replace("\r\n", "\n"), str(html.get_content()).replace("\r\n", "\n")
