"""What mails say, read back with the standard library's parser."""

from datetime import UTC, date, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import compat32, default
from email.utils import parseaddr
from pathlib import Path
from uuid import UUID

import pytest
from jinja2 import Environment

from habeas.contracts.outcomes import CategoryOutcome
from habeas.contracts.request_intake import RequestAccepted, RequestFulfilled
from habeas.contracts.vocabulary import KeepGround, MailKind, Outcome, Right, TableResult
from habeas.datamap.policy import load_policy
from notification_mailer.errors import Unaddressable
from notification_mailer.gateways.letters import LANGUAGES, Letter, Letters, Recipient
from notification_mailer.lifecycle import mails
from notification_mailer.lifecycle.campaigns import Campaign, State
from notification_mailer.lifecycle.mails import Mail
from tests.support.shop import POLICY

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ONE = UUID("01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3e")


@pytest.fixture
def letters(tmp_path: Path) -> Letters:
    """Letters of a controller named A with the officer privacy@example.org, in Berlin."""
    (tmp_path / "policy.yaml").write_text(POLICY, encoding="utf-8")
    return Letters(load_policy(tmp_path / "policy.yaml"), "no-reply@example.org", "mail.example.org", None)


def acknowledgement(right: Right = Right.ERASURE) -> Mail:
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
    )
    return mails.acknowledge(accepted, None, NOW)


def outcome(right: Right, categories: tuple[CategoryOutcome, ...], word: Outcome, export: UUID | None = None) -> Mail:
    """An outcome."""
    done = RequestFulfilled(
        request_id=ONE,
        subject_id=ONE,
        right=right,
        outcome=word,
        categories=categories,
        export_id=export,
        fulfilled_at=NOW,
    )
    return mails.answer(done, None, NOW)


