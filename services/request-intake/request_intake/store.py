"""Every SQL statement of request-intake."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from habeas.chassis.database import Transaction
from habeas.contracts.outcomes import CategoryOutcome
from habeas.contracts.vocabulary import Answered, Outcome, Right, StuckReason
from habeas.datamap.policy.deadlines import Deadlines
from request_intake import lifecycle
from request_intake.lifecycle import Request, State

_OUTCOMES: Final = TypeAdapter(tuple[CategoryOutcome, ...])

# The executor destroys the data key before its event arrives here; who asks meanwhile is somebody new already.
_CLOSE_ERASED: Final = """
    UPDATE request_intake.subjects AS s SET closed_at = $2
     WHERE s.account_fingerprint = ANY($1::bytea[]) AND s.closed_at IS NULL
       AND EXISTS (SELECT FROM sealing.subject_keys AS k WHERE k.subject_id = s.subject_id AND k.kind = 'case')
       AND NOT EXISTS (SELECT FROM sealing.subject_keys AS k WHERE k.subject_id = s.subject_id AND k.kind = 'data')
"""

_ADD_SUBJECTS: Final = """
    INSERT INTO request_intake.subjects (subject_id, account_fingerprint, created_at)
    SELECT n.subject_id, n.account_fingerprint, $3
      FROM unnest($1::uuid[], $2::bytea[]) AS n (subject_id, account_fingerprint)
     ORDER BY n.account_fingerprint
    ON CONFLICT (account_fingerprint) WHERE closed_at IS NULL DO NOTHING
"""

_FIND_SUBJECTS: Final = """
    SELECT account_fingerprint, subject_id
      FROM request_intake.subjects
     WHERE account_fingerprint = ANY($1::bytea[]) AND closed_at IS NULL
     ORDER BY account_fingerprint
       FOR SHARE
"""

_FIND_FINGERPRINTS: Final = """
    SELECT subject_id, account_fingerprint FROM request_intake.subjects WHERE subject_id = ANY($1::uuid[])
"""

_CLOSE_SUBJECTS: Final = """
    UPDATE request_intake.subjects SET closed_at = coalesce(closed_at, $2) WHERE subject_id = ANY($1::uuid[])
"""

_FIND_SUBMISSIONS: Final = """
    SELECT request_id, subject_id, submission_digest, received_at FROM request_intake.requests WHERE request_id = ANY($1::uuid[])
"""

_RECEIVE_EARLIER: Final = """
    UPDATE request_intake.requests AS r
       SET received_at = n.received_at, due_on = n.due_on, legal_limit_on = n.legal_limit_on, regime = n.regime,
           law_version = n.law_version, version = r.version + 1
      FROM unnest($1::uuid[], $2::timestamptz[], $3::date[], $4::date[], $5::text[], $6::text[])
           AS n (request_id, received_at, due_on, legal_limit_on, regime, law_version)
     WHERE r.request_id = n.request_id AND r.received_at > n.received_at AND r.state <> 'completed'
"""

_LOCK_BARE_DIGESTS: Final = """
    SELECT request_id, subject_id, submission_digest
      FROM request_intake.requests
     WHERE octet_length(submission_digest) = 32
     ORDER BY request_id
     LIMIT $1
       FOR UPDATE SKIP LOCKED
"""

_SAVE_DIGESTS: Final = """
    UPDATE request_intake.requests AS r SET submission_digest = n.digest, version = r.version + 1
      FROM unnest($1::uuid[], $2::bytea[]) AS n (request_id, digest)
     WHERE r.request_id = n.request_id
"""

_ADD_REQUESTS: Final = """
    INSERT INTO request_intake.requests (request_id, subject_id, dsr_right, state, regime, law_version, channel, language, received_at,
                                         due_on, legal_limit_on, is_verified, account, details, categories, subject_ref,
                                         submission_digest, traceparent)
    SELECT n.request_id, n.subject_id, n.dsr_right, n.state, n.regime, n.law_version, n.channel, n.language, n.received_at,
           n.due_on, n.legal_limit_on, n.is_verified, n.account, n.details, string_to_array(n.categories, ','), n.subject_ref,
           n.submission_digest, n.traceparent
      FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::timestamptz[],
                  $10::date[], $11::date[], $12::boolean[], $13::text[], $14::text[], $15::text[], $16::text[], $17::bytea[],
                  $18::text[])
           AS n (request_id, subject_id, dsr_right, state, regime, law_version, channel, language, received_at, due_on,
                 legal_limit_on, is_verified, account, details, categories, subject_ref, submission_digest, traceparent)
