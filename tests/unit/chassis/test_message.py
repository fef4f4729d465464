"""Records on their way in: what is taken, what is parked and why, what is never shown."""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st
from pydantic import HttpUrl

from habeas.chassis.message import Arrived, Defect, Message, Stored, read, relabel, take
from habeas.chassis.records import UnreadableRecord
from habeas.contracts import topics
from habeas.contracts.catalogue import ROLLED
from habeas.contracts.model import Event
from habeas.contracts.platform import PolicyChanged, RetentionTicked
from habeas.contracts.topics import Topic
from habeas.contracts.vocabulary import ParkReason
from tests.support.delivery import (
    ACCOUNT,
    NOON,
    PROTECTOR,
    extended,
    headers_of,
    new_id,
    ordered,
    raw_record,
    record_of,
    submitted,
    ticked,
)

SECRET = "ada.lovelace@example.org"
EVERY = {topic.name: topic for topic in topics.CATALOGUE}
WANTED = frozenset(
    {"request.extended", "retention.ticked", "dsr_request.submitted", "participant.ordered", "policy.changed"}
)
TOLERANCE = timedelta(minutes=5)
# The namespace is part of every database that exists: it must never change.
PLACES = UUID("5b2f9c52-6a4c-5d0e-9b1a-3a5f5b1f0c11")


def row(stored: Stored, **changed: Any) -> Arrived:
    """What a worker gets of a stored record."""
    return Arrived.past_the_inbox(stored, 1, NOON)._replace(**changed)


def taken(event: Event, **changed: Any) -> Stored:
    """What is stored of a good event."""
    stored = take(record_of(event, **changed), event.topic, WANTED, PROTECTOR)
    assert stored is not None
    return stored


def parsed(stored: Stored, **changed: Any) -> Message | Defect:
    """What a worker makes of a stored record at noon."""
    return read(row(stored, **changed), EVERY, PROTECTOR, NOON, TOLERANCE)


def spoiled(event: Event, value: bytes, key: bytes | None = None) -> Message | Defect:
    """What a worker makes of an event whose value, or key, somebody changed."""
    record = raw_record(event.topic, event.key().encode() if key is None else key, value, headers_of(event))
    stored = take(record, event.topic, WANTED, PROTECTOR)
    assert stored is not None
    assert stored.defect is None
    return parsed(stored)


def with_field(event: Event, **fields: object) -> bytes:
    """The event's JSON with fields added or replaced."""
    return json.dumps(json.loads(event.encode()) | fields).encode()


@pytest.mark.parametrize(
    "event", [extended(new_id(), 7), ticked(new_id()), submitted(new_id()), ordered(new_id())], ids=lambda e: e.type
)
def test_a_good_record_comes_through(event: Event) -> None:
    """What a publisher sends is what the handler gets, by id, time and value, on every kind of topic."""
    event_id = new_id()
    stored = taken(event, event_id=event_id, at=NOON - timedelta(hours=1))
    assert (stored.event_id, stored.event_at, stored.defect) == (event_id, NOON - timedelta(hours=1), None)
    message = parsed(stored)
    assert isinstance(message, Message)
    assert (message.event, message.value, message.event_id) == (event, event.encode(), event_id)


@pytest.mark.parametrize("event", [submitted(new_id()), ordered(new_id()), ticked(new_id())], ids=lambda e: e.type)
def test_what_may_name_people_is_sealed(event: Event) -> None:
    """Neither value nor key of a record that names people, or that outsiders wrote, lies in the inbox in clear; equals look equal."""
    event_id = new_id()
    record = record_of(event, event_id)
    one, other = (take(record, event.topic, WANTED, PROTECTOR) for _ in range(2))
    assert one is not None
    assert other is not None
    everything = b"".join(column for column in one if isinstance(column, bytes))
    assert ACCOUNT.encode() not in everything
    assert event.key().encode() not in everything
    assert one.value != other.value
    assert (one.key, one.lane, one.digest) == (other.key, other.lane, other.digest)
    assert len(one.key) == len(one.digest) == 32
    assert PROTECTOR.open(one.value, event_id.bytes) == event.encode()


def test_open_topics_are_as_they_came() -> None:
    """Other topics keep key and value; the digest is SHA-256 over both, with NUL between."""
    event = extended(new_id(), 1)
    stored = taken(event)
    assert (stored.key, stored.value) == (event.key().encode(), event.encode())
    assert stored.digest == hashlib.sha256(event.key().encode() + b"\0" + event.encode()).digest()


