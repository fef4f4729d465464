"""Every SQL statement of erasure-executor."""

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from erasure_executor.lifecycle import Erasure, State
from habeas.chassis.database import Transaction
from habeas.contracts.outcomes import TableOutcome
from habeas.contracts.vocabulary import StuckReason

_OUTCOMES: Final = TypeAdapter(tuple[TableOutcome, ...])

_ADD_ERASURES: Final = """
    INSERT INTO erasure_executor.erasures AS e (request_id, subject_id, state, account, due_on, next_attempt_at, traceparent)
    SELECT n.*
      FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::date[], $6::timestamptz[], $7::text[]) AS n
    ON CONFLICT (request_id) DO UPDATE
       SET subject_id = EXCLUDED.subject_id, state = EXCLUDED.state, account = EXCLUDED.account, account_fingerprint = NULL,
           due_on = EXCLUDED.due_on, planned = NULL, outcomes = '[]', stuck_reason = NULL, stuck_store = NULL, stuck_table = NULL,
           attempts = 0, next_attempt_at = EXCLUDED.next_attempt_at, traceparent = EXCLUDED.traceparent, erased_at = NULL,
           version = e.version + 1
     WHERE e.subject_id <> EXCLUDED.subject_id
    RETURNING request_id
"""

_ERASURE_COLUMNS: Final = """
    SELECT request_id, subject_id, state, account, account_fingerprint, due_on, planned::text, outcomes::text, stuck_reason,
           stuck_store, stuck_table, attempts, is_large, next_attempt_at, traceparent, erased_at, version
      FROM erasure_executor.erasures
"""

