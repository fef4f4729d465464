"""A Kafka that lets its users do only what they were allowed, with a second door at which everybody may do everything."""

import asyncio
import os
from collections.abc import Iterable, Iterator
from typing import Final

import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest
from typing_extensions import override

from habeas.contracts.topics import CATALOGUE, Topic
from habeas_embedded.kafka import KafkaServer
from habeas_embedded.places import cache_directory
from habeas_embedded.ports import LOOPBACK, free_port
from habeas_embedded.runs import Run
from habeas_embedded.topics import create_topics
from tests.support.waiting import until

__all__ = ["PASSWORD", "USERS", "GuardedKafka", "guarded_kafka", "guarded_kafka_node"]

USERS: Final = ("intake", "maker", "looker")
PASSWORD: Final = "not-a-secret"

# Kafka's protocol, "ACL" in its guide: resource types, operations, and that a pattern is a literal and a permission allows.
_KINDS: Final = {"topic": 2, "group": 3}
_OPERATIONS: Final = {
    "Read": 3,
    "Write": 4,
    "Create": 5,
    "Delete": 6,
    "Alter": 7,
    "Describe": 8,
    "DescribeConfigs": 10,
    "AlterConfigs": 11,
}
_LITERAL: Final = 3
_ALLOW: Final = 3
_ANY: Final = 1

_GUARD: Final = """
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port},GUARDED://{host}:{guarded_port}
advertised.listeners=PLAINTEXT://{host}:{port},GUARDED://{host}:{guarded_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.guarded.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""


class GuardedKafka(KafkaServer):
    """`bootstrap` is the open door; users log in at `guarded`, by SASL PLAIN, and may do nothing at first."""

    @property
    def guarded(self) -> str:
        """Where users log in, host:port."""
        return f"{LOOPBACK}:{self._guarded_port}"

    @override
    def choose_address(self) -> None:
        """Choose the ports, and one for the second door."""
        super().choose_address()
        self._guarded_port = free_port()

    @override
    def _configure(self) -> None:
        """Write the properties; of two lines for one the later counts."""
        super()._configure()
        users = " ".join(f'user_{user}="{PASSWORD}"' for user in USERS)
        guard = _GUARD.format(
            host=LOOPBACK,
            port=self._port,
            controller_port=self._controller_port,
            guarded_port=self._guarded_port,
            users=users,
        )
        with (self.directory / "server.properties").open("a") as properties:
            properties.write(guard)

    def environment(self, user: str) -> dict[str, str]:
        """The variables with which a service or a command logs in as this user."""
        return {
            "HABEAS_ENVIRONMENT": "development",
            "HABEAS_KAFKA_BOOTSTRAP": self.guarded,
            "HABEAS_KAFKA_SASL_MECHANISM": "PLAIN",
            "HABEAS_KAFKA_SASL_USERNAME": user,
            "HABEAS_KAFKA_SASL_PASSWORD": PASSWORD,
        }

    async def allow(self, user: str, kind: str, name: str, *operations: str) -> None:
        """Give rights on a topic or group, `*` for every one, and wait until they count."""
        async with self.admin() as admin:
            for each in operations:
                ask = CreateAclsRequest(_KINDS[kind], name, _LITERAL, f"User:{user}", "*", _OPERATIONS[each], _ALLOW)
                answer = await admin._send_request(ask)
                for code, *_ in answer.creation_responses:
                    assert code == 0, for_code(code)

            async def count() -> bool:
                ask = DescribeAclsRequest(_KINDS[kind], name, _LITERAL, f"User:{user}", None, _ANY, _ALLOW)
                found = (await admin._send_request(ask)).to_object()
                given = {acl["operation"] for each in found["resources"] for acl in each["acls"]}
                return {_OPERATIONS[each] for each in operations} <= given

            await until(count, "the rights")

    async def forbid_all(self) -> None:
        """Take every right back."""
        async with self.admin() as admin:
            for user in USERS:
                ask = DeleteAclsRequest(_ANY, None, _ANY, f"User:{user}", None, _ANY, _ANY)
                await admin._send_request(ask)

    async def configure(self, topic: Topic, **changed: str) -> None:
        """Change settings of a topic, with `_` for the dot; all others are as the catalogue has them. Waits until it counts."""
        configs = topic.configs_on(1) | {name.replace("_", "."): value for name, value in changed.items()}
        resource = ConfigResource(ConfigResourceType.TOPIC, topic.name, configs)
        async with self.admin() as admin:
            for answer in await admin.alter_configs([resource]):
                for code, *_ in answer.resources:
                    assert code == 0, for_code(code)

            async def counts() -> bool:
                (answer,) = await admin.describe_configs([resource])
                return {key: value for key, value, *_ in answer.resources[0][4]} == configs

            await until(counts, "the settings")

    async def empty(self, topics: Iterable[Topic]) -> None:
        """Remove topics, and wait until they are gone."""
        gone = {topic.name for topic in topics}
        async with self.admin() as admin:
            there = gone & set(await admin.list_topics())
            if there:
                await admin.delete_topics(sorted(there))

            async def are_gone() -> bool:
                return not there & set(await admin.list_topics())

            await until(are_gone, "topics that are gone")

    def admin(self) -> "_Admin":
        """An administrator at the open door."""
        return _Admin(self.bootstrap)


class _Admin:
    """Starts and closes an admin client around a block."""

    def __init__(self, bootstrap: str) -> None:
        self._client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)

    async def __aenter__(self) -> AIOKafkaAdminClient:
        await self._client.start()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


@pytest.fixture(scope="session")
def guarded_kafka_node() -> Iterator[GuardedKafka]:
    """The node itself, started once."""
    run = Run(f"tests-guarded-{os.getpid()}", ephemeral=True, fresh=True)
    node = GuardedKafka(run, cache_directory(), hasty=True)
    with asyncio.Runner() as runner:
        runner.run(node.start())
        try:
            yield node
        finally:
            runner.run(node.stop())
            run.close()


@pytest_asyncio.fixture
async def guarded_kafka(guarded_kafka_node: GuardedKafka) -> GuardedKafka:
    """The node, with all topics as the catalogue has them, empty, and users without rights."""
    await guarded_kafka_node.forbid_all()
    await guarded_kafka_node.empty(CATALOGUE)
    await create_topics(guarded_kafka_node.bootstrap)
    return guarded_kafka_node
