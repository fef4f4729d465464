"""Following the fleet's events: at least once from Kafka, each once to the program.

::

    async with Follower("kafka:9092", REQUESTS.name, group="accounts") as events:
        async for event in events:
            print(event.type, event.body["request_id"])
"""

import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError

from habeas.chassis.records import UnreadableRecord, install_on
from habeas.contracts.envelope import BadEnvelope, decode_headers

IDS_MAX: Final = 100_000
_REQUEST_TIMEOUT_MS: Final = 40_000
_WAIT_MS: Final = 1_000
_RECORDS_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Told:
    """One event: the CloudEvents attributes, and the body as it came, with fields that a later version may add."""

    id: UUID
    type: str
    source: str
    at: datetime
    subject: str
    key: str
    body: Mapping[str, Any] = field(repr=False)


class Copies:
    """Knows copies by their ``ce_id``: the last ``ids_max`` ids (a hundred thousand take some 20 MB), in memory."""

    def __init__(self, ids_max: int = IDS_MAX) -> None:
        self._ids: OrderedDict[UUID, None] = OrderedDict()
        self._ids_max = ids_max

    def is_copy(self, event_id: UUID) -> bool:
        """Answer whether the id came before, and remember it."""
        if event_id in self._ids:
            self._ids.move_to_end(event_id)
            return True
        self._ids[event_id] = None
        if len(self._ids) > self._ids_max:
            self._ids.popitem(last=False)
        return False


class Follower:
    """Reads topics of the fleet in the order of each key; an async context manager and an async iterator.

    Events count as handled when more are asked for: only then are offsets committed, for up to 500 records at once. Copies that the
    fleet or Kafka send again are left out as long as this object lives. After a restart the last events may come again: an effect that
    must not happen twice has to note the event's id in the transaction in which it happens. Records that are no events of Habeas are
    passed over and counted in ``strange``, whatever they hold; so is a batch of them that does not open, as one. Kafka's errors leave the
    iteration; start again with a new follower.
    """

    def __init__(
        self,
        bootstrap: str,
        *topics: str,
        group: str,
        copies: Copies | None = None,
        kafka: Mapping[str, Any] | None = None,
    ) -> None:
        """Name the brokers, the topics, and the consumer group that is this program's own; ``kafka`` is passed on to aiokafka."""
        if not topics:
            raise ValueError("a follower needs at least one topic")
        self.strange = 0
        self._bootstrap, self._topics, self._group = bootstrap, topics, group
        self._copies = copies or Copies()
        self._options = dict(kafka or {})
        self._consumer: AIOKafkaConsumer | None = None

    async def __aenter__(self) -> Self:
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            group_id=self._group,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            **self._options,
        )
        await self._consumer.start()
        try:
            await self._subscribe(self._consumer)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def _subscribe(self, consumer: AIOKafkaConsumer) -> None:
        """Do what a consumer's start does for topics that it has from the beginning, once the reader is ours. Raises what that raises."""
        install_on(consumer)  # this one only: the program around it may have others
        for topic in self._topics:
            await consumer._client._wait_on_metadata(topic)  # noqa: SLF001 -- a topic that is missing is an error, not a long wait
        consumer.subscribe(self._topics)
        await consumer._subscription.wait_for_assignment()  # noqa: SLF001 -- nor is one that may not be read

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.stop()

    async def __aiter__(self) -> AsyncIterator[Told]:
        """Give each event once, for ever."""
        if self._consumer is None:
            message = "a follower is used inside of `async with`"
            raise RuntimeError(message)
        while True:
            found = await self._consumer.getmany(timeout_ms=_WAIT_MS, max_records=_RECORDS_MAX)
            for records in found.values():
                for record in records:
                    told = self._read(record)
                    if told is not None and not self._copies.is_copy(told.id):
                        yield told
            await self._commit({place: records[-1].offset + 1 for place, records in found.items()})

    async def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        assert self._consumer is not None, "inside of `async with`"  # noqa: S101 - for mypy
        held = self._consumer.assignment()
        mine = {place: offset for place, offset in offsets.items() if place in held}
        if mine:
            # Partitions move to another member of the group: it reads these events again.
            with suppress(CommitFailedError):
                await self._consumer.commit(mine)

    def _read(self, record: "ConsumerRecord[bytes, bytes]") -> Told | None:
        if isinstance(record, UnreadableRecord):
            self.strange += 1
            return None
        try:
            head = decode_headers(record.headers)
            body = json.loads(record.value or b"")
            key = (record.key or b"").decode()
        except (BadEnvelope, ValueError, RecursionError):
            self.strange += 1
            return None
        if not isinstance(body, dict):
            self.strange += 1
            return None
        return Told(head.event_id, head.type, head.source, head.at, head.subject, key, body)
