"""The life of an erasure: attempts can die and be repeated, and the report stays true."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest

from erasure_executor import lifecycle
from erasure_executor.lifecycle import TRANSITIONS, Erasure, State
from habeas.chassis.errors import Invariant
from habeas.contracts.audit import Action, AuditOutcome
from habeas.contracts.outcomes import TableOutcome
from habeas.contracts.vocabulary import KeepGround, StuckReason, TableResult

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
PRINT = b"p" * 32


def an_erasure(state: State = State.READY, **changes: object) -> Erasure:
    """An erasure that is due."""
    erasure = Erasure(
        request_id=UUID(int=1),
        subject_id=UUID(int=2),
        state=state,
        account="s1.data." + "A" * 60,
        due_on=date(2026, 12, 24),
        next_attempt_at=NOW,
        traceparent=None,
    )
    return replace(erasure, **changes)  # type: ignore[arg-type]  # the fields are checked by replace


def a_table(name: str, result: TableResult, rows: int) -> TableOutcome:
    """What became of one table, or is to become of it."""
    ground = KeepGround.LEGAL_OBLIGATION if result is TableResult.KEPT else None
    return TableOutcome(store="platform", table=name, category="usage", result=result, rows=rows, ground=ground)


def test_the_report_survives_an_attempt_that_died() -> None:
    """An attempt that died after the store's commit left nothing to find; what was counted before it is reported."""
    planned = (a_table("tasks", TableResult.ERASED, 3), a_table("invoices", TableResult.KEPT, 2))
    first = lifecycle.attempt(an_erasure(), PRINT, planned, NOW)
    second = lifecycle.attempt(first, PRINT, (a_table("invoices", TableResult.KEPT, 2),), NOW)
    found = (a_table("tasks", TableResult.NOTHING_HELD, 0), a_table("invoices", TableResult.KEPT, 2))
    decision = lifecycle.complete(second, found, NOW)
    assert [(each.table, each.result, each.rows) for each in decision.erasure.outcomes] == [
        ("tasks", TableResult.ERASED, 3),
        ("invoices", TableResult.KEPT, 2),
    ]


def test_rows_that_came_meanwhile_count_too() -> None:
    """More rows erased than were planned is the truth; the plan never takes any away."""
    begun = lifecycle.attempt(an_erasure(), PRINT, (a_table("tasks", TableResult.ERASED, 3),), NOW)
    decision = lifecycle.complete(begun, (a_table("tasks", TableResult.ERASED, 4),), NOW)
    assert [each.rows for each in decision.erasure.outcomes] == [4]


def test_several_results_of_one_table_stand_beside_each_other() -> None:
    """What was planned for a table is not put in the place of each of its results."""
    planned = (a_table("posts", TableResult.ERASED, 2), a_table("posts", TableResult.ANONYMISED, 1))
    found = (*planned, a_table("posts", TableResult.DETACHED, 4))
    decision = lifecycle.complete(lifecycle.attempt(an_erasure(), PRINT, planned, NOW), found, NOW)
    assert decision.erasure.outcomes == found


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (((TableResult.NOTHING_HELD, 0),), ((TableResult.ERASED, 3), (TableResult.ANONYMISED, 2))),
        (((TableResult.ERASED, 1),), ((TableResult.ERASED, 3), (TableResult.ANONYMISED, 2))),
        (((TableResult.ANONYMISED, 2),), ((TableResult.ANONYMISED, 2), (TableResult.ERASED, 3))),
        (((TableResult.ANONYMISED, 5),), ((TableResult.ANONYMISED, 5),)),
        (
            ((TableResult.NOTHING_HELD, 0), (TableResult.DETACHED, 9)),
            ((TableResult.DETACHED, 9), (TableResult.ERASED, 3), (TableResult.ANONYMISED, 2)),
        ),
    ],
)
def test_only_missing_rows_are_put_back(
    found: tuple[tuple[TableResult, int], ...], told: tuple[tuple[TableResult, int], ...]
) -> None:
    """Of what was planned comes back what an attempt does not find any more, by result, and never more rows than were counted."""
    planned = (a_table("posts", TableResult.ERASED, 3), a_table("posts", TableResult.ANONYMISED, 2))
    outcomes = lifecycle.with_planned([a_table("posts", *each) for each in found], planned)
    assert [(each.result, each.rows) for each in outcomes] == list(told)


