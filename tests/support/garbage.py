"""Records that the fleet must park, of every kind that a platform or a stranger could send, each with the verdict it has to get."""

import datetime as dt
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from habeas.chassis.clock import Clock
from habeas.chassis.ids import uuid7
from habeas.contracts.envelope import Envelope, Headers, encode_headers
from habeas.contracts.platform import RequestSubmitted, RetentionTicked
from habeas.contracts.topics import DSR_REQUESTS, RETENTION_TICKS
from habeas.contracts.vocabulary import Right
from habeas.kit import Issuer, attest

_A_DAY: Final = dt.timedelta(days=1)
_UNREADABLE: Final = b"\xff\xfe"  # no UTF-8 text has these bytes


@dataclass(frozen=True, slots=True)
class Raw:
    """One record as it is sent; `verdict` is the reason and the field with which it has to be parked, None for a good one."""

    topic: str
    key: bytes
    value: bytes | None = field(repr=False)
    headers: Headers
    verdict: tuple[str, str] | None = None
    kind: str = "good"

    def header(self, name: str, value: bytes | None) -> "Raw":
        """Give the record with one header changed, or without it."""
        headers = [(each, old) for each, old in self.headers if each != name]
        return replace(self, headers=headers if value is None else [*headers, (name, value)])


@dataclass
class Forge:
    """Makes good submissions, and bad ones out of them."""

    issuer: Issuer
    clock: Clock

    def submission(
        self,
        account_id: str,
        right: Right = Right.ERASURE,
        *,
        request_id: UUID | None = None,
        by: Issuer | None = None,
        **changed: Any,
    ) -> dict[str, Any]:
        """Give a signed submission as JSON has it; `changed` parts are signed too, None takes one away."""
        now = _rfc3339(self.clock.now())
        by = by or self.issuer
        body: dict[str, Any] = {
            "request_id": str(request_id or uuid7(self.clock)),
            "right": right.value,
            "account_id": account_id,
            "received_at": now,
            "channel": "account-settings",
            "country": "DE",
            "details": {"right": "erasure", "ground": "consent_withdrawn"}
            if right is Right.ERASURE
            else {"right": right.value},
            "attestation": {
                "method": "session",
                "acr": "mfa",
                "authenticated_at": now,
                "issuer": by.name,
                "key_id": by.key_id,
            },
            **changed,
        }
        return attest({name: value for name, value in body.items() if value is not None}, by.private_key)

    def record(self, body: Mapping[str, Any], *, event_id: UUID | None = None, key: str | None = None) -> Raw:
        """Put a submission into a record, under its account unless another key is given."""
        key = key if key is not None else str(body.get("account_id", "acc_NOBODY"))
        headers = encode_headers(
            Envelope(event_id or uuid7(self.clock), RequestSubmitted.type, "accounts", self.clock.now(), "tests")
        )
        return Raw(DSR_REQUESTS.name, key.encode(), _json(body), headers)

    def tick(self, as_of: dt.datetime) -> Raw:
        """Put a retention tick into a record."""
        event = RetentionTicked(tick_id=uuid7(self.clock), as_of=as_of)
        headers = encode_headers(Envelope(uuid7(self.clock), event.type, "scheduler", self.clock.now(), "tests"))
        return Raw(RETENTION_TICKS.name, event.key().encode(), event.encode(), headers)


Maker = Callable[[Forge, str, int], Raw]
"""Makes a bad record of its kind; gets an account that nobody has, and a number for those that vary."""


def of_every_kind(forge: Forge, good: Iterator[tuple[Mapping[str, Any], Raw]], each: int) -> list[Raw]:
    """Make so many bad records of every kind; those that repeat an id repeat one of a `good` submission and its record."""
    numbers = itertools.count()
    made = [
        replace(make(forge, f"acc_GARBAGE{next(numbers):05}", number), kind=name)
        for name, make in KINDS.items()
        for number in range(each)
    ]
    for _ in range(each):
        body, record = next(good)
        made += [_same_event_id(forge, body, record), _same_request_id(forge, body)]
    return made


