"""Kafka in memory: partitions, offsets, groups, and the ways in which a network lets its clients down.

It stands in for what the chassis' Producer and the consumer behind FastStream promise, and no more: order inside a partition, one log
per partition, committed offsets per group, a commit refused after a rebalance. ``contract.py`` holds it against the real thing.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaTimeoutError, UnknownError

from habeas.chassis.producer import PublishFailed, Record
from habeas.contracts.topics import CATALOGUE
from tests.simulation.fate import Fate

Kept: TypeAlias = "ConsumerRecord[bytes, bytes]"
Gate: TypeAlias = Callable[[str], Awaitable[Fate]]

PARTITIONS: Final = {topic.name: topic.partitions for topic in CATALOGUE}


class Broker:
    """All logs and all groups."""

    def __init__(self, now_ms: Callable[[], int] = lambda: 0) -> None:
        self.logs: dict[TopicPartition, list[Kept]] = {}
        self.late: list[list[Record]] = []  # sent, given up by the sender, and still on the way
        self._now_ms = now_ms
        self._groups: dict[str, Group] = {}

    def append(self, record: Record) -> None:
        """Put one record at the end of its partition."""
        partition = _place(record)
        log = self.logs.setdefault(partition, [])
        headers = tuple(record.headers)
        where = (partition.topic, partition.partition, len(log), self._now_ms(), 0)
        log.append(ConsumerRecord(*where, record.key, record.value, None, len(record.key), len(record.value), headers))

    def land(self) -> None:
        """Let what is still on the way arrive."""
        late, self.late = self.late, []
        for records in late:
            for record in records:
                self.append(record)

    def group(self, name: str, topics: Iterable[str] = ()) -> "Group":
        """Give a group; the first to ask says what it reads."""
        if name not in self._groups:
            every = [TopicPartition(topic, number) for topic in sorted(topics) for number in range(PARTITIONS[topic])]
            self._groups[name] = Group(self, every)
        return self._groups[name]

    def of(self, topic: str) -> list[Kept]:
        """Give the records of a topic, partition after partition."""
        parts = sorted(partition for partition in self.logs if partition.topic == topic)
        return [record for partition in parts for record in self.logs[partition]]

    def stored(self, topic: str) -> list[Kept]:
        """Give the records of a topic up to which a group has committed."""
        committed = {part: end for group in self._groups.values() for part, end in group.committed.items()}
        return [record for record in self.of(topic) if record.offset < committed.get(_place(record), 0)]


def _place(record: "ConsumerRecord[bytes, bytes] | Record") -> TopicPartition:
    return TopicPartition(record.topic, record.partition)


class Group:
    """The committed offsets of one group, and who reads which partition."""

    def __init__(self, broker: Broker, partitions: Sequence[TopicPartition]) -> None:
        self.broker = broker
        self.committed: dict[TopicPartition, int] = {}
        self.generation = 0
        self._partitions = partitions
        self._members: dict[str, Consumer] = {}
        self._turn = 0

    def join(self, name: str, member: "Consumer") -> None:
        """Take a member in; partitions are dealt anew, unless it takes the place of one of the same name (static membership)."""
        is_new = name not in self._members
        self._members[name] = member
        if is_new:
            self.rebalance()

    def leave(self, member: "Consumer") -> None:
        """Take a member out, if it is still in; others get its partitions."""
        for name in [name for name, each in self._members.items() if each is member]:
            del self._members[name]
            self.rebalance()

    def has(self, member: "Consumer") -> bool:
        """Whether a member is still in, and nobody took its place."""
        return member in self._members.values()

    def rebalance(self, turn: int = 0) -> None:
        """Deal the partitions anew, shifted by ``turn``."""
        self.generation += 1
        self._turn += turn

    def share(self, member: "Consumer") -> set[TopicPartition]:
        """Give a member's partitions."""
        members = list(self._members.values())
        place = (members.index(member) + self._turn) % len(members)
        return set(self._partitions[place :: len(self._members)])


class Producer:
    """Publishes as the chassis' producer does: what is not acknowledged whole is doubtful whole."""

    def __init__(self, broker: Broker, gate: Gate) -> None:
        self._broker = broker
        self._gate = gate

    async def publish(self, records: Sequence[Record], timeout_s: float) -> None:
        """Append in order; raises ``PublishFailed`` when some, or the acknowledgement, were lost."""
        before = await self._gate("publish")
        if before.is_lost:
            arrived = self._prefixes(records, before)
            for record in arrived:
                self._broker.append(record)
            if before.among(3) == 0:
                self._broker.late.append([record for record in records if record not in arrived])
            raise PublishFailed
        for record in records:
            self._broker.append(record)
        if (await self._gate("publish: acknowledged")).is_lost:
            raise PublishFailed

    async def stop(self) -> None:
        """Nothing is open."""

    def _prefixes(self, records: Sequence[Record], fate: Fate) -> list[Record]:
        """Give what arrives of a batch that fails: of each partition the first records, since a partition keeps its order."""
        left: dict[TopicPartition, int] = {}
        arrived = []
        for record in records:
            partition = _place(record)
            count = left.setdefault(partition, fate.among(len(records) + 1))
            if count > 0:
                arrived.append(record)
            left[partition] = count - 1
        return arrived


