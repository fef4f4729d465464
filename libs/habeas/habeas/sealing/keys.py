"""The two keys that every data subject has."""

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn
from uuid import UUID

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from typing_extensions import override

KEY_BYTES: Final = 32
REFERENCE_BYTES: Final = 32


class KeyKind(StrEnum):
    """What a subject's key is for, and so when it is destroyed."""

    DATA = "data"  # seals the person's data; destroyed at erasure
    CASE = "case"  # seals the evidence that a request was answered; destroyed when the case record expires


class SubjectKey:
    """One subject's key of one kind, ready to seal and open.

    The secret does not show in `repr`, and the key can be neither pickled nor copied, so that it reaches no log, cache
    or queue by accident.
    """

    __slots__ = ("_secret", "cipher", "context", "kind", "subject_id")

    def __init__(self, subject_id: UUID, kind: KeyKind, secret: bytes) -> None:
        """Take 32 random bytes; another length is a ValueError."""
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a subject key has {KEY_BYTES} bytes, not {len(secret)}")
        self.subject_id = subject_id
        self.kind = kind
        self.cipher = AESGCM(secret)
        self.context = context_of(subject_id, kind)
        self._secret = secret

    @classmethod
    def generate(cls, subject_id: UUID, kind: KeyKind) -> "SubjectKey":
        """Draw a new key from the operating system."""
        return cls(subject_id, kind, secrets.token_bytes(KEY_BYTES))

    def reference(self, purpose: bytes) -> bytes:
        """32 bytes that only a holder of this key can recompute or link to the subject (HKDF-SHA256, RFC 5869).

        Different purposes (for example request ids) give unlinkable references; after the key is destroyed nobody can
        tell whose they were.
        """
        info = b"habeas subject reference\x00" + purpose
        return HKDF(hashes.SHA256(), REFERENCE_BYTES, salt=None, info=info).derive(self._secret)

    def secret_for_wrapping(self) -> bytes:
        """Hand out the raw key; only a key store may ask, to wrap it by the KEK."""
        return self._secret

    @override
    def __repr__(self) -> str:
        """Name the kind only."""
        return f"<SubjectKey {self.kind.value}, secret hidden>"

    @override
    def __reduce__(self) -> NoReturn:
        """Refuse to be serialised or copied."""
        raise TypeError("a subject key can not be pickled or copied")


@dataclass(frozen=True, slots=True)
class SubjectKeys:
    """Both keys of one subject."""

    data: SubjectKey
    case: SubjectKey

    def of(self, kind: KeyKind) -> SubjectKey:
        """Return the key of the kind."""
        return self.data if kind is KeyKind.DATA else self.case


def context_of(subject_id: UUID, kind: KeyKind) -> bytes:
    """Unambiguous bytes that name a key: every variable part has its length before it."""
    name = kind.value.encode()
    return b"habeas/1" + len(name).to_bytes(2, "big") + name + subject_id.bytes
