"""The pace of loops: one message is done at once, several are taken together."""

import asyncio

import pytest

from habeas.chassis.clock import SystemClock
from habeas.chassis.pace import Pace


async def rested_s(pace: Pace, found: int) -> float:
    """How long a round that found so many is followed by a rest."""
    clock = asyncio.get_running_loop().time
    pace.begin()
    begun = clock()
    await pace.rest(found, 100, asyncio.Event())
    return clock() - begun


@pytest.mark.parametrize(
    ("several", "found", "rests"), [(8, 1, False), (8, 7, False), (8, 8, True), (1, 1, True), (1, 100, False)]
)
async def test_a_round_that_found_several_is_followed_by_a_rest(several: int, found: int, *, rests: bool) -> None:
    """Below the number that counts as several the next round follows at once, and so it does when there was more to take."""
    slept = await rested_s(Pace(SystemClock(), several), found)
    assert (slept >= 0.05) is rests


async def test_rounds_are_longer_while_many_messages_come() -> None:
    """However few a round finds by itself, after a hundred within a second the next one waits for more to take."""
    pace = Pace(SystemClock())
    assert await rested_s(pace, 100) < 0.05
    assert await rested_s(pace, 1) >= 0.2
    assert await rested_s(pace, 0) < 0.05


async def test_a_stop_ends_the_rest() -> None:
    """Nobody waits for a pace when the process is to end."""
    stopping = asyncio.Event()
    stopping.set()
    clock = asyncio.get_running_loop().time
    begun = clock()
    await Pace(SystemClock(), 1).rest(1, 100, stopping)
    assert clock() - begun < 0.05
