"""Free TCP ports on loopback."""

import secrets
import socket
from contextlib import closing
from typing import Final

from habeas_embedded.errors import ServerFailed

__all__ = ["LOOPBACK", "answers", "free_port"]

LOOPBACK: Final = "127.0.0.1"

# Below the range from which kernels take ports of outgoing connections (from 32768 on Linux, 49152 elsewhere): a server
# that is killed and started again must find its port unused, whatever connections were made meanwhile.
_FIRST: Final = 20_000
_PORTS: Final = 12_000
_TRIES: Final = 200


def free_port() -> int:
    """Give a port of loopback that nobody listens on; raises ServerFailed when none is found in 200 tries."""
    for _ in range(_TRIES):
        port = _FIRST + secrets.randbelow(_PORTS)
        with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise ServerFailed(f"no free port on {LOOPBACK} between {_FIRST} and {_FIRST + _PORTS}")


def answers(host: str, port: int, limit_s: float = 0.2) -> bool:
    """Say whether somebody accepts connections there."""
    try:
        with closing(socket.create_connection((host, port), timeout=limit_s)):
            return True
    except OSError:
        return False
