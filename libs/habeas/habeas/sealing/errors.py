"""What can go wrong with keys and sealed values.

    SealingError
    ├── KeyMissing      the subject's key was destroyed or never made
    ├── SealBroken      text or bytes that no key of ours sealed for this place
    ├── KekMissing      no key-encryption key where the settings say, or not one we can read
    └── KekMismatch     a wrapped key names, or was made by, another key-encryption key

Messages name places and counts, never a value, a key or a person.
"""


class SealingError(Exception):
    """Base of every error of this package; never means that something may be read in clear."""


class KeyMissing(SealingError):
    """A subject's key is not there: destroyed at erasure, or never made."""


class SealBroken(SealingError):
    """Sealed data was altered, cut, moved to another place, or sealed under another key."""


class KekMissing(SealingError):
    """There is no usable key-encryption key; nothing may start without one."""


class KekMismatch(SealingError):
    """A wrapped key belongs to another key-encryption key than the ones given."""
