"""What is told when a real Kafka refuses: the cause that the server gave, the variable, what to write. One node with a login and rights."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError
from click.testing import CliRunner
from pydantic import SecretStr

from habeas.chassis import drift, kafka, log
from habeas.chassis.refusals import TopicsForbidden, TopicsMissing, why
from habeas.chassis.service import Service
from habeas.chassis.settings import ChassisSettings
from habeas.cli.main import habeas
from habeas.contracts.platform import RetentionTicked
from habeas.contracts.topics import CATALOGUE
from habeas_embedded.ports import LOOPBACK, free_port
from tests.support.delivery import PROTECTOR, settings
from tests.support.guarded_kafka import PASSWORD, GuardedKafka
from tests.support.waiting import until

TOPIC = RetentionTicked.topic.name


@pytest_asyncio.fixture
async def secured(guarded_kafka: GuardedKafka) -> GuardedKafka:
    """The node, where `looker` may see every topic and `intake` nothing."""
    await guarded_kafka.allow("looker", "topic", "*", "Describe")
    return guarded_kafka


def as_user(node: GuardedKafka, user: str | None, password: str = PASSWORD, **changed: Any) -> ChassisSettings:
    """Settings that log in at the node."""
    login: dict[str, Any] = {
        "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": user,
        "kafka_sasl_password": SecretStr(password),
    }
    return settings(kafka_bootstrap=node.guarded, **(login if user else {}), **changed)


async def refusal(chosen: ChassisSettings) -> str:
    """What is told when the topics are looked for."""
    try:
        await drift.require_there(kafka.client_options(chosen), [TOPIC])
    except (TopicsMissing, kafka.KafkaError, OSError, TimeoutError) as error:
        return await why(chosen, error)
    return ""


async def test_each_refusal_is_told_by_its_cause(secured: GuardedKafka) -> None:
    """Password, mechanism, no login, no rights, nobody there, a name that does not resolve: each by variable, place and what to write."""
    place = f"HABEAS_KAFKA_BOOTSTRAP: {secured.guarded}"
    assert await refusal(as_user(secured, "looker")) == ""
    for user in ("looker", "stranger"):
        told = await refusal(as_user(secured, user, "battery staple"))
        assert told.startswith(f"{place} does not accept the user or the password; mend HABEAS_KAFKA_SASL_USERNAME")
        assert "battery staple" not in told
    told = await refusal(as_user(secured, "looker").model_copy(update={"kafka_sasl_mechanism": "SCRAM-SHA-512"}))
    assert told.startswith(f"{place} does not offer SCRAM-SHA-512; ")
    assert "it wants a login: set HABEAS_KAFKA_SASL_USERNAME" in await refusal(as_user(secured, None))
    assert "the listener may speak plain" in await refusal(as_user(secured, "looker", kafka_tls=True))
    told = await refusal(as_user(secured, "intake"))
    assert told.startswith(
        f"Kafka does not let the user of HABEAS_KAFKA_SASL_USERNAME (intake) see {TOPIC}; give it DESCRIBE"
    )
    assert "nothing listens there" in await refusal(settings(kafka_bootstrap=f"{LOOPBACK}:{free_port()}"))
    assert "does not resolve" in await refusal(settings(kafka_bootstrap="kafka.invalid:9092"))
    told = await why(as_user(secured, "intake"), GroupAuthorizationFailedError())
    assert "READ on the group" in told
    told = await why(as_user(secured, "looker"), KafkaConnectionError())
    assert "advertised.listeners" in told


async def test_topics_that_are_not_there_are_not_called_forbidden(secured: GuardedKafka) -> None:
    """Who may see everything is told what is missing; who may see nothing is not told that it is missing; no topic comes of asking."""
    with pytest.raises(TopicsMissing, match=r"^nowhere\.v1$") as missing:
        await drift.require_there(kafka.client_options(as_user(secured, "looker")), [TOPIC, "nowhere.v1"])
    assert not isinstance(missing.value, TopicsForbidden)
    with pytest.raises(TopicsForbidden, match=f"^{TOPIC}$"):
        await drift.require_there(kafka.client_options(as_user(secured, "intake")), [TOPIC])
    async with secured.admin() as admin:
        assert {name for name in await admin.list_topics() if not name.startswith("__")} == {
            topic.name for topic in CATALOGUE
        }


async def test_service_says_why_it_waits(secured: GuardedKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with a wrong password waits, and both its log and its health say what to mend, without the password."""
    lines: list[bytes] = []
    monkeypatch.setattr(log._log, "write", lines.append)
    made = Service("retention-sweeper", as_user(secured, "looker", "battery staple"), protection=PROTECTOR)
    made.topics[TOPIC] = RetentionTicked.topic
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(made._kafka_there())
        await until(lambda: made._why is not None, "the reason is known")
        assert "HABEAS_KAFKA_SASL_PASSWORD" in str(made._why)
        made.stopping.set()
    assert not waiting.result()
    (told,) = [line for line in map(json.loads, lines) if line["event"] == "service.waiting"][:1]
    assert told["why"].startswith(f"HABEAS_KAFKA_BOOTSTRAP: {secured.guarded} does not accept the user or the password")
    assert b"battery staple" not in b"".join(lines)


async def test_commands_say_why(secured: GuardedKafka, tmp_path: Path) -> None:
    """A request that a refusing Kafka does not take ends with the same words and exit code 1."""
    env = {
        "HABEAS_ENVIRONMENT": "development",
        "HABEAS_KAFKA_BOOTSTRAP": f"{secured.guarded}",
        "HABEAS_KAFKA_SASL_MECHANISM": "PLAIN",
        "HABEAS_KAFKA_SASL_USERNAME": "looker",
        "HABEAS_KAFKA_SASL_PASSWORD": "battery staple",
    }
    command = ["request", "submit", "access", "--account", "acc_1"]
    result = await asyncio.to_thread(CliRunner().invoke, habeas, command, env=env)
    assert result.exit_code == 1
    assert "does not accept the user or the password; mend HABEAS_KAFKA_SASL_USERNAME" in result.output
    assert "battery staple" not in result.output
