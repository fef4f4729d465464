"""The life of a request, decided without I/O, clock or randomness."""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from habeas.chassis.lifecycle import backoff, row, table
from habeas.contracts.audit import Action, AuditFact, AuditOutcome
from habeas.contracts.erasure_executor import ErasureCompleted
from habeas.contracts.export_builder import ExportCompleted
from habeas.contracts.model import LANGUAGE_CHARACTERS_MAX, Event
from habeas.contracts.outcomes import CategoryOutcome, TableOutcome
from habeas.contracts.platform import RequestSubmitted
from habeas.contracts.request_intake import (
    RequestAccepted,
    RequestCompleted,
    RequestFulfilled,
    RequestIdentityRequested,
    RequestVerified,
    SubjectFlagged,
)
from habeas.contracts.vocabulary import Answered, Outcome, Right, StuckReason, TableResult
from habeas.sealing import SubjectKey

_BACKOFF_MAX: Final = timedelta(minutes=1)
_LOOK_AGAIN: Final = timedelta(seconds=10)

WAITED_UNTIL_DAYS_BEFORE_DUE: Final = 5
"""An erasure waits for an earlier request no longer than until so many days before it is due itself."""

EXPORTED: Final = frozenset({Right.ACCESS, Right.PORTABILITY})
"""The rights that are answered with a copy."""

PASSING: Final = frozenset({StuckReason.STORE_UNAVAILABLE, StuckReason.INTERRUPTED})
"""Reasons that pass by themselves; an earlier request with any other one is waited for no longer."""

NOT_STUCK: Final = frozenset({StuckReason.NEEDS_IDENTITY, StuckReason.EARLIER_REQUEST})
"""Reasons for which nobody has to look: the person acts, or the request goes on by itself."""


class State(StrEnum):
    """Where a request stands."""

    RECEIVED = "received"  # stored; nobody was told yet
    AWAITING_IDENTITY = "awaiting_identity"  # the attestation is missing or too weak for the right
    AWAITING_DECISION = "awaiting_decision"  # a person has to act; the machine must not
    IN_PROGRESS = "in_progress"  # an executor works on it
    ANSWERING = "answering"  # done and verified; the person is being told
    COMPLETED = "completed"


TRANSITIONS = table(
    State.RECEIVED,
    row(State.RECEIVED, "opened", State.AWAITING_IDENTITY, State.AWAITING_DECISION, State.IN_PROGRESS),
    row(State.RECEIVED, "could not be opened", State.RECEIVED),
    row(State.RECEIVED, "waits for an earlier request", State.RECEIVED),
    row(State.IN_PROGRESS, "stuck", State.IN_PROGRESS),
    row(State.IN_PROGRESS, "work done", State.ANSWERING, State.COMPLETED),
    row(State.ANSWERING, "mail refused or uncertain", State.ANSWERING),
    row(State.ANSWERING, "mail sent", State.COMPLETED),
)

CARRIED_OUT: Final = frozenset({Right.ERASURE, Right.ACCESS, Right.PORTABILITY})
"""The rights that executors carry out by themselves; every other request waits for a person."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``account``, ``details`` and ``contact`` are sealed.

    ``reach`` is how the person can be answered, found out when the request is opened: an erasure takes the account away.
    ``attempts`` counts how often it could not be opened, and ``next_attempt_at`` is when that is tried again.
    """

    request_id: UUID
    subject_id: UUID
    right: Right
    state: State
    regime: str
    law_version: str
    channel: str
    language: str | None
    received_at: datetime
    due_on: date
    legal_limit_on: date
    is_verified: bool
    account: str
    details: str | None
    categories: tuple[str, ...] | None
    subject_ref: str
    submission_digest: bytes
    traceparent: str | None
    contact: str | None = None
    reach: Answered | None = None
    outcome: Outcome | None = None
    outcomes: tuple[CategoryOutcome, ...] = ()
    export_id: UUID | None = None
    stuck_reason: StuckReason | None = None
    accepted_at: datetime | None = None
    closed_at: datetime | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    version: int = 1

    def becomes(self, state: State, **changes: object) -> "Request":
        """Give the request in its next state. Raises ``Invariant`` for a step that the table does not have."""
        TRANSITIONS.check(self.state, state)
        return replace(self, state=state, **changes)  # type: ignore[arg-type]  # the fields are checked by replace


@dataclass(frozen=True, slots=True)
class Decision:
    """The request as it is now, and what is to be told."""

    request: Request
    events: tuple[Event, ...] = ()
    facts: tuple[AuditFact, ...] = ()


