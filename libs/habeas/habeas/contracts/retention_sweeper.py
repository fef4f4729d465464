"""What retention-sweeper tells: one answer per rule and tick."""

from typing import ClassVar
from uuid import UUID

from pydantic import Field

from habeas.contracts import topics
from habeas.contracts.model import ConfigName, Event, Instant, Slug
from habeas.contracts.vocabulary import StuckReason


class SweepCompleted(Event):
    """One table holds nothing older than its cutoff any more; ``oldest_left_at`` was read afterwards."""

    topic = topics.SWEEPS
    type: ClassVar[str] = "sweep.completed"
    key_field: ClassVar[str] = "tick_id"

    tick_id: UUID
    store: Slug
    table: ConfigName
    retention: Slug
    cutoff_at: Instant
    rows: int = Field(ge=0)
    partitions_dropped: int = Field(ge=0)
    oldest_left_at: Instant | None
    completed_at: Instant


class SweepStuck(Event):
    """One table could not be purged; it is tried again, and somebody should look."""

    topic = topics.SWEEPS
    type: ClassVar[str] = "sweep.stuck"
    key_field: ClassVar[str] = "tick_id"

    tick_id: UUID
    store: Slug
    table: ConfigName
    reason: StuckReason
    stuck_at: Instant


EVENTS: tuple[type[Event], ...] = (SweepCompleted, SweepStuck)
