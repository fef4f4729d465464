"""Key-encryption keys (KEK): what wraps the subjects' keys, and what everything fleet-wide is derived from.

A key ring is text, in a file or an environment variable; tokens are separated by white space:

    wrap=<base64url of 32 bytes> [wrap=<key on its way out> ...] [next=<key to come>] derive=<base64url of 32 bytes>

The first `wrap` key wraps; the others only unwrap, until everything that they wrapped is wrapped by the first
(`rotation`). A `next` key only unwraps too: it is to become the first `wrap` once every process knows it. Deriving has a
key of its own, so that rotating the wrapping key changes no fingerprint.
"""

import os
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from habeas.sealing.errors import KekMismatch, KekMissing, SealBroken
from habeas.sealing.keys import KEY_BYTES
from habeas.sealing.private_file import open_private
from habeas.sealing.seal import NONCE_BYTES, TAG_BYTES, decode_base64url

KEK_ID_BYTES: Final = 8


class Wrapped(NamedTuple):
    """A wrapped key and the KEK that wrapped it, of one moment: the current KEK may be another one a moment later."""

    kek_id: str
    wrapped: bytes


class KekProvider(Protocol):
    """What a key-management system has to offer."""

    def wrap(self, key: bytes, aad: bytes) -> Wrapped:
        """Encrypt a subject's key under the current KEK; `aad` and the KEK's id are authenticated, and both are stored."""
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


class RingTokens(NamedTuple):
    """The tokens of a key ring, as they are spelled."""

    wrap: tuple[str, ...]
    next: str | None
    derive: str

    @classmethod
    def parse(cls, text: str) -> "RingTokens":
        """Read the text form; KekMissing when it is not one, without quoting it."""
        found: dict[str, list[str]] = {"wrap": [], "next": [], "derive": []}
        for token in text.split():
            name, _, value = token.partition("=")
            if name not in found:
                raise KekMissing("the key ring has a token that is none of wrap=, next= and derive=")
            _secret_of(value)
            found[name].append(value)
        if not found["wrap"] or len(found["derive"]) != 1 or len(found["next"]) > 1:
            raise KekMissing("the key ring needs at least one wrap=, at most one next= and exactly one derive=")
        return cls(tuple(found["wrap"]), next(iter(found["next"]), None), found["derive"][0])

    def text(self) -> str:
        """Return the text form, a token a line."""
        lines = [*(f"wrap={key}" for key in self.wrap), *([f"next={self.next}"] if self.next else ())]
        return "\n".join([*lines, f"derive={self.derive}", ""])


class _Keys(NamedTuple):
    """What a ring works with; one object, so that a ring that is read anew changes at once or not at all."""

    kek_id: str
    ciphers: Mapping[str, AESGCM]
    derive: bytes


class KeyRing:
    """A parsed key ring; the secrets do not show in `repr`."""

    __slots__ = ("_keys",)

    def __init__(self, text: str) -> None:
        """Parse the text form; KekMissing when it is not one, without quoting it."""
        self._keys = _keys_of(text)

    @property
    def kek_id(self) -> str:
        """Name of the key that wraps."""
        return self._keys.kek_id

    @property
    def kek_ids(self) -> tuple[str, ...]:
        """Names of all keys that unwrap, the one that wraps first."""
        return tuple(self._keys.ciphers)

    def wrap(self, key: bytes, aad: bytes) -> Wrapped:
        """Encrypt with AES-256-GCM; nonce, ciphertext, tag."""
        kek_id, ciphers, _ = self._keys
        nonce = os.urandom(NONCE_BYTES)
        return Wrapped(kek_id, nonce + ciphers[kek_id].encrypt(nonce, key, _wrap_aad(kek_id, aad)))

    def unwrap(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """Decrypt what any key of the ring wrapped; KekMismatch for everything else."""
        cipher = self._keys.ciphers.get(kek_id)
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
            self._keys.derive
        )

    @override
    def __repr__(self) -> str:
        """Name the current key only."""
        return f"<{type(self).__name__} {self.kek_id}, secrets hidden>"


