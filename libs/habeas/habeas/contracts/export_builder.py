"""What export-builder tells: encrypted artefacts built, or stuck."""

from typing import ClassVar
from uuid import UUID

from pydantic import Field

from habeas.contracts import topics
from habeas.contracts.model import ConfigName, Event, Hex64, Instant, Slug, date
from habeas.contracts.outcomes import ExportedTable
from habeas.contracts.vocabulary import StuckReason


class _ExportEvent(Event):
    topic = topics.EXPORTS
    key_field: ClassVar[str] = "request_id"

    request_id: UUID
    subject_id: UUID
    export_id: UUID


class ExportCompleted(_ExportEvent):
    """The artefact is written, encrypted, read back and counted."""

    type: ClassVar[str] = "export.completed"

    tables: tuple[ExportedTable, ...]
    artefact_bytes: int = Field(ge=0)
    artefact_sha256: Hex64
    expires_on: date
    completed_at: Instant


class ExportStuck(_ExportEvent):
    """The export cannot go on; it is tried again, and somebody should look."""

    type: ClassVar[str] = "export.stuck"

    reason: StuckReason
    store: Slug | None
    table: ConfigName | None
    stuck_at: Instant


EVENTS: tuple[type[Event], ...] = (ExportCompleted, ExportStuck)
