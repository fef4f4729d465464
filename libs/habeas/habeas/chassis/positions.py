"""Positions: from which record on a partition is read, decided by what the database holds and not by what Kafka remembers.

Kafka keeps committed offsets for a group, the database keeps how far it really stored. After a restore of the database the two disagree,
after the loss of Kafka too. The earlier of both is read on from, so that nothing is skipped; what comes twice is known by its id. Records
that are gone from Kafka before they were stored cannot be read any more: that is never passed over in silence.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError

from habeas.chassis import log, metrics, store
from habeas.chassis.database import Database, Transaction
from habeas.chassis.errors import Invariant
from habeas.chassis.redaction import named
from habeas.chassis.settings import LogLevel

_ASK_TIMEOUT_S: Final = 5.0

Offsets: TypeAlias = Mapping[TopicPartition, int]
Reach: TypeAlias = Callable[[Sequence[TopicPartition]], Awaitable[tuple[Offsets, Offsets]]]


class RecordsGone(Invariant):
    """Kafka no longer has records that this database never stored; only an operator can say what becomes of them."""

    def __init__(self, gone: int) -> None:
        super().__init__(f"{gone} records are gone from Kafka before they were stored; see `habeas recover`")
        self.gone = gone


class OffsetsUnknown(KafkaError):
    """Kafka says that nothing was ever committed of a partition of which something was stored.

    A group coordinator that has just begun to load its groups says so too, for seconds after a restart of a broker.
    """


class Start(NamedTuple):
    """Where a partition is read on from; ``gone`` records before it are lost, ``anew`` says that the partition is another one."""

    offset: int
    gone: int = 0
    anew: bool = False


def choose(stored: int | None, committed: int | None, first: int, end: int, stored_since: int | None = None) -> Start:
    """Decide from which offset on a partition is read that holds the records ``first`` to ``end - 1``.

    ``stored`` is what the database knows, ``committed`` what the group's offset in Kafka says; either may be unknown. A database that
    knows nothing of a partition whose offset was committed is from before that: it stored nothing of it. Without a committed
    offset, or with a position beyond the end, the partition was made anew (or the group was forgotten): it is read from its beginning.
    ``stored_since`` is what the database knew after ``first`` was asked for: what it had by then was taken away because it was stored.
    """
    reached = 0 if stored is None and committed is not None else stored
    safe = reached if stored_since is None else stored_since
    gone = 0 if safe is None else max(0, first - safe)
    if committed is None or reached is None or max(committed, reached) > end:
        return Start(first, gone, anew=True)
    return Start(max(first, min(committed, reached)), gone)


async def settle(
    consumer: AIOKafkaConsumer,
    database: Database,
    partitions: Sequence[TopicPartition],
    reach: Reach,
    *,
    believing: bool = True,
) -> None:
    """Put the consumer where each partition is to be read on from; ``reach`` asks Kafka for first offsets and ends.

    Raises ``OffsetsUnknown`` unless ``believing`` that Kafka has forgotten what was committed, ``RecordsGone``, and what Kafka and database
    raise when they are away; then it may be called again.
    """
    # Before the ends: what another replica stores meanwhile must not look like a position that a new partition does not reach. And
    # after the beginnings: what another replica stored and trimmed meanwhile must not look like records that are gone.
    stored = await _stored(database, partitions)
    try:
        async with asyncio.timeout(_ASK_TIMEOUT_S):  # a partition that is not there would be waited for without end
            committed = {each: await consumer.committed(each) for each in partitions}
            first, end = await reach(partitions)
    except TimeoutError as error:
        raise KafkaTimeoutError from error
    if not believing and any(committed[each] is None and each in stored for each in partitions):
        raise OffsetsUnknown
    since = await _stored(database, partitions)
    starts = {
        each: choose(stored.get(each), committed[each], first[each], end[each], since.get(each)) for each in partitions
    }
    for each, start in starts.items():
        if start.gone:
            metrics.KAFKA_GONE_MESSAGES.add(start.gone, topic=named(each.topic))
            _tell("consumer.records_gone", each, start.gone, LogLevel.ERROR)
    if gone := sum(start.gone for start in starts.values()):
        raise RecordsGone(gone)
    anew = {
        each: start.offset
        for each, start in starts.items()
        if start.anew and stored.get(each, start.offset) != start.offset
    }
    if anew:
        await database.run("positions-set", lambda tx: _set(tx, anew))
    for each, start in starts.items():
        back = (committed[each] or 0) - start.offset
        if each in anew:
            _tell("consumer.partition_anew", each, stored[each])
        elif back > 0:
            _tell("consumer.rewound", each, back)
        consumer.seek(each, start.offset)
    if beginnings := {each: start.offset for each, start in starts.items() if committed[each] is None}:
        await _commit(consumer, beginnings)


async def _commit(consumer: AIOKafkaConsumer, beginnings: Offsets) -> None:
    """Let Kafka know an offset of each partition: that there is none it says then only after a loss, or while it loads its groups.

    One that fails costs a doubt later, and nothing else.
    """
    try:
        async with asyncio.timeout(_ASK_TIMEOUT_S):
            await consumer.commit(beginnings)
    except (KafkaError, TimeoutError) as error:
        log.event("consumer.commit_failed", error=error)


async def gone(reach: Reach, expected: Mapping[TopicPartition, int]) -> set[TopicPartition]:
    """Give the partitions that no longer have the record expected next. Raises what Kafka raises when it is away."""
    try:
        async with asyncio.timeout(_ASK_TIMEOUT_S):
            first, _ = await reach(list(expected))
    except TimeoutError as error:
        raise KafkaTimeoutError from error
    return {each for each, offset in expected.items() if first[each] > offset}


async def _stored(database: Database, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    rows = await database.read("positions-find", store.FIND_POSITIONS, sorted({each.topic for each in partitions}))
    return {TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in rows}


def columns(records: "Iterable[ConsumerRecord[bytes, bytes]]") -> tuple[list[str], list[int], list[int]]:
    """Give how far a batch of records reaches, as columns in the order of ``store.STORE_RECORDS``."""
    reached: dict[tuple[str, int], int] = {}
    for record in records:
        place = (record.topic, record.partition)
        reached[place] = max(reached.get(place, 0), record.offset + 1)
    ordered = sorted(reached)  # one lock order everywhere: no deadlocks
    return (
        [topic for topic, _ in ordered],
        [partition for _, partition in ordered],
        [reached[place] for place in ordered],
    )


async def _set(tx: Transaction, offsets: Mapping[TopicPartition, int]) -> None:
    """Write down where partitions are read from that were made anew; no row would say that nothing was stored from offset 0 on."""
    await tx.execute(
        store.SET_POSITIONS,
        [each.topic for each in offsets],
        [each.partition for each in offsets],
        list(offsets.values()),
    )


def _tell(name: str, where: TopicPartition, records: int, severity: LogLevel = LogLevel.WARNING) -> None:
    log.event(name, severity=severity, topic=named(where.topic), partition=where.partition, records=records)