_DIFFERS: Final[Mapping[str, Any]] = {"received_at": True, "attestation": {"authenticated_at": True, "signature": True}}
_OF_BYTES, _OF_CONTENT = b"\x00", b"\x01"
_BARE_BYTES: Final = 32


def content_of(submission: RequestSubmitted, account_id: str) -> bytes:
    """Return all that two submissions of one request have in common, whatever their spelling.

    That is everything but what a sender makes anew with each call: ``received_at``, and of the attestation ``authenticated_at`` and
    ``signature``. What is null counts as what is not there, so that a field of a later version changes no earlier submission.
    """
    parts = submission.model_dump(mode="json", exclude=dict(_DIFFERS), exclude_none=True) | {"account_id": account_id}
    return json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()


def digest_of(content: bytes, request_id: UUID, case_key: SubjectKey) -> bytes:
    """Return what is kept of a submission to know it again: keyed, and worth nothing once the case key is destroyed."""
    return _OF_CONTENT + _keyed(content, request_id, case_key)


def rekey(bare: bytes, request_id: UUID, case_key: SubjectKey | None) -> bytes:
    """Return what takes the place of the SHA-256 of a submission's bytes, as it was kept once; without the key it is like nothing."""
    return _OF_BYTES + (b"" if case_key is None else _keyed(bare, request_id, case_key))


def is_repeated(kept: bytes, request_id: UUID, case_key: SubjectKey | None, content: bytes, value: bytes) -> bool:
    """Answer whether a submission says what the first one under its id said; of what is kept as of old, byte for byte."""
    bare = hashlib.sha256(value).digest()
    if len(kept) == _BARE_BYTES:
        return hmac.compare_digest(kept, bare)
    if case_key is None:
        return False
    mine = rekey(bare, request_id, case_key) if kept[:1] == _OF_BYTES else digest_of(content, request_id, case_key)
    return hmac.compare_digest(kept, mine)


def _keyed(value: bytes, request_id: UUID, case_key: SubjectKey) -> bytes:
    return hmac.digest(case_key.reference(b"submission digest\x00" + request_id.bytes), value, "sha256")


def receive(request: Request) -> AuditFact:
    """Say in the log that a request was taken; ``subject`` stands for the person and is in this entry alone."""
    outcome = AuditOutcome(request.right)
    return AuditFact(Action.REQUEST_ACCEPTED, request.request_id, subject=request.subject_ref, outcome=outcome)


def reach_of(contact: str | None, *, has_account: bool) -> Answered:
    """Tell how a person can be answered: by mail, else by the platform where they have an account, else not at all."""
    if contact is not None:
        return Answered.MAIL
    return Answered.PLATFORM if has_account else Answered.NOT_REACHABLE


def open_request(
    request: Request, contact: str | None, account_fingerprint: str, now: datetime, *, has_account: bool
) -> Decision:
    """Open a received request: acknowledge it, and let work begin when the person is known to be who they say."""
    request = replace(request, reach=reach_of(contact, has_account=has_account))
    accepted = RequestAccepted(
        request_id=request.request_id,
        subject_id=request.subject_id,
        right=request.right,
        regime=request.regime,
        law_version=request.law_version,
        received_at=request.received_at,
        accepted_at=now,
        due_on=request.due_on,
        legal_limit_on=request.legal_limit_on,
        language=language_of(request),
        contact=contact,
        subject_ref=request.subject_ref,
        needs_identity=not request.is_verified,
    )
    if not request.is_verified:
        asked = RequestIdentityRequested(
            request_id=request.request_id, subject_id=request.subject_id, right=request.right, requested_at=now
        )
        waiting = request.becomes(
            State.AWAITING_IDENTITY, contact=contact, accepted_at=now, stuck_reason=StuckReason.NEEDS_IDENTITY
        )
        return Decision(waiting, (accepted, asked), (_fact(request, Action.REQUEST_IDENTITY_REQUESTED),))
    verified = RequestVerified(
        request_id=request.request_id,
        subject_id=request.subject_id,
        right=request.right,
        account=request.account,
        categories=request.categories,
        due_on=request.due_on,
        subject_ref=request.subject_ref,
        verified_at=now,
    )
    if not _is_carried_out(request):
        waiting = request.becomes(
            State.AWAITING_DECISION, contact=contact, accepted_at=now, stuck_reason=StuckReason.NEEDS_A_PERSON
        )
        facts = (
            _fact(request, Action.REQUEST_VERIFIED),
            _fact(request, Action.REQUEST_STUCK, AuditOutcome.NEEDS_A_PERSON),
        )
        # Executors act on `request.verified`; they must not hear of an erasure that they would carry out too widely.
        events: tuple[Event, ...] = (accepted,) if request.right is Right.ERASURE else (accepted, verified)
        return Decision(waiting, events, facts)
    going = request.becomes(State.IN_PROGRESS, contact=contact, accepted_at=now, stuck_reason=None)
    events = (accepted, verified)
    if request.right is Right.ERASURE:
        # First of all: producers stop, late data is suppressed.
        events = (_flag(request, account_fingerprint, now, erased=False), *events)
    return Decision(going, events, (_fact(request, Action.REQUEST_VERIFIED),))


