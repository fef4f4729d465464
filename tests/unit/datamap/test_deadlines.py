from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from habeas.datamap.policy.deadlines import (
    Deadlines,
    NoLawInForceError,
    UnknownRegimeError,
    add_business_days,
    choose_regimes,
    compute,
    compute_extended,
    next_working_day,
)
from habeas.datamap.policy.model import Policy
from habeas.datamap.policy.regimes import Regime, packaged

GDPR, UK, CCPA = (packaged()[name] for name in ("gdpr", "uk-gdpr", "ccpa"))


def a_policy(
    country: str = "NL",
    zone: str = "Europe/Amsterdam",
    answer_within: str = "30d",
    regimes: list[object] | None = None,
) -> Policy:
    """A small policy; the Netherlands have neither 1 May nor anything else that moves the dates of the vectors but Easter."""
    return Policy.model_validate(
        {
            "policy": {
                "version": "1",
                "controller": {
                    "name": "Example",
                    "country": country,
                    "time_zone": zone,
                    "dpo": "privacy@example.org",
                    "authority": "the authority",
                },
            },
            "regimes": regimes or ["gdpr", "uk-gdpr", "ccpa"],
            "answer_within": answer_within,
            "notice_of_changes": "30d",
            "children": {"under": 16},
            "categories": {"account": {"data": ["user.name"], "source": "person", "portable": "given"}},
            "purposes": {"serve": {"categories": ["account"], "basis": "contract"}},
            "retention": {"short": {"for": "90d"}},
        }
    )


def noon(day: str, zone: str = "Europe/Amsterdam") -> datetime:
    """Midday in a zone."""
    return datetime.combine(date.fromisoformat(day), datetime.min.time(), tzinfo=ZoneInfo(zone)) + timedelta(hours=12)


# Received, law's month, rolled over weekends, due with a promise of 30 days, extended, extended and rolled, CCPA 45 and 90.
VECTORS = [
    ("2026-01-30", "2026-03-02", "2026-02-28", "2026-04-30", "2026-04-30", "2026-03-16", "2026-04-30"),
    ("2026-01-31", "2026-03-02", "2026-02-28", "2026-04-30", "2026-04-30", "2026-03-17", "2026-05-01"),
    ("2026-02-01", "2026-03-02", "2026-03-01", "2026-05-01", "2026-05-01", "2026-03-18", "2026-05-02"),
    ("2026-03-05", "2026-04-07", "2026-04-04", "2026-06-05", "2026-06-05", "2026-04-19", "2026-06-03"),
    ("2026-08-31", "2026-09-30", "2026-09-30", "2026-11-30", "2026-11-30", "2026-10-15", "2026-11-29"),
    ("2026-11-30", "2026-12-30", "2026-12-30", "2027-02-28", "2027-03-01", "2027-01-14", "2027-02-28"),
    ("2028-01-31", "2028-02-29", "2028-02-29", "2028-04-30", "2028-05-01", "2028-03-16", "2028-04-30"),
]


@pytest.mark.parametrize(("received", "limit", "due", "extended", "extended_limit", "ccpa", "ccpa_extended"), VECTORS)
def test_vectors(
    received: str, limit: str, due: str, extended: str, extended_limit: str, ccpa: str, ccpa_extended: str
) -> None:
    """Dates counted by hand from GDPR Art. 12(3), Reg. 1182/71 Art. 3 and 11 CCR 7021(b), Easter Monday 2026 included."""
    policy = a_policy()
    answer = compute(policy, (GDPR,), noon(received))
    assert (answer.due_on.isoformat(), answer.legal_limit_on.isoformat()) == (due, limit)
    longer = compute_extended(policy, (GDPR,), noon(received))
    assert (longer.due_on.isoformat(), longer.legal_limit_on.isoformat()) == (extended, extended_limit)

    california = a_policy("US", "America/Los_Angeles", "45d", ["ccpa"])
    at = noon(received, "America/Los_Angeles")
    assert compute(california, (CCPA,), at)[:2] == (date.fromisoformat(ccpa),) * 2
    assert compute_extended(california, (CCPA,), at)[:2] == (date.fromisoformat(ccpa_extended),) * 2


