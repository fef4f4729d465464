"""CloudEvents 1.0 in Kafka's binary mode: ``ce_`` headers around a JSON value (CloudEvents Kafka protocol binding, section 3.2)."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar
from uuid import UUID

from habeas.contracts.model import moment
from habeas.contracts.vocabulary import ParkReason

SPEC_VERSION = b"1.0"
CONTENT_TYPE = b"application/json"

Headers = list[tuple[str, bytes]]

T = TypeVar("T")

_ATTRIBUTES = frozenset({"ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_subject"})

# W3C Trace Context, section 3.2; what a later version appends is left out, since it could hold anything.
_TRACEPARENT = re.compile(rb"([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})(?:-|\Z)")


class Envelope(NamedTuple):
    """The attributes of one event; ``traceparent`` is W3C Trace Context, null outside of a trace."""

    event_id: UUID
    type: str
    source: str
    at: datetime
    subject: str
    traceparent: str | None = None

    def within(self, traceparent: str | None) -> "Envelope":
        """Give the same event with another trace parent: that of the hop that carries it."""
        return self._replace(traceparent=traceparent)


class BadEnvelope(ValueError):
    """A header is missing or wrong; ``field`` names it."""

    def __init__(self, reason: ParkReason, field: str) -> None:
        super().__init__(f"{reason}: {field}")
        self.reason = reason
        self.field = field


def encode_headers(envelope: Envelope) -> Headers:
    """Render the headers of one record."""
    at = envelope.at if envelope.at.tzinfo is UTC else envelope.at.astimezone(UTC)
    headers: Headers = [
        ("ce_specversion", SPEC_VERSION),
        ("ce_id", str(envelope.event_id).encode()),
        ("ce_type", envelope.type.encode()),
        ("ce_source", envelope.source.encode()),
        ("ce_time", at.isoformat(timespec="microseconds")[:-6].encode() + b"Z"),
        ("ce_subject", envelope.subject.encode()),
        ("content-type", CONTENT_TYPE),
    ]
    if envelope.traceparent is not None:
        headers.append(("traceparent", envelope.traceparent.encode()))
    return headers


def decode_headers(headers: Iterable[tuple[str, bytes | None]]) -> Envelope:
    """Parse the headers of one record.

    Raises ``BadEnvelope`` naming the header. A trace context that is not one is dropped: it must not cost the message.
    """
    found = _single(headers)
    if found.get("ce_specversion") != SPEC_VERSION and _text(found, "ce_specversion") != "1.0":
        raise BadEnvelope(ParkReason.WRONG_HEADER, "ce_specversion")
    event_id = _read(UUID, found, "ce_id")
    at = _read(moment, found, "ce_time")
    carried = found.get("traceparent")
    trace = _TRACEPARENT.match(carried) if carried else None
    return Envelope(
        event_id,
        _text(found, "ce_type"),
        _text(found, "ce_source"),
        at,
        _text(found, "ce_subject") if "ce_subject" in found else "",
        trace[1].decode() if trace else None,
    )


def _single(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, bytes | None]:
    """Give headers by name. Raises ``BadEnvelope`` for an attribute that is there twice: nobody can say which one counts."""
    found: dict[str, bytes | None] = {}
    for name, value in headers:
        if name in found and name in _ATTRIBUTES:
            raise BadEnvelope(ParkReason.WRONG_HEADER, name)
        found[name] = value
    return found


def _read(parse: Callable[[str], T], found: dict[str, bytes | None], name: str) -> T:
    text = _text(found, name)
    try:
        return parse(text)
    except ValueError:
        raise BadEnvelope(ParkReason.WRONG_HEADER, name) from None


def _text(found: dict[str, bytes | None], name: str) -> str:
    value = found.get(name)
    if value is None:
        raise BadEnvelope(ParkReason.MISSING_HEADER, name)
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BadEnvelope(ParkReason.WRONG_HEADER, name) from None