_LOCK_DUE: Final = (
    _ERASURE_COLUMNS
    + """
     WHERE state <> 'completed' AND NOT is_large AND next_attempt_at <= $1
     ORDER BY next_attempt_at, request_id
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

_LOCK_DUE_LARGE: Final = (
    _ERASURE_COLUMNS
    + """
     WHERE state <> 'completed' AND is_large AND next_attempt_at <= $1
     ORDER BY next_attempt_at, request_id
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

FIND_NEXT_DUE: Final = """
    SELECT min(next_attempt_at) FROM erasure_executor.erasures WHERE state <> 'completed' AND NOT is_large
"""

FIND_NEXT_DUE_LARGE: Final = """
    SELECT min(next_attempt_at) FROM erasure_executor.erasures WHERE state <> 'completed' AND is_large
"""

_LOCK_ERASURES: Final = _ERASURE_COLUMNS + " WHERE request_id = ANY($1::uuid[]) ORDER BY request_id FOR UPDATE"

_SAVE_ERASURES: Final = """
    UPDATE erasure_executor.erasures AS e
       SET state = n.state, account = n.account, account_fingerprint = n.account_fingerprint, planned = n.planned::jsonb,
           outcomes = n.outcomes::jsonb, stuck_reason = n.stuck_reason, stuck_store = n.stuck_store, stuck_table = n.stuck_table,
           attempts = n.attempts, is_large = n.is_large, next_attempt_at = n.next_attempt_at, erased_at = n.erased_at,
           version = e.version + 1
      FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::bytea[], $6::text[], $7::text[], $8::text[], $9::text[],
                  $10::text[], $11::integer[], $12::boolean[], $13::timestamptz[], $14::timestamptz[])
           AS n (request_id, version, state, account, account_fingerprint, planned, outcomes, stuck_reason, stuck_store, stuck_table,
                 attempts, is_large, next_attempt_at, erased_at)
     WHERE e.request_id = n.request_id AND e.version = n.version
"""

# Within an attempt, so that its version stays as it is. The first count is the one that counts.
SAVE_PLANS: Final = """
    UPDATE erasure_executor.erasures AS e SET planned = n.planned::jsonb
      FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS n (request_id, version, planned)
     WHERE e.request_id = n.request_id AND e.version = n.version AND e.planned IS NULL
"""

KEEP_ATTEMPTS: Final = """
    UPDATE erasure_executor.erasures AS e SET next_attempt_at = $1
      FROM unnest($2::uuid[], $3::bigint[]) AS n (request_id, version)
     WHERE e.request_id = n.request_id AND e.version = n.version
"""

FIND_OURS: Final = """
    SELECT e.request_id
      FROM unnest($1::uuid[], $2::bigint[]) AS n (request_id, version) JOIN erasure_executor.erasures AS e USING (request_id, version)
     WHERE e.next_attempt_at >= $3
"""

_ADD_TOMBSTONES: Final = """
    INSERT INTO erasure_executor.tombstones (account_fingerprint, subject_id, request_id, erased_at)
    SELECT n.account_fingerprint, n.subject_id, n.request_id, $4
      FROM unnest($1::bytea[], $2::uuid[], $3::uuid[]) AS n (account_fingerprint, subject_id, request_id)
     ORDER BY n.account_fingerprint
    ON CONFLICT (account_fingerprint)
       DO UPDATE SET subject_id = EXCLUDED.subject_id, request_id = EXCLUDED.request_id, erased_at = EXCLUDED.erased_at
"""

_FIND_ERASED: Final = """
    SELECT DISTINCT subject_id FROM erasure_executor.erasures WHERE subject_id = ANY($1::uuid[]) AND state = 'completed'
"""

# Whoever begins an erasure gives it a reason before it was begun so often without an end; should one have none, that is told.
COUNT_STUCK: Final = """
    SELECT 'erasure' AS work, coalesce(stuck_reason, 'unexplained') AS reason, count(*) AS rows, NULL::timestamptz AS oldest_at
      FROM erasure_executor.erasures
     WHERE state <> 'completed' AND (stuck_reason IS NOT NULL OR attempts > 3)
     GROUP BY coalesce(stuck_reason, 'unexplained')
"""


async def add_erasures(tx: Transaction, erasures: Sequence[Erasure]) -> set[UUID]:
    """Insert new erasures in one statement, anew those that are known under another subject; return the ids of both."""
    rows = [
        (
            each.request_id,
            each.subject_id,
            each.state,
            each.account,
            each.due_on,
            each.next_attempt_at,
            each.traceparent,
        )
        for each in erasures
    ]
    if not rows:
        return set()
    added = await tx.fetch(_ADD_ERASURES, *map(list, zip(*rows, strict=True)))
    return {row["request_id"] for row in added}


async def lock_due(tx: Transaction, limit: int, *, large: bool) -> list[Erasure]:
    """Lock erasures whose attempt is due, the large ones or the others, passing over those that another replica holds."""
    return [_erasure(row) for row in await tx.fetch(_LOCK_DUE_LARGE if large else _LOCK_DUE, tx.now, limit)]


async def lock_erasures(tx: Transaction, request_ids: Iterable[UUID]) -> dict[UUID, Erasure]:
    """Lock the erasures, in one order everywhere; without ids nothing is asked."""
    ids = list(request_ids)
    return {row["request_id"]: _erasure(row) for row in await tx.fetch(_LOCK_ERASURES, ids)} if ids else {}


async def save_erasures(tx: Transaction, erasures: Sequence[Erasure]) -> None:
    """Write what changed in one statement; another writer since the lock is an ``Invariant``, not a retry."""
    rows = [
        (
            each.request_id,
            each.version,
            each.state,
            each.account,
            each.account_fingerprint,
            None if each.planned is None else as_json(each.planned),
            as_json(each.outcomes),
            each.stuck_reason,
            each.stuck_store,
            each.stuck_table,
            each.attempts,
            each.is_large,
            each.next_attempt_at,
            each.erased_at,
        )
        for each in erasures
    ]
    if rows:
        await tx.execute_exactly(len(rows), _SAVE_ERASURES, *map(list, zip(*rows, strict=True)))


async def add_tombstones(tx: Transaction, erasures: Iterable[Erasure]) -> None:
    """Remember who was erased; a person erased twice keeps the newer tombstone."""
    newest = {each.account_fingerprint: each for each in erasures if each.account_fingerprint is not None}
    if newest:
        subjects = [each.subject_id for each in newest.values()]
        requests = [each.request_id for each in newest.values()]
        await tx.execute(_ADD_TOMBSTONES, list(newest), subjects, requests, tx.now)


async def find_erased(tx: Transaction, subject_ids: Iterable[UUID]) -> set[UUID]:
    """Give those of the subjects whose erasure was completed."""
    return {row["subject_id"] for row in await tx.fetch(_FIND_ERASED, list(subject_ids))}


def as_json(outcomes: tuple[TableOutcome, ...]) -> str:
    """Write outcomes as the table holds them."""
    return _OUTCOMES.dump_json(outcomes).decode()


def _erasure(row: asyncpg.Record) -> Erasure:
    return Erasure(
        request_id=row["request_id"],
        subject_id=row["subject_id"],
        state=State(row["state"]),
        account=row["account"],
        due_on=row["due_on"],
        next_attempt_at=row["next_attempt_at"],
        traceparent=row["traceparent"],
        account_fingerprint=row["account_fingerprint"],
        planned=None if row["planned"] is None else _OUTCOMES.validate_json(row["planned"]),
        outcomes=_OUTCOMES.validate_json(row["outcomes"]),
        stuck_reason=None if row["stuck_reason"] is None else StuckReason(row["stuck_reason"]),
        stuck_store=row["stuck_store"],
        stuck_table=row["stuck_table"],
        attempts=row["attempts"],
        is_large=row["is_large"],
        erased_at=row["erased_at"],
        version=row["version"],
    )
