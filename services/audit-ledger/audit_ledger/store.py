"""Every SQL statement of audit-ledger."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from audit_ledger.lifecycle import Chain, Halt, Held, Place, Reason, Refused, State
from habeas.auditlog.chains import Head
from habeas.auditlog.errors import BadTile
from habeas.auditlog.tree import HASH_BYTES, TILE_HEIGHT, TILE_WIDTH, Frontier, Tile, fold_tiles, width_at
from habeas.chassis.database import Transaction
from habeas.chassis.errors import Invariant
from habeas.contracts.audit import Producer
from habeas.contracts.pledges import parse_pledge

SEAT: Final = 0x6C65_6467_6572  # "ledger": the advisory lock of the one sequencer

TAKE_SEAT: Final = "SELECT pg_try_advisory_lock($1)"

CHECK_SEAT: Final = "SELECT true"

KEEP_SEAT: Final = "SELECT set_config('idle_session_timeout', $1, false)"

_SCHEMA: Final = "audit_ledger"

COUNT_HALTED: Final = """
    SELECT 'producer' AS work, halted_reason AS reason, count(*) AS rows, min(halted_at) AS oldest_at
      FROM audit_ledger.producers WHERE state = 'halted' GROUP BY halted_reason
"""

FIND_UNSIGNED: Final = """
    SELECT h.size > coalesce(c.size, 0) AS is_behind, c.signed_at
      FROM audit_ledger.head AS h
           LEFT JOIN (SELECT size, signed_at FROM audit_ledger.checkpoints ORDER BY size DESC LIMIT 1) AS c ON true
"""

_LOCK_HEAD: Final = "SELECT size, root, position, taken_ms FROM audit_ledger.head FOR UPDATE"

_FIND_HEAD: Final = "SELECT size, root, position, taken_ms FROM audit_ledger.head"

_MOVE_HEAD: Final = """
    UPDATE audit_ledger.head SET size = $2, root = $3, position = $4, taken_ms = $5 WHERE size = $1
"""

_MOVE_POSITION: Final = "UPDATE audit_ledger.head SET position = $1, taken_ms = NULL"

_FIND_CHAINS: Final = """
    SELECT producer, state, epoch, seq, hash, pledged, halted_offset, halted_reason, expected_seq, found_seq, halted_at
      FROM audit_ledger.producers
"""

_SAVE_CHAINS: Final = """
    INSERT INTO audit_ledger.producers
           (producer, state, epoch, seq, hash, pledged, halted_offset, halted_reason, expected_seq, found_seq, halted_at)
    SELECT n.*
      FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::text[],
                  $9::bigint[], $10::bigint[], $11::timestamptz[]) AS n
    ON CONFLICT (producer) DO UPDATE
       SET state = EXCLUDED.state, epoch = EXCLUDED.epoch, seq = EXCLUDED.seq, hash = EXCLUDED.hash,
           pledged = EXCLUDED.pledged,
           halted_offset = EXCLUDED.halted_offset, halted_reason = EXCLUDED.halted_reason, expected_seq = EXCLUDED.expected_seq,
           found_seq = EXCLUDED.found_seq, halted_at = EXCLUDED.halted_at,
           resume_new_seed = producers.resume_new_seed AND producers.halted_offset IS NOT DISTINCT FROM EXCLUDED.halted_offset,
           resume_asked_at = CASE WHEN producers.halted_offset = EXCLUDED.halted_offset THEN producers.resume_asked_at END,
           resume_told_at = CASE WHEN producers.halted_offset = EXCLUDED.halted_offset THEN producers.resume_told_at END
"""

# The LIMIT keeps the planner from a join over all leaves where it has no statistics yet: one index probe for each place.
_FIND_LEAF_HASHES_AT: Final = """
    SELECT n.producer, n.epoch, n.seq, l.leaf_hash
      FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS n (producer, epoch, seq)
     CROSS JOIN LATERAL (SELECT leaf_hash FROM audit_ledger.leaves AS l
                          WHERE l.producer = n.producer AND l.epoch = n.epoch AND l.seq = n.seq LIMIT 1) AS l
"""

_FIND_LEAF_HASHES: Final = "SELECT leaf_hash FROM audit_ledger.leaves WHERE index >= $1 AND index < $2 ORDER BY index"

_FIND_LINES: Final = "SELECT line FROM audit_ledger.leaves WHERE index >= $1 AND index < $2 ORDER BY index"

_FIND_TILES: Final = """
    SELECT tile_index, hashes FROM audit_ledger.tiles
     WHERE level = $1 AND tile_index >= $2 AND tile_index < $3 ORDER BY tile_index
"""

_FIND_HELD: Final = """
    SELECT value, pledge FROM audit_ledger.refused
     WHERE producer = $1 AND (epoch, seq) > ($2, $3)
     ORDER BY epoch, seq, refused_id
"""

_FIND_OWN: Final = "SELECT line FROM audit_ledger.audit_lines WHERE seq = ANY($1::bigint[])"

_FIND_ASKED: Final = """
    UPDATE audit_ledger.producers SET resume_told_at = $1
     WHERE state = 'halted' AND resume_asked_at IS NOT NULL AND resume_told_at IS NULL
    RETURNING halted_offset, resume_new_seed