def language_of(request: Request) -> str | None:
    """Return the language that the person asked for; none for one that an earlier version took and that is too long to be any."""
    is_any = request.language is not None and len(request.language) <= LANGUAGE_CHARACTERS_MAX
    return request.language if is_any else None


def may_wait(request: Request) -> bool:
    """Return whether this is an erasure that would begin at once, and so take a copy away that somebody asked for before."""
    return request.right is Right.ERASURE and request.is_verified and _is_carried_out(request)


def is_waited_for(request: Request) -> bool:
    """Return whether a later erasure of the same person waits for this request: a copy is being made, or is being told of."""
    return (
        request.right in EXPORTED
        and request.is_verified
        and request.state in {State.RECEIVED, State.IN_PROGRESS, State.ANSWERING}
        and (request.stuck_reason is None or request.stuck_reason in PASSING)
    )


def wait_for_earlier(request: Request, now: datetime) -> Request:
    """Let an earlier request end first. Whoever ends it opens this one at once; looking again is for what they missed."""
    return request.becomes(State.RECEIVED, stuck_reason=StuckReason.EARLIER_REQUEST, next_attempt_at=now + _LOOK_AGAIN)


def put_off(request: Request, reason: StuckReason, now: datetime) -> Decision:
    """The request could not be opened: it stays received with the reason, and its deadline keeps running.

    It is tried again with backoff, and told only when the reason is another one.
    """
    stuck = request.becomes(
        State.RECEIVED,
        stuck_reason=reason,
        attempts=request.attempts + 1,
        next_attempt_at=now + backoff(request.attempts, _BACKOFF_MAX),
    )
    if request.stuck_reason is reason:
        return Decision(stuck)
    return Decision(stuck, (), (_fact(request, Action.REQUEST_STUCK, AuditOutcome(reason)),))


def _is_carried_out(request: Request) -> bool:
    """Answer whether executors do all of it by themselves.

    Erasing more than was asked for cannot be undone, so a request to erase some categories only waits for a person.
    """
    return request.right in CARRIED_OUT and not (request.right is Right.ERASURE and request.categories is not None)


def concerns(request: Request, event: Event) -> bool:
    """Return whether an event is about this request as it was taken here.

    A request that was sent again to a restored database belongs to another subject than before. What is told of the earlier one opens
    nothing and answers nobody; the executors are asked anew.
    """
    return getattr(event, "subject_id", request.subject_id) == request.subject_id


def take_erasure(
    request: Request, completed: ErasureCompleted, account_fingerprint: str, now: datetime, *, had_copies: bool = False
) -> Decision:
    """The stores are erased and read again: the answer can be given. A second report changes nothing.

    ``had_copies`` says that copies had been made for the person: with the data key nobody can open them any more.
    """
    if request.state is not State.IN_PROGRESS:
        return Decision(request)
    outcomes = by_category(completed.tables)
    decision = _fulfil(request, outcome_of(outcomes), outcomes, None, now, copies_deleted=had_copies)
    flag = _flag(request, account_fingerprint, now, erased=True)
    return replace(decision, events=(flag, *decision.events))


def take_export(request: Request, completed: ExportCompleted, now: datetime) -> Decision:
    """The artefact is built and read again: the answer can be given. A second report changes nothing.

    An export without a file, of a person who was erased before it was built, is no copy.
    """
    if request.state is not State.IN_PROGRESS:
        return Decision(request)
    rows: dict[str, int] = {}
    for each in completed.tables:
        rows[each.category] = rows.get(each.category, 0) + each.rows
    outcomes = tuple(
        CategoryOutcome(category=category, result=TableResult.KEPT if count else TableResult.NOTHING_HELD, rows=count)
        for category, count in sorted(rows.items())
    )
    outcome = Outcome.DONE if any(rows.values()) else Outcome.NOTHING_HELD
    export_id = completed.export_id if completed.artefact_bytes else None
    return _fulfil(request, outcome, outcomes, export_id, now)


def take_stuck(request: Request, reason: StuckReason) -> Decision:
    """An executor cannot go on; the request stays open with the reason, and its deadline keeps running."""
    if request.state is not State.IN_PROGRESS or request.stuck_reason is reason:
        return Decision(request)
    stuck = request.becomes(State.IN_PROGRESS, stuck_reason=reason)
    return Decision(stuck, (), (_fact(request, Action.REQUEST_STUCK, AuditOutcome(reason)),))