def _same_event_id(forge: Forge, body: Mapping[str, Any], record: Raw) -> Raw:
    """A record that has the event id of a good one and other content, in the same partition, so that it comes later."""
    event_id = UUID(dict(record.headers)["ce_id"].decode())
    other = forge.submission(body["account_id"], Right.PORTABILITY)
    return replace(forge.record(other, event_id=event_id), verdict=("id_conflict", "ce_id"), kind="repeated event id")


def _same_request_id(forge: Forge, body: Mapping[str, Any]) -> Raw:
    """A request that has the id of a good one and asks for something else, in the same partition, so that it comes later."""
    other = forge.submission(body["account_id"], Right.PORTABILITY, request_id=UUID(body["request_id"]))
    return replace(forge.record(other), verdict=("id_conflict", "request_id"), kind="repeated request id")


def _bad(reason: str, part: str, raw: Raw) -> Raw:
    return replace(raw, verdict=(reason, part))


def _missing_header(forge: Forge, account_id: str, number: int) -> Raw:
    name = ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time")[number % 5]
    return _bad("missing_header", name, forge.record(forge.submission(account_id)).header(name, None))


def _wrong_header(forge: Forge, account_id: str, number: int) -> Raw:
    name, value = (
        ("ce_specversion", b"0.3"),
        ("ce_id", b"4711"),
        ("ce_time", b"yesterday"),
        ("ce_time", b"2026-11-24T09:12:33"),  # without a zone
    )[number % 4]
    return _bad("wrong_header", name, forge.record(forge.submission(account_id)).header(name, value))


def _unreadable_header(forge: Forge, account_id: str, number: int) -> Raw:
    name = ("ce_type", "ce_source", "ce_subject")[number % 3]
    return _bad("wrong_header", name, forge.record(forge.submission(account_id)).header(name, _UNREADABLE))


def _missing_field(forge: Forge, account_id: str, number: int) -> Raw:
    name = ("request_id", "right", "account_id", "received_at", "channel")[number % 5]
    body = {part: value for part, value in forge.submission(account_id).items() if part != name}
    return _bad("missing_field", name, forge.record(body, key=account_id))


def _unknown_field(forge: Forge, account_id: str, number: int) -> Raw:
    if number % 2:
        details = {"right": "erasure", "ground": "child", "haste": "great"}
        return _bad(
            "unknown_field", "details.erasure.haste", forge.record(forge.submission(account_id, details=details))
        )
    return _bad("unknown_field", "nickname", forge.record(forge.submission(account_id, nickname="Bob")))


def _wrong_value(forge: Forge, account_id: str, number: int) -> Raw:
    name, value = (
        ("country", "Germany"),
        ("received_at", "2026-11-24T09:12:33"),  # without a zone
        ("regime", "lex-atlantis"),
        ("channel", "by letter"),
    )[number % 4]
    changed: dict[str, Any] = {name: value}
    return _bad("wrong_value", name, forge.record(forge.submission(account_id, **changed)))


def _bad_signature(forge: Forge, account_id: str, _: int) -> Raw:
    signed = forge.submission(account_id)
    return _bad("bad_signature", "attestation.signature", forge.record({**signed, "country": "AT"}))


def _unknown_issuer(forge: Forge, account_id: str, number: int) -> Raw:
    key = Ed25519PrivateKey.generate()
    by = (
        Issuer("strangers", forge.issuer.key_id, key) if number % 2 else Issuer(forge.issuer.name, "key-of-nobody", key)
    )
    return _bad("unknown_issuer", "attestation.key_id", forge.record(forge.submission(account_id, by=by)))


def _from_the_future(forge: Forge, account_id: str, _: int) -> Raw:
    moment = _rfc3339(forge.clock.now() + _A_DAY)
    return _bad(
        "from_the_future", "ce_time", forge.record(forge.submission(account_id)).header("ce_time", moment.encode())
    )


def _received_in_the_future(forge: Forge, account_id: str, _: int) -> Raw:
    moment = _rfc3339(forge.clock.now() + _A_DAY)
    return _bad("from_the_future", "received_at", forge.record(forge.submission(account_id, received_at=moment)))


