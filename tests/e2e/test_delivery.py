"""Delivery on real servers: two toy services, killed and stopped at any moment, and what must hold of their events afterwards."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterable

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from habeas.chassis.clock import SystemClock
from habeas.contracts import topics
from habeas.contracts.platform import RequestSubmitted
from habeas.contracts.vocabulary import Right
from habeas_embedded.kafka import KafkaServer
from habeas_embedded.servers import Server, Servers
from tests.support.delivery import NOON, headers_of, new_id
from tests.support.toy_fleet import PAIR, Toys, paired

STOP_LIMIT_S = 16.0
PLACE = TopicPartition(topics.DSR_REQUESTS.name, 0)


@pytest_asyncio.fixture
async def toys(servers: Servers, request: pytest.FixtureRequest) -> AsyncIterator[Toys]:
    """The pair in a database of its own, not yet started; a parameter says how many replicas the consumer has."""
    async with paired(servers, replicas=getattr(request, "param", 1), stop_timeout_s=STOP_LIMIT_S) as pair:
        yield pair


@pytest.mark.parametrize("toys", [1, 2], indirect=True, ids=["one replica", "two replicas"])
async def test_everything_arrives_once_in_order_whoever_is_killed(toys: Toys) -> None:
    """2,000 events of 50 keys: the consumer is killed twice, the producer and Kafka once, in the middle of it."""
    keys = await toys.add(50)
    await toys.fleet.start(PAIR)
    await toys.want(5)
    await toys.hears(100)
    for victim in ("erasure-executor", "kafka", "request-intake", "erasure-executor"):
        before = await toys.heard()
        await toys.want(8)
        await toys.hears(before + 1)  # in the middle of it
        if victim == "kafka":
            await toys.servers.kafka.kill()
            await toys.servers.kafka.start()
        else:
            await toys.fleet.kill(victim)
            await toys.fleet.start_service(victim)
    await toys.want(3)
    await toys.hears(2000)
    assert await toys.effects() == {key: list(range(1, 41)) for key in keys}
    lying = await toys.connection.fetch("SELECT type, state, reason, field, attempts FROM erasure_executor.inbox")
    assert [tuple(row) for row in lying] == []
    left = await toys.connection.fetchrow(
        "SELECT (SELECT count(*) FROM request_intake.outbox WHERE published_at IS NULL) AS unpublished,"
        " (SELECT count(*) FROM erasure_executor.inbox) AS unhandled,"
        " (SELECT count(*) FROM erasure_executor.seen) AS stored"
    )
    assert left is not None
    assert dict(left) == {"unpublished": 0, "unhandled": 0, "stored": 2000}


def on_disk(servers: Servers, text: str) -> bool:
    """Answer whether any file of Kafka's holds these bytes; only of our own, started here, can we see the disk."""
    if not isinstance(servers.kafka, KafkaServer):
        pytest.skip("Kafka runs in a container")
    files = (path for path in servers.kafka.data_directory.rglob("*") if path.is_file())
    return any(text.encode() in data for data in _read(files))


def _read(paths: Iterable[object]) -> Iterable[bytes]:
    for path in paths:
        try:
            with open(str(path), "rb") as file:  # noqa: PTH123 -- files go while we look
                yield file.read()
        except FileNotFoundError:
            continue


async def test_sensitive_bytes_leave_kafkas_disk(toys: Toys) -> None:
    """What a platform wrote is gone from every file of the broker soon after it was taken, also if its clock was ahead."""
    canaries = [f"canary-{secrets.token_hex(8)}" for _ in range(12)]
    producer = AIOKafkaProducer(bootstrap_servers=toys.servers.kafka_bootstrap)
    await producer.start()
    for number, canary in enumerate(canaries):
        event = RequestSubmitted(
            request_id=new_id(), right=Right.ACCESS, account_id=canary, received_at=NOON, channel="web"
        )
        now = SystemClock().now()
        await producer.send_and_wait(
            topics.DSR_REQUESTS.name,
            event.encode(),
            event.key().encode(),
            headers=list(headers_of(event, at=now).items()),
            timestamp_ms=int(now.timestamp() * 1000) + 1_800_000 * (number % 2),
        )
    await producer.stop()
    assert all(on_disk(toys.servers, canary) for canary in canaries)
    await toys.fleet.start(["request-intake"])

    async def stored() -> bool:
        count = await toys.connection.fetchval(
            "SELECT (SELECT count(*) FROM request_intake.seen) - (SELECT count(*) FROM request_intake.inbox)"
        )
        return bool(count == len(canaries))

    await toys.until(stored, "everything taken and forgotten")
    await toys.until(lambda: not any(on_disk(toys.servers, canary) for canary in canaries), "no sensitive byte on disk")


