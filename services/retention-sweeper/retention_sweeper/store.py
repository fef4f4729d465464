"""Every SQL statement of retention-sweeper."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from habeas.chassis.database import Transaction
from habeas.chassis.errors import Invariant
from habeas.contracts.vocabulary import StuckReason
from retention_sweeper.lifecycle import Reached, Rule, State, Sweep, Tick

_FIND_TICKS: Final = """
    SELECT DISTINCT ON (tick_id) tick_id, as_of, scope
      FROM retention_sweeper.ticks
     WHERE tick_id = ANY($1::uuid[])
     ORDER BY tick_id, store
"""

_ADD_TICKS: Final = """
    INSERT INTO retention_sweeper.ticks (tick_id, store, as_of, scope, state, next_attempt_at, traceparent)
    SELECT n.*
      FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::timestamptz[], $7::text[]) AS n
    ON CONFLICT (tick_id, store) DO NOTHING
"""

_TICK_COLUMNS: Final = """
    SELECT tick_id, store, as_of, scope, state, stuck_reason, attempts, claims, next_attempt_at, traceparent, version
      FROM retention_sweeper.ticks
"""

_LOCK_DUE_TICKS: Final = (
    _TICK_COLUMNS
    + """
     WHERE state <> 'completed' AND next_attempt_at <= $1
     ORDER BY next_attempt_at, tick_id, store
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""
)

FIND_NEXT_TICK: Final = "SELECT min(next_attempt_at) FROM retention_sweeper.ticks WHERE state <> 'completed'"

_LOCK_TICKS: Final = """
    SELECT t.tick_id, t.store, t.as_of, t.scope, t.state, t.stuck_reason, t.attempts, t.claims, t.next_attempt_at, t.traceparent,
           t.version
      FROM retention_sweeper.ticks AS t
      JOIN unnest($1::uuid[], $2::text[]) AS n (tick_id, store) ON n.tick_id = t.tick_id AND n.store = t.store
     ORDER BY t.tick_id, t.store
       FOR UPDATE OF t
"""

_SAVE_TICKS: Final = """
    UPDATE retention_sweeper.ticks AS t
       SET state = n.state, stuck_reason = n.stuck_reason, attempts = n.attempts, claims = n.claims,
           next_attempt_at = n.next_attempt_at, version = t.version + 1
      FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::integer[], $7::integer[], $8::timestamptz[])
           AS n (tick_id, store, version, state, stuck_reason, attempts, claims, next_attempt_at)
     WHERE t.tick_id = n.tick_id AND t.store = n.store AND t.version = n.version
"""

_ADD_SWEEPS: Final = """
    INSERT INTO retention_sweeper.sweeps (tick_id, store, table_name, retention, position, as_of, state, next_attempt_at,
                                          traceparent)
    SELECT n.*
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::timestamptz[], $7::text[], $8::timestamptz[],
                  $9::text[]) AS n
"""

_SWEEP_COLUMNS: Final = """
    SELECT s.tick_id, s.store, s.table_name, s.retention, s.position, s.as_of, s.state, s.cutoff_at, s.rows, s.partitions_dropped,
           s.oldest_left_at, s.stuck_reason, s.attempts, s.claims, s.next_attempt_at, s.completed_at, s.traceparent, s.version
      FROM retention_sweeper.sweeps AS s
"""

# Children go first: a rule waits for the rules before it, except for those that are stuck. The newest tick goes first: when it is
# done, older ones ask for nothing that is left.
_LOCK_DUE_SWEEP: Final = (
    _SWEEP_COLUMNS
    + """
     WHERE s.state <> 'completed' AND s.next_attempt_at <= $1
       AND NOT EXISTS (SELECT FROM retention_sweeper.sweeps AS b
                        WHERE b.tick_id = s.tick_id AND b.store = s.store AND b.position < s.position
                          AND b.state IN ('ready', 'sweeping'))
     ORDER BY s.as_of DESC, s.tick_id, s.store, s.position
     LIMIT 1
       FOR UPDATE SKIP LOCKED
"""
)

# One that waits for a rule before it is given too: that rule is being swept meanwhile.
FIND_NEXT_SWEEP: Final = "SELECT min(next_attempt_at) FROM retention_sweeper.sweeps WHERE state <> 'completed'"