GOOD = extended(UUID(int=7), 1)
GOOD_HEADERS = headers_of(GOOD)
UTC_NOON = b"2026-11-24T12:00:00Z"


@pytest.mark.parametrize(
    ("headers", "reason", "field"),
    [
        ({}, ParkReason.MISSING_HEADER, "ce_specversion"),
        (GOOD_HEADERS | {"ce_specversion": b"2.0"}, ParkReason.WRONG_HEADER, "ce_specversion"),
        (GOOD_HEADERS | {"ce_id": SECRET.encode()}, ParkReason.WRONG_HEADER, "ce_id"),
        (GOOD_HEADERS | {"ce_id": b"\xff"}, ParkReason.WRONG_HEADER, "ce_id"),
        (GOOD_HEADERS | {"ce_type": b"\xff\xfe"}, ParkReason.WRONG_HEADER, "ce_type"),
        (GOOD_HEADERS | {"ce_time": b"noon"}, ParkReason.WRONG_HEADER, "ce_time"),
        (GOOD_HEADERS | {"ce_type": SECRET.encode()}, ParkReason.UNKNOWN_TYPE, "ce_type"),
        (GOOD_HEADERS | {"ce_type": b"\x00"}, ParkReason.UNKNOWN_TYPE, "ce_type"),
        (GOOD_HEADERS | {"ce_type": b"unreadable"}, ParkReason.UNKNOWN_TYPE, "ce_type"),
    ],
)
def test_bad_headers_are_parked_under_a_name_of_ours(headers: dict[str, bytes], reason: ParkReason, field: str) -> None:
    """A record that cannot be named is stored as parked, by its place in the log, and shows nothing of what was wrong."""
    record = raw_record(topics.REQUESTS, b"key", b"value", headers, partition=3)
    stored = take(record, topics.REQUESTS, WANTED, PROTECTOR)
    assert stored is not None
    assert stored.defect == Defect(reason, field)
    assert stored.event_id == uuid5(PLACES, f"request-intake.requests.v1\0003\000{record.offset}")
    assert (stored.type, stored.event_at, stored.traceparent) == ("unreadable", NOON, None)
    assert SECRET not in repr(stored)
    assert (stored.key, stored.value) == (b"key", b"value")


@pytest.mark.parametrize("timestamp", [-1, 0, 2**63 - 1, -(2**63), 253_402_300_800_000])
def test_a_record_time_that_is_none_costs_nothing(timestamp: int) -> None:
    """Kafka's own time of a broken record may be missing or beyond the calendar."""
    record = raw_record(topics.REQUESTS, b"", b"", {}, timestamp=timestamp)
    stored = take(record, topics.REQUESTS, WANTED, PROTECTOR)
    assert stored is not None
    assert (
        datetime(1970, 1, 1, tzinfo=UTC) <= stored.event_at <= datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    )


def test_a_broken_record_of_a_sensitive_topic_is_sealed_too() -> None:
    """What cannot be read may still name a person."""
    record = raw_record(topics.DSR_REQUESTS, ACCOUNT.encode(), ACCOUNT.encode(), {})
    stored = take(record, topics.DSR_REQUESTS, WANTED, PROTECTOR)
    assert stored is not None
    assert ACCOUNT.encode() not in stored.key + stored.value + stored.digest
    assert PROTECTOR.open(stored.value, stored.event_id.bytes) == ACCOUNT.encode()


@pytest.mark.parametrize(("kind", "key"), [(ROLLED, b""), ("request.accepted", b"k")])
def test_what_is_for_others_is_passed_over(kind: str, key: bytes) -> None:
    """Markers, and known events that this service has no handler for, are not stored."""
    headers = GOOD_HEADERS | {"ce_type": kind.encode()}
    assert take(raw_record(topics.REQUESTS, key, b"{}", headers), topics.REQUESTS, WANTED, PROTECTOR) is None


@pytest.mark.parametrize(("key", "value"), [(b"k", b"{}"), (b"", SECRET.encode())])
def test_a_marker_that_says_something_is_none(key: bytes, value: bytes) -> None:
    """Anybody can call a record a marker; what it holds is not passed over for that."""
    headers = GOOD_HEADERS | {"ce_type": ROLLED.encode()}
    stored = take(raw_record(topics.REQUESTS, key, value, headers), topics.REQUESTS, WANTED, PROTECTOR)
    assert stored is not None
    assert stored.defect == Defect(ParkReason.UNKNOWN_TYPE, "ce_type")


