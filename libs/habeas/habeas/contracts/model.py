"""The base of every message model, and the types of fields that recur."""

from datetime import UTC, date, datetime
from typing import Annotated, ClassVar, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from habeas.contracts.topics import Topic


def _aware_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        message = "must carry a time zone, such as 2026-11-24T09:12:33Z"
        raise ValueError(message)
    return value if value.tzinfo is UTC else value.astimezone(UTC)


Instant = Annotated[datetime, AfterValidator(_aware_utc)]
"""A moment with a time zone; always UTC once parsed (RFC 3339)."""

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.\-]{0,79}$")]
"""A name made by people who configure the system, never by a data subject."""

OpaqueId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:\-]{0,127}$")]
"""The platform's own identifier of an account; must say nothing about the person."""

CountryCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
"""ISO 3166-1 alpha-2."""

LanguageCode = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
"""BCP 47 tag as account settings hold it."""

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

        Raises ``pydantic.ValidationError``; its locations are field names, its inputs must not be shown.
        """
        return cls.model_validate_json(value, extra="forbid" if cls.topic.strict else "ignore")


__all__ = [
    "UUID",
    "ConfigName",
    "CountryCode",
    "Event",
    "Hex64",
    "Instant",
    "LanguageCode",
    "Model",
    "OpaqueId",
    "SealedText",
    "Slug",
    "date",
]
