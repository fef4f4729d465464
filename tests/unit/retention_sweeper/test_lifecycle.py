from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from habeas.chassis.errors import Invariant
from habeas.contracts.audit import Action, AuditFact, AuditOutcome
from habeas.contracts.platform import RetentionTicked
from habeas.contracts.retention_sweeper import SweepCompleted, SweepStuck
from habeas.contracts.vocabulary import StuckReason
from habeas.datamap.policy.durations import Duration
from habeas.datamap.policy.retention import Fixed
from retention_sweeper import lifecycle
from retention_sweeper.lifecycle import Purged, Reached, Rule, State, Sweep, Tick

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2027, 1, 30, 9, tzinfo=UTC)
AS_OF = datetime(2027, 1, 30, tzinfo=UTC)
TICK = UUID("01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3e")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PERIOD = Fixed.model_validate({"for": Duration.parse("90d")})
CUTOFF = datetime(2026, 11, 1, tzinfo=UTC)
"""Ninety days before 30 January 2027, with no change of clocks between."""
LEFT = datetime(2026, 10, 1, tzinfo=UTC)


def a_sweep(**changes: object) -> Sweep:
    """A sweep of tasks by the class execution that nobody has begun."""
    sweep = Sweep(TICK, "shop", Rule("tasks", "execution"), 3, AS_OF, State.READY, NOW, TRACE)
    return replace(sweep, **changes)  # type: ignore[arg-type]  # the fields are checked by replace


def begun(**changes: object) -> Sweep:
    """The same sweep, with an attempt under way."""
    sweep = lifecycle.begin_sweep(a_sweep(), PERIOD, BERLIN, None, NOW).sweep
    return replace(sweep, **changes)  # type: ignore[arg-type]  # the fields are checked by replace


def purged(rows: int = 0, *, more: bool = False, is_overdue: bool = False, dropped: int = 0) -> Purged:
    """What a store answers."""
    return Purged(rows, dropped, LEFT if is_overdue else None, more, is_overdue)


def a_tick(scope: str = "all") -> Tick:
    """A tick at the store `shop`."""
    ticked = RetentionTicked(tick_id=TICK, as_of=AS_OF, scope=scope)
    return lifecycle.take_tick(ticked, "shop", TRACE, NOW)


def test_table_allows_what_the_diagram_shows() -> None:
    """A completed sweep stays so; whoever is stuck can only begin again; nobody completes without an attempt."""
    allowed = {(state, target) for state in State for target in State if lifecycle.TRANSITIONS.allows(state, target)}
    assert allowed == {
        (State.READY, State.SWEEPING),
        (State.SWEEPING, State.SWEEPING),
        (State.SWEEPING, State.STUCK),
        (State.SWEEPING, State.COMPLETED),
        (State.STUCK, State.SWEEPING),
    }
    assert lifecycle.TRANSITIONS.final() == {State.COMPLETED}


def test_plan_asks_a_sweep_per_rule_in_order() -> None:
    """Children before parents, as the store's plan has them; the position is the rule's place in the whole plan."""
    rules = (Rule("steps", "execution"), Rule("steps", "account"), Rule("tasks", "execution"))
    planned = lifecycle.plan(lifecycle.begin_plan(a_tick(), "accounts", NOW).tick, rules, NOW)
    assert planned.tick.state is State.COMPLETED
    assert [(sweep.rule, sweep.position, sweep.state) for sweep in planned.sweeps] == [
        (rules[0], 0, State.READY),
        (rules[1], 1, State.READY),
        (rules[2], 2, State.READY),
    ]
    assert {(sweep.as_of, sweep.traceparent) for sweep in planned.sweeps} == {(AS_OF, TRACE)}