@pytest.mark.parametrize("topic", [topics.REQUESTS, topics.DSR_REQUESTS], ids=["open", "sensitive"])
def test_a_record_that_the_client_cannot_parse_is_parked(topic: Topic) -> None:
    """It has a place in the log and its bytes, and nothing else."""
    record = UnreadableRecord(topic.name, 2, 77, 0, 0, None, SECRET.encode(), None, -1, 0, ())
    stored = take(record, topic, WANTED, PROTECTOR)
    assert stored is not None
    assert stored.defect == Defect(ParkReason.UNREADABLE, "record")
    assert (stored.partition, stored.offset, stored.type) == (2, 77, "unreadable")


@pytest.mark.parametrize("name", ["ce_id", "ce_type", "ce_source", "ce_time", "ce_subject", "ce_specversion"])
def test_an_attribute_that_is_there_twice_is_none(name: str) -> None:
    """Readers differ in which of the two they take; one that is not an attribute does no harm."""
    headers = list(headers_of(GOOD).items())
    value = dict(headers)[name]
    for twice, defect in (((name, value), Defect(ParkReason.WRONG_HEADER, name)), (("x", b"1"), None)):
        record = raw_record(GOOD.topic, GOOD.key().encode(), GOOD.encode(), [*headers, twice, twice])
        stored = take(record, GOOD.topic, WANTED, PROTECTOR)
        assert stored is not None
        assert stored.defect == defect


def test_a_repeated_id_gets_another_name() -> None:
    """A record that repeats another's id with other content is parked under an id made from its place."""
    record = record_of(submitted(new_id()))
    stored = take(record, topics.DSR_REQUESTS, WANTED, PROTECTOR)
    assert stored is not None
    again = relabel(stored, record, topics.DSR_REQUESTS, PROTECTOR)
    assert again.event_id == uuid5(PLACES, f"platform.dsr-requests.v1\0000\000{record.offset}")
    assert again.defect == Defect(ParkReason.ID_CONFLICT, "ce_id")
    assert (again.type, again.key) == (stored.type, stored.key)
    assert PROTECTOR.open(again.value, again.event_id.bytes) == record.value


TICK = ticked(UUID(int=8))
SUBMISSION = submitted(UUID(int=9))
CHANGE = PolicyChanged(
    change_id="2027-01-privacy",
    material=False,
    published_at=NOON,
    effective_on=date(2027, 1, 15),
    version="2027-01-15",
    summary={"en": "Shorter words"},
    url=HttpUrl("https://example.org/privacy"),
)

# What RFC 3339 (section 5.6) calls a time, and what it does not; with the moment that another reader gives.
TIMES = {
    "2026-11-24T09:12:33Z": datetime(2026, 11, 24, 9, 12, 33, tzinfo=UTC),
    "2026-11-24t09:12:33z": datetime(2026, 11, 24, 9, 12, 33, tzinfo=UTC),
    "2026-11-24T09:12:33.123456789+01:00": datetime(2026, 11, 24, 8, 12, 33, 123456, tzinfo=UTC),
    "1996-12-19T16:39:57-08:00": datetime(1996, 12, 20, 0, 39, 57, tzinfo=UTC),
    "8999-12-31T23:59:59Z": datetime(8999, 12, 31, 23, 59, 59, tzinfo=UTC),
    "1970-01-01T00:00:00Z": datetime(1970, 1, 1, tzinfo=UTC),
}
NO_TIMES = (
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "0000-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "9000-01-01T00:00:00Z",
    "2026-11-24T09:12:33",
    "2026-11-24 09:12:33Z",
    "2026-11-24T09:12Z",
    "2026-11-24T24:00:01Z",
    "2026-02-29T00:00:00Z",
    "2026-W48-2T09:12:33Z",
    "20261124T091233Z",
    "1764500000",
    "\u0662\u0660\u0662\u0666-11-24T09:12:33Z",
    "",
    1764500000,
    1764500000.5,
    True,
    ["2026-11-24T09:12:33Z"],
)


