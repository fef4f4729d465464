"""The headers of a record; names and encoding as in CloudEvents' Kafka protocol binding 1.0, section 3.2."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from habeas.contracts.envelope import BadEnvelope, Envelope, decode_headers, encode_headers
from habeas.contracts.vocabulary import ParkReason

EVENT_ID = UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")  # RFC 9562, A.6
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"  # W3C Trace Context, section 3.2.3
GOOD = {
    "ce_specversion": b"1.0",
    "ce_id": b"017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
    "ce_type": b"request.accepted",
    "ce_source": b"request-intake",
    "ce_time": b"2026-11-24T09:12:33.000123Z",
    "ce_subject": b"018f0000-0000-7000-8000-000000000001",
    "content-type": b"application/json",
    "traceparent": TRACE.encode(),
}
ENVELOPE = Envelope(
    EVENT_ID,
    "request.accepted",
    "request-intake",
    datetime(2026, 11, 24, 9, 12, 33, 123, tzinfo=UTC),
    "018f0000-0000-7000-8000-000000000001",
    TRACE,
)


def test_headers_are_cloudevents() -> None:
    """An envelope becomes exactly the headers that the binding names, written by hand here."""
    assert dict(encode_headers(ENVELOPE)) == GOOD
    assert decode_headers(GOOD.items()) == ENVELOPE


def test_times_are_written_in_utc() -> None:
    """A time of any zone goes out as UTC, and any zone is understood."""
    elsewhere = ENVELOPE.at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    again = Envelope(EVENT_ID, "request.accepted", "request-intake", elsewhere, ENVELOPE.subject, TRACE)
    assert dict(encode_headers(again)) == GOOD
    assert decode_headers((GOOD | {"ce_time": b"2026-11-24T14:42:33.000123+05:30"}).items()) == ENVELOPE


TIMES = st.datetimes(datetime(1970, 1, 1), datetime(8999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 -- bounds have no zone


@given(st.uuids(), st.text(), st.text(), TIMES, st.text(), st.none() | st.just(TRACE))
def test_what_is_written_is_read(
    event_id: UUID, kind: str, source: str, at: datetime, subject: str, trace: str | None
) -> None:
    """Every envelope comes back from its headers."""
    envelope = Envelope(event_id, kind, source, at, subject, trace)
    assert decode_headers(encode_headers(envelope)) == envelope


@pytest.mark.parametrize("name", ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time"])
@pytest.mark.parametrize(
    ("value", "reason"), [(None, ParkReason.MISSING_HEADER), (b"\xff\xfe", ParkReason.WRONG_HEADER)]
)
def test_a_header_without_text_is_named(name: str, value: bytes | None, reason: ParkReason) -> None:
    """A header that is absent, null or not UTF-8 is named, and the reason tells which of them."""
    with pytest.raises(BadEnvelope) as raised:
        decode_headers((GOOD | {name: value}).items())
    assert (raised.value.reason, raised.value.field) == (reason, name)
    if value is None:
        with pytest.raises(BadEnvelope) as raised:
            decode_headers((key, text) for key, text in GOOD.items() if key != name)
        assert (raised.value.reason, raised.value.field) == (reason, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_specversion", b"0.3"),
        ("ce_specversion", b""),
        ("ce_id", b"7"),
        ("ce_id", b""),
        ("ce_time", b"yesterday"),
        ("ce_time", b"2026-11-24T09:12:33"),
        ("ce_time", b"0001-01-01T00:00:00+14:00"),
        ("ce_time", b"9999-12-31T23:59:59-14:00"),
    ],
)
def test_a_wrong_header_is_named_and_not_shown(name: str, value: bytes) -> None:
    """A header that does not mean what it should is named; its value is in no message."""
    with pytest.raises(BadEnvelope) as raised:
        decode_headers((GOOD | {name: value}).items())
    assert (raised.value.reason, raised.value.field) == (ParkReason.WRONG_HEADER, name)
    assert str(raised.value) == f"wrong_header: {name}"
    assert raised.value.__cause__ is None


def test_the_subject_may_be_absent() -> None:
    """CloudEvents makes the subject optional."""
    assert decode_headers((key, text) for key, text in GOOD.items() if key != "ce_subject").subject == ""


@pytest.mark.parametrize(
    "trace",
    [
        b"",
        b"\x00",
        b"ada.lovelace@example.org",
        b"\xff" * 55,
        TRACE.upper().encode(),
        TRACE.encode()[:-1],
        TRACE.encode() + b"\x00",
        b"x" * 100_000,
    ],
)
def test_what_is_no_trace_is_dropped(trace: bytes) -> None:
    """A trace context that is not one costs neither the message nor a place in the database."""
    assert decode_headers((GOOD | {"traceparent": trace}).items()) == ENVELOPE.within(None)


@given(st.lists(st.tuples(st.sampled_from([*GOOD, "x"]), st.none() | st.binary(max_size=40))))
def test_no_headers_break_the_reader(headers: list[tuple[str, bytes | None]]) -> None:
    """Whatever a stranger writes gives an envelope or a named fault."""
    faults = []
    try:
        decode_headers([*GOOD.items(), *headers])
    except BadEnvelope as error:
        faults.append(error.field)
    assert set(faults) <= set(GOOD)
