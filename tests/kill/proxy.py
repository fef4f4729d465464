"""A TCP proxy that can be told to cut, refuse, delay and stall, so that a network between two loopback ports can be broken.

It knows no protocol. Bytes that it took from one side and had not given to the other when a connection is cut are lost, as they are on
a network.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from habeas_embedded.ports import LOOPBACK
from tests.kill.waiting import pause

_CHUNK_BYTES: Final = 65_536
_CONNECT_LIMIT_S: Final = 5.0


class Proxy:
    """One listening port in front of one server; an async context manager.

    `target` is asked at every connection, as a server may not have a port yet when its proxy gets one.
    """

    def __init__(self, name: str, target: Callable[[], tuple[str, int]], port: int = 0) -> None:
        self.name = name
        self.port = port
        self.delay_s = 0.0
        self.refuses = False
        self._target = target
        self._closed = asyncio.Event()
        self._flows = asyncio.Event()
        self._flows.set()
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def links(self) -> int:
        """How many connections go through it now."""
        return len(self._links)

    def cut(self, share: float = 1.0, rng: random.Random | None = None) -> int:
        """Reset a share of the connections at both ends; gives how many. New ones are taken all the same."""
        links = sorted(self._links, key=lambda link: link.number)
        if rng is not None:
            links = [link for link in links if rng.random() < share]
        for link in links:
            link.abort()
        return len(links)

    def stall(self) -> None:
        """Forward nothing, as when packets are dropped: connections stay open and silent."""
        self._flows.clear()

    def mend(self) -> None:
        """Forward everything at once again, and take new connections."""
        self.delay_s = 0.0
        self.refuses = False
        self._flows.set()

    async def open(self) -> None:
        """Listen; without a port of its own it takes a free one."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut everything and stop to listen."""
        self.mend()
        self._closed.set()
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self.refuses:
            writer.transport.abort()
            return
        self._tasks.add(task)
        try:
            await self._forward(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_CONNECT_LIMIT_S):
                there = await asyncio.open_connection(*self._target())
        except (OSError, TimeoutError):
            writer.transport.abort()  # who connects through us sees the server as dead as it is
            return
        link = _Link(writer, there[1])
        self._links.add(link)
        try:
            await asyncio.gather(self._pump(reader, there[1], link), self._pump(there[0], writer, link))
        finally:
            self._links.discard(link)
            link.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: "_Link") -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if self.delay_s:
                    await pause(self._closed, self.delay_s)
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
            writer.write_eof()
            return
        link.abort()  # one end was reset: so is the other


class _Link:
    """One connection with its two ends."""

    _made = 0

    def __init__(self, here: asyncio.StreamWriter, there: asyncio.StreamWriter) -> None:
        _Link._made += 1
        self.number = _Link._made
        self._ends = (here, there)

    def abort(self) -> None:
        for end in self._ends:
            end.transport.abort()