"""

_REQUEST_COLUMNS: Final = """
    SELECT request_id, subject_id, dsr_right, state, stuck_reason, outcome, outcomes::text, regime, law_version, channel, language,
           received_at, due_on, legal_limit_on, is_verified, account, details, categories, contact, subject_ref, submission_digest,
           export_id, traceparent, accepted_at, closed_at, attempts, next_attempt_at, version, reach
      FROM request_intake.requests
"""

_LOCK_REQUESTS: Final = _REQUEST_COLUMNS + " WHERE request_id = ANY($1::uuid[]) ORDER BY request_id FOR UPDATE"

_LOCK_RECEIVED: Final = (
    _REQUEST_COLUMNS
    + """
     WHERE state = 'received' AND (next_attempt_at IS NULL OR next_attempt_at <= $1)
     ORDER BY request_id
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

# Equal times: the copy first, since nobody can make it afterwards.
_FIND_WAITING: Final = """
    SELECT e.request_id
      FROM request_intake.requests AS e
     WHERE e.request_id = ANY($1::uuid[]) AND e.due_on - $5::integer > $2::date
       AND EXISTS (SELECT FROM request_intake.requests AS c
                    WHERE c.subject_id = e.subject_id AND c.received_at <= e.received_at AND c.dsr_right = ANY($3::text[])
                      AND c.is_verified AND c.state IN ('received', 'in_progress', 'answering')
                      AND (c.stuck_reason IS NULL OR c.stuck_reason = ANY($4::text[])))
"""

# Those that another transaction holds are passed over: they look again by themselves, and nobody waits for the other.
_LET_GO_ON: Final = """
    UPDATE request_intake.requests AS r SET next_attempt_at = $2
     WHERE r.request_id IN (SELECT e.request_id FROM request_intake.requests AS e
                             WHERE e.subject_id = ANY($1::uuid[]) AND e.state = 'received' AND e.stuck_reason = 'earlier_request'
                               FOR UPDATE SKIP LOCKED)
"""

_FIND_WITH_COPIES: Final = """
    SELECT DISTINCT subject_id FROM request_intake.requests WHERE subject_id = ANY($1::uuid[]) AND export_id IS NOT NULL
"""

# Of those that could not be opened; all others are told of.
FIND_NEXT_DUE: Final = "SELECT min(next_attempt_at) FROM request_intake.requests WHERE state = 'received'"

_PUT_OFF: Final = """
    UPDATE request_intake.requests AS r
       SET stuck_reason = n.stuck_reason, attempts = n.attempts, next_attempt_at = n.next_attempt_at, version = r.version + 1
      FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::integer[], $5::timestamptz[])
           AS n (request_id, version, stuck_reason, attempts, next_attempt_at)
     WHERE r.request_id = n.request_id AND r.version = n.version AND r.state = 'received'
"""

_SAVE_REQUESTS: Final = """
    UPDATE request_intake.requests AS r
       SET state = n.state, stuck_reason = n.stuck_reason, outcome = n.outcome, outcomes = n.outcomes::jsonb, contact = n.contact,
           export_id = n.export_id, accepted_at = n.accepted_at, closed_at = n.closed_at, reach = n.reach, version = r.version + 1
      FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[],
                  $9::timestamptz[], $10::timestamptz[], $11::text[])
           AS n (request_id, version, state, stuck_reason, outcome, outcomes, contact, export_id, accepted_at, closed_at, reach)
     WHERE r.request_id = n.request_id AND r.version = n.version
"""

# The most urgent of those that are open, so that a crowd of requests does not make the figures late.
COUNT_OPEN: Final = """
    SELECT dsr_right, state, coalesce(stuck_reason, state) AS reason, count(*) AS requests,
           count(*) FILTER (WHERE due_on >= $1 AND due_on - $1 <= $2) AS due_soon,
           count(*) FILTER (WHERE due_on < $1 AND legal_limit_on >= $1) AS overdue,
           count(*) FILTER (WHERE legal_limit_on < $1) AS past_limit
      FROM (SELECT * FROM request_intake.requests WHERE state <> 'completed' ORDER BY due_on LIMIT 100000) AS r
     GROUP BY dsr_right, state, coalesce(stuck_reason, state)
"""

