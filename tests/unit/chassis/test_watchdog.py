"""Ending a process that cannot go on."""

import asyncio
import json
import subprocess
import sys
import threading

from habeas.chassis.metrics import KAFKA_UNREACHABLE_S, render
from habeas.chassis.watchdog import Deadman, Watchdog

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
    ended = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=25, check=False)
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
    async with asyncio.timeout(10):
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


async def run_deadman(answers: list[bool | type[Exception]], limit_s: float) -> tuple[list[int], int]:
    """Give the exit codes and the number of probes, until the answers are used up."""
    codes: list[int] = []
    stopping = asyncio.Event()
    asked = 0

    async def probe() -> bool:
        nonlocal asked
        answer = answers[asked]
        asked += 1
        if asked == len(answers):
            stopping.set()
        if isinstance(answer, type):
            raise answer("ada.lovelace@example.org")
        return answer

    deadman = Deadman(probe, limit_s, every_s=0.02, exit_code=69, gauge=KAFKA_UNREACHABLE_S, end=codes.append)
    async with asyncio.timeout(20):
        await deadman.run(stopping)
    return codes, asked


async def test_silence_for_too_long_ends_the_process() -> None:
    """Three failures and the limit exceeded: code 69, whatever way the probe failed."""
    codes, asked = await run_deadman([True, False, OSError, False, *[False] * 50], 0.05)
    assert codes == [69]
    assert 4 <= asked < 50


async def test_an_answer_in_between_starts_anew() -> None:
    """Failures do not add up over an answer."""
    codes, _ = await run_deadman([False, False, True] * 10, 0.0)
    assert codes == []
    assert b"habeas_kafka_unreachable_s 0.0" in render()


async def test_short_silence_is_waited_out() -> None:
    """However often the probe fails, only the time counts."""
    codes, asked = await run_deadman([False] * 10, 60)
    assert (codes, asked) == ([], 10)


async def test_a_probe_that_hangs_counts_as_no() -> None:
    """A probe is not waited for longer than its interval."""
    codes: list[int] = []

    async def hangs() -> bool:
        await asyncio.Event().wait()
        return True

    async with asyncio.timeout(20):
        await Deadman(hangs, 0.05, every_s=0.02, end=codes.append).run(asyncio.Event())
    assert codes == [69]