class FileKek(KeyRing):
    """A key ring in a file that only its owner may read.

    The file is looked at before every use: a rotation reaches all processes that share it without a restart. One that is
    gone or cannot be read meanwhile changes nothing for a process that runs; the next start needs it.
    """

    __slots__ = ("_path", "_read_mark")

    def __init__(self, path: Path) -> None:
        """Read the file; KekMissing when it is absent, open to others, or not a key ring."""
        text, self._read_mark = _read(path)
        self._path = path
        super().__init__(text)

    @override
    def wrap(self, key: bytes, aad: bytes) -> Wrapped:
        """Encrypt under the key that the file names first now."""
        self._look_again()
        return super().wrap(key, aad)

    @override
    def unwrap(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """Decrypt what any key that the file names now wrapped."""
        self._look_again()
        return super().unwrap(kek_id, wrapped, aad)

    def _look_again(self) -> None:
        """Take over a ring that was rotated. KekMismatch for one that derives otherwise: nothing would be found again under it."""
        try:
            if _mark(self._path.stat()) == self._read_mark:
                return
            text, mark = _read(self._path)
            keys = _keys_of(text)
        except (OSError, KekMissing):
            return
        if keys.derive != self._keys.derive:
            raise KekMismatch("the key ring's file holds another derive= now: it is not the ring of this fleet")
        self._keys, self._read_mark = keys, mark

    @classmethod
    def create(cls, path: Path) -> "FileKek":
        """Write a new random key ring, mode 0600, unless there is one; the existing one wins, also in a race."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = _draft(path, new_key_ring())
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


def new_key() -> str:
    """Return the text of a new random key, as key rings spell it."""
    return urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).rstrip(b"=").decode()


def new_key_ring() -> str:
    """Text of a new random key ring, with one wrapping and one deriving key."""
    return RingTokens((new_key(),), None, new_key()).text()


def read_ring(path: Path) -> str:
    """Return the text of a ring's file; KekMissing when it is absent or open to others."""
    return _read(path)[0]


def replace_ring(path: Path, text: str) -> None:
    """Put another text into a ring's file, whole or not at all, for the same owner alone. OSError when that is not possible."""
    before = path.stat()
    draft = _draft(path, text)
    try:
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(draft, before.st_uid, before.st_gid)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The rename has to outlive a power failure before anything is wrapped by a key of the new text.
        os.fsync(directory)
    finally:
        os.close(directory)


def _draft(path: Path, text: str) -> Path:
    """Write the text beside the path, mode 0600, on the disk."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with open(draft, "x", encoding="ascii", opener=open_private) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _read(path: Path) -> tuple[str, tuple[int, ...]]:
    """Return the text of a ring's file, and what tells it from the next one."""
    try:
        with path.open(encoding="ascii") as file:
            status = os.fstat(file.fileno())
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise KekMissing(f"no readable key ring in the file given ({type(error).__name__})") from None
    if status.st_mode & 0o077:
        raise KekMissing("the key ring's file is open to others than its owner; set mode 0600")
    return text, _mark(status)


def _mark(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode


def _keys_of(text: str) -> _Keys:
    tokens = RingTokens.parse(text)
    order = (*tokens.wrap, *([tokens.next] if tokens.next else ()))
    ciphers = {kek_id_of(key): AESGCM(_secret_of(key)) for key in order}
    return _Keys(kek_id_of(tokens.wrap[0]), ciphers, _secret_of(tokens.derive))


def kek_id_of(key: str) -> str:
    """Return the name of a wrapping key; it is computed from the key, so a swapped key never passes under the old name."""
    return HKDF(hashes.SHA256(), KEK_ID_BYTES, salt=None, info=b"habeas kek id").derive(_secret_of(key)).hex()


def _secret_of(value: str) -> bytes:
    try:
        secret = decode_base64url(value)
    except SealBroken:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise KekMissing(f"a key in the key ring is not the base64url of {KEY_BYTES} bytes")
    return secret


def _wrap_aad(kek_id: str, aad: bytes) -> bytes:
    name = kek_id.encode()
    return b"habeas wrap/1" + len(name).to_bytes(2, "big") + name + aad
