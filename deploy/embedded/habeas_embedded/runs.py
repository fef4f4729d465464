"""One run of servers: its directory, the lock that says that it lives, and the list of processes that belong to it.

A run that was killed leaves its directory, an unlocked lock file and maybe processes. The next run of the same name
stops these; any run clears away what ephemeral runs (of tests) left behind.
"""

import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from habeas_embedded.errors import RunTaken
from habeas_embedded.places import runs_directory
from habeas_embedded.processes import Child, Trace, stop_traces

__all__ = ["Run", "living_runs"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_STATE: Final = "state.json"
_LOCK: Final = "lock"


class _State(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ephemeral: bool
    owner: int
    processes: list[Trace]


class Run:
    """The directory of one run, held by one process at a time.

    `ephemeral` runs are removed when they are closed. `mended` names the processes of a killed run that were stopped.
    """

    def __init__(self, name: str, *, ephemeral: bool = False, fresh: bool = False) -> None:
        """Take the run's directory; raises RunTaken when a living process holds it.

        `fresh` removes what an earlier run of the name left on disk. Either way its left-over processes are stopped.
        """
        if not _NAME.fullmatch(name):
            raise ValueError("a run is named with small letters, digits and hyphens, at most 64")
        self.name = name
        self.ephemeral = ephemeral
        self.directory = runs_directory() / name
        self._traces: dict[str, Trace] = {}
        self._lock = _lock(self.directory)
        self.directory.chmod(stat.S_IRWXU)  # keys, passwords and mail are in it
        self.mended = tuple(stop_traces(_read(self.directory)))
        if fresh or ephemeral:
            _empty(self.directory)
        self._write()
        _clear_ephemeral(but=self.directory)

    @property
    def logs(self) -> Path:
        """The directory of log files."""
        return self.directory / "logs"

    def remember(self, child: Child) -> None:
        """Write down a started process, so that it is found again should this process be killed."""
        self._traces[child.name] = child.trace()
        self._write()

    def forget(self, child: Child) -> None:
        """Strike out a process that has ended, unless it was started again meanwhile."""
        if child.alive:
            return
        self._traces.pop(child.name, None)
        self._write()

    def close(self) -> None:
        """Give the directory free, and remove it when it is ephemeral; doing it again does nothing."""
        if self._lock.closed:
            return
        if self.ephemeral:
            shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.close()

    def _write(self) -> None:
        state = _State(ephemeral=self.ephemeral, owner=os.getpid(), processes=list(self._traces.values()))
        new = self.directory / f"{_STATE}.new"
        new.write_text(state.model_dump_json(indent=1))
        new.replace(self.directory / _STATE)


def living_runs() -> tuple[str, ...]:
    """Give the names of the runs that a living process holds."""
    names = []
    for directory in sorted(runs_directory().iterdir()):
        if (directory / _LOCK).is_file():
            with _free(directory) as free:
                if not free:
                    names.append(directory.name)
    return tuple(names)


def _lock(directory: Path) -> IO[str]:
    """Hold the run's lock until the file is closed or we die; children do not inherit it."""
    directory.mkdir(parents=True, exist_ok=True)
    lock = (directory / _LOCK).open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock.fileno()).st_ino != (directory / _LOCK).stat().st_ino:
            raise BlockingIOError  # somebody else cleared the directory away and made it anew
    except (BlockingIOError, FileNotFoundError):
        lock.close()
        state = _state(directory)
        owner = "another process" if state is None else f"process {state.owner}"
        raise RunTaken(f"{owner} uses {directory}: stop it, or choose another name") from None
    return lock


def _state(directory: Path) -> _State | None:
    try:
        return _State.model_validate_json((directory / _STATE).read_bytes())
    except (OSError, ValidationError, json.JSONDecodeError):
        return None  # an unfinished directory; what cannot be recognised is left alone


def _read(directory: Path) -> list[Trace]:
    state = _state(directory)
    return [] if state is None else state.processes


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.name == _LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _clear_ephemeral(but: Path) -> None:
    """Stop and remove what killed ephemeral runs of other names left behind."""
    for directory in runs_directory().iterdir():
        state = _state(directory)
        if directory == but or state is None or not state.ephemeral:
            continue
        with _free(directory) as free:
            if free:
                stop_traces(_read(directory))
                shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _free(directory: Path) -> Iterator[bool]:
    """Hold the lock of a run that nobody holds; gives False when somebody does."""
    try:
        lock = _lock(directory)
    except (RunTaken, OSError):
        yield False
        return
    with lock:
        yield True
