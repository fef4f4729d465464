"""Which request an outsider's message is about, whatever bytes it has."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from habeas.chassis.request_ids import request_of
from habeas.contracts.topics import DSR_REQUESTS
from tests.support.delivery import headers_of, new_id, raw_record, record_of, submitted

ID = UUID("01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3e")


def about(value: bytes, **headers: bytes) -> UUID | None:
    """What a record with this value and these headers is about."""
    return request_of(raw_record(DSR_REQUESTS, b"acc", value, dict(headers)))


def test_the_value_says_it_else_the_subject() -> None:
    """A value that is broken, or without an id, leaves the header; without both nothing is known."""
    other = new_id()
    assert request_of(record_of(submitted(other))) == other
    assert about(f'{{"request_id": "{ID}", "right": 7}}'.encode(), ce_subject=str(other).encode()) == ID
    assert about(b"{garbage", ce_subject=str(ID).encode()) == ID
    assert about(b'{"request_id": 7}', ce_subject=str(ID).encode()) == ID
    assert about(b"[]", ce_subject=b"somebody@example.org") is None
    assert about(b"{garbage") is None


@given(
    st.binary(max_size=300),
    st.dictionaries(st.sampled_from(["ce_subject", "ce_id"]), st.none() | st.binary(max_size=60)),
)
def test_no_bytes_raise(value: bytes, headers: dict[str, bytes | None]) -> None:
    """Whatever a stranger writes."""
    request_of(raw_record(DSR_REQUESTS, None, value, {**headers_of(submitted(ID)), **headers}))
