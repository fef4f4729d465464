"""From the outbox to Kafka: everything, in order, the same bytes each time, and an audit log without a gap."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from habeas.chassis import relay as relay_module
from habeas.chassis import store
from habeas.chassis.database import Database, Transaction
from habeas.chassis.producer import PublishFailed
from habeas.chassis.relay import Relay
from habeas.contracts import topics
from habeas.contracts.audit import Action, AuditFact, entry_hash, parse_entry
from habeas.contracts.pledges import find_pledge
from habeas_embedded.provision import Access
from tests.support.delivery import CONSUMER, NOON, Broker, Delivery, extended, headers, new_id, number_of, raw_record
from tests.support.waiting import HANGS_S, until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """A service's slice."""
    delivery = await Delivery.open(database, relay_batch_rows_max=50, pool_connections_max=16, poll_interval_s=0.05)
    yield delivery
    await delivery.close()


async def emit(database: Database, key: UUID, numbers: range, *, facts: int = 0) -> None:
    """Emit events, and record facts, in one transaction."""
    async with database.transaction("emit") as tx:
        tx.emit(*[extended(key, number) for number in numbers], trace=TRACE)
        tx.record(*[AuditFact(Action.REQUEST_ACCEPTED, count=number) for number in range(facts)])


async def publish_all(relay: Relay) -> int:
    """Step until nothing is left; gives how many records were acknowledged."""
    total = 0
    while sent := await relay.step():
        total += sent
    return total


def numbers(broker: Broker, key: UUID) -> list[int]:
    """The numbers of one key, in the order of arrival."""
    mine = [record for record in broker.of(topics.REQUESTS) if record.key == str(key).encode()]
    return [number_of(type(extended(key, 0)).decode(record.value)) for record in mine]


async def test_a_record_is_the_event_with_its_envelope(delivery: Delivery) -> None:
    """What goes out carries the row's id, type, time, subject and trace, under the event's key, with the event's JSON."""
    key, broker = new_id(), Broker()
    await emit(delivery.database, key, range(1))
    assert await broker.relay(delivery, await delivery.lanes()).step() == 1
    (row,) = await delivery.look("SELECT event_id, published_at FROM erasure_executor.outbox")
    (record,) = broker.records
    assert (record.topic, record.key, record.value) == (
        "request-intake.requests.v1",
        str(key).encode(),
        extended(key, 0).encode(),
    )
    assert headers(record) == {
        "ce_specversion": b"1.0",
        "ce_id": str(row["event_id"]).encode(),
        "ce_type": b"request.extended",
        "ce_source": b"erasure-executor",
        "ce_time": b"2026-11-24T12:00:00.000000Z",
        "ce_subject": str(key).encode(),
        "content-type": b"application/json",
        "traceparent": TRACE.encode(),
    }
    assert row["published_at"] == NOON


async def test_everything_goes_out_once_in_order(delivery: Delivery) -> None:
    """More rows than a batch holds leave in order per key; a second look finds nothing."""
    broker, keys = Broker(), [new_id() for _ in range(4)]
    for start in range(0, 60, 10):
        for key in keys:
            await emit(delivery.database, key, range(start, start + 10))
    relay = broker.relay(delivery, await delivery.lanes())
    assert await publish_all(relay) == 240
    assert [numbers(broker, key) for key in keys] == [list(range(60))] * 4
    assert await publish_all(broker.relay(delivery, relay._lanes)) == 0


@pytest.mark.parametrize("when", ["fail_before", "fail_after"])
async def test_what_is_in_doubt_is_sent_again_as_it_was(delivery: Delivery, when: str) -> None:
    """After a lost batch, or one that arrived without a word, the same records go out again: same ids, same bytes."""
    broker, key = Broker(), new_id()
    await emit(delivery.database, key, range(20), facts=5)
    relay = broker.relay(delivery, await delivery.lanes())
    setattr(broker, when, 1)
    with pytest.raises(PublishFailed):
        await relay.step()
    first = list(broker.records)
    relay = broker.relay(delivery, relay._lanes)
    assert await publish_all(relay) == 25
    again = broker.records[len(first) :]
    assert first == ([] if when == "fail_before" else again[:20])
    assert numbers(broker, key)[-20:] == list(range(20))