def test_scope_narrows_the_plan() -> None:
    """A tick for one class asks only for the rules of that class, in their places."""
    rules = (Rule("steps", "execution"), Rule("steps", "account"), Rule("tasks", "execution"))
    planned = lifecycle.plan(lifecycle.begin_plan(a_tick("execution"), "accounts", NOW).tick, rules, NOW)
    assert [(sweep.rule.table, sweep.position) for sweep in planned.sweeps] == [("steps", 0), ("tasks", 2)]


def test_store_without_a_plan_is_told_once_per_reason() -> None:
    """A store that does not answer leaves the tick stuck; the same reason again is not told again, another one is."""
    first = lifecycle.fail_plan(
        lifecycle.begin_plan(a_tick(), "accounts", NOW).tick, StuckReason.STORE_UNAVAILABLE, "accounts", NOW
    )
    assert first.events == (
        SweepStuck(tick_id=TICK, store="shop", table="accounts", reason=StuckReason.STORE_UNAVAILABLE, stuck_at=NOW),
    )
    assert first.facts == (AuditFact(Action.SWEEP_STUCK, outcome=AuditOutcome.STORE_UNAVAILABLE, count=0),)
    again = lifecycle.fail_plan(
        lifecycle.begin_plan(first.tick, "accounts", NOW).tick, StuckReason.STORE_UNAVAILABLE, "accounts", NOW
    )
    assert (again.events, again.facts, again.tick.attempts) == ((), (), 2)
    other = lifecycle.fail_plan(
        lifecycle.begin_plan(again.tick, "accounts", NOW).tick, StuckReason.SCHEMA_MISMATCH, "tasks", NOW
    )
    assert len(other.events) == 1


def test_attempt_computes_the_cutoff_anew() -> None:
    """A period that was made longer between two attempts counts."""
    sweep = begun()
    assert (sweep.state, sweep.cutoff_at, sweep.next_attempt_at) == (State.SWEEPING, CUTOFF, NOW + lifecycle.LEASE)
    longer = Fixed.model_validate({"for": Duration.parse("91d")})
    again = lifecycle.begin_sweep(sweep, longer, BERLIN, None, NOW).sweep
    assert again.cutoff_at == CUTOFF - timedelta(days=1)


def test_moment_ahead_is_cut_to_now() -> None:
    """A tick that lies ahead of the clock, within the tolerance, is swept for now: nothing goes early."""
    ahead = a_sweep(as_of=NOW + timedelta(minutes=4))
    sweep = lifecycle.begin_sweep(ahead, PERIOD, BERLIN, None, NOW).sweep
    assert (sweep.as_of, sweep.cutoff_at) == (NOW, CUTOFF + timedelta(hours=9))


def test_late_tick_is_answered_at_once() -> None:
    """A tick older than what the rule has reached completes without a store being asked, for its own cutoff."""
    decision = lifecycle.begin_sweep(a_sweep(), PERIOD, BERLIN, Reached(AS_OF + timedelta(days=1), LEFT), NOW)
    assert decision.sweep.state is State.COMPLETED
    assert decision.events == (
        SweepCompleted(
            tick_id=TICK,
            store="shop",
            table="tasks",
            retention="execution",
            cutoff_at=CUTOFF,
            rows=0,
            partitions_dropped=0,
            oldest_left_at=LEFT,
            completed_at=NOW,
        ),
    )


def test_same_moment_is_swept_again() -> None:
    """Another tick for the moment that was reached looks again: what was written or restored since, goes."""
    decision = lifecycle.begin_sweep(a_sweep(), PERIOD, BERLIN, Reached(AS_OF, None), NOW)
    assert (decision.sweep.state, decision.events) == (State.SWEEPING, ())


def test_class_that_the_policy_lost_is_stuck() -> None:
    """Without a period nothing can be computed, so nothing goes."""
    decision = lifecycle.begin_sweep(a_sweep(), None, BERLIN, None, NOW)
    assert (decision.sweep.state, decision.sweep.stuck_reason) == (State.STUCK, StuckReason.SCHEMA_MISMATCH)


