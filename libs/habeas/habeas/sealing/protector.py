"""Seal message bytes at rest, as the inbox stores them: fleet-wide key, no subject known yet.

Form: version byte 1, 16 bytes salt, 12 bytes nonce, ciphertext, 16 bytes tag (AES-256-GCM). Each process draws a
salt at its start and a new one after 2^30 messages, and derives a key from it, so that the limit of 2^32 random nonces
per key (NIST SP 800-38D §8.3) is never near.
"""

import hmac
import os
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from typing_extensions import override

from habeas.sealing.errors import SealBroken
from habeas.sealing.kek import KekProvider
from habeas.sealing.keys import KEY_BYTES
from habeas.sealing.seal import NONCE_BYTES, TAG_BYTES

VERSION: Final = b"\x01"
SALT_BYTES: Final = 16
MESSAGES_PER_SALT_MAX: Final = 2**30
SALTS_KNOWN_MAX: Final = 256
HEAD_BYTES: Final = len(VERSION) + SALT_BYTES + NONCE_BYTES


class Protector:
    """Seals and opens raw bytes; what it sealed opens in every process that has the same key ring."""

    def __init__(self, kek: KekProvider) -> None:
        """Derive the keys once."""
        self._root = kek.derive("message protection")
        self._fingerprint_key = kek.derive("message fingerprint")
        self._cipher_of = lru_cache(maxsize=SALTS_KNOWN_MAX)(self._derive)
        self._left = 0
        self._renew()

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt; `aad` names what the bytes are (for example topic and position) and must be the same at opening."""
        if not self._left:
            self._renew()
        self._left -= 1
        nonce = os.urandom(NONCE_BYTES)
        return self._head + nonce + self._cipher.encrypt(nonce, plaintext, aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Return the bytes; SealBroken when anything was altered, cut or belongs to other `aad`."""
        if len(sealed) < HEAD_BYTES + TAG_BYTES or sealed[:1] != VERSION:
            raise SealBroken("not protected message bytes")
        cipher = self._cipher_of(bytes(sealed[1 : 1 + SALT_BYTES]))
        try:
            return cipher.decrypt(sealed[1 + SALT_BYTES : HEAD_BYTES], sealed[HEAD_BYTES:], aad)
        except InvalidTag:
            raise SealBroken("protected message bytes do not open") from None

    def fingerprint(self, value: bytes) -> bytes:
        """32 bytes (HMAC-SHA256), equal for equal bytes only: tells a repeated message from a changed one unopened."""
        return hmac.digest(self._fingerprint_key, value, "sha256")

    @override
    def __repr__(self) -> str:
        """Hide the keys."""
        return "<Protector, keys hidden>"

    def _renew(self) -> None:
        salt = os.urandom(SALT_BYTES)
        self._head = VERSION + salt
        self._cipher = self._derive(salt)
        self._left = MESSAGES_PER_SALT_MAX

    def _derive(self, salt: bytes) -> AESGCM:
        return AESGCM(HKDF(hashes.SHA256(), KEY_BYTES, salt=salt, info=b"habeas message protection").derive(self._root))
