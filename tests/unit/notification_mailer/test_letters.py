"""What mails say, read back with the standard library's parser."""

import re
from datetime import date
from pathlib import Path
from uuid import UUID

import pytest
from jinja2 import Environment

from habeas.contracts.outcomes import CategoryOutcome
from habeas.contracts.request_intake import RequestFulfilled
from habeas.contracts.vocabulary import KeepGround, MailKind, Outcome, Right, TableResult
from habeas.datamap.policy.model import load_policy
from habeas.datamap.policy.regimes import packaged
from notification_mailer.errors import Unaddressable
from notification_mailer.gateways.letters import LANGUAGES, Letter, Letters, Recipient
from notification_mailer.lifecycle import mails
from notification_mailer.lifecycle.campaigns import Campaign, State
from notification_mailer.lifecycle.mails import Mail
from tests.support.letters import NOW, ONE, a_letter, acknowledgement, bodies, letters_of, outcome, read
from tests.support.shop import POLICY


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
    letter = a_letter(
        letters.acknowledgement(acknowledgement(), Recipient("ann@example.net", "Ännchen " * 30, "de"), NOW)
    )
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
        "me@[mail.example.org",
        "\ud800@example.net",
    ],
)
def test_what_is_no_address_gets_no_letter(letters: Letters, address: str) -> None:
    """An unusable address is an answer with a reason, which does not repeat it."""
    refused = letters.acknowledgement(acknowledgement(), Recipient(address), NOW)
    assert isinstance(refused, Unaddressable)
    assert refused.args == (refused.reason.value,)
    assert refused.__cause__ is None


def test_international_domains_are_written_in_ascii(letters: Letters) -> None:
    """bücher.example is xn--bcher-kva.example (RFC 3492 section 7.1 names the label)."""
    letter = a_letter(letters.acknowledgement(acknowledgement(), Recipient("ann@bücher.example"), NOW))
    assert letter.recipient == "ann@xn--bcher-kva.example"


def test_international_local_parts_stay_out_of_headers(letters: Letters) -> None:
    """The envelope carries it by SMTPUTF8; the header is an empty group, so that the mail stays ASCII."""
    letter = a_letter(letters.acknowledgement(acknowledgement(), Recipient("jörg@example.net"), NOW))
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