COUNT_STUCK: Final = """
    SELECT 'request' AS work, stuck_reason AS reason, count(*) AS rows, min(received_at) AS oldest_at
      FROM (SELECT * FROM request_intake.requests WHERE state <> 'completed' ORDER BY due_on LIMIT 100000) AS r
     WHERE stuck_reason IS NOT NULL AND stuck_reason NOT IN ('needs_identity', 'earlier_request')
     GROUP BY stuck_reason
"""


async def resolve_subjects(tx: Transaction, new_ids: Mapping[bytes, UUID]) -> dict[bytes, UUID]:
    """Give the open subject of each account fingerprint, made with the offered id where there was none; idempotent.

    A subject whose data key was destroyed is open no longer, whoever knows of it.
    """
    await tx.execute(_CLOSE_ERASED, list(new_ids), tx.now)
    found: dict[bytes, UUID] = {}
    while missing := [fingerprint for fingerprint in new_ids if fingerprint not in found]:
        # A second round is for those whose subject another replica closes between the two statements.
        await tx.execute(_ADD_SUBJECTS, [new_ids[each] for each in missing], missing, tx.now)
        rows = await tx.fetch(_FIND_SUBJECTS, missing)
        found.update({row["account_fingerprint"]: row["subject_id"] for row in rows})
    return found


async def find_fingerprints(tx: Transaction, subject_ids: Iterable[UUID]) -> dict[UUID, bytes]:
    """Give the account fingerprint of each subject."""
    rows = await tx.fetch(_FIND_FINGERPRINTS, list(subject_ids))
    return {row["subject_id"]: row["account_fingerprint"] for row in rows}


async def close_subjects(tx: Transaction, subject_ids: Iterable[UUID]) -> None:
    """Let a later request of the same account make a new subject; closing twice changes nothing."""
    await tx.execute(_CLOSE_SUBJECTS, sorted(subject_ids), tx.now)


class Submission(NamedTuple):
    """What is known of a submission that was taken."""

    subject_id: UUID
    digest: bytes
    received_at: datetime


async def find_submissions(tx: Transaction, request_ids: Sequence[UUID]) -> dict[UUID, Submission]:
    """Return what was submitted under each request id that is known."""
    rows = await tx.fetch(_FIND_SUBMISSIONS, request_ids)
    return {request_id: Submission(UUID(bytes=subject_id.bytes), *rest) for request_id, subject_id, *rest in rows}


async def receive_earlier(tx: Transaction, times: Mapping[UUID, tuple[datetime, Deadlines]]) -> None:
    """Let requests that are open count from an earlier receipt; one that is not earlier changes nothing."""
    rows = [
        (request_id, received_at, law.due_on, law.legal_limit_on, law.regime, law.law_version)
        for request_id, (received_at, law) in sorted(times.items())
    ]
    if rows:
        await tx.execute(_RECEIVE_EARLIER, *map(list, zip(*rows, strict=True)))


async def lock_bare_digests(tx: Transaction, limit: int) -> list[tuple[UUID, UUID, bytes]]:
    """Lock requests whose submission is kept as a bare SHA-256, and return them with their subject and that digest."""
    return [(row[0], UUID(bytes=row[1].bytes), row[2]) for row in await tx.fetch(_LOCK_BARE_DIGESTS, limit)]


async def save_digests(tx: Transaction, digests: Mapping[UUID, bytes]) -> None:
    """Write digests of requests that this transaction has locked."""
    if digests:
        await tx.execute_exactly(len(digests), _SAVE_DIGESTS, list(digests), list(digests.values()))


async def add_requests(tx: Transaction, requests: Sequence[Request]) -> None:
    """Insert new requests in one statement."""
    rows = [
        (
            each.request_id,
            each.subject_id,
            each.right,
            each.state,
            each.regime,
            each.law_version,
            each.channel,
            each.language,
            each.received_at,
            each.due_on,
            each.legal_limit_on,
            each.is_verified,
            each.account,
            each.details,
            None if each.categories is None else ",".join(each.categories),
            each.subject_ref,
            each.submission_digest,
            each.traceparent,
        )
        for each in requests
    ]
    if rows:
        await tx.execute_exactly(len(rows), _ADD_REQUESTS, *map(list, zip(*rows, strict=True)))


