"""The only source of "now".

Deadlines and retention are decided by time, so time is an argument everywhere: code takes a `Clock`, tests move a
`FakeClock`.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol, final


class Clock(Protocol):
    """Tells the time of day and measures durations."""

    def now(self) -> datetime:
        """Give the time of day, aware, in UTC. May step when the machine's clock is corrected."""
        ...

    def monotonic(self) -> float:
        """Give seconds since some fixed moment; never steps back. Only differences mean anything."""
        ...


@final
class SystemClock:
    """The machine's clock, moved by a constant offset in fault tests (production settings refuse an offset)."""

    __slots__ = ("__weakref__", "_offset")

    def __init__(self, *, offset_s: float = 0.0) -> None:
        """Make a clock that runs `offset_s` seconds ahead of the machine's (behind when negative)."""
        self._offset = timedelta(seconds=offset_s) if offset_s else None

    def now(self) -> datetime:
        """Give the machine's time of day in UTC, plus the offset."""
        now = datetime.now(UTC)  # the one place that asks the machine
        return now if self._offset is None else now + self._offset

    def monotonic(self) -> float:
        """Give the machine's monotonic seconds; the offset does not apply to durations."""
        return time.monotonic()


@final
class FakeClock:
    """A clock that stands still until a test moves it."""

    __slots__ = ("__weakref__", "_monotonic", "_now")

    def __init__(self, now: datetime) -> None:
        """Stand at `now`, which must be aware."""
        self._now = _aware(now)
        self._monotonic = 0.0

    def now(self) -> datetime:
        """Give the time at which the clock stands."""
        return self._now

    def monotonic(self) -> float:
        """Give the seconds by which the clock was advanced; `set` does not count, as on a real machine."""
        return self._monotonic

    def advance(self, by: timedelta) -> datetime:
        """Let time pass: both the time of day and the monotonic seconds move. Negative durations are refused."""
        if by < timedelta(0):
            message = "time passes forwards; use set() to step the time of day back"
            raise ValueError(message)
        self._now += by
        self._monotonic += by.total_seconds()
        return self._now

    def set(self, now: datetime) -> None:
        """Step the time of day to `now`, in either direction, as a clock correction does; no time passes."""
        self._now = _aware(now)


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        message = "a naive datetime names no moment; give one with a time zone"
        raise ValueError(message)
    return moment.astimezone(UTC)
