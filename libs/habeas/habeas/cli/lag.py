"""How far services are behind Kafka: what they committed, or keep as their position, against the ends of their topics."""

import asyncio
from collections.abc import Mapping
from typing import Final

_LIMIT_S: Final = 10.0


async def lags(bootstrap: str, followed: Mapping[str, int]) -> dict[str, int] | None:
    """Give the messages that each service has not fetched yet; a service that never committed is left out.

    ``followed`` gives, for a service that keeps its position itself, the next offset of the audit topic. None when Kafka does not answer.
    """
    from aiokafka import AIOKafkaConsumer
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.structs import TopicPartition

    from habeas.chassis.kafka import ISOLATION, KafkaError, stop_consumer
    from habeas.cli import store
    from habeas.cli.brokers import client_options, committed_offsets
    from habeas.contracts.topics import AUDIT_ENTRIES

    options = client_options(bootstrap=bootstrap)
    admin = AIOKafkaAdminClient(request_timeout_ms=int(_LIMIT_S * 1000), **options)
    consumer = AIOKafkaConsumer(group_id=None, isolation_level=ISOLATION, **options)
    try:
        async with asyncio.timeout(_LIMIT_S):
            await admin.start()
            reached = {service: await committed_offsets(admin, service) for service in store.SERVICES}
            for service, position in followed.items():
                reached[service][TopicPartition(AUDIT_ENTRIES.name, 0)] = position
            await consumer.start()
            ends = await consumer.end_offsets(sorted({place for places in reached.values() for place in places}))
    except (KafkaError, OSError, TimeoutError):
        return None
    finally:
        await admin.close()
        await stop_consumer(consumer)
    return {
        service: sum(max(0, ends[place] - offset) for place, offset in places.items())
        for service, places in reached.items()
        if places
    }
