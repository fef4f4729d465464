"""Identifiers: time-ordered and random (UUIDv7), or derived from names (UUIDv5); RFC 9562."""

import os
import secrets
from array import array
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final
from uuid import UUID, SafeUUID, uuid5
from weakref import WeakKeyDictionary

from habeas.chassis.clock import Clock

_RAND_A_MAX: Final = 0xFFF  # all 12 bits of the field
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

_VERSION: Final = 7
_VERSION_AND_VARIANT: Final = _VERSION << 76 | 0b10 << 62
_COUNTER_BITS: Final = 42  # rand_a (12 bits) and the first 30 bits of rand_b
_COUNTER_LOW_BITS: Final = 30
_COUNTER_LOW_MAX: Final = (1 << _COUNTER_LOW_BITS) - 1
_TAIL_BITS: Final = 32
_RANDOM_BYTES: Final = 2048  # asked for at once: a call of the kernel for each id would cost more than the id

# A clock stepped back by less than this is waited out by counting on; one that was further ahead was wrong and is not
# believed any more.
_STEP_BACK_MAX_MS: Final = 10_000


class _Sequence:
    """Ids of one clock: the time of the last one, and where its counter stands."""

    __slots__ = ("counter_low", "milliseconds", "prefix")

    def __init__(self) -> None:
        self.milliseconds = -1
        self.prefix = 0  # the id's bits down to the counter's upper 12, version and variant among them
        self.counter_low = 0

    def start(self, milliseconds: int) -> None:
        """Begin a millisecond with a random counter whose highest bit is clear, so that there is room to count."""
        seed = secrets.randbits(_COUNTER_BITS - 1)
        self._place(milliseconds, seed)

    def carry(self) -> None:
        """Go on after the lower bits of the counter ran out; a full counter moves the id's time on by a millisecond."""
        upper = (self.prefix >> 64) & _RAND_A_MAX
        if upper == _RAND_A_MAX:
            self._place(self.milliseconds + 1, 0)
        else:
            self._place(self.milliseconds, (upper + 1) << _COUNTER_LOW_BITS)

    def _place(self, milliseconds: int, counter: int) -> None:
        self.milliseconds = milliseconds
        self.prefix = milliseconds << 80 | (counter >> _COUNTER_LOW_BITS) << 64 | _VERSION_AND_VARIANT
        self.counter_low = counter & _COUNTER_LOW_MAX


class _Tails:
    """Random numbers of 32 bits from the operating system, by the hundred; a forked child never reuses its parent's."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: list[int] = []
        os.register_at_fork(after_in_child=self._forget)

    def take(self) -> int:
        if not self._left:
            self._left = array("I", os.urandom(_RANDOM_BYTES)).tolist()
        return self._left.pop()

    def _forget(self) -> None:
        self._left = []


# Filling the two slots is what UUID(int=…) ends in; without the choice between its seven arguments it takes a third.
_set_int: Final[Callable[[UUID, int], None]] = vars(UUID)["int"].__set__
_set_is_safe: Final[Callable[[UUID, SafeUUID], None]] = vars(UUID)["is_safe"].__set__

_lock = Lock()
_sequences: "WeakKeyDictionary[Clock, _Sequence]" = WeakKeyDictionary()
_tails = _Tails()


def uuid7(clock: Clock) -> UUID:
    """Make a UUIDv7 (RFC 9562 section 5.7) of the clock's millisecond.

    Ids made with one clock in one process ascend, also inside a millisecond and while the clock is stepped back by up
    to ten seconds: a counter of 42 bits, seeded with 41 random ones each millisecond, follows the time (section 6.2,
    method 1), and 32 random bits follow the counter. Safe to call from several threads.
    """
    return uuid7s(clock, 1)[0]


def uuid7s(clock: Clock, count: int) -> list[UUID]:
    """Make several ids as ``uuid7`` does, ascending, for a third of the price each: the clock is asked once."""
    now = (clock.now() - _EPOCH) // _MILLISECOND
    made = []
    with _lock:
        sequence = _sequences.get(clock)
        if sequence is None:
            sequence = _sequences[clock] = _Sequence()
        for _ in range(count):
            if now > sequence.milliseconds or sequence.milliseconds - now > _STEP_BACK_MAX_MS:
                sequence.start(now)
            elif sequence.counter_low == _COUNTER_LOW_MAX:
                sequence.carry()
            else:
                sequence.counter_low += 1
            identifier = UUID.__new__(UUID)
            _set_int(identifier, sequence.prefix | sequence.counter_low << _TAIL_BITS | _tails.take())
            _set_is_safe(identifier, SafeUUID.unknown)
            made.append(identifier)
    return made


def time_of(identifier: UUID) -> datetime | None:
    """Give the millisecond in which a UUIDv7 was made; None for every other version or variant."""
    if identifier.version != _VERSION:
        return None
    try:
        return _EPOCH + (identifier.int >> 80) * _MILLISECOND
    except OverflowError:  # the 48 bits reach beyond year 9999; such an id was not made by a clock
        return None


def name_based(namespace: UUID, *parts: str | int | UUID) -> UUID:
    """Derive the same UUIDv5 (RFC 9562 section 5.5) from the same namespace and parts, everywhere and for ever.

    One part is hashed as it is; several are joined by NUL, which no part may hold, so that different parts never meet
    in one name.
    """
    if not parts:
        message = "a name needs at least one part"
        raise ValueError(message)
    names = [str(part) for part in parts]
    if any("\0" in name for name in names):
        message = "a part of a name may not hold NUL"
        raise ValueError(message)
    return uuid5(namespace, "\0".join(names))
