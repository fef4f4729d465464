"""How this fleet speaks to Kafka: the same security options for FastStream and for aiokafka."""

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from aiokafka.structs import TopicPartition
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from habeas.chassis.settings import ChassisSettings
from habeas.chassis.waiting import is_cancelled
from habeas.contracts.topics import Topic


def client_options(settings: ChassisSettings) -> dict[str, Any]:
    """Give what every aiokafka client needs to reach the brokers."""
    options: dict[str, Any] = {"bootstrap_servers": settings.kafka_bootstrap}
    protocol = "SASL_" if settings.kafka_sasl_mechanism else ""
    context = settings.kafka_ssl_context()
    if context is not None:
        options["ssl_context"] = context
    options["security_protocol"] = protocol + ("SSL" if context is not None else "PLAINTEXT")
    if settings.kafka_sasl_mechanism and settings.kafka_sasl_password:
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    return options


def broker_options(settings: ChassisSettings) -> dict[str, Any]:
    """Give what a FastStream broker needs to reach the brokers."""
    context = settings.kafka_ssl_context()
    mechanism = settings.kafka_sasl_mechanism
    if mechanism is None or settings.kafka_sasl_username is None or settings.kafka_sasl_password is None:
        return {
            "bootstrap_servers": settings.kafka_bootstrap,
            "security": BaseSecurity(context, use_ssl=context is not None),
        }
    kind = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}[mechanism]
    security = kind(
        settings.kafka_sasl_username,
        settings.kafka_sasl_password.get_secret_value(),
        ssl_context=context,
        use_ssl=context is not None,
    )
    return {"bootstrap_servers": settings.kafka_bootstrap, "security": security}


class TopicsMissing(Exception):
    """Kafka answers, but topics of the catalogue are not there."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(", ".join(sorted(names)))


async def missing_topics(settings: ChassisSettings, wanted: Iterable[str]) -> set[str]:
    """Give which of the wanted topics Kafka does not have. Raises ``KafkaError`` or ``OSError`` when no broker answers."""
    admin = AIOKafkaAdminClient(request_timeout_ms=5_000, **client_options(settings))
    try:
        await admin.start()
        return set(wanted) - set(await admin.list_topics())
    finally:
        await admin.close()


async def make_topics(options: dict[str, Any], catalogue: Iterable[Topic], replication: int) -> int:
    """Make the topics that are not there yet, as the catalogue declares them; gives how many were made."""
    admin = AIOKafkaAdminClient(request_timeout_ms=30_000, **options)
    try:
        await admin.start()
        there = set(await admin.list_topics())
        new = [
            NewTopic(topic.name, topic.partitions, replication, topic_configs=topic.configs)
            for topic in catalogue
            if topic.name not in there
        ]
        if new:
            answer = await admin.create_topics(new, timeout_ms=30_000)
            for name, code, *_ in answer.topic_errors:
                error = for_code(code)
                if code and error is not TopicAlreadyExistsError:
                    message = f"topic {name} could not be made"
                    raise error(message)
        return len(new)
    finally:
        await admin.close()


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, whether or not it was started; raises what Kafka raises.

    aiokafka cancels its requests and waits for them. One that rested after a failure ends the whole stop by a CancelledError, which must
    not look as if the caller had been cancelled: the rest of the stop is done here.
    """
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        if is_cancelled():
            raise
        await consumer._client.close()  # noqa: SLF001 -- the step that is left, and there is no other way to it


async def trim(settings: ChassisSettings, offsets: dict[TopicPartition, int]) -> None:
    """Move the start of partitions forward, so that earlier records are gone for every reader."""
    admin = AIOKafkaAdminClient(request_timeout_ms=10_000, **client_options(settings))
    try:
        await admin.start()
        await admin.delete_records(
            {partition: RecordsToDelete(before_offset=offset) for partition, offset in offsets.items()}
        )
    finally:
        await admin.close()


def assigned_consumer(settings: ChassisSettings, client_id: str) -> AIOKafkaConsumer:
    """Make a consumer outside of any group, for a reader that keeps its position itself."""
    return AIOKafkaConsumer(
        client_id=client_id,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_wait_ms=500,
        request_timeout_ms=40_000,
        metadata_max_age_ms=60_000,
        **client_options(settings),
    )


__all__ = [
    "KafkaError",
    "TopicPartition",
    "TopicsMissing",
    "assigned_consumer",
    "broker_options",
    "client_options",
    "make_topics",
    "missing_topics",
    "stop_consumer",
    "trim",
]
