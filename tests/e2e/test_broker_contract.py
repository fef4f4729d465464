"""Kafka keeps the contract that the simulation's broker in memory claims to keep."""

import asyncio
from typing import Any

from aiokafka import AIOKafkaConsumer

from habeas.chassis import kafka
from habeas.chassis.producer import Producer
from habeas.contracts.topics import REQUESTS
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from tests.simulation.contract import Kafka, check_contract
from tests.support.delivery import settings


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
        async with asyncio.timeout(90):
            await check_contract(Kafka(producer, join, leave))
    finally:
        await producer.stop()
