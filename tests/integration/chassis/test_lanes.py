"""Lanes: who works on which keys, and what keeps a replica that lost its lanes from doing anything."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from habeas.chassis import log, store
from habeas.chassis.batch import Batch
from habeas.chassis.database import TRANSIENT, Database, Transaction
from habeas.chassis.lanes import Lanes
from habeas.chassis.outbox import lane_of
from habeas.chassis.worker import Handler, Worker
from habeas.contracts.request_intake import RequestExtended
from habeas_embedded.provision import Access
from tests.support.delivery import NOON, Delivery, by_key, drain, extended, new_id, number_of, record_of
from tests.support.waiting import HANGS_S, until

LEASE_S = 60.0
EVERY_LANE = set(range(17))

FILL_LANES = """
    INSERT INTO erasure_executor.inbox
           (event_id, topic, partition, record_offset, type, key, lane, event_at, digest, received_at, next_attempt_at)
    SELECT gen_random_uuid(), 'request-intake.requests.v1', 0, n, 'request.extended', decode(md5(n::text), 'hex'),
           ($1::smallint[])[1 + n % cardinality($1)], now(), ''::bytea, now(), now()
      FROM generate_series(1, $2::integer) AS n RETURNING 1
"""

_REMOVED = "Rows Removed by Filter"

ADD_EFFECT = "INSERT INTO effects (request_id, number) VALUES ($1, $2)"


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """The receiving half of a service."""
    delivery = await Delivery.open(database, inbox_batch_rows_max=20)
    yield delivery
    await delivery.close()


async def add_effects(batch: Batch[RequestExtended], tx: Transaction) -> None:
    """Write down each event."""
    for event in batch:
        await tx.execute(ADD_EFFECT, event.request_id, number_of(event))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Mapping[str, Any]]]:
    """What is logged about lanes, name by name with its fields."""
    events: list[tuple[str, Mapping[str, Any]]] = []

    def event(name: str, **fields: Any) -> None:
        if name.startswith("lanes."):
            events.append((name, fields))

    monkeypatch.setattr(log, "event", event)
    return events


class Gate:
    """A handler that writes its effects, says so, and then waits until it is let through."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def handle(self, batch: Batch[RequestExtended], tx: Transaction) -> None:
        """Handle and wait."""
        await add_effects(batch, tx)
        self.reached.set()
        async with asyncio.timeout(HANGS_S):
            await self.opened.wait()


class Replica:
    """One replica: its connections, its lanes, its worker."""

    def __init__(self, database: Database, lanes: Lanes, worker: Worker) -> None:
        self.database = database
        self.lanes = lanes
        self.worker = worker

    @classmethod
    async def start(
        cls, delivery: Delivery, instance: int, handler: Handler = add_effects, lease_s: float = LEASE_S
    ) -> "Replica":
        """Start a replica of its own ordinal."""
        database = await delivery.another()
        lanes = await delivery.lanes(database, instance=instance, lease_s=lease_s)
        return cls(database, lanes, delivery.worker(lanes, {RequestExtended: handler}, database))


async def fill(delivery: Delivery, keys: int = 40, each: int = 10) -> list[UUID]:
    """Store messages of many keys, in turns."""
    requests = [new_id() for _ in range(keys)]
    await delivery.receive(*[record_of(extended(key, number)) for number in range(each) for key in requests])
    return requests


async def expire(delivery: Delivery, lanes: Lanes) -> None:
    """Let the leases of a replica run out, and its sign of life too, as its long silence would."""
    for table in ("lanes", "replicas"):
        await delivery.look(
            f"UPDATE erasure_executor.{table} SET expires_at = now() - interval '1 second' WHERE holder = $1 RETURNING 1",
            lanes.holder,
        )


async def expired(delivery: Delivery) -> bool:
    """Answer whether every lease has run out by the database's clock."""
    (row,) = await delivery.look("SELECT max(expires_at) < now() AS over FROM erasure_executor.lanes")
    return bool(row["over"])


async def share_out(first: Replica, second: Replica) -> None:
    """Let two replicas find their balance: the first gives back what is above its share, the second takes it."""
    await first.lanes.balance()
    await second.lanes.balance()


