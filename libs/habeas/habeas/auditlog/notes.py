"""Signed notes of C2SP (c2sp.org/signed-note) with Ed25519 keys.

A note is UTF-8 text that ends in a newline, an empty line, and signature lines
`— <key name> <base64 of 4 bytes key id || signature>`. What is signed is the text with its last newline.
"""

import binascii
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from typing_extensions import override

from habeas.auditlog.errors import BadNote

ED25519: Final = b"\x01"  # signature type byte
KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 4
SIGNATURES_MAX: Final = 100
NOTE_BYTES_MAX: Final = 1_000_000
PRIVATE_KEY: Final = "PRIVATE+KEY+"
DASH: Final = "\u2014 "


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line, of a known or unknown key."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note; nothing about it is verified unless `open_note` returned it."""

    text: str
    signatures: tuple[Signature, ...]


class Verifier:
    """A trusted public key under its name."""

    __slots__ = ("key_id", "name", "public_key")

    def __init__(self, name: str, public_key: Ed25519PublicKey) -> None:
        """Take a key; BadNote when the name is empty or has white space or a plus sign."""
        self.name = _checked_name(name)
        self.public_key = public_key
        self.key_id = _key_id(name, public_key)

    @classmethod
    def parse(cls, vkey: str) -> "Verifier":
        """Read `<name>+<8 hex key id>+<base64 of type byte || key>`; BadNote for anything else or a wrong key id."""
        name, _, rest = vkey.partition("+")
        key_id, _, encoded = rest.partition("+")
        raw = decode_base64(encoded)
        if len(raw) != 1 + KEY_BYTES or raw[:1] != ED25519:
            raise BadNote("the verifier key is not an Ed25519 key")
        verifier = cls(name, Ed25519PublicKey.from_public_bytes(raw[1:]))
        if verifier.key_id.hex() != key_id:
            raise BadNote("the verifier key has another key id than it says")
        return verifier

    @property
    def vkey(self) -> str:
        """Text form, for policy files and other tools."""
        encoded = b64encode(ED25519 + self.public_key.public_bytes_raw()).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    def accepts(self, text: str, signature: bytes) -> bool:
        """Tell whether the signature is this key's over the text."""
        try:
            self.public_key.verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True

    @override
    def __repr__(self) -> str:
        return f"<Verifier {self.vkey}>"


def encode_private_key(name: str, seed: bytes) -> str:
    """Return a private key (32 bytes) as Go's note package writes it: `PRIVATE+KEY+<name>+<8 hex key id>+<base64 of type byte || seed>`."""
    verifier = Signer(name, Ed25519PrivateKey.from_private_bytes(seed)).verifier
    return f"{PRIVATE_KEY}{name}+{verifier.key_id.hex()}+{b64encode(ED25519 + seed).decode('ascii')}"


class Signer:
    """A private key under its name; the key does not show in `repr`."""

    __slots__ = ("_private_key", "verifier")

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.verifier = Verifier(name, private_key.public_key())

    def sign(self, text: str) -> Signature:
        """Sign the text, which must end in a newline."""
        return Signature(self.verifier.name, self.verifier.key_id, self._private_key.sign(_checked_text(text).encode()))

    @override
    def __repr__(self) -> str:
        return f"<Signer {self.verifier.name}, key hidden>"


def sign_note(text: str, *signers: Signer) -> bytes:
    """Make a note with one signature line per signer; BadNote when the text can not stand in a note."""
    return encode_note(Note(_checked_text(text), tuple(signer.sign(text) for signer in signers)))


def encode_note(note: Note) -> bytes:
    """Write a note down; the counterpart of `parse_note`."""
    lines = [f"{DASH}{s.name} {b64encode(s.key_id + s.signature).decode('ascii')}\n" for s in note.signatures]
    return (note.text + "\n" + "".join(lines)).encode()


def parse_note(raw: bytes) -> Note:
    """Split text and signatures without verifying any; BadNote when the bytes are no signed note."""
    if len(raw) > NOTE_BYTES_MAX:
        raise BadNote("the note is too long")
    try:
        whole = raw.decode()
    except UnicodeDecodeError:
        raise BadNote("the note is not UTF-8") from None
    head, found, tail = whole.rpartition("\n\n")
    if not found or not tail.endswith("\n"):
        raise BadNote("the note has no signature lines")
    lines = tail[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise BadNote("the note has too many signatures")
    return Note(_checked_text(head + "\n"), tuple(_parse_signature(line) for line in lines))


def open_note(raw: bytes, verifiers: Iterable[Verifier]) -> Note:
    """Verify a note; the note returned keeps only verified signatures, one per key.

    BadNote when a signature of a trusted key does not verify, or none of them is there. Unknown keys are ignored.
    """
    note = parse_note(raw)
    trusted = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    verified: dict[tuple[str, bytes], Signature] = {}
    for signature in note.signatures:
        verifier = trusted.get((signature.name, signature.key_id))
        if verifier is None:
            continue
        if not verifier.accepts(note.text, signature.signature):
            raise BadNote(f"the signature of {verifier.name} does not verify")
        verified[signature.name, signature.key_id] = signature
    if not verified:
        raise BadNote("the note has no signature of a trusted key")
    return Note(note.text, tuple(verified.values()))


def decode_base64(text: str) -> bytes:
    """Decode padded standard base64 (RFC 4648 §4) in its one canonical spelling; BadNote for anything else."""
    try:
        raw = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadNote("not base64") from None
    if b64encode(raw).decode("ascii") != text:
        raise BadNote("not canonical base64")
    return raw


def _parse_signature(line: str) -> Signature:
    name, found, encoded = line.removeprefix(DASH).partition(" ")
    if not line.startswith(DASH) or not found:
        raise BadNote("a signature line of the note is malformed")
    raw = decode_base64(encoded)
    if len(raw) <= KEY_ID_BYTES:
        raise BadNote("a signature of the note is too short")
    return Signature(_checked_name(name), raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:])


def _key_id(name: str, public_key: Ed25519PublicKey) -> bytes:
    return sha256(name.encode() + b"\n" + ED25519 + public_key.public_bytes_raw()).digest()[:KEY_ID_BYTES]


def _checked_name(name: str) -> str:
    if not name or "+" in name or any(character.isspace() for character in name):
        raise BadNote("a key name is not empty and has neither white space nor a plus sign")
    return name


def _checked_text(text: str) -> str:
    if not text.endswith("\n") or any(unicodedata.category(c) == "Cc" and c != "\n" for c in text):
        raise BadNote("the text of a note ends in a newline and has no other control characters")
    return text
