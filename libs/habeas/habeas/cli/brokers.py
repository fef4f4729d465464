"""How the command line reaches Kafka: by the same variables as the services."""

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

import click

from habeas.cli.local_fleet import adopt

if TYPE_CHECKING:
    from aiokafka import TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient

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


async def missing_topics(dsn: str | None = None) -> list[str]:
    """Give the topics of the catalogue that Kafka does not have. Raises ClickException when no broker answers."""
    from aiokafka.admin import AIOKafkaAdminClient

    from habeas.chassis.kafka import KafkaError
    from habeas.contracts.topics import CATALOGUE

    admin = AIOKafkaAdminClient(request_timeout_ms=_ASK_MS, **client_options(dsn))
    try:
        await admin.start()
        there = set(await admin.list_topics())
    except (KafkaError, OSError, TimeoutError) as error:
        raise click.ClickException(await why(error, dsn)) from None
    finally:
        await admin.close()
    return [topic.name for topic in CATALOGUE if topic.name not in there]


async def make_missing_topics(dsn: str | None = None) -> int:
    """Make the topics that are missing, each on three brokers or on as many as there are; gives how many were made."""
    from aiokafka.admin import AIOKafkaAdminClient

    from habeas.chassis.kafka import KafkaError, make_topics
    from habeas.contracts.topics import CATALOGUE

    options = client_options(dsn)
    admin = AIOKafkaAdminClient(request_timeout_ms=_ASK_MS, **options)
    try:
        try:
            await admin.start()
            brokers = len((await admin.describe_cluster())["brokers"])
        finally:
            await admin.close()
        return await make_topics(options, CATALOGUE, min(_REPLICAS_MAX, brokers))
    except (KafkaError, OSError, TimeoutError) as error:
        raise click.ClickException(f"the topics could not be made: {await why(error, dsn)}") from None
