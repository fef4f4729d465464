"""Asking services over plain HTTP on loopback: are you ready, what do you count."""

import asyncio
import json
import re
from typing import Final

from habeas_embedded.ports import LOOPBACK

__all__ = ["ask", "is_ready", "read_metrics", "what_is_missing"]

_PATIENT_S: Final = 10.0  # on a busy machine a service that starts answers late
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


async def what_is_missing(port: int) -> str | None:
    """Return None when the service on this health port says that it is ready, else in a few words what it says instead."""
    status, body = await ask(port, "/readyz", _PATIENT_S)
    if status == 200:  # noqa: PLR2004 (RFC 9110, 15.3.1)
        return None
    if not status:
        return "does not answer yet"
    return f"not ready: {_reasons(body) or status}"


def _reasons(body: bytes) -> str:
    """Read what the service says it waits for, and which of its probes did not pass."""
    try:
        report = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(report, dict):
        return ""
    waits_for, why = report.get("waiting_for"), report.get("why")
    failed = [str(probe.get("name")) for probe in report.get("probes", ()) if probe.get("state") != "ok"]
    return "; ".join(filter(None, (f"waits for {waits_for}" if waits_for else "", str(why or ""), ", ".join(failed))))


async def read_metrics(port: int) -> dict[str, float]:
    """Give each metric summed over its labels; empty when the service does not answer."""
    status, body = await ask(port, "/metrics")
    sums: dict[str, float] = {}
    for name, _, value in _SAMPLE.findall(body) if status else ():
        sums[name.decode()] = sums.get(name.decode(), 0.0) + float(value)
    return sums