async def test_one_replica_holds_everything(delivery: Delivery) -> None:
    """On a laptop one process works on all keys and writes the audit log."""
    one = await Replica.start(delivery, 0)
    assert set(one.lanes.held) == EVERY_LANE
    assert one.lanes.has_audit()
    assert sorted(one.lanes.of_messages()[0]) == list(range(16))


async def test_lanes_spread_and_come_back(delivery: Delivery) -> None:
    """Two replicas share the lanes evenly; when one leaves, or dies, the other has all again."""
    one, two = await Replica.start(delivery, 0), await Replica.start(delivery, 1)
    await share_out(one, two)
    assert sorted(map(len, (one.lanes.held, two.lanes.held))) == [8, 9]
    assert set(one.lanes.held) | set(two.lanes.held) == EVERY_LANE
    assert one.lanes.has_audit() is not two.lanes.has_audit()
    await two.lanes.leave()
    await one.lanes.balance()
    assert set(one.lanes.held) == EVERY_LANE
    three = await Replica.start(delivery, 2)
    await share_out(one, three)
    await expire(delivery, three.lanes)
    await one.lanes.balance()
    assert set(one.lanes.held) == EVERY_LANE


@pytest.mark.parametrize("count", [3, 7, 10, 17])
async def test_every_replica_has_its_share(delivery: Delivery, count: int) -> None:
    """However many replicas share seventeen lanes, nobody has two more than another, and nobody has none."""
    holders = [Lanes(delivery.database, new_id(), instance, LEASE_S) for instance in range(count)]
    for _ in range(2):
        for lanes in holders:
            await lanes.balance()
    for lanes in holders:
        await lanes.balance()
    sizes = [len(lanes.held) for lanes in holders]
    assert sum(sizes) == len(EVERY_LANE)
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


async def test_lanes_of_the_dead_are_taken_when_their_lease_is_over(delivery: Delivery) -> None:
    """Whoever lives waits for the end of the lease and not for the turn of its own renewal, which comes much later here."""
    lease_s = 30.0
    two = await Replica.start(delivery, 1, lease_s=lease_s)
    one = Lanes(await delivery.another(), new_id(), 0, lease_s)
    for lanes in (one, two.lanes, one):
        await lanes.balance()
    assert len(one.held) == 9
    for table in ("lanes", "replicas"):
        sql = f"UPDATE erasure_executor.{table} SET expires_at = now() + interval '0.2 seconds' WHERE holder = $1 RETURNING 1"
        await delivery.look(sql, two.lanes.holder)  # its last sign of life
    stopping = asyncio.Event()
    clock = asyncio.get_running_loop().time
    begun = clock()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(one.keep(stopping))
        await until(lambda: set(one.held) == EVERY_LANE, "every lane", lambda: one.held)
        took_s = clock() - begun
        stopping.set()
    assert took_s < lease_s / 3, "it was its own turn"


async def test_changes_of_lanes_are_told(delivery: Delivery, told: list[tuple[str, Mapping[str, Any]]]) -> None:
    """The log has what was taken, given back and lost, with tokens, and that a lease ran out before it was renewed."""
    one, two = await Replica.start(delivery, 0), await Replica.start(delivery, 1)
    await share_out(one, two)
    await expire(delivery, two.lanes)
    delivery.clock.advance(timedelta(seconds=LEASE_S))
    assert two.lanes.of_messages() == ([], [])
    assert two.lanes.has_audit() is False
    before = dict(two.lanes.held)
    await one.lanes.balance()
    await two.lanes.balance()
    assert [name for name, _ in told] == [
        "lanes.taken",  # all, by the first
        "lanes.given_back",
        "lanes.taken",  # by the second
        "lanes.fenced",  # the second, as soon as it looks
        "lanes.fenced",  # the first too: there is one clock here
        "lanes.taken",  # what the second has lost
        "lanes.lost",
    ]
    (_, fenced), (_, lost) = told[3], told[6]
    assert fenced["silent_s"] == LEASE_S
    for fields in (fenced, lost):
        assert fields["lanes"] == sorted(before)
        assert fields["tokens"] == [before[lane] for lane in sorted(before)]


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan's node with all below it."""
    return [plan, *(each for below in plan.get("Plans", ()) for each in nodes(below))]