async def test_audit_lines_are_made_once(delivery: Delivery) -> None:
    """A crash between acknowledgement and mark sends the very same lines again, under the same ids and numbers."""
    broker = Broker()
    await emit(delivery.database, new_id(), range(0), facts=7)
    relay = broker.relay(delivery, await delivery.lanes())
    broker.fail_after = 1
    with pytest.raises(PublishFailed):
        await relay.step()
    await emit(delivery.database, new_id(), range(0), facts=3)
    assert await publish_all(broker.relay(delivery, relay._lanes)) == 10
    records = broker.of(topics.AUDIT_ENTRIES)
    assert records[:7] == records[7:14]
    assert [record.key for record in records[7:]] == [f"erasure-executor/{seq}".encode() for seq in range(1, 11)]
    assert {record.partition for record in records} == {0}


async def test_each_audit_entry_keeps_the_pledge_of_the_one_before(delivery: Delivery) -> None:
    """Whoever knows the seed tells the next entry: its secret hashes to what the entry before pledged, also after a start and a replay."""
    broker = Broker()
    lanes = await delivery.lanes()
    for facts in (3, 1, 2):
        await emit(delivery.database, new_id(), range(0), facts=facts)
        await publish_all(broker.relay(delivery, lanes))
    told = broker.of(topics.AUDIT_ENTRIES)
    pledges = [pledge for record in told if (pledge := find_pledge(record.headers))]
    assert len(pledges) == 6
    assert all(later.keeps(earlier.next_hash) for earlier, later in pairwise(pledges))
    assert len({pledge.secret for pledge in pledges}) == 6
    await delivery.look("UPDATE erasure_executor.audit_head SET published_seq = 0, replays = replays + 1 RETURNING 1")
    await publish_all(broker.relay(delivery, lanes))
    assert broker.of(topics.AUDIT_ENTRIES)[6:] == told


async def test_the_seed_of_pledges_is_for_its_service_alone(delivery: Delivery) -> None:
    """Operators and other services cannot read the seed, and its own service cannot change it."""
    read = "SELECT seed FROM erasure_executor.audit_seed"
    for dsn, statement in (
        (delivery.access.operator_dsn, read),
        (delivery.access.dsn("audit-ledger"), read),
        (delivery.access.dsn(CONSUMER), "UPDATE erasure_executor.audit_seed SET seed = sha256('')"),
        (delivery.access.dsn(CONSUMER), "DELETE FROM erasure_executor.audit_seed"),
    ):
        connection = await asyncpg.connect(dsn)
        try:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        finally:
            await connection.close()
    (row,) = await delivery.look(read)
    assert len(row["seed"]) == 32


