"""What a publisher of requests seals for request-intake alone.

HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. Text form: `hpke1.<base64url, unpadded>`
of the 32 bytes encapsulated key, ciphertext, 16 bytes tag; the HPKE AAD is empty and everything that binds the value to
its message goes into `info`.
"""

from base64 import urlsafe_b64encode
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from habeas.sealing.errors import SealBroken
from habeas.sealing.kek import KekProvider
from habeas.sealing.seal import decode_base64url

SUITE: Final = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
PREFIX: Final = "hpke1."
OVERHEAD_BYTES: Final = 32 + 16


def seal_to_intake(public_key: X25519PublicKey, plaintext: bytes, info: bytes) -> str:
    """Encrypt so that only the holder of the private key, given the same `info`, can read; the publisher can not."""
    return PREFIX + urlsafe_b64encode(SUITE.encrypt(plaintext, public_key, info)).rstrip(b"=").decode("ascii")


def open_from_publisher(private_key: X25519PrivateKey, sealed: str, info: bytes) -> bytes:
    """Return the bytes; SealBroken when anything was altered, or sealed to another key or for another `info`."""
    if not sealed.startswith(PREFIX):
        raise SealBroken("not a text sealed to the intake")
    body = decode_base64url(sealed[len(PREFIX) :])
    if len(body) < OVERHEAD_BYTES:
        raise SealBroken("the text sealed to the intake is too short")
    try:
        return SUITE.decrypt(body, private_key, info)
    except (InvalidTag, ValueError):
        raise SealBroken("the text sealed to the intake does not open") from None


def intake_private_key(kek: KekProvider) -> X25519PrivateKey:
    """Derive the fleet's intake key from the key ring; the same for ever for the same ring."""
    return X25519PrivateKey.from_private_bytes(kek.derive("intake box"))


def public_key_text(public_key: X25519PublicKey) -> str:
    """Base64url of the 32 bytes, as handed to publishers."""
    return urlsafe_b64encode(public_key.public_bytes_raw()).rstrip(b"=").decode("ascii")


def public_key_of(text: str) -> X25519PublicKey:
    """Undo `public_key_text`; SealBroken when it is not 32 bytes in canonical base64url."""
    try:
        return X25519PublicKey.from_public_bytes(decode_base64url(text))
    except ValueError:
        raise SealBroken("not an X25519 public key") from None
