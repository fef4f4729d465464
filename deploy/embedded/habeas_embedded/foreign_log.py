"""Where libraries write what they have to say while a person looks at our own lines: into a file of the run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from typing_extensions import override

__all__ = ["foreign_log"]

_FORM: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def foreign_log(path: Path) -> Iterator[None]:
    """Write warnings and errors of libraries to a file, and not to standard error between the lines of a table.

    The file, and its directory, are made with the first of them, as a run empties its directory when it begins.
    """
    root = logging.getLogger()
    handler = _Late(path, delay=True)
    handler.setFormatter(logging.Formatter(_FORM))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


class _Late(logging.FileHandler):
    @override
    def _open(self) -> TextIOWrapper:
        path = Path(self.baseFilename)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return super()._open()
