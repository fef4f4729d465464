"""Topics that are lost, hidden, or not as the catalogue has them, as `habeas migrate` and `habeas status` tell an operator."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import click
import pytest
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from click.testing import Result

from habeas.chassis import drift, kafka, metrics
from habeas.chassis.settings import Environment
from habeas.chassis.topic_watch import TopicWatch
from habeas.cli import brokers
from habeas.contracts.topics import AUDIT_ENTRIES, CATALOGUE, DSR_REQUESTS, REQUESTS, SWEEPS, Topic
from habeas_embedded.provision import Access
from habeas_embedded.topics import create_topics
from tests.integration.cli.conftest import Owner, Run, parsed
from tests.support.delivery import new_id, settings
from tests.support.guarded_kafka import GuardedKafka
from tests.support.waiting import until

LOST = "run `habeas replay`"


async def publish_once(owner: Owner) -> None:
    """Leave the mark of an event that was published."""
    await owner.execute(
        """
        INSERT INTO request_intake.outbox (created_on, event_id, lane, topic, key, type, subject, value, created_at, published_at)
        VALUES (current_date, $1, 0, $2, 'k', 'request.extended', 's', '{}', now(), now())
        """,
        new_id(),
        REQUESTS.name,
    )


@pytest.fixture
def operate(run: Run, guarded_kafka: GuardedKafka, database: Access) -> Callable[..., Awaitable[Result]]:
    """Run a command with the address of Kafka and the database, as the given Kafka user, or as one who may do everything."""

    async def invoke(*arguments: str, user: str | None = None) -> Result:
        env = {"HABEAS_KAFKA_BOOTSTRAP": guarded_kafka.bootstrap} if user is None else guarded_kafka.environment(user)
        return await run(*arguments, **env, HABEAS_ADMIN_DATABASE_DSN=database.owner_dsn)

    return invoke


def said(seen: Any, *risks: str) -> list[str]:  # noqa: ANN401 -- what status writes
    """The sentences of these risks."""
    return [each["said"] for each in seen["risks"] if each["risk"] in risks]


Operate = Callable[..., Awaitable[Result]]


async def test_a_hidden_topic_is_not_a_lost_one(operate: Operate, owner: Owner, guarded_kafka: GuardedKafka) -> None:
    """Who may make topics and not describe them is told of the right, and of no loss; a loss that is seen is told as one."""
    await publish_once(owner)
    await guarded_kafka.allow("maker", "topic", "*", "Create")
    refused = await operate("migrate", user="maker")
    assert refused.exit_code == 1
    assert "Describe and DescribeConfigs" in refused.output
    assert "13 topics" in refused.output
    assert not any(word in refused.output for word in ("replay", "lost", "made"))
    unseen = parsed(await operate("status", "--json", user="maker"))
    assert unseen["kafka"] == "answers"
    assert [(each["right"], each["kind"], len(each["names"])) for each in unseen["rights"]] == [
        ("Describe", "topic", 13),
        ("DescribeConfigs", "topic", 13),
        ("Describe", "group", 6),
    ]
    assert said(unseen, "topics_missing", "kafka_unreachable") == []
    assert (await operate("status", user="maker")).stdout.count("this user lacks the right") == 3
    replayed = await operate("replay", "--yes", user="maker")
    assert (replayed.exit_code, "Describe" in replayed.output) == (1, True)

    await guarded_kafka.allow("maker", "topic", "*", "Describe")
    half = await operate("migrate", user="maker")
    assert half.exit_code == 0
    assert "topics: all there" in half.output
    assert "the settings of 13 may not be read: give this user the right DescribeConfigs" in half.output

    await guarded_kafka.allow("maker", "topic", "*", "DescribeConfigs")
    await guarded_kafka.allow("maker", "group", "*", "Describe")
    assert "DescribeConfigs" not in (await operate("migrate", user="maker")).output
    assert said(parsed(await operate("status", "--json", user="maker")), "right_missing") == []

    await guarded_kafka.empty([REQUESTS])
    lost = await operate("migrate", user="maker")
    assert (lost.exit_code, LOST in lost.output) == (1, True)
    gone = parsed(await operate("status", "--json", user="maker"))
    assert said(gone, "topics_missing") == [
        f"{REQUESTS.name} is not there: `habeas migrate` makes them, or says why not"
    ]


async def test_drift_is_told_and_mended(operate: Operate, guarded_kafka: GuardedKafka) -> None:
    """What can lose messages fails a migration; what merely differs is told; more partitions are fine; one command sets all back."""
    assert said(parsed(await operate("status", "--json")), "topic_unfit", "topic_drifted") == []
    await guarded_kafka.configure(AUDIT_ENTRIES, retention_ms="3600000", compression_type="gzip")
    await guarded_kafka.configure(REQUESTS, cleanup_policy="compact", max_message_bytes="20000")
    await guarded_kafka.configure(SWEEPS, retention_bytes="1000", min_insync_replicas="1")
    await create_topics(guarded_kafka.bootstrap, [more_partitions()])
    unfit = [
        f"{AUDIT_ENTRIES.name} has retention.ms 3600000, the catalogue -1: messages can be lost, services refuse to start",
        f"{REQUESTS.name} has cleanup.policy compact, the catalogue delete: messages can be lost, services refuse to start",
        f"{SWEEPS.name} has retention.bytes 1000, the catalogue -1: messages can be lost, services refuse to start",
    ]
    drifted = [f"{REQUESTS.name} has max.message.bytes 20000, the catalogue 1048576"]
    seen = parsed(await operate("status", "--json"))
    assert sorted(said(seen, "topic_unfit")) == sorted(unfit)
    assert said(seen, "topic_drifted") == drifted
    assert (await operate("status", "--check")).exit_code == 1
    told = await operate("migrate")
    assert told.exit_code == 1
    for sentence in (*unfit, *drifted):
        assert f"topics: {sentence}" in told.output

    mended = await operate("migrate", "--reset-topics")
    assert (mended.exit_code, "the catalogue" in mended.output) == (0, False), mended.output
    assert said(parsed(await operate("status", "--json")), "topic_unfit", "topic_drifted") == []
    async with guarded_kafka.admin() as admin:
        kept = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, AUDIT_ENTRIES.name)])
        assert dict(each[:2] for each in kept[0].resources[0][4])["compression.type"] == "gzip"


def more_partitions() -> Topic:
    """The topic of requests with more partitions than the catalogue has."""
    return replace(DSR_REQUESTS, partitions=6)


async def test_a_service_refuses_unfit_topics_and_shows_drift(guarded_kafka: GuardedKafka) -> None:
    """At its start, also of topics that it only writes, with topic and setting; the metric says how bad it is, until it is mended."""
    watch = TopicWatch(
        "request-intake", settings(kafka_bootstrap=guarded_kafka.bootstrap), {DSR_REQUESTS.name: DSR_REQUESTS}
    )
    await watch.require()
    await guarded_kafka.configure(REQUESTS, cleanup_policy="compact", max_message_bytes="20000")
    with pytest.raises(drift.TopicsUnfit, match=f"{REQUESTS.name} has cleanup.policy compact"):
        await watch.require()
    assert shown(REQUESTS.name, "cleanup.policy") == 2
    assert shown(REQUESTS.name, "max.message.bytes") == 1
    await guarded_kafka.configure(REQUESTS)
    await watch.require()
    assert (shown(REQUESTS.name, "cleanup.policy"), shown(REQUESTS.name, "max.message.bytes")) == (0, 0)

    await guarded_kafka.empty([REQUESTS, DSR_REQUESTS])
    with pytest.raises(kafka.TopicsMissing, match=DSR_REQUESTS.name):
        await watch.require()
    async with guarded_kafka.admin() as admin:
        await admin.create_topics([NewTopic(REQUESTS.name, 3, 1, topic_configs=REQUESTS.configs_on(1))])
    await create_topics(guarded_kafka.bootstrap, [DSR_REQUESTS])
    with pytest.raises(drift.TopicsUnfit, match=f"{REQUESTS.name} has partitions 3, the catalogue 4"):
        await watch.require()


def shown(topic: str, setting: str) -> float | None:
    """What the metric shows of a setting."""
    for line in metrics.render().decode().splitlines():
        if line.startswith(f'habeas_kafka_drifted_settings{{setting="{setting}",topic="{topic}"}}'):
            return float(line.rpartition(" ")[2])
    return None


async def test_a_service_that_may_not_see_its_topics_says_so(guarded_kafka: GuardedKafka) -> None:
    """A hidden topic is no missing one; settings that may not be read keep nobody from starting, and are shown."""
    env = {name.removeprefix("HABEAS_").lower(): value for name, value in guarded_kafka.environment("intake").items()}
    watch = TopicWatch("request-intake", settings(**env), {DSR_REQUESTS.name: DSR_REQUESTS})
    with pytest.raises(kafka.TopicsForbidden, match=f"{AUDIT_ENTRIES.name}, {DSR_REQUESTS.name}"):
        await watch.require()
    for topic in (AUDIT_ENTRIES, DSR_REQUESTS):
        await guarded_kafka.allow("intake", "topic", topic.name, "Read")

    async def described() -> bool:
        return DSR_REQUESTS.name in (await watch.look()).unread

    await until(described, "the right")
    await watch.require()
    assert shown(DSR_REQUESTS.name, "unreadable") == 1


async def test_production_wants_three_brokers(guarded_kafka: GuardedKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """One broker is refused for topics that are there and for new ones, unless the operator says that fewer are enough."""
    of_one = settings(kafka_bootstrap=guarded_kafka.bootstrap).model_copy(
        update={"environment": Environment.PRODUCTION}
    )
    known = {DSR_REQUESTS.name: DSR_REQUESTS}
    with pytest.raises(drift.TopicsUnfit, match=f"{DSR_REQUESTS.name} has replicas 1, the catalogue at least 3"):
        await TopicWatch("request-intake", of_one, known).require()
    told = of_one.model_copy(update={"kafka_replicas_min": 1})
    await TopicWatch("request-intake", told, known).require()

    await guarded_kafka.empty(CATALOGUE)
    monkeypatch.setattr(brokers, "chassis_settings", lambda *_: of_one)
    with pytest.raises(click.ClickException, match="each topic on 3 brokers and there are 1"):
        await brokers.make_topics([REQUESTS.name])
    monkeypatch.setattr(brokers, "chassis_settings", lambda *_: told)
    assert await brokers.make_topics([REQUESTS.name, SWEEPS.name]) == 2
    assert await brokers.make_topics([REQUESTS.name]) == 0
    configs: dict[str, str] = {}

    async def made() -> bool:
        async with guarded_kafka.admin() as admin:
            (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, REQUESTS.name)])
        configs.update(each[:2] for each in answer.resources[0][4])
        return bool(configs)

    await until(made, "the topic")
    assert (configs["min.insync.replicas"], configs["retention.bytes"]) == ("1", "-1")
