"""The life of an export, decided without I/O, clock or randomness."""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from habeas.chassis.ids import name_based
from habeas.chassis.lifecycle import CLAIMS_MAX, backoff, row, table
from habeas.contracts.audit import Action, AuditFact, AuditOutcome
from habeas.contracts.export_builder import ExportCompleted, ExportStuck
from habeas.contracts.model import Event
from habeas.contracts.outcomes import ExportedTable
from habeas.contracts.request_intake import RequestVerified
from habeas.contracts.vocabulary import Right, StuckReason

_EXPORTS: Final = UUID("d1f7c3de-5f2b-5c0e-8c7b-1e9f6a3b2d54")

LEASE: Final = timedelta(seconds=20)
"""How long an attempt is left alone after its process was last heard of; while one works on it, it renews it."""

EMPTY_SHA256: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The digest of no bytes (FIPS 180-4): an export without an artefact, of a person who was erased before it was built."""

_BACKOFF_MAX: Final = timedelta(minutes=5)


class State(StrEnum):
    """Where an export stands."""

    READY = "ready"
    BUILDING = "building"  # an attempt is under way, or died under way
    STUCK = "stuck"  # tried again with backoff; somebody should look
    COMPLETED = "completed"  # the artefact can be opened until it expires
    WITHDRAWING = "withdrawing"  # the artefact is to be deleted: expired, or the person was erased
    DELETED = "deleted"


TRANSITIONS = table(
    State.READY,
    row(State.READY, "begun", State.BUILDING),
    row(State.BUILDING, "begun again", State.BUILDING),
    row(State.BUILDING, "read back", State.COMPLETED),
    row(State.BUILDING, "failed", State.STUCK),
    row(State.BUILDING, "takes long", State.READY),
    row(State.STUCK, "begun again", State.BUILDING),
    row(State.COMPLETED, "expired or erased", State.WITHDRAWING),
    row(State.WITHDRAWING, "artefact could not be deleted", State.WITHDRAWING),
    row(State.WITHDRAWING, "artefact gone", State.DELETED),
)


@dataclass(frozen=True, slots=True)
class Export:
    """One export; ``account`` and ``artefact_key`` are sealed under the data key. One that ``is_large`` is built apart from others."""

    export_id: UUID
    request_id: UUID
    subject_id: UUID
    right: Right
    state: State
    account: str | None
    due_on: date
    next_attempt_at: datetime
    traceparent: str | None
    artefact_key: str | None = None
    artefact_bytes: int = 0
    artefact_sha256: str | None = None
    exported: tuple[ExportedTable, ...] = ()
    expires_on: date | None = None
    stuck_reason: StuckReason | None = None
    stuck_store: str | None = None
    stuck_table: str | None = None
    attempts: int = 0
    is_large: bool = False
    completed_at: datetime | None = None
    version: int = 1

    def becomes(self, state: State, **changes: object) -> "Export":
        """Give the export in its next state. Raises ``Invariant`` for a step that the table does not have."""
        TRANSITIONS.check(self.state, state)
        return replace(self, state=state, **changes)  # type: ignore[arg-type]  # the fields are checked by replace


@dataclass(frozen=True, slots=True)
class Artefact:
    """What was written and read back: size and digest of the ciphertext, and what is in it."""

    sealed_key: str | None
    size: int
    sha256: str
    tables: tuple[ExportedTable, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """The export as it is now, and what is to be told."""

    export: Export
    events: tuple[Event, ...] = ()
    facts: tuple[AuditFact, ...] = ()


def begin_export(verified: RequestVerified, traceparent: str | None, now: datetime) -> Decision:
    """Take a verified request for access or portability up.

    The same request always gives the same export id: a person who was mailed it keeps a reference that leads somewhere, also when the
    export had to be built anew for a restored database.
    """
    export = Export(
        export_id=name_based(_EXPORTS, verified.request_id),
        request_id=verified.request_id,
        subject_id=verified.subject_id,
        right=verified.right,
        state=State.READY,
        account=verified.account,
        due_on=verified.due_on,
        next_attempt_at=now,
        traceparent=traceparent,
    )
    return Decision(export, (), (AuditFact(Action.EXPORT_STARTED, export.request_id),))


def attempt(export: Export, now: datetime) -> Export:
    """Begin an attempt; one that died before is simply made again."""
    return export.becomes(State.BUILDING, attempts=export.attempts + 1, next_attempt_at=now + LEASE)


def set_apart(export: Export, now: datetime) -> Export:
    """Leave the export to those who build large ones, at once."""
    return export.becomes(State.READY, is_large=True, next_attempt_at=now)


def is_set_apart(export: Export) -> bool:
    """Tell whether an export waits for those who build large ones, and for nothing else."""
    return export.is_large and export.state is State.READY


def is_interrupted(export: Export) -> bool:
    """Tell whether attempt after attempt has ended without a word: perhaps it is this export that ends the process."""
    return export.state is State.BUILDING and export.attempts >= CLAIMS_MAX


def interrupt(export: Export, now: datetime) -> Decision:
    """Give an export whose attempts end without a word a reason and a pause; from now on it is built apart from others."""
    return fail(replace(export, is_large=True), StuckReason.INTERRUPTED, None, None, now)


def complete(export: Export, artefact: Artefact, expires_on: date, now: datetime) -> Decision:
    """The artefact is written, opens, and holds what was counted."""
    done = export.becomes(
        State.COMPLETED,
        account=None,
        artefact_key=artefact.sealed_key,
        artefact_bytes=artefact.size,
        artefact_sha256=artefact.sha256,
        exported=artefact.tables,
        expires_on=expires_on,
        stuck_reason=None,
        stuck_store=None,
        stuck_table=None,
        completed_at=now,
    )
    rows = sum(each.rows for each in artefact.tables)
    outcome = AuditOutcome.DONE if rows else AuditOutcome.NOTHING_HELD
    fact = AuditFact(Action.EXPORT_COMPLETED, done.request_id, outcome=outcome, count=rows)
    return Decision(done, tell_again(done), (fact,))


def tell_again(export: Export) -> tuple[ExportCompleted, ...]:
    """Return the news of an export that was completed, as it was then; nothing while it is not."""
    if export.completed_at is None or export.artefact_sha256 is None or export.expires_on is None:
        return ()
    told = ExportCompleted(
        request_id=export.request_id,
        subject_id=export.subject_id,
        export_id=export.export_id,
        tables=export.exported,
        artefact_bytes=export.artefact_bytes,
        artefact_sha256=export.artefact_sha256,
        expires_on=export.expires_on,
        completed_at=export.completed_at,
    )
    return (told,)


def complete_without(export: Export, now: datetime) -> Decision:
    """The person was erased before the export was built: nothing is held, so there is nothing to hand out."""
    return complete(export, Artefact(None, 0, EMPTY_SHA256, ()), now.date(), now)


def fail(export: Export, reason: StuckReason, store: str | None, table_: str | None, now: datetime) -> Decision:
    """Keep the export open with the reason; it is tried again with backoff, and told only when the reason is another one."""
    stuck = export.becomes(
        State.STUCK,
        stuck_reason=reason,
        stuck_store=store,
        stuck_table=table_,
        next_attempt_at=now + backoff(export.attempts, _BACKOFF_MAX),
    )
    return _stuck(export, stuck, now)


def withdraw(export: Export, now: datetime) -> Export:
    """Let the artefact go: it expired, or the person was erased. Its key goes first."""
    return export.becomes(State.WITHDRAWING, artefact_key=None, next_attempt_at=now)


def keep_withdrawing(export: Export, now: datetime) -> Decision:
    """The artefact could not be deleted: tried again later, and told once; nobody has its key any more."""
    kept = export.becomes(
        State.WITHDRAWING, stuck_reason=StuckReason.ARTEFACT_UNWRITABLE, next_attempt_at=now + _BACKOFF_MAX
    )
    return _stuck(export, kept, now)


def deleted(export: Export) -> Decision:
    """The artefact is gone."""
    gone = export.becomes(State.DELETED, stuck_reason=None)
    return Decision(gone, (), (AuditFact(Action.EXPORT_DELETED, export.request_id),))


def _stuck(before: Export, stuck: Export, now: datetime) -> Decision:
    """Tell why an export does not go on, unless that was told before."""
    place = stuck.stuck_reason, stuck.stuck_store, stuck.stuck_table
    if stuck.stuck_reason is None or (before.stuck_reason, before.stuck_store, before.stuck_table) == place:
        return Decision(stuck)
    event = ExportStuck(
        request_id=stuck.request_id,
        subject_id=stuck.subject_id,
        export_id=stuck.export_id,
        reason=stuck.stuck_reason,
        store=stuck.stuck_store,
        table=stuck.stuck_table,
        stuck_at=now,
    )
    fact = AuditFact(Action.EXPORT_STUCK, stuck.request_id, outcome=AuditOutcome(stuck.stuck_reason))
    return Decision(stuck, (event,), (fact,))
