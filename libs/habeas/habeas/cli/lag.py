"""What Kafka says to `habeas status`: how far services are behind, and whether topics are as the catalogue has them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from habeas.cli.risks import Kafka, Lacking

if TYPE_CHECKING:
    from habeas.chassis.drift import Seen

_LIMIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found out; ``lags`` holds messages not fetched yet by service, ``lacking`` the rights that this user would need."""

    kafka: Kafka
    lags: Mapping[str, int]
    seen: "Seen | None"
    lacking: tuple[Lacking, ...] = ()


async def ask(bootstrap: str | None, followed: Mapping[str, int]) -> Answer:
    """Ask Kafka, if there is one to be asked; a service that never committed has no lag.

    ``followed`` gives, for a service that keeps its position itself, the next offset of the audit topic.
    """
    from habeas.chassis.kafka import KafkaError
    from habeas.cli import brokers

    if bootstrap is None:
        return Answer(Kafka.NOT_ASKED, {}, None)
    try:
        async with asyncio.timeout(_LIMIT_S):
            seen = await brokers.look(bootstrap=bootstrap)
            lags, secret = await _lags(bootstrap, followed, seen.there)
    except (KafkaError, OSError, TimeoutError):
        return Answer(Kafka.UNREACHABLE, {}, None)
    lacking = [Lacking(right, "topic", tuple(sorted(names))) for right, names in seen.lacking.items()]
    lacking += [Lacking("Describe", "group", tuple(secret))] if secret else []
    return Answer(Kafka.ANSWERS, lags, seen, tuple(lacking))


async def _lags(
    bootstrap: str, followed: Mapping[str, int], topics: frozenset[str]
) -> tuple[dict[str, int], list[str]]:
    """Give the lags in topics that may be seen, then the services whose committed offsets may not."""
    from aiokafka import AIOKafkaConsumer
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import GroupAuthorizationFailedError
    from aiokafka.structs import TopicPartition

    from habeas.chassis.kafka import ISOLATION, stop_consumer
    from habeas.cli import store
    from habeas.cli.brokers import client_options, committed_offsets
    from habeas.contracts.topics import AUDIT_ENTRIES

    options = client_options(bootstrap=bootstrap)
    admin = AIOKafkaAdminClient(request_timeout_ms=int(_LIMIT_S * 1000), **options)
    consumer = AIOKafkaConsumer(group_id=None, isolation_level=ISOLATION, **options)
    reached: dict[str, dict[Any, int]] = {}
    secret = []
    try:
        await admin.start()
        for service in store.SERVICES:
            try:
                offsets = await committed_offsets(admin, service)
            except GroupAuthorizationFailedError:
                secret.append(service)
                offsets = {}
            if service in followed:
                offsets[TopicPartition(AUDIT_ENTRIES.name, 0)] = followed[service]
            reached[service] = {place: offset for place, offset in offsets.items() if place.topic in topics}
        await consumer.start()
        ends = await consumer.end_offsets(sorted({place for places in reached.values() for place in places}))
    finally:
        await admin.close()
        await stop_consumer(consumer)
    lags = {
        service: sum(max(0, ends[place] - offset) for place, offset in places.items())
        for service, places in reached.items()
        if places
    }
    return lags, secret
