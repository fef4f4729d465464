"""Ports that are given away before somebody listens on them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from habeas_embedded import ports
from habeas_embedded.errors import ServerFailed

GIVE_AND_WAIT = "from habeas_embedded.ports import free_port; print(free_port(), flush=True); input()"


@contextmanager
def another_process() -> Iterator[int]:
    """Another process that was given a port and does not listen on it yet."""
    with subprocess.Popen(
        (sys.executable, "-c", GIVE_AND_WAIT), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        yield int(other.stdout.readline())
        other.communicate("\n")


def test_a_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers of one fleet never get the same port, though nobody listens on it when the second one asks."""
    given, other = ports.free_port(), ports.free_port()
    assert given != other
    monkeypatch.setattr("secrets.randbelow", lambda _: given - ports._FIRST)
    with pytest.raises(ServerFailed, match="no free port"):
        ports.free_port()


def test_a_port_of_another_process_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until that process has ended, whether or not it ever listened there."""
    with another_process() as port:
        monkeypatch.setattr("secrets.randbelow", lambda _: port - ports._FIRST)
        with pytest.raises(ServerFailed, match="no free port"):
            ports.free_port()
    assert ports.free_port() == port