@pytest.mark.parametrize(
    ("country", "received", "limit"),
    [
        ("DE", "2026-03-05", "2026-04-07"),  # 5 April is Easter Sunday, the 6th Easter Monday
        ("DE", "2026-04-01", "2026-05-04"),  # 1 May is a Friday and Labour Day, then a weekend
        ("NL", "2026-04-01", "2026-05-01"),  # no holiday there
        ("DE", "2026-11-25", "2026-12-28"),  # 25 December a Friday, 26 a Saturday, 27 a Sunday
        ("DE", "2026-11-24", "2026-12-24"),  # Christmas Eve is no public holiday
        ("FR", "2026-06-14", "2026-07-15"),  # 14 July is a Tuesday
        ("ZZ", "2026-11-25", "2026-12-25"),  # unknown calendar: weekends only, the earlier date
    ],
)
def test_holidays_are_those_of_the_controllers_country(country: str, received: str, limit: str) -> None:
    """The last day of the law rolls over the controller's own public holidays (Reg. 1182/71 Art. 2(1), 3(4))."""
    policy = a_policy(country, "Europe/Berlin", regimes=["gdpr"])
    assert compute(policy, (GDPR,), noon(received, "Europe/Berlin")).legal_limit_on.isoformat() == limit


def test_receipt_is_dated_where_the_controller_is() -> None:
    """23:30 UTC on 31 January is 1 February in Amsterdam, and still 31 January in Los Angeles."""
    at = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
    assert compute(a_policy(), (GDPR,), at).due_on == date(2026, 3, 1)
    assert compute(a_policy("US", "America/Los_Angeles"), (GDPR,), at).due_on == date(2026, 2, 28)


@pytest.mark.parametrize(("received", "by"), [("2026-07-01", "2026-07-15"), ("2026-12-24", "2027-01-07")])
def test_californian_confirmation(received: str, by: str) -> None:
    """Ten business days, holidays not taken out (11 CCR 7021(a)); GDPR asks for none."""
    policy = a_policy()
    assert compute(policy, (CCPA, GDPR), noon(received)).acknowledge_by == date.fromisoformat(by)
    assert compute(policy, (GDPR,), noon(received)).acknowledge_by is None


@given(day=st.dates(date(2020, 1, 1), date(2040, 1, 1)), count=st.integers(1, 90))
def test_business_days_are_counted_one_by_one(day: date, count: int) -> None:
    """The arithmetic gives what walking the calendar gives."""
    walked, left = day, count
    while left:
        walked += timedelta(days=1)
        left -= walked.weekday() < 5
    assert add_business_days(day, count) == walked


def test_the_stricter_law_decides() -> None:
    """Where two regimes apply the earlier end counts, and its name and version are given."""
    answer = compute(a_policy(answer_within="1mo"), (CCPA, UK), noon("2026-02-05"))
    assert answer == Deadlines(date(2026, 3, 5), date(2026, 3, 5), "uk-gdpr", "2026-02-05", date(2026, 2, 19))


def test_the_law_that_is_named_ends_first_before_any_rolling() -> None:
    """A month ends on Easter Sunday and rolls to Tuesday; 32 days end on Monday and stay: each date is the earlier one."""
    plain = CCPA.model_dump(mode="json")
    plain["regime"] = "elsewhere"
    plain["versions"][0]["answer"]["within"] = "32d"
    answer = compute(a_policy(answer_within="1mo"), (Regime.model_validate(plain), GDPR), noon("2026-03-05"))
    assert answer[:3] == (date(2026, 4, 5), date(2026, 4, 6), "gdpr")


def test_a_regime_may_be_made_stricter() -> None:
    """A shorter period beside a regime's name moves what we work towards, not the law."""
    policy = a_policy(regimes=["gdpr", {"name": "ccpa", "answer_within": "15d"}])
    assert compute(policy, (CCPA,), noon("2026-03-05"))[:2] == (date(2026, 3, 20), date(2026, 4, 19))
    assert compute(policy, (GDPR,), noon("2026-03-05")).due_on == date(2026, 4, 4)


