"""The broker in memory does what Kafka does; tests/e2e/test_broker_contract.py asks Kafka the same."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import CommitFailedError

from habeas.contracts.topics import REQUESTS
from tests.simulation.broker import Broker, Consumer, Producer
from tests.simulation.contract import Kafka, check_contract, records
from tests.simulation.fate import CALM, Fate

LISTENER = SimpleNamespace(on_partitions_revoked=lambda _: None, on_partitions_assigned=lambda _: None)


async def calm(point: str) -> Fate:
    """Nothing happens anywhere."""
    return Fate(random.Random(0), CALM)  # noqa: S311 -- nothing is drawn from it


def in_memory(broker: Broker) -> Kafka:
    """The broker as the contract sees it."""

    async def join(name: str, group: str) -> Consumer:
        return Consumer(broker.group(group, [REQUESTS.name]), name, calm, LISTENER)

    async def leave(consumer: Any) -> None:  # noqa: ANN401 -- either kind
        await consumer.stop()

    return Kafka(Producer(broker, calm), join, leave)


async def test_memory_broker_keeps_the_contract() -> None:
    """Order, partitions, offsets, commits and groups are as Kafka's."""
    await check_contract(in_memory(Broker()))


async def test_a_member_of_an_old_generation_commits_nothing() -> None:
    """After the group was dealt anew, whoever has not noticed yet is refused, as by Kafka's coordinator."""
    broker = Broker()
    kafka = in_memory(broker)
    await kafka.producer.publish(records(), 1)
    first = await kafka.join("first", "group")
    await first.getmany(timeout_ms=1, max_records=1)
    await kafka.join("second", "group")
    with pytest.raises(CommitFailedError):
        await first.commit(dict.fromkeys(first.assignment(), 1))