_LOCK_SWEEP: Final = (
    _SWEEP_COLUMNS
    + """
     WHERE s.tick_id = $1 AND s.store = $2 AND s.table_name = $3 AND s.retention = $4
       FOR UPDATE
"""
)

_SAVE_SWEEP: Final = """
    UPDATE retention_sweeper.sweeps
       SET as_of = $6, state = $7, cutoff_at = $8, rows = $9, partitions_dropped = $10, oldest_left_at = $11, stuck_reason = $12,
           attempts = $13, claims = $14, next_attempt_at = $15, completed_at = $16, version = version + 1
     WHERE tick_id = $1 AND store = $2 AND table_name = $3 AND retention = $4 AND version = $5
"""

KEEP_ATTEMPT: Final = """
    UPDATE retention_sweeper.sweeps SET next_attempt_at = $1
     WHERE tick_id = $2 AND store = $3 AND table_name = $4 AND retention = $5 AND version = $6
"""

_HAS_OPEN_BEFORE: Final = """
    SELECT EXISTS (SELECT FROM retention_sweeper.sweeps
                    WHERE tick_id = $1 AND store = $2 AND position < $3 AND state <> 'completed')
"""

_FIND_REACHED: Final = """
    SELECT reached_at, oldest_left_at FROM retention_sweeper.rules WHERE store = $1 AND table_name = $2 AND retention = $3
"""

_NOTE_REACHED: Final = """
    INSERT INTO retention_sweeper.rules (store, table_name, retention, reached_at, oldest_left_at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (store, table_name, retention)
       DO UPDATE SET reached_at = EXCLUDED.reached_at, oldest_left_at = EXCLUDED.oldest_left_at
           WHERE rules.reached_at <= EXCLUDED.reached_at
"""

# Whoever begins one of these gives it a reason before it was begun so often without an end; should one have none, that is told.
COUNT_STUCK: Final = """
    SELECT 'tick' AS work, coalesce(stuck_reason, 'unexplained') AS reason, count(*) AS rows, min(as_of) AS oldest_at
      FROM retention_sweeper.ticks
     WHERE state <> 'completed' AND (stuck_reason IS NOT NULL OR claims > 3)
     GROUP BY coalesce(stuck_reason, 'unexplained')
    UNION ALL
    SELECT 'sweep', coalesce(stuck_reason, 'unexplained'), count(*), min(as_of)
      FROM retention_sweeper.sweeps
     WHERE state <> 'completed' AND (stuck_reason IS NOT NULL OR claims > 3)
     GROUP BY coalesce(stuck_reason, 'unexplained')
"""

FIND_RULES: Final = "SELECT store, table_name, retention, reached_at FROM retention_sweeper.rules"


async def find_ticks(tx: Transaction, tick_ids: Sequence[object]) -> dict[UUID, tuple[datetime, str]]:
    """Give moment and scope of those ticks that are known."""
    return {row["tick_id"]: (row["as_of"], row["scope"]) for row in await tx.fetch(_FIND_TICKS, tick_ids)}


async def add_ticks(tx: Transaction, ticks: Sequence[Tick]) -> None:
    """Insert ticks in one statement; those that are known stay as they are."""
    rows = [
        (each.tick_id, each.store, each.as_of, each.scope, each.state, each.next_attempt_at, each.traceparent)
        for each in ticks
    ]
    if rows:
        await tx.execute(_ADD_TICKS, *map(list, zip(*rows, strict=True)))


async def lock_due_ticks(tx: Transaction, limit: int) -> list[Tick]:
    """Lock ticks whose plan is to be read, passing over those that another replica holds."""
    return [_tick(row) for row in await tx.fetch(_LOCK_DUE_TICKS, tx.now, limit)]


async def lock_ticks(tx: Transaction, ticks: Iterable[Tick]) -> dict[tuple[UUID, str], Tick]:
    """Lock the ticks at their stores, in one order everywhere."""
    keys = [(each.tick_id, each.store) for each in ticks]
    rows = await tx.fetch(_LOCK_TICKS, *map(list, zip(*keys, strict=True)))
    return {(row["tick_id"], row["store"]): _tick(row) for row in rows}


async def save_ticks(tx: Transaction, ticks: Sequence[Tick]) -> None:
    """Write what changed in one statement; another writer since the lock is an ``Invariant``, not a retry."""
    rows = [
        (
            each.tick_id,
            each.store,
            each.version,
            each.state,
            each.stuck_reason,
            each.attempts,
            each.claims,
            each.next_attempt_at,
        )
        for each in ticks
    ]
    if rows:
        await tx.execute_exactly(len(rows), _SAVE_TICKS, *map(list, zip(*rows, strict=True)))


