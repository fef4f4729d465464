"""The base of every message model, and the types of fields that recur."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, ClassVar, Final, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, HttpUrl, StringConstraints

from habeas.contracts.topics import Topic

# RFC 3339, section 5.6: "T" and "Z" may be written small, and the zone is never left out.
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,12})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_FULL_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Between these every period that a law or a policy knows can be added and taken away."""


def moment(text: str) -> datetime:
    """Read a moment, in UTC. Raises ``ValueError`` for what is not RFC 3339, or not between the years 1970 and 8999."""
    if not _RFC3339.fullmatch(text):
        message = "must be a time with a zone, such as 2026-11-24T09:12:33Z"
        raise ValueError(message)
    return _in_range(datetime.fromisoformat(text.upper()))


def _moment(value: object) -> object:
    return moment(value) if isinstance(value, str) else value


def _in_range(value: datetime) -> datetime:
    if value.tzinfo is None:
        message = "must carry a time zone, such as 2026-11-24T09:12:33Z"
        raise ValueError(message)
    if not _EARLIEST <= value < _LATEST:
        message = "must be between the years 1970 and 8999"
        raise ValueError(message)
    return value if value.tzinfo is UTC else value.astimezone(UTC)


def _calendar_date(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not _FULL_DATE.fullmatch(value):
        message = "must be a date, such as 2026-11-24"
        raise ValueError(message)
    return date.fromisoformat(value)


def _date_in_range(value: date) -> date:
    if not _EARLIEST.date() <= value < _LATEST.date():
        message = "must be between the years 1970 and 8999"
        raise ValueError(message)
    return value


def _storable(value: str) -> str:
    if "\0" in value:
        message = "must not hold the character NUL, which PostgreSQL cannot hold"
        raise ValueError(message)
    return value


def _web_address(value: object) -> object:
    if isinstance(value, str) and not _PRINTABLE.fullmatch(value):
        message = "must be an address without spaces and control characters"
        raise ValueError(message)
    return value


_PRINTABLE: Final = re.compile(r"[^\x00-\x20\x7f-\xa0\u2028\u2029]+")

Instant = Annotated[datetime, BeforeValidator(_moment), AfterValidator(_in_range)]
"""A moment with a time zone; always UTC once parsed (RFC 3339)."""

CalendarDate = Annotated[date, BeforeValidator(_calendar_date), AfterValidator(_date_in_range)]
"""A day of the calendar (RFC 3339, ``full-date``)."""

Text = Annotated[str, AfterValidator(_storable)]
"""Words of a person or of a company, in any language."""

WebAddress = Annotated[HttpUrl, BeforeValidator(_web_address)]
"""An address on the web, as it is shown to people."""

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.\-]{0,79}$")]
"""A name made by people who configure the system, never by a data subject."""

OpaqueId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:\-]{0,127}$")]
"""The platform's own identifier of an account; must say nothing about the person."""

CountryCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
"""ISO 3166-1 alpha-2."""

LANGUAGE_CHARACTERS_MAX: Final = 75
"""More than twice the 35 that a limit has to leave room for (RFC 5646, section 4.4.1)."""

LanguageTag = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
"""BCP 47 tag as account settings hold it, of any length, as events of earlier versions may have it."""

LanguageCode = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,8}$")]
"""BCP 47 tag as somebody outside of the fleet may send it: at most ``LANGUAGE_CHARACTERS_MAX`` characters."""

Hex64 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""Thirty-two bytes in lower-case hexadecimal."""

SealedText = Annotated[str, StringConstraints(pattern=r"^s1\.(data|case)\.[A-Za-z0-9_\-]{38,}$", max_length=65_536)]
"""A value encrypted under a subject's key and bound to its place (see ``habeas.sealing``)."""

ConfigName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.\-]{0,127}$")]
"""The name of a store, table or rule, as the data map spells it."""


class Model(BaseModel):
    """A frozen value that knows all of its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class Event(Model):
    """Something that happened, published on one topic under one key.

    Subclasses name their topic, type and the field that is the record key. Producers cannot add fields
    (``extra="forbid"``); consumers of the fleet's own topics ignore fields that a newer producer added, while
    input from platforms is refused when it holds a field that nobody knows.
    """

    topic: ClassVar[Topic]
    type: ClassVar[str]
    key_field: ClassVar[str]
    subject_field: ClassVar[str | None] = None

    def key(self) -> str:
        """Give the record key: an opaque id that fixes partition, lane and order."""
        return str(getattr(self, self.key_field))

    def subject(self) -> str:
        """Give the CloudEvents subject: the request id where there is one, else the key."""
        return str(getattr(self, self.subject_field or self.key_field))

    def encode(self) -> bytes:
        """Render the JSON that goes on the wire."""
        return self.__pydantic_serializer__.to_json(self)

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Parse a record's value.

        Types are taken as JSON has them: no number for a time, no text for a truth value. Raises ``pydantic.ValidationError``; its
        locations are field names, its inputs must not be shown.
        """
        return cls.model_validate_json(value, strict=True, extra="forbid" if cls.topic.strict else "ignore")


__all__ = [
    "LANGUAGE_CHARACTERS_MAX",
    "UUID",
    "CalendarDate",
    "ConfigName",
    "CountryCode",
    "Event",
    "Hex64",
    "Instant",
    "LanguageCode",
    "LanguageTag",
    "Model",
    "OpaqueId",
    "SealedText",
    "Slug",
    "Text",
    "WebAddress",
    "date",
    "moment",
]
