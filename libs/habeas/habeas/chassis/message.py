"""Messages between the wire and a handler: raw Kafka records in, typed events or a reason to park out.

Nothing here raises for bad input. A record that cannot even be named gets an id made from its place in the log, so that it can be
stored, seen and resolved like any other.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from aiokafka import ConsumerRecord
from pydantic import ValidationError

from habeas.chassis.ids import name_based
from habeas.chassis.outbox import lane_of
from habeas.chassis.records import TooLarge, UnreadableRecord
from habeas.contracts.catalogue import BY_TYPE, ROLLED, ROLLED_VALUE
from habeas.contracts.envelope import BadEnvelope, decode_headers
from habeas.contracts.model import Event
from habeas.contracts.topics import Topic
from habeas.contracts.vocabulary import ParkReason

_PLACE_NAMESPACE: Final = UUID("5b2f9c52-6a4c-5d0e-9b1a-3a5f5b1f0c11")
_PRINTABLE_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,79}")
_UNREADABLE: Final = "unreadable"
_PENDING: Final = "pending"
_PARKED: Final = "parked"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP_MS_MAX: Final = 253_402_300_799_999  # the last millisecond of the year 9999: publishers choose record times
_REASONS: Final[Mapping[str, ParkReason]] = {
    "json_invalid": ParkReason.NOT_JSON,
    "missing": ParkReason.MISSING_FIELD,
    "extra_forbidden": ParkReason.UNKNOWN_FIELD,
}


class Protection(Protocol):
    """Seals what topics of outsiders carry while it lies in the inbox."""

    def seal(self, value: bytes, aad: bytes) -> bytes:
        """Encrypt, bound to ``aad``."""
        ...

    def open(self, value: bytes, aad: bytes) -> bytes:
        """Decrypt; raises when anything was altered."""
        ...

    def fingerprint(self, value: bytes) -> bytes:
        """Give a keyed digest that tells equal from different and nothing else."""
        ...


class Defect(NamedTuple):
    """Why a message is parked; ``field`` names the part, never its value."""

    reason: ParkReason
    field: str


class Stored(NamedTuple):
    """One record as it goes into the inbox: its fields are the values of ``store.STORE_RECORDS``, in that order."""

    event_id: UUID
    topic: str
    partition: int
    offset: int
    type: str
    key: bytes
    lane: int
    event_at: datetime
    traceparent: str | None
    value: bytes
    digest: bytes
    state: str
    reason: ParkReason | None
    field: str | None

    @property
    def defect(self) -> Defect | None:
        """Give why it is parked, if it is."""
        return None if self.reason is None else Defect(self.reason, self.field or "value")


def take(
    record: "ConsumerRecord[bytes, bytes]", topic: Topic, wanted: frozenset[str], protection: Protection
) -> Stored | None:
    """Turn one record into what the inbox stores; None for a type of this topic that this service does not handle.

    A record with broken headers, or of a type that has no place on the topic, is stored as parked, under an id made from its place
    in the log: nobody else would ever look at it.
    """
    key = record.key or b""
    value = record.value or b""
    if isinstance(record, TooLarge):
        return _stored(record, topic, protection, key, b"", defect=Defect(ParkReason.TOO_LARGE, record.what))
    if isinstance(record, UnreadableRecord):
        return _stored(record, topic, protection, key, value, defect=Defect(ParkReason.UNREADABLE, "record"))
    try:
        envelope = decode_headers(record.headers)
    except BadEnvelope as error:
        return _stored(record, topic, protection, key, value, defect=Defect(error.reason, error.field))
    if envelope.type == ROLLED and not key and value == ROLLED_VALUE:
        return None
    kind = BY_TYPE.get(envelope.type)
    if kind is None or kind.topic is not topic:
        return _stored(record, topic, protection, key, value, defect=Defect(ParkReason.UNKNOWN_TYPE, "ce_type"))
    if envelope.type not in wanted:
        return None
    sealed_key, sealed, digest = _protected(topic, protection, key, value, envelope.event_id)
    return Stored(
        envelope.event_id,
        topic.name,
        record.partition,
        record.offset,
        envelope.type,
        sealed_key,
        lane_of(sealed_key),
        envelope.at,
        envelope.traceparent,
        sealed,
        digest,
        _PENDING,
        None,
        None,
    )


def relabel(stored: Stored, record: "ConsumerRecord[bytes, bytes]", topic: Topic, protection: Protection) -> Stored:
    """Give a record that repeats another message's id with other content an id of its own, parked."""
    defect = Defect(ParkReason.ID_CONFLICT, "ce_id")
    return _stored(record, topic, protection, record.key or b"", record.value or b"", defect=defect, kind=stored.type)


def _stored(
    record: "ConsumerRecord[bytes, bytes]",
    topic: Topic,
    protection: Protection,
    key: bytes,
    value: bytes,
    *,
    defect: Defect,
    kind: str = _UNREADABLE,
) -> Stored:
    event_id = name_based(_PLACE_NAMESPACE, topic.name, record.partition, record.offset)
    sealed_key, sealed, digest = _protected(topic, protection, key, value, event_id)
    at = _EPOCH + timedelta(milliseconds=min(max(record.timestamp, 0), _TIMESTAMP_MS_MAX))
    return Stored(
        event_id,
        topic.name,
        record.partition,
        record.offset,
        kind,
        sealed_key,
        lane_of(sealed_key),
        at,
        None,
        sealed,
        digest,
        _PARKED,
        defect.reason,
        defect.field,
    )


