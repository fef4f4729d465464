"""Durations as people write them (`30d`, `12h`, `10y`) and the calendar arithmetic that law asks for.

Days, weeks, months and years are those of the calendar in a declared zone; hours are exact.
"""

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final, Self
from zoneinfo import ZoneInfo

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from typing_extensions import override

from habeas.datamap.explain import misfit, shown

FORM: Final = "`12h` (hours), `30d` (days), `4w` (weeks), `6mo` (months) or `10y` (years)"
AMOUNT_MAX: Final = 99_999
DAYS_MAX: Final = 73_050
"""Two hundred years: more is a slip of the finger, and would run out of the calendar."""

_PATTERN: Final = re.compile(r"([0-9]{1,5}) ?(h|hours?|d|days?|w|weeks?|mo|months?|y|years?)")


class Unit(StrEnum):
    """Unit of a duration, as it is written."""

    HOURS = "h"
    DAYS = "d"
    WEEKS = "w"
    MONTHS = "mo"
    YEARS = "y"


_UNITS: Final = {
    "h": Unit.HOURS,
    "d": Unit.DAYS,
    "w": Unit.WEEKS,
    "m": Unit.MONTHS,
    "y": Unit.YEARS,
}
_MONTHS_MAX: Final = 2_400
_DAYS_LONGEST: Final = {Unit.DAYS: 1.0, Unit.WEEKS: 7.0, Unit.HOURS: 1 / 24}
_MONTHS: Final = {Unit.MONTHS: 1, Unit.YEARS: 12}


@dataclass(frozen=True, slots=True)
class Duration:
    """A whole number of one unit. As a field of a model it is read from, and written as, its text."""

    amount: int
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `30d`, `30 days`, `6mo`, `10y`. Raises ValueError with the forms that are allowed."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(f"{shown(text)} is no duration; write {FORM}")
        duration = cls(int(match[1]), _UNITS[match[2][0]])
        if duration.days_longest > DAYS_MAX:
            raise ValueError(f"{shown(text)} is longer than 200 years; write a shorter one")
        return duration

    @override
    def __str__(self) -> str:
        """The shortest text that `parse` reads back."""
        return f"{self.amount}{self.unit}"

    def in_words(self) -> str:
        """`30 days`, for people to read."""
        word = self.unit.name.lower()
        return f"{self.amount} {word[:-1] if self.amount == 1 else word}"

    @property
    def whole_days(self) -> bool:
        """Whether dates can be counted with it."""
        return self.unit is not Unit.HOURS

    @property
    def days_longest(self) -> float:
        """Days that it lasts at most: a month up to 31, a year up to 366."""
        months = self.amount * _MONTHS.get(self.unit, 0)
        if months > _MONTHS_MAX:
            return months * 31.0
        if months:
            # Every way in which months of different length can follow one another, leap year included.
            starts = [date(year, month, 1) for year in range(2000, 2004) for month in range(1, 13)]
            return max((add_months(start, months) - start).days for start in starts)
        return self.amount * _DAYS_LONGEST.get(self.unit, 0.0)

    def after_date(self, day: date) -> date:
        """Last day of the period that an event on `day` starts.

        The day of the event isn't counted, and a date that the last month lacks becomes that month's last (Reg. (EEC,
        Euratom) 1182/71 Art. 3(1), 3(2)(c)). Raises ValueError for hours.
        """
        if not self.whole_days:
            raise ValueError("hours can't be counted in dates")
        months = self.amount * _MONTHS.get(self.unit, 0)
        return add_months(day, months) if months else day + timedelta(days=self._days)

    def after(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """Latest moment (UTC) that anybody could call this much after `moment`: nothing that waits for it is early."""
        if not self.whole_days:
            return moment.astimezone(UTC) + timedelta(hours=self.amount)
        local = moment.astimezone(zone)
        moved = _at(self.after_date(local.date()), local, zone)
        return max(*moved, moment.astimezone(UTC) + timedelta(days=self._days))

    def before(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """Earliest moment (UTC) that anybody could call this much before `moment`.

        A day that loses or gains an hour counts as 24 hours or as a date, whichever leads further back.
        """
        if not self.whole_days:
            return moment.astimezone(UTC) - timedelta(hours=self.amount)
        local = moment.astimezone(zone)
        months = self.amount * _MONTHS.get(self.unit, 0)
        day = add_months(local.date(), -months) if months else local.date() - timedelta(days=self._days)
        moved = _at(day, local, zone)
        return min(moved) if months else min(*moved, moment.astimezone(UTC) - timedelta(days=self._days))

    @property
    def _days(self) -> int:
        return self.amount * {Unit.DAYS: 1, Unit.WEEKS: 7}.get(self.unit, 0)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic read and write the text."""
        return core_schema.no_info_plain_validator_function(
            cls._from_value,
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=core_schema.str_schema()),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Let editors check the text; the pattern is that of `parse`."""
        return {
            "type": "string",
            "pattern": f"^{_PATTERN.pattern}$",
            "description": f"A duration: {FORM}.",
            "examples": ["30d", "10y"],
        }

    @classmethod
    def _from_value(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise misfit(f"{shown(value)} is no duration", FORM)
        try:
            return cls.parse(value)
        except ValueError as error:
            what, _, write = str(error).partition("; write ")
            raise misfit(what, write) from error


def add_months(day: date, months: int) -> date:
    """Same date `months` later (or earlier), or the last day of that month where the date doesn't exist."""
    year, month0 = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month0 + 1, min(day.day, calendar.monthrange(year, month0 + 1)[1]))


def start_of_year(year: int, zone: ZoneInfo) -> datetime:
    """First moment (UTC) of a calendar year in `zone`."""
    return datetime(year, 1, 1, tzinfo=zone).astimezone(UTC)


def _at(day: date, local: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The wall-clock time of `local` on `day`, in both readings where clocks were put back or forward."""
    wall = datetime.combine(day, local.time(), tzinfo=zone)
    return wall.replace(fold=0).astimezone(UTC), wall.replace(fold=1).astimezone(UTC)
