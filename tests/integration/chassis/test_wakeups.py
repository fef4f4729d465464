"""Wake-ups between processes over real PostgreSQL: what is told, what is heard again after a loss, and that nothing depends on it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import asyncpg
import pytest
import pytest_asyncio

from habeas.chassis import worker as workers
from habeas.chassis.batch import Batch
from habeas.chassis.clock import SystemClock
from habeas.chassis.database import Database, Transaction
from habeas.chassis.errors import Retry
from habeas.chassis.outbox import ALL_LANES, lane_of
from habeas.chassis.running import Declared, Running
from habeas.chassis.sweep import Schedule, Swept
from habeas.chassis.wakeups import Wakeup, Wakeups
from habeas.contracts import topics
from habeas.contracts.audit import Action, AuditFact
from habeas.contracts.request_intake import RequestExtended
from habeas_embedded.provision import Access
from habeas_embedded.waiting import until
from tests.support.delivery import CONSUMER, PROTECTOR, Broker, Delivery, extended, new_id, number_of, record_of

ADD: Final = "INSERT INTO effects (request_id, number) SELECT * FROM unnest($1::uuid[], $2::integer[])"
NEVER_S: Final = 3_600.0
LIMIT_S: Final = 60.0


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """A service's slice."""
    delivery = await Delivery.open(database)
    yield delivery
    await delivery.close()


async def add_effects(batch: Batch[RequestExtended], tx: Transaction) -> None:
    """Write down what came."""
    events = list(batch)
    await tx.execute(ADD, [event.request_id for event in events], [number_of(event) for event in events])


class Replica:
    """One process of the service without Kafka: its parts are wired as in production, its broker takes notes."""

    def __init__(self, delivery: Delivery, database: Database, instance: int, poll_s: float, **declared: Any) -> None:
        settings = delivery.settings.model_copy(update={"instance": instance, "poll_interval_s": poll_s})
        handlers = declared.get("handlers", {RequestExtended.type: add_effects})
        self.parts = Running(
            CONSUMER, settings, database, PROTECTOR, Declared(handlers, {}, declared.get("schedules", ()), (), ())
        )
        self.parts.worker._topics = delivery.topics
        self.broker = Broker()
        self.parts.relay._producer = self.parts.relay._facts_producer = cast("Any", self.broker)

    def jobs(self, stopping: asyncio.Event, *, deaf: bool) -> list[Awaitable[None]]:
        """What runs; a deaf one neither tells nor hears anything, nor is it woken by its own commits."""
        parts = self.parts
        if deaf:
            parts.database._on_commit.clear()
            for part in (parts.relay._events, parts.relay._facts, parts.worker):
                cast("Any", part).note = _hear_nothing
        jobs = [parts.relay.run(stopping), parts.relay.run_facts(stopping), parts.worker.run(stopping)]
        jobs += [parts.control.keep(stopping)]
        jobs += [sweep.run(stopping, parts._done, parts.control.is_paused) for sweep in parts.sweeps]
        return [*jobs, *([] if deaf else [parts.wakeups.run(stopping)])]


def _hear_nothing() -> None:
    """Lose a wake-up."""


