"""The life of a sweep, decided without I/O, clock or randomness."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from habeas.chassis.errors import Invariant
from habeas.chassis.lifecycle import CLAIMS_MAX, backoff, row, table
from habeas.contracts.audit import Action, AuditFact, AuditOutcome
from habeas.contracts.model import Event
from habeas.contracts.platform import RetentionTicked
from habeas.contracts.retention_sweeper import SweepCompleted, SweepStuck
from habeas.contracts.vocabulary import StuckReason
from habeas.datamap.policy.retention import RetentionClass, cutoff

LEASE: Final = timedelta(seconds=20)
"""How long an attempt is left alone after its process was last heard of; while one works on it, it renews it."""

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""No tick is for an earlier day: what it asked for would be done already, and periods of centuries still fit before it."""

ALL: Final = "all"

_BACKOFF_MAX: Final = timedelta(minutes=5)


class State(StrEnum):
    """Where a sweep stands, and also the reading of a store's plan that comes before its sweeps."""

    READY = "ready"
    SWEEPING = "sweeping"  # an attempt is under way, or died under way, or has left rows for the next one
    STUCK = "stuck"  # tried again with backoff; somebody should look
    COMPLETED = "completed"


TRANSITIONS = table(
    State.READY,
    row(State.READY, "begun", State.SWEEPING),
    row(State.SWEEPING, "begun again, or more is left", State.SWEEPING),
    row(State.SWEEPING, "read again, nothing older is left", State.COMPLETED),
    row(State.SWEEPING, "failed", State.STUCK),
    row(State.STUCK, "begun again", State.SWEEPING),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """Rows of one table that go by one retention class."""

    table: str
    retention: str


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick asks of one store. ``claims`` counts the attempts since one last ended with a word."""

    tick_id: UUID
    store: str
    as_of: datetime
    scope: str
    state: State
    next_attempt_at: datetime
    traceparent: str | None
    stuck_reason: StuckReason | None = None
    attempts: int = 0
    claims: int = 0
    version: int = 1

    def becomes(self, state: State, **changes: object) -> "Tick":
        """Give the tick in its next state. Raises ``Invariant`` for a step that the table does not have."""
        TRANSITIONS.check(self.state, state)
        return replace(self, state=state, **changes)  # type: ignore[arg-type]  # the fields are checked by replace


@dataclass(frozen=True, slots=True)
class Sweep:
    """One rule of one store, for one tick. ``rows`` and ``partitions_dropped`` are sums over all attempts.

    ``claims`` counts the attempts since one last ended with a word.
    """

    tick_id: UUID
    store: str
    rule: Rule
    position: int
    as_of: datetime
    state: State
    next_attempt_at: datetime
    traceparent: str | None
    cutoff_at: datetime | None = None
    rows: int = 0
    partitions_dropped: int = 0
    oldest_left_at: datetime | None = None
    stuck_reason: StuckReason | None = None
    attempts: int = 0
    claims: int = 0
    completed_at: datetime | None = None
    version: int = 1

    def becomes(self, state: State, **changes: object) -> "Sweep":
        """Give the sweep in its next state. Raises ``Invariant`` for a step that the table does not have."""
        TRANSITIONS.check(self.state, state)
        return replace(self, state=state, **changes)  # type: ignore[arg-type]  # the fields are checked by replace


@dataclass(frozen=True, slots=True)
class Purged:
    """What one call let go. ``more`` rows wait for the next; ``is_overdue`` says that a row before the cutoff is left."""

    rows: int
    partitions_dropped: int
    oldest_left_at: datetime | None
    more: bool
    is_overdue: bool


def together(pieces: Sequence[Purged]) -> Purged:
    """Sum up what several calls let go; the oldest row that is left is the one that the last call saw."""
    if not pieces:
        return Purged(0, 0, None, more=False, is_overdue=False)
    return Purged(
        sum(each.rows for each in pieces),
        sum(each.partitions_dropped for each in pieces),
        pieces[-1].oldest_left_at,
        more=any(each.more for each in pieces),
        is_overdue=pieces[-1].is_overdue,
    )


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a rule has come: the latest ``as_of`` that was swept, and the oldest row that this left."""

    as_of: datetime
    oldest_left_at: datetime | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The sweep as it is now, and what is to be told."""

    sweep: Sweep
    events: tuple[Event, ...] = ()
    facts: tuple[AuditFact, ...] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    """The tick at its store as it is now, the sweeps that it asks for, and what is to be told."""

    tick: Tick
    sweeps: tuple[Sweep, ...] = ()
    events: tuple[Event, ...] = ()
    facts: tuple[AuditFact, ...] = ()


def take_tick(ticked: RetentionTicked, store: str, traceparent: str | None, now: datetime) -> Tick:
    """Take a tick up for one store."""
    return Tick(ticked.tick_id, store, ticked.as_of, ticked.scope, State.READY, now, traceparent)


def begin_plan(tick: Tick, table_: str, now: datetime) -> Planned:
    """Begin to read what rules the store has; or, when attempts end without a word again and again, say so and pause.

    ``table_`` stands for the whole store, as in ``fail_plan``.
    """
    begun = tick.becomes(State.SWEEPING, claims=tick.claims + 1, next_attempt_at=now + LEASE)
    if tick.claims >= CLAIMS_MAX:
        return fail_plan(begun, StuckReason.INTERRUPTED, table_, now)
    return Planned(begun)


def plan(tick: Tick, rules: Sequence[Rule], now: datetime) -> Planned:
    """Ask a sweep of every rule in the tick's scope, in the order of the store's plan: children before parents."""
    sweeps = tuple(
        Sweep(tick.tick_id, tick.store, rule, position, tick.as_of, State.READY, now, tick.traceparent)
        for position, rule in enumerate(rules)
        if tick.scope in {ALL, rule.retention}
    )
    return Planned(tick.becomes(State.COMPLETED, stuck_reason=None, claims=0), sweeps)


def fail_plan(tick: Tick, reason: StuckReason, table_: str, now: datetime) -> Planned:
    """Keep the tick for another attempt; told, for a table that stands for the whole store, when the reason is another one."""
    stuck = tick.becomes(
        State.STUCK,
        stuck_reason=reason,
        attempts=tick.attempts + 1,
        claims=0,
        next_attempt_at=now + backoff(tick.attempts, _BACKOFF_MAX),
    )
    if tick.stuck_reason is reason:
        return Planned(stuck)
    event = SweepStuck(tick_id=tick.tick_id, store=tick.store, table=table_, reason=reason, stuck_at=now)
    return Planned(stuck, (), (event,), (_stuck(reason, 0),))


def begin_sweep(
    sweep: Sweep, period: RetentionClass | None, zone: ZoneInfo, reached: Reached | None, now: datetime
) -> Decision:
    """Begin an attempt, or answer at once: a tick older than what the rule has reached asks for what was done already.

    Swept is for the tick's moment, and never for one that lies ahead: nobody purges early by lying about time. The cutoff is made
    anew with each attempt, so that a period that was made longer meanwhile counts. Without the class (``period`` is None: the
    policy has it no more) the sweep is stuck, and so is one whose attempts end without a word again and again.
    """
    as_of = min(sweep.as_of, now)
    begun = sweep.becomes(State.SWEEPING, as_of=as_of, claims=sweep.claims + 1, next_attempt_at=now + LEASE)
    if sweep.claims >= CLAIMS_MAX:
        return fail(begun, StuckReason.INTERRUPTED, now)
    if period is None:
        return fail(begun, StuckReason.SCHEMA_MISMATCH, now)
    begun = replace(begun, cutoff_at=cutoff(period, as_of, zone))
    if reached is not None and as_of < reached.as_of:
        return _complete(begun, reached.oldest_left_at, AuditOutcome.DONE, now)
    return Decision(begun)


def rows_at_once(sweep: Sweep, rows_max: int) -> int:
    """Return how many rows the next statement may delete: half as many with each attempt that got no answer in time."""
    if sweep.stuck_reason is not StuckReason.STORE_UNAVAILABLE:
        return rows_max
    return max(1, rows_max >> min(sweep.attempts, 30))


def advance(sweep: Sweep, purged: Purged, now: datetime, *, is_behind: bool) -> Decision:
    """Count what went. Completed once nothing that may go is left; rows that others refer to, or that are held, may stay.

    ``is_behind`` says that an earlier rule of the same tick and store is open. Then a row that is left may be one that only
    waits for its children to go: stuck, until they went.
    """
    counted = _counted(sweep, purged)
    # Where rows of one table refer to each other, each call lets the last of every chain go.
    if purged.more or (purged.is_overdue and purged.rows):
        return Decision(counted.becomes(State.SWEEPING, next_attempt_at=now))
    if purged.is_overdue and is_behind:
        return fail(counted, StuckReason.NOT_ERASED, now)
    return _complete(counted, purged.oldest_left_at, _word(purged), now)


def advance_past(sweep: Sweep, purged: Purged, reason: StuckReason, now: datetime) -> Decision:
    """Count what went although some rows do not go: stuck with the reason, and not before all others went."""
    decision = fail(_counted(sweep, purged), reason, now)
    if not (purged.more and purged.rows):
        return decision
    return replace(decision, sweep=replace(decision.sweep, state=State.SWEEPING, attempts=0, next_attempt_at=now))


def fail(sweep: Sweep, reason: StuckReason, now: datetime) -> Decision:
    """Keep the sweep open with the reason; it is tried again with backoff, and told only when the reason is another one."""
    stuck = sweep.becomes(
        State.STUCK,
        stuck_reason=reason,
        attempts=sweep.attempts + 1,
        claims=0,
        next_attempt_at=now + backoff(sweep.attempts, _BACKOFF_MAX),
    )
    if sweep.stuck_reason is reason:
        return Decision(stuck)
    event = SweepStuck(tick_id=sweep.tick_id, store=sweep.store, table=sweep.rule.table, reason=reason, stuck_at=now)
    return Decision(stuck, (event,), (_stuck(reason, sweep.rows),))


def _counted(sweep: Sweep, purged: Purged) -> Sweep:
    return replace(
        sweep,
        rows=sweep.rows + purged.rows,
        partitions_dropped=sweep.partitions_dropped + purged.partitions_dropped,
        oldest_left_at=purged.oldest_left_at,
        attempts=0 if purged.rows or purged.partitions_dropped else sweep.attempts,
        claims=0,
    )


def _complete(sweep: Sweep, oldest_left_at: datetime | None, outcome: AuditOutcome, now: datetime) -> Decision:
    if sweep.cutoff_at is None:
        message = "a sweep completes after an attempt only"
        raise Invariant(message)
    done = sweep.becomes(State.COMPLETED, oldest_left_at=oldest_left_at, stuck_reason=None, claims=0, completed_at=now)
    event = SweepCompleted(
        tick_id=done.tick_id,
        store=done.store,
        table=done.rule.table,
        retention=done.rule.retention,
        cutoff_at=sweep.cutoff_at,
        rows=done.rows,
        partitions_dropped=done.partitions_dropped,
        oldest_left_at=oldest_left_at,
        completed_at=now,
    )
    return Decision(done, (event,), (AuditFact(Action.SWEEP_COMPLETED, outcome=outcome, count=done.rows),))


def _word(purged: Purged) -> AuditOutcome:
    return AuditOutcome.PARTLY_KEPT if purged.is_overdue else AuditOutcome.DONE


def _stuck(reason: StuckReason, rows: int) -> AuditFact:
    return AuditFact(Action.SWEEP_STUCK, outcome=AuditOutcome(reason), count=rows)
