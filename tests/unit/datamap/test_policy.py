import base64
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import jsonschema
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from habeas.contracts.vocabulary import Right
from habeas.datamap.policy.json_schema import policy_schema
from habeas.datamap.policy.model import (
    CountsFrom,
    Fixed,
    Policy,
    Portability,
    RetentionClass,
    WhileOpen,
    cutoff,
    expires_on,
    load_policy,
)
from habeas.datamap.source import ConfigurationError, Problem, load_yaml

REPOSITORY = Path(__file__).parents[3]
BERLIN = ZoneInfo("Europe/Berlin")
POLICY = """\
policy:
  version: "2026-03-20"
  controller:
    name: Example AI GmbH
    country: DE
    time_zone: Europe/Berlin
    dpo: privacy@example.org
    authority: the authority
regimes: [gdpr, uk-gdpr, ccpa]
answer_within: 30d
notice_of_changes: 30d
children: {under: 16}
categories:
  account: {data: [user.name, user.contact.email], source: person, portable: given}
  usage: {data: [user.behavior], source: observed, portable: observed}
  scores: {data: [user.behavior.inferred], source: derived, portable: no}
purposes:
  run_tasks: {categories: [account, usage], basis: contract}
  improve: {categories: [scores], basis: legitimate_interest, interest: better models, objection: weighed}
retention:
  account: {while: account_open, then: 30d}
  execution: {for: 90d}
  invoices: {for: 10y, from: end_of_year, ground: legal_obligation, law: "§ 147 AO"}
recipients:
  clerk: {role: processor, categories: [account], country: US, safeguard: scc, told_by: http}
  payments: {role: processor, categories: [account], country: IE, told_by: http}
  swiss: {role: processor, categories: [usage], country: CH, told_by: mail}
decisions: []
"""


def load(directory: Path, text: str) -> Policy:
    """Write and load a policy."""
    file = directory / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return load_policy(file)


def problems(directory: Path, text: str) -> list[Problem]:
    """Say what is wrong with a policy."""
    with pytest.raises(ConfigurationError) as caught:
        load(directory, text)
    return list(caught.value.problems)


def a_class(**keys: str) -> WhileOpen | Fixed:
    """A retention class from its keys."""
    found: WhileOpen | Fixed = TypeAdapter[WhileOpen | Fixed](RetentionClass).validate_python(keys)
    return found


def test_a_policy_in_order(tmp_path: Path) -> None:
    """The example of the interface is taken as it stands, `portable: no` included."""
    policy = load(tmp_path, POLICY)
    assert policy.version == "2026-03-20"
    assert policy.zone == BERLIN
    assert [choice.name for choice in policy.regimes] == ["gdpr", "uk-gdpr", "ccpa"]
    assert policy.categories["scores"].portable is Portability.NO
    assert policy.retention["account"].counts_from is CountsFrom.ACCOUNT_CLOSED
    assert policy.retention["execution"].counts_from is CountsFrom.ROW
    assert policy.retention["invoices"].counts_from is CountsFrom.END_OF_YEAR
    assert policy.retention["invoices"].ground == "legal_obligation"


def test_where_copies_are_fetched(tmp_path: Path) -> None:
    """A page is named or there is none; an officer's address may have an international domain, which mails write in ASCII."""
    assert load(tmp_path, POLICY).answers.download_url is None
    text = POLICY.replace("privacy@example.org", "privacy@bücher.example")
    policy = load(tmp_path, text + "answers: {download_url: 'https://example.org/privacy/copies'}\n")
    assert policy.answers.download_url == "https://example.org/privacy/copies"
    assert policy.controller.dpo == "privacy@bücher.example"


def test_the_demo_policy_is_in_order() -> None:
    """What ships as the example can be kept."""
    assert load_policy(REPOSITORY / "deploy" / "demo" / "policy.yaml").controller.country == "DE"


def without(line: str) -> Callable[[str], str]:
    """Leave out what begins with `line`."""
    return lambda text: "".join(each for each in text.splitlines(keepends=True) if not each.startswith(line))


