"""The clock."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from habeas.chassis.clock import FakeClock, SystemClock

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_system_clock_is_the_machines() -> None:
    """Without an offset the time of day is the machine's, in UTC."""
    before, now, after = time.time(), SystemClock().now(), time.time()  # noqa: TID251 -- the thing to compare with
    assert before - 0.001 <= now.timestamp() <= after + 0.001
    assert now.utcoffset() == timedelta(0)


def test_offset_moves_time_of_day_only() -> None:
    """A fault test moves the time of day by the offset; durations stay real."""
    clock = SystemClock(offset_s=-3600)
    assert timedelta(minutes=59) < SystemClock().now() - clock.now() < timedelta(minutes=61)
    assert abs(clock.monotonic() - time.monotonic()) < 60


def test_fake_clock_stands_still() -> None:
    """Nobody moves a fake clock but the test."""
    clock = FakeClock(NOON)
    assert (clock.now(), clock.now()) == (NOON, NOON)
    assert clock.monotonic() == clock.monotonic()


def test_fake_clock_advances_both() -> None:
    """Time that passes moves the time of day and the monotonic seconds alike."""
    clock = FakeClock(NOON)
    before = clock.monotonic()
    clock.advance(timedelta(days=1, seconds=1))
    assert clock.now() == datetime(2026, 11, 25, 12, 0, 1, tzinfo=UTC)
    assert clock.monotonic() - before == 86_401


def test_fake_clock_steps_back_without_time_passing() -> None:
    """A correction of the clock is no passing of time."""
    clock = FakeClock(NOON)
    before = clock.monotonic()
    clock.set(datetime(2026, 11, 24, 12, tzinfo=timezone(timedelta(hours=2))))
    assert clock.now() == datetime(2026, 11, 24, 10, tzinfo=UTC)
    assert clock.monotonic() == before


def test_time_does_not_pass_backwards() -> None:
    """Advancing by a negative duration is a mistake of the test."""
    with pytest.raises(ValueError, match="forwards"):
        FakeClock(NOON).advance(timedelta(seconds=-1))


def test_naive_times_are_refused() -> None:
    """A time without a zone names no moment."""
    with pytest.raises(ValueError, match="naive"):
        FakeClock(datetime(2026, 11, 24, 12))  # noqa: DTZ001 -- naive on purpose
