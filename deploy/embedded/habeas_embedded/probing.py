"""Asking services over plain HTTP on loopback: are you ready, what do you count."""

import asyncio
import re
from typing import Final

from habeas_embedded.ports import LOOPBACK

__all__ = ["ask", "is_ready", "read_metrics"]

_ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
_SAMPLE: Final = re.compile(rb"^([a-z_]+)(?:\{([^}]*)\})? ([0-9.eE+-]+)$", re.MULTILINE)


async def ask(port: int, path: str, limit_s: float = 2.5) -> tuple[int, bytes]:
    """GET a path of a loopback port; gives status and body, and status 0 when nobody answers within the limit."""
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n\r\n".encode())
                answer = await reader.read(_ANSWER_BYTES_MAX)
                while more := await reader.read(_ANSWER_BYTES_MAX):
                    answer += more
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)
    return (int(status[1]), body) if len(status) > 1 and status[1].isdigit() else (0, b"")


async def is_ready(port: int) -> bool:
    """Say whether the service on this health port says that it is ready."""
    status, _ = await ask(port, "/readyz")
    return status == 200  # noqa: PLR2004 (RFC 9110, 15.3.1)


async def read_metrics(port: int) -> dict[str, float]:
    """Give each metric summed over its labels; empty when the service does not answer."""
    status, body = await ask(port, "/metrics")
    sums: dict[str, float] = {}
    for name, _, value in _SAMPLE.findall(body) if status else ():
        sums[name.decode()] = sums.get(name.decode(), 0.0) + float(value)
    return sums
