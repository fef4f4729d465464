"""Trying many items together: whatever is wrong with some of them, each is settled once, by its own fate, in the same round."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import log2

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from habeas.chassis.errors import Invariant
from habeas.chassis.together import Failure, Limits, collect_together, try_together
from habeas.contracts.vocabulary import StuckReason
from habeas.datamap.errors import StoreRefused, StoreUnavailable, Unavailability

LIMITS = Limits(0.02, round_s=600.0)
REASONS = {
    "refused": StuckReason.STORE_REFUSED,
    "busy": StuckReason.STORE_UNAVAILABLE,
    "unforeseen": StuckReason.UNEXPECTED,
    "slow": StuckReason.STORE_UNAVAILABLE,
    "unwritable result": StuckReason.UNEXPECTED,
}


@dataclass
class Outside:
    """A store in which some items are bad, each in its way, and some only where they are worked on together."""

    bad: Mapping[int, str]
    quarrels: frozenset[frozenset[int]] = frozenset()
    tries: int = 0
    settled: Counter[int] = field(default_factory=Counter)
    done: set[int] = field(default_factory=set)
    failures: dict[int, Failure] = field(default_factory=dict)

    async def work(self, part: Sequence[int]) -> str:
        """Fail as the first bad one makes it fail."""
        self.tries += 1
        for item in part:
            match self.bad.get(item):
                case "refused":
                    raise StoreRefused("platform", f"table_{item}", "23503")
                case "busy":
                    raise StoreUnavailable("platform", Unavailability.BUSY)
                case "unforeseen":
                    raise KeyError(item)
                case "slow":
                    await asyncio.Event().wait()
                case "killer":
                    raise StoreUnavailable("platform", Unavailability.NO_CONNECTION)
                case _:
                    pass
        if any(pair <= set(part) for pair in self.quarrels):
            raise StoreUnavailable("platform", Unavailability.BUSY)
        return "fine"

    async def finish(self, part: Sequence[int], result: str) -> None:
        """Note what was done, unless it cannot be noted."""
        assert result == "fine"
        if any(self.bad.get(item) == "unwritable result" for item in part):
            raise ValueError
        self.settled.update(part)
        self.done.update(part)

    async def fail(self, part: Sequence[int], failure: Failure) -> None:
        """Note what failed."""
        self.settled.update(part)
        self.failures.update(dict.fromkeys(part, failure))

    async def run(self, items: Sequence[int], limits: Limits = LIMITS) -> None:
        """Make one round."""
        await try_together(items, self.work, self.finish, self.fail, limits)


@given(
    st.integers(1, 250),
    st.dictionaries(st.integers(0, 249), st.sampled_from(sorted(REASONS)), max_size=5),
    st.frozensets(st.frozensets(st.integers(0, 249), min_size=2, max_size=2), max_size=2),
)
def test_each_item_meets_its_own_fate_in_one_round(
    size: int, bad: dict[int, str], quarrels: frozenset[frozenset[int]]
) -> None:
    """All that are good are done, each bad one fails for its own reason, nobody is settled twice, and few tries are needed."""
    outside = Outside(bad, quarrels)
    asyncio.run(outside.run(range(size)))
    wrong = {item: kind for item, kind in bad.items() if item < size}
    assert outside.settled == dict.fromkeys(range(size), 1)
    assert outside.done == set(range(size)) - set(wrong)
    assert {item: failure.reason for item, failure in outside.failures.items()} == {
        item: REASONS[kind] for item, kind in wrong.items()
    }
    for item, kind in wrong.items():
        assert outside.failures[item].is_of_size == (kind == "slow")
        assert outside.failures[item].table == (f"table_{item}" if kind == "refused" else None)
    assert outside.tries <= 1 + 3 * (len(wrong) + len(quarrels)) * (log2(size) + 2)


def test_a_batch_of_good_items_is_one_try() -> None:
    """Nothing is paid for what does not happen."""
    outside = Outside({})
    asyncio.run(outside.run(range(250)))
    assert (outside.tries, len(outside.done)) == (1, 250)


@given(st.integers(2, 250), st.data())
def test_one_whose_rows_bring_the_server_down_is_found_too(size: int, data: st.DataObject) -> None:
    """An error that speaks of the server may still be one person's: as long as others succeed, the server is not away."""
    killer = data.draw(st.integers(0, size - 1))
    outside = Outside({killer: "killer"})
    asyncio.run(outside.run(range(size)))
    assert outside.done == set(range(size)) - {killer}


