"""Work on many items at once that reaches outside of the database: an item that fails delays nobody but itself.

A batch is tried as a whole, which is fast and nearly always succeeds. A part that fails is divided until the item that fails is alone, all
in the same round: what succeeds is settled at once, and what fails alone is settled with its own failure. Nothing but the limits of time
ends a round early, and a server that is away, which shows when a few tries in a row say so.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final, Protocol, TypeVar, runtime_checkable

from habeas.chassis import log
from habeas.chassis.database import TRANSIENT
from habeas.chassis.errors import Invariant
from habeas.contracts.vocabulary import StuckReason

T = TypeVar("T")
R = TypeVar("R")

_AWAY_IN_A_ROW: Final = 3
_DOUBLINGS_MAX: Final = 16


@runtime_checkable
class Explained(Protocol):
    """An error that knows why; ``is_shared`` when it speaks of a server, and perhaps of no item at all."""

    because: StuckReason
    store: str | None
    table: str | None
    is_shared: bool


class TooSlow(Exception):
    """A try took longer than its limit and was given up."""

    because = StuckReason.STORE_UNAVAILABLE
    store: str | None = None
    table: str | None = None
    is_shared = False


class RoundOver(TooSlow):
    """The time of a round was over before an item was tried apart from others that failed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item failed. An error that does not explain itself is ``unexpected``."""

    error: Exception
    reason: StuckReason
    store: str | None = None
    table: str | None = None
    is_shared: bool = False

    @property
    def is_of_size(self) -> bool:
        """Whether the item, tried alone, took longer than its limit."""
        return type(self.error) is TooSlow

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """Take reason and place from the error."""
        if isinstance(error, Explained):
            return cls(error, error.because, error.store, error.table, error.is_shared)
        return cls(error, StuckReason.UNEXPECTED)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one try may take, in seconds: ``one_s`` and ``each_s`` for each item more; and ``round_s`` for a round of tries."""

    one_s: float
    each_s: float = 0.0
    round_s: float = 60.0
    longest_s: float = 21_600.0

    def of(self, items: int) -> float:
        """Return the limit of one try."""
        return self.one_s + self.each_s * (items - 1)

    def after(self, attempts: int) -> "Limits":
        """Return the limits of an attempt that comes after this many: twice as long with each, bounded."""
        return replace(self, one_s=min(self.longest_s, self.one_s * (1 << min(attempts, _DOUBLINGS_MAX))))


@dataclass(frozen=True, slots=True)
class Lane:
    """Work of one size: how much of it is tried at once, and for how long."""

    is_large: bool
    items_max: int
    limits: Limits


async def try_together(
    items: Sequence[T],
    work: Callable[[Sequence[T]], Awaitable[R]],
    done: Callable[[Sequence[T], R], Awaitable[None]],
    failed: Callable[[Sequence[T], Failure], Awaitable[None]],
    limits: Limits,
    *,
    is_shared: Callable[[Failure], bool] = attrgetter("is_shared"),
) -> None:
    """Work on all items at once, and call ``done`` or ``failed`` once for each of them.

    ``work`` may be given any part of the items again after it failed or was cancelled, so it must be idempotent. What ``done`` raises
    counts as a failure of the part, but for trouble with the own database, which leaves the rest of the round unsettled, as an
    ``Invariant`` does. When a few tries in a row fail for what ``is_shared``, the rest fails for the same without being tried.
    """
    if not items:
        return
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + limits.round_s
    parts = deque([tuple(items)])
    away = 0
    while parts:
        part = parts.popleft()
        failure = await _try(part, work, done, limits.of(len(part)))
        if failure is None:
            away = 0
            continue
        away = away + 1 if is_shared(failure) else 0
        if len(part) == 1:
            if failure.reason is StuckReason.UNEXPECTED:
                log.event("work.failed_unexpectedly", error=failure.error)
            await failed(part, failure)
        else:
            parts.extend(_divided(part))
        if parts and (away >= _AWAY_IN_A_ROW or loop.time() >= ends_at):
            rest = [item for left in parts for item in left]
            await failed(rest, failure if away >= _AWAY_IN_A_ROW else Failure.of(RoundOver()))
            return


async def collect_together(
    items: Sequence[T],
    work: Callable[[Sequence[T]], Awaitable[Mapping[T, R]]],
    limits: Limits,
) -> tuple[dict[T, R], dict[T, Failure]]:
    """Ask for all items at once as ``try_together`` does; gives what was found, and the failures of those items that have one."""
    found: dict[T, R] = {}
    failures: dict[T, Failure] = {}

    async def done(_: Sequence[T], got: Mapping[T, R]) -> None:
        found.update(got)

    async def failed(part: Sequence[T], failure: Failure) -> None:
        failures.update(dict.fromkeys(part, failure))

    await try_together(items, work, done, failed, limits)
    return found, failures


async def _try(
    part: Sequence[T],
    work: Callable[[Sequence[T]], Awaitable[R]],
    done: Callable[[Sequence[T], R], Awaitable[None]],
    limit_s: float,
) -> Failure | None:
    try:
        async with asyncio.timeout(limit_s):
            result = await work(part)
    except Invariant:
        raise
    except TimeoutError:
        return Failure.of(TooSlow())
    except Exception as error:  # noqa: BLE001 -- whatever one item makes the work raise must not cost the others theirs
        return Failure.of(error)
    try:
        await done(part, result)
    except (Invariant, *TRANSIENT):
        raise
    except Exception as error:  # noqa: BLE001 -- the same: a result that cannot be written down is one item's
        return Failure.of(error)
    return None


def _divided(part: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """Give one item, chosen by chance, and two halves of the rest.

    The one shows soon, and in another way in each round, whether anything works at all.
    """
    lone = random.randrange(len(part))  # noqa: S311 -- spreads tries, nothing secret
    rest = part[:lone] + part[lone + 1 :]
    half = (len(rest) + 1) // 2
    yield part[lone : lone + 1]
    yield from (each for each in (rest[:half], rest[half:]) if each)
