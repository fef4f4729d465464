"""The pace of loops: one message is done at once, several are taken together."""

import asyncio
from datetime import UTC, datetime

import pytest

from habeas.chassis import pace as paces
from habeas.chassis.clock import FakeClock
from habeas.chassis.pace import Pace
from habeas.chassis.waiting import wait_any

NOW = datetime(2026, 11, 24, 9, 12, tzinfo=UTC)


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rests that were taken, in seconds; none of them takes any time."""
    taken: list[float] = []

    async def rest(first: asyncio.Event, second: asyncio.Event, limit_s: float) -> bool:
        taken.append(limit_s)
        return await wait_any(first, second, 0.0)

    monkeypatch.setattr(paces, "wait_any", rest)
    return taken


async def rested_s(rests: list[float], pace: Pace, found: int) -> float:
    """How long a round that found so many is followed by a rest."""
    rests.clear()
    pace.begin()
    await pace.rest(found, 100, asyncio.Event())
    return sum(rests)


@pytest.mark.parametrize(
    ("several", "found", "rests_s"), [(8, 1, 0), (8, 7, 0), (8, 8, 0.06), (1, 1, 0.06), (1, 100, 0)]
)
async def test_a_round_that_found_several_is_followed_by_a_rest(
    rests: list[float], several: int, found: int, rests_s: float
) -> None:
    """Below the number that counts as several the next round follows at once, and so it does when there was more to take."""
    assert await rested_s(rests, Pace(FakeClock(NOW), several), found) == rests_s


async def test_rounds_are_longer_while_many_messages_come(rests: list[float]) -> None:
    """However few a round finds by itself, after a hundred within a second the next one waits for more to take."""
    pace = Pace(FakeClock(NOW))
    assert await rested_s(rests, pace, 100) == 0
    assert await rested_s(rests, pace, 1) == 0.25
    assert await rested_s(rests, pace, 0) == 0


async def test_a_stop_ends_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a pace when the process is to end."""
    stopping = asyncio.Event()
    watched: list[asyncio.Event] = []

    async def rest(first: asyncio.Event, second: asyncio.Event, limit_s: float) -> bool:
        watched.extend((first, second))
        return True

    monkeypatch.setattr(paces, "wait_any", rest)
    await Pace(FakeClock(NOW), 1).rest(1, 100, stopping)
    assert watched == [stopping, stopping]
