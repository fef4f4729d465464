"""The grammar of an audit entry: one ASCII line that cannot carry personal data.

Every field is a closed word, an integer, a time or fixed-length hexadecimal, in a fixed order::

    habeas-audit/1 producer=request-intake epoch=1 seq=42 prev=<64 hex> time=2026-11-24T09:12:33.123Z
        action=request.accepted request=<32 hex or -> subject=<64 hex or -> outcome=<word or ->
        count=<integer or -> commitments=<label:64 hex,... or ->

(one line, single spaces). ``prev`` is the SHA-256 of the producer's previous line, 64 zeros for the first; ``seq`` starts at 1
and has no gaps, so an auditor sees a missing entry. A relay makes the line once; it is never rendered again.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from uuid import UUID

VERSION = "habeas-audit/1"
GENESIS = "0" * 64


class Producer(StrEnum):
    """Who may write to the log."""

    REQUEST_INTAKE = "request-intake"
    ERASURE_EXECUTOR = "erasure-executor"
    EXPORT_BUILDER = "export-builder"
    RETENTION_SWEEPER = "retention-sweeper"
    NOTIFICATION_MAILER = "notification-mailer"
    AUDIT_LEDGER = "audit-ledger"


class Action(StrEnum):
    """What was done. The list only grows: entries of old versions must keep parsing."""

    REQUEST_ACCEPTED = "request.accepted"
    REQUEST_IDENTITY_REQUESTED = "request.identity_requested"
    REQUEST_VERIFIED = "request.verified"
    REQUEST_STUCK = "request.stuck"
    REQUEST_RESUMED = "request.resumed"
    REQUEST_FULFILLED = "request.fulfilled"
    REQUEST_COMPLETED = "request.completed"
    ERASURE_STARTED = "erasure.started"
    ERASURE_STUCK = "erasure.stuck"
    ERASURE_COMPLETED = "erasure.completed"
    SUBJECT_KEY_DESTROYED = "subject.key_destroyed"
    EXPORT_STARTED = "export.started"
    EXPORT_STUCK = "export.stuck"
    EXPORT_COMPLETED = "export.completed"
    EXPORT_DELETED = "export.deleted"
    EXPORT_OPENED = "export.opened"
    SWEEP_COMPLETED = "sweep.completed"
    SWEEP_STUCK = "sweep.stuck"
    MAIL_QUEUED = "mail.queued"
    MAIL_SENT = "mail.sent"
    MAIL_REFUSED = "mail.refused"
    MAIL_UNCERTAIN = "mail.uncertain"
    MAIL_SUPPRESSED = "mail.suppressed"
    CAMPAIGN_SCHEDULED = "campaign.scheduled"
    CAMPAIGN_TOO_EARLY = "campaign.too_early"
    CAMPAIGN_NOTIFIED = "campaign.notified"
    MESSAGE_PARKED = "message.parked"
    MESSAGE_RETRIED = "message.retried"
    MESSAGE_RESOLVED = "message.resolved"
    MESSAGE_REVEALED = "message.revealed"
    MESSAGES_REPLAYED = "messages.replayed"
    DATABASE_RESTORED = "database.restored"
    PRODUCER_HALTED = "producer.halted"
    PRODUCER_RESUMED = "producer.resumed"
    SERVICE_PAUSED = "service.paused"
    SERVICE_RESUMED = "service.resumed"
    LANE_PAUSED = "lane.paused"  # count is the lane
    LANE_RESUMED = "lane.resumed"
    LOG_LEVEL_SET = "log_level.set"
    LOG_LEVEL_RESET = "log_level.reset"
    KEYS_ROTATED = "keys.rotated"  # count is the keys that were wrapped anew


class AuditOutcome(StrEnum):
    """How it went, as far as a word can say."""

    ACCESS = "access"
    PORTABILITY = "portability"
    RECTIFICATION = "rectification"
    ERASURE = "erasure"
    RESTRICTION = "restriction"
    OBJECTION = "objection"
    CONSENT_WITHDRAWAL = "consent_withdrawal"
    DONE = "done"
    PARTLY_KEPT = "partly_kept"
    NOTHING_HELD = "nothing_held"
    STORE_UNAVAILABLE = "store_unavailable"
    STORE_REFUSED = "store_refused"
    SCHEMA_MISMATCH = "schema_mismatch"
    NOT_ERASED = "not_erased"
    OTHERS_TOUCHED = "others_touched"
    KEY_MISSING = "key_missing"
    PARTICIPANT_FAILED = "participant_failed"
    ARTEFACT_UNWRITABLE = "artefact_unwritable"
    MAIL_REFUSED = "mail_refused"
    MAIL_UNCERTAIN = "mail_uncertain"
    NEEDS_A_PERSON = "needs_a_person"
    UNEXPECTED = "unexpected"
    INTERRUPTED = "interrupted"
    ACKNOWLEDGEMENT = "acknowledgement"
    OUTCOME = "outcome"
    POLICY_CHANGE = "policy_change"
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    SENT_AGAIN = "sent_again"
    DONE_BY_HAND = "done_by_hand"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"
    FORGED = "forged"
    UNREADABLE = "unreadable"


class CommitmentLabel(StrEnum):
    """What kind of fact a commitment fixes."""

    OUTCOME = "outcome"
    MANIFEST = "manifest"


@dataclass(frozen=True, slots=True)
class AuditFact:
    """What a service says when it changes state; the relay adds sequence and link."""

    action: Action
    request: UUID | None = None
    subject: str | None = None
    outcome: AuditOutcome | None = None
    count: int | None = None
    commitments: Mapping[CommitmentLabel, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One parsed line of the log."""

    producer: Producer
    epoch: int
    seq: int
    prev: str
    at: datetime
    fact: AuditFact


