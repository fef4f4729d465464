"""The life of a request: what may follow what, what is told, and what never hides behind a nice word."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest

from habeas.chassis.errors import Invariant
from habeas.chassis.outbox import VALUE_BYTES_MAX
from habeas.contracts.audit import Action
from habeas.contracts.erasure_executor import ErasureCompleted
from habeas.contracts.export_builder import ExportCompleted
from habeas.contracts.model import LANGUAGE_CHARACTERS_MAX
from habeas.contracts.outcomes import ExportedTable, TableOutcome
from habeas.contracts.platform import NAMES_MAX, RequestSubmitted
from habeas.contracts.request_intake import RequestAccepted, RequestCompleted, RequestFulfilled
from habeas.contracts.vocabulary import Answered, KeepGround, Outcome, Right, StuckReason, TableResult
from request_intake import lifecycle
from request_intake.lifecycle import TRANSITIONS, Request, State

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
REQUEST, SUBJECT, EXPORT = (UUID(int=number) for number in (1, 2, 3))
PRINT = "ab" * 32
CONTACT = "s1.case." + "C" * 60
ACCOUNT = "s1.data." + "A" * 60


def a_request(state: State = State.RECEIVED, right: Right = Right.ERASURE, **changes: object) -> Request:
    """A verified request with an address."""
    request = Request(
        request_id=REQUEST,
        subject_id=SUBJECT,
        right=right,
        state=state,
        regime="gdpr",
        law_version="2016-679",
        channel="account-settings",
        language="de",
        received_at=NOW,
        due_on=date(2026, 12, 24),
        legal_limit_on=date(2026, 12, 28),
        is_verified=True,
        account=ACCOUNT,
        details=None,
        categories=None,
        subject_ref="cd" * 32,
        submission_digest=b"d" * 32,
        traceparent=None,
        contact=CONTACT,
    )
    return replace(request, **changes)  # type: ignore[arg-type]  # the fields are checked by replace


def erased(*tables: TableOutcome) -> ErasureCompleted:
    """The executor's report."""
    return ErasureCompleted(request_id=REQUEST, subject_id=SUBJECT, tables=tables, erased_at=NOW)


def an_export(*tables: ExportedTable) -> ExportCompleted:
    """The builder's report."""
    return ExportCompleted(
        request_id=REQUEST,
        subject_id=SUBJECT,
        export_id=EXPORT,
        tables=tables,
        artefact_bytes=10,
        artefact_sha256="ef" * 32,
        expires_on=date(2026, 12, 24),
        completed_at=NOW,
    )


def a_table(table: str, category: str, result: TableResult, rows: int, until: date | None = None) -> TableOutcome:
    """What became of one table."""
    ground = KeepGround.LEGAL_OBLIGATION if result is TableResult.KEPT else None
    return TableOutcome(
        store="platform", table=table, category=category, result=result, rows=rows, ground=ground, until=until
    )


def test_opening_an_erasure_flags_first_and_lets_work_begin() -> None:
    """Producers hear that the person is being erased before anybody else hears of the request."""
    decision = lifecycle.open_request(a_request(), CONTACT, PRINT, NOW, has_account=True)
    assert [event.type for event in decision.events] == ["subject.flagged", "request.accepted", "request.verified"]
    assert decision.request.state is State.IN_PROGRESS
    assert [fact.action for fact in decision.facts] == [Action.REQUEST_VERIFIED]


def test_what_does_not_open_stays_received_and_says_so_once() -> None:
    """The reason is told the first time, and is gone once the request opens after all; the pause grows to a minute."""
    stuck = lifecycle.put_off(a_request(), StuckReason.KEY_MISSING, NOW)
    assert (stuck.request.state, stuck.request.stuck_reason) == (State.RECEIVED, StuckReason.KEY_MISSING)
    assert [(fact.action, fact.outcome) for fact in stuck.facts] == [(Action.REQUEST_STUCK, "key_missing")]
    again = lifecycle.put_off(stuck.request, StuckReason.KEY_MISSING, NOW)
    assert (again.events, again.facts, again.request.attempts) == ((), (), 2)
    assert lifecycle.put_off(again.request, StuckReason.STORE_REFUSED, NOW).facts != ()
    pauses = [
        lifecycle.put_off(a_request(attempts=attempts), StuckReason.KEY_MISSING, NOW).request.next_attempt_at
        for attempts in (0, 1, 4, 5, 1_000)
    ]
    assert pauses == [NOW + timedelta(seconds=seconds) for seconds in (2, 4, 32, 60, 60)]
    for verified, reason in ((True, None), (False, StuckReason.NEEDS_IDENTITY)):
        request = replace(stuck.request, is_verified=verified)
        assert lifecycle.open_request(request, CONTACT, PRINT, NOW, has_account=True).request.stuck_reason is reason