def read(letter: Letter) -> EmailMessage:
    """The mail as a receiver's parser sees it, without a defect."""
    message = message_from_bytes(letter.text, policy=default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def bodies(letter: Letter) -> tuple[str, str]:
    """Plain text and HTML, decoded."""
    message = read(letter)
    plain, html = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert html is not None
    return str(plain.get_content()).replace("\r\n", "\n"), str(html.get_content()).replace("\r\n", "\n")


def test_headers_are_those_of_an_automatic_mail(letters: Letters) -> None:
    """RFC 5322 and 3834: date, own Message-ID, addresses, auto-submitted; and what testers match by."""
    mail = acknowledgement()
    letter = letters.acknowledgement(mail, Recipient("ann@example.net", "Ann Müller", "en"), NOW)
    message = read(letter)
    assert message["Date"].datetime == NOW
    assert message["Message-ID"] == f"<{mail.mail_id}@mail.example.org>"
    assert str(message["From"]) == "A <no-reply@example.org>"
    assert str(message["Reply-To"]) == "privacy@example.org"
    (to,) = message["To"].addresses
    assert (to.display_name, to.addr_spec) == ("Ann Müller", "ann@example.net")
    assert message["Subject"] == "We have received your request"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Habeas-Kind"] == "acknowledgement"
    assert message["X-Habeas-Request"] == str(ONE)
    assert message.get_content_type() == "multipart/alternative"


def test_bytes_are_fit_for_any_server(letters: Letters) -> None:
    """ASCII, CRLF at every end of line, no line over 998 octets (RFC 5321 section 4.5.3.1.6)."""
    letter = letters.acknowledgement(acknowledgement(), Recipient("ann@example.net", "Ännchen " * 30, "de"), NOW)
    assert letter.text.isascii()
    assert letter.text.replace(b"\r\n", b"").count(b"\n") == 0
    assert max(len(line) for line in letter.text.split(b"\r\n")) <= 998


def test_the_day_is_that_of_the_controller(letters: Letters) -> None:
    """22:30 UTC on 23 November is 23:30 in Berlin: still the 23rd."""
    plain, html = bodies(letters.acknowledgement(acknowledgement(), Recipient("a@example.net"), NOW))
    for text in (plain, html):
        assert "on 23 November 2026 we received your request: erasure of your data." in text
        assert "23 December 2026" in text
        assert "28 December 2026" in text


@pytest.mark.parametrize(
    ("wanted", "language", "greeting"),
    [
        ("de", "de", "Guten Tag Ann,"),
        ("de-AT", "de", "Guten Tag Ann,"),
        ("en-GB", "en", "Hello Ann,"),
        ("fr", "en", "Hello Ann,"),
        (None, "en", "Hello Ann,"),
    ],
)
def test_language_falls_back_to_english(letters: Letters, wanted: str | None, language: str, greeting: str) -> None:
    """German for every kind of German, English for the rest."""
    letter = letters.acknowledgement(acknowledgement(), Recipient("a@example.net", "Ann", wanted), NOW)
    assert read(letter)["Content-Language"] == language
    plain, html = bodies(letter)
    assert plain.startswith(greeting)
    assert f'<html lang="{language}">' in html


def test_nobody_is_named_who_is_not_known(letters: Letters) -> None:
    """Without a name the greeting has none, and To holds the bare address."""
    letter = letters.acknowledgement(acknowledgement(), Recipient("a@example.net", "  "), NOW)
    assert bodies(letter)[0].startswith("Hello,")
    assert str(read(letter)["To"]) == "a@example.net"


def test_a_name_cannot_break_out(letters: Letters) -> None:
    """Line ends do not make headers, angle brackets do not make markup."""
    name = "Eve\r\nBcc: all@example.net\r\n\r\n<script>x</script>"
    letter = letters.acknowledgement(acknowledgement(), Recipient("a@example.net", name), NOW)
    assert read(letter)["Bcc"] is None
    assert [line for line in letter.text.split(b"\r\n") if line.lower().startswith(b"bcc")] == []
    assert "<script>" not in bodies(letter)[1]
    assert "&lt;script&gt;" in bodies(letter)[1]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nobody",
        "@example.net",
        "a@",
        "a b@example.net",
        "a@b c",
        "x\r\ny@example.net",
        "a@example.net\0",
        "a" * 260 + "@example.net",
    ],
)
def test_what_is_no_address_gets_no_letter(letters: Letters, address: str) -> None:
    """An unusable address is an error that does not repeat it."""
    with pytest.raises(Unaddressable) as caught:
        letters.acknowledgement(acknowledgement(), Recipient(address), NOW)
    assert caught.value.__cause__ is None
    assert caught.value.args == ()


def test_international_domains_are_written_in_ascii(letters: Letters) -> None:
    """bücher.example is xn--bcher-kva.example (RFC 3492 section 7.1 names the label)."""
    letter = letters.acknowledgement(acknowledgement(), Recipient("ann@bücher.example"), NOW)
    assert letter.recipient == "ann@xn--bcher-kva.example"


def test_international_local_parts_stay_out_of_headers(letters: Letters) -> None:
    """The envelope carries it by SMTPUTF8; the header is an empty group, so that the mail stays ASCII."""
    letter = letters.acknowledgement(acknowledgement(), Recipient("jörg@example.net"), NOW)
    assert letter.recipient == "jörg@example.net"
    assert letter.text.isascii()
    assert str(read(letter)["To"]) == "undisclosed-recipients:;"


def test_an_outcome_says_what_became_of_each_category(letters: Letters) -> None:
    """Kept data comes with ground and end date in plain words, and with the ways to complain (Art. 12(4), 77)."""
    categories = (
        CategoryOutcome(category="account", result=TableResult.ERASED, rows=1),
        CategoryOutcome(
            category="payment",
            result=TableResult.KEPT,
            rows=3,
            ground=KeepGround.LEGAL_OBLIGATION,
            until=date(2036, 12, 31),
        ),
        CategoryOutcome(category="scores", result=TableResult.ANONYMISED, rows=2),
        CategoryOutcome(category="game_saves", result=TableResult.NOTHING_HELD, rows=0),
    )
    mail = outcome(Right.ERASURE, categories, Outcome.PARTLY_KEPT)
    plain, html = bodies(letters.outcome(mail, Recipient("a@example.net"), NOW))
    assert "- Account data: 1 entry erased\n" in plain
    assert (
        "- Payment data: 3 entries kept, because the law obliges us to (Art. 17(3)(b) GDPR), until 31 December 2036\n"
        in plain
    )
    assert "- Quality scores: 2 entries made anonymous" in plain
    assert "- Game saves: we hold nothing\n" in plain
    assert "31 December 2036" in html
    for text in (plain, html):
        assert "privacy@example.org" in text
        assert "(Art. 77 GDPR), for instance B," in text


