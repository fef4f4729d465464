"""Child processes that do not outlive their run: started with a log file, watched, recognised again, stopped within a limit."""

import asyncio
import ctypes
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import psutil
from pydantic import BaseModel, ConfigDict

from habeas_embedded.waiting import Patience, until, until_progress_ends, wait_blocking

__all__ = ["Child", "Trace", "end_of_log", "stop_traces"]

_PR_SET_PDEATHSIG: Final = 1
_LOOK_S: Final = 1.0  # where the kernel cannot tell of a process' end
_CPU_STEP_S: Final = 2.0
_STOP_FACTOR_MAX: Final = 4.0
_START_TOLERANCE_S: Final = 2.0  # the kernel counts from boot; the clock may have been set since
_KILL_LIMIT_S: Final = 10.0
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Trace(BaseModel):
    """What is written down about a process, so that a later run can tell whether it is still the same one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pid: int
    started_s: float
    argv: tuple[str, ...]
    stop_signal: int

    def process(self) -> psutil.Process | None:
        """Give the living process that left this trace, or None.

        A process id alone proves nothing, as ids are used again: start time and command line must be the same.
        """
        try:
            process = psutil.Process(self.pid)
            same_start = abs(process.create_time() - self.started_s) <= _START_TOLERANCE_S
            if same_start and process.status() != psutil.STATUS_ZOMBIE and tuple(process.cmdline()) == self.argv:
                return process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            pass
        return None


@dataclass
class Child:
    """One child process, started and stopped any number of times.

    `stop_signal` asks it to end in order; `user` and `group` are the ids it runs as when we are root.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    user: int | None = None
    group: int | None = None
    _popen: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def spawn(self) -> Trace:
        """Start the process in a session of its own, its output appended to the log file.

        On Linux it is told to end when the starting thread ends. That is only wanted of the main thread, so a child that
        is started from another one has to be stopped by its run's next start when we are killed.
        """
        if self.alive:
            raise RuntimeError(f"{self.name} runs already")
        self.log.parent.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self.env is None else dict(self.env),
                cwd=self.cwd,
                start_new_session=True,
                user=self.user,
                group=self.group,
                extra_groups=None if self.group is None else [],
                preexec_fn=_end_with_parent(self.stop_signal),  # noqa: PLW1509 (system calls only; libc is loaded before)
            )
        return self.trace()

    def trace(self) -> Trace:
        """Describe the running process for the run's state file."""
        pid = self.pid
        try:
            started_s = psutil.Process(pid).create_time()
        except psutil.NoSuchProcess:
            started_s = 0.0
        return Trace(name=self.name, pid=pid, started_s=started_s, argv=self.argv, stop_signal=int(self.stop_signal))

    @property
    def pid(self) -> int:
        """The process id of the last start."""
        if self._popen is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the last start ended; None while it runs and before it was ever started."""
        return None if self._popen is None else self._popen.poll()

    def progress(self, *others: Path) -> Hashable:
        """Return something that changes while the process gets on: with its CPU time, its log, and the other files named.

        Processes that it started count too. CPU time counts in steps of 2 s, so that one that only looks for something again
        and again, with less than a thirtieth of a core, does not seem to get on to whoever waits a minute for it.
        """
        if self._popen is None or not self.alive:
            return None
        cpu_s = sum(_cpu_s(process) for process in _family(self._popen.pid))
        return (self._popen.pid, int(cpu_s / _CPU_STEP_S), *(_size(path) for path in (self.log, *others)))

    async def ended(self) -> None:
        """Wait until the process has ended: woken by the kernel where it can do so, else looking once a second."""
        while self._popen is not None and self.alive:
            try:
                end = os.pidfd_open(self._popen.pid)
            except (AttributeError, OSError):  # not on this system, or not in this sandbox
                await asyncio.sleep(_LOOK_S)
                continue
            loop = asyncio.get_running_loop()
            told = asyncio.Event()
            loop.add_reader(end, told.set)
            try:
                await told.wait()
            finally:
                loop.remove_reader(end)
                os.close(end)

    async def stop(self, limit_s: float) -> bool:
        """Ask the process to end; False when it had to be killed.

        That is done after `limit_s` without progress, and after four times as long in any case.
        """
        if self._popen is None or not self.alive:
            return True
        self._popen.send_signal(self.stop_signal)
        patience = Patience(still_s=limit_s, most_s=limit_s * _STOP_FACTOR_MAX)
        if await until_progress_ends(lambda: not self.alive, self.progress, patience):
            return True
        await self.kill()
        return False

    async def kill(self) -> None:
        """End the process and everything that it started, at once, as a crash would."""
        if self._popen is None or not self.alive:
            return
        family = _family(self._popen.pid)
        for process in family:
            _kill_quietly(process)
        await until(lambda: not self.alive and _all_gone(family), _KILL_LIMIT_S)


def end_of_log(log: Path, lines: int = 12) -> str:
    """Give the last lines of a log file for an error message, empty when there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def stop_traces(traces: Sequence[Trace], limit_s: float = 10.0) -> list[str]:
    """Stop processes that an earlier run left behind, in the order given; gives the names of those that still ran."""
    left = [(trace, process) for trace in traces if (process := trace.process()) is not None]
    for trace, process in left:
        family = _family(process.pid)
        with suppress(psutil.NoSuchProcess):
            process.send_signal(trace.stop_signal)
        if not wait_blocking(partial(_all_gone, [process]), limit_s):
            for each in family:
                _kill_quietly(each)
        wait_blocking(partial(_all_gone, family), limit_s)
    return [trace.name for trace, _ in left]


def _all_gone(processes: Sequence[psutil.Process]) -> bool:
    return not any(_runs(process) for process in processes)


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0
    return float(times.user + times.system)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _kill_quietly(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end_with_parent(by: signal.Signals) -> Callable[[], None] | None:
    """Give what a child runs before its program: on Linux, ask the kernel to signal it when its parent ends."""
    libc = _LIBC
    if libc is None or threading.current_thread() is not threading.main_thread():
        return None
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(by))
        if os.getppid() != parent:  # the parent ended between fork and prctl
            os.kill(os.getpid(), signal.SIGKILL)

    return ask
