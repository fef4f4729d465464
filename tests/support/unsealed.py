"""A service without sealing, for the control of the canary: what it writes is encoded as ever, and encrypted not at all.

`python unsealed.py request_intake` runs the service of that package as it is, apart from the one cipher that subject keys and
the inbox's protection seal with: here it returns what it was given, with an empty tag.
"""

import runpy
import sys
from typing import Final

from habeas.sealing import keys, protector

TAG_BYTES: Final = 16


class NoCipher:
    """AES-256-GCM's outside with nothing behind it."""

    def __init__(self, key: bytes) -> None:
        """Forget the key."""

    def encrypt(self, _nonce: bytes, data: bytes, _associated_data: bytes | None) -> bytes:
        """Give the data as it is, as long as it would be sealed."""
        return data + bytes(TAG_BYTES)

    def decrypt(self, _nonce: bytes, data: bytes, _associated_data: bytes | None) -> bytes:
        """Give back what `encrypt` was given."""
        return data[:-TAG_BYTES]


if __name__ == "__main__":
    for module in (keys, protector):
        setattr(module, "AESGCM", NoCipher)  # noqa: B010 -- a type checker must not take this for a mistake
    runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
