import asyncio
import os
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import pytest_asyncio
from typing_extensions import override

from habeas_embedded import processes
from habeas_embedded.errors import ServerFailed
from habeas_embedded.own_server import OwnServer
from habeas_embedded.ports import LOOPBACK, answers, free_port
from habeas_embedded.processes import Child
from habeas_embedded.runs import Run
from habeas_embedded.waiting import Patience, until

SLOW = """
    import socket, sys, threading
    pause = threading.Event()
    for step in range(20):
        print(f"step {step}", flush=True)
        pause.wait(0.1)
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        pause.wait()
"""
STUCK = """
    import signal
    print("waits for a lock that nobody gives back", flush=True)
    signal.pause()
"""
REFUSES = "import sys; sys.exit('no such setting')"
ENDS_SLOWLY = """
    import signal, sys, threading
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    print("ready", flush=True)
    told.wait()
    for step in range(20):
        print(f"writing back {step}", flush=True)
        threading.Event().wait(0.1)
"""
NEVER_ENDS = """
    import signal, threading
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    threading.Event().wait()
"""


class StandIn(OwnServer):
    """A server that is a few lines of Python."""

    name = "stand-in"
    title = "The stand-in"
    patience: ClassVar[Patience] = Patience(still_s=0.8, first_word_s=0.3, later_words_s=0.3)

    def __init__(self, run: Run, program: str) -> None:
        self.said: list[str] = []
        self.ports: list[int] = []
        self._program = textwrap.dedent(program)
        super().__init__(run, self.said.append)

    @override
    async def prepare(self) -> None:
        pass

    @override
    def choose_address(self) -> None:
        self.ports.append(free_port())

    @override
    def make_child(self) -> Child:
        return Child(self.name, (sys.executable, "-c", self._program, str(self.ports[-1])), self.log)

    @override
    async def answers(self) -> str | None:
        return None if answers(LOOPBACK, self.ports[-1]) else "its port is closed yet"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run in a home of its own."""
    monkeypatch.setenv("HABEAS_HOME", str(tmp_path))
    run = Run("starts", ephemeral=True)
    yield run
    run.close()


@pytest_asyncio.fixture
async def child(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Child]:
    """A running process that has said that it is ready."""
    child = Child("child", (sys.executable, "-c", textwrap.dedent(request.param)), tmp_path / "log")
    child.spawn()
    assert await until(lambda: child.log.read_text() == "ready\n", 10)
    yield child
    await child.kill()


async def test_slow_start_that_gets_on_is_waited_for(run: Run) -> None:
    """A server whose log grows for longer than one may stand still is waited for, and what it waits for is said."""
    server = StandIn(run, SLOW)
    await server.start()
    assert server.alive
    assert len(server.ports) == 1
    assert "stand-in: still starting" in server.said[0]
    assert "its port is closed yet" in server.said[0]
    await server.stop()


async def test_start_that_stands_still_is_given_up_with_the_end_of_its_log(run: Run) -> None:
    """A server that neither works nor writes is given up once, with its last words, and nothing of it runs on."""
    server = StandIn(run, STUCK)
    with pytest.raises(ServerFailed, match=r"(?s)stands still.*waits for a lock that nobody gives back"):
        await server.start()
    assert not server.alive
    assert len(server.ports) == 1


async def test_server_that_ends_is_tried_at_other_ports(run: Run) -> None:
    """The first start may have lost a race for its port, so it is tried three times before its words are raised."""
    server = StandIn(run, REFUSES)
    with pytest.raises(ServerFailed, match=r"(?s)ended with exit code 1.*no such setting"):
        await server.start()
    assert len(set(server.ports)) == 3


@pytest.mark.parametrize("child", [ENDS_SLOWLY], indirect=True, ids=["slowly"])
async def test_stop_that_gets_on_is_waited_for(child: Child) -> None:
    """A process that still writes back when its limit has passed is not killed."""
    assert await child.stop(0.8)
    assert child.exit_code == 0


@pytest.mark.parametrize("child", [NEVER_ENDS], indirect=True, ids=["never"])
async def test_stop_that_stands_still_ends_by_force(child: Child) -> None:
    """A process that does nothing after it was told to end is killed."""
    assert not await child.stop(0.4)
    assert not child.alive


@pytest.mark.parametrize("child", [NEVER_ENDS], indirect=True, ids=["never"])
async def test_end_of_a_process_wakes_who_waits_for_it(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel tells of a process' end nobody looks again and again: not even once an hour."""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("this system has no pidfd")
    monkeypatch.setattr(processes, "_LOOK_S", 3600)
    await _ends(child)


@pytest.mark.parametrize("child", [NEVER_ENDS], indirect=True, ids=["never"])
async def test_end_of_a_process_is_found_by_looking_where_the_kernel_does_not_tell(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without pidfd the end is noticed all the same."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    await _ends(child)


async def _ends(child: Child) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        waiting = group.create_task(child.ended())
        await asyncio.sleep(0)
        assert not waiting.done()
        group.create_task(child.kill())
    assert not child.alive