def instead(old: str, new: str) -> Callable[[str], str]:
    """Replace a part that is there exactly once."""

    def change(text: str) -> str:
        assert text.count(old) == 1
        return text.replace(old, new)

    return change


MISTAKES = [
    (instead("[account, usage]", "[acount, usage]"), 18, "purposes.run_tasks.categories.0", "`account`"),
    (
        instead("categories: [usage], country: CH", "categories: [use], country: CH"),
        27,
        "recipients.swiss.categories.0",
        "`usage`",
    ),
    (instead("[account, usage]", "[account]"), 15, "categories.usage", "`usage` in the `categories`"),
    (instead("[account, usage]", "[account, account, usage]"), 18, "purposes.run_tasks.categories.1", "each once"),
    (instead("answer_within: 30d", "answer_within: 32d"), 10, "answer_within", "`1mo` or less"),
    (instead("answer_within: 30d", "answer_within: 2mo"), 10, "answer_within", "`1mo` or less"),
    (instead("answer_within: 30d", "answer_within: 12h"), 10, "answer_within", "at least one day"),
    (instead("answer_within: 30d", "answer_within: 5m"), 10, "answer_within", "`6mo` (months)"),
    (instead("answer_within: 30d", "answer_within: 30"), 10, "answer_within", "`30d` (days)"),
    (instead("notice_of_changes: 30d", "notice_of_changes: 0d"), 11, "notice_of_changes", "at least one day"),
    (without("notice_of_changes"), 1, "notice_of_changes", "`notice_of_changes: 30d`"),
    (instead("ccpa]", "{name: ccpa, answer_within: 46d}]"), 9, "regimes.2.answer_within", "`45d` or less"),
    (instead("[gdpr, uk-gdpr, ccpa]", "[gdpr, gdrp]"), 9, "regimes.1", "`gdpr`"),
    (instead("[gdpr, uk-gdpr, ccpa]", "[gdpr, gdpr]"), 9, "regimes.1", "each regime once"),
    (instead("[gdpr, uk-gdpr, ccpa]", "[ccpa]"), 9, "regimes", "`gdpr` in `regimes`"),
    (instead("[gdpr, uk-gdpr, ccpa]", "[]"), 9, "regimes", "at least 1"),
    (instead("under: 16", "under: 12"), 12, "children.under", "`13`"),
    (instead("Europe/Berlin", "Europe/Berln"), 6, "policy.controller.time_zone", "`Europe/Berlin`"),
    (instead("country: DE", "country: Germany"), 5, "policy.controller.country", "[A-Z]{2}"),
    (
        instead("source: derived, portable: no", "source: derived, portable: given"),
        16,
        "categories.scores.portable",
        "`no`",
    ),
    (instead(", interest: better models", ""), 19, "purposes.improve.basis", "interest"),
    (instead(", objection: weighed", ""), 19, "purposes.improve.basis", "`objection: weighed`"),
    (
        instead("basis: contract", "basis: contract, objection: weighed"),
        18,
        "purposes.run_tasks.objection",
        "nothing here",
    ),
    (instead("basis: contract", "basis: contact"), 18, "purposes.run_tasks.basis", "`contract`"),
    (instead("{for: 90d}", "{for: 0d}"), 22, "retention.execution.for", "`90d`"),
    (instead("{for: 90d}", "{fore: 90d}"), 22, "retention.execution.for", "`for: 90d`"),
    (instead("{for: 90d}", "90d"), 22, "retention.execution", "a mapping"),
    (instead("while: account_open", "while: open"), 21, "retention.account.while", "`account_open`"),
    (instead(', law: "§ 147 AO"', ""), 23, "retention.invoices.ground", "law"),
    (instead("ground: legal_obligation, ", ""), 23, "retention.invoices.law", "`ground: legal_obligation`"),
    (instead("from: end_of_year", "from: year"), 23, "retention.invoices.from", "`end_of_year`"),
    (instead("safeguard: scc, ", ""), 25, "recipients.clerk", "`safeguard: scc`"),
    (instead("country: CH", "country: GI"), 27, "recipients.swiss", "`safeguard: scc`"),  # adequate for the UK only
    (instead("told_by: mail", "told_by: post"), 27, "recipients.swiss.told_by", "`http`"),
    (
        instead("dpo: privacy@example.org", "dpo: privacy@exa_mple.org"),
        7,
        "policy.controller.dpo",
        "`privacy@example.org`",
    ),
    (
        instead("dpo: privacy@example.org", "dpo: dátos@example.org"),
        7,
        "policy.controller.dpo",
        "`privacy@example.org`",
    ),
    (lambda text: text + "answers: {download_url: /copies}\n", 29, "answers.download_url", "https://"),
    (
        lambda text: text + "answers: {download_url: 'http://example.org/copies'}\n",
        29,
        "answers.download_url",
        "https://",
    ),
    (
        lambda text: text + 'answers: {download_url: "https://example.org/a\\r\\nb"}\n',
        29,
        "answers.download_url",
        "https://",
    ),
    (lambda text: text + "answers: {url: 'https://example.org'}\n", 29, "answers.url", "download_url"),
]


