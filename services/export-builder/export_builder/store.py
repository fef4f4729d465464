"""Every SQL statement of export-builder."""

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

import asyncpg
from pydantic import TypeAdapter

from export_builder.lifecycle import Export, State
from habeas.chassis.database import Transaction
from habeas.contracts.outcomes import ExportedTable
from habeas.contracts.vocabulary import Right, StuckReason

_TABLES: Final = TypeAdapter(tuple[ExportedTable, ...])

# Attempts go on being counted: each writes a file of its own, and all of them go with the export.
_ADD_EXPORTS: Final = """
    INSERT INTO export_builder.exports AS e (export_id, request_id, subject_id, dsr_right, state, account, due_on, next_attempt_at,
                                        traceparent)
    SELECT n.*
      FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::date[], $8::timestamptz[], $9::text[])
           AS n
    ON CONFLICT (request_id) DO UPDATE
       SET subject_id = EXCLUDED.subject_id, dsr_right = EXCLUDED.dsr_right, state = EXCLUDED.state, account = EXCLUDED.account,
           artefact_key = NULL, artefact_bytes = 0, artefact_sha256 = NULL, exported = '[]', due_on = EXCLUDED.due_on, expires_on = NULL,
           stuck_reason = NULL, stuck_store = NULL, stuck_table = NULL, next_attempt_at = EXCLUDED.next_attempt_at,
           traceparent = EXCLUDED.traceparent, completed_at = NULL, version = e.version + 1
     WHERE e.subject_id <> EXCLUDED.subject_id
    RETURNING request_id
"""

_EXPORT_COLUMNS: Final = """
    SELECT export_id, request_id, subject_id, dsr_right, state, account, artefact_key, artefact_bytes, artefact_sha256,
           exported::text, due_on, expires_on, stuck_reason, stuck_store, stuck_table, attempts, is_large, next_attempt_at, traceparent,
           completed_at, version
      FROM export_builder.exports
"""

