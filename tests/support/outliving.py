"""Nothing runs on after the tests: a plugin that looks, once everything is over, for processes that should have ended.

Whatever the tests start, and whatever that starts, is looked for: on Linux, orphans come to the process of the session. Who is there is
named, ended, and fails the run. A session that is asked to end by SIGTERM ends as by Ctrl-C, so that fixtures take down what they started.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Generator
from contextlib import suppress
from types import FrameType
from typing import Final, NoReturn

import psutil
import pytest

_PR_SET_CHILD_SUBREAPER: Final = 36
_ENDS_WITHIN_S: Final = float(os.environ.get("OUTLIVING_ENDS_WITHIN_S", "60"))  # who was told to end may need a moment
_ENDS_WITH_US: Final = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
_OUTLIVED: Final = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Let orphans come to us, and SIGTERM end the session in order."""
    if _is_worker(config):
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, _interrupt)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Look for who is left when fixtures and workers have ended."""
    result = yield
    if _is_worker(session.config):
        return result
    psutil.wait_procs(_family(), timeout=_ENDS_WITHIN_S)
    left = _family()  # whoever ended may have left somebody behind
    session.config.stash[_OUTLIVED] = [_name(each) for each in left]
    for each in left:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(left, timeout=_ENDS_WITHIN_S)
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name who was left."""
    for name in config.stash.get(_OUTLIVED, []):
        terminalreporter.write_line(f"outlived the tests, and was killed: {name}", red=True)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _family() -> list[psutil.Process]:
    """Give the processes below us, but for those that end with us."""
    return [each for each in psutil.Process().children(recursive=True) if _counts(each)]


def _counts(process: psutil.Process) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return not any(name in part for part in process.cmdline() for name in _ENDS_WITH_US)
    except psutil.NoSuchProcess:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:300]}"
    except psutil.NoSuchProcess:
        return f"{process.pid}, which has ended since"
