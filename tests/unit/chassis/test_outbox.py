"""Lanes of keys, and rows of the outbox."""

import zlib
from datetime import date
from functools import reduce
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from habeas.chassis import outbox
from habeas.chassis.clock import FakeClock
from habeas.chassis.errors import EventTooLarge
from habeas.chassis.outbox import LANES, VALUE_BYTES_MAX, lane_of
from habeas.contracts.audit import Action, AuditFact
from habeas.contracts.platform import PolicyChanged
from tests.support.delivery import NOON, extended, ticked

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
REQUEST = UUID("018f0000-0000-7000-8000-000000000001")


def crc32(data: bytes) -> int:
    """CRC-32 of ISO 3309 bit by bit, as RFC 1952 section 8 describes it: another implementation than the one used."""

    def bit(register: int, _: int) -> int:
        return register >> 1 ^ (0xEDB88320 if register & 1 else 0)

    register = 0xFFFFFFFF
    for byte in data:
        register = reduce(bit, range(8), register ^ byte)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("key", "lane"),
    [
        (b"", 0),  # CRC-32 of nothing is 0
        (b"123456789", 6),  # the check value of the CRC catalogue, CBF43926
        (b"a", 3),  # E8B7BE43
        (b"018f0000-0000-7000-8000-000000000001", 10),  # FB48602A, by gzip
    ],
)
def test_lanes_never_change(key: bytes, lane: int) -> None:
    """The lane of a key is the same in every process and version, or a key's messages would be worked on twice at once."""
    assert lane_of(key) == lane


@given(st.binary(max_size=200))
def test_lanes_are_crc32(key: bytes) -> None:
    """Every key's lane is its CRC-32 by sixteen, by an implementation of our own."""
    assert lane_of(key) == crc32(key) % LANES
    assert lane_of(key) == zlib.crc32(key) & 15


def test_keys_spread_over_lanes() -> None:
    """A thousand requests use every lane, none more than twice its share."""
    lanes = [lane_of(str(UUID(int=number)).encode()) for number in range(1000)]
    assert max(lanes.count(lane) for lane in range(LANES)) < 2 * 1000 / LANES
    assert set(lanes) == set(range(LANES))


class Statements:
    """A transaction that only writes down what it is asked to run."""

    def __init__(self) -> None:
        self.pending = outbox.Pending()
        self.now = NOON
        self.ran: list[tuple[object, ...]] = []

    async def execute(self, *args: object) -> str:
        """Note a statement."""
        self.ran.append(args)
        return "INSERT 0 0"


async def write(tx: Statements) -> None:
    """Write what was collected."""
    await outbox.write(cast("Any", tx), FakeClock(NOON))


async def test_nothing_costs_nothing() -> None:
    """A transaction without events and facts runs no statement for them."""
    tx = Statements()
    await write(tx)
    assert tx.ran == []


async def test_one_statement_for_all_events_and_one_for_all_facts() -> None:
    """However many events and facts there are, each kind takes one statement, in the order of emission."""
    tx = Statements()
    events = [extended(REQUEST, number) for number in range(100)]
    tx.pending.add_events(events, TRACE)
    tx.pending.facts += [(AuditFact(Action.REQUEST_ACCEPTED), None)] * 100
    await write(tx)
    added, facts = tx.ran
    _, day, at, ids, lanes, names, keys, kinds, subjects, traces, values = cast("Any", added)
    assert (day, at) == (date(2026, 11, 24), NOON)
    assert list(ids) == sorted(set(ids))
    assert list(values) == [event.encode() for event in events]
    assert set(zip(names, keys, kinds, subjects, traces, lanes, strict=True)) == {
        (
            "request-intake.requests.v1",
            str(REQUEST),
            "request.extended",
            str(REQUEST),
            TRACE,
            crc32(str(REQUEST).encode()) % 16,
        )
    }
    assert len(cast("Any", facts)[3]) == 100


async def test_the_key_of_an_event_is_its_own_field() -> None:
    """The record key is the field that the event names."""
    tx = Statements()
    tx.pending.add_events([ticked(REQUEST)], None)
    await write(tx)
    assert cast("Any", tx.ran[0])[6] == (str(REQUEST),)


async def test_an_event_too_large_for_a_record_is_not_taken() -> None:
    """An event that Kafka would refuse never reaches the outbox, nor what is emitted with it; what was emitted before stays."""
    tx = Statements()
    whole = PolicyChanged(
        change_id="c1",
        material=True,
        published_at=NOON,
        effective_on=date(2027, 1, 1),
        version="2",
        summary={f"en-x{number:04d}": "é" * 4000 for number in range(VALUE_BYTES_MAX // 8000 + 1)},
        url=cast("Any", "https://example.org/policy"),
    )
    tx.pending.add_events([ticked(REQUEST)], None)
    with pytest.raises(EventTooLarge, match=r"an event of type policy\.changed has \d+ bytes"):
        tx.pending.add_events([ticked(REQUEST), whole], None)
    await write(tx)
    assert cast("Any", tx.ran[0])[6] == (str(REQUEST),)
