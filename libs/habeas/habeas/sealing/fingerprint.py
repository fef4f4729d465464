"""Keyed fingerprints: find an equal value again without storing it."""

import hmac
from typing import Final

from typing_extensions import override

from habeas.sealing.kek import KekProvider

FINGERPRINT_BYTES: Final = 32


class Fingerprinter:
    """HMAC-SHA256 (RFC 2104) under a key derived from the KEK; without that key no guess can be tried against it."""

    __slots__ = ("_key",)

    def __init__(self, kek: KekProvider) -> None:
        """Derive the key once."""
        self._key = kek.derive("fingerprint")

    def fingerprint(self, domain: str, value: str) -> bytes:
        """32 bytes, equal for equal (domain, value) only; the caller normalises the value first."""
        name = domain.encode()
        return hmac.digest(self._key, len(name).to_bytes(4, "big") + name + value.encode(), "sha256")

    @override
    def __repr__(self) -> str:
        """Hide the key."""
        return "<Fingerprinter, key hidden>"
