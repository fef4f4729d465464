"""What a mail says: templates filled, addressed, and rendered to the bytes that a mail server gets.

Most of a mail is the same for everybody who gets its kind in its language on the same day. That much, its form, is rendered once
with marks where the person's parts go, and kept; no person's part is ever kept with it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from email.utils import format_datetime
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Final, TypeAlias
from unicodedata import category
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from habeas.contracts.outcomes import CategoryOutcome
from habeas.contracts.vocabulary import MailKind, Outcome, Right
from habeas.datamap.addresses import BadAddress, mailbox
from habeas.datamap.policy.model import Policy
from notification_mailer.errors import Unaddressable
from notification_mailer.gateways import mime
from notification_mailer.lifecycle.campaigns import Campaign, Notice
from notification_mailer.lifecycle.mails import AcknowledgementContent, Mail, OutcomeContent

LANGUAGES: Final = ("en", "de")

_TEMPLATES: Final = Path(__file__).parents[1] / "templates"
_NAME_CHARACTERS_MAX: Final = 200
_EXPORTED: Final = frozenset({Right.ACCESS, Right.PORTABILITY})
_FORMS_KEPT_MAX: Final = 512
_LINES_KEPT_MAX: Final = 8_192

# Nothing that stands in a mail holds NUL, so none of these can come from a person, a policy or a template.
_NAME: Final = "\0name\0"
_REFERENCE: Final = "\0reference\0"
_EXPORT: Final = "\0export\0"
_CATEGORIES: Final = "\0categories\0\n"

_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")

_UNFIT_FOR_A_LINE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_TURNS: Final = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
_JOINER: Final = "\u200d"
_MARKS: Final = frozenset({"Mn", "Mc", "Me", "Cf"})  # combining marks, joiners, tags
_PARTS: Final = (
    ("\U0001f3fb", "\U0001f3ff", False),
    ("\U0001f1e6", "\U0001f1ff", True),
)  # colours of skin; flags, of two letters

Segments: TypeAlias = tuple[bytes | str, ...]
"""The lines of a text: encoded for good, or as they are where they have marks."""

Says: TypeAlias = tuple[tuple[str, object], ...]
"""What a form says apart from the person, by the templates' names; hashable."""


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


Verdict: TypeAlias = Letter | Unaddressable
"""A letter, or why none can go to its address."""


@dataclass(frozen=True, slots=True)
class _Form:
    """A mail with marks where the person's parts go."""

    headers: str
    plain: Segments
    html: Segments