@pytest.mark.parametrize(("change", "line", "path", "write"), MISTAKES)
def test_each_mistake_is_told_where_it_stands(
    tmp_path: Path, change: Callable[[str], str], line: int, path: str, write: str
) -> None:
    """One mistake, and one of the problems names its line and path and what to write."""
    found = problems(tmp_path, change(POLICY))
    matching = [problem for problem in found if problem.path == path]
    assert [problem.line for problem in matching][:1] == [line], found
    assert write in matching[0].write


def test_problems_of_several_parts_come_together(tmp_path: Path) -> None:
    """Whoever mends a file sees everything that its parts contradict in one go."""
    text = POLICY.replace("[account, usage]", "[acount]").replace("30d", "60d").replace("safeguard: scc, ", "")
    assert {problem.path for problem in problems(tmp_path, text)} >= {
        "answer_within",
        "categories.account",
        "categories.usage",
        "purposes.run_tasks.categories.0",
        "recipients.clerk",
    }


def test_a_controller_elsewhere_is_held_to_what_binds_it(tmp_path: Path) -> None:
    """In the United States no law binds by establishment, and data that stays outside of the EEA is no transfer out of it."""
    text = POLICY.replace("country: DE", "country: US").replace("[gdpr, uk-gdpr, ccpa]", "[gdpr]")
    policy = load(tmp_path, text.replace("country: CH", "country: IN"))
    assert [choice.name for choice in policy.regimes] == ["gdpr"]


@pytest.mark.parametrize("within", ["30d", "31d", "1mo", "4w", "1d"])
def test_thirty_days_are_no_laxer_than_a_month(tmp_path: Path, within: str) -> None:
    """A promise that is at most as long as the longest month passes; in shorter months the law's date counts anyway."""
    assert load(tmp_path, POLICY.replace("answer_within: 30d", f"answer_within: {within}")).answer_within.whole_days


KEY = base64.b64encode(Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()).decode()


MOMENT = datetime(2026, 11, 24, 12, tzinfo=BERLIN)
TOLERANCE = timedelta(seconds=300)


def test_issuers_are_known_by_their_keys(tmp_path: Path) -> None:
    """A registered key is given as 32 bytes; an unknown issuer or key as nothing."""
    policy = load(tmp_path, f"{POLICY}attestation_issuers:\n  accounts:\n    keys: {{accounts-2026-10: {KEY}}}\n")
    key = policy.issuer_key("accounts", "accounts-2026-10", MOMENT, TOLERANCE)
    assert key is not None
    assert key.raw == base64.b64decode(KEY)
    assert policy.issuer_key("accounts", "accounts-2025-10", MOMENT, TOLERANCE) is None
    assert policy.issuer_key("billing", "accounts-2026-10", MOMENT, TOLERANCE) is None


