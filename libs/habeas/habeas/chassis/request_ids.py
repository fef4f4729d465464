"""Which request a message of an outsider is about, for whoever asks after one that was parked."""

from uuid import UUID

import orjson
from aiokafka import ConsumerRecord


def request_of(record: "ConsumerRecord[bytes, bytes]") -> UUID | None:
    """Return the id that the value's `request_id` holds, else the header `ce_subject`; None where neither is one. Never raises."""
    return _in_value(record.value or b"") or _in_subject(record)


def _in_value(value: bytes) -> UUID | None:
    try:
        body = orjson.loads(value)
    except ValueError:
        return None
    return _read(body.get("request_id")) if isinstance(body, dict) else None


def _in_subject(record: "ConsumerRecord[bytes, bytes]") -> UUID | None:
    subject = dict(record.headers).get("ce_subject") or b""
    return _read(subject.decode(errors="replace"))


def _read(text: object) -> UUID | None:
    if not isinstance(text, str):
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
