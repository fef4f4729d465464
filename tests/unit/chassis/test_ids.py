"""Identifiers; vectors from RFC 9562, appendix A."""

import copy
import os
import uuid
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from habeas.chassis.clock import FakeClock, SystemClock
from habeas.chassis.ids import name_based, time_of, uuid7

RFC_A6 = UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
RFC_A6_TIME = datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)  # Tuesday, February 22, 2022 2:22:22.00 PM GMT-05:00
RFC_A4 = UUID("2ed6657d-e927-568b-95e1-2665a8aea6a2")  # the name www.example.com in the name space for DNS


def test_time_of_the_rfcs_vector() -> None:
    """The time in the vector of RFC 9562 A.6 is read."""
    assert time_of(RFC_A6) == RFC_A6_TIME


def test_ids_at_the_rfcs_time_start_as_the_rfcs() -> None:
    """At the time of RFC 9562 A.6 an id starts with the vector's 48 bits, its version and its variant."""
    identifier = uuid7(FakeClock(RFC_A6_TIME))
    assert str(identifier)[:15] == "017f22e2-79b0-7"
    assert (identifier.version, identifier.variant) == (7, uuid.RFC_4122)


def test_ids_are_ordinary() -> None:
    """An id is a UUID like any other: equal, hashed, copied and written as one made from its number."""
    identifier = uuid7(FakeClock(RFC_A6_TIME))
    same = UUID(int=identifier.int)
    assert (identifier, hash(identifier), str(identifier)) == (same, hash(same), str(same))
    assert copy.copy(identifier) == same
    assert identifier.is_safe is same.is_safe


def test_milliseconds_are_exact() -> None:
    """The last microsecond of a millisecond still belongs to it: nothing is rounded by way of floats."""
    clock = FakeClock(datetime(2026, 11, 24, 4, 2, 59, 999_999, tzinfo=UTC))
    assert time_of(uuid7(clock)) == datetime(2026, 11, 24, 4, 2, 59, 999_000, tzinfo=UTC)


def test_ids_ascend_within_a_millisecond() -> None:
    """Ids of one millisecond ascend and differ, and all say that millisecond."""
    clock = FakeClock(RFC_A6_TIME)
    made = [uuid7(clock) for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {time_of(each) for each in made} == {RFC_A6_TIME}


def test_ids_ascend_on_the_machines_clock() -> None:
    """Ids made as fast as possible ascend."""
    clock = SystemClock()
    made = [uuid7(clock) for _ in range(10_000)]
    assert made == sorted(set(made))


def test_ids_ascend_over_a_small_step_back() -> None:
    """A clock that is corrected by some seconds does not make ids go back."""
    clock = FakeClock(RFC_A6_TIME)
    before = uuid7(clock)
    clock.set(RFC_A6_TIME - timedelta(seconds=9))
    assert uuid7(clock) > before


def test_a_clock_far_ahead_is_not_believed_for_ever() -> None:
    """After a reading years ahead was corrected, ids have the right time again."""
    clock = FakeClock(RFC_A6_TIME + timedelta(days=3650))
    uuid7(clock)
    clock.set(RFC_A6_TIME)
    assert time_of(uuid7(clock)) == RFC_A6_TIME


def test_a_full_counter_moves_on_to_the_next_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the counter's 42 bits are used up, ids still ascend (RFC 9562 section 6.2, counter rollover)."""
    clock = FakeClock(RFC_A6_TIME)
    monkeypatch.setattr("habeas.chassis.ids.secrets.randbits", lambda _bits: (1 << 42) - 2)
    made = [uuid7(clock) for _ in range(4)]
    assert made == sorted(set(made))
    assert [time_of(each) for each in made[:2]] == [RFC_A6_TIME] * 2
    assert [time_of(each) for each in made[2:]] == [RFC_A6_TIME + timedelta(milliseconds=1)] * 2


def test_the_lower_counter_carries_into_the_upper(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter goes on across the version and variant bits between its two parts."""
    clock = FakeClock(RFC_A6_TIME)
    monkeypatch.setattr("habeas.chassis.ids.secrets.randbits", lambda _bits: (5 << 30) | ((1 << 30) - 1))
    first, second = uuid7(clock), uuid7(clock)
    assert first < second
    assert [str(each)[15:18] for each in (first, second)] == ["005", "006"]
    assert [each.variant for each in (first, second)] == [uuid.RFC_4122] * 2


def test_processes_do_not_share_random_bits() -> None:
    """A forked child and its parent make different ids from there on."""
    clock = FakeClock(RFC_A6_TIME)
    uuid7(clock)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, uuid7(clock).bytes)
        os._exit(0)
    os.waitpid(child, 0)
    assert UUID(bytes=os.read(reading, 16)) != uuid7(clock)
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("other", ["2ed6657d-e927-568b-95e1-2665a8aea6a2", "919108f7-52d1-4320-9bac-f847db4148a8"])
def test_other_versions_tell_no_time(other: str) -> None:
    """Only version 7 carries a time that we read (vectors A.4 and A.3)."""
    assert time_of(UUID(other)) is None


def test_a_time_that_no_calendar_has_is_none() -> None:
    """48 bits reach past year 9999; such an id was not made by a clock."""
    assert time_of(UUID("ffffffff-ffff-7fff-bfff-ffffffffffff")) is None


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001 -- zoned by the strategy
def test_every_time_comes_back(moment: datetime) -> None:
    """An id tells the millisecond of the clock that made it, for any time."""
    expected = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    assert time_of(uuid7(FakeClock(moment))) == expected


def test_name_based_is_the_rfcs() -> None:
    """One part gives the vector of RFC 9562 A.4."""
    assert name_based(uuid.NAMESPACE_DNS, "www.example.com") == RFC_A4


def test_names_of_several_parts_never_meet() -> None:
    """Where one part ends and the next begins counts."""
    made = {name_based(uuid.NAMESPACE_DNS, *parts) for parts in (("a", "bc"), ("ab", "c"), ("abc",), ("a", "b", "c"))}
    assert len(made) == 4


def test_parts_may_not_hold_the_separator() -> None:
    """A part with NUL could imitate two."""
    with pytest.raises(ValueError, match="NUL"):
        name_based(uuid.NAMESPACE_DNS, "a\0b")