def test_counts_add_up_over_batches() -> None:
    """While more is left the sweep goes on at once; the answer has the sums."""
    first = lifecycle.advance(begun(), purged(10, more=True, dropped=2), NOW, is_behind=False)
    assert (first.sweep.state, first.sweep.next_attempt_at, first.events) == (State.SWEEPING, NOW, ())
    again = lifecycle.begin_sweep(first.sweep, PERIOD, BERLIN, None, NOW).sweep
    done = lifecycle.advance(again, purged(4), NOW, is_behind=False)
    (event,) = done.events
    assert isinstance(event, SweepCompleted)
    assert (event.rows, event.partitions_dropped, event.oldest_left_at) == (14, 2, None)
    assert done.facts == (AuditFact(Action.SWEEP_COMPLETED, outcome=AuditOutcome.DONE, count=14),)


def test_chain_of_rows_goes_link_by_link() -> None:
    """Where rows refer to rows of their own table, old ones are left after a batch that let some go: it goes on."""
    decision = lifecycle.advance(begun(), purged(3, is_overdue=True), NOW, is_behind=False)
    assert (decision.sweep.state, decision.events) == (State.SWEEPING, ())


def test_old_row_left_while_its_children_are_open_is_stuck() -> None:
    """Rows may only be waiting for their children: not done before those are."""
    decision = lifecycle.advance(begun(), purged(is_overdue=True), NOW, is_behind=True)
    assert (decision.sweep.state, decision.sweep.stuck_reason) == (State.STUCK, StuckReason.NOT_ERASED)
    assert decision.facts == (AuditFact(Action.SWEEP_STUCK, outcome=AuditOutcome.NOT_ERASED, count=0),)


def test_old_row_that_younger_ones_refer_to_may_stay() -> None:
    """With every child swept, a row that is left is referred to by rows that may stay: done, and the log says partly kept."""
    decision = lifecycle.advance(begun(), purged(is_overdue=True), NOW, is_behind=False)
    assert decision.sweep.state is State.COMPLETED
    (event,) = decision.events
    assert isinstance(event, SweepCompleted)
    assert event.oldest_left_at == LEFT
    assert decision.facts[0].outcome is AuditOutcome.PARTLY_KEPT


def test_failures_back_off_and_progress_forgets_them() -> None:
    """2, 4, 8 seconds and so on, five minutes at most; a batch that went through begins anew."""
    sweep = begun()
    waits = []
    for _ in range(9):
        stuck = lifecycle.fail(sweep, StuckReason.STORE_UNAVAILABLE, NOW).sweep
        waits.append((stuck.next_attempt_at - NOW).total_seconds())
        sweep = lifecycle.begin_sweep(stuck, PERIOD, BERLIN, None, NOW).sweep
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert lifecycle.advance(sweep, purged(1, more=True), NOW, is_behind=False).sweep.attempts == 0


def test_failure_is_told_when_its_reason_changes() -> None:
    """Nobody is told the same thing again and again, nor kept from something new."""
    first = lifecycle.fail(begun(), StuckReason.STORE_REFUSED, NOW)
    retried = lifecycle.begin_sweep(first.sweep, PERIOD, BERLIN, None, NOW).sweep
    assert len(first.events) == 1
    assert lifecycle.fail(retried, StuckReason.STORE_REFUSED, NOW).events == ()
    assert len(lifecycle.fail(retried, StuckReason.SCHEMA_MISMATCH, NOW).events) == 1


def test_impossible_steps_are_invariants() -> None:
    """What is completed is never begun again, and nothing completes without a cutoff."""
    done = lifecycle.advance(begun(), purged(), NOW, is_behind=False).sweep
    with pytest.raises(Invariant):
        lifecycle.begin_sweep(done, PERIOD, BERLIN, None, NOW)
    with pytest.raises(Invariant):
        lifecycle.advance(a_sweep(state=State.SWEEPING), purged(), NOW, is_behind=False)
