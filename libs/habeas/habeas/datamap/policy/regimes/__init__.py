"""Privacy law as versioned data: one YAML file per regime, packaged with the code that counts by it."""

from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from habeas.contracts.model import CountryCode, Slug
from habeas.datamap.explain import misfit
from habeas.datamap.policy.durations import Duration
from habeas.datamap.source import load_yaml, validate

DIRECTORY: Final = Path(__file__).parent


class NoLawInForceError(LookupError):
    """No version of a regime was in force on a day; what the law asked for then is unknown."""


class _Law(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Answer(_Law):
    """Period in which a request must be answered, counted from receipt."""

    within: Duration
    article: str
    rolls: Literal["next_working_day", "never"]
    counted_by: str


class Extension(_Law):
    """By how much the period may be extended, once, when the person is told why inside the first period."""

    by: Duration
    article: str


class Acknowledgement(_Law):
    """Business days in which receipt must be confirmed."""

    business_days: Annotated[int, Field(ge=1, le=90)]
    article: str


class Child(_Law):
    """Below which age a child's own consent doesn't count; countries may go down to `at_least`."""

    under: int
    at_least: int
    article: str


class Version(_Law):
    """The law as it stood from `valid_from` to `valid_to`, both included; without `valid_to` it stands."""

    version: Slug
    valid_from: date
    valid_to: date | None = None
    answer: Answer
    extension: Extension
    acknowledgement: Acknowledgement | None = None
    adequate: tuple[CountryCode, ...] | None = None
    child: Child

    def in_force(self, day: date) -> bool:
        """Whether this version applies to what was received on `day`."""
        return self.valid_from <= day and (self.valid_to is None or day <= self.valid_to)


class Regime(_Law):
    """One body of law and the countries whose people it protects."""

    regime: Slug
    title: str
    countries: tuple[CountryCode, ...]
    establishment: str | None = None
    versions: Annotated[tuple[Version, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _versions_follow_one_another(self) -> Self:
        for index, (earlier, later) in enumerate(zip(self.versions, self.versions[1:], strict=False)):
            if earlier.valid_to is None or earlier.valid_to >= later.valid_from:
                what = f"`{earlier.version}` and `{later.version}` overlap"
                raise misfit(what, f"a day before {later.valid_from} as `valid_to`", "versions", index, "valid_to")
        return self

    def at(self, day: date) -> Version:
        """Give the version in force on `day`. Raises NoLawInForceError."""
        for version in self.versions:
            if version.in_force(day):
                return version
        raise NoLawInForceError(f"no version of {self.regime} is known that was in force on {day}")

    @property
    def latest(self) -> Version:
        """The version that came into force last."""
        return self.versions[-1]


@cache
def packaged() -> Mapping[str, Regime]:
    """Give all regimes that come with Habeas, by name. Raises ConfigurationError when a file was damaged."""
    regimes = (validate(Regime, load_yaml(path)) for path in sorted(DIRECTORY.glob("*.yaml")))
    return MappingProxyType({each.regime: each for each in regimes})


__all__ = [
    "Acknowledgement",
    "Answer",
    "Child",
    "Extension",
    "NoLawInForceError",
    "Regime",
    "Version",
    "packaged",
]
