"""What can be wrong with a log, a proof or a note.

    AuditLogError
    ├── BadNote         not a signed note, or a signature of a trusted key does not verify
    ├── BadCheckpoint   a verified note that is not a checkpoint of the expected log
    ├── BadTile         a tile, bundle or path that does not follow C2SP tlog-tiles
    └── BadProof        an inclusion or consistency proof that does not lead to the root

Messages name parts and sizes, never content.
"""


class AuditLogError(Exception):
    """Base of every error of this package."""


class BadNote(AuditLogError):
    """The bytes are no signed note, or carry no valid signature of a trusted key."""


class BadCheckpoint(AuditLogError):
    """The note is not a checkpoint, or one of another log."""


class BadTile(AuditLogError):
    """A tile, an entry bundle or its path breaks the format."""


class BadProof(AuditLogError):
    """A proof does not show what it claims."""