@asynccontextmanager
async def replicas(
    delivery: Delivery, poll_s: float, *, deaf: bool = False, **declared: Any
) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two processes that share the lanes and run, until the block ends."""
    pair = (
        Replica(delivery, delivery.database, 0, poll_s, **declared),
        Replica(delivery, await delivery.another(), 1, poll_s, **declared),
    )
    for _ in range(2):
        for each in pair:
            await each.parts.lanes.balance()
    first, second = pair
    assert first.parts.lanes.held.keys() | second.parts.lanes.held.keys() == ALL_LANES
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for each in pair:
            for job in each.jobs(stopping, deaf=deaf):
                group.create_task(cast("Any", job))
        if not deaf:
            assert await until(lambda: _listeners(delivery, 2), LIMIT_S)
        try:
            yield pair
        finally:
            stopping.set()


async def _listeners(delivery: Delivery, count: int) -> bool:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'"
    (row,) = await delivery.look(sql)
    return int(row[0]) >= count


def key_of(replica: Replica) -> Any:  # noqa: ANN401 -- a UUID
    """A key whose lane a replica holds."""
    while True:
        key = new_id()
        if lane_of(str(key).encode()) in replica.parts.lanes.held:
            return key


async def work_for_another(delivery: Delivery, first: Replica, second: Replica) -> None:
    """Let the first replica leave an event, a fact and a message, and wait until the second one has done all of it."""
    database = first.parts.database
    audit_holder, other = (first, second) if first.parts.lanes.has_audit() else (second, first)
    key = key_of(second)
    async with database.transaction("emit") as tx:
        tx.emit(extended(key, 1))
    async with other.parts.database.transaction("note") as tx:
        tx.record(AuditFact(Action.MESSAGE_PARKED))
    consumer = delivery.consumer(database)
    consumer.stored = first.parts._messages_stored
    assert await consumer._take([record_of(extended(key, 7))], asyncio.Event())
    assert await until(lambda: bool(second.broker.of(topics.REQUESTS)), LIMIT_S), "the event waits"
    assert await until(lambda: bool(audit_holder.broker.of(topics.AUDIT_ENTRIES)), LIMIT_S), "the fact waits"

    async def handled() -> bool:
        return (key, 7) in await delivery.effects()

    assert await until(handled, LIMIT_S), "the message waits"


async def test_another_replicas_work_is_told(delivery: Delivery) -> None:
    """Events, facts and messages for lanes of another replica are done at once: neither of the two ever looks by itself."""
    async with replicas(delivery, NEVER_S) as (first, second):
        await work_for_another(delivery, first, second)


async def test_without_any_wakeup_the_interval_is_what_it_costs(delivery: Delivery) -> None:
    """With every notification and every wake-up of the own process lost, all is done when the processes look by themselves."""
    swept = []

    async def once(_: Database) -> Swept:
        swept.append(1)
        return Swept(0)

    async with replicas(delivery, 0.2, deaf=True, schedules=[Schedule("a-sweep", 0.2, once)]) as (first, second):
        await work_for_another(delivery, first, second)
        count = len(swept)
        assert await until(lambda: len(swept) > count + 2, LIMIT_S)


async def test_a_message_is_tried_again_at_its_time(delivery: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that waits for its next attempt, and those behind it, are handled then, though nobody tells and nobody looks."""
    monkeypatch.setattr(workers, "_QUIET_S", 0.05)
    calls = []
    # The time of an attempt is the service's, which is a fake one here.
    delivery.database.clock = cast("Any", SystemClock())

    async def once_later(batch: Batch[RequestExtended], tx: Transaction) -> None:
        calls.append(1)
        if len(calls) == 1:
            for _ in batch:
                raise Retry("later")
        await add_effects(batch, tx)

    delivery.settings = delivery.settings.model_copy(update={"retry_first_s": 0.2})
    async with replicas(delivery, NEVER_S, handlers={RequestExtended.type: once_later}) as (first, _):
        key = key_of(first)
        consumer = delivery.consumer(first.parts.database, first.parts.worker)
        consumer._settings = consumer._settings.model_copy(update={"handle_at_once": False})
        for number in (1, 2):
            assert await consumer._take([record_of(extended(key, number))], asyncio.Event())

        async def both() -> bool:
            return await delivery.effects() == [(key, 1), (key, 2)]

        assert await until(both, LIMIT_S)


async def test_operators_are_heard(delivery: Delivery) -> None:
    """Whatever a supervisor does wakes every part, also what stood still, in a process that never looks by itself."""
    woken: list[str] = []

    async def once(_: Database) -> Swept:
        woken.append("sweep")
        return Swept(0)

    async with replicas(delivery, NEVER_S, schedules=[Schedule("a-sweep", NEVER_S, once)]) as (first, second):
        conn = await asyncpg.connect(delivery.access.supervisor_dsn)
        pause = "SELECT erasure_executor.supervise_pause(gen_random_uuid(), {}, NULL)"
        try:
            assert await conn.fetchval(pause.format("true"))
            assert await until(lambda: first.parts.control.is_paused() and second.parts.control.is_paused(), LIMIT_S)
            woken.clear()
            assert await conn.fetchval(pause.format("false"))
            assert await until(lambda: len(woken) >= 2, LIMIT_S)
        finally:
            await conn.close()
        assert not first.parts.control.is_paused()


@asynccontextmanager
async def listening(delivery: Delivery, own: str, heard: Callable[[], None]) -> AsyncIterator[Wakeups]:
    """A listener of its own that runs for a block."""
    wakeups = Wakeups(delivery.database, own)
    wakeups.on(Wakeup.EVENTS, heard)
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(wakeups.run(stopping))
        yield wakeups
        stopping.set()
        wakeups.tell(Wakeup.FACTS)


async def test_whoever_tells_does_not_hear_itself(delivery: Delivery) -> None:
    """A notification wakes the others, whom it is for, and not the one who sent it."""
    one, other = [], []
    async with (
        listening(delivery, "one", lambda: one.append(1)) as first,
        listening(delivery, "other", lambda: other.append(1)),
    ):
        assert await until(lambda: (len(one), len(other)) == (1, 1), LIMIT_S), "each looks when it begins to listen"
        first.tell(Wakeup.EVENTS)
        assert await until(lambda: len(other) == 2, LIMIT_S)
    assert len(one) == 1


async def test_after_a_lost_connection_everything_is_looked_at(delivery: Delivery) -> None:
    """What was told while nobody listened cannot be heard any more: a listener that is back looks at all of it."""
    heard: list[int] = []
    async with listening(delivery, "one", lambda: heard.append(1)):
        assert await until(lambda: _listeners(delivery, 1), LIMIT_S)
        before = len(heard)
        await delivery.look(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN %'"
        )
        assert await until(lambda: len(heard) > before, LIMIT_S)
