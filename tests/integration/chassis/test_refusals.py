"""What is told when a real Kafka refuses: the cause that the server gave, the variable, what to write. One node with a login and rights."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError
from click.testing import CliRunner
from pydantic import SecretStr
from typing_extensions import override

from habeas.chassis import kafka, log
from habeas.chassis.refusals import TopicsForbidden, TopicsMissing, why
from habeas.chassis.service import Service
from habeas.chassis.settings import ChassisSettings
from habeas.cli.main import habeas
from habeas.contracts.platform import RetentionTicked
from habeas.contracts.topics import CATALOGUE
from habeas_embedded.kafka import KafkaServer
from habeas_embedded.places import cache_directory
from habeas_embedded.ports import LOOPBACK, free_port
from habeas_embedded.runs import Run
from habeas_embedded.topics import create_topics
from tests.support.delivery import PROTECTOR, settings
from tests.support.waiting import until

PASSWORD = "correct horse"
TOPIC = RetentionTicked.topic.name

_SECURED = """
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller},SECURED://{host}:{own}
advertised.listeners=PLAINTEXT://{host}:{port},SECURED://{host}:{own}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_PLAINTEXT
listener.name.secured.sasl.enabled.mechanisms=PLAIN
listener.name.secured.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  user_allowed="{password}" user_nobody="{password}";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:allowed
"""


class SecuredKafka(KafkaServer):
    """A node with a second listener that wants a login, and rights that `nobody` does not have."""

    own = 0

    @override
    def choose_address(self) -> None:
        super().choose_address()
        self.own = free_port()

    @override
    def _configure(self) -> None:
        super()._configure()
        text = _SECURED.format(
            host=LOOPBACK, port=self._port, controller=self._controller_port, own=self.own, password=PASSWORD
        )
        with (self.directory / "server.properties").open(
            "a"
        ) as properties:  # where a key comes twice the last one counts
            properties.write(text)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured() -> AsyncIterator[SecuredKafka]:
    """The node, with the topics of the catalogue."""
    run = Run(f"tests-secured-{os.getpid()}", ephemeral=True)
    node = SecuredKafka(run, cache_directory(), lambda _: None, hasty=True)
    try:
        await node.start()
        await create_topics(node.bootstrap)
        yield node
    finally:
        await node.stop()
        run.close()


def as_user(node: SecuredKafka, user: str | None, password: str = PASSWORD, **changed: Any) -> ChassisSettings:
    """Settings that log in at the node."""
    login: dict[str, Any] = {
        "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": user,
        "kafka_sasl_password": SecretStr(password),
    }
    return settings(kafka_bootstrap=f"{LOOPBACK}:{node.own}", **(login if user else {}), **changed)


async def refusal(chosen: ChassisSettings) -> str:
    """What is told when the topics are looked for."""
    try:
        missing = await kafka.missing_topics(chosen, [TOPIC])
    except (TopicsMissing, kafka.KafkaError, OSError, TimeoutError) as error:
        return await why(chosen, error)
    return await why(chosen, TopicsMissing(missing)) if missing else ""


@pytest.mark.asyncio(loop_scope="module")
async def test_each_refusal_is_told_by_its_cause(secured: SecuredKafka) -> None:
    """Password, mechanism, no login, no rights, nobody there, a name that does not resolve: each by variable, place and what to write."""
    place = f"HABEAS_KAFKA_BOOTSTRAP: {LOOPBACK}:{secured.own}"
    assert await refusal(as_user(secured, "allowed")) == ""
    for user in ("allowed", "stranger"):
        told = await refusal(as_user(secured, user, "battery staple"))
        assert told.startswith(f"{place} does not accept the user or the password; mend HABEAS_KAFKA_SASL_USERNAME")
        assert "battery staple" not in told
    told = await refusal(as_user(secured, "allowed").model_copy(update={"kafka_sasl_mechanism": "SCRAM-SHA-512"}))
    assert told.startswith(f"{place} does not offer SCRAM-SHA-512; ")
    assert "it wants a login: set HABEAS_KAFKA_SASL_USERNAME" in await refusal(as_user(secured, None))
    assert "the listener may speak plain" in await refusal(as_user(secured, "allowed", kafka_tls=True))
    told = await refusal(as_user(secured, "nobody"))
    assert told.startswith(
        f"Kafka does not let the user of HABEAS_KAFKA_SASL_USERNAME (nobody) see {TOPIC}; give it DESCRIBE"
    )
    assert "nothing listens there" in await refusal(settings(kafka_bootstrap=f"{LOOPBACK}:{free_port()}"))
    assert "does not resolve" in await refusal(settings(kafka_bootstrap="kafka.invalid:9092"))
    told = await why(as_user(secured, "nobody"), GroupAuthorizationFailedError())
    assert "READ on the group" in told
    told = await why(as_user(secured, "allowed"), KafkaConnectionError())
    assert "advertised.listeners" in told


@pytest.mark.asyncio(loop_scope="module")
async def test_topics_that_are_not_there_are_not_called_forbidden(secured: SecuredKafka) -> None:
    """Who may see everything is told what is missing; who may see nothing is not told that it is missing; no topic comes of asking."""
    assert await kafka.missing_topics(as_user(secured, "allowed"), [TOPIC, "nowhere.v1"]) == {"nowhere.v1"}
    with pytest.raises(TopicsForbidden):
        await kafka.missing_topics(as_user(secured, "nobody"), [TOPIC])
    admin = AIOKafkaAdminClient(bootstrap_servers=secured.bootstrap)
    await admin.start()
    try:
        assert set(await admin.list_topics()) == {topic.name for topic in CATALOGUE}
    finally:
        await admin.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_service_says_why_it_waits(secured: SecuredKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with a wrong password waits, and both its log and its health say what to mend, without the password."""
    lines: list[bytes] = []
    monkeypatch.setattr(log._log, "write", lines.append)
    made = Service("retention-sweeper", as_user(secured, "allowed", "battery staple"), protection=PROTECTOR)
    made.topics[TOPIC] = RetentionTicked.topic
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(made._kafka_there())
        await until(lambda: made._why is not None, "the reason is known")
        assert "HABEAS_KAFKA_SASL_PASSWORD" in str(made._why)
        made.stopping.set()
    assert not waiting.result()
    (told,) = [line for line in map(json.loads, lines) if line["event"] == "service.waiting"][:1]
    assert told["why"].startswith(
        f"HABEAS_KAFKA_BOOTSTRAP: {LOOPBACK}:{secured.own} does not accept the user or the password"
    )
    assert b"battery staple" not in b"".join(lines)


@pytest.mark.asyncio(loop_scope="module")
async def test_commands_say_why(secured: SecuredKafka, tmp_path: Path) -> None:
    """A request that a refusing Kafka does not take ends with the same words and exit code 1."""
    env = {
        "HABEAS_ENVIRONMENT": "development",
        "HABEAS_KAFKA_BOOTSTRAP": f"{LOOPBACK}:{secured.own}",
        "HABEAS_KAFKA_SASL_MECHANISM": "PLAIN",
        "HABEAS_KAFKA_SASL_USERNAME": "allowed",
        "HABEAS_KAFKA_SASL_PASSWORD": "battery staple",
    }
    command = ["request", "submit", "access", "--account", "acc_1"]
    result = await asyncio.to_thread(CliRunner().invoke, habeas, command, env=env)
    assert result.exit_code == 1
    assert "does not accept the user or the password; mend HABEAS_KAFKA_SASL_USERNAME" in result.output
    assert "battery staple" not in result.output