"""

_ASK_RESUME: Final = """
    UPDATE audit_ledger.producers SET resume_asked_at = $2, resume_told_at = NULL, resume_new_seed = $3
     WHERE producer = $1 AND state = 'halted'
"""

_FIND_LAST_CHECKPOINT: Final = """
    SELECT size, root, note, signed_at FROM audit_ledger.checkpoints ORDER BY size DESC LIMIT 1
"""

# Compare and swap: it writes nothing when somebody signed since, or when the head is not as large as what is to be signed.
_ADD_CHECKPOINT: Final = """
    INSERT INTO audit_ledger.checkpoints (size, root, note, signed_at)
    SELECT $1, $2, $3, $4
     WHERE coalesce((SELECT max(size) FROM audit_ledger.checkpoints), -1) = $5
       AND EXISTS (SELECT FROM audit_ledger.head WHERE size > $1 OR (size = $1 AND root = $2))
"""

_FIND_PUBLICATION: Final = "SELECT size FROM audit_ledger.publication"

_MOVE_PUBLICATION: Final = """
    UPDATE audit_ledger.publication SET size = $1, published_at = $2 WHERE size < $1
"""

_LEAF_COLUMNS: Final = ("index", "producer", "epoch", "seq", "line", "leaf_hash")
_TILE_COLUMNS: Final = ("level", "tile_index", "hashes")
_REFUSED_COLUMNS: Final = ("topic_offset", "producer", "epoch", "seq", "reason", "value", "pledge", "refused_at")


@dataclass(frozen=True, slots=True)
class LogHead:
    """How far the log is: its entries, the root over them, and the offset of the topic to read next."""

    size: int
    root: bytes
    position: int
    taken_ms: int | None = None  # Kafka's time of the record before the position


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint of the lock store."""

    size: int
    root: bytes
    note: bytes
    signed_at: datetime


async def lock_head(tx: Transaction) -> LogHead:
    """Lock the head, so that whoever appends is alone."""
    return _head(await tx.fetchrow(_LOCK_HEAD))


async def find_head(tx: Transaction) -> LogHead:
    """Give the head as it is committed."""
    return _head(await tx.fetchrow(_FIND_HEAD))


async def move_head(tx: Transaction, size: int, head: LogHead) -> None:
    """Move the head on from ``size``. Raises ``Invariant`` when it is not there: the second fence besides the row's lock."""
    await tx.execute_exactly(1, _MOVE_HEAD, size, head.size, head.root, head.position, head.taken_ms)


async def move_position(tx: Transaction, position: int) -> None:
    """Put the position into a topic that was made anew."""
    await tx.execute_exactly(1, _MOVE_POSITION, position)


async def find_chains(tx: Transaction) -> dict[Producer, Chain]:
    """Give where every producer stands that ever wrote."""
    chains = [_chain(row) for row in await tx.fetch(_FIND_CHAINS)]
    return {chain.producer: chain for chain in chains}


async def save_chains(tx: Transaction, chains: Iterable[Chain]) -> None:
    """Write where producers stand now, in one statement; what was asked for about an earlier halt is forgotten."""
    rows = [
        (
            chain.producer,
            chain.state,
            chain.head.epoch,
            chain.head.seq,
            chain.head.hash,
            chain.pledged,
            *(
                (None,) * 5
                if (halt := chain.halt) is None
                else (halt.offset, halt.reason, halt.expected_seq, halt.found_seq, halt.at)
            ),
        )
        for chain in chains
    ]
    if rows:
        await tx.execute_exactly(len(rows), _SAVE_CHAINS, *map(list, zip(*rows, strict=True)))


async def find_known(tx: Transaction, places: Iterable[Place]) -> dict[Place, bytes | None]:
    """Give the leaf hash of each place, None where the log has no entry."""
    known: dict[Place, bytes | None] = dict.fromkeys(places)
    rows = await tx.fetch(_FIND_LEAF_HASHES_AT, *map(list, zip(*known, strict=True)))
    known.update({Place(Producer(row["producer"]), row["epoch"], row["seq"]): row["leaf_hash"] for row in rows})
    return known


async def add_leaves(
    tx: Transaction, first: int, places: Sequence[Place], lines: Sequence[bytes], leaves: bytes
) -> None:
    """Append entries from index ``first`` on."""
    hashes = [leaves[at : at + HASH_BYTES] for at in range(0, len(leaves), HASH_BYTES)]
    records = [
        (index, *place, line, digest)
        for index, (place, line, digest) in enumerate(zip(places, lines, hashes, strict=True), first)
    ]
    if records:
        await tx.copy("leaves", schema=_SCHEMA, columns=_LEAF_COLUMNS, records=records)


async def add_tiles(tx: Transaction, tiles: Sequence[Tile]) -> None:
    """Write tiles that became full."""
    if tiles:
        await tx.copy("tiles", schema=_SCHEMA, columns=_TILE_COLUMNS, records=tiles)