class Consumer:
    """One member of a group, with the part of aiokafka's consumer that the chassis uses."""

    def __init__(self, group: Group, name: str, gate: Gate, listener: Any) -> None:  # noqa: ANN401 -- aiokafka's kind
        self._group = group
        self._listener = listener
        self._gate = gate
        self._generation = -1
        self._assigned: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        group.join(name, self)

    async def getmany(self, *, timeout_ms: int, max_records: int) -> Mapping[TopicPartition, list[Kept]]:
        """Give the next records of some of the own partitions, in order inside each."""
        fate = await self._gate("fetch")
        if fate.is_lost:
            raise KafkaTimeoutError
        if not self._group.has(self):
            raise UnknownError
        if self._follow():
            return {}
        found: dict[TopicPartition, list[Kept]] = {}
        for partition in fate.shuffled(sorted(self._assigned)):
            log = self._group.broker.logs.get(partition, [])
            start = self._positions[partition]
            if start < len(log) and fate.may_skip():
                continue
            records = log[start : start + min(max_records, fate.at_most(len(log) - start))]
            if records:
                found[partition] = records
                self._positions[partition] = start + len(records)
                max_records -= len(records)
            if max_records <= 0:
                break
        return found

    def assignment(self) -> set[TopicPartition]:
        """Give the partitions that this member believes to have."""
        return set(self._assigned)

    def highwater(self, partition: TopicPartition) -> int:
        """Give the end of a partition."""
        return len(self._group.broker.logs.get(partition, []))

    async def position(self, partition: TopicPartition) -> int:
        """Give the offset that is read next."""
        return self._positions[partition]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from somewhere else."""
        self._positions[partition] = offset

    async def committed(self, partition: TopicPartition) -> int | None:
        """Give the group's committed offset."""
        return self._group.committed.get(partition)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit for the group; refused when it was dealt anew since the last fetch."""
        if (await self._gate("commit offsets")).is_lost:
            raise KafkaTimeoutError
        if self._generation != self._group.generation or not self._group.has(self):
            raise CommitFailedError
        self._group.committed.update(offsets)
        if (await self._gate("commit offsets: done")).is_lost:
            raise KafkaTimeoutError

    async def stop(self) -> None:
        """Leave the group."""
        self._group.leave(self)

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Give the first offset of each partition."""
        await self._gate("ask for offsets")
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Give the end of each partition."""
        return {partition: self.highwater(partition) for partition in partitions}

    def _follow(self) -> bool:
        """Take the partitions of the group's present generation, if it is a new one; reading goes on where the group committed."""
        if self._generation == self._group.generation:
            return False
        self._generation = self._group.generation
        self._listener.on_partitions_revoked(self._assigned)
        self._assigned = self._group.share(self)
        self._positions = {partition: self._group.committed.get(partition, 0) for partition in self._assigned}
        self._listener.on_partitions_assigned(self._assigned)
        return True


class Subscription:
    """What FastStream's broker gives for a subscription, as far as the chassis looks."""

    consumer: Consumer | None = None


class FastStreamBroker:
    """Takes the place of FastStream's ``KafkaBroker``: starting it joins the group of the memory broker that is open."""

    opened: tuple[Broker, Gate]

    def __init__(self, **_: Any) -> None:
        self._broker, self._gate = self.opened
        self._subscription = Subscription()
        self._group: Group

    def subscriber(
        self,
        *topics: str,
        group_id: str,
        group_instance_id: str,
        listener: Any,  # noqa: ANN401 -- aiokafka's kind
        **_: Any,
    ) -> Subscription:
        """Subscribe a member of a group."""
        self._listener = listener
        self._name = group_instance_id
        self._group = self._broker.group(group_id, topics)
        return self._subscription

    @staticmethod
    def reach_of(consumer: Any) -> Any:  # noqa: ANN401 -- the chassis' consumer, and what it asks Kafka by
        """Give what asks for first offsets and ends, in the place of a connection of its own."""

        async def reach(partitions: Sequence[TopicPartition]) -> object:
            member: Consumer = consumer.subscriber.consumer
            return await member.beginning_offsets(partitions), await member.end_offsets(partitions)

        return reach

    async def start(self) -> None:
        """Join."""
        self._subscription.consumer = Consumer(self._group, self._name, self._gate, self._listener)

    async def stop(self) -> None:
        """Leave."""
        if self._subscription.consumer is not None:
            await self._subscription.consumer.stop()
