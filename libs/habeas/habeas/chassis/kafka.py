"""How this fleet speaks to Kafka: the same security options for FastStream and for aiokafka."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.client import ConnectionGroup
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code
from aiokafka.structs import TopicPartition
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from habeas.chassis import records
from habeas.chassis.refusals import TopicsForbidden, TopicsMissing, security_options, why
from habeas.chassis.settings import ChassisSettings
from habeas.chassis.waiting import is_cancelled
from habeas.contracts.topics import Topic

FETCH_WAIT_MS: Final = 5_000
"""How long a broker holds a fetch that finds nothing; the next record answers it at once."""

FETCHER_LOOKS_MS: Final = 600_000
"""The client's own look for something to do, which everything that there is to do wakes as well."""

RETRY_BACKOFF_MS: Final = 500
"""How long the client waits before it asks a broker again that did not answer."""

ISOLATION: Final = "read_committed"
"""Every consumer's: what a producer took back by aborting its transaction, or has not committed yet, was never said."""

_STOP_TIMEOUT_S: Final = 5.0
_UNCONSUMED_S: Final = 3_600.0

records.install()


def client_options(settings: ChassisSettings) -> dict[str, Any]:
    """Give what every aiokafka client needs to reach the brokers."""
    return {"bootstrap_servers": settings.kafka_bootstrap, **security_options(settings)}


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


async def make_topics(options: dict[str, Any], topics: Iterable[Topic], replicas: int) -> int:
    """Make topics as the catalogue declares them; gives how many were made. One that somebody else has made meanwhile is left as it is."""
    admin = AIOKafkaAdminClient(request_timeout_ms=30_000, **options)
    try:
        await admin.start()
        new = [
            NewTopic(each.name, each.partitions, replicas, topic_configs=each.configs_on(replicas)) for each in topics
        ]
        made = 0
        answer = await admin.create_topics(new, timeout_ms=30_000)
        for name, code, *_ in answer.topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                message = f"topic {name} could not be made"
                raise error(message)
            made += not code
        return made
    finally:
        await admin.close()


def fetch_whole(consumer: AIOKafkaConsumer) -> None:
    """Let the consumer ask for nothing more while it has records that were not taken.

    By default it asks for the other partitions when records were not taken for 100 ms. That fetch is held for as long as nothing comes
    there, and until it ends the partitions whose records are taken meanwhile are not asked for again.
    """
    consumer._fetcher._prefetch_backoff = _UNCONSUMED_S  # noqa: SLF001 -- the client has the parameter and passes it on from nowhere


def drop_held_fetches(consumer: AIOKafkaConsumer) -> None:
    """End what brokers hold for partitions that were given out anew; for the listener of a rebalance.

    The client cannot take a fetch back, and a broker answers the requests of a connection one after the other: the first fetch of the new
    partitions would wait behind the last one of the old.
    """
    for (_, group), connection in list(consumer._client._conns.items()):  # noqa: SLF001 -- the client itself closes connections for errors only
        if group == ConnectionGroup.DEFAULT:
            connection.close()


async def getmany(
    consumer: AIOKafkaConsumer, stopping: asyncio.Event, longest_s: float, records_max: int
) -> "Mapping[TopicPartition, Sequence[ConsumerRecord[bytes, bytes]]]":
    """Wait for records, for at most so long or until told to stop; gives them by partition. Raises what Kafka raises."""
    if stopping.is_set():
        return {}
    fetching = asyncio.ensure_future(consumer.getmany(timeout_ms=int(longest_s * 1000), max_records=records_max))
    ended = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({fetching, ended}, return_when=asyncio.FIRST_COMPLETED)
        return fetching.result() if fetching.done() else {}
    finally:
        ended.cancel()
        fetching.cancel()
        # Nobody asks for its records any more; they come again after the next start.
        with suppress(asyncio.CancelledError):
            await asyncio.wait({fetching})


async def reach(
    settings: ChassisSettings, partitions: Sequence[TopicPartition]
) -> tuple[Mapping[TopicPartition, int], Mapping[TopicPartition, int]]:
    """Give the first offset and the end of partitions. Raises what Kafka raises.

    Asked over a connection of its own: on a consumer's, questions wait behind a fetch that a broker holds.
    """
    consumer = assigned_consumer(settings, f"reach-{settings.instance}")
    try:
        await consumer.start()
        # All topics at once: the client makes a pause before it asks for each that it comes upon.
        await consumer._client.set_topics({each.topic for each in partitions})  # noqa: SLF001 -- `assign` seeks lost topics without pause
        return await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    finally:
        with suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await stop_consumer(consumer)


def is_reading(consumer: AIOKafkaConsumer | None, topics: Iterable[str]) -> bool:
    """Answer whether the consumer has a connection to a broker, and Kafka, as it was last asked, all of these topics.

    A broker that went silent without ending its connections is noticed with the next answer that is late, which takes up to 45 seconds.
    """
    if consumer is None or not all(consumer.partitions_for_topic(topic) for topic in topics):
        return False
    connections = consumer._client._conns.values()  # noqa: SLF001 -- asking a broker instead would be one request a look
    return any(connection.connected() for connection in connections)


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
        isolation_level=ISOLATION,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        consumer_timeout_ms=FETCHER_LOOKS_MS,
        request_timeout_ms=40_000,
        metadata_max_age_ms=60_000,
        retry_backoff_ms=RETRY_BACKOFF_MS,
        **client_options(settings),
    )


__all__ = [
    "FETCHER_LOOKS_MS",
    "FETCH_WAIT_MS",
    "ISOLATION",
    "RETRY_BACKOFF_MS",
    "KafkaError",
    "TopicPartition",
    "TopicsForbidden",
    "TopicsMissing",
    "assigned_consumer",
    "broker_options",
    "client_options",
    "drop_held_fetches",
    "fetch_whole",
    "getmany",
    "is_reading",
    "make_topics",
    "reach",
    "stop_consumer",
    "trim",
    "why",
]
