"""The outbox: events and audit facts, written as the last statements of the transaction that causes them."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID

from habeas.chassis import store
from habeas.chassis.clock import Clock
from habeas.chassis.errors import EventTooLarge
from habeas.chassis.ids import uuid7s
from habeas.contracts.audit import AuditFact, encode_fact
from habeas.contracts.model import Event

if TYPE_CHECKING:
    from habeas.chassis.database import Transaction

LANES: Final = 16
AUDIT_LANE: Final = 16
ALL_LANES: Final = frozenset(range(LANES + 1))
VALUE_BYTES_MAX: Final = 900_000


@dataclass(slots=True)
class Pending:
    """What one transaction will publish; each goes with the trace parent of its cause, an event with its encoded value.

    ``did`` names what it does that sweeps of this process wait for.
    """

    events: list[tuple[Event, str | None, bytes]] = field(default_factory=list)
    facts: list[tuple[AuditFact, str | None]] = field(default_factory=list)
    did: set[str] = field(default_factory=set)

    def add_events(self, events: Iterable[Event], trace: str | None) -> None:
        """Encode and take events: all of them, or none. Raises ``EventTooLarge`` for one that no record can hold."""
        self.events += [(event, trace, _value(event)) for event in events]


def lane_of(key: bytes) -> int:
    """Give the lane of a key, the same in every process and version."""
    return zlib.crc32(key) % LANES


async def write(tx: "Transaction", clock: Clock) -> None:
    """Write what the transaction emitted and recorded: one statement for events, one for facts, none for nothing.

    Row ids ascend in the order of emission, and per key in the order of commits: transactions that emit into one lane wait for one another.
    """
    pending = tx.pending
    if pending.events:
        ids = uuid7s(clock, len(pending.events))
        rows = [_row(event_id, *each) for event_id, each in zip(ids, pending.events, strict=True)]
        await tx.execute(store.ADD_EVENTS, tx.now.date(), tx.now, *zip(*rows, strict=True))
    if pending.facts:
        ids = uuid7s(clock, len(pending.facts))
        tails = [encode_fact(fact, tx.now) for fact, _ in pending.facts]
        await tx.execute(store.ADD_FACTS, tx.now, ids, tails, [trace for _, trace in pending.facts])


def _value(event: Event) -> bytes:
    value = event.encode()
    if len(value) > VALUE_BYTES_MAX:
        raise EventTooLarge(event.type, len(value))
    return value


def _row(event_id: UUID, event: Event, trace: str | None, value: bytes) -> tuple[object, ...]:
    key = event.key()
    subject = key if event.subject_field in (None, event.key_field) else event.subject()
    return event_id, lane_of(key.encode()), event.topic.name, key, event.type, subject, trace, value
