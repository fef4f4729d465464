"""Seal a value under a subject's key for exactly one logical place.

Text form: `s1.<data|case>.<base64url, unpadded>` of 12 bytes nonce, ciphertext, 16 bytes tag (AES-256-GCM, NIST SP
800-38D). The place is authenticated, not stored: a value moved to another row, field or subject does not open.
"""

import binascii
import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from cryptography.exceptions import InvalidTag

from habeas.sealing.errors import SealBroken
from habeas.sealing.keys import KeyKind, SubjectKey

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
PREFIXES: Final = {kind: f"s1.{kind.value}." for kind in KeyKind}


class Place(NamedTuple):
    """Where a value belongs, whatever store or message carries it: an entity's row and the name of its field."""

    entity: str
    row: UUID
    name: str


def seal(key: SubjectKey, place: Place, plaintext: bytes) -> str:
    """Encrypt the bytes for this place; each call draws a new nonce, so equal values look different."""
    nonce = os.urandom(NONCE_BYTES)
    sealed = nonce + key.cipher.encrypt(nonce, plaintext, _associated_data(key, place))
    return PREFIXES[key.kind] + urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")


def open_sealed(key: SubjectKey, place: Place, sealed: str) -> bytes:
    """Return the bytes that were sealed with this key for this place.

    SealBroken when as much as one bit of the text, the key's kind, the subject or the place differs.
    """
    prefix = PREFIXES[key.kind]
    if not sealed.startswith(prefix):
        raise SealBroken(f"not a text sealed under a {key.kind.value} key")
    body = decode_base64url(sealed[len(prefix) :])
    if len(body) < NONCE_BYTES + TAG_BYTES:
        raise SealBroken("the sealed text is too short")
    try:
        return key.cipher.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], _associated_data(key, place))
    except InvalidTag:
        raise SealBroken(f"the sealed text does not open at {place.entity}.{place.name}") from None


def seal_text(key: SubjectKey, place: Place, text: str) -> str:
    """Seal a text field as UTF-8."""
    return seal(key, place, text.encode())


def open_text(key: SubjectKey, place: Place, sealed: str) -> str:
    """Open what `seal_text` sealed."""
    return open_sealed(key, place, sealed).decode()


def try_open_text(key: SubjectKey, place: Place, sealed: str) -> str | None:
    """Open as `open_text` does; None instead of SealBroken, for one of many that must hold nobody else up."""
    try:
        return open_text(key, place, sealed)
    except SealBroken:
        return None


def seal_json(key: SubjectKey, place: Place, value: Mapping[str, Any]) -> str:
    """Seal a JSON object, keys sorted, without spaces."""
    return seal(key, place, json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())


def open_json(key: SubjectKey, place: Place, sealed: str) -> dict[str, Any]:
    """Open what `seal_json` sealed; SealBroken when it holds no JSON object."""
    try:
        value = json.loads(open_sealed(key, place, sealed))
    except ValueError:
        value = None  # the text of the error would quote the value
    if not isinstance(value, dict):
        raise SealBroken(f"no JSON object was sealed at {place.entity}.{place.name}")
    return value


def decode_base64url(text: str) -> bytes:
    """Decode unpadded base64url (RFC 4648 §5) in its one canonical spelling; anything else is SealBroken."""
    try:
        body = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        body = b""
    # Python skips foreign characters and ignores spare bits: many spellings would open, and only the canonical one may.
    if urlsafe_b64encode(body).rstrip(b"=") != text.encode("utf-8", "surrogatepass"):
        raise SealBroken("not canonical base64url")
    return body


def _associated_data(key: SubjectKey, place: Place) -> bytes:
    return key.context + _prefixed(place.entity) + place.row.bytes + _prefixed(place.name)


@lru_cache(maxsize=4096)
def _prefixed(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw
