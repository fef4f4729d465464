import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from habeas_embedded.errors import RunTaken
from habeas_embedded.processes import Child, Trace, stop_traces
from habeas_embedded.runs import Run
from habeas_embedded.waiting import wait_blocking

# Starts a child from a second thread (so that the kernel does not end it with us) and waits to be killed.
OWNER = """
import sys, threading
from pathlib import Path
from habeas_embedded.processes import Child
from habeas_embedded.runs import Run

run = Run("owned", ephemeral=len(sys.argv) > 1)
child = Child("sleeper", (sys.executable, "-c", "import signal; signal.pause()"), run.logs / "sleeper.log")
starter = threading.Thread(target=child.spawn)
starter.start()
starter.join()
run.remember(child)
print(child.pid, flush=True)
threading.Event().wait()
"""


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HABEAS_HOME", str(tmp_path))


def a_killed_run(*arguments: str) -> psutil.Process:
    """A process that an owner left behind when it was killed."""
    with subprocess.Popen([sys.executable, "-c", OWNER, *arguments], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        left = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
    assert left.is_running()
    return left


def gone(process: psutil.Process) -> bool:
    """Whether the process has ended, be it still listed or not."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_left_overs_of_a_killed_run_are_stopped() -> None:
    """The next run of the name stops what the killed one left running, and says what it was."""
    left = a_killed_run()
    run = Run("owned")
    run.close()
    assert run.mended == ("sleeper",)
    assert wait_blocking(lambda: gone(left), 5)


def test_ephemeral_left_overs_are_cleared_by_any_run(tmp_path: Path) -> None:
    """A killed test session is cleared away, directory and all, by a run of another name."""
    left = a_killed_run("ephemeral")
    assert (tmp_path / "run" / "owned").is_dir()
    Run("another").close()
    assert wait_blocking(lambda: gone(left), 5)
    assert not (tmp_path / "run" / "owned").exists()


def test_two_runs_of_one_name_are_refused() -> None:
    """A run whose owner lives is not touched: the second one is told who holds it."""
    first = Run("twice")
    with pytest.raises(RunTaken, match=str(os.getpid())):
        Run("twice")
    first.close()
    Run("twice").close()


def test_foreign_process_of_the_same_id_is_left_alone(tmp_path: Path) -> None:
    """A process id in a state file proves nothing: another command line or start time is another process."""
    argv = (sys.executable, "-c", "import signal; signal.pause()")
    child = Child("bystander", argv, tmp_path / "log")
    child.spawn()
    bystander = psutil.Process(child.pid)
    assert wait_blocking(lambda: tuple(bystander.cmdline()) == argv, 5)
    true = child.trace()
    other_argv = true.model_copy(update={"argv": (sys.executable, "-c", "pass")})
    other_start = true.model_copy(update={"started_s": true.started_s - 60})
    assert stop_traces([other_argv, other_start]) == []
    assert bystander.is_running()
    assert stop_traces([true]) == ["bystander"]
    assert wait_blocking(lambda: not child.alive, 5)


def test_unreadable_state_stops_nothing(tmp_path: Path) -> None:
    """A state file that cannot be understood names nobody, so nobody is stopped on its account."""
    (tmp_path / "run" / "odd").mkdir(parents=True)
    (tmp_path / "run" / "odd" / "state.json").write_text(json.dumps({"processes": [{"pid": os.getpid()}]}))
    run = Run("odd")
    run.close()
    assert run.mended == ()


def test_trace_of_ourselves_is_recognised() -> None:
    """Start time and command line of a living process, as the system tells them, are the ones written down."""
    ourselves = psutil.Process()
    trace = Trace(
        name="us",
        pid=ourselves.pid,
        started_s=ourselves.create_time(),
        argv=tuple(ourselves.cmdline()),
        stop_signal=int(signal.SIGTERM),
    )
    found = trace.process()
    assert found is not None
    assert found.pid == os.getpid()
