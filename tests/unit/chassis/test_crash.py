"""Crash points: nothing happens until one is armed; then the process dies at the pass that was asked for, and at no other."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import pytest

from habeas.chassis import crash
from habeas.chassis.crash import Point
from tests.support.waiting import HANGS_S

_PASS: Final = """
from habeas.chassis import crash
crash.arm_kill({wanted!r})
for number in range(1, 4):
    for place, statements in (("one", 1), ("two", 2)):
        print(number, place, flush=True)
        crash.at(crash.Point.COMMITTED, place, statements)
"""


class _Died(BaseException):
    pass


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """Leave nothing armed for the next test."""
    yield
    crash.arm(None)


def test_nothing_happens_at_a_point_until_it_is_armed() -> None:
    """Every point is passed in silence, with and without the name of a transaction."""
    for point in Point:
        crash.at(point)
        crash.at(point, "inbox-batch", 3)


def test_a_hook_is_called_at_every_pass_and_may_end_it() -> None:
    """What a hook raises reaches the place that passes the point; without the hook it goes on again."""
    passed: list[Point] = []

    def die(point: Point) -> None:
        passed.append(point)
        if point is Point.COMMITTED:
            raise _Died

    crash.arm(die)
    crash.at(Point.WORKER_CLAIMED)
    with pytest.raises(_Died):
        crash.at(Point.COMMITTED, "inbox-batch")
    crash.arm(None)
    crash.at(Point.COMMITTED, "inbox-batch")
    assert passed == [Point.WORKER_CLAIMED, Point.COMMITTED]


@pytest.mark.parametrize(
    ("wanted", "last"),
    [
        ("committed:3", "2 one"),
        ("committed/two:2", "2 two"),
        ("committed>1:1", "1 two"),
        ("committed/one>1:1", "3 two"),
        ("outbox-written:1", "3 two"),
    ],
)
def test_the_process_is_killed_at_the_pass_that_was_asked_for(wanted: str, last: str) -> None:
    """SIGKILL comes at the n-th pass of the point, of its transaction, of those with enough statements; else never."""
    run = subprocess.run(
        [sys.executable, "-c", _PASS.format(wanted=wanted)],
        capture_output=True,
        text=True,
        timeout=HANGS_S,
        check=False,
    )
    assert run.stdout.splitlines()[-1] == last
    assert run.returncode == (0 if last == "3 two" else -signal.SIGKILL)


@pytest.mark.parametrize("wanted", ["", "committed", "committed:0", "nowhere:1", "committed/:1", "committed:1 "])
def test_what_names_no_pass_is_refused(wanted: str) -> None:
    """A death that would never come, or at an unknown point, is an error and not a quiet test."""
    with pytest.raises(ValueError):  # noqa: PT011 -- the standard library's own words for an unknown point
        crash.arm_kill(wanted)
