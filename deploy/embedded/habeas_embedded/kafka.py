"""One real Apache Kafka 4.3 node (KRaft: broker and controller in one process) on loopback."""

import asyncio
import hashlib
import os
import re
import secrets
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from typing_extensions import override

from habeas_embedded.errors import ServerFailed
from habeas_embedded.jars import KAFKA_VERSION, ensure_jars, jars_key, missing_jars
from habeas_embedded.java import Java, find_java
from habeas_embedded.own_server import OwnServer
from habeas_embedded.ports import LOOPBACK, answers, free_port
from habeas_embedded.processes import Child
from habeas_embedded.runs import Run

__all__ = ["KafkaServer", "kafka_answers", "kafka_cache", "kafka_prepared", "own_properties"]

_STOP_LIMIT_S: Final = 15.0
_ARCHIVE_LIMIT_S: Final = 45.0  # a stop that also writes the class archive takes seconds longer
_TOOL_LIMIT_S: Final = 300.0
_LOGGING: Final = "kafka-log4j2.properties"

_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}{behind}
advertised.listeners=PLAINTEXT://{host}:{port}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,BEHIND:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={data}

group.initial.rebalance.delay.ms=0

auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=2

log.cleaner.dedupe.buffer.size=8388608
"""

# For a node that rests most of the time; docs/servers-at-rest.md says what each setting bought. Nothing here costs durability.
_QUIET: Final = """
# A killed node may not register again while its old session lives. Shorter ones cost heartbeats, and end on a busy machine.
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=2000
# No record every half second that says only that there is none.
metadata.max.idle.interval.ms=0
# Trimmed records leave the disk within 5 s.
log.initial.task.delay.ms=5000
log.retention.check.interval.ms=5000
# Each of these threads looks about three times a second whether there is work.
num.network.threads=1
num.io.threads=2
group.coordinator.threads=1
background.threads=2
metric.reporters=
"""

# For tests, on top of the quiet settings: a killed node is back after 2 s, trimmed and compacted records leave the disk within 2 s. It
# costs CPU, and on a busy machine the node loses its session.
_HASTY: Final = """
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.initial.task.delay.ms=500
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=100
log.cleaner.backoff.ms=1000
"""


def kafka_cache(cache: Path) -> Path:
    """Give the directory in the cache that belongs to this version of Kafka; made when absent."""
    directory = cache / f"kafka-{KAFKA_VERSION}"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def kafka_prepared(cache: Path) -> bool:
    """Say whether the cache holds all that makes a start quick; raises JavaMissing."""
    directory = kafka_cache(cache)
    if missing_jars(directory / "jars"):
        return False
    java, jars = find_java(directory), ensure_jars(directory / "jars")
    return _template(directory).is_dir() and _classes(directory, java, jars).is_file()


def own_properties(*, hasty: bool) -> dict[str, str]:
    """Return the settings that decide what a node costs at rest, by Kafka's names for them."""
    lines = (_QUIET + (_HASTY if hasty else "")).splitlines()  # where one is named twice the last counts, as in Kafka
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


