"""Ending a process that cannot go on."""

import asyncio
import json
import subprocess
import sys
import threading

import pytest

from habeas.chassis.watchdog import Watchdog
from habeas_embedded.waiting import until
from tests.support.waiting import HANGS_S

BLOCKED = """
import asyncio, threading
from habeas.chassis import log
from habeas.chassis.watchdog import Watchdog

def hang_here():
    threading.Event().wait(30)

async def main():
    log.configure("x")
    Watchdog(asyncio.get_running_loop(), 0.4).start()
    hang_here()

asyncio.run(main())
"""


def test_a_blocked_loop_ends_the_process() -> None:
    """A loop that does not come back is ended with code 70, after telling where it hangs."""
    ended = subprocess.run(
        [sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=HANGS_S, check=False
    )
    assert ended.returncode == 70
    (line,) = ended.stdout.splitlines()
    told = json.loads(line)
    assert (told["event"], told["level"]) == ("watchdog.loop_blocked", "error")
    assert any(frame.endswith(":hang_here") for frame in told["frames"])


async def test_a_loop_that_turns_is_left_alone() -> None:
    """A loop that comes back in time is not ended, over many times the limit."""
    ended = threading.Event()
    watchdog = Watchdog(asyncio.get_running_loop(), 0.4, end=lambda _: ended.set())
    watchdog.start()
    rounds = asyncio.Event()
    asyncio.get_running_loop().call_later(1.2, rounds.set)
    async with asyncio.timeout(HANGS_S):
        await rounds.wait()
    watchdog.stop()
    watchdog.stop()
    assert not ended.is_set()


async def test_a_stopped_watchdog_does_not_bite() -> None:
    """After the stop the loop may block as long as it likes."""
    ended = threading.Event()
    watchdog = Watchdog(asyncio.get_running_loop(), 0.1, end=lambda _: ended.set())
    watchdog.start()
    watchdog.stop()
    assert not ended.wait(0.5)


async def test_a_loop_that_shows_its_life_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that beats by itself is left alone without being asked for a sign, over many times the limit."""
    loop = asyncio.get_running_loop()
    asked: list[float] = []
    ended = threading.Event()
    monkeypatch.setattr(Watchdog, "_answer", lambda _, asked_at: asked.append(asked_at))
    watchdog = Watchdog(loop, 0.8, end=lambda _: ended.set())
    watchdog.start()
    over = loop.time() + 2.4

    def beaten() -> bool:
        watchdog.beat()
        return loop.time() >= over

    assert await until(beaten, HANGS_S)
    watchdog.stop()
    assert (asked, ended.is_set()) == ([], False)