def take_answered(request: Request, now: datetime) -> Decision:
    """The mail server took the outcome mail: the request is done, the address is dropped."""
    if request.state is not State.ANSWERING:
        return Decision(request)
    done = request.becomes(State.COMPLETED, contact=None, reach=Answered.MAIL, stuck_reason=None, closed_at=now)
    return Decision(done, (_completed(done, now),), (_fact(request, Action.REQUEST_COMPLETED, _word(request.outcome)),))


def take_unanswered(request: Request, reason: StuckReason) -> Decision:
    """The outcome mail was refused, or nobody knows whether it arrived: a person has to find another way to answer."""
    if request.state is not State.ANSWERING or request.stuck_reason is reason:
        return Decision(request)
    stuck = request.becomes(State.ANSWERING, stuck_reason=reason)
    return Decision(stuck, (), (_fact(request, Action.REQUEST_STUCK, AuditOutcome(reason)),))


def by_category(tables: Sequence[TableOutcome]) -> tuple[CategoryOutcome, ...]:
    """Sum tables up for the person: per category and result, with ground and latest end where rows were kept.

    Rows of others that let go of the person's, or went with them, are not told: they are not about this person.
    Where nobody knows the end of one table, there is none of the category: an earlier one would not be true.
    """
    groups: dict[tuple[str, TableResult, str], list[TableOutcome]] = {}
    for each in tables:
        if each.result.is_of_others:
            continue
        groups.setdefault((each.category, each.result, each.ground or ""), []).append(each)
    return tuple(
        CategoryOutcome(
            category=category,
            result=result,
            rows=sum(each.rows for each in group),
            ground=group[0].ground,
            until=_latest([each.until for each in group if each.rows]),
        )
        for (category, result, _), group in sorted(groups.items())
    )


def _latest(ends: Sequence[date | None]) -> date | None:
    known = [end for end in ends if end is not None]
    return max(known) if known and len(known) == len(ends) else None


def outcome_of(outcomes: Sequence[CategoryOutcome]) -> Outcome:
    """Give the one word for the whole: kept rows are never hidden behind `done`."""
    held = [each for each in outcomes if each.rows]
    if not held:
        return Outcome.NOTHING_HELD
    return Outcome.PARTLY_KEPT if any(each.result is TableResult.KEPT for each in held) else Outcome.DONE


def _fulfil(
    request: Request,
    outcome: Outcome,
    outcomes: tuple[CategoryOutcome, ...],
    export_id: UUID | None,
    now: datetime,
    *,
    copies_deleted: bool = False,
) -> Decision:
    fulfilled = RequestFulfilled(
        request_id=request.request_id,
        subject_id=request.subject_id,
        right=request.right,
        regime=request.regime,
        outcome=outcome,
        categories=outcomes,
        export_id=export_id,
        copies_deleted=copies_deleted,
        fulfilled_at=now,
    )
    fact = _fact(request, Action.REQUEST_FULFILLED, AuditOutcome(outcome))
    changes = {"outcome": outcome, "outcomes": outcomes, "export_id": export_id, "stuck_reason": None}
    if request.contact is not None:
        return Decision(request.becomes(State.ANSWERING, **changes), (fulfilled,), (fact,))
    # No store knows an address: the event says whether the platform that sent the request can show the answer.
    done = request.becomes(State.COMPLETED, **changes, closed_at=now)
    return Decision(
        done,
        (fulfilled, _completed(done, now)),
        (fact, _fact(request, Action.REQUEST_COMPLETED, AuditOutcome(outcome))),
    )


def _completed(request: Request, now: datetime) -> RequestCompleted:
    return RequestCompleted(
        request_id=request.request_id,
        subject_id=request.subject_id,
        right=request.right,
        outcome=request.outcome or Outcome.DONE,
        categories=request.outcomes,
        answered=request.reach,
        completed_at=now,
    )


def _flag(request: Request, account_fingerprint: str, now: datetime, *, erased: bool) -> SubjectFlagged:
    return SubjectFlagged(
        account_fingerprint=account_fingerprint,
        subject_id=request.subject_id,
        request_id=request.request_id,
        erasing=not erased,
        erased=erased,
        flagged_at=now,
    )


def _fact(request: Request, action: Action, outcome: AuditOutcome | None = None) -> AuditFact:
    return AuditFact(action, request.request_id, outcome=outcome)


def _word(outcome: Outcome | None) -> AuditOutcome | None:
    return None if outcome is None else AuditOutcome(outcome)
