"""The life of an erasure, decided without I/O, clock or randomness."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from habeas.chassis.lifecycle import CLAIMS_MAX, backoff, row, table
from habeas.contracts.audit import Action, AuditFact, AuditOutcome
from habeas.contracts.erasure_executor import ErasureCompleted, ErasureStuck
from habeas.contracts.model import Event
from habeas.contracts.outcomes import TableOutcome
from habeas.contracts.request_intake import RequestVerified
from habeas.contracts.vocabulary import StuckReason, TableResult

LEASE: Final = timedelta(seconds=20)
"""How long an attempt is left alone after its process was last heard of; while one works on it, it renews it."""

LARGE_ROWS: Final = 10_000
"""Who has more rows than this is erased apart from others, who would wait for them."""

_BACKOFF_MAX: Final = timedelta(minutes=5)


class State(StrEnum):
    """Where an erasure stands."""

    READY = "ready"
    ERASING = "erasing"  # an attempt is under way, or died under way
    STUCK = "stuck"  # tried again with backoff; somebody should look, and the deadline keeps alarming
    COMPLETED = "completed"


TRANSITIONS = table(
    State.READY,
    row(State.READY, "begun", State.ERASING),
    row(State.ERASING, "begun again", State.ERASING),
    row(State.ERASING, "read again and absent", State.COMPLETED),
    row(State.ERASING, "failed", State.STUCK),
    row(State.ERASING, "takes long", State.READY),
    row(State.STUCK, "begun again", State.ERASING),
)


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erasure; ``account`` is sealed under the data key and gone when that is. One that ``is_large`` is tried apart from others."""

    request_id: UUID
    subject_id: UUID
    state: State
    account: str | None
    due_on: date
    next_attempt_at: datetime
    traceparent: str | None
    account_fingerprint: bytes | None = None
    planned: tuple[TableOutcome, ...] | None = None
    outcomes: tuple[TableOutcome, ...] = ()
    stuck_reason: StuckReason | None = None
    stuck_store: str | None = None
    stuck_table: str | None = None
    attempts: int = 0
    is_large: bool = False
    erased_at: datetime | None = None
    version: int = 1

    def becomes(self, state: State, **changes: object) -> "Erasure":
        """Give the erasure in its next state. Raises ``Invariant`` for a step that the table does not have."""
        TRANSITIONS.check(self.state, state)
        return replace(self, state=state, **changes)  # type: ignore[arg-type]  # the fields are checked by replace


@dataclass(frozen=True, slots=True)
class Decision:
    """The erasure as it is now, and what is to be told."""

    erasure: Erasure
    events: tuple[Event, ...] = ()
    facts: tuple[AuditFact, ...] = ()


def begin_erasure(verified: RequestVerified, traceparent: str | None, now: datetime) -> Decision:
    """Take a verified request for erasure up."""
    erasure = Erasure(
        request_id=verified.request_id,
        subject_id=verified.subject_id,
        state=State.READY,
        account=verified.account,
        due_on=verified.due_on,
        next_attempt_at=now,
        traceparent=traceparent,
    )
    return Decision(erasure, (), (AuditFact(Action.ERASURE_STARTED, erasure.request_id),))


def attempt(
    erasure: Erasure, fingerprint: bytes | None, planned: tuple[TableOutcome, ...] | None, now: datetime
) -> Erasure:
    """Begin an attempt. What was held before the first one is kept: a repeated attempt finds what the first has left."""
    return erasure.becomes(
        State.ERASING,
        account_fingerprint=fingerprint or erasure.account_fingerprint,
        planned=erasure.planned if erasure.planned is not None else planned,
        attempts=erasure.attempts + 1,
        next_attempt_at=now + LEASE,
    )


def is_large(planned: Sequence[TableOutcome]) -> bool:
    """Tell whether so much is held of a person that others would wait for their erasure."""
    return sum(each.rows for each in planned) > LARGE_ROWS


def set_apart(erasure: Erasure, planned: tuple[TableOutcome, ...] | None, now: datetime) -> Erasure:
    """Leave the erasure to those who do large ones, at once; what was counted is kept for it."""
    changes = {
        "is_large": True,
        "planned": erasure.planned if erasure.planned is not None else planned,
        "next_attempt_at": now,
    }
    if erasure.state is State.ERASING:
        return erasure.becomes(State.READY, **changes)
    return replace(erasure, **changes)  # type: ignore[arg-type]  # the fields are checked by replace


def is_set_apart(erasure: Erasure, now: datetime) -> bool:
    """Tell whether an erasure waits for those who do large ones, and for nothing else."""
    return erasure.is_large and erasure.state is not State.COMPLETED and erasure.next_attempt_at <= now