LAWS = {
    "gdpr": {
        "en": ("supervisory authority (Art. 77 GDPR), for instance B, or go to court", "Art. 17(3)(b) GDPR"),
        "de": ("Aufsichtsbehörde beschweren (Art. 77 DSGVO), etwa bei: B,", "Art. 17 Abs. 3 lit. b DSGVO"),
    },
    "uk-gdpr": {
        "en": ("Information Commissioner of the United Kingdom (Art. 77 UK GDPR)", "Art. 17(3)(b) UK GDPR"),
        "de": ("Vereinigten Königreichs beschweren (Art. 77 UK GDPR)", "Art. 17 Abs. 3 lit. b UK GDPR"),
    },
    "ccpa": {
        "en": ("California Privacy Protection Agency (California Civil Code 1798.199.45)", "Civil Code 1798.105(d)(8)"),
        "de": ("California Privacy Protection Agency (California Civil Code 1798.199.45)", "Civil Code 1798.105(d)(8)"),
    },
    None: {"en": ("complain to the authority in charge, for instance B.", ""), "de": ("zuständigen Behörde", "")},
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("regime", [*packaged(), None, "a-law-to-come"])
def test_the_law_that_is_named_is_the_requests(letters: Letters, regime: str | None, language: str) -> None:
    """Complaint and ground by each packaged regime, and no word of any other; where it is not known, no law is named."""
    kept = CategoryOutcome(
        category="payment", result=TableResult.KEPT, rows=3, ground=KeepGround.LEGAL_OBLIGATION, until=NOW.date()
    )
    mail = outcome(Right.ERASURE, (kept,), Outcome.PARTLY_KEPT, regime=regime)
    complaint, ground = LAWS[regime if regime in LAWS else None][language]
    others = {"77 GDPR", "77 DSGVO", "UK GDPR", "Civil Code"} - {
        mark for mark in ("77 GDPR", "77 DSGVO", "UK GDPR", "Civil Code") if mark in complaint
    }
    for text in bodies(letters.outcome(mail, Recipient("a@example.net", None, language), NOW)):
        assert complaint in text
        assert ground in text
        assert [mark for mark in others if mark in text] == []
        assert ("Art." in text or "Code" in text) is bool(ground)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("regime", packaged())
def test_every_law_has_words_for_every_ground(letters: Letters, regime: str, language: str) -> None:
    """Each ground for keeping is explained in words, by each regime, and with an article of its own law or none."""
    for ground in KeepGround:
        kept = CategoryOutcome(category="payment", result=TableResult.KEPT, rows=1, ground=ground, until=None)
        mail = outcome(Right.ERASURE, (kept,), Outcome.PARTLY_KEPT, regime=regime)
        plain, _ = bodies(letters.outcome(mail, Recipient("a@example.net", None, language), NOW))
        (line,) = [each for each in plain.splitlines() if each.startswith("- ")]
        assert re.search(r", (because|weil) \w+", line)
        assert ("Civil Code" in line or "(" not in line) if regime == "ccpa" else "17" in line


def test_an_export_is_pointed_to(letters: Letters) -> None:
    """Rows that are held are in the copy, not "kept"; the number of the copy is named."""
    categories = (CategoryOutcome(category="usage", result=TableResult.KEPT, rows=12),)
    mail = outcome(Right.ACCESS, categories, Outcome.DONE, ONE)
    plain, _ = bodies(letters.outcome(mail, Recipient("a@example.net"), NOW))
    assert "- Usage data: 12 entries in your export\n" in plain
    assert "kept" not in plain


def test_an_officer_may_have_an_international_domain(tmp_path: Path) -> None:
    """Headers are ASCII, whatever the policy says; the text shows the address as the company writes it."""
    (tmp_path / "policy.yaml").write_text(
        POLICY.replace("privacy@example.org", "privacy@bücher.example"), encoding="utf-8"
    )
    written = Letters(load_policy(tmp_path / "policy.yaml"), "no-reply@example.org", "example.org").acknowledgement(
        acknowledgement(), Recipient("a@example.net"), NOW
    )
    assert str(read(written)["Reply-To"]) == "privacy@xn--bcher-kva.example"
    assert "privacy@bücher.example" in bodies(written)[0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_copy_is_promised_where_the_policy_says_that_it_is(tmp_path: Path, language: str) -> None:
    """With a page the mail names it; without one it says whom to ask, and speaks of no page and no account."""
    mail = outcome(Right.ACCESS, (), Outcome.DONE, ONE)
    to = Recipient("a@example.net", None, language)
    page = "https://example.org/privacy/copies"
    for text in bodies(letters_of(tmp_path, f"answers: {{download_url: {page}}}\n").outcome(mail, to, NOW)):
        assert page in text
        assert str(ONE) in text
    for text in bodies(letters_of(tmp_path).outcome(mail, to, NOW)):
        assert "http" not in text
        assert "account" not in text.lower()
        assert "konto" not in text.lower()
        (line,) = [each for each in text.splitlines() if str(ONE) in each and "privacy@example.org" in each]
        assert "write to" in line or "schreiben Sie an" in line


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
    letter = a_letter(letters.outcome(mail, Recipient("second@example.net", "Second"), NOW))
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


@pytest.mark.parametrize(
    ("language", "proof", "clock", "answer"),
    [
        (
            "en",
            (
                "We cannot work on it yet: we need proof first that it comes from you. Please sign in with us and send the request again "
                "from there."
            ),
            "The time for this one, until 28 December 2026, goes on meanwhile.",
            "You will have our answer",
        ),
        (
            "de",
            (
                "Zuerst brauchen wir den Nachweis, dass es von Ihnen kommt. Bitte melden Sie sich bei uns an und senden Sie das Anliegen "
                "von dort noch einmal."
            ),
            "Die Frist für dieses, bis zum 28. Dezember 2026, läuft inzwischen weiter.",
            "Sie bekommen unsere Antwort",
        ),
    ],
)
def test_who_is_not_known_is_promised_no_answer(
    letters: Letters, language: str, proof: str, clock: str, answer: str
) -> None:
    """The acknowledgement asks for proof of identity and says how to give it, instead of naming a day that nobody keeps."""
    for needs_identity in (True, False):
        to = Recipient("a@example.net", None, language)
        for text in bodies(letters.acknowledgement(acknowledgement(needs_identity=needs_identity), to, NOW)):
            assert ((proof in text), (clock in text)) == (needs_identity, needs_identity)
            assert (answer in text) is not needs_identity


GONE = {
    "en": "Your copy was deleted with everything else when your data was erased at your request.",
    "de": "Ihre Kopie wurde mit allem anderen gelöscht, als Ihre Daten auf Ihr Verlangen gelöscht wurden.",
}
NONE_HELD = {"en": "We hold no data about you.", "de": "Wir haben keine Daten über Sie gespeichert."}
READY = {"en": "Your copy is ready", "de": "Ihre Kopie liegt bereit"}
COPIES = {
    "en": "Copies that we had made for you can no longer be opened and are deleted, too.",
    "de": "Kopien, die wir für Sie erstellt hatten, lassen sich nicht mehr öffnen und werden ebenfalls gelöscht.",
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("right", [Right.ACCESS, Right.PORTABILITY])
def test_no_copy_is_named_that_does_not_exist(letters: Letters, language: str, right: Right) -> None:
    """A copy that went with an erasure is said to be gone; where nothing was held there is none; else it is ready."""
    to = Recipient("a@example.net", None, language)
    export = UUID(int=7)
    held = (CategoryOutcome(category="usage", result=TableResult.KEPT, rows=3),)
    done, nothing = outcome(right, held, Outcome.DONE, export), outcome(right, (), Outcome.NOTHING_HELD, export)
    for mail, is_erased, said, unsaid in (
        (done, False, READY, GONE),
        (done, True, GONE, READY),
        (nothing, False, NONE_HELD, READY),
        (nothing, True, NONE_HELD, READY),
    ):
        for text in bodies(letters.outcome(mail, to, NOW, is_erased=is_erased)):
            assert said[language] in text
            assert unsaid[language] not in text
            assert (str(export) in text) is (said is READY)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("copies", [True, False])
def test_an_erasure_names_the_copies_that_went_with_it(letters: Letters, language: str, *, copies: bool) -> None:
    """Only where there were any."""
    mail = outcome(Right.ERASURE, (), Outcome.DONE, copies=copies)
    for text in bodies(letters.outcome(mail, Recipient("a@example.net", None, language), NOW, is_erased=True)):
        assert (COPIES[language] in text) is copies
