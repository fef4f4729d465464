"""What other clients can put into Kafka and ours cannot: transactions that are taken back, codecs, and records that no client can parse."""

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import KafkaError
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import Producer as Librdkafka

from habeas.contracts.topics import DSR_REQUESTS
from habeas.contracts.vocabulary import Outcome, Right
from habeas.kit import Follower
from habeas_demo.people import Person
from habeas_embedded.jars import ensure_jars
from habeas_embedded.java import find_java
from habeas_embedded.kafka import kafka_cache
from habeas_embedded.places import cache_directory
from tests.support.garbage import Forge, Raw
from tests.support.stage import Stage
from tests.support.waiting import until
from tests.support.wire import CODECS, Content, Wire, batch, with_payload

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOPIC: Final = DSR_REQUESTS.name
BAD_NAME: Final = b"\xff\xfe"
LIMIT_S: Final = 30.0


def asked(stage: Stage, person: Person, right: Right = Right.ACCESS) -> tuple[UUID, Raw]:
    """A good request of a person, not sent yet."""
    forge = Forge(stage.issuer, stage.clock)
    body = forge.submission(person.account_id, right)
    return UUID(body["request_id"]), forge.record(body)


def content(raw: Raw, *more: tuple[bytes, bytes]) -> Content:
    """The record as it is on the wire, with further headers."""
    return Content(raw.key, raw.value, [*((name.encode(), value) for name, value in raw.headers), *more])


def now_ms(stage: Stage) -> int:
    """The time of a record."""
    return int(stage.clock.now().timestamp() * 1000)


async def all_done(stage: Stage, request_ids: Sequence[UUID]) -> None:
    """Wait until requests are completed; with nobody having ended meanwhile."""
    assert {done.outcome for done in await stage.completed(*request_ids)} == {Outcome.DONE}
    assert [member for member in stage.fleet.members if member.restarts] == []


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
async def test_every_codec_is_served(stage: Stage, codec: int) -> None:
    """Producers choose how they compress."""
    ids, raws = zip(*(asked(stage, person) for person in stage.take(3)), strict=True)
    async with Wire(stage.servers.kafka_bootstrap) as wire:
        await wire.send(TOPIC, 0, batch([content(raw) for raw in raws], codec=codec, now_ms=now_ms(stage)))
    await all_done(stage, ids)


@pytest.mark.parametrize("codec", [0, 4], ids=["plain", "zstd"])
async def test_a_record_that_no_client_can_parse_stops_nobody(stage: Stage, codec: int) -> None:
    """A header's name that is no text, in the midst of a batch: that one is parked by its place, the others are served."""
    (one, first), (other, second) = (asked(stage, person) for person in stage.take(2))
    _, bad = asked(stage, stage.take_one())
    contents = [content(first), content(bad, (BAD_NAME, b"x")), content(second)]
    async with Wire(stage.servers.kafka_bootstrap) as wire:
        offset = await wire.send(TOPIC, 1, batch(contents, codec=codec, now_ms=now_ms(stage)))
    await all_done(stage, [one, other])
    assert (await stage.parked())[TOPIC, 1, offset + 1] == ("unreadable", "record")


async def test_a_submission_of_any_size_stops_nobody(stage: Stage) -> None:
    """A few hundred bytes of zstd that say nearly as much as a record can: parked by their field, and both neighbours are served."""
    (one, first), (other, second) = (asked(stage, person) for person in stage.take(2))
    forge, account = Forge(stage.issuer, stage.clock), stage.take_one().account_id
    long = forge.record(forge.submission(account, Right.ACCESS, language="de" + "-aaaaaaaa" * 100_000))
    narrowed = {"right": "access", "categories": ["a" * 79] * 11_400}
    many = forge.record(forge.submission(account, Right.ACCESS, details=narrowed))
    strange = forge.submission(account, Right.ACCESS, details={"right": "access", "categories": ["no_such_kind"]})
    contents = [content(raw) for raw in (first, long, many, forge.record(strange), second)]
    async with Wire(stage.servers.kafka_bootstrap) as wire:
        offset = await wire.send(TOPIC, 3, batch(contents, codec=CODECS["zstd"], now_ms=now_ms(stage)))
    await all_done(stage, [one, other])
    await stage.idle()
    parked = await stage.parked()
    assert [parked[TOPIC, 3, offset + number] for number in (1, 2, 3)] == [
        ("wrong_value", "language"),
        ("wrong_value", "details.access.categories"),
        ("wrong_value", "details.categories"),
    ]