_WORD = r"[a-z][a-z0-9_.\-]{0,63}"
_LINE = re.compile(
    r"habeas-audit/1 producer=(" + _WORD + r") epoch=([1-9][0-9]{0,9}) seq=([1-9][0-9]{0,17}) prev=([0-9a-f]{64})"
    r" time=([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3})Z action=(" + _WORD + r")"
    r" request=([0-9a-f]{32}|-) subject=([0-9a-f]{64}|-) outcome=(" + _WORD + r"|-)"
    r" count=(0|[1-9][0-9]{0,17}|-) commitments=(" + _WORD + r":[0-9a-f]{64}(?:," + _WORD + r":[0-9a-f]{64})*|-)",
    re.ASCII,
)
_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class BadEntry(ValueError):
    """The bytes are not an audit entry; the message names the part, never the content."""


def encode_fact(fact: AuditFact, at: datetime) -> str:
    """Render everything that is known before the sequence is assigned: the line's tail from ``time=`` on.

    Raises ``BadEntry`` when a part does not fit the grammar, so that nothing else can reach the log.
    """
    if fact.subject is not None and not _HEX64.fullmatch(fact.subject):
        message = "subject must be 64 hexadecimal digits"
        raise BadEntry(message)
    if fact.count is not None and fact.count < 0:
        message = "count must not be negative"
        raise BadEntry(message)
    for value in fact.commitments.values():
        if not _HEX64.fullmatch(value):
            message = "commitment must be 64 hexadecimal digits"
            raise BadEntry(message)
    stamp = _stamp(at)
    commitments = (
        ",".join(f"{CommitmentLabel(label)}:{fact.commitments[label]}" for label in sorted(fact.commitments)) or "-"
    )
    return (
        f"time={stamp} action={Action(fact.action)} request={fact.request.hex if fact.request else '-'}"
        f" subject={fact.subject or '-'} outcome={AuditOutcome(fact.outcome) if fact.outcome else '-'}"
        f" count={'-' if fact.count is None else fact.count} commitments={commitments}"
    )


@lru_cache(maxsize=16)
def _stamp(at: datetime) -> str:
    """Render a moment; the facts of a transaction share one."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def encode_entry(producer: Producer, epoch: int, seq: int, prev: str, tail: str) -> bytes:
    """Put sequence and link in front of a rendered fact; the result is what is hashed, sent and stored."""
    return f"{VERSION} producer={producer} epoch={epoch} seq={seq} prev={prev} {tail}".encode("ascii")


def entry_hash(line: bytes) -> str:
    """Give the link that the producer's next entry must carry: SHA-256 of the line's bytes."""
    return hashlib.sha256(line).hexdigest()


def link_of(line: bytes) -> str | None:
    """Return the link that a line carries if it has the form of an entry to its last byte, else None.

    Words that the grammar does not have are no obstacle: a later version may have told them.
    """
    try:
        found = _LINE.fullmatch(line.decode("ascii"))
    except UnicodeDecodeError:
        return None
    return found[4] if found else None


def parse_entry(line: bytes) -> AuditEntry:
    """Parse one line under the closed grammar.

    Raises ``BadEntry`` for anything else: unknown words, other order, spare spaces, non-ASCII bytes.
    """
    try:
        found = _LINE.fullmatch(line.decode("ascii"))
    except UnicodeDecodeError:
        message = "entry is not ASCII"
        raise BadEntry(message) from None
    if found is None:
        message = "entry does not follow the grammar"
        raise BadEntry(message)
    producer, epoch, seq, prev, time, action, request, subject, outcome, count, commitments = found.groups()
    labels = [part.partition(":")[0] for part in commitments.split(",")]
    if labels != sorted(set(labels)):
        message = "commitments must be in order, each label once"
        raise BadEntry(message)
    try:
        return AuditEntry(
            Producer(producer),
            int(epoch),
            int(seq),
            prev,
            datetime.fromisoformat(time).replace(tzinfo=UTC),
            AuditFact(
                Action(action),
                None if request == "-" else UUID(hex=request),
                None if subject == "-" else subject,
                None if outcome == "-" else AuditOutcome(outcome),
                None if count == "-" else int(count),
                {}
                if commitments == "-"
                else {
                    CommitmentLabel(label): value
                    for label, _, value in (part.partition(":") for part in commitments.split(","))
                },
            ),
        )
    except ValueError:
        message = "entry uses a word that the grammar does not have"
        raise BadEntry(message) from None
