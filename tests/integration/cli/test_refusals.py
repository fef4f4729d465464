"""What a topic refuses: others go on, nothing overtakes, operators are told with topic and size, and all goes out once it is mended."""

import random
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition

from habeas.chassis import metrics, troubles
from habeas.chassis.clock import SystemClock
from habeas.chassis.producer import Producer, PublishFailed, Record, Refused
from habeas.chassis.relay import Relay
from habeas.chassis.troubles import Reason
from habeas.contracts.audit import Action, AuditFact
from habeas.contracts.notification_mailer import MailSent
from habeas.contracts.topics import AUDIT_ENTRIES, DELIVERIES, REQUESTS, SWEEPS, Topic
from habeas.contracts.vocabulary import MailKind
from habeas_embedded.provision import Access
from tests.integration.cli.conftest import Owner, Run, parsed
from tests.support.delivery import CONSUMER, NOON, Delivery, extended, new_id, settings
from tests.support.guarded_kafka import GuardedKafka
from tests.support.waiting import HANGS_S

TOPICS = (REQUESTS, DELIVERIES, SWEEPS)
SIZES = (10, 100, 1_000, 5_000, 30_000)


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """A service's slice, at the time of the commands that look at it."""
    delivery = await Delivery.open(database)
    delivery.clock.advance(SystemClock().now() - NOON)
    yield delivery
    await delivery.close()


@pytest_asyncio.fixture
async def producer(guarded_kafka: GuardedKafka) -> AsyncIterator[Producer]:
    """A producer at the open door."""
    producer = Producer(settings(kafka_bootstrap=guarded_kafka.bootstrap), "test")
    yield producer
    await producer.stop()


async def read_all(kafka: GuardedKafka, topic: Topic) -> dict[int, list[bytes]]:
    """The values of every partition, in order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        left = await consumer.end_offsets(places)
        found: dict[int, list[bytes]] = {place.partition: [] for place in places}
        while [place for place in places if await consumer.position(place) < left[place]]:
            for place, records in (await consumer.getmany(timeout_ms=500)).items():
                found[place.partition] += [record.value for record in records]
        return found
    finally:
        await consumer.stop()


def firsts(values: Sequence[bytes]) -> list[int]:
    """The numbers at the beginning of values, each where it came first: what came twice takes no second effect."""
    return list(dict.fromkeys(int(value[:6]) for value in values))


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_lost_or_overtaken(guarded_kafka: GuardedKafka, producer: Producer, seed: int) -> None:
    """Records of any size to topics of any limit: those that fit go out past those that do not, and per partition all keep their order."""
    chance = random.Random(seed)  # noqa: S311 -- a test's choices
    limits = {topic.name: chance.choice((300, 2_000, 20_000, 1 << 20)) for topic in TOPICS}
    for topic in TOPICS:
        await guarded_kafka.configure(topic, max_message_bytes=str(limits[topic.name]))
    left = []
    for number in range(120):
        topic = chance.choice(TOPICS)
        value = b"%06d" % number + bytes(chance.choice(SIZES))
        left.append(Record(topic.name, b"k", value, [], chance.randrange(topic.partitions)))
    sent = list(left)
    for _ in range(3):
        left = await publish(producer, left)
    waiting: set[tuple[str, int]] = set()
    expected = []
    for each in sent:  # sizes and limits are so far apart that what Kafka adds does not matter
        if len(each.value) > limits[each.topic]:
            waiting.add((each.topic, each.partition))
        if (each.topic, each.partition) in waiting:
            expected.append(each)
    assert left == expected
    for topic in TOPICS:
        await guarded_kafka.configure(topic)
    assert await publish(producer, left) == []
    for topic in TOPICS:
        for number, values in (await read_all(guarded_kafka, topic)).items():
            mine = [int(each.value[:6]) for each in sent if (each.topic, each.partition) == (topic.name, number)]
            assert firsts(values) == mine


async def publish(producer: Producer, records: Sequence[Record]) -> list[Record]:
    """Publish once; gives what was refused."""
    if not records:
        return []
    try:
        await producer.publish(records, HANGS_S)
    except Refused as refused:
        if {each.reason for each in refused.refusals.values()} != {Reason.TOO_LARGE}:
            raise
        return [record for position, record in enumerate(records) if position not in refused.acknowledged]
    return []


async def test_a_right_that_is_missing_stops_its_topic_alone(guarded_kafka: GuardedKafka) -> None:
    """Of two topics one may be written: its records are acknowledged, the other's are named with the reason."""
    env = {name.removeprefix("HABEAS_").lower(): value for name, value in guarded_kafka.environment("intake").items()}
    nobody = Producer(settings(**env), "test")
    with pytest.raises(Refused) as everywhere:
        await nobody.publish([Record(SWEEPS.name, b"k", b"000001", [], 0)], HANGS_S)
    assert everywhere.value.refusals[SWEEPS.name].reason is Reason.NOT_ALLOWED
    await guarded_kafka.allow("intake", "topic", REQUESTS.name, "Write")
    await guarded_kafka.allow("intake", "topic", DELIVERIES.name, "Describe")
    producer = Producer(settings(**env), "test")
    records = [Record(topic.name, b"k", b"000001", [], 0) for topic in (SWEEPS, REQUESTS, DELIVERIES)]
    try:
        with pytest.raises(Refused) as refused:
            await producer.publish(records, HANGS_S)
    finally:
        await producer.stop()
    assert refused.value.acknowledged == {1}
    assert {topic: each.reason for topic, each in refused.value.refusals.items()} == {
        SWEEPS.name: Reason.NOT_ALLOWED,
        DELIVERIES.name: Reason.NOT_ALLOWED,
    }