def test_several_who_bring_the_server_down_hold_nobody_up_for_ever() -> None:
    """They may make it look as if it were away, but not round after round: who is tried alone is left to chance."""
    killers = dict.fromkeys((0, 1, 2), "killer")
    waiting = list(range(50))
    for _ in range(100):
        outside = Outside(killers)
        asyncio.run(outside.run(waiting))
        waiting = [item for item in waiting if item not in outside.done]
    assert waiting == [0, 1, 2]


def test_a_server_that_is_away_is_not_asked_for_each() -> None:
    """Three tries in a row that find nobody are enough: all wait for the same reason."""
    outside = Outside(dict.fromkeys(range(250), "killer"))
    asyncio.run(outside.run(range(250)))
    assert outside.tries == 3
    assert outside.settled == dict.fromkeys(range(250), 1)
    assert {failure.reason for failure in outside.failures.values()} == {StuckReason.STORE_UNAVAILABLE}


def test_a_round_ends() -> None:
    """When its time is over, what was not settled waits, and nobody is taken for slow who was not tried alone."""
    outside = Outside(dict.fromkeys(range(50), "busy"))
    asyncio.run(outside.run(range(50), Limits(1.0, round_s=0.0)))
    assert outside.tries == 1
    assert outside.settled == dict.fromkeys(range(50), 1)
    assert not any(failure.is_of_size for failure in outside.failures.values())


@pytest.mark.parametrize("error", [Invariant("broken"), asyncpg.ConnectionDoesNotExistError("away")])
async def test_trouble_with_the_own_database_ends_the_round(error: Exception) -> None:
    """What cannot be written down is not taken for anybody's fault: the rest stays claimed until its lease ends."""
    outside = Outside({})

    async def away(_: Sequence[int], __: str) -> None:
        raise error

    with pytest.raises(type(error)):
        await try_together(range(10), outside.work, away, outside.fail, LIMITS)
    assert (outside.tries, outside.failures) == (1, {})


async def test_what_is_collected_has_no_holes() -> None:
    """Each item is found, or not there, or has a failure."""

    async def ask(part: Sequence[int]) -> dict[int, int]:
        if 7 in part:
            raise StoreRefused("platform", "accounts", "42501")
        return {item: item * 2 for item in part if item != 3}

    found, failures = await collect_together(range(20), ask, LIMITS)
    assert found == {item: item * 2 for item in range(20) if item not in {3, 7}}
    assert {item: failure.reason for item, failure in failures.items()} == {7: StuckReason.STORE_REFUSED}


def test_the_limit_of_one_grows_with_its_attempts() -> None:
    """Twice as long each time, up to the longest."""
    limits = Limits(120.0, longest_s=3_600.0)
    assert [limits.after(attempts).of(1) for attempts in (0, 1, 2, 5, 1_000)] == [120.0, 240.0, 480.0, 3_600.0, 3_600.0]
    assert Limits(3.0, 0.02).of(250) == pytest.approx(7.98)


def test_pairs_that_only_fail_together_are_parted() -> None:
    """Of three that must not be worked on together, all are done."""
    outside = Outside({}, frozenset(frozenset(pair) for pair in combinations(range(3), 2)))
    asyncio.run(outside.run(range(3)))
    assert outside.done == {0, 1, 2}