@pytest.mark.parametrize(
    ("now", "is_believed"),
    [
        ("2026-10-31 23:54:59", False),
        ("2026-10-31 23:55:00", True),
        ("2027-10-31 23:59:59", True),
        ("2027-11-01 00:04:59", True),
        ("2027-11-01 00:05:00", False),
        ("2126-11-01 00:00:00", False),
    ],
)
def test_a_key_is_believed_on_its_days(tmp_path: Path, now: str, *, is_believed: bool) -> None:
    """From the first moment of its first day to the last of its last one, by the controller's clock and the tolerance of clocks."""
    days = f"{{public_key: {KEY}, valid_from: 2026-11-01, valid_until: 2027-10-31}}"
    policy = load(tmp_path, f"{POLICY}attestation_issuers:\n  accounts:\n    keys: {{k: {days}}}\n")
    assert (policy.issuer_key("accounts", "k", at(now), TOLERANCE) is not None) is is_believed


@pytest.mark.parametrize(
    ("days", "path"),
    [
        ("valid_from: 2026-11-01T00:00:00Z", "valid_from"),
        ("valid_from: 20261101", "valid_from"),
        ("valid_from: 1764547200", "valid_from"),
        ("valid_from: 2026-02-30", "valid_from"),
        ("valid_from: 2026-11-02, valid_until: 2026-11-01", "valid_until"),
        ("valid_for: 30d", "valid_for"),
    ],
)
def test_days_of_a_key_are_days(tmp_path: Path, days: str, path: str) -> None:
    """A moment, a number, a day that no calendar has, an end before the beginning: told where it stands."""
    text = f"{POLICY}attestation_issuers:\n  accounts:\n    keys: {{k: {{public_key: {KEY}, {days}}}}}\n"
    (problem,) = problems(tmp_path, text)
    assert problem.path == f"attestation_issuers.accounts.keys.k.{path}"


@pytest.mark.parametrize(
    ("right", "before", "is_fresh"),
    [
        (Right.ERASURE, timedelta(hours=1), True),
        (Right.ERASURE, timedelta(hours=1, seconds=1), False),
        (Right.ACCESS, timedelta(hours=24), True),
        (Right.ACCESS, timedelta(hours=24, seconds=1), False),
        (Right.OBJECTION, timedelta(days=30), True),
        (Right.OBJECTION, timedelta(days=31), False),
        (Right.ERASURE, timedelta(days=-1), True),
        (Right.ERASURE, timedelta(days=365 * 2000), False),
    ],
)
def test_how_fresh_an_authentication_must_be(
    tmp_path: Path, right: Right, before: timedelta, *, is_fresh: bool
) -> None:
    """What the issuer's entry says counts, else the default of the right; one after the request is fresh, whatever the year."""
    issuer = f"  accounts: {{keys: {{k: {KEY}}}, authenticated_within: {{erasure: 1h}}}}\n"
    policy = load(tmp_path, f"{POLICY}attestation_issuers:\n{issuer}")
    assert policy.authentication_is_fresh("accounts", right, MOMENT - before, MOMENT) is is_fresh
    assert not policy.authentication_is_fresh("nobody", right, MOMENT, MOMENT)


@pytest.mark.parametrize("key", ["abc", "AAAA", f"{KEY}AAAA", "-" * 44])
def test_what_is_no_key_is_refused(tmp_path: Path, key: str) -> None:
    """Only the base64 of 32 bytes is an Ed25519 public key (RFC 8032 section 5.1.5)."""
    text = f'{POLICY}attestation_issuers:\n  accounts:\n    keys:\n      one: "{key}"\n'
    (problem,) = problems(tmp_path, text)
    assert (problem.line, problem.path) == (32, "attestation_issuers.accounts.keys.one")


