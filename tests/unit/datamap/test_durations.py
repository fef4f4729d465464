from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from dateutil.relativedelta import relativedelta  # type: ignore[import-untyped] # the package has no types
from hypothesis import given
from hypothesis import strategies as st

from habeas.datamap.policy.durations import Duration, Unit, add_months

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = st.sampled_from([BERLIN, ZoneInfo("America/Los_Angeles"), ZoneInfo("Australia/Lord_Howe"), ZoneInfo("UTC")])
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)).map(lambda naive: naive.replace(tzinfo=UTC))  # noqa: DTZ001 - the zone comes next
DURATIONS = st.builds(Duration, st.integers(0, 40), st.sampled_from(Unit))


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("30d", 30, Unit.DAYS),
        ("12h", 12, Unit.HOURS),
        ("10y", 10, Unit.YEARS),
        ("6mo", 6, Unit.MONTHS),
        ("4w", 4, Unit.WEEKS),
        ("1 month", 1, Unit.MONTHS),
        ("36 months", 36, Unit.MONTHS),
        ("90 days", 90, Unit.DAYS),
        ("1 year", 1, Unit.YEARS),
        ("0d", 0, Unit.DAYS),
    ],
)
def test_durations_read_as_people_write_them(text: str, amount: int, unit: Unit) -> None:
    """Letters and words, with or without a space."""
    assert Duration.parse(text) == Duration(amount, unit)


@pytest.mark.parametrize(
    "text", ["", "30", "d", "-1d", "1.5d", "5m", "1d2h", "201y", "99999mo", "P30D", "30D", " 30d", "\u0661d"]
)
def test_anything_else_is_refused(text: str) -> None:
    """`5m` could be minutes or months; signs, other digits, fractions, ISO 8601 and more than 200 years are no durations here."""
    with pytest.raises(ValueError, match="; write "):
        Duration.parse(text)


@given(duration=DURATIONS)
def test_text_is_read_back(duration: Duration) -> None:
    """What is written by str() or in words is the same duration again."""
    assert Duration.parse(str(duration)) == duration
    assert Duration.parse(duration.in_words()) == duration


@given(day=st.dates(date(2000, 1, 1), date(2100, 1, 1)), months=st.integers(-600, 600))
def test_months_are_those_of_dateutil(day: date, months: int) -> None:
    """An independent implementation agrees on every month, forwards and backwards."""
    assert add_months(day, months) == day + relativedelta(months=months)


@pytest.mark.parametrize(
    ("duration", "days"),
    [
        ("30d", 30),
        ("1mo", 31),
        ("2mo", 62),
        ("3mo", 92),
        ("6mo", 184),
        ("1y", 366),
        ("4y", 1461),
        ("45d", 45),
        ("4w", 28),
    ],
)
def test_longest_length_in_days(duration: str, days: int) -> None:
    """Counted by hand: July and August have 62 days, July to September 92, July to December 184."""
    assert Duration.parse(duration).days_longest == days


@pytest.mark.parametrize(
    ("start", "duration", "end"),
    [
        ("2026-03-05", "1mo", "2026-04-05"),
        ("2026-01-31", "1mo", "2026-02-28"),
        ("2028-01-31", "1mo", "2028-02-29"),
        ("2028-02-29", "1y", "2029-02-28"),
        ("2026-01-31", "3mo", "2026-04-30"),
        ("2026-01-30", "30d", "2026-03-01"),
        ("2026-12-24", "2w", "2027-01-07"),
    ],
)
def test_periods_end_as_regulation_1182_71_says(start: str, duration: str, end: str) -> None:
    """The day of the event is not counted; a date that doesn't exist becomes the month's last (Art. 3(1), 3(2)(c))."""
    assert Duration.parse(duration).after_date(date.fromisoformat(start)) == date.fromisoformat(end)


def test_hours_are_no_dates() -> None:
    """A promise in dates can't be counted in hours."""
    with pytest.raises(ValueError, match="hours"):
        Duration.parse("12h").after_date(date(2026, 1, 1))


def test_a_day_without_an_hour_is_read_both_ways() -> None:
    """Clocks went forward on 29 March 2026 in Berlin: 24 hours and "the same time a day before" differ by one."""
    noon = datetime(2026, 3, 29, 12, 0, tzinfo=BERLIN)
    day = Duration.parse("1d")
    assert day.before(noon, BERLIN) == datetime(2026, 3, 28, 10, 0, tzinfo=UTC)
    assert day.after(noon - timedelta(days=1), BERLIN) == datetime(2026, 3, 29, 11, 0, tzinfo=UTC)


@given(moment=MOMENTS, duration=DURATIONS, zone=ZONES)
def test_before_is_never_early(moment: datetime, duration: Duration, zone: ZoneInfo) -> None:
    """Whatever is older than `before` has seen the whole duration pass, in hours and on the calendar."""
    earlier = duration.before(moment, zone)
    just_older = earlier - timedelta(seconds=1)
    assert duration.after(just_older, zone) <= moment
    if duration.unit in {Unit.DAYS, Unit.WEEKS, Unit.HOURS}:
        assert moment - earlier >= timedelta(days=duration.days_longest)


@given(moment=MOMENTS, later=MOMENTS, duration=DURATIONS, zone=ZONES)
def test_before_follows_time(moment: datetime, later: datetime, duration: Duration, zone: ZoneInfo) -> None:
    """A later moment never gives an earlier result by more than the hour that a clock goes back."""
    first, second = sorted((moment, later))
    assert duration.before(first, zone) <= duration.before(second, zone) + timedelta(hours=1)
