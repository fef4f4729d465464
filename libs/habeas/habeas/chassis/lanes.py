"""Lanes: which replica works on which keys, and the fence that keeps a replica that lost its lanes from committing.

Every key belongs to one of sixteen lanes; a replica holds leases on lanes in PostgreSQL. All replicas share the database's clock, so
leases run on that and not on the process's. Each change of holder raises the lane's token; the inbox claim locks the lanes with the
tokens it believes in, and finds nothing under a token that has moved on.
"""

import asyncio
from datetime import timedelta
from uuid import UUID

from habeas.chassis import crash, store
from habeas.chassis.crash import Point
from habeas.chassis.database import TRANSIENT, Database, Transaction
from habeas.chassis.outbox import AUDIT_LANE, LANES


class Lanes:
    """The lanes that this replica holds, renewed at a third of the lease."""

    def __init__(self, database: Database, holder: UUID, instance: int, lease_s: float) -> None:
        self.holder = holder
        self.held: dict[int, int] = {}
        self._database = database
        self._instance = instance
        self._lease_s = lease_s
        self._lease = timedelta(seconds=lease_s)
        self._renewed = -float("inf")
        self._is_new = True

    def of_messages(self) -> tuple[list[int], list[int]]:
        """Give the message lanes held and their tokens, empty when the own lease may have run out."""
        if not self._fresh():
            return [], []
        pairs = [(lane, token) for lane, token in self.held.items() if lane != AUDIT_LANE]
        return [lane for lane, _ in pairs], [token for _, token in pairs]

    def has_audit(self) -> bool:
        """Answer whether this replica writes the service's audit log."""
        return AUDIT_LANE in self.held and self._fresh()

    async def keep(self, stopping: asyncio.Event) -> None:
        """Renew and balance until told to stop; a database that is away costs the lanes, never the process."""
        while not stopping.is_set():
            try:
                await self.balance()
            except TRANSIENT:
                if not self._fresh():
                    self.held = {}
            try:
                await asyncio.wait_for(stopping.wait(), self._lease_s / 3)
            except TimeoutError:
                continue

    async def balance(self) -> None:
        """Renew what is held, take what is free up to the fair share, give back what is above it."""
        started = self._database.clock.monotonic()
        self.held = await self._database.run("lanes-balance", self._balance)
        self._is_new = False
        self._renewed = started

    async def _balance(self, tx: Transaction) -> dict[int, int]:
        await tx.execute(store.HEARTBEAT, self.holder, self._instance, self._lease)
        if self._is_new:
            # The ordinal is one replica's alone: whoever held lanes under it before is this process's dead predecessor, or a paused
            # one, which the raised token keeps from committing.
            await tx.execute(store.INHERIT_LANES, self.holder, self._instance, self._lease)
            crash.at(Point.LANES_INHERITED)
            await tx.execute(store.FORGET_PREDECESSORS, self.holder, self._instance)
        await tx.execute(store.FORGET_DEAD_REPLICAS)
        replicas = max(1, await tx.fetchval(store.COUNT_REPLICAS))
        share = -(-(LANES + 1) // replicas)
        held = {row["lane"]: row["token"] for row in await tx.fetch(store.RENEW_LANES, self.holder, self._lease)}
        crash.at(Point.LANES_RENEWED)
        if len(held) > share:
            spare = sorted(held)[share:]
            await tx.execute(store.RELEASE_LANES, self.holder, spare)
            crash.at(Point.LANES_RELEASED)
            return {lane: token for lane, token in held.items() if lane not in spare}
        if len(held) < share:
            taken = await tx.fetch(store.TAKE_LANES, self.holder, self._lease, share - len(held))
            crash.at(Point.LANES_TAKEN)
            held.update({row["lane"]: row["token"] for row in taken})
        return held

    async def leave(self) -> None:
        """Give every lane back at once, so that another replica need not wait for the lease."""
        lanes = list(self.held)
        self.held = {}

        async def release(tx: Transaction) -> None:
            await tx.execute(store.RELEASE_LANES, self.holder, lanes)
            await tx.execute(store.LEAVE, self.holder)

        await self._database.run("lanes-leave", release)

    def _fresh(self) -> bool:
        return self._database.clock.monotonic() - self._renewed < self._lease_s