class KafkaServer(OwnServer):
    """A Kafka node of one run.

    The first start on a machine fetches the jars and, at its stop, writes an archive of loaded classes into the cache, with which
    later starts take less than half the time.

    With `front_port` there is a second listener, `bootstrap_behind`, that tells its clients to come to that port of loopback: whoever
    listens there and forwards to it stands between them and Kafka. `hasty` is for tests: see `_HASTY`.
    """

    name = "kafka"
    title = "Kafka"

    def __init__(
        self,
        run: Run,
        cache: Path,
        say: Callable[[str], None] = lambda _: None,
        *,
        front_port: int | None = None,
        hasty: bool = False,
    ) -> None:
        super().__init__(run, say)
        self._cache = kafka_cache(cache)
        self._front_port = front_port
        self._hasty = hasty
        self._port = 0
        self._behind_port = 0
        self._controller_port = 0
        self._started_from: tuple[Java, tuple[Path, ...], Path | None] | None = None
        self._archive: Path | None = None  # being written by the running node
        self.directory = run.directory / "kafka"

    @property
    def bootstrap(self) -> str:
        """The address for clients, host:port."""
        return f"{LOOPBACK}:{self._port}"

    @property
    def bootstrap_behind(self) -> str:
        """Where whoever stands at the front port forwards to, host:port."""
        return f"{LOOPBACK}:{self._behind_port}"

    @property
    def data_directory(self) -> Path:
        """Where partitions are on disk."""
        return self.directory / "data"

    @property
    @override
    def stop_limit_s(self) -> float:
        """How long it may stand still while it is stopped; one that also writes the class archive takes seconds longer."""
        return _STOP_LIMIT_S if self._archive is None else _ARCHIVE_LIMIT_S

    @override
    async def prepare(self) -> None:
        """Find Java and the jars, and format the storage; raises ServerFailed, JarsUnavailable, JavaMissing."""
        java = await asyncio.to_thread(find_java, self._cache)
        jars = await asyncio.to_thread(ensure_jars, self._cache / "jars", self._say)
        base = await asyncio.to_thread(_base_archive, java, self._cache, self._say)
        await asyncio.to_thread(self._prepare, java, jars)
        self._started_from = java, jars, base

    @override
    def choose_address(self) -> None:
        """Choose a port for each listener."""
        self._port, self._controller_port, self._behind_port = free_port(), free_port(), free_port()

    @override
    async def stop(self) -> None:
        """Stop in order, or at once when it stands still."""
        was_alive = self.alive
        await super().stop()
        if was_alive and self._archive is not None:
            written = self._half_written(self._archive)
            if written.is_file():
                written.replace(self._archive)
            self._archive = None

    @override
    async def kill(self) -> None:
        """End the node as a crash would."""
        await super().kill()
        self._archive = None

    @override
    async def answers(self) -> str | None:
        """Return None when a client gets an answer that names a broker, else what is seen instead."""
        if not answers(LOOPBACK, self._port):
            return "its port is closed yet"
        return None if await kafka_answers(self.bootstrap) else "its port is open, no broker is named yet"

    def _half_written(self, archive: Path) -> Path:
        return archive.with_suffix(f".{self._run.name}")

    def _prepare(self, java: Java, jars: tuple[Path, ...]) -> None:
        """Give the node a formatted storage directory, from the cache, unless it kept one from an earlier run."""
        if (self.data_directory / "meta.properties").is_file():
            return
        template = _template(self._cache)
        if not template.is_dir():
            self._say("formatting a directory for Kafka (once; later ones are copies of it)")
            _format(java, jars, template)
        self.directory.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        shutil.copytree(template, self.data_directory)
        meta = self.data_directory / "meta.properties"
        text = meta.read_text()
        for key in ("cluster.id", "directory.id"):  # two clusters with one id would take each other's clients
            text = re.sub(rf"^{re.escape(key)}=.*$", f"{key}={_kafka_id()}", text, flags=re.MULTILINE)
        meta.write_text(text)

    def _configure(self) -> None:
        stands = self._front_port is not None
        properties = _PROPERTIES + _QUIET + (_HASTY if self._hasty else "")
        text = properties.format(
            host=LOOPBACK,
            port=self._port,
            controller_port=self._controller_port,
            data=self.data_directory,
            behind=f",BEHIND://{self.bootstrap_behind}" if stands else "",
            advertised=f",BEHIND://{LOOPBACK}:{self._front_port}" if stands else "",
        )
        (self.directory / "server.properties").write_text(text)
        (self.directory / _LOGGING).write_bytes(files("habeas_embedded").joinpath(_LOGGING).read_bytes())

    @override
    def make_child(self) -> Child:
        """Return the process, with its properties written."""
        assert self._started_from is not None, "prepare() raises or sets it"  # noqa: S101 - for mypy
        java, jars, base = self._started_from
        self._configure()
        temporary = self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        archive = _classes(self._cache, java, jars)
        if archive.is_file():
            self._archive = None
            sharing = [f"-XX:SharedArchiveFile={archive if base is None else f'{base}{os.pathsep}{archive}'}"]
        else:
            self._archive = archive
            sharing = [f"-XX:ArchiveClassesAtExit={self._half_written(archive)}"]
            sharing += [] if base is None else [f"-XX:SharedArchiveFile={base}"]
        argv = (
            *(str(java.path), "-Xms128m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"),
            *(
                "-XX:-UsePerfData",
                "-XX:TieredStopAtLevel=1",
                "-Xshare:auto",
                "-Xlog:disable",
                "-Xlog:all=error:stderr",
                *sharing,
            ),
            *(f"-Djava.io.tmpdir={temporary}", "-Djava.awt.headless=true"),
            *(f"-Dlog4j2.configurationFile={self.directory / _LOGGING}", f"-Dhabeas.kafka.log={self.log}"),
            *("-cp", _class_path(jars), "kafka.Kafka", str(self.directory / "server.properties")),
        )
        return Child("kafka", argv, self._run.logs / "kafka.out")


