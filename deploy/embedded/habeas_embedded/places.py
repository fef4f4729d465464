"""Where embedded servers live on disk: a cache shared by all runs, and one directory per run.

Everything is under `.habeas/` of the checkout, so that removing that directory removes every trace.
"""

import os
from pathlib import Path
from typing import Final

__all__ = ["cache_directory", "home", "runs_directory"]

_MARKS_OF_A_CHECKOUT: Final = ("libs/habeas", "services")


def home() -> Path:
    """Give the `.habeas` directory: HABEAS_HOME, else in the checkout around the current directory, else in it."""
    given = os.environ.get("HABEAS_HOME")
    if given:
        return Path(given).resolve()
    here = Path.cwd().resolve()
    for candidate in (here, *here.parents):
        if all((candidate / mark).is_dir() for mark in _MARKS_OF_A_CHECKOUT):
            return candidate / ".habeas"
    return here / ".habeas"


def cache_directory() -> Path:
    """Give the directory of what can be fetched or made again: HABEAS_CACHE, else `.habeas/cache`; made when absent."""
    given = os.environ.get("HABEAS_CACHE")
    cache = Path(given).resolve() if given else home() / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def runs_directory() -> Path:
    """Give the directory that holds one directory per run; made when absent."""
    runs = home() / "run"
    runs.mkdir(parents=True, exist_ok=True)
    return runs
