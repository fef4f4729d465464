"""Lanes: which replica works on which keys, and the fence that keeps a replica that lost its lanes from committing.

Every key belongs to one of sixteen lanes; a replica holds leases on lanes in PostgreSQL. All replicas share the database's clock, so
leases run on that and not on the process's. Each change of holder raises the lane's token; the inbox claim locks the lanes with the
tokens it believes in, and finds nothing under a token that has moved on.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from habeas.chassis import crash, log, metrics, store
from habeas.chassis.crash import Point
from habeas.chassis.database import TRANSIENT, Database, Transaction
from habeas.chassis.outbox import ALL_LANES, AUDIT_LANE, LANES
from habeas.chassis.settings import LogLevel
from habeas.chassis.waiting import Outage, on_beat, wait_any

_LOOKS_PER_LEASE: Final = 20  # at most, while leases of others are about to run out


class Lanes:
    """The lanes that this replica holds, renewed at a third of the lease."""

    def __init__(
        self,
        database: Database,
        holder: UUID,
        instance: int,
        lease_s: float,
        gained: Callable[[], None] = lambda: None,
    ) -> None:
        """``gained`` is called when lanes can be worked on that could not before: of what waits in them nobody told this replica."""
        self.holder = holder
        self.held: dict[int, int] = {}
        self._gained = gained
        self._database = database
        self._instance = instance
        self._lease_s = lease_s
        self._lease = timedelta(seconds=lease_s)
        self._renewed = -float("inf")
        self._is_new = True
        self._is_fenced = False
        self._given_back: frozenset[int] = frozenset()
        self._next_expiry_s: float | None = None

    def of_messages(self) -> tuple[list[int], list[int]]:
        """Give the message lanes held and their tokens, empty when the own lease may have run out."""
        if not self._fresh():
            return [], []
        pairs = [(lane, token) for lane, token in self.held.items() if lane != AUDIT_LANE]
        return [lane for lane, _ in pairs], [token for _, token in pairs]

    def has_audit(self) -> bool:
        """Answer whether this replica writes the service's audit log."""
        return AUDIT_LANE in self.held and self._fresh()

    def are_held(self, lanes: Collection[int]) -> bool:
        """Answer whether this replica holds all of these lanes."""
        return len(self.held) == len(ALL_LANES) or self.held.keys() >= set(lanes)

    async def keep(self, stopping: asyncio.Event) -> None:
        """Renew and balance until told to stop; a database that is away costs the lanes, never the process.

        Whoever lives looks again when the next lease of another replica runs out, so that lanes of the dead rest no longer than that.
        """
        outage = Outage("lanes.trouble")
        while not stopping.is_set():
            try:
                await self.step()
            except TRANSIENT as error:
                if not self._fresh():
                    self.held = {}
                await outage.wait(
                    error, stopping
                )  # without lanes nothing is done: ask soon whether the database is back
            else:
                outage.over()
                await wait_any(stopping, stopping, self._wait_s())

    async def step(self) -> None:
        """Renew what is held, in one statement while nothing changes, else with everything that ``balance`` does."""
        if not await self._keep_steady():
            await self.balance()

    async def _keep_steady(self) -> bool:
        """Renew what is held, where nothing else is to be done; False when it is, and then ``balance`` does all of it."""
        if self._is_new or not self.held or not self._fresh():
            return False
        started = self._database.clock.monotonic()
        (row,) = await self._database.change("lanes-keep", store.KEEP_LANES, self.holder, self._instance, self._lease)
        held = dict(zip(row["lanes"] or (), row["tokens"] or (), strict=True))
        least, over = divmod(LANES + 1, row["replicas"] + 1)
        if held != self.held or row["silent"] or len(held) != least + (row["rank"] < over):
            return False
        self._renewed = started
        self._next_expiry_s = row["next_expiry_s"]
        return True

    async def balance(self) -> None:
        """Renew what is held, take what is free up to the fair share, give back what is above it."""
        started = self._database.clock.monotonic()
        before = dict(self.held)
        was_silent = not self._fresh()
        after = await self._database.run("lanes-balance", self._balance)
        self.held = after
        self._is_new = self._is_fenced = False
        self._renewed = started
        taken = {lane: token for lane, token in after.items() if before.get(lane) != token}
        gone = {lane: token for lane, token in before.items() if after.get(lane) != token}
        lost = {lane: token for lane, token in gone.items() if lane not in self._given_back}
        _tell("lanes.taken", taken, held=len(after))
        _tell("lanes.given_back", {lane: gone[lane] for lane in gone if lane not in lost}, held=len(after))
        _tell("lanes.lost", lost, held=len(after), severity=LogLevel.WARNING)
        metrics.LANE_TAKEN_LANES.add(len(taken))
        if taken or was_silent:
            self._gained()
        metrics.LANE_LOST_LANES.add(len(lost))

    async def _balance(self, tx: Transaction) -> dict[int, int]:
        await tx.execute(store.HEARTBEAT, self.holder, self._instance, self._lease)
        if self._is_new:
            # The ordinal is one replica's alone: whoever held lanes under it before is this process's dead predecessor, or a paused
            # one, which the raised token keeps from committing.
            await tx.execute(store.INHERIT_LANES, self.holder, self._instance, self._lease)
            crash.at(Point.LANES_INHERITED)
            await tx.execute(store.FORGET_PREDECESSORS, self.holder, self._instance)
        await tx.execute(store.FORGET_DEAD_REPLICAS)
        share = await self._share(tx)
        self._given_back = frozenset()
        held = {row["lane"]: row["token"] for row in await tx.fetch(store.RENEW_LANES, self.holder, self._lease)}
        crash.at(Point.LANES_RENEWED)
        if len(held) > share:
            spare = sorted(held)[share:]
            await tx.execute(store.RELEASE_LANES, self.holder, spare)
            crash.at(Point.LANES_RELEASED)
            self._given_back = frozenset(spare)
            held = {lane: token for lane, token in held.items() if lane not in spare}
        elif len(held) < share:
            taken = await tx.fetch(store.TAKE_LANES, self.holder, self._lease, share - len(held))
            crash.at(Point.LANES_TAKEN)
            held.update({row["lane"]: row["token"] for row in taken})
        self._next_expiry_s = await tx.fetchval(store.FIND_NEXT_EXPIRY, self.holder)
        return held

    async def _share(self, tx: Transaction) -> int:
        """Give how many lanes are this replica's: together they are all lanes, and nobody has two more than another."""
        row = await tx.fetchrow(store.COUNT_REPLICAS, self.holder, self._instance)
        replicas, rank = (1, 0) if row is None else (max(1, row["replicas"]), row["rank"])
        least, over = divmod(LANES + 1, replicas)
        return least + (rank < over)

    async def leave(self) -> None:
        """Give every lane back at once, so that another replica need not wait for the lease."""
        lanes = list(self.held)
        self.held = {}

        async def release(tx: Transaction) -> None:
            await tx.execute(store.RELEASE_LANES, self.holder, lanes)
            await tx.execute(store.LEAVE, self.holder)

        await self._database.run("lanes-leave", release)

    def _fresh(self) -> bool:
        """Answer whether the own lease still runs, by the own clock; the first time that it does not is told."""
        silent_s = self._database.clock.monotonic() - self._renewed
        if silent_s < self._lease_s:
            return True
        if self.held and not self._is_fenced:
            self._is_fenced = True
            _tell("lanes.fenced", self.held, silent_s=round(silent_s, 3), severity=LogLevel.WARNING)
        return False

    def _wait_s(self) -> float:
        regular_s = on_beat(self._lease_s / 3)
        if self._next_expiry_s is None:
            return regular_s
        return min(regular_s, max(self._next_expiry_s, 0.0) + self._lease_s / _LOOKS_PER_LEASE)


def _tell(name: str, lanes: Mapping[int, int], *, severity: LogLevel = LogLevel.INFO, **more: float) -> None:
    """Log one wide event about lanes with their tokens; none for no lanes."""
    if lanes:
        numbers = sorted(lanes)
        log.event(name, severity=severity, lanes=numbers, tokens=[lanes[lane] for lane in numbers], **more)
