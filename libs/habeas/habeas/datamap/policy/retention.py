"""Retention classes: how long rows are kept, and from which moment on they may go.

A class is written in one of two forms::

    account:  {while: account_open, then: 30d}
    invoices: {for: 10y, from: end_of_year, ground: legal_obligation, law: "§ 147 AO"}
"""

from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from habeas.contracts.vocabulary import KeepGround
from habeas.datamap.explain import misfit
from habeas.datamap.policy.durations import Duration, Unit, start_of_year

NOTHING = Duration(0, Unit.DAYS)


class CountsFrom(StrEnum):
    """Which moment of a row starts its period."""

    ROW = "row"
    """The row's own time (`age` in the data map)."""
    END_OF_YEAR = "end_of_year"
    """The end of the calendar year, in the controller's zone, in which the row's time lies."""
    ACCOUNT_CLOSED = "account_closed"
    """The closing of the account; while it is open nothing goes."""


class _Class(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WhileOpen(_Class):
    """Kept as long as the account is open, and `then` a while longer."""

    lasts_while: Literal["account_open"] = Field(alias="while", examples=["account_open"])
    then: Duration = Field(default=NOTHING, description="how long after the account was closed", examples=["30d"])

    @property
    def period(self) -> Duration:
        """What is counted from the closing of the account."""
        return self.then

    @property
    def counts_from(self) -> CountsFrom:
        """Always the closing of the account."""
        return CountsFrom.ACCOUNT_CLOSED

    @property
    def ground(self) -> KeepGround | None:
        """None: an account that was closed is no reason to keep what a person wants erased."""
        return None

    def in_words(self) -> str:
        """Say it for people to read."""
        if not self.then.amount:
            return "while the account is open"
        return f"while the account is open, then {self.then.in_words()}"


class Fixed(_Class):
    """Kept `for` a period from the row's time or from the end of its year, perhaps because a law demands it."""

    lasts_for: Duration = Field(alias="for", examples=["90d"])
    starts: Literal["end_of_year"] | None = Field(default=None, alias="from", examples=["end_of_year"])
    ground: KeepGround | None = Field(default=None, description="why it stays in spite of an erasure, Art. 17(3)")
    law: str | None = Field(default=None, min_length=3, description="the provision", examples=["§ 147 AO"])

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if not self.lasts_for.amount:
            raise misfit("a period of nothing keeps nothing", "a period such as `90d`", "for")
        if self.ground is KeepGround.LEGAL_OBLIGATION and self.law is None:
            raise misfit("a legal obligation needs the law that obliges", '`law: "§ 147 AO"` beside it', "ground")
        if self.law is not None and self.ground is None:
            raise misfit("the law stands here without a ground", "`ground: legal_obligation` beside it", "law")
        return self

    @property
    def period(self) -> Duration:
        """What is counted from the row's time or its year's end."""
        return self.lasts_for

    @property
    def counts_from(self) -> CountsFrom:
        """The row's own time, or the end of its year."""
        return CountsFrom.ROW if self.starts is None else CountsFrom.END_OF_YEAR

    def in_words(self) -> str:
        """Say it for people to read."""
        words = self.lasts_for.in_words()
        if self.starts:
            words += " from the end of the calendar year"
        if self.ground:
            words += f", kept under {self.ground.replace('_', ' ')}"
        return f"{words} ({self.law})" if self.law else words


def _form(value: object) -> str:
    if isinstance(value, dict):
        return "while form" if "while" in value else "for form"
    return "while form" if isinstance(value, WhileOpen) else "for form"


RetentionClass = Annotated[
    Annotated[WhileOpen, Tag("while form")] | Annotated[Fixed, Tag("for form")], Discriminator(_form)
]


def cutoff(retention_class: WhileOpen | Fixed, as_of: datetime, zone: ZoneInfo) -> datetime:
    """Moment (UTC) such that rows strictly older than it may be purged at `as_of`, and no others.

    "Older" is said of what `counts_from` names: the row's own time, or the time at which the account was closed. Never early: where a
    change of clocks or a short month leaves two readings, the row stays until both have passed. Raises ValueError for
    an `as_of` without a zone.
    """
    if as_of.tzinfo is None:
        raise ValueError("as_of needs a time zone")
    edge = retention_class.period.before(as_of, zone)
    if retention_class.counts_from is CountsFrom.END_OF_YEAR:
        # A row of year Y may go once the period that began at the end of Y is over: only whole years lie behind the edge.
        return start_of_year(edge.astimezone(zone).year, zone)
    return edge


def expires_on(retention_class: WhileOpen | Fixed, row_time: datetime, zone: ZoneInfo) -> date:
    """Last day, in `zone`, on which a row is kept; `cutoff` passes the row on that day or the next at the earliest.

    `row_time` is what `counts_from` names. Raises ValueError for a time without a zone.
    """
    if row_time.tzinfo is None:
        raise ValueError("row_time needs a time zone")
    if retention_class.counts_from is CountsFrom.END_OF_YEAR:
        ends = retention_class.period.after(start_of_year(row_time.astimezone(zone).year + 1, zone), zone)
        # The period ends at midnight, which belongs to the day before.
        return (ends - timedelta(microseconds=1)).astimezone(zone).date()
    return retention_class.period.after(row_time, zone).astimezone(zone).date()