@pytest.mark.parametrize(("text", "moment"), TIMES.items(), ids=TIMES)
def test_a_time_of_rfc_3339_is_read(text: str, moment: datetime) -> None:
    """In the value and in the header alike, and in UTC from then on."""
    message = spoiled(TICK, with_field(TICK, as_of=text))
    assert isinstance(message, Message)
    assert isinstance(message.event, RetentionTicked)
    assert (message.event.as_of, message.event.as_of.tzinfo) == (moment, UTC)
    stored = take(record_with(TICK, ce_time=text.encode()), TICK.topic, WANTED, PROTECTOR)
    assert stored is not None
    assert (stored.defect, stored.event_at) == (None, moment)


@pytest.mark.parametrize("value", NO_TIMES, ids=str)
@pytest.mark.parametrize(
    ("event", "field"),
    [(TICK, "as_of"), (SUBMISSION, "received_at"), (CHANGE, "published_at")],
    ids=["as_of", "received_at", "published_at"],
)
def test_nothing_else_is_a_time(event: Event, field: str, value: object) -> None:
    """No number, no other notation, nothing near the ends of the calendar, where no period can be added."""
    assert spoiled(event, with_field(event, **{field: value})) == Defect(ParkReason.WRONG_VALUE, field)
    if isinstance(value, str):
        stored = take(record_with(event, ce_time=value.encode()), event.topic, WANTED, PROTECTOR)
        assert stored is not None
        assert stored.defect == Defect(ParkReason.WRONG_HEADER, "ce_time")


@pytest.mark.parametrize(
    ("event", "fields", "defect"),
    [
        (CHANGE, {"material": 1}, "material"),
        (CHANGE, {"material": "true"}, "material"),
        (CHANGE, {"material": None}, "material"),
        (CHANGE, {"effective_on": "2027-01-15T00:00:00Z"}, "effective_on"),
        (CHANGE, {"effective_on": 20270115}, "effective_on"),
        (CHANGE, {"effective_on": "2027-02-30"}, "effective_on"),
        (CHANGE, {"effective_on": "9999-12-31"}, "effective_on"),
        (CHANGE, {"effective_on": "0001-01-01"}, "effective_on"),
        (CHANGE, {"summary": {"en": "a\0b"}}, "summary.en"),
        (CHANGE, {"summary": {"en": 5}}, "summary.en"),
        (CHANGE, {"summary": {}}, "summary"),
        (CHANGE, {"summary": [["en", "x"]]}, "summary"),
        (CHANGE, {"url": "https://example.org/\r\nX: y"}, "url"),
        (CHANGE, {"url": " https://example.org/"}, "url"),
        (CHANGE, {"url": "https://example.org/\0"}, "url"),
        (CHANGE, {"url": "javascript:alert(1)"}, "url"),
        (SUBMISSION, {"request_id": 7}, "request_id"),
        (SUBMISSION, {"account_id": 4711}, "account_id"),
        (SUBMISSION, {"account_id": "a\0"}, "account_id"),
        (SUBMISSION, {"country": ["DE"]}, "country"),
        (SUBMISSION, {"channel": "settings\n"}, "channel"),
        (TICK, {"scope": 1}, None),
    ],
)
def test_types_are_those_of_the_schema(event: Event, fields: dict[str, object], defect: str | None) -> None:
    """No number for a truth value, no moment for a day, no text that PostgreSQL cannot hold, no address with line ends."""
    found = spoiled(event, with_field(event, **fields))
    assert isinstance(found, Defect)
    assert found.reason is ParkReason.WRONG_VALUE
    assert defect is None or found.field == defect


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"en":', '"en":"x","en":', "en"),
        ('"material":', '"material":true,"material":', "material"),
        ('"material":', '"m\\u0061terial":true,"material":', "material"),
        ('"url":', '"url":"https://example.org/x","url":', "url"),
    ],
)
def test_a_member_that_is_there_twice_is_refused(old: str, new: str, field: str) -> None:
    """Parsers differ in which of the two they take (RFC 7493, section 2.3), so a signature may cover the other one."""
    value = CHANGE.encode().decode().replace(old, new, 1).encode()
    assert spoiled(CHANGE, value) == Defect(ParkReason.WRONG_VALUE, field)


@pytest.mark.parametrize("text", ['"\\ud800"', '"\\udc00x"', "1e999", "NaN", "Infinity"])
def test_what_i_json_does_not_know_is_refused(text: str) -> None:
    """Lone surrogates and numbers beyond all bounds (RFC 7493, sections 2.1 and 2.2)."""
    value = CHANGE.encode().replace(b'"Shorter words"', text.encode())
    assert isinstance(spoiled(CHANGE, value), Defect)


