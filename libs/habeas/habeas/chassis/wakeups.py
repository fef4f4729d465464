"""Wake-ups between the processes of one service: NOTIFY on a channel that is named like its schema.

A process wakes its own loops by itself. It tells the other replicas only what they have to do: events or facts for lanes that they hold,
messages stored for them. What operators set in the database is told by the functions that set it. Nothing depends on a wake-up: one that
is lost, with a connection or with the process that owed it, costs the interval at which every loop looks anyway.
"""

import asyncio
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import asyncpg

from habeas.chassis import store
from habeas.chassis.database import TRANSIENT, Database
from habeas.chassis.waiting import Outage, on_beat, wait_any

if TYPE_CHECKING:
    Listening = asyncpg.Connection[asyncpg.Record]

_GATHER_S: Final = 0.02  # what there is to tell meanwhile is told together
_LOOK_S: Final = 60.0  # how often a listener whose end nobody told of is noticed


class Wakeup(StrEnum):
    """What there is to do for another process."""

    EVENTS = "events"  # in the outbox, of lanes that another replica holds
    FACTS = "facts"  # for the audit log, whose lane another replica holds
    MESSAGES = "messages"  # in the inbox, of lanes that another replica holds
    SUPERVISED = "supervised"  # an operator has set or decided something


class Wakeups:
    """Tells the service's other processes, and hears what they tell."""

    def __init__(self, database: Database, own: str) -> None:
        """``own`` names this process among those of its service."""
        self._database = database
        self._own = own
        self._owed: set[Wakeup] = set()
        self._news = asyncio.Event()
        self._reactions: dict[Wakeup, list[Callable[[], None]]] = {}

    def on(self, wakeup: Wakeup, *reactions: Callable[[], None]) -> None:
        """React to what others tell; also after each time in which nothing could be heard, whatever was told then."""
        self._reactions.setdefault(wakeup, []).extend(reactions)

    def tell(self, wakeup: Wakeup) -> None:
        """Wake the others for this, soon; several that come before it is told are told once."""
        self._owed.add(wakeup)
        self._news.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Listen and tell until told to stop, with a connection of its own that is made again whenever it is lost."""
        outage = Outage("wakeups.trouble")
        while not stopping.is_set():
            try:
                async with self._database.apart() as connection:
                    connection.add_termination_listener(self._ended)
                    await connection.add_listener(self._database.schema, self._hear)
                    self._react(self._reactions)
                    while not (stopping.is_set() or connection.is_closed()):
                        await self._pay(connection)
                        outage.over()
                        await wait_any(self._news, stopping, on_beat(_LOOK_S))
            except TRANSIENT as error:
                await outage.wait(error, stopping)

    async def _pay(self, connection: "Listening") -> None:
        self._news.clear()
        owed, self._owed = self._owed, set()
        if owed:
            told = [f"{wakeup} {self._own}" for wakeup in sorted(owed)]
            await connection.execute(store.TELL, self._database.schema, told)
            await asyncio.sleep(_GATHER_S)

    def _ended(self, _: object) -> None:
        self._news.set()

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        told, _, by = str(payload).partition(" ")
        if by != self._own:
            self._react(wakeup for wakeup in Wakeup if wakeup == told)

    def _react(self, wakeups: Iterable[Wakeup]) -> None:
        for wakeup in wakeups:
            for reaction in self._reactions.get(wakeup, ()):
                reaction()
