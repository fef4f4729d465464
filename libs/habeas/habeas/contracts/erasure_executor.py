"""What erasure-executor tells: erasures done or stuck, and orders to participants."""

from typing import ClassVar, Literal
from uuid import UUID

from habeas.contracts import topics
from habeas.contracts.model import ConfigName, Event, Instant, OpaqueId, SealedText, Slug, date
from habeas.contracts.outcomes import TableOutcome
from habeas.contracts.vocabulary import StuckReason


class _ErasureEvent(Event):
    topic = topics.ERASURES
    key_field: ClassVar[str] = "request_id"

    request_id: UUID
    subject_id: UUID


class ErasureCompleted(_ErasureEvent):
    """Every store was erased and read again, the tombstone stands, the data key is destroyed.

    Whoever caches keys or holds copies of this subject drops them on this event.
    """

    type: ClassVar[str] = "erasure.completed"

    tables: tuple[TableOutcome, ...]
    erased_at: Instant


class ErasureStuck(_ErasureEvent):
    """The erasure cannot go on; it is tried again, and somebody should look."""

    type: ClassVar[str] = "erasure.stuck"

    reason: StuckReason
    store: Slug | None
    table: ConfigName | None
    stuck_at: Instant


class ParticipantOrdered(Event):
    """An order to a participant that owns data which Habeas cannot reach."""

    topic = topics.ORDERS
    type: ClassVar[str] = "participant.ordered"
    key_field: ClassVar[str] = "participant"
    subject_field: ClassVar[str | None] = "request_id"

    order_id: UUID
    request_id: UUID
    participant: Slug
    action: Literal["erase", "export", "rectify", "restrict", "lift"]
    account_id: OpaqueId
    due_on: date
    parameters: SealedText | None = None


EVENTS: tuple[type[Event], ...] = (ErasureCompleted, ErasureStuck, ParticipantOrdered)