async def test_bombs_stop_nobody(stage: Stage) -> None:
    """A few kilobytes each that unpack to 60 MB: they are parked without a value; requests behind them and beside them are served."""
    (one, behind), (other, beside) = (asked(stage, person) for person in stage.take(2))
    _, raw = asked(stage, stage.take_one())
    blanks = content(raw)._replace(value=b" " * 60_000_000)
    bombs = [batch([blanks], codec=codec, now_ms=now_ms(stage)) for codec in (1, 4)]
    large = batch([content(raw)._replace(value=b" " * 2_000_000)], codec=4, now_ms=now_ms(stage))
    async with Wire(stage.servers.kafka_bootstrap) as wire:
        offsets = [await wire.send(TOPIC, 0, data) for data in [*bombs * 4, large]]
        await wire.send(TOPIC, 0, batch([content(behind)], now_ms=now_ms(stage)))
        await wire.send(TOPIC, 1, batch([content(beside)], now_ms=now_ms(stage)))
    await all_done(stage, [one, other])
    found = await stage.parked()
    told = [found[TOPIC, 0, offset] for offset in offsets]
    assert {reason for reason, _ in told} == {"too_large"}
    assert [field.split(":")[0] for _, field in told] == ["batch"] * 8 + ["record"]
    sizes = await stage.habeas.fetch(
        "SELECT length(value) AS size FROM request_intake.inbox WHERE reason = 'too_large' AND record_offset = ANY($1)",
        offsets,
    )
    assert len(sizes) == 9
    assert max(row["size"] for row in sizes) < 200, "sealed, nothing has some bytes"


async def test_a_large_batch_of_a_client_that_lingers_is_read_whole(stage: Stage) -> None:
    """Twenty records of 900 KB, which are no requests, and two requests, compressed into one batch: each is read."""
    (one, first), (other, last) = (asked(stage, person) for person in stage.take(2))
    _, raw = asked(stage, stage.take_one())
    filling = [content(raw)._replace(value=b"%d" % number + b" " * 900_000) for number in range(20)]
    async with Wire(stage.servers.kafka_bootstrap) as wire:
        data = batch([content(first), *filling, content(last)], codec=4, now_ms=now_ms(stage))
        await wire.send(TOPIC, 2, data)
    await all_done(stage, [one, other])


async def test_what_no_client_can_parse_does_not_stop_a_follower(stage: Stage) -> None:
    """The kit reads as the fleet does: a header's name that is no text, and a bomb, are counted, and what is behind them is told."""
    name, bootstrap = "tests.followed.v1", stage.servers.kafka_bootstrap
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()
    _, raw = asked(stage, stage.take_one())
    log = [
        batch([content(raw, (BAD_NAME, b"x"))], now_ms=now_ms(stage)),
        batch([content(raw)._replace(value=b" " * 60_000_000)], codec=4, now_ms=now_ms(stage)),
        batch([content(raw)], now_ms=now_ms(stage)),
    ]
    async with Wire(bootstrap) as wire:
        for data in log:
            await wire.send(name, 0, data)
    async with Follower(bootstrap, name, group="tests-followed") as events, asyncio.timeout(LIMIT_S):
        async for event in events:
            assert event.key.encode() == raw.key
            break
    assert events.strange == 2


async def test_a_batch_that_does_not_open_stops_nobody(stage: Stage) -> None:
    """A broker that checks what it takes refuses it; one that does not hands it to us, and it is stepped over."""
    one, raw = asked(stage, stage.take_one())
    junk = with_payload(batch([content(raw)], now_ms=now_ms(stage)), os.urandom(200), CODECS["zstd"], is_packed=True)
    async with Wire(stage.servers.kafka_bootstrap) as wire:
        try:
            offset = await wire.send(TOPIC, 2, junk)
        except KafkaError:
            pass
        else:
            await stage.finds(lambda: is_parked(stage, offset), "the batch that does not open")
        await wire.send(TOPIC, 2, batch([content(raw)], now_ms=now_ms(stage)))
    await all_done(stage, [one])


async def is_parked(stage: Stage, offset: int) -> bool:
    """Whether the record of partition 2 is parked."""
    return (TOPIC, 2, offset) in await stage.parked()


def transactional(stage: Stage, name: str) -> Librdkafka:
    """A producer of librdkafka with a transaction begun."""
    producer = Librdkafka({"bootstrap.servers": stage.servers.kafka_bootstrap, "transactional.id": name})
    producer.init_transactions(LIMIT_S)
    producer.begin_transaction()
    return producer


def produce(producer: Librdkafka, raws: Sequence[Raw]) -> None:
    """Send records within the transaction; they lie in Kafka afterwards."""
    for raw in raws:
        producer.produce(TOPIC, raw.value, raw.key, partition=3, headers=dict(raw.headers))
    assert producer.flush(LIMIT_S) == 0


