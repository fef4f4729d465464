"""Who plays in a world: its services, what each of them hears, and what is asked of them."""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from habeas.chassis.clock import Clock
from habeas.chassis.database import Database
from habeas.chassis.message import Protection
from habeas.chassis.worker import Handler
from habeas.contracts.topics import Topic

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class Part:
    """One replica that is about to play a service."""

    world: "World"
    service: str
    instance: int
    database: Database
    holder: UUID
    clock: Clock


@dataclass(frozen=True, slots=True)
class Role:
    """What a replica does: handlers by type of event, and sweeps by name."""

    handlers: Mapping[str, Handler]
    sweeps: Mapping[str, Callable[[], Awaitable[object]]]


class Cast(Protocol):
    """Services that play together; made anew for each schedule, whose seed decides what they are asked for."""

    @property
    def hears(self) -> Mapping[str, tuple[Topic, ...]]:
        """The topics of each service."""
        ...

    @property
    def topics(self) -> Sequence[Topic]:
        """Topics in which records are repeated and garbage appears."""
        ...

    @property
    def flow(self) -> Sequence[tuple[str, str]]:
        """The turns by which something that was submitted comes to its end when nothing goes wrong: loop or sweep, and service."""
        ...

    @property
    def protection(self) -> Protection:
        """What seals messages at rest."""
        ...

    @property
    def trouble(self) -> tuple[type[BaseException], ...]:
        """Errors beyond those of database and Kafka that end a turn and not the process."""
        ...

    @property
    def calm_s(self) -> float:
        """How long what is wanted may have to wait for another attempt."""
        ...

    @property
    def wanted(self) -> Mapping[str, str]:
        """Per service, the SQL expression that counts what its sweeps have left to do."""
        ...

    def play(self, part: Part) -> Role:
        """Give what a replica does."""
        ...

    async def submit(self, world: "World", rng: random.Random) -> None:
        """Let somebody want something."""
        ...