async def add_refused(tx: Transaction, refused: Sequence[Refused]) -> None:
    """Keep records that do not go into the log."""
    records = [
        (
            each.offset,
            each.producer,
            *((None, None) if each.place is None else each.place[1:]),
            each.reason,
            each.value,
            None if each.pledge is None else each.pledge.encode(),
            tx.now,
        )
        for each in refused
    ]
    if records:
        await tx.copy("refused", schema=_SCHEMA, columns=_REFUSED_COLUMNS, records=records)


async def find_held(tx: Transaction, chain: Chain) -> list[Held]:
    """Give what a producer sent beyond its last entry in the log, in the order of its sequence."""
    rows = await tx.fetch(_FIND_HELD, chain.producer, chain.head.epoch, chain.head.seq)
    return [Held(row["value"], parse_pledge(row["pledge"])) for row in rows]


async def find_own(tx: Transaction, seqs: Iterable[int]) -> list[bytes]:
    """Give the lines that audit-ledger itself told under these numbers."""
    return [row["line"] for row in await tx.fetch(_FIND_OWN, list(seqs))]


async def ask_resume(tx: Transaction, producer: Producer, *, new_seed: bool = False) -> bool:
    """Note that a person has looked at a halted producer and lets it go on; False when it is not halted."""
    return await tx.execute(_ASK_RESUME, producer, tx.now, new_seed) != "UPDATE 0"


async def take_asked(tx: Transaction) -> list[tuple[int, bool]]:
    """Give the offsets at which producers were halted that are to go on, once for each time it was asked for; and if with a new seed."""
    return [(row["halted_offset"], row["resume_new_seed"]) for row in await tx.fetch(_FIND_ASKED, tx.now)]


async def find_frontier(tx: Transaction, size: int) -> Frontier:
    """Give the right edge of the tree of the first ``size`` entries. Raises ``Invariant`` when leaves or tiles are missing."""
    partial: list[Tile] = []
    level = 0
    while size >> TILE_HEIGHT * level:
        width = width_at(size, level)
        number = size >> TILE_HEIGHT * (level + 1)
        first = number * TILE_WIDTH
        if width and level == 0:
            rows = await tx.fetch(_FIND_LEAF_HASHES, first, first + width)
            partial.append(Tile(0, number, b"".join([row["leaf_hash"] for row in rows])))
        elif width:
            below = await find_tiles(tx, level - 1, first, first + width)
            partial.append(Tile(level, number, b"".join([fold_tiles(tile.hashes) for tile in below])))
        level += 1
    try:
        return Frontier.of(size, partial)
    except BadTile as error:
        raise Invariant(f"leaves or tiles of the first {size} entries are missing") from error


async def find_tiles(tx: Transaction, level: int, first: int, end: int) -> list[Tile]:
    """Give the full tiles of a level from ``first`` up to ``end``."""
    return [Tile(level, row["tile_index"], row["hashes"]) for row in await tx.fetch(_FIND_TILES, level, first, end)]


async def find_lines(tx: Transaction, first: int, end: int) -> list[bytes]:
    """Give the entries from index ``first`` up to ``end``. Raises ``Invariant`` when some are missing."""
    lines = [row["line"] for row in await tx.fetch(_FIND_LINES, first, end)]
    if len(lines) != end - first:
        raise Invariant(f"entries between {first} and {end} are missing")
    return lines


async def find_last_checkpoint(tx: Transaction) -> SignedCheckpoint | None:
    """Give the largest checkpoint of the lock store."""
    row = await tx.fetchrow(_FIND_LAST_CHECKPOINT)
    return None if row is None else SignedCheckpoint(row["size"], row["root"], row["note"], row["signed_at"])


async def add_checkpoint(tx: Transaction, signed: SignedCheckpoint, after: int) -> None:
    """Put a checkpoint into the lock store, after the one of size ``after`` (-1: the first).

    Raises ``Invariant`` when another one came between, or when the committed log is not what was signed.
    """
    await tx.execute_exactly(1, _ADD_CHECKPOINT, signed.size, signed.root, signed.note, signed.signed_at, after)


async def find_publication(tx: Transaction) -> int:
    """Give the size that everybody was told about last, -1 for none."""
    return int(await tx.fetchval(_FIND_PUBLICATION))


async def move_publication(tx: Transaction, size: int) -> bool:
    """Note that everybody is told about this size; False when they were already."""
    return await tx.execute(_MOVE_PUBLICATION, size, tx.now) != "UPDATE 0"


def _head(row: asyncpg.Record | None) -> LogHead:
    if row is None:
        raise Invariant("the head of the log is gone; the log cannot be continued")
    return LogHead(row["size"], row["root"], row["position"], row["taken_ms"])


def _chain(row: asyncpg.Record) -> Chain:
    halt = None
    if row["halted_offset"] is not None:
        halt = Halt(
            row["halted_offset"], Reason(row["halted_reason"]), row["expected_seq"], row["found_seq"], row["halted_at"]
        )
    head = Head(row["epoch"], row["seq"], row["hash"])
    return Chain(Producer(row["producer"]), head, State(row["state"]), halt, row["pledged"])
