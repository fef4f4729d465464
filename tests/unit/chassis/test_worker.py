"""What the worker decides without a database: groups, waits, and when enough is enough."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from habeas.chassis.message import Arrived, Message
from habeas.chassis.waiting import wait_any
from habeas.chassis.worker import Worker, in_order
from habeas.contracts import topics
from tests.support.delivery import NOON, PROTECTOR, new_id, restricted, settings
from tests.support.waiting import HANGS_S

EVENT = restricted(new_id())


def message(inbox_id: int, kind: str, key: str) -> Message:
    """A message of which only place, type and key matter."""
    return Message(inbox_id, EVENT.request_id, topics.REQUESTS, kind, key.encode(), None, NOON, 0, b"", EVENT)


def groups(letters: str) -> list[str]:
    """Groups of messages written as type and key, such as `Ax`."""
    pairs = letters.split()
    made = in_order([message(number, pair[0], pair[1]) for number, pair in enumerate(pairs)])
    return [" ".join(each.type + each.key.decode() for each in group) for group in made]


@pytest.mark.parametrize(
    ("came", "grouped"),
    [
        ("", []),
        ("Ax Ay Az", ["Ax Ay Az"]),
        ("Ax By Az Bw", ["Ax Az", "By Bw"]),
        ("Ax Bx Ax", ["Ax", "Bx", "Ax"]),
        ("Ax Bx Ay By", ["Ax Ay", "Bx By"]),
        ("Bx Ax By Ay", ["Bx By", "Ax Ay"]),
        ("Ax Bx Ay Ax Bx", ["Ax Ay", "Bx", "Ax", "Bx"]),
    ],
)
def test_messages_are_grouped_by_type(came: str, grouped: list[str]) -> None:
    """Examples by hand: one group per type where the order of keys allows it, more where it does not."""
    assert groups(came) == grouped


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from("wxyz")), max_size=60))
def test_groups_keep_the_order_of_every_key(came: Sequence[tuple[str, str]]) -> None:
    """Each message is in one group of its type, and the messages of a key follow one another as they came."""
    messages = [message(number, kind, key) for number, (kind, key) in enumerate(came)]
    made = in_order(messages)
    assert all(len({each.type for each in group}) == 1 for group in made)
    flat = [each for group in made for each in group]
    assert sorted(each.inbox_id for each in flat) == list(range(len(came)))
    for key in b"wxyz":
        places = [each.inbox_id for each in flat if each.key == bytes([key])]
        assert places == sorted(places)


@given(st.lists(st.sampled_from("ABC"), max_size=60))
def test_different_keys_take_one_group_per_type(kinds: Sequence[str]) -> None:
    """Where no key comes twice there are no more statements than types."""
    made = in_order([message(number, kind, str(number)) for number, kind in enumerate(kinds)])
    assert len(made) == len(set(kinds))


def worker() -> Worker:
    """A worker that is only asked, with no database behind it."""
    nothing = cast("Any", None)
    return Worker(nothing, nothing, {}, {}, PROTECTOR, settings())


@pytest.mark.parametrize(
    ("attempts", "least_s", "longest_s"),
    [(0, 0.5, 1), (1, 1, 2), (2, 2, 4), (7, 64, 128), (8, 128, 256), (9, 150, 300), (60, 150, 300), (10_000, 150, 300)],
)
def test_waits_double_up_to_a_limit(attempts: int, least_s: float, longest_s: float) -> None:
    """One second at first, doubled each time, five minutes at most, and somewhere in the upper half of that."""
    waits = [(worker()._next_attempt(attempts, NOON) - NOON).total_seconds() for _ in range(200)]
    assert least_s <= min(waits)
    assert max(waits) <= longest_s
    assert max(waits) - min(waits) > (longest_s - least_s) / 2


@pytest.mark.parametrize(
    ("age", "attempts", "over"),
    [
        (timedelta(days=3), 1000, False),
        (timedelta(days=3, microseconds=1), 1000, True),
        (timedelta(days=3, microseconds=1), 7, True),
        (timedelta(days=30), 6, False),
        (timedelta(0), 10_000, False),
        (timedelta(days=-30), 10_000, False),
    ],
)
def test_time_and_attempts_make_it_enough(age: timedelta, attempts: int, over: bool) -> None:  # noqa: FBT001 -- a column of the table
    """A message is given up after the horizon and eight attempts, never for one of them alone."""
    arrived = Arrived(1, new_id(), "", "", b"", NOON, None, b"", NOON - age, attempts)
    assert worker()._is_exhausted(arrived, NOON) is over


async def test_waiting_ends_with_either_event_or_the_limit() -> None:
    """Whoever is woken learns that something happened; whoever is not learns that the time is over."""
    one, other = asyncio.Event(), asyncio.Event()
    assert not await wait_any(one, other, 0.01)
    other.set()
    assert await wait_any(one, other, 60)
    asyncio.get_running_loop().call_soon(one.set)
    other.clear()
    async with asyncio.timeout(HANGS_S):
        assert await wait_any(one, other, 60)