_LOCK_DUE: Final = (
    _EXPORT_COLUMNS
    + """
     WHERE state IN ('ready', 'building', 'stuck') AND NOT is_large AND next_attempt_at <= $1
     ORDER BY next_attempt_at, request_id
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

_LOCK_DUE_LARGE: Final = (
    _EXPORT_COLUMNS
    + """
     WHERE state IN ('ready', 'building', 'stuck') AND is_large AND next_attempt_at <= $1
     ORDER BY next_attempt_at, request_id
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

FIND_NEXT_DUE: Final = """
    SELECT min(next_attempt_at) FROM export_builder.exports WHERE state IN ('ready', 'building', 'stuck') AND NOT is_large
"""

FIND_NEXT_DUE_LARGE: Final = """
    SELECT min(next_attempt_at) FROM export_builder.exports WHERE state IN ('ready', 'building', 'stuck') AND is_large
"""

FIND_NEXT_WITHDRAWING: Final = "SELECT min(next_attempt_at) FROM export_builder.exports WHERE state = 'withdrawing'"

KEEP_ATTEMPTS: Final = """
    UPDATE export_builder.exports AS e SET next_attempt_at = $1
      FROM unnest($2::uuid[], $3::bigint[]) AS n (export_id, version)
     WHERE e.export_id = n.export_id AND e.version = n.version
"""

_LOCK_EXPORTS: Final = _EXPORT_COLUMNS + " WHERE export_id = ANY($1::uuid[]) ORDER BY request_id FOR UPDATE"

_LOCK_OF_REQUESTS: Final = _EXPORT_COLUMNS + " WHERE request_id = ANY($1::uuid[]) ORDER BY request_id FOR UPDATE"

# In whatever state: one that is just being finished is waited for, and is finished then.
_LOCK_OF_SUBJECTS: Final = _EXPORT_COLUMNS + " WHERE subject_id = ANY($1::uuid[]) ORDER BY request_id FOR UPDATE"

_LOCK_EXPIRED: Final = (
    _EXPORT_COLUMNS
    + " WHERE state = 'completed' AND expires_on < $1 ORDER BY expires_on LIMIT $2 FOR UPDATE SKIP LOCKED"
)

_LOCK_WITHDRAWING: Final = (
    _EXPORT_COLUMNS
    + """
     WHERE state = 'withdrawing' AND next_attempt_at <= $1
     ORDER BY next_attempt_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

_SAVE_EXPORTS: Final = """
    UPDATE export_builder.exports AS e
       SET state = n.state, account = n.account, artefact_key = n.artefact_key, artefact_bytes = n.artefact_bytes,
           artefact_sha256 = n.artefact_sha256, exported = n.exported::jsonb, expires_on = n.expires_on,
           stuck_reason = n.stuck_reason, stuck_store = n.stuck_store, stuck_table = n.stuck_table, attempts = n.attempts,
           is_large = n.is_large, next_attempt_at = n.next_attempt_at, completed_at = n.completed_at, version = e.version + 1
      FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::date[],
                  $10::text[], $11::text[], $12::text[], $13::integer[], $14::boolean[], $15::timestamptz[], $16::timestamptz[])
           AS n (export_id, version, state, account, artefact_key, artefact_bytes, artefact_sha256, exported, expires_on,
                 stuck_reason, stuck_store, stuck_table, attempts, is_large, next_attempt_at, completed_at)
     WHERE e.export_id = n.export_id AND e.version = n.version
"""

_ADD_ERASED: Final = """
    INSERT INTO export_builder.erased_subjects (subject_id, erased_at)
    SELECT n.subject_id, $2 FROM unnest($1::uuid[]) AS n (subject_id)
    ON CONFLICT (subject_id) DO NOTHING
"""

_FIND_ERASED: Final = "SELECT subject_id FROM export_builder.erased_subjects WHERE subject_id = ANY($1::uuid[])"

# Whoever begins an export gives it a reason before it was begun so often without an end; should one have none, that is told.
COUNT_STUCK: Final = """
    SELECT 'export' AS work, coalesce(stuck_reason, 'unexplained') AS reason, count(*) AS rows, NULL::timestamptz AS oldest_at
      FROM export_builder.exports
     WHERE state IN ('ready', 'building', 'stuck', 'withdrawing')
       AND (stuck_reason IS NOT NULL OR (attempts > 3 AND state <> 'withdrawing'))
     GROUP BY coalesce(stuck_reason, 'unexplained')
"""


async def add_exports(tx: Transaction, exports: Sequence[Export]) -> set[UUID]:
    """Insert new exports in one statement, anew those that are known under another subject; return the request ids of both."""
    rows = [
        (
            each.export_id,
            each.request_id,
            each.subject_id,
            each.right,
            each.state,
            each.account,
            each.due_on,
            each.next_attempt_at,
            each.traceparent,
        )
        for each in exports
    ]
    if not rows:
        return set()
    added = await tx.fetch(_ADD_EXPORTS, *map(list, zip(*rows, strict=True)))
    return {row["request_id"] for row in added}


async def lock_due(tx: Transaction, limit: int, *, large: bool) -> list[Export]:
    """Lock exports whose attempt is due, the large ones or the others, passing over those that another replica holds."""
    return [_export(row) for row in await tx.fetch(_LOCK_DUE_LARGE if large else _LOCK_DUE, tx.now, limit)]


async def lock_exports(tx: Transaction, export_ids: Iterable[UUID]) -> dict[UUID, Export]:
    """Lock the exports, in one order everywhere."""
    return {row["export_id"]: _export(row) for row in await tx.fetch(_LOCK_EXPORTS, list(export_ids))}


async def lock_of_requests(tx: Transaction, request_ids: Iterable[UUID]) -> list[Export]:
    """Lock the exports of these requests; without any nothing is asked."""
    ids = list(request_ids)
    return [_export(row) for row in await tx.fetch(_LOCK_OF_REQUESTS, ids)] if ids else []


async def lock_completed_of_subjects(tx: Transaction, subject_ids: Iterable[UUID]) -> list[Export]:
    """Lock the exports of these subjects whose artefacts exist."""
    exports = [_export(row) for row in await tx.fetch(_LOCK_OF_SUBJECTS, list(subject_ids))]
    return [each for each in exports if each.state is State.COMPLETED]


async def lock_expired(tx: Transaction, limit: int) -> list[Export]:
    """Lock exports whose artefacts were promised until before today."""
    return [_export(row) for row in await tx.fetch(_LOCK_EXPIRED, tx.now.date(), limit)]


async def lock_withdrawing(tx: Transaction, limit: int) -> list[Export]:
    """Lock exports whose artefacts are to be deleted."""
    return [_export(row) for row in await tx.fetch(_LOCK_WITHDRAWING, tx.now, limit)]


async def save_exports(tx: Transaction, exports: Sequence[Export]) -> None:
    """Write what changed in one statement; another writer since the lock is an ``Invariant``, not a retry."""
    rows = [
        (
            each.export_id,
            each.version,
            each.state,
            each.account,
            each.artefact_key,
            each.artefact_bytes,
            each.artefact_sha256,
            _TABLES.dump_json(each.exported).decode(),
            each.expires_on,
            each.stuck_reason,
            each.stuck_store,
            each.stuck_table,
            each.attempts,
            each.is_large,
            each.next_attempt_at,
            each.completed_at,
        )
        for each in exports
    ]
    if rows:
        await tx.execute_exactly(len(rows), _SAVE_EXPORTS, *map(list, zip(*rows, strict=True)))


async def add_erased(tx: Transaction, subject_ids: Iterable[UUID]) -> None:
    """Remember that nothing is held of these subjects any more; idempotent."""
    await tx.execute(_ADD_ERASED, sorted(subject_ids), tx.now)


async def find_erased(tx: Transaction, subject_ids: Iterable[UUID]) -> set[UUID]:
    """Give those of the subjects that were erased."""
    return {row["subject_id"] for row in await tx.fetch(_FIND_ERASED, list(subject_ids))}


def _export(row: asyncpg.Record) -> Export:
    return Export(
        export_id=row["export_id"],
        request_id=row["request_id"],
        subject_id=row["subject_id"],
        right=Right(row["dsr_right"]),
        state=State(row["state"]),
        account=row["account"],
        due_on=row["due_on"],
        next_attempt_at=row["next_attempt_at"],
        traceparent=row["traceparent"],
        artefact_key=row["artefact_key"],
        artefact_bytes=row["artefact_bytes"],
        artefact_sha256=row["artefact_sha256"],
        exported=_TABLES.validate_json(row["exported"]),
        expires_on=row["expires_on"],
        stuck_reason=None if row["stuck_reason"] is None else StuckReason(row["stuck_reason"]),
        stuck_store=row["stuck_store"],
        stuck_table=row["stuck_table"],
        attempts=row["attempts"],
        is_large=row["is_large"],
        completed_at=row["completed_at"],
        version=row["version"],
    )