@pytest_asyncio.fixture
async def toys_alone(own_servers: Servers) -> AsyncIterator[Toys]:
    """The pair on servers of its own, for a test that leaves a group without its records."""
    async with paired(own_servers, stop_timeout_s=STOP_LIMIT_S) as pair:
        yield pair


async def test_records_that_go_while_a_service_stands_still_are_not_passed_over(toys_alone: Toys) -> None:
    """Kafka drops records that a running service has not taken yet: it ends and says how many, instead of going on behind them."""
    toys = toys_alone
    bootstrap = toys.servers.kafka_bootstrap

    async def taken(count: int) -> bool:
        return bool(await toys.connection.fetchval("SELECT count(*) FROM request_intake.seen") == count)

    await toys.fleet.start(["request-intake"])
    await submit(bootstrap, 1)
    await toys.until(lambda: taken(1), "the first record taken")
    intake = toys.fleet.member("request-intake").child
    os.kill(intake.pid, signal.SIGSTOP)
    try:
        last = await submit(bootstrap, 5)
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        await admin.delete_records({PLACE: RecordsToDelete(before_offset=last)})
        await admin.close()
    finally:
        os.kill(intake.pid, signal.SIGCONT)
    await toys.until(lambda: not intake.alive, "an end of the service that has missed records")
    assert intake.exit_code == 65
    assert toys.logged("request-intake", '"event":"consumer.records_gone"')
    assert not await taken(6)


async def submit(bootstrap: str, count: int) -> int:
    """Send submissions one after the other, each in a batch of its own; gives the offset of the last."""
    offset = -1
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for _ in range(count):
            event = RequestSubmitted(
                request_id=new_id(), right=Right.ACCESS, account_id="acc_1", received_at=NOON, channel="web"
            )
            headers = list(headers_of(event, at=SystemClock().now()).items())
            told = await producer.send_and_wait(PLACE.topic, event.encode(), b"k", PLACE.partition, headers=headers)
            offset = told.offset
    return offset


@pytest.mark.parametrize("first", ["kafka", "postgres"])
async def test_services_wait_for_their_servers_in_any_order(toys: Toys, first: str) -> None:
    """Started before Kafka and database, services wait for the one, then for the other, and then work."""
    keys = await toys.add(3)
    await toys.want(2)
    await toys.connection.close()
    await asyncio.gather(toys.servers.kafka.kill(), toys.servers.postgres.kill())
    one: Server = toys.servers.kafka
    other: Server = toys.servers.postgres
    waiting = '"waiting_for":"database"'
    if first == "postgres":
        one, other = other, one
    async with asyncio.TaskGroup() as tasks:
        starting = tasks.create_task(toys.fleet.start(PAIR))
        await toys.until(lambda: all(toys.logged(service, waiting) for service in PAIR), waiting)
        await one.start()
        if first == "postgres":
            waiting = '"waiting_for":"kafka"'
            await toys.until(lambda: all(toys.logged(service, waiting) for service in PAIR), waiting)
        assert all(toys.fleet.member(service).child.alive for service in PAIR)
        assert not starting.done()
        await other.start()
    await toys.reconnect()
    await toys.hears(6)
    assert await toys.effects() == {key: [1, 2] for key in keys}


async def stop(toys: Toys, service: str) -> int | None:
    """Stop a service as an operator does; gives its exit code, which is 0 when it was ready before its own time for that was over."""
    await toys.fleet.stop_service(service)
    return toys.fleet.member(service).child.exit_code


async def test_a_stop_is_in_time_and_loses_nothing(toys: Toys) -> None:
    """Stopped under load with everything up, both end by themselves in time; what they left goes on at the next start."""
    keys = await toys.add(50)
    await toys.fleet.start(PAIR)
    await toys.want(10)
    await toys.hears(1)
    for service in PAIR:
        assert await stop(toys, service) == 0
    await toys.fleet.start(PAIR)
    await toys.hears(500)
    assert await toys.effects() == {key: list(range(1, 11)) for key in keys}


async def test_a_stop_without_kafka_is_in_time_too(toys: Toys) -> None:
    """With Kafka gone and events unsent, both still end by themselves within the limit; nothing is lost."""
    keys = await toys.add(10)
    await toys.fleet.start(PAIR)
    await toys.want(1)
    await toys.hears(10)
    await toys.servers.kafka.kill()
    await toys.want(5)

    async def unsent() -> bool:
        count = await toys.connection.fetchval("SELECT count(*) FROM request_intake.outbox WHERE published_at IS NULL")
        return bool(count == 50)

    await toys.until(unsent, "50 events that nobody takes")
    assert await asyncio.gather(*(stop(toys, service) for service in PAIR)) == [0, 0]
    await toys.servers.kafka.start()
    await toys.fleet.start(PAIR)
    await toys.hears(60)
    assert await toys.effects() == {key: list(range(1, 7)) for key in keys}
