"""Key-encryption keys (KEK): what wraps the subjects' keys, and what everything fleet-wide is derived from.

A key ring is text, in a file or an environment variable; tokens are separated by white space:

    wrap=<base64url of 32 bytes> [wrap=<retired key> ...] derive=<base64url of 32 bytes>

The first `wrap` key wraps; the others only unwrap, until `KeyStore.rewrap` has moved every row to the first. Deriving
has a key of its own, so that rotating the wrapping key changes no fingerprint.
"""

import os
import secrets
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from habeas.sealing.errors import KekMismatch, KekMissing, SealBroken
from habeas.sealing.keys import KEY_BYTES
from habeas.sealing.seal import NONCE_BYTES, TAG_BYTES, decode_base64url

KEK_ID_BYTES: Final = 8


class KekProvider(Protocol):
    """What a key-management system has to offer."""

    @property
    def kek_id(self) -> str:
        """Name of the key that `wrap` uses; stored beside every wrapped key."""
        ...

    def wrap(self, key: bytes, aad: bytes) -> bytes:
        """Encrypt a subject's key under the current KEK; `aad` and the KEK's id are authenticated."""
        ...

    def unwrap(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """Undo `wrap`; KekMismatch when the KEK, subject or kind is another, or the bytes were altered."""
        ...

    def derive(self, purpose: str) -> bytes:
        """32 bytes for one fleet-wide purpose (HKDF-SHA256, RFC 5869); the same for ever for the same purpose."""
        ...


class KekSettings(BaseModel):
    """Where the key ring is; exactly one of `file` and `variable`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path | None = None  # text file, readable by its owner alone
    variable: str | None = None  # name of an environment variable
    create: bool = False  # make the file when it is not there; only for the demo's first start
    production: bool = True  # refuses `create`


class KeyRing:
    """A parsed key ring; the secrets do not show in `repr`."""

    __slots__ = ("_derive", "_wrap", "kek_id")

    def __init__(self, text: str) -> None:
        """Parse the text form; KekMissing when it is not one, without quoting it."""
        wrapping: list[bytes] = []
        deriving: list[bytes] = []
        for token in text.split():
            name, _, value = token.partition("=")
            secret = _secret_of(value)
            if name == "wrap":
                wrapping.append(secret)
            elif name == "derive":
                deriving.append(secret)
            else:
                raise KekMissing("the key ring has a token that is neither wrap= nor derive=")
        if not wrapping or len(deriving) != 1:
            raise KekMissing("the key ring needs at least one wrap= and exactly one derive=")
        self._wrap = {_id_of(secret): AESGCM(secret) for secret in wrapping}
        self._derive = deriving[0]
        self.kek_id = _id_of(wrapping[0])

    def wrap(self, key: bytes, aad: bytes) -> bytes:
        """Encrypt with AES-256-GCM; nonce, ciphertext, tag."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._wrap[self.kek_id].encrypt(nonce, key, _wrap_aad(self.kek_id, aad))

    def unwrap(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """Decrypt what any key of the ring wrapped; KekMismatch for everything else."""
        cipher = self._wrap.get(kek_id)
        if cipher is None:
            raise KekMismatch("a wrapped key belongs to a KEK that is not in the key ring")
        if len(wrapped) < NONCE_BYTES + TAG_BYTES:
            raise KekMismatch("a wrapped key is too short")
        try:
            return cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _wrap_aad(kek_id, aad))
        except InvalidTag:
            raise KekMismatch("a wrapped key does not unwrap: altered, or of another subject or kind") from None

    def derive(self, purpose: str) -> bytes:
        """32 bytes for one purpose."""
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=b"habeas kek\x00" + purpose.encode()).derive(
            self._derive
        )

    @override
    def __repr__(self) -> str:
        """Name the current key only."""
        return f"<{type(self).__name__} {self.kek_id}, secrets hidden>"


class FileKek(KeyRing):
    """A key ring in a file that only its owner may read."""

    __slots__ = ()

    def __init__(self, path: Path) -> None:
        """Read the file; KekMissing when it is absent, open to others, or not a key ring."""
        try:
            with path.open(encoding="ascii") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise KekMissing(f"no readable key ring in the file given ({type(error).__name__})") from None
        if mode & 0o077:
            raise KekMissing("the key ring's file is open to others than its owner; set mode 0600")
        super().__init__(text)

    @classmethod
    def create(cls, path: Path) -> "FileKek":
        """Write a new random key ring, mode 0600, unless there is one; the existing one wins, also in a race."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with open(draft, "x", encoding="ascii", opener=_open_private) as file:
            file.write(new_key_ring())
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link appears whole or not at all and never replaces: two first starts end up with one key.
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        return cls(path)


class EnvironmentKek(KeyRing):
    """A key ring in an environment variable."""

    __slots__ = ()

    def __init__(self, variable: str) -> None:
        """Read the variable; KekMissing when it is not set or not a key ring."""
        text = os.environ.get(variable)
        if not text:
            raise KekMissing(f"the environment variable {variable} holds no key ring")
        super().__init__(text)


def open_kek(settings: KekSettings) -> KekProvider:
    """Open the key ring that the settings name; KekMissing when they name none, two, or one that may not be created."""
    if settings.create and settings.production:
        raise KekMissing("a key ring is never created in production; make one with care and keep a copy offline")
    if settings.file is not None and settings.variable is None:
        return FileKek.create(settings.file) if settings.create else FileKek(settings.file)
    if settings.variable is not None and settings.file is None:
        return EnvironmentKek(settings.variable)
    raise KekMissing("the settings must name exactly one key ring: a file or an environment variable")


def new_key_ring() -> str:
    """Text of a new random key ring, with one wrapping and one deriving key."""
    wrapping, deriving = (urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).rstrip(b"=").decode() for _ in range(2))
    return f"wrap={wrapping}\nderive={deriving}\n"


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


def _secret_of(value: str) -> bytes:
    try:
        secret = decode_base64url(value)
    except SealBroken:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise KekMissing(f"a key in the key ring is not the base64url of {KEY_BYTES} bytes")
    return secret


def _id_of(secret: bytes) -> str:
    # The id is computed from the key, so a swapped key can never pass under the old name.
    return HKDF(hashes.SHA256(), KEK_ID_BYTES, salt=None, info=b"habeas kek id").derive(secret).hex()


def _wrap_aad(kek_id: str, aad: bytes) -> bytes:
    name = kek_id.encode()
    return b"habeas wrap/1" + len(name).to_bytes(2, "big") + name + aad