async def test_what_waits_in_other_lanes_is_passed_over_cheaply(delivery: Delivery) -> None:
    """A long queue in lanes of another replica, paused or slow, does not make the own claim read it row by row."""
    one, two = await Replica.start(delivery, 0), await Replica.start(delivery, 1)
    await share_out(one, two)
    lanes, tokens = two.lanes.of_messages()
    await delivery.look(FILL_LANES, one.lanes.of_messages()[0], 20_000)
    await delivery.look(FILL_LANES, lanes, 100)
    claim = (two.lanes.holder, lanes, tokens, NOON, 500, timedelta(seconds=300))
    async with two.database.transaction("test-explain") as tx:
        text = await tx.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {store.CLAIM}", *claim)
        assert len(await tx.fetch(store.CLAIM, *claim)) == 100
    read = [row for node in nodes(json.loads(text)[0]["Plan"]) for row in (node["Actual Rows"], node.get(_REMOVED, 0))]
    assert 100 <= max(read) < 500


async def test_a_lease_that_may_have_run_out_is_not_used(delivery: Delivery) -> None:
    """A replica that could not renew in time stops using its lanes by its own clock, before anybody takes them."""
    one = await Replica.start(delivery, 0)
    await fill(delivery, keys=3, each=1)
    delivery.clock.advance(timedelta(seconds=LEASE_S))
    assert (one.lanes.of_messages(), one.lanes.has_audit()) == (([], []), False)
    assert await one.worker.step() == 0
    await one.lanes.balance()
    assert await drain(one.worker) == 3


async def test_no_key_is_worked_on_twice_at_once(delivery: Delivery) -> None:
    """Two replicas work at the same time: together on everything, once, in order, never both on one key."""
    working: set[UUID] = set()
    overlaps: list[UUID] = []

    async def handle(batch: Batch[RequestExtended], tx: Transaction) -> None:
        keys = {event.request_id for event in batch}
        overlaps.extend(keys & working)
        working.update(keys)
        await add_effects(batch, tx)
        working.difference_update(keys)

    one, two = await Replica.start(delivery, 0, handle), await Replica.start(delivery, 1, handle)
    await share_out(one, two)
    keys = await fill(delivery)
    settled = await asyncio.gather(drain(one.worker), drain(two.worker))
    assert min(settled) > 0
    assert overlaps == []
    assert by_key(await delivery.effects()) == {key: list(range(10)) for key in keys}


async def soon_overdue(delivery: Delivery, gate: Gate, tasks: asyncio.TaskGroup) -> "tuple[Replica, asyncio.Task[int]]":
    """A replica whose lease outlasts the way to its handler, however slow the machine, and little more; and its step, at the gate."""
    lease_s = 0.1
    while True:
        slow = await Replica.start(delivery, 0, gate.handle, lease_s=lease_s)
        step, reached = tasks.create_task(slow.worker.step()), tasks.create_task(gate.reached.wait())
        await asyncio.wait([step, reached], return_when=asyncio.FIRST_COMPLETED)
        if gate.reached.is_set():
            return slow, step
        reached.cancel()
        lease_s *= 2


async def test_an_open_transaction_keeps_its_lanes(delivery: Delivery) -> None:
    """While a replica is in a transaction nobody takes its lanes, lease or not; afterwards its old tokens are worth nothing."""
    gate = Gate()
    await fill(delivery, keys=5, each=8)
    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as tasks:
        slow, step = await soon_overdue(delivery, gate, tasks)
        await until(lambda: expired(delivery), "the end of the leases")
        other = await Replica.start(delivery, 1)
        claimed = {lane_of(row["key"]) for row in (await delivery.look("TABLE erasure_executor.inbox"))[:20]}
        assert claimed.isdisjoint(other.lanes.held)
        gate.opened.set()
        assert await step == 20
    await other.lanes.balance()
    assert set(other.lanes.held) == EVERY_LANE
    assert set(slow.lanes.of_messages()[0]) == set(range(16))  # its clock stands still: it believes that it holds them
    assert await slow.worker.step() == 0
    assert await drain(other.worker) == 20
    assert all(numbers == list(range(8)) for numbers in by_key(await delivery.effects()).values())


