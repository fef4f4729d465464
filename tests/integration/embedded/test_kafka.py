import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from habeas.contracts.topics import CATALOGUE
from habeas_embedded.errors import JarsUnavailable
from habeas_embedded.jars import ensure_jars, kafka_jars, missing_jars
from habeas_embedded.places import cache_directory
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics

TOPIC = CATALOGUE[0].name


@pytest_asyncio.fixture
async def kafka() -> AsyncIterator[Servers]:
    """A Kafka node with the topics of the catalogue, for one test."""
    async with Servers(f"tests-kafka-{os.getpid()}", only=["kafka"], ephemeral=True, hasty=True, env={}) as servers:
        await create_topics(servers.kafka_bootstrap)
        yield servers


async def read_all(bootstrap: str, count: int) -> list[bytes]:
    """Read that many records of the topic's first partition from its beginning."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(TOPIC, 0)])
        return [(await asyncio.wait_for(consumer.getone(), 15)).value for _ in range(count)]
    finally:
        await consumer.stop()


async def send(bootstrap: str, value: bytes) -> None:
    """Send one acknowledged record to the topic's first partition."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait(TOPIC, value, partition=0)


async def test_records_survive_stop_and_crash_at_the_same_address(kafka: Servers) -> None:
    """What was acknowledged is there after an orderly stop and after a crash, at the address that clients know."""
    bootstrap = kafka.kafka_bootstrap
    await send(bootstrap, b"first")
    await kafka.kafka.stop()
    await kafka.kafka.start()
    await send(bootstrap, b"second")
    await kafka.kafka.kill()
    assert not kafka.kafka.alive
    await kafka.kafka.start()
    assert kafka.kafka_bootstrap == bootstrap
    assert await read_all(bootstrap, 2) == [b"first", b"second"]


async def test_topics_are_as_the_catalogue_says(kafka: Servers) -> None:
    """Every topic is there with its partitions; making them again makes none; no other topic appears by itself."""
    assert await create_topics(kafka.kafka_bootstrap) == ()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.kafka_bootstrap)
    await admin.start()
    seen = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
    await admin.close()
    assert {name: count for name, count in seen.items() if not name.startswith("__")} == {
        topic.name: topic.partitions for topic in CATALOGUE
    }


def test_second_start_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the jars in the cache no repository is asked: an unreachable one does not matter."""
    directory = cache_directory() / "kafka-4.3.0" / "jars"
    ensure_jars(directory)
    monkeypatch.setenv("HABEAS_MAVEN_REPOSITORY", "http://127.0.0.1:9/nowhere")
    assert missing_jars(directory) == ()
    assert len(ensure_jars(directory)) == len(kafka_jars())


def test_jar_with_another_checksum_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository that serves other bytes under a jar's name gives an error, and nothing of it stays in the cache."""
    jar = kafka_jars()[0]
    fake = tmp_path / ".m2" / "repository" / jar.group.replace(".", "/") / jar.name / jar.version / jar.file_name
    fake.parent.mkdir(parents=True)
    fake.write_bytes(b"not the jar")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("HABEAS_MAVEN_REPOSITORY", "http://127.0.0.1:9/nowhere")
    with pytest.raises(JarsUnavailable, match="HABEAS_MAVEN_REPOSITORY"):
        ensure_jars(tmp_path / "jars")
    assert not list((tmp_path / "jars").glob("*.jar"))


def test_cached_jars_have_the_committed_checksums() -> None:
    """Every jar in the cache is, byte for byte, the one that the committed list names."""
    paths = ensure_jars(cache_directory() / "kafka-4.3.0" / "jars")
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] == [jar.sha256 for jar in kafka_jars()]
