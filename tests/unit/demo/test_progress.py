import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import pytest

from habeas_demo import progress as progress_module
from habeas_demo.progress import Progress, follow


class Trickle:
    """A consumer that brings something new each tenth of a second, for a while."""

    def __init__(self, progress: Progress, times: int) -> None:
        self._progress = progress
        self._left = times

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""

    async def getmany(self, *, timeout_ms: int) -> Mapping[str, Sequence[object]]:
        """Count one more thing that was heard, as long as there is any."""
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), timeout_ms / 2_000)  # as long as a poll that finds nothing
        if self._left:
            self._left -= 1
            self._progress.types["erasure.completed"] += 1
        return {}


def signs(count: int) -> Callable[[Progress], bool]:
    """Say whether so many signs were heard."""
    return lambda progress: progress.types.total() >= count


async def test_demo_waits_while_it_hears_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts from what was heard last: eight signs take twice as long, and are waited for."""
    progress = Progress()
    monkeypatch.setattr(progress_module, "AIOKafkaConsumer", lambda *_, **__: Trickle(progress, 10))
    assert await follow("nowhere", progress, signs(8), limit_s=0.4)


async def test_silence_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing more comes the demo gives up, and says that not everything came."""
    progress = Progress()
    monkeypatch.setattr(progress_module, "AIOKafkaConsumer", lambda *_, **__: Trickle(progress, 10))
    assert not await follow("nowhere", progress, signs(30), limit_s=0.4)
    assert progress.types.total() == 10