def _protected(
    topic: Topic, protection: Protection, key: bytes, value: bytes, event_id: UUID
) -> tuple[bytes, bytes, bytes]:
    if topic.sealed:
        return (
            protection.fingerprint(key),
            protection.seal(value, event_id.bytes),
            protection.fingerprint(key + b"\0" + value),
        )
    return key, value, digest_of(key, value)


def digest_of(key: bytes, value: bytes) -> bytes:
    """Return the SHA-256 by which a record of the fleet's own topics is known again under its id."""
    return hashlib.sha256(key + b"\0" + value).digest()


class Message(NamedTuple):
    """One claimed inbox row with its event."""

    inbox_id: int
    event_id: UUID
    topic: Topic
    type: str
    key: bytes
    traceparent: str | None
    received_at: datetime
    attempts: int
    value: bytes
    event: Event


class Arrived(NamedTuple):
    """One message as it came from the inbox, or on its way past it; its fields are the columns of ``store.CLAIM``."""

    inbox_id: int
    event_id: UUID
    topic: str
    type: str
    key: bytes
    event_at: datetime
    traceparent: str | None
    value: bytes
    received_at: datetime
    attempts: int

    @classmethod
    def past_the_inbox(cls, stored: Stored, number: int, now: datetime) -> "Arrived":
        """Give one that was never stored; the number tells it from others of its batch."""
        return cls(
            number,
            stored.event_id,
            stored.topic,
            stored.type,
            stored.key,
            stored.event_at,
            stored.traceparent,
            stored.value,
            now,
            0,
        )


def read(
    arrived: Arrived, topics: Mapping[str, Topic], protection: Protection, now: datetime, tolerance: timedelta
) -> Message | Defect:
    """Parse one message; a defect names the field that is wrong.

    Checks, in order: that this version knows topic and type, time not ahead of the clock by more than ``tolerance``, UTF-8, that the
    type belongs on the topic, JSON, the model's fields, and that the record key is the one that the event's own fields give.
    Raises what ``protection`` raises when the stored bytes do not open: that is no fault of the message.
    """
    inbox_id, event_id, topic_name, type_, key, event_at, traceparent, sealed, received_at, attempts = arrived
    topic = topics.get(topic_name)
    kind = BY_TYPE.get(type_)
    if topic is None or kind is None:
        return Defect(ParkReason.UNKNOWN_TYPE, "ce_type")
    if event_at > now + tolerance:
        return Defect(ParkReason.FROM_THE_FUTURE, "ce_time")
    value = protection.open(sealed, event_id.bytes) if topic.sealed else sealed
    if kind.topic is not topic:
        return Defect(ParkReason.UNKNOWN_TYPE, "ce_type") if _is_text(value) else Defect(ParkReason.NOT_UTF8, "value")
    event = _parse(kind, value)
    if isinstance(event, Defect):
        return event
    own_key = event.key().encode()
    if (protection.fingerprint(own_key) if topic.sealed else own_key) != key:
        return Defect(ParkReason.WRONG_KEY, kind.key_field)
    return Message(inbox_id, event_id, topic, type_, key, traceparent, received_at, attempts, value, event)


def _parse(kind: type[Event], value: bytes) -> Event | Defect:
    """Parse a value; whatever a parser raises for it, the answer is a defect."""
    try:
        event = kind.decode(value)
        twice = _repeated_member(value) if kind.topic.strict else None
    except ValidationError as error:
        return _defect(error) if _is_text(value) else Defect(ParkReason.NOT_UTF8, "value")
    except Exception:  # noqa: BLE001 -- parsers have limits of many kinds, and what they raise quotes what they read
        return Defect(ParkReason.WRONG_VALUE, "value")
    return event if twice is None else Defect(ParkReason.WRONG_VALUE, _shown(twice))


class _Repeated(ValueError):
    """A member's name is there twice."""


def _repeated_member(value: bytes) -> str | None:
    """Give the name of a member that one object has twice (RFC 7493, section 2.3): parsers differ in which of the two they take."""
    try:
        json.loads(value, object_pairs_hook=_members)
    except _Repeated as error:
        return str(error)
    return None


def _members(pairs: list[tuple[str, object]]) -> None:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise _Repeated(name)
        names.add(name)


def _is_text(value: bytes) -> bool:
    """Answer whether the bytes are UTF-8; asked only where something is wrong, since the parser refuses other bytes too."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _defect(error: ValidationError) -> Defect:
    """Name the first fault; a field name that a stranger chose is shown only when it looks like one."""
    first: Any = error.errors(include_url=False, include_context=False, include_input=False)[0]
    reason = _REASONS.get(first["type"], ParkReason.WRONG_VALUE)
    return Defect(reason, _shown(".".join(str(part) for part in first["loc"]) or "value"))


def _shown(name: str) -> str:
    return name if _PRINTABLE_FIELD.fullmatch(name) else "(unprintable name)"
