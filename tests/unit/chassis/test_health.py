"""Health over real HTTP on loopback."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from habeas.chassis import health as health_module
from habeas.chassis.health import Health
from tests.support.waiting import HANGS_S


@pytest_asyncio.fixture
async def health() -> AsyncIterator[Health]:
    """A health server on a free port."""
    server = Health()
    await server.serve()
    yield server
    await server.stop()


async def ask(health: Health, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, media type and body of the answer."""
    async with asyncio.timeout(HANGS_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", health.port)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    status, *headers = head.split("\r\n")
    kinds = [line.partition(": ")[2] for line in headers if line.lower().startswith("content-type")]
    return int(status.split()[1]), kinds[0] if kinds else "", body


async def passes() -> bool:
    """Pass."""
    return True


async def answers_nothing() -> None:
    """Pass, by not raising."""


async def refuses() -> bool:
    """Fail."""
    return False


async def raises() -> bool:
    """Fail with data in the message."""
    raise ValueError("ada.lovelace@example.org")


async def hangs() -> bool:
    """Never answer."""
    await asyncio.Event().wait()
    return True


async def test_alive_without_probes(health: Health) -> None:
    """A process whose loop answers is alive."""
    assert await ask(health, "/livez") == (200, "application/json", '{"state":"ok","probes":[]}')


async def test_ready_while_every_probe_passes(health: Health) -> None:
    """Ready is who passes every probe; live probes are another matter."""
    health.ready("database", passes)
    health.ready("lanes", answers_nothing)
    health.live("consumer", refuses)
    status, _, body = await ask(health, "/readyz")
    assert status == 200
    assert json.loads(body)["probes"] == [{"name": "database", "state": "ok"}, {"name": "lanes", "state": "ok"}]
    assert (await ask(health, "/livez"))[0] == 503


async def test_failing_and_late_probes_are_named(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    """One probe that fails or hangs makes the whole not ready, in bounded time, and shows no values."""
    monkeypatch.setattr(health_module, "_PROBE_S", 0.05)
    health.ready("one", passes)
    health.ready("two", refuses)
    health.ready("three", raises)
    health.ready("four", hangs)
    status, kind, body = await ask(health, "/readyz")
    assert (status, kind) == (503, "application/json")
    states = {probe["name"]: probe["state"] for probe in json.loads(body)["probes"]}
    assert states == {"one": "ok", "two": "failed", "three": "failed", "four": "late"}
    assert "ada" not in body


async def test_metrics_are_prometheus_text(health: Health) -> None:
    """Metrics come in the text format that Prometheus reads."""
    status, kind, body = await ask(health, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain; version=0.0.4")
    assert "# TYPE habeas_lane_held_lanes gauge" in body


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/docs"), ("POST", "/livez"), ("GET", "/livez/x")])
async def test_everything_else_is_a_problem(health: Health, method: str, path: str) -> None:
    """Other paths and methods get 404 as a problem document (RFC 9457)."""
    status, kind, body = await ask(health, path, method)
    assert (status, kind) == (404, "application/problem+json")
    assert json.loads(body) == {"type": "about:blank", "title": "Not Found", "status": 404}


async def test_signals_stay_with_the_service() -> None:
    """Serving health does not take over the handlers of SIGTERM and SIGINT."""
    before = (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    health = Health()
    await health.serve()
    during = (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    await health.stop()
    assert during == before


async def test_stopping_frees_the_port_and_may_be_repeated() -> None:
    """After the stop nobody answers; a second stop does nothing."""
    health = Health()
    await health.serve()
    await health.stop()
    await health.stop()
    with pytest.raises(OSError, match=r"refused|Connect"):
        await asyncio.open_connection("127.0.0.1", health.port)


async def test_a_taken_port_is_an_error() -> None:
    """A port that somebody else has is told at once."""
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        await Health("127.0.0.1", other.getsockname()[1]).serve()
