"""The topics of the catalogue, made on a cluster and kept as the catalogue says."""

from collections.abc import Iterable
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from habeas.contracts.topics import CATALOGUE, Topic
from habeas_embedded.errors import ProvisionFailed
from habeas_embedded.waiting import until

__all__ = ["create_topics"]

_REPLICAS_MAX: Final = 3
_LIMIT_MS: Final = 60_000
_SEEN_LIMIT_S: Final = 60.0
_TOPIC_ALREADY_EXISTS: Final = 36


async def create_topics(bootstrap: str, topics: Iterable[Topic] = CATALOGUE) -> tuple[str, ...]:
    """Make the topics that are missing, add missing partitions, set every setting; gives the names of those made.

    Doing it again changes nothing. Topics with more partitions than wanted are left: taking some away would lose messages.
    Raises ProvisionFailed when the cluster refuses.
    """
    wanted = {topic.name: topic for topic in topics}
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=_LIMIT_MS)
    try:
        await admin.start()
        brokers = len((await admin.describe_cluster())["brokers"])
        there = set(await admin.list_topics())
        missing = [topic for name, topic in wanted.items() if name not in there]
        if missing:
            await _create(admin, missing, min(_REPLICAS_MAX, brokers))
        await _add_partitions(admin, [topic for name, topic in wanted.items() if name in there])
        await _configure(admin, [topic for name, topic in wanted.items() if name in there])
    except (KafkaError, OSError) as error:
        raise ProvisionFailed(f"topics could not be made at {bootstrap}: {type(error).__name__}") from error
    finally:
        await admin.close()
    return tuple(topic.name for topic in missing)


async def _create(admin: AIOKafkaAdminClient, topics: list[Topic], replicas: int) -> None:
    made = [
        NewTopic(topic.name, topic.partitions, replicas, topic_configs=topic.configs_on(replicas)) for topic in topics
    ]
    answer = await admin.create_topics(made, timeout_ms=_LIMIT_MS)
    for name, code, *_ in answer.topic_errors:
        if code not in (0, _TOPIC_ALREADY_EXISTS):  # somebody else may be making them too
            raise ProvisionFailed(f"topic {name} could not be made: {for_code(code).__name__}")

    async def all_seen() -> bool:
        return {topic.name for topic in topics} <= set(await admin.list_topics())

    if not await until(all_seen, _SEEN_LIMIT_S):  # creation is told to brokers after it is acknowledged
        raise ProvisionFailed("topics were made but did not appear in time")


async def _add_partitions(admin: AIOKafkaAdminClient, topics: list[Topic]) -> None:
    if not topics:
        return
    described = await admin.describe_topics([topic.name for topic in topics])
    now = {entry["topic"]: len(entry["partitions"]) for entry in described}
    more = {topic.name: NewPartitions(topic.partitions) for topic in topics if now[topic.name] < topic.partitions}
    if more:
        await admin.create_partitions(more)


async def _configure(admin: AIOKafkaAdminClient, topics: list[Topic]) -> None:
    """Set the catalogue's settings; a setting that is not in the catalogue goes back to the broker's default."""
    if not topics:
        return
    described = await admin.describe_topics([topic.name for topic in topics])
    replicas = {entry["topic"]: min(len(each["replicas"]) for each in entry["partitions"]) for entry in described}
    wanted = [
        ConfigResource(ConfigResourceType.TOPIC, topic.name, topic.configs_on(replicas[topic.name])) for topic in topics
    ]
    for answer in await admin.alter_configs(wanted):
        for code, _, _, name in answer.resources:
            if code:
                raise ProvisionFailed(f"topic {name} could not be set up: {for_code(code).__name__}")