def test_rows_of_others_that_went_in_an_attempt_that_died_are_told() -> None:
    """What went with the person's rows is put back by its own count, and takes no part in the person's."""
    planned = (a_table("posts", TableResult.ERASED, 3), a_table("posts", TableResult.ERASED_WITH_PARENT, 2))
    outcomes = lifecycle.with_planned([a_table("posts", TableResult.NOTHING_HELD, 0)], planned)
    assert [(each.result, each.rows) for each in outcomes] == [
        (TableResult.ERASED, 3),
        (TableResult.ERASED_WITH_PARENT, 2),
    ]
    outcomes = lifecycle.with_planned(planned, planned)
    assert outcomes == planned


@pytest.mark.parametrize(
    ("tables", "word", "count"),
    [
        ((a_table("posts", TableResult.DETACHED, 3),), AuditOutcome.NOTHING_HELD, 0),
        (
            (
                a_table("posts", TableResult.ERASED, 2),
                a_table("posts", TableResult.DETACHED, 3),
                a_table("replies", TableResult.ERASED_WITH_PARENT, 4),
            ),
            AuditOutcome.DONE,
            2,
        ),
        ((), AuditOutcome.NOTHING_HELD, 0),
        ((a_table("tasks", TableResult.ERASED, 3),), AuditOutcome.DONE, 3),
        (
            (a_table("tasks", TableResult.ERASED, 3), a_table("invoices", TableResult.KEPT, 2)),
            AuditOutcome.PARTLY_KEPT,
            3,
        ),
        ((a_table("profile", TableResult.ANONYMISED, 1),), AuditOutcome.DONE, 1),
    ],
)
def test_completion_is_logged_with_word_and_count(
    tables: tuple[TableOutcome, ...], word: AuditOutcome, count: int
) -> None:
    """The log says how it ended and how many rows went, and that the key is destroyed; the sealed account is dropped."""
    decision = lifecycle.complete(an_erasure(State.ERASING), tables, NOW)
    assert [(fact.action, fact.outcome, fact.count) for fact in decision.facts] == [
        (Action.ERASURE_COMPLETED, word, count),
        (Action.SUBJECT_KEY_DESTROYED, None, None),
    ]
    assert (decision.erasure.account, decision.erasure.erased_at) == (None, NOW)


def test_stuck_is_told_once_for_each_reason() -> None:
    """The same trouble at the same table again is not told again; another table is."""
    first = lifecycle.fail(an_erasure(State.ERASING), StuckReason.STORE_REFUSED, "platform", "tasks", NOW)
    retried = lifecycle.attempt(first.erasure, PRINT, None, NOW)
    again = lifecycle.fail(retried, StuckReason.STORE_REFUSED, "platform", "tasks", NOW)
    other = lifecycle.fail(retried, StuckReason.STORE_REFUSED, "platform", "steps", NOW)
    assert [event.type for event in first.events] == ["erasure.stuck"]
    assert (again.events, again.facts, len(other.events)) == ((), (), 1)


def test_backoff_grows_and_ends() -> None:
    """Waits double from two seconds to five minutes and no further."""
    waits = [
        lifecycle.fail(an_erasure(State.ERASING, attempts=attempts), StuckReason.KEY_MISSING, None, None, NOW).erasure
        for attempts in (0, 1, 5, 8, 1000)
    ]
    assert [(each.next_attempt_at - NOW) for each in waits] == [
        timedelta(seconds=2),
        timedelta(seconds=4),
        timedelta(seconds=64),
        timedelta(minutes=5),
        timedelta(minutes=5),
    ]


def test_steps_outside_the_table_are_refused() -> None:
    """Every step that the table does not have is an invariant; nothing follows completion."""
    assert TRANSITIONS.final() == {State.COMPLETED}
    for state in State:
        for target in set(State) - {to for row in TRANSITIONS if row.state is state for to in row.targets}:
            with pytest.raises(Invariant):
                an_erasure(state).becomes(target)