async def test_a_stolen_lane_gives_its_old_holder_nothing(delivery: Delivery) -> None:
    """A holder with an old token neither handles nor parks nor puts off; the new one does it all, once."""
    paused = await Replica.start(delivery, 0)
    thief = await Replica.start(delivery, 1)
    keys = await fill(delivery, keys=5, each=2)
    await expire(delivery, paused.lanes)
    await thief.lanes.balance()
    assert await paused.worker.step() == 0
    stored = [row["inbox_id"] for row in await delivery.look("TABLE erasure_executor.inbox")]
    await paused.worker._set_aside(stored, RuntimeError())
    assert {state for state, *_ in await delivery.states()} == {"pending"}
    assert await delivery.effects() == []
    assert await drain(thief.worker) == 10
    assert by_key(await delivery.effects()) == {key: [0, 1] for key in keys}


async def test_a_replica_that_dies_at_work_leaves_nothing_half_done(delivery: Delivery) -> None:
    """Its transaction goes with its connection; whoever takes the lanes over does the whole work, once."""
    gate = Gate()
    dying = await Replica.start(delivery, 0, gate.handle)
    heir = await Replica.start(delivery, 1)
    keys = await fill(delivery, keys=3, each=2)
    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as tasks:
        step = tasks.create_task(_outcome(dying.worker))
        await gate.reached.wait()
        await delivery.look(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE state = 'idle in transaction' AND datname = current_database()"
        )
        gate.opened.set()
        assert isinstance(await step, TRANSIENT)
    assert await delivery.effects() == []
    await expire(delivery, dying.lanes)
    await heir.lanes.balance()
    await drain(heir.worker)
    assert by_key(await delivery.effects()) == {key: [0, 1] for key in keys}


async def _outcome(worker: Worker) -> Any:  # noqa: ANN401 -- a number or an error
    try:
        return await worker.step()
    except TRANSIENT as error:
        return error


async def test_a_successor_inherits_at_once(delivery: Delivery) -> None:
    """A restarted replica has its predecessor's lanes without waiting for the lease; the predecessor, if it lives, has none."""
    before = await Replica.start(delivery, 0)
    await fill(delivery, keys=3, each=1)
    after = await Replica.start(delivery, 0)
    assert set(after.lanes.held) == EVERY_LANE
    assert await before.worker.step() == 0
    assert await drain(after.worker) == 3
    await before.lanes.balance()
    assert before.lanes.held == {}


async def test_renewal_and_work_never_stand_against_each_other(delivery: Delivery) -> None:
    """Both lock lanes in the same order, so whichever comes first goes first, and neither is the victim of a deadlock."""
    one = await Replica.start(delivery, 0)
    one.lanes.held = dict(sorted(one.lanes.held.items(), reverse=True))
    await fill(delivery, keys=100, each=1)
    between = await asyncpg.connect(delivery.access.admin_dsn)
    transaction = between.transaction()
    await transaction.start()
    await between.execute("SELECT FROM erasure_executor.lanes WHERE lane = 8 FOR UPDATE")
    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as tasks:
        step = tasks.create_task(one.worker.step())
        await until(lambda: are_waiting(delivery, 1), "a step that waits")
        renewal = tasks.create_task(one.database.run("lanes-balance", one.lanes._balance))
        await until(lambda: are_waiting(delivery, 2), "a renewal that waits")
        await transaction.commit()
        assert await step == 20
        assert set(await renewal) == EVERY_LANE
    await between.close()
    (row,) = await delivery.look("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert row["deadlocks"] == 0


async def are_waiting(delivery: Delivery, count: int) -> bool:
    """Answer whether so many connections of the service wait for a lock."""
    (row,) = await delivery.look(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    return bool(row["count"] == count)


async def test_grants_are_enough(delivery: Delivery) -> None:
    """Everything above ran as the service's own role, which owns no table."""
    connection = await asyncpg.connect(delivery.access.dsn("erasure-executor"))
    try:
        assert await connection.fetchval("SELECT current_user") == "erasure_executor"
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE tableowner = current_user") == 0
    finally:
        await connection.close()
