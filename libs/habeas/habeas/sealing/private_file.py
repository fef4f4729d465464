"""Files that only their owner may read, from the moment they are there."""

import os

__all__ = ["open_private"]


def open_private(path: str, flags: int) -> int:
    """Open a file, and make it with mode 0600 where it has to be made; for ``opener`` of the builtin ``open``."""
    return os.open(path, flags, mode=0o600)