@pytest.mark.parametrize(
    ("right", "acr", "suffices"),
    [
        (Right.ERASURE, "mfa", True),
        (Right.ERASURE, "single", False),
        (Right.ERASURE, "none", False),
        (Right.ERASURE, "platinum", False),
        (Right.ACCESS, "single", True),
        (Right.ACCESS, "none", False),
        (Right.CONSENT_WITHDRAWAL, "single", True),
        (Right.CONSENT_WITHDRAWAL, "none", False),
        (Right.RECTIFICATION, "single", False),
    ],
)
def test_how_strong_an_attestation_must_be(tmp_path: Path, right: Right, acr: str, *, suffices: bool) -> None:
    """What the issuer's entry says counts, else the default of the right; unknown strengths are never enough."""
    issuer = f"  accounts: {{keys: {{k: {KEY}}}, minimum_acr: {{erasure: mfa, access: single}}}}\n"
    policy = load(tmp_path, f"{POLICY}attestation_issuers:\n{issuer}")
    assert policy.attestation_suffices("accounts", right, acr) is suffices
    assert not policy.attestation_suffices("nobody", right, "mfa")


def at(text: str, zone: ZoneInfo = BERLIN) -> datetime:
    """A moment by the clock of a zone."""
    return datetime.fromisoformat(text).replace(tzinfo=zone)


@pytest.mark.parametrize(
    ("keys", "as_of", "edge"),
    [
        ({"for": "90d"}, "2026-11-24T00:00", "2026-08-26T00:00"),  # 24 + 31 + 30 + 5 dates, and an hour more
        ({"for": "90d"}, "2026-06-29T12:00", "2026-03-31T12:00"),
        ({"for": "12h"}, "2026-06-29T12:00", "2026-06-29T00:00"),
        ({"for": "1mo"}, "2026-03-31T00:00", "2026-02-28T00:00"),
        ({"for": "1y"}, "2029-02-28T08:00", "2028-02-28T08:00"),
        ({"for": "10y", "from": "end_of_year"}, "2036-12-31T23:59", "2026-01-01T00:00"),
        ({"for": "10y", "from": "end_of_year"}, "2037-01-01T00:00", "2027-01-01T00:00"),
        ({"for": "10y", "from": "end_of_year"}, "2037-11-24T00:00", "2027-01-01T00:00"),
        ({"while": "account_open", "then": "30d"}, "2026-12-24T00:00", "2026-11-24T00:00"),
        ({"while": "account_open"}, "2026-12-24T00:00", "2026-12-24T00:00"),
    ],
)
def test_what_may_be_purged(keys: dict[str, str], as_of: str, edge: str) -> None:
    """Dates counted by hand; § 147(4) AO for the end of the year: a row of 2026 goes on 1 January 2037."""
    assert cutoff(a_class(**keys), at(as_of), BERLIN) == at(edge)


@pytest.mark.parametrize(
    ("keys", "row", "last"),
    [
        ({"for": "90d"}, "2026-08-26T10:00", "2026-11-24"),
        ({"for": "10y", "from": "end_of_year"}, "2026-01-01T00:00", "2036-12-31"),
        ({"for": "10y", "from": "end_of_year"}, "2026-12-31T23:59", "2036-12-31"),
        ({"for": "10y", "from": "end_of_year"}, "2027-01-01T00:00", "2037-12-31"),
        ({"while": "account_open", "then": "30d"}, "2026-11-24T09:00", "2026-12-24"),
    ],
)
def test_last_day_of_a_row(keys: dict[str, str], row: str, last: str) -> None:
    """The date that a person is told; counted by hand."""
    assert expires_on(a_class(**keys), at(row), BERLIN) == date.fromisoformat(last)


def test_the_year_ends_where_the_controller_is() -> None:
    """22:30 UTC on New Year's Eve is still 2026 in Los Angeles and in Berlin; 23:30 UTC is 2027 in Berlin."""
    tax = a_class(**{"for": "10y", "from": "end_of_year"})
    row = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)
    assert expires_on(tax, row, BERLIN) == date(2037, 12, 31)
    assert expires_on(tax, row, ZoneInfo("America/Los_Angeles")) == date(2036, 12, 31)


