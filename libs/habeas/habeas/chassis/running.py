"""What exists while a service runs, how its parts wake one another, and how they are stopped.

Nothing here looks for work in short intervals. Commits wake the relay, stored messages the worker, handled messages the sweeps that wait
for them; other processes are heard over ``wakeups``. Every part also looks by itself now and then, all in one wake-up of the process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from habeas.chassis import gauges, kafka, log, metrics, troubles
from habeas.chassis.consumer import Consumer
from habeas.chassis.control import Control
from habeas.chassis.database import Database
from habeas.chassis.follow import Follower
from habeas.chassis.health import Health
from habeas.chassis.ids import uuid7
from habeas.chassis.lanes import Lanes
from habeas.chassis.message import Protection
from habeas.chassis.outbox import ALL_LANES, AUDIT_LANE, Pending, lane_of
from habeas.chassis.producer import Producer
from habeas.chassis.relay import Relay
from habeas.chassis.settings import ChassisSettings, LogLevel
from habeas.chassis.sweep import Schedule
from habeas.chassis.trim import Trimmer, sensitive
from habeas.chassis.troubles import Troubles, Work
from habeas.chassis.waiting import bounded
from habeas.chassis.wakeups import Wakeup, Wakeups
from habeas.chassis.worker import Handler, Worker
from habeas.contracts.topics import Topic

_POLL_AGE_MAX_S: Final = 120.0
_ROLL_AFTER_S: Final = 1.2


@dataclass(frozen=True, slots=True)
class Declared:
    """What a service reacts to, as its composition root declares it."""

    handlers: Mapping[str, Handler]
    topics: dict[str, Topic]
    schedules: Sequence[Schedule]
    followers: Sequence[Callable[[Database], Follower]]
    measures: Sequence[Callable[[Database], Awaitable[None]]]


class Running:
    """The parts of one process of a service, wired by hand."""

    def __init__(
        self, name: str, settings: ChassisSettings, database: Database, protection: Protection, declared: Declared
    ) -> None:
        self.database = database
        self.settings = settings
        self.client_id = f"{name}-{settings.instance}"
        self.topics = frozenset(declared.topics)
        self._kafka_seen_at = database.clock.monotonic()
        self._was_kafka_there = True
        holder = uuid7(database.clock)
        self.wakeups = Wakeups(database, holder.hex)
        self.lanes = Lanes(database, holder, settings.instance, settings.lease_s, self._lanes_gained)
        self.producers = (Producer(settings, f"{self.client_id}-relay"), Producer(settings, f"{self.client_id}-audit"))
        self.relay = Relay(name, database, self.lanes, self.producers[0], settings, self.producers[1])
        self.control = Control(database, settings.log_level, self.look)
        self.worker = Worker(
            database,
            self.lanes,
            declared.handlers,
            declared.topics,
            protection,
            settings,
            self._handled,
            paused=self.control.is_paused,
        )
        self.consumer = self._consumer(name, declared, protection) if declared.topics else None
        self.trimmer = self._trimmer(name, declared.topics)
        self.sweeps = [schedule.on(database) for schedule in declared.schedules]
        self.followers = [build(database) for build in declared.followers]
        self.counts = gauges.Counts(
            database.clock, [self._gauge, *(partial(measure, database) for measure in declared.measures)]
        )
        database.on_commit(self._committed)
        self._hear()

    def _consumer(self, name: str, declared: Declared, protection: Protection) -> Consumer:
        wanted = frozenset(declared.handlers)
        consumer = Consumer(name, declared.topics, wanted, self.database, protection, self.settings, self.worker)
        consumer.stored = self._messages_stored
        return consumer

    def _trimmer(self, name: str, topics: dict[str, Topic]) -> Trimmer | None:
        names = sensitive(topics)
        if self.consumer is None or not names:
            return None
        producer = Producer(self.settings, f"{self.client_id}-trimmer")
        trimmer = Trimmer(
            name,
            names,
            self.consumer,
            producer,
            self.database.clock,
            self.settings,
            roll_after_s=_ROLL_AFTER_S,
            troubles=Troubles(self.database, Work.TRIM),
        )
        self.consumer.seen = trimmer.see
        self.consumer.given = trimmer.look
        return trimmer

    def jobs(self, stopping: asyncio.Event) -> Iterator[Coroutine[Any, Any, None]]:
        """Give what runs until told to stop; a job that raises has met something that it could not live with."""
        paused = self.control.is_paused
        yield self.wakeups.run(stopping)
        yield self.lanes.keep(stopping)
        yield self.relay.run(stopping)
        yield self.relay.run_facts(stopping)
        yield self.worker.run(stopping)
        yield self.control.keep(stopping)
        for sweep in self.sweeps:
            yield sweep.run(stopping, self._done, paused)
        for follower in self.followers:
            client_id = f"{self.client_id}-follower"
            yield follower.run(self.settings, client_id, self.database.clock, stopping, self._done, paused)
        if self.consumer is not None:
            yield self.consumer.run(stopping)
        if self.trimmer is not None:
            yield self.trimmer.run(stopping)

    async def stop(self, tasks: Collection["asyncio.Task[None]"]) -> None:
        """Stop in the order in which work flows; every step is bounded."""
        part_s = self.settings.stop_timeout_s / 4
        _, late = await asyncio.wait(tasks, timeout=part_s) if tasks else (set(), set())
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)
        if self.consumer is not None:
            await bounded(self.consumer.stop(), part_s)
        await bounded(self._drain(), part_s / 2)
        await asyncio.gather(*(bounded(producer.stop(), part_s / 2) for producer in self.producers))
        await bounded(self.lanes.leave(), part_s / 2)

    async def _drain(self) -> None:
        self.relay.look()
        while await self.relay.step():
            pass

    def unsettle(self) -> None:
        """Look anew from where partitions are to be read: the database's server is another one."""
        if self.consumer is not None:
            self.consumer.look_anew()

    # -- what wakes what

    def look(self) -> None:
        """Let every part look whether there is something to do, now."""
        self.relay.look()
        self.worker.note()
        for wake in (*(sweep.wake for sweep in self.sweeps), *(follower.wake for follower in self.followers)):
            wake.set()

    def _lanes_gained(self) -> None:
        self.relay.look()
        self.worker.note()

    def _handled(self, types: Collection[str]) -> None:
        for sweep in self.sweeps:
            if not sweep.causes.isdisjoint(types):
                sweep.wake.set()

    def _done(self, by: str) -> None:
        """Something was swept or followed that other sweeps may wait for."""
        self._handled((by,))

    def _committed(self, pending: Pending) -> None:
        """Wake the own relay, and the other replicas' for what lies in lanes that they hold; and the sweeps that wait for what was done."""
        self.relay.note_soon(pending)
        if pending.did:
            self._handled(pending.did)
        if self.lanes.are_held(ALL_LANES):
            return
        if pending.facts and not self.lanes.are_held((AUDIT_LANE,)):
            self.wakeups.tell(Wakeup.FACTS)
        if pending.events and not self.lanes.are_held({lane_of(event.key().encode()) for event, *_ in pending.events}):
            self.wakeups.tell(Wakeup.EVENTS)

    def _messages_stored(self, lanes: Collection[int]) -> None:
        if not self.lanes.are_held(lanes):
            self.wakeups.tell(Wakeup.MESSAGES)

    def _hear(self) -> None:
        self.wakeups.on(Wakeup.EVENTS, self.relay.look_for_events)
        self.wakeups.on(Wakeup.FACTS, self.relay.look_for_facts_soon)
        self.wakeups.on(Wakeup.MESSAGES, self.worker.note)
        self.wakeups.on(Wakeup.SUPERVISED, self.control.wake.set, self.look)

    # -- what is shown

    def register(self, health: Health) -> None:
        """Let health answer for the parts."""

        async def assigned() -> bool:
            return self.consumer is None or self.consumer.membership.is_given

        async def leased() -> bool:
            return bool(self.lanes.held)

        async def not_halted() -> bool:
            return not self.worker.halted

        async def connected() -> bool:
            return self.is_kafka_there()

        async def polling() -> bool:
            begun = None if self.consumer is None else self.consumer.polled_at
            return begun is None or self.database.clock.monotonic() - begun < _POLL_AGE_MAX_S

        health.live("consumer", polling)
        health.ready("database", self.database.ping)
        health.ready("kafka", connected)
        health.ready("lanes", leased)
        health.ready("consumer", assigned)
        health.ready("worker", not_halted)
        health.tell("control", self.control.shown)
        health.count(self.counts.refresh)

    def is_kafka_there(self) -> bool:
        """Answer whether every reader has a connection to a Kafka with its topics; without a reader there is nothing to look at."""
        reads = self.consumer is None or kafka.is_reading(self.consumer.subscriber.consumer, self.topics)
        return reads and all(follower.is_reading for follower in self.followers)

    def see_kafka(self) -> None:
        """Note whether Kafka is there, and say so when that has changed."""
        now = self.database.clock.monotonic()
        is_there = self.is_kafka_there()
        if is_there and not self._was_kafka_there:
            log.event("service.kafka_back", seconds=round(now - self._kafka_seen_at, 1))
        elif not is_there and self._was_kafka_there:
            log.event("service.kafka_away", severity=LogLevel.WARNING)
        self._was_kafka_there = is_there
        self._kafka_seen_at = now if is_there else self._kafka_seen_at
        metrics.KAFKA_UNREACHABLE_S.set(now - self._kafka_seen_at)

    async def _gauge(self) -> None:
        self.see_kafka()
        await gauges.show(self.database, self.lanes, self.worker, self.consumer, self.sweeps)
        await troubles.show(self.database)