def test_an_export_is_pointed_to(letters: Letters) -> None:
    """Rows that are held are in the copy, not "kept"; the number of the copy is named."""
    categories = (CategoryOutcome(category="usage", result=TableResult.KEPT, rows=12),)
    mail = outcome(Right.ACCESS, categories, Outcome.DONE, ONE)
    plain, _ = bodies(letters.outcome(mail, Recipient("a@example.net"), NOW))
    assert "- Usage data: 12 entries in your export\n" in plain
    assert f"Your copy is ready in your account, under privacy. Its number is {ONE}." in plain
    assert "kept" not in plain


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("right", list(Right))
def test_every_right_has_words_in_every_language(letters: Letters, right: Right, language: str) -> None:
    """No template lacks a word: an unknown one would be an error while rendering."""
    to = Recipient("a@example.net", "Ann", language)
    letters.acknowledgement(acknowledgement(right), to, NOW)
    for word in Outcome:
        categories = tuple(
            CategoryOutcome(category="account", result=result, rows=2, ground=ground, until=NOW.date())
            for result in TableResult
            for ground in (None, *KeepGround)
        )
        letters.outcome(outcome(right, categories, word, ONE), to, NOW)


def test_no_mail_waits_for_a_template(letters: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the start nothing is compiled any more, whatever is written first."""

    def compile_template(*_: object, **__: object) -> None:
        raise AssertionError("a template is compiled")

    monkeypatch.setattr(Environment, "compile", compile_template)
    categories = (CategoryOutcome(category="usage", result=TableResult.KEPT, rows=12),)
    for language in LANGUAGES:
        to = Recipient("a@example.net", "Ann", language)
        letters.acknowledgement(acknowledgement(), to, NOW)
        letters.outcome(outcome(Right.ACCESS, categories, Outcome.DONE, ONE), to, NOW)
        letters.policy_change(notice(), a_campaign(date(2027, 1, 15)), to, NOW)


def a_campaign(effective_on: date) -> Campaign:
    """A campaign with three languages, two of which have templates."""
    return Campaign(
        campaign_id=ONE,
        change_id="2027-01-privacy",
        state=State.GATHERING,
        version="2027-01-15",
        summary={"en": "We log less.", "de": "Wir protokollieren weniger.", "fr": "Nous journalisons moins."},
        url="https://example.org/privacy?a=1&b=2",
        content_digest=b"d" * 32,
        effective_on=effective_on,
        earliest_effective_on=date(2026, 12, 24),
        scheduled_at=NOW,
    )


def notice() -> Mail:
    """A campaign mail."""
    return mails.notify(ONE, ONE, "s1.data.x", b"f" * 32, None, NOW)


@pytest.mark.parametrize(
    ("wanted", "summary"),
    [("de-CH", "Wir protokollieren weniger."), ("fr", "Nous journalisons moins."), ("pl", "We log less.")],
)
def test_a_notice_gives_the_summary_in_the_persons_language(letters: Letters, wanted: str, summary: str) -> None:
    """Also where the frame around it is in English for want of a template."""
    letter = letters.policy_change(
        notice(), a_campaign(date(2027, 1, 15)), Recipient("a@example.net", None, wanted), NOW
    )
    plain, html = bodies(letter)
    assert summary in plain
    assert summary in html
    assert "https://example.org/privacy?a=1&amp;b=2" in html
    assert read(letter)["X-Habeas-Request"] is None
    assert read(letter)["X-Habeas-Kind"] == MailKind.POLICY_CHANGE


@pytest.mark.parametrize(
    ("effective_on", "told"), [(date(2027, 1, 15), "15 January 2027"), (date(2026, 12, 1), "24 December 2026")]
)
def test_a_notice_never_names_a_day_that_breaks_the_promise(letters: Letters, effective_on: date, told: str) -> None:
    """Whoever is told on 24 November has until 24 December, whatever the change announced."""
    plain, _ = bodies(letters.policy_change(notice(), a_campaign(effective_on), Recipient("a@example.net"), NOW))
    assert f"the change applies from {told}." in plain
    assert "30 days before" in plain


def test_letters_and_recipients_show_nobody() -> None:
    """Their representation, as it may end in a log, holds neither address nor text."""
    assert "ann" not in repr(Recipient("ann@example.net", "ann")) + repr(Letter("ann@example.net", b"ann"))


@pytest.mark.parametrize(
    "name",
    [
        "O'Brien, Pat",
        'Quo "te" <x>',
        "back\\slash",
        "Zoë",
        "李小龍" * 20,
        "x" * 150,
        "Dr. A. B. C.",
        "=?utf-8?q?Eve?=",
        "\0name\0",
    ],
)
def test_any_name_comes_back_from_the_header_as_it_was(letters: Letters, name: str) -> None:
    """Specials, letters beyond ASCII and long names, by the standard library's decoder; no header line over 78 (RFC 5322)."""
    letter = letters.acknowledgement(acknowledgement(), Recipient("ann@example.net", name), NOW)
    head = letter.text.partition(b"\r\n\r\n")[0]
    assert max(map(len, head.split(b"\r\n"))) <= 78
    raw = message_from_bytes(letter.text, policy=compat32)["To"].replace("\r\n", "")
    shown, address = parseaddr(raw)
    assert address == "ann@example.net"
    assert str(make_header(decode_header(shown))) == name.replace("\0", " ").strip()


def test_nothing_of_one_person_is_in_the_mail_of_the_next(letters: Letters) -> None:
    """What is kept of a rendered mail names nobody: the next person's mail has that person's parts and no other's."""
    first = outcome(
        Right.ACCESS, (CategoryOutcome(category="usage", result=TableResult.KEPT, rows=7341),), Outcome.DONE, ONE
    )
    letters.outcome(first, Recipient("first@example.net", "First"), NOW)
    categories = (CategoryOutcome(category="usage", result=TableResult.KEPT, rows=5),)
    other = UUID(int=ONE.int + 1)
    mail = mails.answer(
        RequestFulfilled(
            request_id=other,
            subject_id=other,
            right=Right.ACCESS,
            outcome=Outcome.DONE,
            categories=categories,
            export_id=other,
            fulfilled_at=NOW,
        ),
        None,
        NOW,
    )
    letter = letters.outcome(mail, Recipient("second@example.net", "Second"), NOW)
    text = letter.text.decode() + "".join(bodies(letter))
    for needle in ("first", "First", "7341", str(ONE), ONE.hex, "\0"):
        assert needle not in text
    for needle in ("second@example.net", "Second", str(other), "5 entries in your export"):
        assert needle in text


def test_every_category_has_a_line_of_its_own_and_none_leaves_none(letters: Letters) -> None:
    """A line each in text and HTML; without categories there is neither an empty line nor an empty item."""
    two = tuple(CategoryOutcome(category=name, result=TableResult.ERASED, rows=1) for name in ("usage", "support"))
    plain, html = bodies(letters.outcome(outcome(Right.ERASURE, two, Outcome.DONE), Recipient("a@example.net"), NOW))
    assert "- Usage data: 1 entry erased\n- Support requests: 1 entry erased\n\nIf you" in plain
    assert "</li>\n<li><strong>Support requests</strong>: 1 entry erased</li>\n</ul>" in html
    plain, html = bodies(letters.outcome(outcome(Right.ERASURE, (), Outcome.DONE), Recipient("a@example.net"), NOW))
    assert "erasure of your data.\n\n\nIf you" in plain
    assert "<ul>\n</ul>" in html