async def lock_requests(tx: Transaction, request_ids: Sequence[UUID]) -> dict[UUID, Request]:
    """Lock the requests, in one order everywhere, and give those that exist."""
    return {row["request_id"]: _request(row) for row in await tx.fetch(_LOCK_REQUESTS, request_ids)}


async def lock_received(tx: Transaction, limit: int) -> list[Request]:
    """Lock requests that are to be opened now, passing over what another replica holds."""
    return [_request(row) for row in await tx.fetch(_LOCK_RECEIVED, tx.now, limit)]


async def find_waiting(tx: Transaction, erasures: Iterable[UUID], today: date) -> set[UUID]:
    """Return those of the erasures that wait for an earlier request of the same person, and are not due soon themselves."""
    asked = sorted(erasures)
    if not asked:
        return set()
    rights, passing = sorted(lifecycle.EXPORTED), sorted(lifecycle.PASSING)
    days = lifecycle.WAITED_UNTIL_DAYS_BEFORE_DUE
    return {row["request_id"] for row in await tx.fetch(_FIND_WAITING, asked, today, rights, passing, days)}


async def let_go_on(tx: Transaction, subject_ids: Iterable[UUID]) -> None:
    """Let the erasures look again at once that wait for an earlier request of these people."""
    people = sorted(subject_ids)
    if people and await tx.count(_LET_GO_ON, people, tx.now):
        tx.did(let_go_on)


async def find_with_copies(tx: Transaction, subject_ids: Iterable[UUID]) -> set[UUID]:
    """Return those of the people for whom a copy was made."""
    return {UUID(bytes=row[0].bytes) for row in await tx.fetch(_FIND_WITH_COPIES, sorted(subject_ids))}


async def put_off(tx: Transaction, requests: Sequence[Request]) -> None:
    """Write down why requests could not be opened, and when that is tried again."""
    rows = [
        (each.request_id, each.version, each.stuck_reason, each.attempts, each.next_attempt_at) for each in requests
    ]
    if rows:
        await tx.execute_exactly(len(rows), _PUT_OFF, *map(list, zip(*rows, strict=True)))


async def save_requests(tx: Transaction, requests: Sequence[Request]) -> None:
    """Write what changed in one statement; another writer since the lock is an ``Invariant``, not a retry."""
    rows = [
        (
            each.request_id,
            each.version,
            each.state,
            each.stuck_reason,
            each.outcome,
            _OUTCOMES.dump_json(each.outcomes).decode(),
            each.contact,
            each.export_id,
            each.accepted_at,
            each.closed_at,
            each.reach,
        )
        for each in requests
    ]
    if rows:
        await tx.execute_exactly(len(rows), _SAVE_REQUESTS, *map(list, zip(*rows, strict=True)))


def _request(row: asyncpg.Record) -> Request:
    return Request(
        request_id=row["request_id"],
        subject_id=row["subject_id"],
        right=Right(row["dsr_right"]),
        state=State(row["state"]),
        regime=row["regime"],
        law_version=row["law_version"],
        channel=row["channel"],
        language=row["language"],
        received_at=row["received_at"],
        due_on=row["due_on"],
        legal_limit_on=row["legal_limit_on"],
        is_verified=row["is_verified"],
        account=row["account"],
        details=row["details"],
        categories=None if row["categories"] is None else tuple(row["categories"]),
        subject_ref=row["subject_ref"],
        submission_digest=row["submission_digest"],
        traceparent=row["traceparent"],
        contact=row["contact"],
        reach=None if row["reach"] is None else Answered(row["reach"]),
        outcome=None if row["outcome"] is None else Outcome(row["outcome"]),
        outcomes=_OUTCOMES.validate_json(row["outcomes"]),
        export_id=row["export_id"],
        stuck_reason=None if row["stuck_reason"] is None else StuckReason(row["stuck_reason"]),
        accepted_at=row["accepted_at"],
        closed_at=row["closed_at"],
        attempts=row["attempts"],
        next_attempt_at=row["next_attempt_at"],
        version=row["version"],
    )