async def test_the_audit_log_has_no_gap_whatever_happens(delivery: Delivery) -> None:
    """Eight writers at once, every third transaction rolled back, two relays numbering: one chain, in the writers' own order."""
    broker, others = Broker(), [await delivery.another() for _ in range(2)]
    lanes = await delivery.lanes()
    relays = [broker.relay(delivery, lanes, database) for database in others]
    committed: list[UUID] = []
    writing = True

    async def write(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 -- a repeatable test
        for _ in range(25):
            request = new_id()
            try:
                async with delivery.database.transaction("write") as tx:
                    tx.record(*[AuditFact(Action.REQUEST_ACCEPTED, request=request)] * chance.randint(1, 3))
                    await tx.execute("SELECT pg_sleep($1)", chance.uniform(0, 0.004))
                    _roll(chance)
            except ZeroDivisionError:
                continue
            committed.append(request)

    async def number(relay: Relay) -> None:
        while writing:
            await relay._database.run("relay-sequence", relay._sequence)

    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as tasks:
        numbering = [tasks.create_task(number(relay)) for relay in relays]
        await asyncio.gather(*(write(seed) for seed in range(8)))
        writing = False
        await asyncio.gather(*numbering)
    await publish_all(broker.relay(delivery, lanes))
    lines = [record.value for record in broker.of(topics.AUDIT_ENTRIES)]
    entries = [parse_entry(line) for line in lines]
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[0].prev == "0" * 64
    assert all(entry.prev == entry_hash(line) for line, (_, entry) in zip(lines, pairwise(entries), strict=False))
    assert {entry.fact.request for entry in entries} == set(committed)
    (row,) = await delivery.look("SELECT seq, hash FROM erasure_executor.audit_head")
    assert (row["seq"], row["hash"]) == (len(lines), entry_hash(lines[-1]))


def _roll(chance: random.Random) -> None:
    """Fail every third time."""
    if chance.randrange(3) == 0:
        raise ZeroDivisionError


async def test_replicas_publish_their_own_lanes(delivery: Delivery) -> None:
    """Each row goes out by the replica that holds its lane, wherever it was written; the facts by the one with the audit lane."""
    other = await delivery.another()
    lanes = [await delivery.lanes(instance=0), await delivery.lanes(other, instance=1)]
    for each in lanes:
        await each.balance()
    brokers = [Broker(), Broker()]
    relays = [brokers[0].relay(delivery, lanes[0]), brokers[1].relay(delivery, lanes[1], other)]
    keys = [new_id() for _ in range(60)]
    for key in keys:
        await emit(delivery.database, key, range(2), facts=1)
    for relay in relays:
        await publish_all(relay)
    published = [{record.key for record in broker.of(topics.REQUESTS)} for broker in brokers]
    assert published[0].isdisjoint(published[1])
    assert published[0] | published[1] == {str(key).encode() for key in keys}
    assert sorted(len(broker.of(topics.AUDIT_ENTRIES)) for broker in brokers) == [0, 60]


@pytest.mark.parametrize("sent_before", [0, 1, 7, 20])
async def test_a_relay_that_was_paused_brings_no_disorder(delivery: Delivery, sent_before: int) -> None:
    """Paused in the middle of its batch, while another relay sends it all and newer rows too, it adds copies and nothing new."""
    key, broker, goes_on = new_id(), Broker(), asyncio.Event()
    late_broker, paused = Broker(), asyncio.Event()
    late_broker.records = broker.records  # one Kafka

    async def publish(records: Sequence[Any], timeout_s: float) -> None:
        broker.records += records[:sent_before]
        paused.set()
        async with asyncio.timeout(HANGS_S):
            await goes_on.wait()
        broker.records += records[sent_before:]

    late_broker.publish = publish  # type: ignore[method-assign]  # a broker that takes some, and then nothing for long
    late_lanes = await delivery.lanes(instance=0)
    await emit(delivery.database, key, range(20))
    async with asyncio.TaskGroup() as tasks:
        step = tasks.create_task(late_broker.relay(delivery, late_lanes).step())
        await paused.wait()
        other = await delivery.another()
        await delivery.look("UPDATE erasure_executor.lanes SET expires_at = '-infinity' RETURNING 1")
        await delivery.look("UPDATE erasure_executor.replicas SET expires_at = '-infinity' RETURNING 1")
        lanes = await delivery.lanes(other, instance=1)
        await emit(other, key, range(20, 40))
        assert await publish_all(broker.relay(delivery, lanes, other)) == 40
        goes_on.set()
        await step
    assert list(dict.fromkeys(numbers(broker, key))) == list(range(40))
    ids = [headers(record)["ce_id"] for record in broker.of(topics.REQUESTS)]
    assert (len(ids), len(set(ids))) == (60, 40)
    assert await publish_all(broker.relay(delivery, lanes, other)) == 0


async def test_a_lost_kafka_is_filled_again(delivery: Delivery) -> None:
    """Marking rows as unpublished sends the same events again, with the same ids, so that consumers know them."""
    broker, key = Broker(), new_id()
    await emit(delivery.database, key, range(30))
    lanes = await delivery.lanes()
    await publish_all(broker.relay(delivery, lanes))
    before, broker.records = broker.records, []
    await delivery.look("UPDATE erasure_executor.outbox SET published_at = NULL RETURNING 1")
    await publish_all(broker.relay(delivery, lanes))
    assert broker.records == before
    for published in (before, broker.records):
        await delivery.receive(*[raw_record(topics.REQUESTS, r.key, r.value, r.headers) for r in published])
        assert len(await delivery.states()) == 30


@pytest.mark.parametrize("own", ["events", "facts"])
async def test_a_busy_relay_still_looks_for_what_others_wrote(delivery: Delivery, own: str) -> None:
    """While its own transactions keep a relay busy with one kind, what another replica wrote of the other kind goes out too."""
    other, broker = await delivery.another(), Broker()
    relay = broker.relay(delivery, await delivery.lanes())
    delivery.database.on_commit(relay.note)
    stopping = asyncio.Event()
    foreign = topics.AUDIT_ENTRIES if own == "events" else topics.REQUESTS

    async def keep_busy() -> None:
        while not stopping.is_set():
            await emit(delivery.database, new_id(), range(own == "events"), facts=own == "facts")

    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(relay.run(stopping))
        tasks.create_task(relay.run_facts(stopping))
        tasks.create_task(keep_busy())
        await until(lambda: len(broker.records) > 20, "a busy relay")
        await emit(other, new_id(), range(own == "facts"), facts=own == "events")
        await until(lambda: len(broker.of(foreign)) == 1, "what another replica wrote")
        stopping.set()


async def test_trouble_is_waited_out(delivery: Delivery) -> None:
    """While Kafka fails the relay keeps trying, and everything arrives afterwards, in order."""
    broker, key = Broker(), new_id()
    broker.fail_before = 5
    relay = broker.relay(delivery, await delivery.lanes())
    delivery.database.on_commit(relay.note)
    stopping = asyncio.Event()
    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(relay.run(stopping))
        tasks.create_task(relay.run_facts(stopping))
        await emit(delivery.database, key, range(10))
        await until(lambda: len(broker.records) == 10, "ten records")
        stopping.set()
    assert numbers(broker, key) == list(range(10))
    assert broker.fail_before == 0


async def test_rows_wait_for_nobody_to_write_more(delivery: Delivery) -> None:
    """What a dead replica left unpublished is found without any commit of our own."""
    broker = Broker()
    relay = broker.relay(delivery, await delivery.lanes())
    stopping = asyncio.Event()
    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(relay.run(stopping))
        tasks.create_task(relay.run_facts(stopping))
        await emit(await delivery.another(), new_id(), range(3), facts=1)
        await until(lambda: len(broker.records) == 4, "four records")
        stopping.set()


async def test_statements_do_not_grow_with_rows(delivery: Delivery) -> None:
    """Numbering one fact or fifty takes the same number of statements."""
    relay = Broker().relay(delivery, await delivery.lanes())
    counts: list[int] = []

    async def number(tx: Transaction) -> None:
        await relay._sequence(tx)
        counts.append(tx.statements)

    for facts in (1, 50):
        await emit(delivery.database, new_id(), range(0), facts=facts)
        await delivery.database.run("relay-sequence", number)
        relay.look()
        assert await relay.step() == facts
    assert counts == [3, 3]

    await emit(delivery.database, new_id(), range(0), facts=1)
    for _ in range(2):  # once more for what was numbered and not published
        await delivery.database.run("relay-sequence", number)
    assert counts[2:] == [3, 3]


async def test_a_mark_that_comes_late_moves_nothing_back(delivery: Delivery) -> None:
    """A relay that was paused between acknowledgement and mark says nothing about lines after its own, nor about a Kafka filled anew."""
    relay = Broker().relay(delivery, await delivery.lanes())
    runs = []
    for _ in range(2):
        await emit(delivery.database, new_id(), range(0), facts=4)
        runs.append(await delivery.database.run("relay-sequence", relay._sequence))
    assert [[line.seq for line in run.lines] for run in runs] == [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8]]

    async def mark(run: relay_module._Run) -> int:
        await delivery.database.change("mark", store.MARK_LINES_PUBLISHED, run.epoch, run.replays, run.lines[-1].seq)
        (head,) = await delivery.look("SELECT published_seq FROM erasure_executor.audit_head")
        return int(head["published_seq"])

    assert [await mark(runs[0]), await mark(runs[1]), await mark(runs[0])] == [4, 8, 8]
    await delivery.look("UPDATE erasure_executor.audit_head SET published_seq = 0, replays = replays + 1 RETURNING 1")
    assert await mark(runs[1]) == 0
    broker = Broker()
    assert await publish_all(broker.relay(delivery, relay._lanes)) == 8
