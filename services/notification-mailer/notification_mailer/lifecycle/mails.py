"""The life of a mail, decided without I/O, clock or randomness.

A mail cannot be sent exactly once over SMTP (RFC 1047): between the final dot and the reply, the server may own it and nobody
knows. What can be known is kept: a marker is committed before the dot, so everything that failed before it is sent again
without harm, and only what was lost after it is uncertain.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from habeas.chassis.ids import name_based
from habeas.chassis.lifecycle import row, table
from habeas.contracts.audit import Action, AuditFact, AuditOutcome
from habeas.contracts.model import Event, Instant, Model
from habeas.contracts.notification_mailer import MAILS, MailRefused, MailSent, MailUncertain, mail_id_of
from habeas.contracts.outcomes import CategoryOutcome
from habeas.contracts.request_intake import RequestAccepted, RequestFulfilled
from habeas.contracts.vocabulary import MailKind, MailRefusal, Outcome, Right, StuckReason


class State(StrEnum):
    """Where a mail stands."""

    QUEUED = "queued"  # to be sent when its time has come
    SENDING = "sending"  # claimed by a replica; nothing that could be a mail has left yet
    DOT = "dot"  # the final dot may have left; whether the server took the mail is not known yet
    SENT = "sent"  # the server took it (250)
    REFUSED = "refused"  # the server refused it for good (5yz), or there is no usable address
    UNCERTAIN = "uncertain"  # the reply to the dot was lost; never sent again by itself
    SUPPRESSED = "suppressed"  # nobody is left to write to


TRANSITIONS: Final = table(
    State.QUEUED,
    row(State.QUEUED, "claimed before connecting", State.SENDING),
    row(State.QUEUED, "nobody to write to", State.REFUSED, State.SUPPRESSED),
    row(State.QUEUED, "could not be written", State.QUEUED),
    row(State.SENDING, "marked before the dot", State.DOT),
    row(State.SENDING, "failed before the dot", State.QUEUED),
    row(State.SENDING, "5yz", State.REFUSED),
    row(State.DOT, "250", State.SENT),
    row(State.DOT, "4yz or dot never written", State.QUEUED),
    row(State.DOT, "5yz", State.REFUSED),
    row(State.DOT, "reply lost", State.UNCERTAIN, State.QUEUED),
    row(State.UNCERTAIN, "250 came late", State.SENT),
)


class Result(StrEnum):
    """How one attempt ended."""

    TAKEN = "taken"  # 2yz to the final dot
    REFUSED = "refused"  # 5yz to the recipient, to DATA or to the final dot; or the address cannot be written to
    POSTPONED = "postponed"  # 4yz to the same
    NOT_SENT = "not_sent"  # it ended before the final dot
    UNREACHABLE = "unreachable"  # the server does not speak with us at all: no fault of this mail
    LOST = "lost"  # the final dot left, its reply did not come
    NOT_TRIED = "not_tried"  # the process stops: the next one takes the mail
    FENCED = "fenced"  # somebody else has claimed the mail meanwhile; it was not sent


@dataclass(frozen=True, slots=True)
class Report:
    """What one attempt came to.

    ``smtp_code`` is the server's reply (RFC 5321 section 4.2) where there was one, ``refusal`` why nothing was said to a server.
    """

    result: Result
    smtp_code: int | None = None
    refusal: MailRefusal | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long a mail is tried.

    ``resent`` kinds are sent again even when the first may have arrived, ``doubts_max`` times at most: a server that takes mails and
    never says so must not fill anybody's mailbox. ``doubt_first`` is the wait before the first of these, longer than after a failure.
    """

    first: timedelta
    longest: timedelta
    horizon: timedelta
    resent: frozenset[MailKind]
    doubts_max: int = 3
    doubt_first: timedelta = timedelta(minutes=1)

    def pause(self, attempt: int) -> timedelta:
        """Give the wait after this many attempts: doubling, bounded."""
        return min(self.longest, self.first * (1 << min(attempt - 1, 30)))

    def doubt_pause(self, doubts: int) -> timedelta:
        """Return the wait after this many lost replies: doubling, bounded."""
        return min(max(self.longest, self.doubt_first), self.doubt_first * (1 << min(doubts - 1, 30)))


class AcknowledgementContent(Model):
    """What an acknowledgement says, apart from the person's name."""

    right: Right
    received_at: Instant
    due_on: date
    legal_limit_on: date
    needs_identity: bool = False


class OutcomeContent(Model):
    """What an outcome mail says, apart from the person's name; ``regime`` is the law that it is said by."""

    right: Right
    regime: str | None = None
    outcome: Outcome
    categories: tuple[CategoryOutcome, ...]
    export_id: UUID | None
    copies_deleted: bool = False