@pytest.mark.parametrize(
    ("home", "country", "regime", "names"),
    [
        ("NL", "DE", None, ["gdpr"]),
        ("NL", "GB", None, ["gdpr", "uk-gdpr"]),
        ("NL", "US", None, ["gdpr", "ccpa"]),
        ("NL", "US", "ccpa", ["gdpr", "ccpa"]),
        ("US", "US", None, ["ccpa"]),
        ("US", "US", "gdpr", ["gdpr", "ccpa"]),
        ("US", "FR", "ccpa", ["gdpr", "ccpa"]),
        ("US", "BR", None, ["gdpr", "uk-gdpr", "ccpa"]),
        ("NL", None, None, ["gdpr", "uk-gdpr", "ccpa"]),
        ("US", None, "ccpa", ["ccpa"]),
    ],
)
def test_which_regimes_apply(home: str, country: str | None, regime: str | None, names: list[str]) -> None:
    """The person's country, the controller's establishment (Art. 3(1)) and the request decide; in doubt, all apply."""
    assert [each.regime for each in choose_regimes(a_policy(home), country, regime)] == names


def test_a_regime_that_is_not_followed_is_refused() -> None:
    """Neither a made-up regime nor one that the policy leaves out is silently replaced by another."""
    for name in ("lgpd", "uk-gdpr"):
        with pytest.raises(UnknownRegimeError):
            choose_regimes(a_policy(regimes=["gdpr"]), "DE", name)


def test_what_cannot_be_dated_is_an_error() -> None:
    """No zone, no law, or a time before the law: there is no deadline to guess."""
    policy = a_policy()
    with pytest.raises(ValueError, match="time zone"):
        compute(policy, (GDPR,), noon("2026-01-01").replace(tzinfo=None))
    with pytest.raises(ValueError, match="needs a law"):
        compute(policy, (), noon("2026-01-01"))
    with pytest.raises(NoLawInForceError):
        compute(policy, (GDPR, UK), noon("2016-01-01"))
    # UK GDPR didn't exist in 2020, GDPR did: what is known counts.
    assert compute(policy, (GDPR, UK), noon("2020-01-02")).regime == "gdpr"


MOMENTS = st.datetimes(datetime(2023, 4, 1), datetime(2040, 1, 1)).map(lambda naive: naive.replace(tzinfo=UTC))  # noqa: DTZ001 - the zone comes next
LAWS = st.lists(st.sampled_from([GDPR, UK, CCPA]), min_size=1, max_size=3, unique_by=lambda regime: regime.regime)
PROMISES = st.sampled_from(["1d", "10d", "28d", "30d", "1mo", "4w"])
COUNTRIES = st.sampled_from(["DE", "NL", "US", "GB", "FR", "IN", "ZZ"])


@given(received=MOMENTS, laws=LAWS, promise=PROMISES, country=COUNTRIES)
def test_due_is_never_after_the_law_or_the_promise(
    received: datetime, laws: list[Regime], promise: str, country: str
) -> None:
    """Due comes after receipt, never after the legal limit, and the limit is a day on which people work (or CCPA's)."""
    policy = a_policy(country, answer_within=promise)
    answer = compute(policy, laws, received)
    received_on = received.astimezone(policy.zone).date()
    assert received_on < answer.due_on <= answer.legal_limit_on
    assert answer.due_on <= policy.answer_within.after_date(received_on)
    assert answer.legal_limit_on <= received_on + timedelta(days=45)
    if CCPA not in laws:
        assert answer.legal_limit_on == next_working_day(answer.legal_limit_on, country)
    longer = compute_extended(policy, laws, received)
    assert answer.due_on < longer.due_on <= longer.legal_limit_on


@given(first=MOMENTS, second=MOMENTS, laws=LAWS, promise=PROMISES, country=COUNTRIES)
def test_who_asks_earlier_is_never_answered_later(
    first: datetime, second: datetime, laws: list[Regime], promise: str, country: str
) -> None:
    """Both dates and the confirmation are monotone in the time of receipt."""
    policy = a_policy(country, answer_within=promise)
    early, late = (compute(policy, laws, received) for received in sorted((first, second)))
    assert early.due_on <= late.due_on
    assert early.legal_limit_on <= late.legal_limit_on
    assert (early.acknowledge_by or date.min) <= (late.acknowledge_by or date.max)


@given(received=MOMENTS, laws=LAWS, more=LAWS)
def test_another_law_never_gives_more_time(received: datetime, laws: list[Regime], more: list[Regime]) -> None:
    """Adding a regime can only bring the dates forward."""
    policy = a_policy()
    fewer, all_of_them = compute(policy, laws, received), compute(policy, [*laws, *more], received)
    assert all_of_them.due_on <= fewer.due_on
    assert all_of_them.legal_limit_on <= fewer.legal_limit_on
