"""Rotating the KEK: a new key takes over, everything that the old ones wrapped is wrapped anew, and the old ones are retired.

The key ring says how far a rotation is, so that one that was interrupted anywhere is taken up where it was:

    wrap=OLD                    nothing under way
    wrap=OLD next=NEW           announced: every process has to know NEW before anything is wrapped by it
    wrap=NEW wrap=OLD           changing: NEW wraps; what OLD wrapped is being moved to NEW
    wrap=NEW                    done

Deriving keys are not rotated: every fingerprint depends on them.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from habeas.sealing.errors import KekMismatch
from habeas.sealing.kek import KekProvider, RingTokens, new_key
from habeas.sealing.keys import KeyKind, context_of
from habeas.sealing.store import (
    COUNT_SUBJECT_KEYS,
    LOCK_KEYS_OF_OTHER_KEKS,
    RETIRE_KEKS,
    REWRAP_SUBJECT_KEYS,
    Connection,
)

FIRST: Final = (UUID(int=0), "")


class Stage(StrEnum):
    """How far a ring's rotation is."""

    AT_REST = "at_rest"
    ANNOUNCED = "announced"
    CHANGING = "changing"


class WrappedKeys(NamedTuple):
    """A table of wrapped keys: how to read a page of what other KEKs wrapped, to write it back, and to count.

    ``lock`` gives (``subject_id``, ``kind``, ``kek_id``, ``wrapped``) of rows behind a place, in its order, locked, passing over what
    others hold: ``$1`` the current KEK, ``$2`` and ``$3`` the place, ``$4`` rows at most. ``save`` takes these four as columns;
    ``tally`` gives (``kek_id``, ``keys``).
    """

    table: str
    lock: str
    save: str
    tally: str


class Page(NamedTuple):
    """What became of one page: keys that were moved, that do not unwrap, and behind which place the next one begins; None at the end."""

    moved: int
    broken: int
    last: tuple[UUID, str] | None


SUBJECT_KEYS: Final = WrappedKeys(
    "sealing.subject_keys", LOCK_KEYS_OF_OTHER_KEKS, REWRAP_SUBJECT_KEYS, COUNT_SUBJECT_KEYS
)


def stage_of(ring: RingTokens) -> Stage:
    """Return how far the rotation of a ring is; a ring that changes finishes that before it announces anything else."""
    if len(ring.wrap) > 1:
        return Stage.CHANGING
    return Stage.AT_REST if ring.next is None else Stage.ANNOUNCED


def announce(ring: RingTokens) -> RingTokens:
    """Return the ring with a new random key that is to wrap next."""
    return ring._replace(next=new_key())


def promote(ring: RingTokens) -> RingTokens:
    """Return the ring with the announced key as the one that wraps; the others unwrap on."""
    return ring if ring.next is None else ring._replace(wrap=(ring.next, *ring.wrap), next=None)


def retire(ring: RingTokens) -> RingTokens:
    """Return the ring without the keys that only unwrap."""
    return ring._replace(wrap=ring.wrap[:1])


async def rewrap(
    conn: Connection, keys: WrappedKeys, kek: KekProvider, kek_id: str, after: tuple[UUID, str], keys_max: int
) -> Page:
    """Wrap a page of keys by the KEK of this name, which ``kek`` wraps by; two statements, inside of the caller's transaction.

    Idempotent. A key that does not unwrap stays as it is: it keeps its KEK from being retired and holds nobody else up. Rows that
    others have locked are passed over and found by the next pass. Needs UPDATE on the table, which only its owner has.
    """
    rows = await conn.fetch(keys.lock, kek_id, *after, keys_max)
    columns: tuple[list[Any], ...] = ([], [], [], [])
    for row in rows:
        context = context_of(UUID(bytes=row["subject_id"].bytes), KeyKind(row["kind"]))
        try:
            made = kek.wrap(kek.unwrap(row["kek_id"], row["wrapped"], context), context)
        except KekMismatch:
            continue
        for column, value in zip(columns, (row["subject_id"], row["kind"], *made), strict=True):
            column.append(value)
    if columns[0]:
        await conn.execute(keys.save, *columns)
    moved = len(columns[0])
    last = (rows[-1]["subject_id"], rows[-1]["kind"]) if len(rows) == keys_max else None
    return Page(moved, len(rows) - moved, last)


async def retire_keks(conn: Connection, kek_ids: Sequence[str]) -> None:
    """Let the database refuse keys that these KEKs wrap from the commit on; idempotent.

    The caller has shut writers of wrapped keys out and has seen that no key is left.
    """
    await conn.execute(RETIRE_KEKS, list(kek_ids))
