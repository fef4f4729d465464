"""The time edge of audit-ledger: what was committed is signed, published, and then told; producers are let go on."""

from typing import Final

from audit_ledger import lifecycle, store
from audit_ledger.gateways import LogDirectory, Seat
from audit_ledger.handlers import Sequencer
from audit_ledger.store import SignedCheckpoint
from habeas.auditlog.checkpoint import Checkpoint, sign_checkpoint
from habeas.auditlog.notes import Signer
from habeas.auditlog.tiles import TilePath, encode_bundle, path_of
from habeas.auditlog.tree import TILE_HEIGHT, TILE_WIDTH, Frontier
from habeas.chassis import metrics
from habeas.chassis.database import Database, Transaction
from habeas.chassis.errors import Invariant
from habeas.chassis.gauges import show_stuck
from habeas.chassis.sweep import Swept
from habeas.contracts.audit_ledger import CheckpointSigned

_BUNDLES_MAX: Final = 64  # bundles read and written at once: some six megabytes of entries


async def publish_checkpoint(
    db: Database, sequencer: Sequencer, seat: Seat, directory: LogDirectory, signer: Signer
) -> Swept:
    """Sign the committed tree, publish it, and tell everybody; each step is done again when a crash came after it.

    The order is the promise: a root is signed after its commit, is in the lock store before it leaves the process, and is announced
    after its files are there.
    """
    tree = sequencer.frontier
    if tree is None or not seat.held:
        return Swept(0)
    async with db.transaction("sign-checkpoint") as tx:
        signed = await _sign(tx, tree, signer)
        told = await store.find_publication(tx)
    if signed.size != tree.size:
        return Swept(0)  # another replica sequences by now
    published = await directory.checkpoint()
    if published is None or published.size < signed.size:
        await _publish(db, directory, published.size if published else 0, tree, signed.note)
    elif (published.size, published.root) != (signed.size, signed.root):
        raise Invariant(f"another checkpoint than the one of {signed.size} entries is published; the log must not fork")
    if told >= signed.size:
        return Swept(0)
    async with db.transaction("tell-checkpoint") as tx:
        if await store.move_publication(tx, signed.size):
            tx.emit(_told(signer, signed))
    return Swept(1)


async def resume_producers(db: Database) -> Swept:
    """Put the word into the log for producers that a person lets go on; they go on where that entry stands in the log."""
    async with db.transaction("resume-producers") as tx:
        asked = await store.take_asked(tx)
        tx.record(*(lifecycle.tell_resumed(offset, seed_is_new=is_new) for offset, is_new in asked))
    return Swept(len(asked))


async def measure_log(db: Database) -> None:
    """Show which producers are halted, how old the last checkpoint is, and since when there are entries that no signed one holds."""
    (row,) = await db.read("measure-log", store.FIND_UNSIGNED)
    if row["signed_at"] is not None:
        metrics.AUDIT_CHECKPOINT_AGE_S.set(max(0.0, (db.clock.now() - row["signed_at"]).total_seconds()))
    is_late = row["is_behind"] and row["signed_at"] is not None
    metrics.AUDIT_UNSIGNED_AGE_S.set((db.clock.now() - row["signed_at"]).total_seconds() if is_late else 0)
    await show_stuck(db, store.COUNT_HALTED)


async def _sign(tx: Transaction, tree: Frontier, signer: Signer) -> SignedCheckpoint:
    """Give the last checkpoint of the lock store, after signing the tree if it is larger. Raises ``Invariant`` for another root."""
    last = await store.find_last_checkpoint(tx)
    root = tree.root()
    if last is not None and last.size >= tree.size:
        if last.size == tree.size and last.root != root:
            raise Invariant(f"another root was signed at {tree.size} entries; the log must not fork")
        return last
    note = sign_checkpoint(Checkpoint(signer.verifier.name, tree.size, root), signer)
    signed = SignedCheckpoint(tree.size, root, note, tx.now)
    await store.add_checkpoint(tx, signed, -1 if last is None else last.size)
    return signed


async def _publish(db: Database, directory: LogDirectory, old_size: int, tree: Frontier, note: bytes) -> None:
    """Write what the tree has beyond ``old_size``: full tiles and bundles, then the partial ones, then the checkpoint."""
    full: list[TilePath] = []
    level = 0
    while end := tree.size >> TILE_HEIGHT * (level + 1):
        for first in range(old_size >> TILE_HEIGHT * (level + 1), end, _BUNDLES_MAX):
            files = await _read_full(db, level, first, min(end, first + _BUNDLES_MAX))
            await directory.write(files)
            full += [path for path, _ in files]
        level += 1
    files = [(path_of(tile), tile.hashes) for tile in tree.partial_tiles()]
    bundles, width = divmod(tree.size, TILE_WIDTH)
    if width:
        async with db.transaction("read-entries") as tx:
            lines = await store.find_lines(tx, bundles * TILE_WIDTH, tree.size)
        files.append((TilePath(None, bundles, width), encode_bundle(lines)))
    await directory.write(files)
    await directory.finish(note, full)


async def _read_full(db: Database, level: int, first: int, end: int) -> list[tuple[TilePath, bytes]]:
    """Give full tiles of a level as files; with those of level 0 also the bundles of the entries below them."""
    async with db.transaction("read-tiles") as tx:
        tiles = await store.find_tiles(tx, level, first, end)
        lines = await store.find_lines(tx, first * TILE_WIDTH, end * TILE_WIDTH) if level == 0 else []
    if len(tiles) != end - first:
        raise Invariant(f"tiles of level {level} are missing")
    bundles = [encode_bundle(lines[at : at + TILE_WIDTH]) for at in range(0, len(lines), TILE_WIDTH)]
    return [
        *((path_of(tile), tile.hashes) for tile in tiles),
        *((TilePath(None, number), bundle) for number, bundle in enumerate(bundles, first)),
    ]


def _told(signer: Signer, signed: SignedCheckpoint) -> CheckpointSigned:
    return CheckpointSigned(
        origin=signer.verifier.name, size=signed.size, root=signed.root.hex(), signed_at=signed.signed_at
    )
