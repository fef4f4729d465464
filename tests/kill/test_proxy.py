"""The proxy between services and servers, over an echo server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import pytest_asyncio

from habeas.chassis.clock import SystemClock
from habeas_embedded.ports import LOOPBACK
from tests.kill.proxy import Proxy
from tests.support.waiting import HANGS_S


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1024):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy before a server that says everything back."""
    server = await asyncio.start_server(_echo, LOOPBACK, 0)
    place = server.sockets[0].getsockname()
    async with Proxy("echo", lambda: place) as proxy:
        yield proxy
    server.close()


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def _connected(proxy: Proxy) -> AsyncIterator[Ends]:
    reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _says(ends: Ends, text: bytes = b"hello") -> bytes:
    ends[1].write(text)
    async with asyncio.timeout(HANGS_S):
        return await ends[0].readexactly(len(text))


async def test_it_forwards_both_ways(proxy: Proxy) -> None:
    """What goes in comes out, also more than one chunk of it, and an end is an end."""
    async with _connected(proxy) as ends:
        text = bytes(range(256)) * 1_000
        assert await _says(ends, text) == text
        ends[1].write_eof()
        assert await ends[0].read() == b""


async def test_a_cut_resets_and_new_connections_work(proxy: Proxy) -> None:
    """Who is connected sees the connection die; who comes again is served."""
    async with _connected(proxy) as ends:
        assert await _says(ends) == b"hello"
        assert proxy.cut() == 1
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await _says(ends)
    async with _connected(proxy) as ends:
        assert await _says(ends) == b"hello"


async def test_refusing_lasts_until_it_is_mended(proxy: Proxy) -> None:
    """Nobody gets through while it refuses; afterwards everybody does."""
    proxy.refuses = True
    async with _connected(proxy) as ends:
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await _says(ends)
    proxy.mend()
    async with _connected(proxy) as ends:
        assert await _says(ends) == b"hello"


async def test_a_stall_is_silent_and_loses_nothing(proxy: Proxy) -> None:
    """While it stalls nothing arrives and nothing breaks; what was sent meanwhile arrives when it is mended."""
    async with _connected(proxy) as ends, asyncio.TaskGroup() as tasks:
        assert await _says(ends) == b"hello"
        proxy.stall()
        answer = tasks.create_task(_says(ends, b"later"))
        _, waiting = await asyncio.wait([answer], timeout=0.3)
        assert waiting == {answer}
        proxy.mend()
        assert await answer == b"later"


async def test_a_delay_is_at_least_as_long_as_said(proxy: Proxy) -> None:
    """Each way takes the delay."""
    async with _connected(proxy) as ends:
        proxy.delay_s = 0.1
        clock = SystemClock()
        begun = clock.monotonic()
        assert await _says(ends) == b"hello"
        assert clock.monotonic() - begun >= 0.2
