"""When a request must be answered: the earlier of our own promise and the law, computed from data.

Two dates come out. `due_on` is what we work towards: no weekend or holiday moves it, so it is right whatever calendar a
court would use. `legal_limit_on` is the last day that the law allows, after rolling on to the next working day.
"""

import warnings
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

import holidays

from habeas.datamap.policy.durations import Duration
from habeas.datamap.policy.model import Policy
from habeas.datamap.policy.regimes import NoLawInForceError, Regime, Version, packaged

SATURDAY: Final = 5
ROLL_DAYS_MAX: Final = 30
"""No country has so many days off in a row; a calendar that says so is wrong."""


class UnknownRegimeError(LookupError):
    """A request names a regime that the policy doesn't follow."""


class Deadlines(NamedTuple):
    """Dates in the controller's time zone; each day counts to its last hour.

    `regime` and `law_version` name the law whose period ends first. `acknowledge_by` is None where no law asks for a
    confirmation of receipt.
    """

    due_on: date
    legal_limit_on: date
    regime: str
    law_version: str
    acknowledge_by: date | None


class _Limit(NamedTuple):
    """Where one regime's period ends, before and after rolling."""

    ends_on: date
    rolled_on: date
    regime: Regime
    version: Version


def choose_regimes(policy: Policy, country: str | None, regime: str | None) -> tuple[Regime, ...]:
    """Give the regimes that protect a person, in the policy's order; never empty.

    Those of the person's country, those that bind the controller towards everybody (GDPR Art. 3(1)), and the one that
    the request names: naming one never takes another away, and where several apply the stricter wins in `compute`. Where
    the country is unknown, or none applies, all regimes of the policy do. Raises UnknownRegimeError.
    """
    followed = [packaged()[choice.name] for choice in policy.regimes]
    if regime is not None and regime not in {each.regime for each in followed}:
        raise UnknownRegimeError("the policy follows no such regime")
    home = policy.controller.country
    applying = tuple(
        each
        for each in followed
        if country in each.countries or (each.establishment and home in each.countries) or each.regime == regime
    )
    return applying if applying and (country is not None or regime is not None) else tuple(followed)


def compute(policy: Policy, regimes: Sequence[Regime], received_at: datetime) -> Deadlines:
    """Compute the deadlines of a request that was received at `received_at` (aware).

    Raises NoLawInForceError when no regime has a version for the day of receipt, ValueError without regimes or zone.
    """
    return _deadlines(policy, regimes, received_at, _answer)


def compute_extended(policy: Policy, regimes: Sequence[Regime], received_at: datetime) -> Deadlines:
    """Compute the deadlines of a request that is lawfully extended (GDPR Art. 12(3), 11 CCR 7021(b)).

    Lawful only when the person is told, with reasons, by the `due_on` that `compute` gives; once. Our own promise no
    longer shortens the period, `due_on` is the law's end before rolling. Raises as `compute` does.
    """
    return _deadlines(policy, regimes, received_at, _extended)


def _answer(policy: Policy, regime: Regime, version: Version, received_on: date) -> tuple[date, date]:
    """End of our promise, and of the law's period or of the shorter one that the policy sets in its place."""
    law = version.answer.within.after_date(received_on)
    ours = policy.answer_within.after_date(received_on)
    for choice in policy.regimes:
        if choice.name == regime.regime and choice.answer_within is not None:
            ours = min(ours, choice.answer_within.after_date(received_on))
    return ours, law


def _extended(_: Policy, __: Regime, version: Version, received_on: date) -> tuple[date, date]:
    """The first period and the extension counted as one from receipt: 31 January plus 1 plus 2 months is 30 April."""
    law = _together(version.answer.within, version.extension.by, received_on)
    return law, law


def _together(first: Duration, second: Duration, received_on: date) -> date:
    if first.unit is second.unit:
        return Duration(first.amount + second.amount, first.unit).after_date(received_on)
    return second.after_date(first.after_date(received_on))


def _deadlines(
    policy: Policy,
    regimes: Sequence[Regime],
    received_at: datetime,
    period: Callable[[Policy, Regime, Version, date], tuple[date, date]],
) -> Deadlines:
    if received_at.tzinfo is None:
        raise ValueError("received_at needs a time zone")
    if not regimes:
        raise ValueError("a deadline needs a law")
    received_on = received_at.astimezone(policy.zone).date()
    country = policy.controller.country
    due_on = date.max
    limits: list[_Limit] = []
    acknowledge_by: list[date] = []
    for regime in regimes:
        try:
            version = regime.at(received_on)
        except NoLawInForceError:
            continue
        ours, law = period(policy, regime, version, received_on)
        due_on = min(due_on, ours, law)
        rolled = next_working_day(law, country) if version.answer.rolls == "next_working_day" else law
        limits.append(_Limit(law, rolled, regime, version))
        if version.acknowledgement is not None:
            acknowledge_by.append(add_business_days(received_on, version.acknowledgement.business_days))
    if not limits:
        names = ", ".join(each.regime for each in regimes)
        raise NoLawInForceError(f"no version of {names} is known that was in force on {received_on}")
    strictest = min(limits, key=lambda limit: (limit.ends_on, limit.rolled_on))
    return Deadlines(
        due_on=due_on,
        legal_limit_on=min(limit.rolled_on for limit in limits),
        regime=strictest.regime.regime,
        law_version=strictest.version.version,
        acknowledge_by=min(acknowledge_by, default=None),
    )


def next_working_day(day: date, country: str) -> date:
    """Give `day`, or the first day after it that is no Saturday, Sunday or public holiday of `country`.

    Reg. (EEC, Euratom) 1182/71 Art. 3(4) with Art. 2. Holidays of a part of the country don't count, nor any where the
    country's calendar is unknown: the earlier date is the safe one.
    """
    for offset in range(ROLL_DAYS_MAX):
        candidate = day + timedelta(days=offset)
        if candidate.weekday() < SATURDAY and candidate not in _holidays_of(country, candidate.year):
            return candidate
    raise ValueError(f"the holiday calendar of {country} has no working day after {day}")


def add_business_days(day: date, count: int) -> date:
    """Give the `count`-th day from Monday to Friday after `day`; holidays count as business days, which is the earlier reading."""
    weeks, rest = divmod(count, SATURDAY)
    # From a weekend, counting starts as if on the Friday before.
    start = day - timedelta(days=max(0, day.weekday() - SATURDAY + 1))
    end = start + timedelta(weeks=weeks)
    return end + timedelta(days=rest + (2 if end.weekday() + rest >= SATURDAY else 0))


def load_calendars(policy: Policy, now: datetime) -> None:
    """Load what deadlines of requests received from now on need, a fifth of a second that the first request need not wait for."""
    for year in (now.year, now.year + 1):
        _holidays_of(policy.controller.country, year)


@lru_cache(maxsize=1024)
def _holidays_of(country: str, year: int) -> frozenset[date]:
    with warnings.catch_warnings():
        # For years beyond its tables the library warns and leaves movable feasts out: an earlier date, which is safe.
        warnings.simplefilter("ignore", UserWarning)
        try:
            return frozenset(holidays.country_holidays(country, years=year))
        except NotImplementedError:
            return frozenset()


__all__ = [
    "Deadlines",
    "NoLawInForceError",
    "UnknownRegimeError",
    "add_business_days",
    "choose_regimes",
    "compute",
    "compute_extended",
    "load_calendars",
    "next_working_day",
]