async def test_what_a_transaction_takes_back_was_never_said(stage: Stage) -> None:
    """Erasures in an aborted transaction and in an open one: nobody is erased. Once it is committed they are done."""
    (aborted, taken_back), (kept, committed) = (asked(stage, person, Right.ERASURE) for person in stage.take(2))
    (later, behind) = asked(stage, stage.take_one())
    producer = await asyncio.to_thread(transactional, stage, "platform-one")
    await asyncio.to_thread(produce, producer, [taken_back])
    await asyncio.to_thread(producer.abort_transaction, LIMIT_S)
    await asyncio.to_thread(producer.begin_transaction)
    await asyncio.to_thread(produce, producer, [committed])
    # What comes behind an open transaction in its partition waits for it, as Kafka has it; other partitions are served.
    async with Wire(stage.servers.kafka_bootstrap) as wire:
        await wire.send(TOPIC, 0, batch([content(behind)], now_ms=now_ms(stage)))
    await all_done(stage, [later])
    assert stage.heard.types(aborted) == stage.heard.types(kept) == []
    await asyncio.to_thread(producer.commit_transaction, LIMIT_S)
    await stage.completed(kept)
    assert stage.heard.types(aborted) == []
    known = await stage.habeas.fetch(
        "SELECT request_id FROM request_intake.requests WHERE request_id = ANY($1)", [aborted, kept]
    )
    assert [row["request_id"] for row in known] == [kept]


async def test_a_java_producer_that_dies_within_its_transaction_said_nothing(stage: Stage) -> None:
    """Kafka's own performance tool: what it committed is parked, as it is no request; what its death took back is not even that."""
    cache = kafka_cache(cache_directory())
    java, jars = find_java(cache), ensure_jars(cache / "jars")
    before = await stage.parked()

    async def perform(name: str, records: int, committed_every_ms: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(str(java.path), "-XX:TieredStopAtLevel=1", "-cp", os.pathsep.join(map(str, jars))),
            *("org.apache.kafka.tools.ProducerPerformance", "--topic", TOPIC, "--num-records", str(records)),
            *("--record-size", "10", "--throughput", "20", "--transactional-id", name),
            *("--transaction-duration-ms", str(committed_every_ms)),
            *("--producer-props", f"bootstrap.servers={stage.servers.kafka_bootstrap}", "linger.ms=0"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def lie_there(records: int) -> bool:
        return await asyncio.to_thread(end_of_topic, stage) >= records

    async def parked_since() -> int:
        return sum(1 for place in await stage.parked() if place not in before and place[0] == TOPIC)

    async def are_parked() -> bool:
        return await parked_since() >= 20

    start = await asyncio.to_thread(end_of_topic, stage)
    dying = await perform("java-one", 1_000_000, 900_000)
    await until(lambda: lie_there(start + 20), "records of the open transaction")
    dying.send_signal(signal.SIGKILL)
    await dying.wait()
    whole = await perform("java-one", 20, 900_000)  # the same id: Kafka ends what the dead one began
    assert await whole.wait() == 0
    await stage.finds(are_parked, "what was committed")
    one, raw = asked(stage, stage.take_one())
    async with Wire(stage.servers.kafka_bootstrap) as wire:
        for partition in range(DSR_REQUESTS.partitions):
            await wire.send(TOPIC, partition, batch([content(raw)], now_ms=now_ms(stage)))
    await all_done(stage, [one])
    assert await parked_since() == 20


def end_of_topic(stage: Stage) -> int:
    """Give how many records the topic has got so far, of transactions and marks too."""
    consumer = Consumer(
        {"bootstrap.servers": stage.servers.kafka_bootstrap, "group.id": "none", "isolation.level": "read_uncommitted"}
    )
    try:
        places = [TopicPartition(TOPIC, number) for number in range(DSR_REQUESTS.partitions)]
        return sum(consumer.get_watermark_offsets(place, LIMIT_S)[1] for place in places)
    finally:
        consumer.close()


async def test_more_partitions_than_before_are_read_too(stage: Stage) -> None:
    """Partitions may be added to a topic while it is read; what lies in the new ones is served."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stage.servers.kafka_bootstrap)
    await admin.start()
    more = DSR_REQUESTS.partitions + 2
    try:
        await admin.create_partitions({TOPIC: NewPartitions(more)})
    finally:
        await admin.close()
    ids, raws = zip(*(asked(stage, person) for person in stage.take(2)), strict=True)
    async with Wire(stage.servers.kafka_bootstrap) as wire:
        for raw, partition in zip(raws, (0, more - 1), strict=True):
            await wire.send(TOPIC, partition, batch([content(raw)], now_ms=now_ms(stage)))
    await all_done(stage, ids)
