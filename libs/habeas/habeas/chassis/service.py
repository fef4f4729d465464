"""A service: what it reacts to, and how its process starts, runs and stops.

Start in any order: it waits for database, schema, Kafka and topics, then for its own preparations, for however long they are away, is not
ready meanwhile and says for what it waits. Nor does it end when they go away later: it ends only for what cannot be waited out. Stop in
bounded time: consuming ends first, the batch in progress is finished, the outbox gets a last pass, lanes are given back. A deadline behind
everything ends the process even where a library hangs.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta
from importlib.metadata import version
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from habeas.chassis import crash, drift, history, kafka, log, metrics, migrations, store, topic_watch, tracing, troubles
from habeas.chassis.batch import Batch
from habeas.chassis.clock import Clock, SystemClock
from habeas.chassis.connection import SessionShared
from habeas.chassis.connection import why as why_no_connection
from habeas.chassis.consumer import Records
from habeas.chassis.database import TRANSIENT, Database, Transaction
from habeas.chassis.follow import Follower
from habeas.chassis.health import Health
from habeas.chassis.history import DatabaseRestored
from habeas.chassis.message import Protection
from habeas.chassis.positions import RecordsGone
from habeas.chassis.redaction import Name, Words
from habeas.chassis.running import Declared, Running
from habeas.chassis.settings import ChassisSettings, LogLevel
from habeas.chassis.sweep import Schedule, Swept
from habeas.chassis.topic_watch import TopicWatch
from habeas.chassis.waiting import BEAT_S, Explain, Outage, is_cancelled, on_beat, wait_any
from habeas.chassis.watchdog import Watchdog
from habeas.chassis.worker import Handler
from habeas.contracts.model import Event
from habeas.contracts.topics import Topic

E = TypeVar("E", bound=Event)
P = ParamSpec("P")
T = TypeVar("T")

_EXIT_WRONG_USE: Final = 2
_EXIT_OVERDUE: Final = 75
_EXIT_FAILED: Final = 70
_EXIT_PAST_UNKNOWN: Final = (
    65  # EX_DATAERR: the database is older than what was told; nothing goes on before an operator decides
)
_PARTITION_DAYS_AHEAD: Final = 7
_HOUSEKEEPING_S: Final = 3600.0
_DROP_ROWS_MAX: Final = 10_000
_KAFKA_TROUBLE: Final = (kafka.KafkaError, OSError, TimeoutError)
_BEATS_PER_WATCH: Final = 4
_HISTORY_TROUBLE: Final = (DatabaseRestored, *_KAFKA_TROUBLE, *TRANSIENT)
_OUTBOX_KEPT: Final = timedelta(days=14)  # longer than any topic keeps records, so that a lost Kafka can be refilled
_SEEN_KEPT: Final = timedelta(days=21)  # longer than the outbox, so that no replay finds its copies forgotten


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
        self._schedules: list[Schedule] = []
        self._followers: list[Callable[[Database], Follower]] = []
        self._preparations: list[Callable[[Database], Awaitable[None]]] = []
        self._measures: list[Callable[[Database], Awaitable[None]]] = []
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._topics = TopicWatch(name, settings, self.topics)
        self._failure: BaseException | None = None
        self._waits_for: str | None = None
        self._why: str | None = None
        self._told_unknown = 0
        self._running: Running | None = None
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
    ) -> Schedule:
        """Run a sweep on start, then at least this often; what is returned says what else makes it run."""
        schedule = Schedule(sweep.__name__, seconds, lambda database: sweep(database, *args, **kwargs))
        self._schedules.append(schedule)
        return schedule

    def follow(self, build: Callable[[Database], Follower]) -> None:
        """Read one partition strictly in order, with a position that the handler keeps."""
        self._followers.append(build)

    def measure(self, look: Callable[[Database], Awaitable[None]]) -> None:
        """Show figures of the service's own tables whenever metrics are asked for, also while it is paused."""
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
        health.tell("waiting_for", lambda: self._waits_for)
        health.tell("why", lambda: self._why)
        await health.serve()
        beating = asyncio.create_task(self._beat(watchdog))
        try:
            return await self._run(health)
        finally:
            beating.cancel()
            await health.stop()
            watchdog.stop()
            tracing.shutdown()

    async def _at_work(self) -> bool:
        """Answer whether everything was there at the start, and no stop was asked for since."""
        return self._is_started and not self.stopping.is_set()

    async def _beat(self, watchdog: Watchdog) -> None:
        """Show the watchdog that the loop turns, and note whether Kafka is there, on the beats of the process."""
        loop = asyncio.get_running_loop()
        longest_s = min(BEAT_S, self.settings.watchdog_s / _BEATS_PER_WATCH)
        while True:
            rest_s = on_beat(longest_s)
            due_at = loop.time() + rest_s
            await asyncio.sleep(rest_s)
            metrics.LOOP_DELAY_S.observe(max(0.0, loop.time() - due_at))
            watchdog.beat()
            if self._running is not None:
                self._running.see_kafka()

    async def _run(self, health: Health) -> int:
        started = self.clock.monotonic()
        try:
            database = await self._await_database()
        except SessionShared as error:
            why = Words(await self._why_no_database(error))
            log.event("service.refused", severity=LogLevel.ERROR, error=error, why=why)
            return _EXIT_WRONG_USE
        if database is None:
            return 0
        try:
            running = await self._begin(health, database)
            if running is None:
                return 0
            tasks = [asyncio.create_task(self._guard(job)) for job in self._jobs(running)]
            self._is_started = True
            log.event("service.started", seconds=round(self.clock.monotonic() - started, 3))
            await self.stopping.wait()
            threading.Thread(target=_end_overdue, args=(self.settings.stop_timeout_s,), daemon=True).start()
            await running.stop(tasks)
        finally:
            for closer in self._closers:
                await closer()
            await database.close()
        if self._failure is not None:
            log.event("service.failed", error=self._failure)
            return _EXIT_PAST_UNKNOWN if isinstance(self._failure, DatabaseRestored | RecordsGone) else _EXIT_FAILED
        log.event("service.stopped")
        return 0

    async def _begin(self, health: Health, database: Database) -> Running | None:
        """Wait for one thing after the other that the service needs; None when told to stop before all was there."""
        if not (
            await self._kafka_there() and await self._history_holds(health, database) and await self._prepared(database)
        ):
            return None
        running = self._running = self._assemble(database)
        running.register(health)
        if not await self._subscribed(running):
            return None
        if not await self._settled(running):
            await running.stop([])
            return None
        return running

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

        trouble = (*TRANSIENT, migrations.SchemaNotReady)
        return await self._await("database", ready, trouble, self._why_no_database)

    async def _why_no_database(self, error: BaseException) -> str:
        if isinstance(error, migrations.SchemaNotReady):
            return f"{error}; run `habeas migrate`"
        variable = f"{self.schema.upper()}_DATABASE_DSN (or HABEAS_DATABASE_DSN)"
        return why_no_connection(error, self.settings.database_dsn.get_secret_value(), variable)

    async def _why_no_kafka(self, error: BaseException) -> str:
        if isinstance(error, drift.TopicsUnfit):
            return f"{error}; run `habeas migrate --reset-topics`"
        return await kafka.why(self.settings, error)

    async def _kafka_there(self) -> bool:
        async def topics_fit() -> bool:
            await self._topics.require()
            return True

        trouble = (*topic_watch.UNFIT, *_KAFKA_TROUBLE)
        return bool(await self._await("kafka", topics_fit, trouble, self._why_no_kafka))

    async def _history_holds(self, health: Health, database: Database) -> bool:
        """Wait until this database is known to have all that the service ever told; while it has not, the service is not ready."""

        async def trusted() -> bool:
            return database.is_trusted

        async def holds() -> bool:
            await self._verify(database)
            return True

        health.ready("history", trusted)
        return bool(await self._await("history", holds, _HISTORY_TROUBLE))

    async def _verify(self, database: Database) -> None:
        try:
            await history.verify(self.settings, self.name, database)
        except DatabaseRestored as error:
            if error.unknown != self._told_unknown:
                self._told_unknown = error.unknown
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

    async def _settled(self, running: Running) -> bool:
        """Know what supervisors want, take lanes and put the house in order, for which the database has to be there as well."""

        async def settled() -> bool:
            await self._known_server(running.database)
            await running.control.look()
            await troubles.forget(running.database)
            await running.lanes.balance()
            await self._keep_house(running.database)
            return True

        return bool(await self._await("database", settled, _HISTORY_TROUBLE))

    async def _subscribed(self, running: Running) -> bool:
        """Join the consumer group; Kafka may have gone away again since it was asked."""
        if running.consumer is None:
            return True
        return bool(await self._await("kafka", running.consumer.start, _KAFKA_TROUBLE, self._why_no_kafka))

    async def _await(
        self,
        what: str,
        attempt: Callable[[], Awaitable[T]],
        trouble: tuple[type[BaseException], ...],
        explain: Explain | None = None,
    ) -> T | None:
        """Attempt something until it succeeds, for however long it takes; None when told to stop before.

        Meanwhile log and health say what is waited for, and why as ``explain`` has it.
        """
        outage = Outage("service.waiting", waiting_for=Name(what), explain=explain)
        try:
            while not self.stopping.is_set():
                try:
                    return await attempt()
                except trouble as error:
                    self._waits_for = what
                    await outage.wait(error, self.stopping)
                    self._why = outage.why
        finally:
            self._waits_for = self._why = None
        return None

    def _assemble(self, database: Database) -> Running:
        declared = Declared(self.handlers, self.topics, self._schedules, self._followers, self._measures)
        return Running(self.name, self.settings, database, self._protection, declared)

    def _jobs(self, running: Running) -> Iterator[Coroutine[Any, Any, None]]:
        yield from running.jobs(self.stopping)
        yield self._watch_history(running)
        yield self._topics.run(self.stopping)
        yield self._every(_HOUSEKEEPING_S, lambda: self._keep_house(running.database))

    async def _guard(self, job: Coroutine[Any, Any, None]) -> None:
        """A job that raises ends the process: everything it could live with, it has handled itself."""
        try:
            await job
        except BaseException as error:
            if is_cancelled():
                raise
            self._failure = self._failure or error
            self.stopping.set()

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

    async def _every(self, seconds: float, job: Callable[[], Awaitable[None]]) -> None:
        """Do a job again and again, after so many seconds."""
        outage = Outage("service.database_trouble")
        while not self.stopping.is_set():
            try:
                await job()
            except TRANSIENT as error:
                await outage.wait(error, self.stopping)
            else:
                outage.over()
                await wait_any(self.stopping, self.stopping, on_beat(seconds))

    async def _watch_history(self, running: Running) -> None:
        """End the process when the database turns out to be older than what was told; after any change of its server, read again."""
        try:
            await history.watch(self.settings, self.name, running.database, self.stopping, running.unsettle)
        except DatabaseRestored as error:
            log.event("service.database_restored", severity=LogLevel.ERROR, entries=error.unknown, error=error)
            raise


def _end_overdue(limit_s: float) -> None:
    """End the process when the stop takes too long; nothing is lost by it, everything is in the database."""
    threading.Event().wait(limit_s)
    os._exit(_EXIT_OVERDUE)


__all__ = ["Records", "Service", "Swept"]