async def test_a_partition_that_is_not_there_is_waited_for(guarded_kafka: GuardedKafka, producer: Producer) -> None:
    """The client's complaint about it is no error of its own kind and must not end the service."""
    with pytest.raises(PublishFailed):
        await producer.publish([Record(SWEEPS.name, b"k", b"000001", [], 3)], HANGS_S)


async def test_status_says_which_topic_refuses_what(
    run: Run, owner: Owner, delivery: Delivery, guarded_kafka: GuardedKafka, producer: Producer
) -> None:
    """Too large an event is at risk at once, with topic and size, and others go out; mended, all goes out in order."""
    relay = Relay(CONSUMER, delivery.database, await delivery.lanes(), producer, delivery.settings)
    keys = [new_id() for _ in range(30)]

    async def emit(number: int) -> None:
        async with delivery.database.transaction("emit") as tx:
            tx.emit(*[extended(key, number) for key in keys])
            mail = MailSent(request_id=keys[0], mail_id=new_id(), kind=MailKind.OUTCOME, sent_at=NOON)
            tx.emit(mail)

    async def step() -> None:
        relay.look()
        while await relay.step():
            relay.look()

    async def unsent() -> dict[str, int]:
        rows = await owner.fetch(
            "SELECT topic, count(*) FROM erasure_executor.outbox WHERE published_at IS NULL GROUP BY topic"
        )
        return {row["topic"]: row["count"] for row in rows}

    async def at_risk() -> list[str]:
        seen = parsed(await run("status", "--json", HABEAS_KAFKA_BOOTSTRAP=guarded_kafka.bootstrap))
        return [each["said"] for each in seen["risks"] if each["risk"] in {"topic_refuses", "topic_drifted"}]

    await guarded_kafka.configure(REQUESTS, max_message_bytes="200")
    await emit(1)
    await step()
    assert await unsent() == {REQUESTS.name: 30}
    drifted, refused = await at_risk()
    assert drifted == f"{REQUESTS.name} has max.message.bytes 200, the catalogue 1048576"
    assert refused.startswith(f"messages for {REQUESTS.name} cannot be sent: it does not take ")
    await troubles.show(delivery.database)
    assert f'habeas_kafka_refused_age_s{{reason="too_large",topic="{REQUESTS.name}"}}' in metrics.render().decode()

    await emit(2)
    await step()
    assert await unsent() == {REQUESTS.name: 60}, "the topic rests, and another one does not wait for it"

    # A limit that takes an event alone, and never a batch of some.
    await guarded_kafka.configure(REQUESTS, max_message_bytes="700")
    for topic in list(relay._resting):
        relay._resting[topic] = relay._resting[topic]._replace(until=0.0)
    await step()
    assert await unsent() == {}
    assert await at_risk() == [f"{REQUESTS.name} has max.message.bytes 700, the catalogue 1048576"]
    await guarded_kafka.configure(REQUESTS)
    assert await at_risk() == []
    for values in (await read_all(guarded_kafka, REQUESTS)).values():
        events = [type(extended(keys[0], 0)).decode(value) for value in values]
        for key in keys:
            mine = [event.due_on for event in events if event.request_id == key]
            assert all(one < other for one, other in pairwise(mine))


async def test_a_refused_log_is_told_too(
    run: Run, delivery: Delivery, guarded_kafka: GuardedKafka, producer: Producer
) -> None:
    """Entries that the audit topic does not take are at risk, and go out when it does."""
    relay = Relay(CONSUMER, delivery.database, await delivery.lanes(), producer, delivery.settings)
    await guarded_kafka.configure(AUDIT_ENTRIES, max_message_bytes="100")
    async with delivery.database.transaction("tell") as tx:
        tx.record(*[AuditFact(Action.MESSAGE_PARKED, count=number) for number in range(5)])
    relay.look()
    with pytest.raises(Refused):
        await relay.step()
    env = {"HABEAS_KAFKA_BOOTSTRAP": guarded_kafka.bootstrap}
    (said,) = [
        each["said"]
        for each in parsed(await run("status", "--json", **env))["risks"]
        if each["risk"] == "topic_refuses"
    ]
    assert AUDIT_ENTRIES.name in said
    await guarded_kafka.configure(AUDIT_ENTRIES)
    relay.look()
    assert await relay.step() == 5
    assert not [
        each for each in parsed(await run("status", "--json", **env))["risks"] if each["risk"] == "topic_refuses"
    ]
