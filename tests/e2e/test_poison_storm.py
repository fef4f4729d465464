"""Bad records of every kind among good ones: each is parked with its reason, none is lost, and nothing good is held up."""

import asyncio
import itertools
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer

from habeas.contracts.audit import Action
from habeas.contracts.vocabulary import Outcome, Right
from tests.support.garbage import KINDS, Forge, Raw, of_every_kind
from tests.support.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

EACH = 40
GOOD = 1_000

Place = tuple[str, int, int]

NAMES_SOMEBODY = """
    SELECT count(*) FROM {schema}.taken WHERE position('acc_'::bytea IN coalesce(value, '') || key) > 0
"""
FIND_HANDLED = "SELECT event_id FROM request_intake.taken WHERE state = 'handled'"


@asynccontextmanager
async def sender(stage: Stage) -> AsyncIterator[AIOKafkaProducer]:
    """An ordinary producer that keeps the order of what it is given."""
    producer = AIOKafkaProducer(bootstrap_servers=stage.servers.kafka_bootstrap, enable_idempotence=True, linger_ms=5)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send(producer: AIOKafkaProducer, records: Sequence[Raw]) -> list[Place]:
    """Send in this order and give where each record lies."""
    sent = [await producer.send(raw.topic, raw.value, raw.key, headers=raw.headers) for raw in records]
    return [(found.topic, found.partition, found.offset) for found in await asyncio.gather(*sent)]


def ids(records: Iterable[Raw]) -> set[UUID]:
    """The ids that records bear, as far as they bear any."""
    given = (dict(raw.headers).get("ce_id", b"").decode(errors="replace") for raw in records)
    return {UUID(one) for one in given if re.fullmatch(r"[0-9a-f-]{36}", one)}


def count_parked(stage: Stage) -> int:
    """How many messages the audit topic says were parked."""
    return sum(1 for entry in stage.heard.audit if entry.fact.action is Action.MESSAGE_PARKED)


async def test_storm_is_parked_record_by_record(stage: Stage) -> None:
    """Of 1,000 bad records among 1,000 good ones each is parked with the right reason and field, and every good one ends."""
    forge = Forge(stage.issuer, stage.clock)
    people = stage.take(GOOD)
    rights = itertools.cycle((Right.ERASURE, Right.ACCESS))
    bodies = [forge.submission(person.account_id, right) for person, right in zip(people, rights, strict=False)]
    good = [forge.record(body) for body in bodies]
    bad = of_every_kind(forge, zip(bodies, good, strict=True), EACH)
    assert (len(bad), len(KINDS)) == (1_000, 23)

    # Shuffled, but what repeats an id comes after that which it repeats: those fifty good ones go first.
    rest = [*good[EACH:], *bad]
    random.Random(20).shuffle(rest)  # noqa: S311 -- an order that can be repeated
    records = [*good[:EACH], *rest]
    parked_before = await stage.parked()
    await stage.until(lambda: count_parked(stage) >= len(parked_before), "what other tests had parked in the log")
    logged_before = count_parked(stage)
    async with sender(stage) as producer:
        places = await send(producer, records)

    await stage.completed(*(UUID(body["request_id"]) for body in bodies))
    wanted = {place: raw for place, raw in zip(places, records, strict=True) if raw.verdict}
    await stage.until(lambda: count_parked(stage) - logged_before >= len(bad), "an audit entry for each parked message")
    parked = {place: why for place, why in (await stage.parked()).items() if place not in parked_before}
    wrong = Counter(
        (raw.kind, raw.verdict, parked.get(place)) for place, raw in wanted.items() if parked.get(place) != raw.verdict
    )
    assert wrong == Counter()
    assert parked.keys() == wanted.keys()
    assert count_parked(stage) - logged_before == len(bad)

    handled = {row["event_id"] for row in await stage.habeas.fetch(FIND_HANDLED)}
    assert handled & ids(records) == ids(good)
    outcomes = Counter(
        (done.right, done.outcome)
        for done in map(stage.heard.completed.__getitem__, (UUID(body["request_id"]) for body in bodies))
    )
    assert outcomes == {(Right.ERASURE, Outcome.PARTLY_KEPT): GOOD // 2, (Right.ACCESS, Outcome.DONE): GOOD // 2}
    assert Counter(tuple(stage.mail_kinds(person.email)) for person in people) == {("acknowledgement", "outcome"): GOOD}

    schemas = ("request_intake", "retention_sweeper")
    assert [await stage.habeas.fetchval(NAMES_SOMEBODY.format(schema=schema)) for schema in schemas] == [0, 0]


async def test_garbage_alone_halts_nobody(stage: Stage) -> None:
    """However much garbage comes from outside in a row, the next good request is carried out."""
    forge = Forge(stage.issuer, stage.clock)
    person = stage.take_one()
    garbage = [forge.record(forge.submission(person.account_id, country="Germany")) for _ in range(300)]
    body = forge.submission(person.account_id, Right.ACCESS)
    async with sender(stage) as producer:
        places = await send(producer, [*garbage, forge.record(body)])
    [completed] = await stage.completed(UUID(body["request_id"]))
    parked = await stage.parked()
    assert completed.outcome is Outcome.DONE
    assert Counter(parked.get(place) for place in places) == {("wrong_value", "country"): 300, None: 1}
