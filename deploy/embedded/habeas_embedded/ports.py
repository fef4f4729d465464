"""Free TCP ports on loopback."""

import fcntl
import os
import secrets
import socket
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Final

from habeas_embedded.errors import ServerFailed

__all__ = ["LOOPBACK", "answers", "free_port"]

LOOPBACK: Final = "127.0.0.1"

# Below the range from which kernels take ports of outgoing connections (from 32768 on Linux, 49152 elsewhere): a server
# that is killed and started again must find its port unused, whatever connections were made meanwhile.
_FIRST: Final = 20_000
_PORTS: Final = 12_000
_TRIES: Final = 200

_given: Final[set[int]] = set()  # locks of one process do not exclude each other


def free_port() -> int:
    """Give a port of loopback that nobody listens on, and that no other call has given, also of another process of this user.

    Between the choice of a port and the start of its server pass seconds, so a port stays reserved until this process ends.
    Raises ServerFailed when none is found in 200 tries, or when the file of reservations cannot be opened.
    """
    for _ in range(_TRIES):
        port = _FIRST + secrets.randbelow(_PORTS)
        if port in _given or not _reserve(port):
            continue
        with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        return port
    raise ServerFailed(f"no free port on {LOOPBACK} between {_FIRST} and {_FIRST + _PORTS}")


def _reserve(port: int) -> bool:
    """Lock the byte of this port in a file of this user; the kernel lets go of it when the process ends, however it ends."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):  # POSIX allows both for a lock that another process holds
        return False
    _given.add(port)
    return True


@cache
def _reservations() -> int:
    path = Path(tempfile.gettempdir()) / f"habeas-ports-{os.getuid()}"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServerFailed(f"{path} cannot be opened: {error.strerror}") from None


def answers(host: str, port: int, limit_s: float = 0.2) -> bool:
    """Say whether somebody accepts connections there."""
    try:
        with closing(socket.create_connection((host, port), timeout=limit_s)):
            return True
    except OSError:
        return False
