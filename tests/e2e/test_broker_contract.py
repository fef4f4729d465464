"""Kafka keeps the contract that the simulation's broker in memory claims to keep."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from habeas.chassis import kafka
from habeas.chassis.producer import Producer
from habeas.contracts.topics import AUDIT_ENTRIES, REQUESTS
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from tests.simulation.contract import Kafka, check_contract
from tests.support.delivery import settings
from tests.support.waiting import HANGS_S


async def test_kafka_keeps_the_contract_of_the_memory_broker(own_servers: Servers) -> None:
    """Whatever the simulation takes for granted of Kafka is so."""
    chosen = settings(kafka_bootstrap=own_servers.kafka_bootstrap)
    await create_topics(own_servers.kafka_bootstrap)
    producer = Producer(chosen, "contract")

    async def join(name: str, group: str) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            REQUESTS.name,
            group_id=group,
            group_instance_id=name,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=6_000,
            **kafka.client_options(chosen),
        )
        await consumer.start()
        return consumer

    async def leave(consumer: Any) -> None:  # noqa: ANN401 -- either kind
        await consumer.stop()

    try:
        async with asyncio.timeout(HANGS_S):
            await check_contract(Kafka(producer, join, leave))
    finally:
        await producer.stop()


async def test_a_client_that_fails_to_stop_is_stopped_all_the_same(servers: Servers) -> None:
    """A request that rests after a failure ends aiokafka's own stop by a CancelledError; nobody was cancelled, and all is closed."""
    await create_topics(servers.kafka_bootstrap)
    place = kafka.TopicPartition(AUDIT_ENTRIES.name, 0)

    async def resting() -> AIOKafkaConsumer:
        consumer = kafka.assigned_consumer(settings(kafka_bootstrap=servers.kafka_bootstrap), "contract")
        await consumer.start()
        consumer.assign([place])
        consumer.seek(place, (await consumer.beginning_offsets([place]))[place])
        await consumer.getmany(timeout_ms=200)
        consumer._fetcher._pending_tasks.add(asyncio.get_running_loop().create_task(asyncio.Event().wait()))
        await asyncio.sleep(0)
        return consumer

    plain = await resting()
    with pytest.raises(asyncio.CancelledError):  # the day on which this fails, `stop_consumer` can go
        await plain.stop()
    await plain._client.close()
    consumer = await resting()
    connections = list(consumer._client._conns.values())
    assert connections
    await kafka.stop_consumer(consumer)
    assert not any(each.connected() for each in connections)
    await kafka.stop_consumer(consumer)