ATTESTATION = {
    "method": "session",
    "acr": "mfa",
    "authenticated_at": "2026-11-24T09:12:02Z",
    "issuer": "accounts",
    "key_id": "k",
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize("last", LETTERS)
def test_base64url_has_one_form(last: str) -> None:
    """A last letter whose spare bits are not zero decodes to the same bytes (RFC 4648, section 3.5): it is refused."""
    signature = "A" * 85 + last
    decoded = urlsafe_b64decode(signature + "==")
    is_canonical = urlsafe_b64encode(decoded).rstrip(b"=").decode() == signature
    found = spoiled(SUBMISSION, with_field(SUBMISSION, attestation=ATTESTATION | {"signature": signature}))
    assert isinstance(found, Message) is is_canonical
    for text in ("A" * 65 + last, "A" * 66 + last, "A" * 67 + last):
        details = {"right": "rectification", "corrections": {"sealed": "hpke1." + text}}
        found = spoiled(SUBMISSION, with_field(SUBMISSION, right="rectification", details=details))
        padded = text + "=" * (-len(text) % 4)
        is_canonical = urlsafe_b64encode(urlsafe_b64decode(padded)).rstrip(b"=").decode() == text
        assert isinstance(found, Message) is is_canonical


def record_with(event: Event, **headers: bytes) -> "ConsumerRecord[bytes, bytes]":
    """The event's record with headers replaced."""
    return raw_record(event.topic, event.key().encode(), event.encode(), headers_of(event) | headers)


@pytest.mark.parametrize(
    ("event", "value", "defect"),
    [
        (GOOD, b"\xff", Defect(ParkReason.NOT_UTF8, "value")),
        (GOOD, GOOD.encode()[:-2] + b'\xc3"}', Defect(ParkReason.NOT_UTF8, "value")),
        (GOOD, b"", Defect(ParkReason.NOT_JSON, "value")),
        (GOOD, SECRET.encode(), Defect(ParkReason.NOT_JSON, "value")),
        (GOOD, GOOD.encode()[:-1], Defect(ParkReason.NOT_JSON, "value")),
        (GOOD, b"[" * 100_000, Defect(ParkReason.NOT_JSON, "value")),
        (GOOD, b'"' + SECRET.encode() + b'"', Defect(ParkReason.WRONG_VALUE, "value")),
        (GOOD, b"null", Defect(ParkReason.WRONG_VALUE, "value")),
        (GOOD, b"{}", Defect(ParkReason.MISSING_FIELD, "request_id")),
        (GOOD, with_field(GOOD, due_on=SECRET), Defect(ParkReason.WRONG_VALUE, "due_on")),
        (GOOD, with_field(GOOD, extended_at="2026-11-24T09:12:33"), Defect(ParkReason.WRONG_VALUE, "extended_at")),
        (GOOD, with_field(GOOD, request_id=str(UUID(int=1))), Defect(ParkReason.WRONG_KEY, "request_id")),
        (TICK, with_field(TICK, note=SECRET), Defect(ParkReason.UNKNOWN_FIELD, "note")),
        (TICK, with_field(TICK, **{SECRET: 1}), Defect(ParkReason.UNKNOWN_FIELD, "(unprintable name)")),
        (TICK, with_field(TICK, **{"x" * 81: 1}), Defect(ParkReason.UNKNOWN_FIELD, "(unprintable name)")),
        (SUBMISSION, with_field(SUBMISSION, name=SECRET), Defect(ParkReason.UNKNOWN_FIELD, "name")),
        (SUBMISSION, with_field(SUBMISSION, account_id="mallory"), Defect(ParkReason.WRONG_KEY, "account_id")),
        (
            SUBMISSION,
            with_field(SUBMISSION, details={"right": "portability"}),
            Defect(ParkReason.WRONG_VALUE, "details"),
        ),
        (
            SUBMISSION,
            with_field(SUBMISSION, right=SECRET, details={"right": "access"}),
            Defect(ParkReason.WRONG_VALUE, "right"),
        ),
        (SUBMISSION, with_field(SUBMISSION, account_id="ada lovelace"), Defect(ParkReason.WRONG_VALUE, "account_id")),
    ],
)
def test_what_is_wrong_is_named_and_never_shown(event: Event, value: bytes, defect: Defect) -> None:
    """Each fault has its reason and the field's name, never the value."""
    found = spoiled(event, value)
    assert found == defect
    assert SECRET not in repr(found)


def test_the_fleets_own_topics_ignore_what_is_new() -> None:
    """A field that a newer producer added does no harm; the rest is understood."""
    message = spoiled(GOOD, with_field(GOOD, shoe_size=43))
    assert isinstance(message, Message)
    assert message.event == GOOD


@pytest.mark.parametrize("event", [GOOD, SUBMISSION], ids=["open", "sensitive"])
@pytest.mark.parametrize("key", [b"", b"another", b"\xff"])
def test_the_key_must_be_the_events_own(event: Event, key: bytes) -> None:
    """A record under a key that its fields do not give would break the order of that key."""
    assert spoiled(event, event.encode(), key) == Defect(ParkReason.WRONG_KEY, type(event).key_field)


@pytest.mark.parametrize("event", [GOOD, TICK, SUBMISSION], ids=lambda event: event.type)
def test_a_known_type_on_a_wrong_topic_is_parked(event: Event) -> None:
    """Who may write to one topic cannot speak for the owner of another, nor lose a message there that nobody handles."""
    wrong = topics.POLICY_CHANGES
    headers = GOOD_HEADERS | {"ce_type": event.type.encode()}
    stored = take(raw_record(wrong, event.key().encode(), event.encode(), headers), wrong, WANTED, PROTECTOR)
    assert stored is not None
    assert stored.defect == Defect(ParkReason.UNKNOWN_TYPE, "ce_type")
    assert parsed(stored, type=event.type) == stored.defect


@pytest.mark.parametrize(
    ("ahead", "refused"), [(timedelta(minutes=5), False), (timedelta(minutes=5, microseconds=1), True)]
)
def test_the_future_is_refused_beyond_the_tolerance(ahead: timedelta, refused: bool) -> None:  # noqa: FBT001 -- a column of the table
    """A time ahead of the own clock by more than the tolerance is refused: nobody gets things done early by lying."""
    found = parsed(taken(extended(new_id(), 1), at=NOON + ahead))
    assert (found == Defect(ParkReason.FROM_THE_FUTURE, "ce_time")) is refused


def test_rows_of_another_version_are_parked() -> None:
    """A row whose type or topic this version does not know, as an operator's retry can bring back, is told, not stumbled over."""
    stored = taken(extended(new_id(), 1))
    unknown = Defect(ParkReason.UNKNOWN_TYPE, "ce_type")
    assert parsed(stored, type="unreadable") == unknown
    assert parsed(stored, topic="request-intake.requests.v9") == unknown


def test_altered_rows_are_no_fault_of_the_message() -> None:
    """Bytes that do not open are the database's or the key ring's fault: an error, so that the message stays."""
    stored = taken(submitted(new_id()))
    with pytest.raises(Exception, match="do not open"):
        parsed(stored, value=stored.value[:-1] + bytes([stored.value[-1] ^ 1]))


names = st.sampled_from([*GOOD_HEADERS, "traceparent"]) | st.text(max_size=20)
values = st.none() | st.binary(max_size=60) | st.sampled_from(list(GOOD_HEADERS.values()))


@given(
    st.lists(st.tuples(names, values)),
    st.booleans(),
    st.none() | st.binary(max_size=100),
    st.none() | st.binary(max_size=100),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([topics.REQUESTS, topics.DSR_REQUESTS, topics.RETENTION_TICKS]),
)
def test_nothing_breaks_the_way_in(
    extra: list[tuple[str, bytes]],
    complete: bool,  # noqa: FBT001 -- drawn
    key: bytes | None,
    value: bytes | None,
    timestamp: int,
    topic: Topic,
) -> None:
    """Whatever a record holds, it is stored in a form that PostgreSQL takes, and read to an event or a defect."""
    headers = [*GOOD_HEADERS.items(), *extra] if complete else extra
    record = raw_record(topic, key, value, headers, timestamp=timestamp)
    stored = take(record, topic, WANTED, PROTECTOR)
    if stored is None:
        return
    texts = [column for column in stored if isinstance(column, str)]
    assert not any("\0" in text for text in texts)
    assert 0 <= stored.lane < 16
    if stored.defect is None:
        assert isinstance(parsed(stored), Defect | Message)
