"""Whatever bytes come from Kafka, reading them gives messages and defects: nothing escapes, and what is good is read."""

from collections import Counter
from datetime import timedelta
from typing import Final

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED

from habeas.chassis.clock import SystemClock
from habeas.chassis.message import Arrived, Message, read, take
from habeas.chassis.records import Batches, PartitionRecords
from habeas.contracts.platform import PolicyChanged, RequestSubmitted, RetentionTicked
from habeas_demo.scenario import new_issuer
from tests.fuzz.mutations import TOPICS, Made, Mutations
from tests.support.delivery import PROTECTOR
from tests.support.garbage import Forge

BY_NAME: Final = {topic.name: topic for topic in TOPICS}
WANTED: Final = frozenset({RequestSubmitted.type, RetentionTicked.type, PolicyChanged.type})
TOLERANCE: Final = timedelta(minutes=5)
CLOCK: Final = SystemClock()


def verdicts(made: Made) -> list[str | None]:
    """Give for each record, in order, the reason for which it would be parked; None for a message that would be handled."""
    PartitionRecords._altered.clear()
    place = TopicPartition(made.topic, 0)
    part = PartitionRecords(place, Batches(made.data), [], 0, None, None, True, READ_COMMITTED)  # noqa: FBT003 -- as the client passes it
    now = CLOCK.now()
    found: list[str | None] = []
    for record in part:
        stored = take(record, BY_NAME[made.topic], WANTED, PROTECTOR)
        if stored is None:
            found.append("not ours")
        elif stored.reason is not None:
            found.append(stored.reason)
        else:
            got = read(Arrived.past_the_inbox(stored, 0, now), BY_NAME, PROTECTOR, now, TOLERANCE)
            found.append(None if isinstance(got, Message) else got.reason)
    assert part.next_fetch_offset > 0, "nobody gets past this batch"
    return found


def test_nothing_escapes_the_reader(request: pytest.FixtureRequest) -> None:
    """The batches are altered in values, headers, keys, times, compression and frame, each with a sum that fits."""
    count: int = request.config.getoption("--records")
    seed: int = request.config.getoption("--seed")
    told: Counter[str | None] = Counter()
    for made in Mutations(Forge(new_issuer("fuzz"), CLOCK), seed).batches(count):
        try:
            found = verdicts(made)
        except Exception as error:
            message = f"{type(error).__name__} escaped with --seed={seed}, in a batch of {len(made.contents)} for {made.topic}"
            raise AssertionError(message) from error
        if not made.is_damaged:
            assert len(found) == len(made.contents)
            assert [found[number] for number in made.good] == [None] * len(made.good)
        told.update(found)
    print({str(reason): number for reason, number in told.most_common()})  # noqa: T201 -- a campaign says what it saw
    assert told[None]
    assert sum(told.values()) > count * 0.8, "damaged batches hide some of theirs, but not so many"


def test_the_same_seed_gives_the_same_records() -> None:
    """What was found can be looked at again."""
    forge = Forge(new_issuer("fuzz"), CLOCK)
    one, other = Mutations(forge, 5), Mutations(forge, 5)
    other.patterns = one.patterns  # whose ids and signatures are new each time
    assert [each.data for each in one.batches(500)] == [each.data for each in other.batches(500)]