def is_interrupted(erasure: Erasure) -> bool:
    """Tell whether attempt after attempt has ended without a word: perhaps it is this erasure that ends the process."""
    return erasure.state is State.ERASING and erasure.attempts >= CLAIMS_MAX


def interrupt(erasure: Erasure, now: datetime) -> Decision:
    """Give an erasure whose attempts end without a word a reason and a pause; from now on it is tried apart from others."""
    return fail(replace(erasure, is_large=True), StuckReason.INTERRUPTED, None, None, now)


def complete(erasure: Erasure, outcomes: Sequence[TableOutcome], now: datetime) -> Decision:
    """Every store was erased and read again: nothing is left but what the law keeps. The data key goes with this decision."""
    whole = with_planned(outcomes, erasure.planned or ())
    done = erasure.becomes(
        State.COMPLETED,
        outcomes=whole,
        account=None,
        stuck_reason=None,
        stuck_store=None,
        stuck_table=None,
        erased_at=now,
    )
    rows = sum(each.rows for each in whole if each.result in {TableResult.ERASED, TableResult.ANONYMISED})
    facts = (
        AuditFact(Action.ERASURE_COMPLETED, done.request_id, outcome=_word(whole), count=rows),
        AuditFact(Action.SUBJECT_KEY_DESTROYED, done.request_id),
    )
    return Decision(done, tell_again(done), facts)


def tell_again(erasure: Erasure) -> tuple[ErasureCompleted, ...]:
    """Return the news of a completed erasure; nothing while it is not completed."""
    if erasure.state is not State.COMPLETED or erasure.erased_at is None:
        return ()
    told = ErasureCompleted(
        request_id=erasure.request_id,
        subject_id=erasure.subject_id,
        tables=erasure.outcomes,
        erased_at=erasure.erased_at,
    )
    return (told,)


def fail(erasure: Erasure, reason: StuckReason, store: str | None, table_: str | None, now: datetime) -> Decision:
    """Keep the erasure open with the reason; it is tried again with backoff, and told only when the reason is another one."""
    stuck = erasure.becomes(
        State.STUCK,
        stuck_reason=reason,
        stuck_store=store,
        stuck_table=table_,
        next_attempt_at=now + backoff(erasure.attempts, _BACKOFF_MAX),
    )
    if (erasure.stuck_reason, erasure.stuck_store, erasure.stuck_table) == (reason, store, table_):
        return Decision(stuck)
    event = ErasureStuck(
        request_id=stuck.request_id, subject_id=stuck.subject_id, reason=reason, store=store, table=table_, stuck_at=now
    )
    return Decision(stuck, (event,), (AuditFact(Action.ERASURE_STUCK, stuck.request_id, outcome=AuditOutcome(reason)),))


def with_planned(outcomes: Sequence[TableOutcome], planned: Sequence[TableOutcome]) -> tuple[TableOutcome, ...]:
    """Put back what an earlier attempt erased before it died: its rows were counted before they went."""
    found: dict[tuple[str, str], list[TableOutcome]] = {}
    for each in outcomes:
        found.setdefault((each.store, each.table), []).append(each)
    before: dict[tuple[str, str], list[TableOutcome]] = {}
    for each in planned:
        if each.result is not TableResult.NOTHING_HELD:
            before.setdefault((each.store, each.table), []).append(each)
    tables = dict.fromkeys([*found, *before])
    return tuple(each for key in tables for each in _put_back(found.get(key, ()), before.get(key, ())))


def _put_back(found: Sequence[TableOutcome], before: Sequence[TableOutcome]) -> list[TableOutcome]:
    """Complete the results of one table, the person's by no more rows than are missing of all of theirs: a row has one result."""
    rows = {each.result: each.rows for each in found}
    missing = _own_rows(before) - _own_rows(found)
    whole = {each.result: each for each in found}
    for each in before:
        lacking = max(0, each.rows - rows.get(each.result, 0))
        if not each.result.is_of_others:
            lacking = max(0, min(lacking, missing))
            missing -= lacking
        if lacking:
            whole[each.result] = each.model_copy(update={"rows": rows.get(each.result, 0) + lacking})
    if _own_rows(whole.values()):
        whole.pop(TableResult.NOTHING_HELD, None)
    return list(whole.values())


def _own_rows(outcomes: Iterable[TableOutcome]) -> int:
    return sum(each.rows for each in outcomes if not each.result.is_of_others)


def _word(outcomes: Sequence[TableOutcome]) -> AuditOutcome:
    if not _own_rows(outcomes):
        return AuditOutcome.NOTHING_HELD
    return AuditOutcome.PARTLY_KEPT if any(each.result is TableResult.KEPT for each in outcomes) else AuditOutcome.DONE