def test_a_person_who_is_not_known_waits() -> None:
    """Without a good attestation nobody is told to work: the request waits for proof of identity (Art. 12(6))."""
    decision = lifecycle.open_request(a_request(is_verified=False), CONTACT, PRINT, NOW, has_account=True)
    assert [event.type for event in decision.events] == ["request.accepted", "request.identity_requested"]
    assert decision.request.state is State.AWAITING_IDENTITY
    assert decision.request.stuck_reason is StuckReason.NEEDS_IDENTITY
    assert [event.needs_identity for event in decision.events if isinstance(event, RequestAccepted)] == [True]


def test_an_export_without_a_file_is_no_copy() -> None:
    """Of a person who was erased before it was built nothing was written: no export is named."""
    going = a_request(State.IN_PROGRESS, Right.ACCESS)
    without = an_export().model_copy(update={"artefact_bytes": 0})
    decision = lifecycle.take_export(going, without, NOW)
    assert (decision.request.outcome, decision.request.export_id) == (Outcome.NOTHING_HELD, None)
    assert [event.export_id for event in decision.events if isinstance(event, RequestFulfilled)] == [None]


@pytest.mark.parametrize("had_copies", [True, False])
def test_an_erasure_says_whether_copies_went_with_it(had_copies: bool) -> None:  # noqa: FBT001 -- a parameter of pytest
    """Only where there had been copies."""
    decision = lifecycle.take_erasure(a_request(State.IN_PROGRESS), erased(), PRINT, NOW, had_copies=had_copies)
    assert [event.copies_deleted for event in decision.events if isinstance(event, RequestFulfilled)] == [had_copies]


@pytest.mark.parametrize(
    ("state", "reason", "waited_for"),
    [
        (State.RECEIVED, None, True),
        (State.RECEIVED, StuckReason.STORE_UNAVAILABLE, True),
        (State.RECEIVED, StuckReason.KEY_MISSING, False),
        (State.IN_PROGRESS, None, True),
        (State.IN_PROGRESS, StuckReason.SCHEMA_MISMATCH, False),
        (State.ANSWERING, None, True),
        (State.ANSWERING, StuckReason.MAIL_REFUSED, False),
        (State.COMPLETED, None, False),
        (State.AWAITING_IDENTITY, StuckReason.NEEDS_IDENTITY, False),
        (State.AWAITING_DECISION, StuckReason.NEEDS_A_PERSON, False),
    ],
)
def test_a_copy_is_waited_for_while_it_is_under_way(
    state: State,
    reason: StuckReason | None,
    waited_for: bool,  # noqa: FBT001 -- a parameter of pytest
) -> None:
    """Not what waits for a person or is done, and nothing but copies."""
    assert lifecycle.is_waited_for(a_request(state, Right.ACCESS, stuck_reason=reason)) is waited_for
    assert lifecycle.is_waited_for(a_request(state, Right.PORTABILITY, stuck_reason=reason)) is waited_for
    assert not lifecycle.is_waited_for(a_request(state, Right.ERASURE, stuck_reason=reason))


@pytest.mark.parametrize("right", sorted(set(Right) - lifecycle.CARRIED_OUT))
def test_what_no_executor_does_waits_for_a_person(right: Right) -> None:
    """The other rights are opened with their deadline and wait for somebody, with the reason."""
    decision = lifecycle.open_request(a_request(right=right), CONTACT, PRINT, NOW, has_account=True)
    assert (decision.request.state, decision.request.stuck_reason) == (
        State.AWAITING_DECISION,
        StuckReason.NEEDS_A_PERSON,
    )


def test_an_erasure_of_some_categories_is_told_to_nobody() -> None:
    """Erasing more than was asked for cannot be undone: executors never hear `request.verified` of such a request."""
    decision = lifecycle.open_request(a_request(categories=("account",)), CONTACT, PRINT, NOW, has_account=True)
    assert [event.type for event in decision.events] == ["request.accepted"]
    assert decision.request.state is State.AWAITING_DECISION


def test_kept_rows_never_hide_behind_done() -> None:
    """One kept row makes the whole `partly_kept`, with its ground and the latest end; empty tables say so."""
    report = erased(
        a_table("tasks", "usage", TableResult.ERASED, 3),
        a_table("steps", "usage", TableResult.ERASED, 4),
        a_table("invoices", "payment", TableResult.KEPT, 1, date(2035, 12, 31)),
        a_table("ledger", "payment", TableResult.KEPT, 2, date(2036, 12, 31)),
        a_table("tickets", "support", TableResult.NOTHING_HELD, 0),
    )
    decision = lifecycle.take_erasure(a_request(State.IN_PROGRESS), report, PRINT, NOW)
    told = {(each.category, each.result): (each.rows, each.ground, each.until) for each in decision.request.outcomes}
    assert decision.request.outcome is Outcome.PARTLY_KEPT
    assert told == {
        ("usage", TableResult.ERASED): (7, None, None),
        ("payment", TableResult.KEPT): (3, KeepGround.LEGAL_OBLIGATION, date(2036, 12, 31)),
        ("support", TableResult.NOTHING_HELD): (0, None, None),
    }