async def kafka_answers(bootstrap: str) -> bool:
    """Say whether a client gets an answer that names at least one broker."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=2000)
    try:
        await admin.start()
        return bool((await admin.describe_cluster())["brokers"])
    except (KafkaError, OSError, TimeoutError):
        return False
    finally:
        await admin.close()


def _class_path(jars: tuple[Path, ...]) -> str:
    return os.pathsep.join(str(jar) for jar in jars)


def _template(cache: Path) -> Path:
    return cache / f"storage-{hashlib.sha256(_PROPERTIES.encode()).hexdigest()[:12]}"


def _classes(cache: Path, java: Java, jars: tuple[Path, ...]) -> Path:
    return cache / f"classes-{java.key}-{jars_key(jars)}.jsa"


def _kafka_id() -> str:
    """Give a random id in Kafka's form: 16 bytes in URL-safe base64 that does not begin like an option."""
    while (made := secrets.token_urlsafe(16)).startswith("-"):
        pass
    return made


def _base_archive(java: Java, cache: Path, say: Callable[[str], None]) -> Path | None:
    """Give the archive of the JDK's own classes for a Java that was built without one, made once."""
    if java.has_base_archive:
        return None
    archive = cache / f"jdk-{java.key}.jsa"
    if not archive.is_file():
        say("making an archive of Java's own classes (once; starts are faster with it)")
        part = archive.with_suffix(f".{secrets.token_hex(4)}")
        dump = [str(java.path), "-Xshare:dump", f"-XX:SharedArchiveFile={part}"]
        subprocess.run(dump, capture_output=True, timeout=_TOOL_LIMIT_S, check=False)
        if not part.is_file():
            return None  # Kafka starts without, only more slowly
        part.replace(archive)
    return archive


def _format(java: Java, jars: tuple[Path, ...], template: Path) -> None:
    """Format a storage directory with Kafka's own tool, once for the cache; raises ServerFailed.

    Several threads and processes may do so at once: each writes a directory of its own, the first that ends is kept.
    """
    with tempfile.TemporaryDirectory(prefix=f"{template.name}.", dir=template.parent) as own:
        part = Path(own) / "data"
        properties = Path(own) / "server.properties"
        properties.write_text(
            _PROPERTIES.format(host=LOOPBACK, port=9092, controller_port=9093, data=part, behind="", advertised="")
        )
        tool = [str(java.path), "-cp", _class_path(jars), "kafka.tools.StorageTool", "format"]
        tool += ["--cluster-id", _kafka_id(), "--config", str(properties)]
        try:
            subprocess.run(tool, capture_output=True, text=True, timeout=_TOOL_LIMIT_S, check=True)
        except subprocess.CalledProcessError as error:
            raise ServerFailed(f"kafka.tools.StorageTool failed:\n{error.stdout}{error.stderr}") from error
        with suppress(OSError):  # another was first
            part.replace(template)
