"""How an audit entry shows that whoever told it also told the one before: by hashes alone, without keys to hand out.

Each record of ``audit.entries.v1`` has a header ``habeas-pledge``: 64 hexadecimal digits, a dot, 64 hexadecimal digits. The first are the
entry's own secret, the second are the pledge: the SHA-256 of the secret that the producer's next entry will show. Everybody may read both;
nobody but the producer can know a secret that hashes to the pledge before the entry with it stands in the topic, where its place is taken.
"""

import hmac
import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final, NamedTuple

PLEDGE_HEADER: Final = "habeas-pledge"

_FORM: Final = re.compile(rb"([0-9a-f]{64})\.([0-9a-f]{64})")


class Pledge(NamedTuple):
    """What one entry shows, in hexadecimal: its own secret, and the hash of the next one's."""

    secret: str
    next_hash: str

    def keeps(self, pledged: str) -> bool:
        """Answer whether this entry's secret is the one that the entry before had pledged."""
        return sha256(bytes.fromhex(self.secret)).hexdigest() == pledged

    def encode(self) -> bytes:
        """Render the header's value."""
        return f"{self.secret}.{self.next_hash}".encode("ascii")


def make_pledge(seed: bytes, epoch: int, seq: int) -> Pledge:
    """Derive what the entry at this place shows from the producer's seed, the same each time."""
    after = _secret(seed, epoch, seq + 1)
    return Pledge(_secret(seed, epoch, seq).hex(), sha256(after).hexdigest())


def parse_pledge(value: bytes | None) -> Pledge | None:
    """Parse the header's value; None for anything that is not one."""
    found = _FORM.fullmatch(value) if value else None
    return Pledge(found[1].decode("ascii"), found[2].decode("ascii")) if found else None


def find_pledge(headers: Iterable[tuple[str, bytes | None]]) -> Pledge | None:
    """Parse the first header of that name, None when there is none, or none that is a pledge."""
    return parse_pledge(next((value for name, value in headers if name == PLEDGE_HEADER), None))


def _secret(seed: bytes, epoch: int, seq: int) -> bytes:
    return hmac.digest(seed, f"{epoch}/{seq}".encode("ascii"), "sha256")