class Mail(NamedTuple):
    """One mail. It names nobody: who gets it stands in the sealed contact of its request, or in its sealed ``account``."""

    mail_id: UUID
    kind: MailKind
    state: State
    queued_at: datetime
    next_attempt_at: datetime
    request_id: UUID | None = None
    subject_id: UUID | None = None
    campaign_id: UUID | None = None
    account: str | None = None
    account_fingerprint: bytes | None = None
    content: str | None = None
    attempt: int = 0
    smtp_code: int | None = None
    ended_at: datetime | None = None
    traceparent: str | None = None
    doubts: int = 0
    refusal: str | None = None
    stuck_reason: str | None = None

    def becomes(self, state: State, **changes: object) -> "Mail":
        """Give the mail in its next state. Raises ``Invariant`` for a step that the table does not have."""
        TRANSITIONS.check(self.state, state)
        return self._replace(state=state, **changes)  # type: ignore[arg-type]  # the fields are checked by _replace


@dataclass(frozen=True, slots=True)
class Decision:
    """The mail as it is now, what is to be told, and the action for the log."""

    mail: Mail
    events: tuple[Event, ...] = ()
    action: Action | None = None


def acknowledge(accepted: RequestAccepted, traceparent: str | None, now: datetime) -> Mail:
    """Write down that a request is to be acknowledged; the same request always gives the same mail id."""
    content = AcknowledgementContent(
        right=accepted.right,
        received_at=accepted.received_at,
        due_on=accepted.due_on,
        legal_limit_on=accepted.legal_limit_on,
        needs_identity=accepted.needs_identity,
    )
    return _of_request(accepted, MailKind.ACKNOWLEDGEMENT, content, traceparent, now)


def answer(fulfilled: RequestFulfilled, traceparent: str | None, now: datetime) -> Mail:
    """Write down that a person is to be told the outcome (Art. 12(3)); the same request always gives the same mail id."""
    content = OutcomeContent(
        right=fulfilled.right,
        regime=fulfilled.regime,
        outcome=fulfilled.outcome,
        categories=fulfilled.categories,
        export_id=fulfilled.export_id,
        copies_deleted=fulfilled.copies_deleted,
    )
    return _of_request(fulfilled, MailKind.OUTCOME, content, traceparent, now)


def notify(
    campaign_id: UUID, mail_id: UUID, account: str, account_fingerprint: bytes, traceparent: str | None, now: datetime
) -> Mail:
    """Write down that an account holder is to be told of a policy change; ``account`` is sealed."""
    return Mail(
        mail_id=mail_id,
        kind=MailKind.POLICY_CHANGE,
        state=State.QUEUED,
        queued_at=now,
        next_attempt_at=now,
        campaign_id=campaign_id,
        account=account,
        account_fingerprint=account_fingerprint,
        traceparent=traceparent,
    )


def mail_id_in(campaign_id: UUID, account_fingerprint: bytes) -> UUID:
    """Give the id, and so the Message-ID, of the one mail that an account gets in a campaign."""
    return name_based(MAILS, campaign_id, account_fingerprint.hex())


def claim(mail: Mail) -> Mail:
    """Begin an attempt; to be committed before anything is connected."""
    return mail.becomes(State.SENDING, attempt=mail.attempt + 1)


def mark(mail: Mail) -> Mail:
    """Say that the final dot may leave from now on; to be committed before it does."""
    return mail.becomes(State.DOT)


def settle(mail: Mail, report: Report, patience: Patience, now: datetime) -> Decision:
    """Take what an attempt came to."""
    match report.result:
        case Result.TAKEN:
            return _sent(mail, now)
        case Result.REFUSED:
            return _refused(mail, report.smtp_code, report.refusal or MailRefusal.SERVER_REFUSED, now)
        case Result.LOST:
            return _lost(mail, patience, now)
        case Result.UNREACHABLE:
            return _again(mail, report.smtp_code, patience.first, patience, now)
        case Result.POSTPONED | Result.NOT_SENT:
            return _again(mail, report.smtp_code, patience.pause(mail.attempt), patience, now)
        case Result.NOT_TRIED:
            return take_back(mail, patience, now)
        case Result.FENCED:
            return Decision(mail)


def take_back(mail: Mail, patience: Patience, now: datetime) -> Decision:
    """Decide about a mail whose sender died: before the marker it did not leave, after the marker nobody knows."""
    if mail.state is State.DOT:
        return _lost(mail, patience, now)
    return Decision(mail.becomes(State.QUEUED, next_attempt_at=now))


def give_up(mail: Mail, now: datetime) -> Decision:
    """Nobody is left to write to: the contact is gone, the account is erased.

    A person who was to be told an outcome still has to be told, so that one is refused and not just dropped.
    """
    if mail.kind is MailKind.OUTCOME:
        return _refused(mail, None, MailRefusal.NO_ADDRESS, now)
    return Decision(
        mail.becomes(State.SUPPRESSED, ended_at=now, account=None, content=None), (), Action.MAIL_SUPPRESSED
    )


