"""Build a log directory as the ledger publishes it, from facts that are made up."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from habeas.auditlog.checkpoint import Checkpoint, sign_checkpoint
from habeas.auditlog.notes import Signer
from habeas.auditlog.publish import write_checkpoint, write_tiles
from habeas.auditlog.tiles import TilePath, encode_bundle, path_of
from habeas.auditlog.tree import TILE_WIDTH, Frontier, hash_leaves
from habeas.contracts.audit import (
    GENESIS,
    Action,
    AuditFact,
    AuditOutcome,
    CommitmentLabel,
    Producer,
    encode_entry,
    encode_fact,
    entry_hash,
)

ORIGIN = "audit.habeas.example/log"
SIGNER = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
START = datetime(2026, 11, 24, 9, 12, 33, 123_000, tzinfo=UTC)
FACTS = (
    AuditFact(Action.REQUEST_ACCEPTED, UUID(int=7), "ab" * 32, AuditOutcome.ERASURE),
    AuditFact(
        Action.ERASURE_COMPLETED, UUID(int=7), "ab" * 32, AuditOutcome.DONE, 21, {CommitmentLabel.OUTCOME: "cd" * 32}
    ),
    AuditFact(Action.SWEEP_COMPLETED, count=100_000),
)


@dataclass
class Producers:
    """Makes entries as relays do: each producer's gapless and linked, in turns."""

    seqs: dict[Producer, int] = field(default_factory=dict)
    hashes: dict[Producer, str] = field(default_factory=dict)
    made: int = 0

    def entries(self, count: int) -> Iterator[bytes]:
        """Go on with that many entries."""
        producers = list(Producer)
        for _ in range(count):
            producer = producers[self.made % len(producers)]
            tail = encode_fact(FACTS[self.made % len(FACTS)], START + timedelta(milliseconds=self.made))
            yield self.entry(producer, tail)

    def entry(self, producer: Producer, tail: str, epoch: int = 1) -> bytes:
        """Make one entry of one producer."""
        seq = self.seqs[producer] = self.seqs.get(producer, 0) + 1
        line = encode_entry(producer, epoch, seq, self.hashes.get(producer, GENESIS), tail)
        self.hashes[producer] = entry_hash(line)
        self.made += 1
        return line


@dataclass
class LogWriter:
    """Publishes batch after batch into a directory, keeping partial tiles of every size it was signed at."""

    directory: Path
    signer: Signer = SIGNER
    frontier: Frontier = field(default_factory=Frontier.empty)
    pending: list[bytes] = field(default_factory=list)  # entries of the bundle that is not full

    def append(self, entries: Sequence[bytes]) -> bytes:
        """Add a batch, sign, and return the checkpoint."""
        first = self.frontier.size // TILE_WIDTH
        self.frontier, made = self.frontier.append(hash_leaves(entries))
        self.pending += entries
        files = [(path_of(tile), tile.hashes) for tile in [*made, *self.frontier.partial_tiles()]]
        while self.pending:
            bundle = self.pending[:TILE_WIDTH]
            files.append((TilePath(None, first, len(bundle)), encode_bundle(bundle)))
            if len(bundle) < TILE_WIDTH:
                break
            del self.pending[:TILE_WIDTH]
            first += 1
        write_tiles(self.directory, files)
        note = sign_checkpoint(
            Checkpoint(self.signer.verifier.name, self.frontier.size, self.frontier.root()), self.signer
        )
        write_checkpoint(self.directory, note)
        return note
