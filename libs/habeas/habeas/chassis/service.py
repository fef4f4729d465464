"""A service: what it reacts to, and how its process starts, runs and stops.

Start in any order: it waits, bounded, for database, schema, Kafka and topics, then for its own preparations; what stays missing ends the
start with the reason. Stop in bounded time: consuming ends first, the batch in progress is finished, the outbox gets a last pass, lanes are
given back. A deadline behind everything ends the process even where a library hangs.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from habeas.chassis import crash, gauges, history, kafka, log, metrics, migrations, store, tracing
from habeas.chassis.batch import Batch
from habeas.chassis.clock import Clock, SystemClock
from habeas.chassis.consumer import Consumer, Records
from habeas.chassis.control import LOOK_S, Control
from habeas.chassis.database import TRANSIENT, Database, Transaction
from habeas.chassis.follow import Follower
from habeas.chassis.health import Health
from habeas.chassis.history import DatabaseRestored
from habeas.chassis.ids import uuid7
from habeas.chassis.lanes import Lanes
from habeas.chassis.message import Protection
from habeas.chassis.positions import RecordsGone
from habeas.chassis.producer import Producer
from habeas.chassis.redaction import Name
from habeas.chassis.relay import Relay
from habeas.chassis.settings import ChassisSettings, LogLevel
from habeas.chassis.sweep import Sweep, Swept
from habeas.chassis.trim import Trimmer, sensitive
from habeas.chassis.waiting import bounded, is_cancelled, wait_any
from habeas.chassis.watchdog import Deadman, Watchdog
from habeas.chassis.worker import Handler, Worker
from habeas.contracts.model import Event
from habeas.contracts.topics import Topic

E = TypeVar("E", bound=Event)
P = ParamSpec("P")
T = TypeVar("T")

_EXIT_OVERDUE: Final = 75
_EXIT_FAILED: Final = 70
_EXIT_PAST_UNKNOWN: Final = (
    65  # EX_DATAERR: the database is older than what was told; nothing goes on before an operator decides
)
_PARTITION_DAYS_AHEAD: Final = 7
_HOUSEKEEPING_S: Final = 3600.0
_POLL_AGE_MAX_S: Final = 120.0
_MEASURES_S: Final = 30.0
_GAUGE_RESTS: Final = 25.0  # long queues take long to count; counting them must take no part in making them longer
_REST_S_MAX: Final = 30.0
_HISTORY_S: Final = 1.0
_DROP_ROWS_MAX: Final = 10_000
_KAFKA_TROUBLE: Final = (kafka.KafkaError, OSError, TimeoutError)
_HISTORY_TROUBLE: Final = (DatabaseRestored, *_KAFKA_TROUBLE, *TRANSIENT)
_OUTBOX_KEPT: Final = timedelta(days=14)  # longer than any topic keeps records, so that a lost Kafka can be refilled
_SEEN_KEPT: Final = timedelta(days=21)  # longer than the outbox, so that no replay finds its copies forgotten


@dataclass(frozen=True, slots=True)
class _Running:
    """Everything that exists only while the process runs."""

    database: Database
    control: Control
    lanes: Lanes
    relay: Relay
    producers: tuple[Producer, ...]
    worker: Worker
    consumer: Consumer | None


class Service:
    """One service, wired by hand: ``on``, ``every``, ``follow`` and ``prepare`` say all that it reacts to; ``run`` runs it."""

    def __init__(
        self, name: str, settings: ChassisSettings, *, protection: Protection, clock: Clock | None = None
    ) -> None:
        self.name = name
        self.schema = name.replace("-", "_")
        self.settings = settings
        self.clock: Clock = clock or SystemClock(offset_s=settings.clock_offset_s)
        self.handlers: dict[str, Handler] = {}
        self.topics: dict[str, Topic] = {}
        self.stopping = asyncio.Event()
        self._protection = protection
        self._sweeps: list[Sweep] = []
        self._sweepers: list[Callable[[Database], Sweep]] = []
        self._followers: list[Callable[[Database], Follower]] = []
        self._preparations: list[Callable[[Database], Awaitable[None]]] = []
        self._measures: list[Callable[[Database], Awaitable[None]]] = []
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._failure: BaseException | None = None
        self._is_started = False

    def on(
        self,
        event: type[E],
        handler: Callable[Concatenate[Batch[E], Transaction, P], Awaitable[None]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Handle events of one type, once each, in order per key."""

        async def handle(batch: Batch[Any], tx: Transaction) -> None:
            await handler(batch, tx, *args, **kwargs)

        self.handlers[event.type] = handle
        self.topics[event.topic.name] = event.topic

    def every(
        self,
        seconds: float,
        sweep: Callable[Concatenate[Database, P], Awaitable[Swept]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Run a sweep on start, then at least this often; handled messages wake it before."""
        self._add_sweep(sweep.__name__, seconds, lambda database: sweep(database, *args, **kwargs), is_woken=True)

    def seldom(
        self,
        seconds: float,
        sweep: Callable[Concatenate[Database, P], Awaitable[Swept]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Run a sweep on start, then this often, whatever is handled."""
        self._add_sweep(sweep.__name__, seconds, lambda database: sweep(database, *args, **kwargs), is_woken=False)

    def _add_sweep(
        self, name: str, seconds: float, once: Callable[[Database], Awaitable[Swept]], *, is_woken: bool
    ) -> None:
        self._sweepers.append(
            lambda database: Sweep(name, seconds, partial(once, database), self.clock, is_woken=is_woken)
        )

    def follow(self, build: Callable[[Database], Follower]) -> None:
        """Read one partition strictly in order, with a position that the handler keeps."""
        self._followers.append(build)

    def measure(self, look: Callable[[Database], Awaitable[None]]) -> None:
        """Show figures of the service's own tables as metrics, every half minute, also while it is paused."""
        self._measures.append(look)

    def prepare(self, check: Callable[[Database], Awaitable[None]]) -> None:
        """Run before anything is consumed, again while the database is away; any other error ends the start."""
        self._preparations.append(check)

    def close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Run after everything has stopped, such as the closing of a store's pool."""
        self._closers.append(closer)

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until an invariant breaks; gives the process's exit code."""
        log.configure(self.name, self.settings.log_level, instance=self.settings.instance, clock=self.clock)
        tracing.configure(self.name, self.settings)
        metrics.BUILD_INFO.set(1, service=Name(self.name), version=Name("v" + version("habeas")))
        if self.settings.crash_at is not None:
            crash.arm_kill(self.settings.crash_at)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        watchdog = Watchdog(loop, self.settings.watchdog_s)
        watchdog.start()
        health = Health(self.settings.health_host, self.settings.health_port)
        health.ready("service", self._at_work)
        await health.serve()
        try:
            return await self._run(health)
        finally:
            await health.stop()
            watchdog.stop()
            tracing.shutdown()

    async def _at_work(self) -> bool:
        """Answer whether everything was there at the start, and no stop was asked for since."""
        return self._is_started and not self.stopping.is_set()

    async def _run(self, health: Health) -> int:
        started = self.clock.monotonic()
        database = await self._await_database()
        if database is None:
            return _EXIT_FAILED if not self.stopping.is_set() else 0
        try:
            if not await self._kafka_there():
                return _EXIT_FAILED if not self.stopping.is_set() else 0
            if not await self._history_holds(health, database):
                return _EXIT_PAST_UNKNOWN if not self.stopping.is_set() else 0
            if not await self._prepared(database):
                return _EXIT_FAILED if not self.stopping.is_set() else 0
            running = self._assemble(database)
            self._register(health, running)
            if not await self._subscribed(running):
                return _EXIT_FAILED if not self.stopping.is_set() else 0
            if not await self._settled(running):
                await self._stop(running, [])
                return _EXIT_FAILED if not self.stopping.is_set() else 0
            tasks = self._start(running)
            self._is_started = True
            log.event("service.started", seconds=round(self.clock.monotonic() - started, 3))
            await self.stopping.wait()
            threading.Thread(target=_end_overdue, args=(self.settings.stop_timeout_s,), daemon=True).start()
            await self._stop(running, tasks)
        finally:
            for closer in self._closers:
                await closer()
            await database.close()
        if self._failure is not None:
            log.event("service.failed", error=self._failure)
            return _EXIT_PAST_UNKNOWN if isinstance(self._failure, DatabaseRestored | RecordsGone) else _EXIT_FAILED
        log.event("service.stopped")
        return 0

    async def _await_database(self) -> Database | None:
        """Wait until the database answers and has the service's schema at the version that this program needs."""

        async def ready() -> Database:
            database = await Database.open(self.settings, self.schema, self.clock)
            try:
                await migrations.check_schema(database.pool, self.schema, migrations.expected(self.name))
            except BaseException:
                await database.close()
                raise
            return database

        return await self._await("database", ready, (*TRANSIENT, migrations.SchemaNotReady))

    async def _kafka_there(self) -> bool:
        async def topics_there() -> bool:
            missing = await kafka.missing_topics(self.settings, self.topics)
            if missing:
                raise kafka.TopicsMissing(missing)
            return True

        return bool(await self._await("kafka", topics_there, (kafka.TopicsMissing, *_KAFKA_TROUBLE)))

    async def _history_holds(self, health: Health, database: Database) -> bool:
        """Wait until this database is known to have all that the service ever told; while it has not, the service is not ready."""

        async def trusted() -> bool:
            return database.is_trusted

        async def holds() -> bool:
            await self._verify(database)
            return True

        health.ready("history", trusted)
        return bool(await self._await("history", holds, _HISTORY_TROUBLE, pause_s=_HISTORY_S))

    async def _verify(self, database: Database) -> None:
        try:
            await history.verify(self.settings, self.name, database)
        except DatabaseRestored as error:
            log.event("service.database_restored", severity=LogLevel.ERROR, entries=error.unknown, error=error)
            raise

    async def _known_server(self, database: Database) -> None:
        """During the start nobody watches yet: look at the history again when the database's server has become another one."""
        if database.server_changed.is_set():
            await self._verify(database)

    async def _prepared(self, database: Database) -> bool:
        """Do what comes before everything else; the database may have gone away again since it was asked."""

        async def checked() -> bool:
            await self._known_server(database)
            for check in self._preparations:
                await check(database)
            return True

        return bool(await self._await("database", checked, _HISTORY_TROUBLE))

    async def _settled(self, running: _Running) -> bool:
        """Know what supervisors want, take lanes and put the house in order, for which the database has to be there as well."""

        async def settled() -> bool:
            await self._known_server(running.database)
            await running.control.look()
            await running.lanes.balance()
            await self._keep_house(running.database)
            return True

        return bool(await self._await("database", settled, _HISTORY_TROUBLE))

    async def _subscribed(self, running: _Running) -> bool:
        """Join the consumer group; Kafka may have gone away again since it was asked."""
        return running.consumer is None or bool(await self._await("kafka", running.consumer.start, _KAFKA_TROUBLE))

    async def _await(
        self,
        what: str,
        attempt: Callable[[], Awaitable[T]],
        trouble: tuple[type[BaseException], ...],
        pause_s: float = 0.2,
    ) -> T | None:
        deadline = self.clock.monotonic() + self.settings.start_timeout_s
        while not self.stopping.is_set():
            try:
                return await attempt()
            except trouble as error:
                if self.clock.monotonic() > deadline:
                    log.event("service.start_gave_up", waiting_for=Name(what), error=error)
                    return None
                log.event("service.waiting", waiting_for=Name(what), error=error)
                await wait_any(self.stopping, self.stopping, pause_s)
        return None

    def _assemble(self, database: Database) -> _Running:
        settings = self.settings
        lanes = Lanes(database, uuid7(self.clock), settings.instance, settings.lease_s)
        producer = Producer(settings, f"{self.name}-{settings.instance}-relay")
        facts_producer = Producer(settings, f"{self.name}-{settings.instance}-audit")
        relay = Relay(self.name, database, lanes, producer, settings, facts_producer)
        control = Control(database, settings.log_level)
        worker = Worker(
            database,
            lanes,
            self.handlers,
            self.topics,
            self._protection,
            settings,
            self._handled,
            paused=control.is_paused,
        )
        consumer = None
        if self.topics:
            wanted = frozenset(self.handlers)
            consumer = Consumer(self.name, self.topics, wanted, database, self._protection, settings, worker)
        self._sweeps = [build(database) for build in self._sweepers]
        database.on_commit(relay.note_soon)
        return _Running(database, control, lanes, relay, (producer, facts_producer), worker, consumer)

    def _handled(self, by: Sweep | None = None) -> None:
        """Something was done that sweeps may have been waiting for."""
        for sweep in self._sweeps:
            if sweep is not by and sweep.is_woken:
                sweep.wake.set()

    def _start(self, running: _Running) -> list["asyncio.Task[None]"]:
        settings = self.settings
        paused = running.control.is_paused
        jobs: list[Coroutine[Any, Any, None]] = [
            running.lanes.keep(self.stopping),
            running.relay.run(self.stopping),
            running.relay.run_facts(self.stopping),
            running.worker.run(self.stopping),
            self._watch_history(running),
            self._every(_HOUSEKEEPING_S, lambda: self._keep_house(running.database)),
            self._every(gauges.EVERY_S, lambda: self._gauge(running), rests=_GAUGE_RESTS),
            self._every(LOOK_S, running.control.look),
            *(self._every(_MEASURES_S, partial(measure, running.database)) for measure in self._measures),
            Deadman(
                self._kafka_answers,
                self.settings.kafka_unreachable_s,
                every_s=5.0,
                exit_code=69,
                gauge=metrics.KAFKA_UNREACHABLE_S,
            ).run(self.stopping),
            *(sweep.run(self.stopping, self._handled, paused) for sweep in self._sweeps),
            *(
                build(running.database).run(
                    settings, f"{self.name}-{settings.instance}-follower", self.clock, self.stopping, paused
                )
                for build in self._followers
            ),
        ]
        if running.consumer is not None:
            jobs.append(running.consumer.run(self.stopping))
            names = sensitive(self.topics)
            if names:
                trimmer = Trimmer(
                    self.name,
                    names,
                    running.consumer,
                    Producer(settings, f"{self.name}-{settings.instance}-trimmer"),
                    self.clock,
                    settings,
                    roll_after_s=1.2,
                )
                running.consumer.seen = trimmer.see
                jobs.append(trimmer.run(self.stopping))
        return [asyncio.create_task(self._guard(job)) for job in jobs]

    async def _guard(self, job: Coroutine[Any, Any, None]) -> None:
        """A job that raises ends the process: everything it could live with, it has handled itself."""
        try:
            await job
        except BaseException as error:
            if is_cancelled():
                raise
            self._failure = self._failure or error
            self.stopping.set()

    async def _stop(self, running: _Running, tasks: list["asyncio.Task[None]"]) -> None:
        """Stop in the order in which work flows; every step is bounded."""
        part_s = self.settings.stop_timeout_s / 4
        _, late = await asyncio.wait(tasks, timeout=part_s) if tasks else (set(), set())
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)
        if running.consumer is not None:
            await bounded(running.consumer.stop(), part_s)
        await bounded(self._drain(running.relay), part_s / 2)
        await asyncio.gather(*(bounded(producer.stop(), part_s / 2) for producer in running.producers))
        await bounded(running.lanes.leave(), part_s / 2)

    async def _drain(self, relay: Relay) -> None:
        relay.look()
        while await relay.step():
            pass

    async def _keep_house(self, database: Database) -> None:
        """Make tomorrow's partitions, drop what is kept long enough; bounded, so that a pass never holds anything up."""

        async def keep(tx: Transaction) -> None:
            await tx.execute(store.MAKE_PARTITIONS, tx.now.date(), _PARTITION_DAYS_AHEAD)
            await tx.execute(store.DROP_PARTITIONS, (tx.now - _OUTBOX_KEPT).date())
            await tx.execute(store.DROP_RESOLVED, tx.now - _SEEN_KEPT, _DROP_ROWS_MAX)

        async def forget(tx: Transaction) -> bool:
            rows = await tx.fetch(store.FORGET_SEEN, tx.now - _SEEN_KEPT, _DROP_ROWS_MAX)
            return len(rows) >= _DROP_ROWS_MAX

        await database.run("housekeeping", keep)
        while await database.run("seen-forget", forget) and not self.stopping.is_set():
            pass

    async def _gauge(self, running: _Running) -> None:
        await gauges.show(running.database, running.lanes, running.worker, running.consumer, self._sweeps)

    async def _every(self, seconds: float, job: Callable[[], Awaitable[None]], *, rests: float = 0.0) -> None:
        """Do a job again and again, after so many seconds, or after it has rested so many times as long as it took."""
        while not self.stopping.is_set():
            begun = self.clock.monotonic()
            try:
                await job()
            except TRANSIENT as error:
                log.event("service.database_trouble", error=error)
            rest_s = min(_REST_S_MAX, rests * (self.clock.monotonic() - begun))
            await wait_any(self.stopping, self.stopping, max(seconds, rest_s))

    async def _watch_history(self, running: _Running) -> None:
        """End the process when the database turns out to be older than what was told; after any change of its server, read again."""

        def changed() -> None:
            if running.consumer is not None:
                running.consumer.unsettle()

        try:
            await history.watch(self.settings, self.name, running.database, self.stopping, changed)
        except DatabaseRestored as error:
            log.event("service.database_restored", severity=LogLevel.ERROR, entries=error.unknown, error=error)
            raise

    async def _kafka_answers(self) -> bool:
        try:
            await kafka.missing_topics(self.settings, ())
        except _KAFKA_TROUBLE:
            return False
        return True

    def _register(self, health: Health, running: _Running) -> None:
        async def assigned() -> bool:
            return running.consumer is None or running.consumer.membership.is_given

        async def leased() -> bool:
            return bool(running.lanes.held)

        async def not_halted() -> bool:
            return not running.worker.halted

        async def polling() -> bool:
            consumer = running.consumer
            return consumer is None or self.clock.monotonic() - consumer.polled_at < _POLL_AGE_MAX_S

        health.live("consumer", polling)
        health.ready("database", running.database.ping)
        health.ready("lanes", leased)
        health.ready("consumer", assigned)
        health.ready("worker", not_halted)
        health.tell("control", running.control.shown)


def _end_overdue(limit_s: float) -> None:
    """End the process when the stop takes too long; nothing is lost by it, everything is in the database."""
    threading.Event().wait(limit_s)
    os._exit(_EXIT_OVERDUE)


__all__ = ["Records", "Service", "Swept"]