def tell_again(mail: Mail) -> tuple[Event, ...]:
    """Return the news of a mail about a request that has ended; nothing while it has not."""
    if mail.request_id is None or mail.ended_at is None:
        return ()
    request_id, mail_id, kind, at = mail.request_id, mail.mail_id, mail.kind, mail.ended_at
    match mail.state:
        case State.SENT:
            return (MailSent(request_id=request_id, mail_id=mail_id, kind=kind, sent_at=at),)
        case State.REFUSED:
            code = _told_code(mail.smtp_code)
            reason = None if mail.refusal is None else MailRefusal(mail.refusal)
            told = MailRefused(
                request_id=request_id, mail_id=mail_id, kind=kind, reason=reason, smtp_code=code, refused_at=at
            )
            return (told,)
        case State.UNCERTAIN:
            times = max(1, mail.doubts)
            return (MailUncertain(request_id=request_id, mail_id=mail_id, kind=kind, times=times, lost_at=at),)
        case _:
            return ()


def put_off(mail: Mail, reason: StuckReason, patience: Patience, now: datetime) -> Decision:
    """No letter could be written, for the reason: tried again with backoff, for as long as a mail is tried."""
    attempt = mail.attempt + 1
    tried = mail.becomes(State.QUEUED, attempt=attempt, stuck_reason=reason.value)
    return _again(tried, None, patience.pause(attempt), patience, now)


def facts(decisions: Iterable[Decision]) -> list[AuditFact]:
    """Say decisions in the log: one fact for each mail of a request, one with a count for all mails of campaigns alike."""
    single: list[AuditFact] = []
    counts: dict[Action, int] = {}
    for decision in decisions:
        if decision.action is None:
            continue
        if decision.mail.request_id is None:
            counts[decision.action] = counts.get(decision.action, 0) + 1
        else:
            outcome = AuditOutcome(decision.mail.kind)
            single.append(AuditFact(decision.action, decision.mail.request_id, outcome=outcome))
    return [
        *single,
        *(AuditFact(action, outcome=AuditOutcome.POLICY_CHANGE, count=count) for action, count in counts.items()),
    ]


def queued(mails: Iterable[Mail]) -> list[AuditFact]:
    """Say in the log that mails were written down."""
    return facts(Decision(mail, (), Action.MAIL_QUEUED) for mail in mails)


def _of_request(
    event: RequestAccepted | RequestFulfilled, kind: MailKind, content: Model, traceparent: str | None, now: datetime
) -> Mail:
    return Mail(
        mail_id=mail_id_of(event.request_id, kind),
        kind=kind,
        state=State.QUEUED,
        queued_at=now,
        next_attempt_at=now,
        request_id=event.request_id,
        subject_id=event.subject_id,
        content=content.model_dump_json(),
        traceparent=traceparent,
    )


def _sent(mail: Mail, now: datetime) -> Decision:
    sent = mail.becomes(State.SENT, ended_at=now, account=None, content=None, smtp_code=None)
    events: tuple[Event, ...] = ()
    if mail.request_id is not None:
        events = (MailSent(request_id=mail.request_id, mail_id=mail.mail_id, kind=mail.kind, sent_at=now),)
    return Decision(sent, events, Action.MAIL_SENT)


def _refused(mail: Mail, smtp_code: int | None, reason: MailRefusal, now: datetime) -> Decision:
    refused = mail.becomes(State.REFUSED, ended_at=now, account=None, smtp_code=smtp_code, refusal=reason.value)
    events: tuple[Event, ...] = ()
    if mail.request_id is not None:
        events = (
            MailRefused(
                request_id=mail.request_id,
                mail_id=mail.mail_id,
                kind=mail.kind,
                reason=reason,
                smtp_code=_told_code(smtp_code),
                refused_at=now,
            ),
        )
    return Decision(refused, events, Action.MAIL_REFUSED)


def _told_code(smtp_code: int | None) -> int | None:
    """Return a reply's code if it says that something failed (RFC 5321 section 4.2.1)."""
    return smtp_code if smtp_code is not None and 400 <= smtp_code <= 599 else None  # noqa: PLR2004 -- as the RFC numbers them


def _lost(mail: Mail, patience: Patience, now: datetime) -> Decision:
    """Nobody knows whether the mail arrived; that is told and counted, also where the mail is sent once more."""
    doubts = mail.doubts + 1
    again_at: datetime | None = None
    if mail.kind in patience.resent and doubts <= patience.doubts_max:
        again_at = now + patience.doubt_pause(doubts)
        after = mail.becomes(State.QUEUED, next_attempt_at=again_at, doubts=doubts)
    else:
        after = mail.becomes(State.UNCERTAIN, ended_at=now, account=None, doubts=doubts)
    events: tuple[Event, ...] = ()
    if mail.request_id is not None:
        told = MailUncertain(
            request_id=mail.request_id,
            mail_id=mail.mail_id,
            kind=mail.kind,
            times=doubts,
            again_at=again_at,
            lost_at=now,
        )
        events = (told,)
    return Decision(after, events, Action.MAIL_UNCERTAIN)


def _again(mail: Mail, smtp_code: int | None, pause: timedelta, patience: Patience, now: datetime) -> Decision:
    """Put the mail back; one that nobody would take for so long is refused, so that a person finds another way."""
    if now - mail.queued_at > patience.horizon:
        return _refused(mail, smtp_code, MailRefusal.NEVER_TAKEN, now)
    return Decision(mail.becomes(State.QUEUED, next_attempt_at=now + pause, smtp_code=smtp_code))
