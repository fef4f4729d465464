"""Delivery cores that are broken on purpose, one in each way that the checker must find."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from aiokafka import TopicPartition
from typing_extensions import override

from habeas.chassis import store
from habeas.chassis.consumer import Consumer, Records
from habeas.chassis.database import Transaction
from habeas.chassis.message import Arrived, Stored
from habeas.chassis.producer import PublishFailed, Record
from habeas.chassis.relay import Relay
from habeas.chassis.worker import Worker
from tests.simulation.world import Variants
from tests.support.delivery import new_id

_CLAIM_UNFENCED: Final = """
    SELECT i.inbox_id, i.event_id, i.topic, i.type, i.key, i.event_at, i.traceparent, i.value, i.received_at, i.attempts
      FROM inbox AS i
     WHERE i.state = 'pending' AND i.lane = ANY($1::smallint[])
       AND NOT EXISTS (SELECT FROM inbox AS b WHERE b.blocks AND b.key = i.key AND b.inbox_id < i.inbox_id)
     ORDER BY i.inbox_id LIMIT $2
"""


class UnfencedWorker(Worker):
    """Takes what lies in the lanes that it once had, whoever has them now."""

    @override
    async def _claim(self, tx: Transaction, limit: int) -> list[Arrived]:
        return [Arrived(*row) for row in await tx.fetch(_CLAIM_UNFENCED, list(self._lanes.held), limit)]


class OvertakingWorker(Worker):
    """Handles messages at once whatever lies in the inbox before them."""

    @override
    async def _is_free(self, tx: Transaction, mine: Sequence[Stored], lanes: Mapping[int, int]) -> bool:
        await super()._is_free(tx, mine, lanes)
        return True


class UnnotingWorker(Worker):
    """Handles messages at once whether or not they came before."""

    @override
    async def _note(self, tx: Transaction, mine: Sequence[Stored], others: Sequence[Stored], *rest: Any) -> None:
        known = {row["event_id"] for row in await tx.fetch(store.FIND_DIGESTS, [each.event_id for each in mine])}
        await super()._note(tx, [each for each in mine if each.event_id not in known], others, *rest)


class ImpatientWorker(Worker):
    """Lets nobody wait behind a message of the same key."""

    @override
    def _held_back(self, rows: Sequence[Arrived], poison: Mapping[int, Any], later: Mapping[int, str]) -> set[int]:
        return set()


class _Believing:
    """A producer that takes every batch for acknowledged."""

    def __init__(self, inner: Any) -> None:  # noqa: ANN401 -- either kind of producer
        self._inner = inner

    async def publish(self, records: Sequence[Record], timeout_s: float) -> None:
        """Publish, perhaps."""
        try:
            await self._inner.publish(records, timeout_s)
        except PublishFailed:
            return


class _Backwards(_Believing):
    """A producer that sends the last record first."""

    @override
    async def publish(self, records: Sequence[Record], timeout_s: float) -> None:
        await self._inner.publish(list(reversed(records)), timeout_s)


class _Forgetful(_Believing):
    """A producer that gives each record that it sends again another id."""

    @override
    async def publish(self, records: Sequence[Record], timeout_s: float) -> None:
        renamed = [record._replace(headers=_renamed(record.headers)) for record in records]
        await self._inner.publish(renamed, timeout_s)


class BelievingRelay(Relay):
    """Marks rows as published that nobody acknowledged."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._producer = cast("Any", _Believing(self._producer))


class BackwardsRelay(Relay):
    """Publishes in the wrong order."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._producer = cast("Any", _Backwards(self._producer))


class ForgetfulRelay(Relay):
    """Publishes under ids that are not in the outbox."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._producer = cast("Any", _Forgetful(self._producer))


class AmnesicRelay(Relay):
    """Publishes the audit lines that it has just made, and forgets those that are left from before."""

    @override
    async def _sequence(self, tx: Transaction) -> Any:
        made = await tx.fetchval("SELECT count(*) FROM audit_outbox")
        run = await super()._sequence(tx)
        return run._replace(lines=run.lines[-made:] if made else [])


class HastyConsumer(Consumer):
    """Commits offsets before it stored what they stand for."""

    @override
    async def _take(self, records: Records, stopping: Any) -> bool:
        consumer = cast("Any", self.subscriber.consumer)
        for record in records:
            self._offsets[TopicPartition(record.topic, record.partition)] = record.offset + 1
        await self._commit(consumer)
        return await super()._take(records, stopping)


class ForgetfulConsumer(Consumer):
    """Knows no record again: an inbox without the unique id."""

    @override
    async def _take(self, records: Records, stopping: Any) -> bool:
        renamed = [dataclasses.replace(record, headers=tuple(_renamed(record.headers))) for record in records]
        return await super()._take(renamed, stopping)


class SkippingConsumer(Consumer):
    """Passes over the last record of every batch of several."""

    @override
    async def _take(self, records: Records, stopping: Any) -> bool:
        return await super()._take(records[:-1] if len(records) > 1 else records, stopping)


BROKEN: Final[Mapping[str, Variants]] = {
    "a worker that ignores the fence": Variants(worker=UnfencedWorker),
    "a worker that lets messages overtake": Variants(worker=OvertakingWorker),
    "a worker that handles again at once": Variants(worker=UnnotingWorker),
    "a worker that lets nobody wait": Variants(worker=ImpatientWorker),
    "a relay that marks before the acknowledgement": Variants(relay=BelievingRelay),
    "a relay that publishes backwards": Variants(relay=BackwardsRelay),
    "a relay that makes new ids": Variants(relay=ForgetfulRelay),
    "a relay that forgets audit lines of before": Variants(relay=AmnesicRelay),
    "a consumer that commits before it stored": Variants(consumer=HastyConsumer),
    "an inbox without the unique id": Variants(consumer=ForgetfulConsumer),
    "a consumer that skips": Variants(consumer=SkippingConsumer),
}


def _renamed(headers: Any) -> list[tuple[str, bytes]]:  # noqa: ANN401 -- pairs, of either client
    fresh = new_id()
    return [(name, str(fresh).encode() if name == "ce_id" else value) for name, value in headers]
