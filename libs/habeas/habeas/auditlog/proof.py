"""Inclusion proofs as files (c2sp.org/tlog-proof): the receipt to keep with a case, verifiable with nothing else."""

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from habeas.auditlog.checkpoint import Checkpoint, open_checkpoint
from habeas.auditlog.errors import BadNote, BadProof
from habeas.auditlog.notes import Verifier, decode_base64
from habeas.auditlog.tree import HASH_BYTES, check_inclusion, hash_leaf

HEADER: Final = "c2sp.org/tlog-proof@v1"
INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,18})", re.ASCII)
HASHES_MAX: Final = 63


@dataclass(frozen=True, slots=True)
class Proof:
    """An entry's index, its path to the root, and the checkpoint that signs the root, as served."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""


def encode_proof(proof: Proof) -> bytes:
    """Write the file."""
    lines = [HEADER]
    if proof.extra:
        lines.append(f"extra {b64encode(proof.extra).decode('ascii')}")
    lines.append(f"index {proof.index}")
    lines += [b64encode(digest).decode("ascii") for digest in proof.hashes]
    return ("\n".join(lines) + "\n\n").encode() + proof.checkpoint


def parse_proof(raw: bytes) -> Proof:
    """Read the file without verifying anything; BadProof when it is none."""
    head, found, checkpoint = raw.partition(b"\n\n")
    try:
        header, *lines = head.decode("ascii").split("\n")
        extra = b""
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "))
        index = INDEX.fullmatch(lines.pop(0)) if lines else None
        hashes = tuple(decode_base64(line) for line in lines)
    except (UnicodeDecodeError, BadNote):
        raise BadProof("the proof is malformed") from None
    if not found or header != HEADER or index is None or len(hashes) > HASHES_MAX:
        raise BadProof("the proof is malformed")
    if any(len(digest) != HASH_BYTES for digest in hashes):
        raise BadProof("a hash of the proof has not 32 bytes")
    return Proof(int(index[1]), hashes, checkpoint, extra)


def check_proof(raw: bytes, entry: bytes, log: Verifier) -> Checkpoint:
    """Verify that the log has the entry; return the checkpoint that says so.

    BadProof, BadNote or BadCheckpoint otherwise. `extra` is not part of what is proved.
    """
    proof = parse_proof(raw)
    checkpoint = open_checkpoint(proof.checkpoint, log)
    check_inclusion(hash_leaf(entry), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    return checkpoint
