"""What a tree of processes costs, read from /proc by somebody who is not one of them: CPU-seconds and wake-ups by part and thread."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from tests.bench import cpu

_PROC: Final = Path("/proc")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_UTIME: Final = 11  # proc_pid_stat(5): field 14, counted from the state behind the name
_STIME, _CUTIME, _CSTIME = _UTIME + 1, _UTIME + 2, _UTIME + 3


class Thread(NamedTuple):
    """One thread, as it is told from others at two looks."""

    part: str
    pid: int
    tid: int
    name: str


class Used(NamedTuple):
    """What a thread has used since it began."""

    wakeups: int
    cpu_s: float


class Cost(NamedTuple):
    """What something takes while it runs."""

    cores: float
    wakeups_per_s: float


@dataclass(frozen=True, slots=True)
class Look:
    """What a tree has used so far. CPU-seconds of a part include its ended processes, as their parent counts them on."""

    at_s: float
    cpu_s: Mapping[str, float]
    threads: Mapping[Thread, Used]
    lasting: frozenset[int]  # processes that have to be the same at the next look


@dataclass(frozen=True, slots=True)
class Machine:
    """What the whole machine has done so far."""

    at_s: float
    busy_s: float
    stolen_s: float
    load: float

    @classmethod
    def look(cls, now_s: float) -> "Machine":
        """Read the machine's counters."""
        first = (_PROC / "stat").read_text().partition("\n")[0].split()[1:]
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(each) / _TICKS_PER_S for each in first[:8])
        return cls(now_s, user + nice + system + irq + softirq, steal, os.getloadavg()[0])


def look(root_pid: int, root_name: str, now_s: float) -> Look:
    """Look at a process and everything below it; `root_name` is the part that the process itself counts as."""
    seconds: dict[str, float] = {}
    threads: dict[Thread, Used] = {}
    lasting = set()
    for part, pid in _tree(psutil.Process(root_pid), root_name):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
            ticks = _stat(_PROC / f"{pid}" / "stat")
            seconds[part] = seconds.get(part, 0.0) + sum(ticks.values()) / _TICKS_PER_S
            threads |= _threads(part, pid)
            if part != "postgresql":  # its processes come and go
                lasting.add(pid)
    return Look(now_s, seconds, threads, frozenset(lasting))


def costs(before: Look, after: Look) -> dict[str, Cost]:
    """Return what each part took between two looks. Raises AssertionError when a process ended or began in between."""
    if before.lasting != after.lasting:
        message = "a process ended or was started during the window: this run counts for nothing"
        raise AssertionError(message)
    length_s = after.at_s - before.at_s
    wakeups: Counter[str] = Counter()
    for thread, used in _differences(before, after):
        wakeups[thread.part] += used.wakeups
    return {
        part: Cost((after.cpu_s[part] - before.cpu_s.get(part, 0.0)) / length_s, wakeups[part] / length_s)
        for part in after.cpu_s
    }


def costs_by_thread(before: Look, after: Look, part: str) -> dict[str, Cost]:
    """Return what the threads of a part took, those with numbers at the end of one name together, the busiest first."""
    length_s = after.at_s - before.at_s
    found: dict[str, Cost] = {}
    for thread, used in _differences(before, after):
        if thread.part == part:
            name = thread.name.rstrip("0123456789").rstrip("-#: ") or thread.name
            so_far = found.get(name, Cost(0.0, 0.0))
            found[name] = Cost(so_far.cores + used.cpu_s / length_s, so_far.wakeups_per_s + used.wakeups / length_s)
    return dict(sorted(found.items(), key=lambda each: -each[1].wakeups_per_s))


def _differences(before: Look, after: Look) -> Iterator[tuple[Thread, Used]]:
    """Yield what each thread did in between; what ended within the window has taken its wake-ups with it."""
    for thread, used in after.threads.items():
        earlier = before.threads.get(thread, Used(0, 0.0))
        yield thread, Used(used.wakeups - earlier.wakeups, used.cpu_s - earlier.cpu_s)


def _tree(root: psutil.Process, root_name: str) -> Iterator[tuple[str, int]]:
    yield root_name, root.pid
    for process in root.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            yield cpu._part(process), process.pid


def _threads(part: str, pid: int) -> Iterator[tuple[Thread, Used]]:
    for directory in (_PROC / f"{pid}" / "task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = (directory / "status").read_text().splitlines()
            told = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            ticks = _stat(directory / "stat")
            used = Used(int(told["voluntary_ctxt_switches"]), (ticks[_UTIME] + ticks[_STIME]) / _TICKS_PER_S)
            yield Thread(part, pid, int(directory.name), told["Name"]), used


def _stat(path: Path) -> dict[int, int]:
    """Return the numbers behind the name, which may hold spaces and brackets, by their place."""
    fields = path.read_text().rpartition(")")[2].split()
    return {place: int(fields[place]) for place in (_UTIME, _STIME, _CUTIME, _CSTIME)}
