"""What a pause does to the parts of a running service: handling, sweeping and following stand still, storing and publishing go on."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from habeas.chassis import log
from habeas.chassis.batch import Batch
from habeas.chassis.control import Control
from habeas.chassis.database import Transaction
from habeas.chassis.errors import Invariant
from habeas.chassis.outbox import lane_of
from habeas.chassis.settings import LogLevel
from habeas.chassis.sweep import Sweep, Swept
from habeas.contracts import topics
from habeas.contracts.request_intake import RequestExtended
from habeas_embedded.provision import Access
from tests.support.delivery import Broker, Delivery, drain, extended, new_id, number_of, record_of
from tests.support.waiting import never, until

ADD = "INSERT INTO effects (request_id, number) SELECT * FROM unnest($1::uuid[], $2::integer[])"


async def add_effects(batch: Batch[RequestExtended], tx: Transaction) -> None:
    """Write down what came."""
    events = list(batch)
    await tx.execute(ADD, [event.request_id for event in events], [number_of(event) for event in events])


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """A service's slice."""
    delivery = await Delivery.open(database, poll_interval_s=0.02)
    yield delivery
    await delivery.close()


@pytest.fixture
def control(delivery: Delivery) -> Control:
    """What the service looks at."""
    return Control(delivery.database, log.level())


async def pause(delivery: Delivery, lane: int | None = None, *, wanted: bool = True) -> None:
    """Do what the command does."""
    sql = "SELECT erasure_executor.supervise_pause(gen_random_uuid(), $1, $2)"
    conn = await asyncpg.connect(delivery.access.supervisor_dsn)
    try:
        assert await conn.fetchval(sql, wanted, lane)
    finally:
        await conn.close()


async def test_paused_worker_stores_and_does_not_handle(delivery: Delivery, control: Control) -> None:
    """While the service is paused messages are stored and wait; after the resume they are handled in their order."""
    key = new_id()
    await pause(delivery)
    await control.look()
    worker = delivery.worker(await delivery.lanes(), {RequestExtended: add_effects})
    worker._paused = control.is_paused
    stopping = asyncio.Event()

    async def handled(count: int) -> bool:
        return len(await delivery.effects()) >= count

    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(stopping))
        await delivery.receive(*[record_of(extended(key, number)) for number in (1, 2)])
        worker.wake.set()
        assert await never(lambda: handled(1), 0.3)
        await pause(delivery, wanted=False)
        await control.look()
        await until(lambda: handled(2), "two messages handled")
        stopping.set()
    assert await delivery.effects() == [(key, 1), (key, 2)]


async def test_paused_lane_waits_and_others_do_not(delivery: Delivery) -> None:
    """Keys of a paused lane wait, those of all other lanes are handled, and the outbox of the paused lane is published."""
    keys = [new_id() for _ in range(40)]
    lane = lane_of(str(keys[0]).encode())
    waits = {key for key in keys if lane_of(str(key).encode()) == lane}
    await pause(delivery, lane)
    lanes = await delivery.lanes()
    worker = delivery.worker(lanes, {RequestExtended: add_effects})
    await delivery.receive(*[record_of(extended(key, 1)) for key in keys])
    await drain(worker)
    assert {key for key, _ in await delivery.effects()} == set(keys) - waits
    broker = Broker()
    relay = broker.relay(delivery, lanes)
    async with delivery.database.transaction("emit") as tx:
        tx.emit(extended(keys[0], 1))
    assert await relay.step() > 0
    assert len(broker.of(topics.REQUESTS)) == 1
    await pause(delivery, lane, wanted=False)
    await drain(worker)
    assert {key for key, _ in await delivery.effects()} == set(keys)


async def test_paused_service_does_not_sweep(delivery: Delivery) -> None:
    """No sweep runs while paused, however often it is woken; it runs soon after the resume, long before its time."""
    ran = asyncio.Event()

    async def once() -> Swept:
        ran.set()
        return Swept(0)

    sweep = Sweep("a-sweep", 3_600.0, once, delivery.clock)
    control = Control(delivery.database, log.level(), sweep.wake.set)
    await pause(delivery)
    await control.look()
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(sweep.run(stopping, lambda _: None, control.is_paused))
        sweep.wake.set()
        assert await never(ran.is_set, 0.2)
        await pause(delivery, wanted=False)
        await control.look()
        await until(ran.is_set, "a run")
        stopping.set()


async def test_log_level_follows_and_comes_back(delivery: Delivery) -> None:
    """The level that was set is the one that is logged from; without one it is the configured again."""
    before = log.level()
    control = Control(delivery.database, LogLevel.WARNING)
    try:
        for wanted, seen in (("debug", LogLevel.DEBUG), ("error", LogLevel.ERROR), (None, LogLevel.WARNING)):
            await delivery.look("SELECT erasure_executor.supervise_log_level(gen_random_uuid(), $1)", wanted)
            await control.look()
            assert log.level() is seen
            assert control.shown() == {"paused": False, "paused_lanes": [], "log_level": seen.value}
    finally:
        log.set_level(before)


async def test_control_without_its_row_stops_the_process(delivery: Delivery, control: Control) -> None:
    """Nobody can say whether the service is paused when the row is gone: it must not work on."""
    await delivery.look("DELETE FROM erasure_executor.control RETURNING 1")
    with pytest.raises(Invariant):
        await control.look()