async def add_sweeps(tx: Transaction, sweeps: Sequence[Sweep]) -> None:
    """Insert new sweeps in one statement."""
    rows = [
        (
            each.tick_id,
            each.store,
            each.rule.table,
            each.rule.retention,
            each.position,
            each.as_of,
            each.state,
            each.next_attempt_at,
            each.traceparent,
        )
        for each in sweeps
    ]
    if rows:
        await tx.execute_exactly(len(rows), _ADD_SWEEPS, *map(list, zip(*rows, strict=True)))


async def lock_due_sweep(tx: Transaction) -> Sweep | None:
    """Lock the sweep whose turn it is, passing over those that another replica holds."""
    row = await tx.fetchrow(_LOCK_DUE_SWEEP, tx.now)
    return None if row is None else _sweep(row)


async def lock_sweep(tx: Transaction, sweep: Sweep) -> Sweep:
    """Lock a sweep that is known to exist, and give it as it is now."""
    row = await tx.fetchrow(_LOCK_SWEEP, *_key(sweep))
    if row is None:
        message = "a sweep that was begun is gone"
        raise Invariant(message)
    return _sweep(row)


async def save_sweep(tx: Transaction, sweep: Sweep) -> None:
    """Write what changed; another writer since the lock is an ``Invariant``, not a retry."""
    await tx.execute_exactly(
        1,
        _SAVE_SWEEP,
        *_key(sweep),
        sweep.version,
        sweep.as_of,
        sweep.state,
        sweep.cutoff_at,
        sweep.rows,
        sweep.partitions_dropped,
        sweep.oldest_left_at,
        sweep.stuck_reason,
        sweep.attempts,
        sweep.claims,
        sweep.next_attempt_at,
        sweep.completed_at,
    )


async def has_open_before(tx: Transaction, sweep: Sweep) -> bool:
    """Answer whether a rule that comes before this one, of the same tick and store, is not done."""
    return bool(await tx.fetchval(_HAS_OPEN_BEFORE, sweep.tick_id, sweep.store, sweep.position))


async def find_reached(tx: Transaction, sweep: Sweep) -> Reached | None:
    """Give how far the sweep's rule has come; None before its first sweep."""
    row = await tx.fetchrow(_FIND_REACHED, sweep.store, sweep.rule.table, sweep.rule.retention)
    return None if row is None else Reached(row["reached_at"], row["oldest_left_at"])


async def note_reached(tx: Transaction, sweep: Sweep) -> None:
    """Remember that the rule has come as far as this completed sweep; a late one changes nothing."""
    await tx.execute(
        _NOTE_REACHED, sweep.store, sweep.rule.table, sweep.rule.retention, sweep.as_of, sweep.oldest_left_at
    )


def _key(sweep: Sweep) -> tuple[UUID, str, str, str]:
    return sweep.tick_id, sweep.store, sweep.rule.table, sweep.rule.retention


def _tick(row: asyncpg.Record) -> Tick:
    return Tick(
        tick_id=row["tick_id"],
        store=row["store"],
        as_of=row["as_of"],
        scope=row["scope"],
        state=State(row["state"]),
        next_attempt_at=row["next_attempt_at"],
        traceparent=row["traceparent"],
        stuck_reason=None if row["stuck_reason"] is None else StuckReason(row["stuck_reason"]),
        attempts=row["attempts"],
        claims=row["claims"],
        version=row["version"],
    )


def _sweep(row: asyncpg.Record) -> Sweep:
    return Sweep(
        tick_id=row["tick_id"],
        store=row["store"],
        rule=Rule(row["table_name"], row["retention"]),
        position=row["position"],
        as_of=row["as_of"],
        state=State(row["state"]),
        next_attempt_at=row["next_attempt_at"],
        traceparent=row["traceparent"],
        cutoff_at=row["cutoff_at"],
        rows=row["rows"],
        partitions_dropped=row["partitions_dropped"],
        oldest_left_at=row["oldest_left_at"],
        stuck_reason=None if row["stuck_reason"] is None else StuckReason(row["stuck_reason"]),
        attempts=row["attempts"],
        claims=row["claims"],
        completed_at=row["completed_at"],
        version=row["version"],
    )
