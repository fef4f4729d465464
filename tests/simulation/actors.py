"""Processes whose every touch of the world is a place to stop, lose an answer, or die.

Only one of them runs at a time: the scheduler lets it go on until it ends or stands still at a gate. What lies between two gates is
the code of production, unchanged; gates stand around the database's connections and around Kafka.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

import asyncpg
from asyncpg.exceptions import ConnectionDoesNotExistError, LockNotAvailableError

from habeas.chassis.crash import Point
from tests.simulation.fate import CALM, Fate, Weather
from tests.support.waiting import HANGS_S

_ASYNC: Final = frozenset(
    {"fetch", "fetchrow", "fetchval", "execute", "executemany", "copy_records_to_table", "prepare"}
)


class Crashed(BaseException):
    """The process is no more."""


class Hangs(AssertionError):
    """A process neither ended nor stood still at a gate: it waits for something that the simulation does not know."""


@dataclass(eq=False)
class Actor:
    """One loop of one process; ``unit`` is a single turn of it."""

    name: str
    unit: Callable[[], Awaitable[object]]
    task: "asyncio.Task[object] | None" = None
    at: str = ""
    is_dead: bool = False
    must_yield: bool = False
    wake: "asyncio.Future[None] | None" = None
    idle: "asyncio.Future[None] | None" = None

    @property
    def is_inside(self) -> bool:
        """Whether it stands still inside of a turn; a consumer's turn ends where it fetches."""
        return self.wake is not None and self.at != "fetch"


@dataclass
class Stage:
    """Lets actors go on, one at a time, and says what happens to them."""

    rng: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 -- a schedule must repeat
    weather: Weather = CALM
    trace: Callable[[str], None] = lambda _: None

    async def gate(self, point: str) -> Fate:
        """Pass a place at which the world may interfere; raises ``Crashed`` when the process dies there."""
        actor = _current.get()
        if actor.is_dead:
            raise Crashed
        fate = Fate(self.rng, self.weather)
        if fate.is_crash:
            self.trace(f"{actor.name} dies at {point}")
            actor.is_dead = True
            raise Crashed
        if fate.is_held or actor.must_yield:
            actor.must_yield = False
            await self._hold(actor, point)
        if fate.is_lost:
            self.trace(f"{actor.name} loses {point}")
        return fate

    def at(self, point: Point) -> None:
        """Pass one of the chassis' own crash points: the process may die there."""
        actor = _current.get(None)
        if actor is not None and self.weather.crash and self.rng.random() < self.weather.crash:
            self.trace(f"{actor.name} dies at {point}")
            actor.is_dead = True
            raise Crashed

    async def hold(self, point: str) -> None:
        """Stand still whatever the weather is."""
        await self._hold(_current.get(), point)

    async def _hold(self, actor: Actor, point: str) -> None:
        if point != "fetch":
            self.trace(f"{actor.name} is held at {point}")
        actor.at = point
        actor.wake = asyncio.get_running_loop().create_future()
        if actor.idle is not None and not actor.idle.done():
            actor.idle.set_result(None)
        await actor.wake
        if actor.is_dead:
            raise Crashed

    async def go_on(self, actor: Actor) -> BaseException | None:
        """Let an actor take its next turn, or go on inside of the one it stands still in; gives what ended the turn."""
        loop = asyncio.get_running_loop()
        actor.idle = loop.create_future()
        if actor.task is None:
            token = _current.set(actor)
            actor.task = loop.create_task(_turn(actor))
            _current.reset(token)
        elif actor.wake is not None:
            wake, actor.wake = actor.wake, None
            wake.set_result(None)
        try:
            async with asyncio.timeout(HANGS_S):
                await actor.idle
        except TimeoutError:
            raise Hangs(f"{actor.name}, last seen at {actor.at}") from None
        if not actor.task.done():
            return None
        task, actor.task = actor.task, None
        return task.exception()

    async def kill(self, actor: Actor) -> None:
        """End an actor where it stands; what it had open is undone, as the server does for a lost connection."""
        actor.is_dead = True
        if actor.task is not None:
            await self.go_on(actor)


_current: ContextVar[Actor] = ContextVar("actor")


async def _turn(actor: Actor) -> object:
    try:
        return await actor.unit()
    finally:
        if actor.idle is not None and not actor.idle.done():
            asyncio.get_running_loop().call_soon(_settle, actor.idle)


def _settle(idle: "asyncio.Future[None]") -> None:
    if not idle.done():
        idle.set_result(None)


class Pool:
    """A pool whose connections pass gates."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", stage: Stage) -> None:
        self._pool = pool
        self._stage = stage

    def acquire(self, *, timeout: float | None = None) -> "_Acquired":
        """Give a connection for a block."""
        return _Acquired(self._pool.acquire(timeout=timeout), self._stage)


class _Acquired:
    def __init__(self, inner: AbstractAsyncContextManager[Any], stage: Stage) -> None:
        self._inner = inner
        self._stage = stage

    async def __aenter__(self) -> "_Connection":
        return _Connection(await self._inner.__aenter__(), self._stage)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._inner.__aexit__(kind, error, traceback)


class _Connection:
    """A connection that may be lost before each statement."""

    def __init__(self, inner: Any, stage: Stage) -> None:  # noqa: ANN401 -- asyncpg's proxy
        self._inner = inner
        self._stage = stage

    def transaction(self, **options: object) -> "_Transaction":
        """Give a transaction for a block."""
        return _Transaction(self._inner.transaction(**options), self._stage)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever asyncpg has there
        inner = getattr(self._inner, name)
        if name not in _ASYNC:
            return inner

        async def gated(sql: str, *args: object, **options: object) -> object:
            if (await self._stage.gate(_point(sql))).is_lost:
                raise ConnectionDoesNotExistError("the simulation cut the connection")
            try:
                return await inner(sql, *args, **options)
            except LockNotAvailableError:
                _current.get().must_yield = True  # whoever holds the lock stands still: let the scheduler reach it
                raise

        return gated


class _Transaction:
    """A transaction whose commit may fail, or succeed without anybody learning it."""

    def __init__(self, inner: Any, stage: Stage) -> None:  # noqa: ANN401 -- asyncpg's transaction
        self._inner = inner
        self._stage = stage

    async def __aenter__(self) -> None:
        if (await self._stage.gate("begin")).is_lost:
            raise ConnectionDoesNotExistError("the simulation cut the connection")
        await self._inner.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            await self._inner.__aexit__(kind, error, traceback)
            return
        try:
            if (await self._stage.gate("commit")).is_lost:
                raise ConnectionDoesNotExistError("the simulation cut the connection")
        except BaseException as lost:
            await self._inner.__aexit__(type(lost), lost, None)
            raise
        await self._inner.__aexit__(None, None, None)
        if (await self._stage.gate("committed")).is_lost:
            raise ConnectionDoesNotExistError("the simulation cut the connection")


def _point(sql: str) -> str:
    """Name a statement by its comment and its first words."""
    return " ".join(sql.split()[:6])
