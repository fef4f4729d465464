"""How the command line reaches Kafka: by the same variables as the services."""

import asyncio
import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Final

import click

from habeas.cli.local_fleet import adopt

if TYPE_CHECKING:
    from aiokafka import TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient

    from habeas.chassis.drift import Seen
    from habeas.chassis.settings import ChassisSettings

_NO_DATABASE = "postgresql:///none?host=/none"  # the chassis' settings want one; nothing is opened by it here


def chassis_settings(dsn: str | None = None, bootstrap: str | None = None) -> "ChassisSettings":
    """Give the settings that the services have too, from HABEAS_…; production refuses plain connections here too."""
    from habeas.chassis.environment import SettingsError
    from habeas.chassis.settings import load_chassis_settings

    if bootstrap is None and not os.environ.get("HABEAS_KAFKA_BOOTSTRAP"):
        adopt(click.get_current_context(silent=True))
    env = {**os.environ, "HABEAS_DATABASE_DSN": dsn or _NO_DATABASE}
    if bootstrap is not None:
        env["HABEAS_KAFKA_BOOTSTRAP"] = bootstrap
    try:
        return load_chassis_settings("habeas-cli", env)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def client_options(dsn: str | None = None, bootstrap: str | None = None) -> dict[str, Any]:
    """Give what an aiokafka client needs, from HABEAS_KAFKA_…."""
    from habeas.chassis.kafka import client_options as options_of

    return options_of(chassis_settings(dsn, bootstrap))


async def why(error: BaseException, dsn: str | None = None) -> str:
    """Return why Kafka could not be used, and what to write."""
    from habeas.chassis.kafka import why as why_of

    return await why_of(chassis_settings(dsn), error)


async def committed_offsets(admin: "AIOKafkaAdminClient", service: str) -> "dict[TopicPartition, int]":
    """Give the next offset of each partition that a service has committed.

    Waits while Kafka has no coordinator for it: a new one makes the topic of offsets when it is asked for the first time.
    """
    from aiokafka.errors import GroupCoordinatorNotAvailableError

    while True:
        try:
            found = await admin.list_consumer_group_offsets(service)
        except GroupCoordinatorNotAvailableError:
            await asyncio.sleep(_PAUSE_S)
        else:
            return {place: each.offset for place, each in found.items() if each.offset >= 0}


_REPLICAS_MAX: Final = 3
_ASK_MS: Final = 10_000
_PAUSE_S: Final = 0.1
_SEEN_TRIES: Final = 50


async def look(dsn: str | None = None, bootstrap: str | None = None) -> "Seen":
    """Look at the topics of the catalogue, as they are. Raises what Kafka raises."""
    from habeas.chassis import drift
    from habeas.chassis.kafka import client_options as options_of
    from habeas.contracts.topics import CATALOGUE

    settings = chassis_settings(dsn, bootstrap)
    return await drift.look(options_of(settings), CATALOGUE, settings.replicas_min)


async def topics_seen(dsn: str | None = None) -> "Seen":
    """Look at the topics. Raises ClickException when no broker answers, or when Kafka does not let us see which topics there are."""
    from habeas.chassis.kafka import KafkaError

    try:
        seen = await look(dsn)
    except (KafkaError, OSError, TimeoutError) as error:
        raise click.ClickException(await why(error, dsn)) from None
    if seen.hidden:
        raise click.ClickException(
            f"{some(seen.hidden)}: Kafka does not let this user see whether they are there; give it the rights "
            "Describe and DescribeConfigs on the fleet's topics"
        )
    return seen


def some(names: Iterable[str]) -> str:
    """Say how many topics there are, and name the first."""
    listed = sorted(names)
    return listed[0] if len(listed) == 1 else f"{len(listed)} topics, such as {listed[0]}"


async def make_topics(names: Collection[str], dsn: str | None = None) -> int:
    """Make topics of the catalogue, each on three brokers or on as many as there are; gives how many were made.

    Raises ClickException when Kafka refuses, or in production when there are too few brokers.
    """
    from aiokafka.admin import AIOKafkaAdminClient

    from habeas.chassis import kafka
    from habeas.contracts.topics import CATALOGUE

    settings = chassis_settings(dsn)
    options = kafka.client_options(settings)
    admin = AIOKafkaAdminClient(request_timeout_ms=_ASK_MS, **options)
    try:
        try:
            await admin.start()
            brokers = len((await admin.describe_cluster())["brokers"])
        finally:
            await admin.close()
        if brokers < settings.replicas_min:
            raise click.ClickException(
                f"production wants each topic on {settings.replicas_min} brokers and there are {brokers}: add brokers, or "
                f"write HABEAS_KAFKA_REPLICAS_MIN={brokers} and know that messages are lost with a disk"
            )
        wanted = [topic for topic in CATALOGUE if topic.name in names]
        return await kafka.make_topics(options, wanted, min(_REPLICAS_MAX, brokers))
    except (kafka.KafkaError, OSError, TimeoutError) as error:
        raise click.ClickException(f"the topics could not be made: {await why(error, dsn)}") from None


async def reset_topics(dsn: str | None = None) -> int:
    """Set the settings of the topics that are there to those of the catalogue, and add partitions; gives how many topics changed.

    Other settings of a topic stay. Raises ClickException when Kafka refuses.
    """
    from habeas.chassis import drift, kafka
    from habeas.contracts.topics import CATALOGUE

    seen = await topics_seen(dsn)
    drifted = {each.topic for each in seen.differences if each.setting != drift.REPLICAS}
    try:
        await drift.reset(client_options(dsn), [topic for topic in CATALOGUE if topic.name in drifted])
    except (kafka.KafkaError, OSError, TimeoutError) as error:
        raise click.ClickException(
            f"the topics could not be set: {await why(error, dsn)}; the user needs the rights Alter and AlterConfigs on them"
        ) from None
    for _ in range(_SEEN_TRIES):  # brokers learn what was set a moment after it was acknowledged
        if not any(each.setting != drift.REPLICAS for each in (await topics_seen(dsn)).differences):
            break
        await asyncio.sleep(_PAUSE_S)
    return len(drifted)
