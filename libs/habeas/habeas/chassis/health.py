"""Health and metrics over HTTP, on loopback unless told otherwise: /livez, /readyz and /metrics, nothing else.

Answers name probes and their states, and carry no values but what operators have set; what went wrong is in the log.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

import orjson
import uvicorn
from typing_extensions import override

from habeas.chassis import log, metrics
from habeas.chassis.redaction import Name

Probe = Callable[[], Awaitable[object]]

_PROBE_S: Final = 2.0
_START_S: Final = 10.0
_STOP_S: Final = 3
_REQUESTS_MAX: Final = 32
_BACKLOG: Final = 64
_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"  # RFC 9457


class State(StrEnum):
    """How a probe went."""

    OK = "ok"
    FAILED = "failed"
    LATE = "late"


class Health:
    """Answers whether the process lives and whether it is ready, by asking every registered probe at each request.

    A probe passes unless it gives False, raises, or takes longer than two seconds.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._host = host
        self._port = port
        self._live: dict[Name, Probe] = {}
        self._ready: dict[Name, Probe] = {}
        self._details: dict[Name, Callable[[], object]] = {}
        self._counts: Callable[[], Awaitable[None]] | None = None
        self._states: dict[Name, State] = {}
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port on which requests are answered; the one that was taken when 0 was asked for."""
        return self._port

    def live(self, name: str, probe: Probe) -> None:
        """Let the process count as alive only while `probe` passes; a failing one gets it restarted."""
        self._live[Name(name)] = probe

    def ready(self, name: str, probe: Probe) -> None:
        """Let the process count as ready only while `probe` passes."""
        self._ready[Name(name)] = probe

    def tell(self, name: str, detail: Callable[[], object]) -> None:
        """Let /readyz carry what `detail` gives, plain JSON, under this name; it changes no answer."""
        self._details[Name(name)] = detail

    def count(self, refresh: Callable[[], Awaitable[None]]) -> None:
        """Let `refresh` bring the gauges up to date before metrics are shown; it bounds its time itself and does not raise."""
        self._counts = refresh

    async def serve(self) -> None:
        """Answer from now on. Raises OSError when the address cannot be had, TimeoutError when the server is stuck."""
        listener = _listen(self._host, self._port)
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self._answer,
            loop="none",
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            limit_concurrency=_REQUESTS_MAX,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=_STOP_S,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="health")
        async with asyncio.timeout(_START_S):
            await self._server.answering.wait()

    async def stop(self) -> None:
        """Answer no more, after what is being answered, but in three seconds at most. Idempotent."""
        if self._server is None or self._serving is None:
            return
        self._server.end()
        serving, self._serving = self._serving, None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S + 1):
                await serving

    async def _answer(self, scope: Mapping[str, Any], _receive: object, send: Callable[[Any], Awaitable[None]]) -> None:
        """Be an ASGI application."""
        match scope["type"], scope.get("method"), scope.get("path"):
            case "http", "GET", "/livez":
                status, kind, body = await self._report(self._live, {})
            case "http", "GET", "/readyz":
                status, kind, body = await self._report(self._ready, self._details)
            case "http", "GET", "/metrics":
                if self._counts is not None:
                    await self._counts()
                status, kind, body = 200, metrics.CONTENT_TYPE, metrics.render()
            case _:
                problem = {"type": "about:blank", "title": "Not Found", "status": 404}
                status, kind, body = 404, _PROBLEM, orjson.dumps(problem)
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _report(
        self, probes: Mapping[Name, Probe], details: Mapping[Name, Callable[[], object]]
    ) -> tuple[int, str, bytes]:
        states = await asyncio.gather(*(self._ask(name, probe) for name, probe in probes.items()))
        passed = all(state is State.OK for state in states)
        listed = [{"name": str(name), "state": state.value} for name, state in zip(probes, states, strict=True)]
        body = {
            "state": State.OK.value if passed else State.FAILED.value,
            "probes": listed,
            **{str(name): detail() for name, detail in details.items()},
        }
        return (200 if passed else 503), _JSON, orjson.dumps(body)

    async def _ask(self, name: Name, probe: Probe) -> State:
        error: BaseException | None = None
        try:
            async with asyncio.timeout(_PROBE_S):
                state = State.FAILED if await probe() is False else State.OK
        except TimeoutError as late:
            state, error = State.LATE, late
        except Exception as failed:  # noqa: BLE001 -- whatever goes wrong, the probe did not pass
            state, error = State.FAILED, failed
        if self._states.get(name, State.OK) is not state:
            log.event("health.changed", probe=name, state=state, error=error)
        self._states[name] = state
        return state


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, as stopping is the service's decision, and without its ten looks a second for an end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answering = asyncio.Event()
        self._ended = asyncio.Event()

    def end(self) -> None:
        """Answer no more."""
        self.should_exit = True
        self._ended.set()

    @override
    async def main_loop(self) -> None:
        await self.on_tick(0)  # sets the headers that every answer has
        await self._ended.wait()

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.answering.set()

    @contextlib.contextmanager
    @override
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
