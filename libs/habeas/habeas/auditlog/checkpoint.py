"""Checkpoints of C2SP (c2sp.org/tlog-checkpoint): what a log signs about itself."""

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from habeas.auditlog.errors import BadCheckpoint, BadNote
from habeas.auditlog.notes import Signer, Verifier, decode_base64, open_note, sign_note
from habeas.auditlog.tree import HASH_BYTES

SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's name, its number of entries, and the root over them."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The note text: origin, size, root and extensions, a line each."""
        lines = (self.origin, str(self.size), b64encode(self.root).decode("ascii"), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


def sign_checkpoint(checkpoint: Checkpoint, *signers: Signer) -> bytes:
    """Sign; the first signer must be the log itself, named like its origin.

    The caller answers for the promise that a log makes: never two checkpoints that are not consistent.
    """
    if not signers or signers[0].verifier.name != checkpoint.origin:
        raise BadCheckpoint("a checkpoint is signed first by the log's own key, which has the origin as its name")
    return sign_note(parse_checkpoint(checkpoint.text).text, *signers)


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a note's text; BadCheckpoint when it is not a checkpoint."""
    match text.split("\n"):
        case [origin, size, root, *extensions, ""] if origin:
            pass
        case _:
            raise BadCheckpoint("a checkpoint has at least an origin, a size and a root, each on its line")
    if not SIZE.fullmatch(size):
        raise BadCheckpoint("the size of the checkpoint is not a decimal number without leading zeros")
    if not all(extensions):
        raise BadCheckpoint("an extension line of the checkpoint is empty")
    try:
        digest = decode_base64(root)
    except BadNote:
        digest = b""
    if len(digest) != HASH_BYTES:
        raise BadCheckpoint("the root of the checkpoint is not the base64 of 32 bytes")
    return Checkpoint(origin, int(size), digest, tuple(extensions))


def open_checkpoint(raw: bytes, log: Verifier) -> Checkpoint:
    """Verify the log's own signature and read the checkpoint.

    BadNote when the signature is absent or wrong, BadCheckpoint when the origin is not the name of the key.
    """
    checkpoint = parse_checkpoint(open_note(raw, [log]).text)
    if checkpoint.origin != log.name:
        raise BadCheckpoint("the checkpoint belongs to another log")
    return checkpoint
