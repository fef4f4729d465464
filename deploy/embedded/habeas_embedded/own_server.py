"""What Kafka, PostgreSQL and the mail sink have in common as child processes of ours: their start, their stop, their address."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final

from habeas_embedded.errors import ServerFailed
from habeas_embedded.processes import Child, end_of_log
from habeas_embedded.runs import Run
from habeas_embedded.waiting import Patience, until, until_progress_ends

__all__ = ["OwnServer"]

_START_TRIES: Final = 3


class OwnServer(ABC):
    """One server of a run. Its address is chosen at the first start and stays the same over stop, kill and start."""

    name: ClassVar[str]
    title: ClassVar[str]
    patience: ClassVar[Patience] = Patience(still_s=60.0)

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        self.wanted = False
        self.log = run.logs / f"{self.name}.log"
        self._run = run
        self._say = say
        self._child: Child | None = None
        self._starting = False
        self._has_address = False

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.alive

    @property
    def stop_limit_s(self) -> float:
        """How long it may stand still while it is stopped."""
        return 20.0

    async def ended(self) -> None:
        """Wait until the process has ended; return at once when there is none."""
        if self._child is not None:
            await self._child.ended()

    async def start(self) -> None:
        """Start the server and wait until it answers, for as long as it gets on; nothing happens when it runs.

        Raises:
            ServerFailed: it ended, or stood still for a minute; the text has the end of its log.
        """
        await until(lambda: not self._starting, math.inf)
        if self.alive:
            return
        self._starting = self.wanted = True
        try:
            await self._start()
        finally:
            self._starting = False

    async def stop(self) -> None:
        """Stop in order, or at once when it stands still."""
        self.wanted = False
        child = self._child
        if child is not None and child.alive:
            await child.stop(self.stop_limit_s)
            self._run.forget(child)

    async def kill(self) -> None:
        """End the server and all its processes as a crash would."""
        if self._child is not None:
            await self._child.kill()
            self._run.forget(self._child)

    @abstractmethod
    async def prepare(self) -> None:
        """Make what the process needs on disk, as far as missing."""

    @abstractmethod
    def choose_address(self) -> None:
        """Choose free ports."""

    @abstractmethod
    def make_child(self) -> Child:
        """Return the process to be started, for the address chosen."""

    @abstractmethod
    async def answers(self) -> str | None:
        """Return None when a client gets an answer, else in a few words what is seen instead."""

    async def _start(self) -> None:
        await self.prepare()
        # Another process may take a free port before our server does. A later start must come back at the same address.
        for left in reversed(range(1 if self._has_address else _START_TRIES)):
            if not self._has_address:
                self.choose_address()
            self._child = child = self.make_child()
            child.spawn()
            self._run.remember(child)
            if await self._until_it_answers(child):
                self._has_address = True
                return
            has_ended = not child.alive
            await self.kill()
            if left == 0 or not has_ended:
                what = f"ended with exit code {child.exit_code}" if has_ended else "stands still"
                raise ServerFailed(
                    f"{self.title} did not start, it {what}; its log {self.log} ends with:\n{end_of_log(self.log)}"
                )

    async def _until_it_answers(self, child: Child) -> bool:
        seen: str | None = "no answer yet"
        begun = time.monotonic()

        async def answers_or_ended() -> bool:
            nonlocal seen
            seen = await self.answers() if child.alive else None
            return seen is None

        def told(waited_s: float) -> None:
            self._say(f"{self.name}: still starting, {waited_s:.0f} s, {seen}; its log is {self.log}")

        done = await until_progress_ends(
            answers_or_ended, lambda: (child.progress(self.log), seen), self.patience, told
        )
        waited_s = time.monotonic() - begun
        if done and child.alive and waited_s > self.patience.first_word_s:
            self._say(f"{self.name}: answers after {waited_s:.0f} s")
        return done and child.alive
