"""Kafka and PostgreSQL in containers, where a Docker engine answers and the package `testcontainers` is installed.

HABEAS_SERVERS says which kind is wanted: `embedded`, `containers`, or nothing to take containers where they can be had.
The images are those of docker-compose.yml. The mail sink is always our own process, as only it can be told to misbehave.
"""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from typing_extensions import override

from habeas_embedded.errors import ServerFailed
from habeas_embedded.kafka import kafka_answers, own_properties
from habeas_embedded.ports import LOOPBACK, free_port
from habeas_embedded.postgres import postgres_answers
from habeas_embedded.waiting import until

__all__ = ["ContainerServer", "KafkaContainer", "PostgresContainer", "containers_wanted", "docker_answers"]

_KAFKA_IMAGE: Final = "apache/kafka:4.3.0"
_POSTGRES_IMAGE: Final = "postgres:18"
_START_LIMIT_S: Final = 180.0  # the first start may have to fetch the image
_STOP_LIMIT_S: Final = 20


_KAFKA_ENVIRONMENT: Final = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_LISTENERS": "INSIDE://localhost:9092,OUTSIDE://0.0.0.0:29092,CONTROLLER://localhost:9093",
    "KAFKA_ADVERTISED_LISTENERS": "INSIDE://localhost:9092,OUTSIDE://127.0.0.1:{port}",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_INTER_BROKER_LISTENER_NAME": "INSIDE",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
}


def docker_answers() -> bool:
    """Say whether a Docker engine can be used from here; False without the package `testcontainers`."""
    if find_spec("testcontainers") is None:
        return False
    try:
        return bool(import_module("docker").from_env(timeout=5).ping())
    except Exception:  # noqa: BLE001 (whatever the engine's client says, there is none to be used)
        return False


def containers_wanted(env: Mapping[str, str]) -> bool:
    """Say whether servers are to be containers; raises ServerFailed when they are asked for and cannot be had."""
    match env.get("HABEAS_SERVERS", ""):
        case "embedded":
            return False
        case "containers":
            if not docker_answers():
                raise ServerFailed(
                    "HABEAS_SERVERS=containers, but no Docker engine answers or testcontainers is not installed"
                )
            return True
        case "":
            return docker_answers()
        case _:
            raise ServerFailed("HABEAS_SERVERS is `embedded`, `containers` or not set")


class ContainerServer(ABC):
    """One container on a loopback port that stays the same over stop, kill and start."""

    def __init__(
        self, name: str, image: str, inside_port: int, environment: Mapping[str, str], command: str = ""
    ) -> None:
        self.name = name
        self.port = free_port()
        self._image = image
        self._inside_port = inside_port
        self._environment = {key: value.format(port=self.port) for key, value in environment.items()}
        self._command = command
        self._container: Any = None

    @property
    def alive(self) -> bool:
        """Whether the container runs."""
        if self._container is None:
            return False
        wrapped = self._container.get_wrapped_container()
        wrapped.reload()
        return str(wrapped.status) == "running"

    async def start(self) -> None:
        """Make the container, or start it again, and wait until it answers; raises ServerFailed."""
        await asyncio.to_thread(self._start)
        if not await until(self.answers, _START_LIMIT_S):
            raise ServerFailed(f"the container of {self._image} did not answer in time")

    async def stop(self) -> None:
        """Stop in order; what it holds is there at the next start."""
        if self._container is not None:
            await asyncio.to_thread(self._container.get_wrapped_container().stop, timeout=_STOP_LIMIT_S)

    async def kill(self) -> None:
        """End the container as a crash would."""
        if self._container is not None:
            await asyncio.to_thread(self._container.get_wrapped_container().kill)

    async def remove(self) -> None:
        """Remove the container and what it holds; testcontainers does so too when we are killed."""
        if self._container is not None:
            await asyncio.to_thread(self._container.stop)
            self._container = None

    @abstractmethod
    async def answers(self) -> bool:
        """Say whether a client gets an answer."""

    def _start(self) -> None:
        if self._container is not None:
            self._container.get_wrapped_container().start()
            return
        container = import_module("testcontainers.core.container").DockerContainer(self._image)
        container.with_bind_ports(self._inside_port, (LOOPBACK, self.port))
        for name, value in self._environment.items():
            container.with_env(name, value)
        if self._command:
            container.with_command(self._command)
        self._container = container.start()


class KafkaContainer(ContainerServer):
    """Kafka in a container, set up like the embedded one."""

    def __init__(self, *, hasty: bool = False) -> None:
        own = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in own_properties(hasty=hasty).items()}
        super().__init__("kafka", _KAFKA_IMAGE, 29092, _KAFKA_ENVIRONMENT | own)

    @property
    def bootstrap(self) -> str:
        """The address for clients, host:port."""
        return f"{LOOPBACK}:{self.port}"

    @override
    async def answers(self) -> bool:
        """Say whether a client gets an answer that names the broker."""
        return await kafka_answers(self.bootstrap)


class PostgresContainer(ContainerServer):
    """PostgreSQL in a container, set up like the embedded one."""

    def __init__(self) -> None:
        self._password = secrets.token_hex(24)
        command = (
            "postgres -c max_connections=200 -c idle_in_transaction_session_timeout=60s -c log_error_verbosity=terse"
        )
        super().__init__("postgres", _POSTGRES_IMAGE, 5432, {"POSTGRES_PASSWORD": self._password}, command)

    @property
    def admin_dsn(self) -> str:
        """The DSN of the superuser, for the database `postgres`."""
        return f"postgresql://postgres:{self._password}@{LOOPBACK}:{self.port}/postgres"

    @override
    async def answers(self) -> bool:
        """Say whether a client gets an answer; not before the image's first set-up is over, which listens on no TCP port."""
        return await postgres_answers(self.admin_dsn)