class Letters:
    """Writes mails in the person's language as far as there are templates, else in English."""

    def __init__(self, policy: Policy, sender: str, message_id_domain: str) -> None:
        """Load every template, and what they import; a broken one ends the start and not a mail, and the first mail waits for none.

        ``sender`` is an ASCII mailbox.
        """
        self._policy = policy
        self._notice = Notice(policy.notice_of_changes, policy.zone)
        self._from = mime.address_header("From", _shown_name(policy.controller.name), sender)
        if sender != policy.controller.dpo:
            self._from += mime.address_header("Reply-To", None, mailbox(policy.controller.dpo))
        self._domain = message_id_domain
        self._download_url = policy.answers.download_url
        self._templates: dict[tuple[str, str], tuple[Template, Template]] = {}
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
        html.get_template("layout.html")
        for language in LANGUAGES:
            for environment in (plain, html):
                environment.get_template(f"{language}/words.txt")
            for kind in (*MailKind, "category"):
                name = f"{language}/{kind}"
                self._templates[language, kind] = (plain.get_template(f"{name}.txt"), html.get_template(f"{name}.html"))
        self._form = lru_cache(_FORMS_KEPT_MAX)(self._new_form)
        self._line = lru_cache(_LINES_KEPT_MAX)(self._new_line)
        self._promise = lru_cache(1)(self._new_promise)

    def acknowledgement(self, mail: Mail, to: Recipient, now: datetime) -> Verdict:
        """Say that a request was received and until when it is answered."""
        content = AcknowledgementContent.model_validate_json(mail.content or "")
        says = (
            ("right", content.right),
            ("received_on", self._notice.day(content.received_at)),
            ("due_on", content.due_on),
            ("legal_limit_on", content.legal_limit_on),
            ("needs_identity", content.needs_identity),
        )
        return self._letter(mail, to, now, says)

    def outcome(self, mail: Mail, to: Recipient, now: datetime, *, is_erased: bool = False) -> Verdict:
        """Say what became of a request, category by category, and how to complain, by the law that the request is answered under.

        ``is_erased`` says that the person has been erased since: no copy is left. Nor is one named where nothing was held.
        Where that law is not known, as in mails that were written down by an earlier version, none is named.
        """
        content = OutcomeContent.model_validate_json(mail.content or "")
        exported = content.right in _EXPORTED
        has_copy = content.export_id is not None and content.outcome is not Outcome.NOTHING_HELD
        export = str(content.export_id) if has_copy and not is_erased else ""
        says = (
            ("right", content.right),
            ("regime", content.regime),
            ("outcome", content.outcome),
            ("export_id", _EXPORT if export else None),
            ("download_url", self._download_url),
            ("copy_erased", has_copy and is_erased),
            ("copies_deleted", content.copies_deleted),
        )
        language = _language(to.language)
        lines = [
            self._line(language, exported, content.regime, one.category, one.result, one.rows, one.ground, one.until)
            for one in content.categories
        ]
        return self._letter(mail, to, now, says, export, lines)

    def policy_change(self, mail: Mail, campaign: Campaign, to: Recipient, now: datetime) -> Verdict:
        """Tell an account holder of a change of the policy.

        Whoever is told today has the whole notice period from today, also where the change was announced for an earlier day.
        """
        earliest, notice_days = self._promise(now)
        says = (
            ("summary", _in_language(campaign.summary, to.language)),
            ("url", campaign.url),
            ("applies_on", max(campaign.effective_on, earliest)),
            ("notice", notice_days),
        )
        return self._letter(mail, to, now, says)

    def message_id(self, mail_id: UUID) -> str:
        """Return the Message-ID of a mail: the same for every attempt, so that receivers can tell a repetition."""
        return f"<{mail_id}@{self._domain}>"

    def _letter(
        self,
        mail: Mail,
        to: Recipient,
        now: datetime,
        says: Says,
        export: str = "",
        lines: Sequence[tuple[bytes, bytes]] = (),
    ) -> Verdict:
        """Put the person's parts where the form has its marks; those of HTML are escaped.

        An address that no mail can go to is an answer and not an error: it must not keep anybody else's letter back.
        """
        try:
            address = mailbox(to.address)
        except BadAddress as error:
            return Unaddressable(error.reason)
        name = _shown_name(to.name)
        form = self._form(_language(to.language), mail.kind, name is not None, says)
        parts = [(_NAME, name or ""), (_REFERENCE, str(mail.request_id)), (_EXPORT, export)]
        plain = _filled(form.plain, parts, b"".join([line for line, _ in lines]))
        parts[0] = (_NAME, escape(name or ""))
        html = _filled(form.html, parts, b"".join([line for _, line in lines]))
        # An address beyond ASCII cannot stand in a header that every server passes on: an empty group does (RFC 6857).
        addressed = mime.address_header("To", name, address) if address.isascii() else _TO_NOBODY
        headers = f"{_dated(now)}{mime.header('Message-ID', self.message_id(mail.mail_id))}{addressed}{form.headers}"
        if mail.request_id is not None:
            headers += mime.header("X-Habeas-Request", str(mail.request_id))
        return Letter(address, mime.alternative(headers, f"=-{mail.mail_id.hex}", plain, html))

    def _new_form(self, language: str, kind: MailKind, is_named: bool, says: Says) -> _Form:  # noqa: FBT001 -- lru_cache keys by position
        known = {
            **dict(says),
            "name": _NAME if is_named else None,
            "kind": kind,
            "reference": _REFERENCE,
            "categories": _CATEGORIES.removesuffix("\n"),
            "controller": self._policy.controller,
        }
        plain, html = self._templates[language, kind]
        subject, _, text = plain.render(known).partition("\n")
        headers = (
            self._from
            + mime.text_header("Subject", subject.strip())
            + mime.header("Auto-Submitted", "auto-generated")  # RFC 3834 section 5: nobody's vacation answers it
            + mime.header("Content-Language", language)
            + mime.header("X-Habeas-Kind", kind.value)
        )
        return _Form(headers, _segments(text.strip() + "\n"), _segments(html.render(known)))

    def _new_line(self, language: str, exported: bool, regime: str | None, *category: object) -> tuple[bytes, bytes]:  # noqa: FBT001 -- the same
        """Say what became of one category, as a line of text and one of HTML; ``category`` in the order of its fields."""
        one = dict(zip(CategoryOutcome.model_fields, category, strict=True))
        plain, html = self._templates[language, "category"]
        return (
            mime.quoted(plain.render(one=one, exported=exported, regime=regime) + "\n"),
            mime.quoted(html.render(one=one, exported=exported, regime=regime) + "\n"),
        )

    def _new_promise(self, now: datetime) -> tuple[date, int]:
        earliest = self._notice.earliest(now)
        return earliest, (earliest - self._notice.day(now)).days


_TO_NOBODY: Final = mime.header("To", "undisclosed-recipients:;")


@lru_cache(4)
def _dated(now: datetime) -> str:
    return mime.header("Date", format_datetime(now))


def _segments(text: str) -> Segments:
    """Encode the lines that are the same for everybody; what has a mark is encoded when it is filled."""
    found: list[bytes | str] = []
    plain: list[str] = []
    for line in _LINE.findall(text):
        if "\0" not in line:
            plain.append(line)
            continue
        found += [mime.quoted("".join(plain)), line]
        plain.clear()
    return (*found, mime.quoted("".join(plain)))


def _filled(segments: Segments, parts: Sequence[tuple[str, str]], categories: bytes) -> bytes:
    """Put the person's parts where the marks are."""
    found: list[bytes] = []
    for segment in segments:
        if isinstance(segment, bytes):
            found.append(segment)
        elif segment == _CATEGORIES:
            found.append(categories)
        else:
            line = segment
            for mark, part in parts:
                line = line.replace(mark, part)
            found.append(mime.quoted(line))
    return b"".join(found)


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
    """Return a name that can stand in a header and a text: one line, cut between whole characters as people see them.

    Joiners and other invisible characters are parts of names and of emoji. Controls and lone surrogates fit nowhere; marks that turn
    the direction of writing would turn the text around the name too, and are left out.
    """
    if name is None:
        return None
    if not name.isprintable():
        name = _TURNS.sub("", _UNFIT_FOR_A_LINE.sub(" ", name))
    name = " ".join(name.split())
    end = _NAME_CHARACTERS_MAX
    while len(name) > end > 0 and _goes_on(name[end - 1], name[end]):
        end -= 1
    return name[: end or _NAME_CHARACTERS_MAX] or None


def _goes_on(before: str, after: str) -> bool:
    """Tell whether two characters may be parts of one that people see (UAX 29 section 3.1, taken broadly)."""
    if before == _JOINER or category(after) in _MARKS:
        return True
    return any(first <= after <= last and (not pairs or first <= before <= last) for first, last, pairs in _PARTS)