def _on_the_wrong_topic(forge: Forge, account_id: str, number: int) -> Raw:
    submission, tick = forge.record(forge.submission(account_id)), forge.tick(forge.clock.now())
    raw = replace(submission, topic=tick.topic) if number % 2 else replace(tick, topic=submission.topic)
    return _bad("unknown_type", "ce_type", raw)


def _time_beyond_the_calendar(forge: Forge, account_id: str, number: int) -> Raw:
    time = ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1969-12-31T23:59:59Z")[number % 3]
    if number % 2:
        return _bad(
            "wrong_header", "ce_time", forge.record(forge.submission(account_id)).header("ce_time", time.encode())
        )
    return _bad("wrong_value", "received_at", forge.record(forge.submission(account_id, received_at=time)))


def _wrong_type(forge: Forge, account_id: str, number: int) -> Raw:
    name, value = (("received_at", 1_764_500_000), ("received_at", "1764500000"), ("channel", 7), ("country", True))[
        number % 4
    ]
    changed: dict[str, Any] = {name: value}
    return _bad("wrong_value", name, forge.record(forge.submission(account_id, **changed)))


def _member_twice(forge: Forge, account_id: str, _: int) -> Raw:
    raw = forge.record(forge.submission(account_id))
    twice = (raw.value or b"").replace(b'"country":', b'"country":"AT","country":', 1)
    return _bad("wrong_value", "country", replace(raw, value=twice))


def _attribute_twice(forge: Forge, account_id: str, number: int) -> Raw:
    raw = forge.record(forge.submission(account_id))
    name, value = raw.headers[number % 6]
    return _bad("wrong_header", name, replace(raw, headers=[*raw.headers, (name, value)]))


def _other_spelling_of_a_signature(forge: Forge, account_id: str, _: int) -> Raw:
    body = forge.submission(account_id)
    signature = body["attestation"]["signature"]
    other = signature[:-1] + chr(ord(signature[-1]) + 1)  # decodes to the same bytes
    return _bad(
        "wrong_value",
        "attestation.signature",
        forge.record({**body, "attestation": {**body["attestation"], "signature": other}}),
    )


KINDS: Final[Mapping[str, Maker]] = {
    "value is not UTF-8": lambda forge, account_id, _: _bad(
        "not_utf8", "value", replace(forge.record(forge.submission(account_id)), value=_UNREADABLE)
    ),
    "header is not UTF-8": _unreadable_header,
    "value is not JSON": lambda forge, account_id, _: _bad(
        "not_json", "value", replace(forge.record(forge.submission(account_id)), value=b'{"right": erasure}')
    ),
    "missing header": _missing_header,
    "wrong header": _wrong_header,
    "unknown type": lambda forge, account_id, _: _bad(
        "unknown_type", "ce_type", forge.record(forge.submission(account_id)).header("ce_type", b"dsr_request.imagined")
    ),
    "missing field": _missing_field,
    "unknown field": _unknown_field,
    "wrong value": _wrong_value,
    "wrong key": lambda forge, account_id, _: _bad(
        "wrong_key", "account_id", forge.record(forge.submission(account_id), key=f"{account_id}0")
    ),
    "bad signature": _bad_signature,
    "unknown issuer or key": _unknown_issuer,
    "from the future": _from_the_future,
    "received in the future": _received_in_the_future,
    "no value": lambda forge, account_id, _: _bad(
        "not_json", "value", replace(forge.record(forge.submission(account_id)), value=None)
    ),
    "empty value": lambda forge, account_id, _: _bad(
        "not_json", "value", replace(forge.record(forge.submission(account_id)), value=b"")
    ),
    "known type on the wrong topic": _on_the_wrong_topic,
    "time beyond the calendar": _time_beyond_the_calendar,
    "type that the schema does not have": _wrong_type,
    "member that is there twice": _member_twice,
    "attribute that is there twice": _attribute_twice,
    "signature in another spelling": _other_spelling_of_a_signature,
    "tick from the future": lambda forge, _, __: _bad(
        "from_the_future", "as_of", forge.tick(forge.clock.now() + _A_DAY)
    ),
}


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _rfc3339(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
