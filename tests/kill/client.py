"""A platform service that sends orders through the kit and writes down what was acknowledged to it, whatever dies meanwhile."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from aiokafka.errors import KafkaError

from habeas.chassis.clock import Clock
from habeas.contracts.platform import PolicyChanged
from habeas.kit import Issuer, Publisher
from tests.kill.orders import ABSENT, Order, Scenario
from tests.kill.waiting import pause

_SEND_LIMIT_S: Final = 15.0
_STOP_LIMIT_S: Final = 3.0
_AGAIN_S: Final = 0.5


@dataclass(slots=True)
class Sending:
    """What became of one order at the client: how often it was tried, and when it was acknowledged."""

    order: Order
    tries: int = 0
    acked_at: dt.datetime | None = None


@dataclass(slots=True)
class Client:
    """Sends a scenario at a bounded rate; the fate of every order is in `sent`, of ticks and changes in `ticks` and `changes`.

    An order whose acknowledgement does not come in time may have arrived or not, so it is sent again, the same bytes under the same
    id, until one is acknowledged.
    """

    bootstrap: str
    issuer: Issuer
    clock: Clock
    per_second: float
    sent: list[Sending] = field(default_factory=list)
    ticks: list[UUID] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    renewed: int = 0
    _publishers: dict[bool, tuple[int, Publisher]] = field(default_factory=dict)
    _moments: dict[UUID, dt.datetime] = field(default_factory=dict)
    _renewing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def acked(self) -> int:
        """How many orders were acknowledged."""
        return sum(1 for each in self.sent if each.acked_at is not None)

    async def play(self, scenario: Scenario, stopping: asyncio.Event) -> None:
        """Send every order; returns when all are acknowledged, or when told to stop."""
        sends = [[[Sending(order) for order in batch] for batch in group] for group in scenario.groups]
        self.sent += [each for group in sends for batch in group for each in batch]
        begun = self.clock.monotonic()
        started = 0
        async with asyncio.TaskGroup() as tasks:
            for group in sends:
                due = begun + started / self.per_second
                await pause(stopping, due - self.clock.monotonic())
                if stopping.is_set():
                    return
                started += sum(len(batch) for batch in group)
                tasks.create_task(self._play_group(group, stopping))

    async def tick(self, as_of: dt.datetime, tick_id: UUID, stopping: asyncio.Event) -> None:
        """Send a retention tick until it is acknowledged."""
        self.ticks.append(tick_id)
        await self._until_sent(lambda publisher: publisher.tick(as_of, tick_id=tick_id), stopping)

    async def change(self, change: PolicyChanged, stopping: asyncio.Event) -> None:
        """Send a policy change until it is acknowledged."""
        self.changes.append(change.change_id)
        await self._until_sent(lambda publisher: publisher.policy_change(change), stopping)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Client"]:
        """Close whatever publishers were needed at the end."""
        try:
            yield self
        finally:
            for _, publisher in self._publishers.values():
                await _stopped(publisher)

    async def _play_group(self, group: list[list[Sending]], stopping: asyncio.Event) -> None:
        for batch in group:
            await asyncio.gather(*(self._play_one(each, stopping) for each in batch))

    async def _play_one(self, sending: Sending, stopping: asyncio.Event) -> None:
        order = sending.order
        # One moment for all tries and for whoever repeats it: the bytes stay the same.
        moment = self._moments.setdefault(order.request_id, self.clock.now())

        async def send(publisher: Publisher) -> object:
            sending.tries += 1
            return await publisher.request(
                order.right,
                account_id=order.account_id,
                request_id=order.request_id,
                received_at=moment,
                channel=order.channel,
                country=order.country,
                language=order.language,
                details=order.details,
                acr="mfa" if order.acr == ABSENT else order.acr,
                authenticated_at=moment,
            )

        if await self._until_sent(send, stopping, vouched=order.acr != ABSENT):
            sending.acked_at = self.clock.now()

    async def _until_sent(
        self, send: Callable[[Publisher], object], stopping: asyncio.Event, *, vouched: bool = True
    ) -> bool:
        while not stopping.is_set():
            number, publisher = await self._publisher(vouched=vouched)
            try:
                async with asyncio.timeout(_SEND_LIMIT_S):
                    await send(publisher)  # type: ignore[misc]  # always a coroutine
            except (KafkaError, OSError, TimeoutError, RuntimeError):
                await self._renew(number, vouched=vouched)
                await pause(stopping, _AGAIN_S)
            else:
                return True
        return False

    async def _publisher(self, *, vouched: bool) -> tuple[int, Publisher]:
        while True:
            async with self._renewing:
                if vouched in self._publishers:
                    return self._publishers[vouched]
                issuer = self.issuer if vouched else None
                made = Publisher(self.bootstrap, source=self.issuer.name, issuer=issuer, clock=self.clock)
                try:
                    async with asyncio.timeout(_SEND_LIMIT_S):
                        await made.__aenter__()
                except (KafkaError, OSError, TimeoutError):
                    await _stopped(made)
                    continue
                self.renewed += 1
                self._publishers[vouched] = (self.renewed, made)

    async def _renew(self, number: int, *, vouched: bool) -> None:
        """Throw the publisher away that did not answer: its producer may never recover."""
        async with self._renewing:
            found = self._publishers.get(vouched)
            if found is not None and found[0] == number:
                del self._publishers[vouched]
                await _stopped(found[1])


async def _stopped(publisher: Publisher) -> None:
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(_STOP_LIMIT_S):
            await publisher.__aexit__(None, None, None)
