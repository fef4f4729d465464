"""The look for processes that outlive a session: a session of its own, in which a test leaves somebody behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.architecture.repository import ROOT
from tests.support.waiting import HANGS_S, until

MIDDLE = """
import subprocess, sys
idle = [sys.executable, "-c", "import signal; signal.pause()"]
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
print(subprocess.Popen(idle, start_new_session=True, **quiet).pid)
"""

LEAVES_A_PROCESS = f"""
import subprocess, sys

def test_leaves_a_process():
    made = subprocess.run([sys.executable, "-c", {MIDDLE!r}], capture_output=True, text=True, check=True)
    open("orphan", "w").write(made.stdout)
    MORE
"""


def run(directory: Path, more: str) -> "subprocess.Popen[str]":
    """Start a session whose only test leaves an orphan, and then does more."""
    (directory / "test_one.py").write_text(LEAVES_A_PROCESS.replace("MORE", more))
    (directory / "pytest.ini").write_text("[pytest]\n")
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.support.outliving",
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
        ],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OUTLIVING_ENDS_WITHIN_S": "0.2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def orphan(directory: Path) -> int:
    """Give the process that was left, 0 when there is none yet."""
    try:
        return int((directory / "orphan").read_text())
    except (OSError, ValueError):
        return 0


def test_who_outlives_the_tests_fails_the_run(tmp_path: Path) -> None:
    """All tests passed, and the run fails, names the process, and ends it."""
    session = run(tmp_path, "pass")
    said, _ = session.communicate(timeout=HANGS_S)
    assert "1 passed" in said
    assert f"outlived the tests, and was killed: {orphan(tmp_path)} " in said
    assert session.returncode == 1
    assert not psutil.pid_exists(orphan(tmp_path))


async def test_a_session_that_is_told_to_end_leaves_nobody(tmp_path: Path) -> None:
    """SIGTERM in the middle of a test interrupts the session, which then ends what is left."""
    session = run(tmp_path, "import signal; signal.pause()")
    await until(lambda: bool(orphan(tmp_path)), "the orphan")
    session.send_signal(signal.SIGTERM)
    said, _ = session.communicate(timeout=HANGS_S)
    assert session.returncode == 2, said
    assert f"outlived the tests, and was killed: {orphan(tmp_path)} " in said
    assert not psutil.pid_exists(orphan(tmp_path))
