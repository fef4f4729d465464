"""What a mail says: templates filled, addressed, and rendered to the bytes that a mail server gets."""

import hashlib
from binascii import b2a_qp
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.errors import MessageError
from email.header import Header
from email.headerregistry import Address
from email.message import Message
from email.policy import compat32
from email.utils import format_datetime, formataddr
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from habeas.contracts.vocabulary import MailKind, Right
from habeas.datamap.policy import Policy
from notification_mailer.errors import Unaddressable
from notification_mailer.lifecycle.campaigns import Campaign, Notice
from notification_mailer.lifecycle.mails import AcknowledgementContent, Mail, OutcomeContent

LANGUAGES: Final = ("en", "de")

# The newer policies parse every header again: four times slower, and nothing here has to be parsed.
_POLICY: Final = compat32.clone(linesep="\r\n", mangle_from_=False)

_TEMPLATES: Final = Path(__file__).parents[1] / "templates"
_NAME_CHARACTERS_MAX: Final = 200
_ADDRESS_OCTETS_MAX: Final = 254  # RFC 3696 erratum 1690
_EXPORTED: Final = frozenset({Right.ACCESS, Right.PORTABILITY})


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who gets a mail; shows nobody."""

    address: str = field(repr=False)
    name: str | None = field(default=None, repr=False)
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A rendered mail; lives in memory only."""

    recipient: str = field(repr=False)
    text: bytes = field(repr=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 of what is sent."""
        return hashlib.sha256(self.text).digest()


class Letters:
    """Writes mails in the person's language as far as there are templates, else in English."""

    def __init__(self, policy: Policy, sender: str, message_id_domain: str, portal_url: str | None) -> None:
        """Load every template; a broken one ends the start and not a mail."""
        self._policy = policy
        self._notice = Notice(policy.notice_of_changes, policy.zone)
        self._from = formataddr((policy.controller.name, sender))
        self._reply_to = None if sender == policy.controller.dpo else policy.controller.dpo
        self._domain = message_id_domain
        self._portal_url = portal_url
        self._templates: dict[tuple[str, MailKind], tuple[Template, Template]] = {}
        loader = FileSystemLoader(_TEMPLATES)
        plain = Environment(
            loader=loader,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,  # noqa: S701 -- text/plain
        )
        html = Environment(
            loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=True
        )
        for language in LANGUAGES:
            for kind in MailKind:
                name = f"{language}/{kind.value}"
                self._templates[language, kind] = (plain.get_template(f"{name}.txt"), html.get_template(f"{name}.html"))

    def acknowledgement(self, mail: Mail, to: Recipient, now: datetime) -> Letter:
        """Say that a request was received and until when it is answered. Raises ``Unaddressable``."""
        content = AcknowledgementContent.model_validate_json(mail.content or "")
        return self._letter(
            mail,
            to,
            now,
            {
                "right": content.right,
                "received_on": self._notice.day(content.received_at),
                "due_on": content.due_on,
                "legal_limit_on": content.legal_limit_on,
            },
        )

    def outcome(self, mail: Mail, to: Recipient, now: datetime) -> Letter:
        """Say what became of a request, category by category, and how to complain (Art. 12(4), 77). Raises ``Unaddressable``."""
        content = OutcomeContent.model_validate_json(mail.content or "")
        return self._letter(
            mail,
            to,
            now,
            {
                "right": content.right,
                "outcome": content.outcome,
                "categories": content.categories,
                "exported": content.right in _EXPORTED,
                "export_id": content.export_id,
                "portal_url": self._portal_url,
            },
        )

    def policy_change(self, mail: Mail, campaign: Campaign, to: Recipient, now: datetime) -> Letter:
        """Tell an account holder of a change of the policy. Raises ``Unaddressable``.

        Whoever is told today has the whole notice period from today, also where the change was announced for an earlier day.
        """
        earliest = self._notice.earliest(now)
        return self._letter(
            mail,
            to,
            now,
            {
                "summary": _in_language(campaign.summary, to.language),
                "url": campaign.url,
                "applies_on": max(campaign.effective_on, earliest),
                "notice": (earliest - self._notice.day(now)).days,
            },
        )

    def message_id(self, mail_id: UUID) -> str:
        """Give the Message-ID of a mail: the same for every attempt, so that receivers can tell a repetition."""
        return f"<{mail_id}@{self._domain}>"

    def _letter(self, mail: Mail, to: Recipient, now: datetime, says: Mapping[str, Any]) -> Letter:
        name = _shown_name(to.name)
        language = _language(to.language)
        known = {
            **says,
            "name": name,
            "kind": mail.kind,
            "reference": mail.request_id,
            "controller": self._policy.controller,
        }
        plain, html = self._templates[language, mail.kind]
        subject, _, text = plain.render(known).partition("\n")
        address = _address(to.address)
        message = Message(_POLICY)
        message["Date"] = format_datetime(now)
        message["Message-ID"] = self.message_id(mail.mail_id)
        message["From"] = self._from
        # An address beyond ASCII cannot stand in a header that every server passes on: an empty group does (RFC 6857).
        message["To"] = formataddr((name, address)) if address.isascii() else "undisclosed-recipients:;"
        if self._reply_to is not None:
            message["Reply-To"] = self._reply_to
        message["Subject"] = Header(subject.strip(), "utf-8" if not subject.isascii() else "us-ascii").encode()
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5: nobody's vacation answers it
        message["Content-Language"] = language
        message["X-Habeas-Kind"] = mail.kind.value
        if mail.request_id is not None:
            message["X-Habeas-Request"] = str(mail.request_id)
        message["MIME-Version"] = "1.0"
        message["Content-Type"] = f'multipart/alternative; boundary="=-{mail.mail_id.hex}"'
        message.attach(_part("plain", text.strip() + "\n"))
        message.attach(_part("html", html.render(known)))
        return Letter(address, message.as_bytes())


def _part(subtype: str, text: str) -> Message:
    part = Message(_POLICY)
    part["Content-Type"] = f'text/{subtype}; charset="utf-8"'
    part["Content-Transfer-Encoding"] = "quoted-printable"
    part.set_payload(b2a_qp(text.encode(), istext=True).decode("ascii"))
    return part


def _language(wanted: str | None) -> str:
    """Give the language of the templates that comes closest to a BCP 47 tag."""
    primary = (wanted or "").partition("-")[0].lower()
    return primary if primary in LANGUAGES else LANGUAGES[0]


def _in_language(texts: Mapping[str, str], wanted: str | None) -> str:
    """Give the text for a BCP 47 tag: its own, its primary language's, English, or whichever there is."""
    exact = wanted or ""
    for tag in (exact, exact.partition("-")[0], LANGUAGES[0]):
        if tag in texts:
            return texts[tag]
    return texts[min(texts)]


def _shown_name(name: str | None) -> str | None:
    """Give a name that can stand in a header and a text: one line of printable characters."""
    if name is None:
        return None
    printable = "".join(each if each.isprintable() else " " for each in name)
    return " ".join(printable.split())[:_NAME_CHARACTERS_MAX] or None


def _address(address: str) -> str:
    """Give the address as a server wants it; an international domain in its ASCII form (RFC 5891). Raises ``Unaddressable``."""
    local, at, domain = address.strip().rpartition("@")
    if not (local and at and domain) or not address.strip().isprintable() or " " in domain:
        raise Unaddressable
    try:
        found = f"{local}@{domain if domain.isascii() else domain.encode('idna').decode('ascii')}"
        # The parser knows no letters beyond ASCII, which stand for themselves in a local part (RFC 6531 section 3.3).
        Address(addr_spec=found.encode("ascii", "replace").decode("ascii"))
    except (ValueError, IndexError, MessageError):
        raise Unaddressable from None  # the cause would quote the address
    if len(found.encode()) > _ADDRESS_OCTETS_MAX:
        raise Unaddressable
    return found
