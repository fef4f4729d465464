"""Fetches that a broker holds for long: what the client makes of them, and what we do about it. Held ones last for minutes here."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaConsumer

from habeas.chassis import kafka
from habeas.chassis.consumer import Membership
from habeas.chassis.producer import Producer, Record
from habeas.contracts.topics import DELIVERIES
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from habeas_embedded.waiting import until
from tests.support.delivery import settings

HELD_MS: Final = 600_000
LIMIT_S: Final = 120.0
SHORT_S: Final = 3.0  # nothing that waits behind a held fetch comes before this is over
ONE, OTHER = (kafka.TopicPartition(DELIVERIES.name, number) for number in (0, 1))

Publish = Callable[[kafka.TopicPartition], Awaitable[None]]


@asynccontextmanager
async def reading(servers: Servers, *, whole: bool) -> AsyncIterator[tuple[AIOKafkaConsumer, Publish]]:
    """A consumer of two partitions whose fetches are held for minutes, and what publishes one record."""
    await create_topics(servers.kafka_bootstrap)
    chosen = settings(kafka_bootstrap=servers.kafka_bootstrap)
    producer = Producer(chosen, "long-fetches")
    consumer = AIOKafkaConsumer(
        group_id=None,
        enable_auto_commit=False,
        fetch_max_wait_ms=HELD_MS,
        consumer_timeout_ms=kafka.FETCHER_LOOKS_MS,
        request_timeout_ms=2 * HELD_MS,
        **kafka.client_options(chosen),
    )

    async def publish(where: kafka.TopicPartition) -> None:
        await producer.publish([Record(where.topic, b"k", b"{}", [], where.partition)], LIMIT_S)

    await consumer.start()
    try:
        if whole:
            kafka.fetch_whole(consumer)
        ends = await consumer.end_offsets(
            [ONE, OTHER]
        )  # before a fetch is held, behind which nothing else would be answered
        consumer.assign([ONE, OTHER])
        for where, end in ends.items():
            consumer.seek(where, end)
        yield consumer, publish
    finally:
        await kafka.stop_consumer(consumer)
        await producer.stop()


async def take(consumer: AIOKafkaConsumer, limit_s: float = LIMIT_S) -> list[int]:
    """Give the partitions of what comes next, within a limit."""
    found = await kafka.getmany(consumer, asyncio.Event(), limit_s, 100)
    return [where.partition for where in found]


async def test_a_held_fetch_is_answered_at_once(servers: Servers) -> None:
    """However long a broker may hold a fetch, the next record comes through, again and again, and a stop does not wait for it."""
    async with asyncio.timeout(3 * LIMIT_S), reading(servers, whole=True) as (consumer, publish):
        for _ in range(3):
            assert await take(consumer, 0.3) == []
            await publish(ONE)
            assert await take(consumer) == [ONE.partition]
        stopping = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            taking = group.create_task(kafka.getmany(consumer, stopping, LIMIT_S * 10, 100))
            await asyncio.sleep(0)
            stopping.set()
        assert taking.result() == {}


async def left_lying(consumer: AIOKafkaConsumer, publish: Publish) -> None:
    """Let a record come and lie there until the client has asked for the other partition, or could have; then take it."""
    fetches: list[Any] = []
    send = consumer._client.send

    def counted(*args: Any, **options: Any) -> Any:  # noqa: ANN401 -- the client's own
        fetches.append(args)
        return send(*args, **options)

    consumer._client.send = counted
    assert await take(consumer, 0.3) == []
    await publish(ONE)
    assert await until(lambda: ONE in consumer._fetcher._records, LIMIT_S)
    asked = len(fetches)
    await until(lambda: len(fetches) > asked, 1.0)
    assert await take(consumer) == [ONE.partition]
    await publish(ONE)


async def test_what_is_left_lying_holds_nothing_up(servers: Servers) -> None:
    """A record that was not taken for a while does not keep its partition from being asked for again."""
    async with asyncio.timeout(3 * LIMIT_S), reading(servers, whole=True) as (consumer, publish):
        await left_lying(consumer, publish)
        assert await take(consumer) == [ONE.partition]


async def test_the_client_by_itself_would_hold_it_up(servers: Servers) -> None:
    """Without that, the next record of the partition waits for the fetch of the others: when this fails, ``fetch_whole`` can go."""
    async with asyncio.timeout(3 * LIMIT_S), reading(servers, whole=False) as (consumer, publish):
        await left_lying(consumer, publish)
        assert await take(consumer, SHORT_S) == []


@asynccontextmanager
async def member(servers: Servers, number: int, *, drops: bool) -> AsyncIterator[AIOKafkaConsumer]:
    """One of a group that reads both partitions, or its share of them; what is held ends with a rebalance, or not."""
    chosen = settings(kafka_bootstrap=servers.kafka_bootstrap)
    consumer = AIOKafkaConsumer(
        group_id=f"long-fetches-{drops}",
        group_instance_id=f"member-{number}",
        enable_auto_commit=False,
        fetch_max_wait_ms=HELD_MS,
        consumer_timeout_ms=kafka.FETCHER_LOOKS_MS,
        request_timeout_ms=2 * HELD_MS,
        heartbeat_interval_ms=300,
        session_timeout_ms=6_000,
        **kafka.client_options(chosen),
    )
    given = partial(kafka.drop_held_fetches, consumer) if drops else lambda: None
    consumer.subscribe([DELIVERIES.name], listener=Membership(lambda: None, given))
    await consumer.start()
    try:
        kafka.fetch_whole(consumer)
        yield consumer
    finally:
        await kafka.stop_consumer(consumer)


async def given_out_anew(servers: Servers, publish: Publish, *, drops: bool) -> list[int]:
    """Let one of two members end while the other waits for records; give what that one gets of a record in what it was given then."""
    async with member(servers, 1, drops=drops) as first:
        async with member(servers, 2, drops=drops):
            assert await until(lambda: 0 < len(first.assignment()) < DELIVERIES.partitions, LIMIT_S)
            own = set(first.assignment())
            while await take(first, 1.0):
                pass
        assert await until(lambda: len(first.assignment()) == DELIVERIES.partitions, LIMIT_S)
        (new, *_) = sorted(first.assignment() - own)
        if drops:
            await first.position(new)
        await publish(new)
        return await take(first, LIMIT_S if drops else SHORT_S)


async def test_a_rebalance_waits_for_no_held_fetch(servers: Servers) -> None:
    """The first fetch of what a member was given is not behind the last one of what it had."""
    async with asyncio.timeout(3 * LIMIT_S), reading(servers, whole=True) as (_, publish):
        assert await given_out_anew(servers, publish, drops=True) != []


async def test_the_client_by_itself_would_wait_for_it(servers: Servers) -> None:
    """When this fails, ``drop_held_fetches`` can go."""
    async with asyncio.timeout(3 * LIMIT_S), reading(servers, whole=True) as (_, publish):
        assert await given_out_anew(servers, publish, drops=False) == []


async def test_ends_are_told_while_a_fetch_is_held(servers: Servers) -> None:
    """Beginnings and ends are asked for over a connection of their own; over the consumer's they would wait behind the fetch."""
    async with asyncio.timeout(3 * LIMIT_S), reading(servers, whole=True) as (consumer, publish):
        await publish(ONE)
        assert await take(consumer) == [ONE.partition]
        assert await take(consumer, 0.3) == []
        first, end = await kafka.reach(settings(kafka_bootstrap=servers.kafka_bootstrap), [ONE, OTHER])
        assert first[ONE] < end[ONE] == await consumer.position(ONE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT_S):
                await consumer.end_offsets([ONE])