@pytest.mark.parametrize(
    ("contact", "has_account", "answered"),
    [
        (CONTACT, True, Answered.MAIL),
        (None, True, Answered.PLATFORM),
        (None, False, Answered.NOT_REACHABLE),
    ],
)
@pytest.mark.parametrize("right", sorted(lifecycle.CARRIED_OUT))
def test_the_end_says_how_the_person_was_answered(
    right: Right, contact: str | None, answered: Answered, *, has_account: bool
) -> None:
    """By mail where an address is known, else by the platform where there is an account, else not: never a silent `completed`."""
    request = lifecycle.open_request(
        a_request(right=right, contact=None), contact, PRINT, NOW, has_account=has_account
    ).request
    if right is Right.ERASURE:
        done = lifecycle.take_erasure(request, erased(), PRINT, NOW)
    else:
        done = lifecycle.take_export(request, an_export(), NOW)
    if contact is not None:
        assert done.request.state is State.ANSWERING
        done = lifecycle.take_answered(done.request, NOW)
    assert (done.request.state, done.request.outcome) == (State.COMPLETED, Outcome.NOTHING_HELD)
    (completed,) = [event for event in done.events if isinstance(event, RequestCompleted)]
    assert completed.answered is done.request.reach is answered


def test_words_are_of_the_law_of_the_request() -> None:
    """Whoever writes the answer is told which law it is given under."""
    decision = lifecycle.take_erasure(a_request(State.IN_PROGRESS, regime="ccpa"), erased(), PRINT, NOW)
    (fulfilled,) = [event for event in decision.events if isinstance(event, RequestFulfilled)]
    assert fulfilled.regime == "ccpa"


def test_an_end_that_nobody_knows_is_not_told() -> None:
    """One table of a category without an end leaves the category without one: the others' would be too early."""
    report = erased(
        a_table("invoices", "payment", TableResult.KEPT, 1, date(2035, 12, 31)),
        a_table("ledger", "payment", TableResult.KEPT, 2, None),
    )
    (payment,) = lifecycle.by_category(report.tables)
    assert (payment.rows, payment.until) == (3, None)


def test_rows_of_others_are_not_told_as_the_persons() -> None:
    """Rows that let go of the person's, or went with them, are somebody else's: no line of the answer counts them."""
    report = erased(
        a_table("posts", "content", TableResult.ERASED, 2),
        a_table("posts", "content", TableResult.DETACHED, 5),
        a_table("replies", "content", TableResult.ERASED_WITH_PARENT, 7),
        a_table("likes", "usage", TableResult.NOTHING_HELD, 0),
        a_table("likes", "usage", TableResult.ERASED_WITH_PARENT, 1),
    )
    outcomes = lifecycle.by_category(report.tables)
    assert [(each.category, each.result, each.rows) for each in outcomes] == [
        ("content", TableResult.ERASED, 2),
        ("usage", TableResult.NOTHING_HELD, 0),
    ]


def test_nobody_is_told_that_something_was_held_for_rows_of_others_alone() -> None:
    """A person of whom nothing was held is told so, also where rows of others changed for their sake."""
    report = erased(
        a_table("likes", "usage", TableResult.NOTHING_HELD, 0),
        a_table("likes", "usage", TableResult.DETACHED, 3),
    )
    decision = lifecycle.take_erasure(a_request(State.IN_PROGRESS), report, PRINT, NOW)
    assert decision.request.outcome is Outcome.NOTHING_HELD


def test_nobody_known_is_an_answer() -> None:
    """An account that no store knows is answered with `nothing_held`, and completed at once: there is nobody to write to."""
    decision = lifecycle.take_erasure(a_request(State.IN_PROGRESS, contact=None), erased(), PRINT, NOW)
    assert (decision.request.state, decision.request.outcome) == (State.COMPLETED, Outcome.NOTHING_HELD)
    assert [event.type for event in decision.events] == ["subject.flagged", "request.fulfilled", "request.completed"]


