"""Thousands of altered records through real Kafka into a running fleet: every good request between them is carried out."""

import os
from collections import Counter
from itertools import cycle
from typing import Final
from uuid import UUID

import pytest
from aiokafka.errors import KafkaError

from habeas.contracts.vocabulary import Right
from habeas_demo.histories import Size
from tests.fuzz.mutations import TOPICS, Made, Mutations
from tests.fuzz.test_reader import verdicts
from tests.support.garbage import Forge, Raw
from tests.support.stage import Stage, raised
from tests.support.wire import Content, Wire, batch

GOOD: Final = 500
PARTITIONS: Final = {topic.name: topic.partitions for topic in TOPICS}
BATCH: Final = 25

Place = tuple[str, int, int]


async def test_good_requests_among_altered_records(request: pytest.FixtureRequest) -> None:
    """Each altered record is parked for the reason that reading it alone gives, or taken for what it says; nobody ends."""
    count: int = request.config.getoption("--sent")
    seed: int = request.config.getoption("--seed")
    async with raised(f"fuzz-{os.getpid()}", size=Size(accounts=GOOD + 60, logs_each=2, tasks_each=1)) as stage:
        forge = Forge(stage.issuer, stage.clock)
        people = stage.take(GOOD)
        rights = cycle((Right.ACCESS, Right.ERASURE, Right.PORTABILITY))
        bodies = [forge.submission(each.account_id, right) for each, right in zip(people, rights, strict=False)]
        wanted, refused = await send(stage, Mutations(forge, seed), count, [forge.record(body) for body in bodies])
        await stage.completed(*(UUID(body["request_id"]) for body in bodies))

        async def all_are_parked() -> bool:
            return wanted.keys() <= (await stage.parked()).keys()

        await stage.finds(all_are_parked, "what cannot be read")
        parked = {place: reason for place, (reason, _) in (await stage.parked()).items()}
        print({"sent": count, "batches that Kafka refused": refused, **Counter(parked.values())})  # noqa: T201 -- a campaign says what it saw
        assert {place: parked.get(place) for place in wanted} == wanted
        assert [member for member in stage.fleet.members if member.restarts] == []


async def send(stage: Stage, mutations: Mutations, count: int, good: list[Raw]) -> tuple[dict[Place, str], int]:
    """Send altered batches with the good records between them; give why which place must be parked, and how many Kafka refused."""
    wanted: dict[Place, str] = {}
    refused = 0
    sent = 0
    now_ms = int(stage.clock.now().timestamp() * 1000)
    async with Wire(stage.servers.kafka_bootstrap) as wire:
        for number in range(max(count // BATCH, len(good))):
            if sent < count:
                made = mutations.batch(min(BATCH, count - sent), now_ms)
                sent += len(made.contents)
                partition = number % PARTITIONS[made.topic]
                try:
                    offset = await wire.send(made.topic, partition, made.data)
                except KafkaError:
                    refused += 1
                else:
                    wanted |= expected(made, partition, offset)
            if number < len(good):
                raw = good[number]
                content = Content(raw.key, raw.value, [(name.encode(), value) for name, value in raw.headers])
                await wire.send(raw.topic, number % PARTITIONS[raw.topic], batch([content], now_ms=now_ms))
    return wanted, refused


def expected(made: Made, partition: int, offset: int) -> dict[Place, str]:
    """Give the records of a batch that must be parked, with the reason; nothing is known of those of a damaged one."""
    if made.is_damaged:
        return {}
    found = verdicts(made)
    return {
        (made.topic, partition, offset + number): reason
        for number, reason in enumerate(found)
        if reason is not None and reason != "not ours"
    }