def test_times_without_a_zone_are_refused() -> None:
    """A naive time could be hours early."""
    naive = at("2026-11-24T00:00").replace(tzinfo=None)
    for function in (cutoff, expires_on):
        with pytest.raises(ValueError, match="time zone"):
            function(a_class(**{"for": "90d"}), naive, BERLIN)


CLASSES = st.one_of(
    st.builds(lambda n, unit: {"for": f"{n}{unit}"}, st.integers(1, 40), st.sampled_from(["h", "d", "w", "mo", "y"])),
    st.builds(
        lambda n, unit: {"for": f"{n}{unit}", "from": "end_of_year"},
        st.integers(1, 12),
        st.sampled_from(["d", "mo", "y"]),
    ),
    st.builds(lambda n: {"while": "account_open", "then": f"{n}d"}, st.integers(0, 60)),
).map(lambda keys: a_class(**keys))
MOMENTS = st.datetimes(datetime(2021, 1, 1), datetime(2060, 1, 1)).map(lambda naive: naive.replace(tzinfo=UTC))  # noqa: DTZ001 - the zone comes next
ZONES = st.sampled_from([BERLIN, ZoneInfo("America/Los_Angeles"), ZoneInfo("Pacific/Apia"), ZoneInfo("UTC")])


@given(kept=CLASSES, row=MOMENTS, zone=ZONES, days=st.integers(-3, 3), seconds=st.integers(0, 86_399))
def test_purge_and_promise_agree(
    kept: WhileOpen | Fixed, row: datetime, zone: ZoneInfo, days: int, seconds: int
) -> None:
    """No row goes before the last day that its person was told, and every row may go within two days after it."""
    last = expires_on(kept, row, zone)
    as_of = datetime.combine(last + timedelta(days=days), datetime.min.time(), tzinfo=zone).astimezone(UTC)
    as_of += timedelta(seconds=seconds)
    purged = row < cutoff(kept, as_of, zone)
    if as_of.astimezone(zone).date() < last:
        assert not purged
    if days >= 2:
        assert purged


@given(kept=CLASSES, first=MOMENTS, second=MOMENTS, zone=ZONES)
def test_cutoff_never_lies_in_the_future(
    kept: WhileOpen | Fixed, first: datetime, second: datetime, zone: ZoneInfo
) -> None:
    """What is newer than the moment asked for never goes, and a later moment never keeps more than an hour longer."""
    early, late = sorted((first, second))
    assert cutoff(kept, early, zone) <= early
    assert cutoff(kept, early, zone) <= cutoff(kept, late, zone) + timedelta(hours=1)


def test_schema_takes_what_the_check_takes(tmp_path: Path) -> None:
    """The schema is a valid one (draft 2020-12), takes the example and the demo, and refuses unknown keys and words."""
    schema = policy_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    load(tmp_path, POLICY)
    for file in (tmp_path / "policy.yaml", REPOSITORY / "deploy" / "demo" / "policy.yaml"):
        assert [error.message for error in validator.iter_errors(load_yaml(file).value)] == []
    for change in (
        instead("answer_within: 30d", "answer_within: 5m"),
        instead("told_by: mail", "told_by: post"),
        instead("children:", "childs:"),
        instead("[gdpr, uk-gdpr, ccpa]", "[gdrp]"),
        instead("{for: 90d}", "{fore: 90d}"),
    ):
        (tmp_path / "policy.yaml").write_text(change(POLICY), encoding="utf-8")
        assert not validator.is_valid(load_yaml(tmp_path / "policy.yaml").value)


def test_schema_tells_every_key(tmp_path: Path) -> None:
    """The file's own words stand in the schema, not those of the models."""
    schema = policy_schema()
    assert set(schema["$defs"]["Fixed"]["properties"]) == {"for", "from", "ground", "law"}
    assert set(schema["$defs"]["WhileOpen"]["properties"]) == {"while", "then"}
    assert schema["$defs"]["Fixed"]["required"] == ["for"]