def test_completed_only_after_the_mail() -> None:
    """With an address the request is completed when the mail server took the answer, and the address is dropped."""
    decision = lifecycle.take_erasure(a_request(State.IN_PROGRESS), erased(), PRINT, NOW)
    assert decision.request.state is State.ANSWERING
    assert "request.completed" not in {event.type for event in decision.events}
    answered = lifecycle.take_answered(decision.request, NOW)
    assert (answered.request.state, answered.request.contact) == (State.COMPLETED, None)
    assert [event.type for event in answered.events] == ["request.completed"]


@pytest.mark.parametrize("reason", [StuckReason.MAIL_REFUSED, StuckReason.MAIL_UNCERTAIN])
def test_an_unanswered_person_keeps_the_request_open(reason: StuckReason) -> None:
    """A refused or uncertain mail completes nothing; it is told once, and a mail that goes out later completes."""
    first = lifecycle.take_unanswered(a_request(State.ANSWERING, outcome=Outcome.DONE), reason)
    assert (first.request.state, first.request.stuck_reason) == (State.ANSWERING, reason)
    assert len(first.facts) == 1
    assert lifecycle.take_unanswered(first.request, reason).facts == ()
    assert lifecycle.take_answered(first.request, NOW).request.state is State.COMPLETED


def test_an_export_is_told_by_category() -> None:
    """Rows are summed per category, and an export without rows is `nothing_held`."""
    tables = (
        ExportedTable(store="platform", table="tasks", category="usage", rows=2),
        ExportedTable(store="platform", table="logs", category="usage", rows=5),
    )
    report = an_export(*tables)
    decision = lifecycle.take_export(a_request(State.IN_PROGRESS, Right.ACCESS), report, NOW)
    assert [(each.category, each.rows) for each in decision.request.outcomes] == [("usage", 7)]
    empty = report.model_copy(update={"tables": ()})
    none = lifecycle.take_export(a_request(State.IN_PROGRESS, Right.ACCESS), empty, NOW)
    assert none.request.outcome is Outcome.NOTHING_HELD


def test_stuck_is_told_once_for_each_reason() -> None:
    """The same trouble again changes nothing; another one is told."""
    first = lifecycle.take_stuck(a_request(State.IN_PROGRESS), StuckReason.STORE_REFUSED)
    again = lifecycle.take_stuck(first.request, StuckReason.STORE_REFUSED)
    other = lifecycle.take_stuck(first.request, StuckReason.STORE_UNAVAILABLE)
    assert (len(first.facts), again.request is first.request, len(other.facts)) == (1, True, 1)


@pytest.mark.parametrize("state", sorted(set(State) - {State.IN_PROGRESS}))
def test_late_reports_change_nothing(state: State) -> None:
    """A report that comes twice, or after the end, leaves the request as it is and tells nobody."""
    request = a_request(state)
    decision = lifecycle.take_erasure(request, erased(), PRINT, NOW)
    assert (decision.request is request, decision.events, decision.facts) == (True, (), ())


def test_steps_outside_the_table_are_refused() -> None:
    """Every step that the table does not have is an invariant, from every state."""
    for state in State:
        for target in set(State) - {to for row in TRANSITIONS if row.state is state for to in row.targets}:
            with pytest.raises(Invariant):
                a_request(state).becomes(target)


@pytest.mark.parametrize("is_verified", [True, False])
@pytest.mark.parametrize("right", list(Right))
def test_what_is_told_of_the_largest_submission_fits_into_a_record(right: Right, *, is_verified: bool) -> None:
    """Everything that somebody may send at its longest, with the longest sealed texts, stays below what the outbox takes."""
    narrowed = {"ground": "child"} if right is Right.ERASURE else {}
    names = {"categories": ["c" * 80] * NAMES_MAX}
    details = {"right": right.value, **names, **narrowed}
    carried_out = right in {Right.ACCESS, Right.PORTABILITY, Right.ERASURE}
    submission = RequestSubmitted.model_validate_json(
        json.dumps(
            {
                "request_id": str(REQUEST),
                "right": right.value,
                "account_id": "a" * 128,
                "received_at": NOW.isoformat(),
                "channel": "c" * 80,
                "regime": "r" * 80,
                "language": "deu" + "-abcdefgh" * 8,
                "details": details if carried_out else None,
            }
        )
    )
    assert len(submission.language or "") == LANGUAGE_CHARACTERS_MAX
    request = a_request(
        right=right,
        language=submission.language,
        categories=getattr(submission.details, "categories", None),
        channel=submission.channel,
        regime=submission.regime,
        law_version="v" * 80,
        is_verified=is_verified,
        account="s1.data." + "A" * 65_528,
    )
    contact = "s1.case." + "C" * 65_528
    opened = lifecycle.open_request(request, contact, PRINT, NOW, has_account=True)
    assert opened.events
    assert max(len(event.encode()) for event in opened.events) < VALUE_BYTES_MAX / 4
