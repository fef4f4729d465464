"""How the entries of one producer hang together: a gapless sequence and the previous entry's hash.

Within an epoch `seq` counts 1, 2, 3, …, and `prev` is the hash of the entry before. A later epoch starts again at 1; its
first `prev` is the hash of the producer's last entry, or 64 zeros when the producer lost its head (restored from a
backup, say), which an auditor is told. Nothing of an earlier epoch may follow.
"""

from enum import StrEnum
from typing import NamedTuple

from habeas.contracts.audit import GENESIS


class Head(NamedTuple):
    """A producer's last entry: where it stands in the sequence, and its hash in hexadecimal."""

    epoch: int
    seq: int
    hash: str


class Fit(StrEnum):
    """What an entry is to its producer's sequence."""

    NEXT = "next"
    NEXT_UNLINKED = "next_unlinked"  # begins a new epoch without naming the entry before
    REPEATED = "repeated"  # the last entry once more, byte for byte
    EARLIER = "earlier"  # a place before the last entry; whether it repeats or contradicts, the log knows
    EQUIVOCATION = "equivocation"  # the last entry's place with other bytes
    GAP = "gap"
    BROKEN_LINK = "broken_link"


def fit(last: Head | None, head: Head, prev: str) -> Fit:
    """Judge an entry (its own place and hash, and the link it names) against the producer's last one."""
    if last is None:
        last = Head(0, 0, GENESIS)
    place, known = (head.epoch, head.seq), (last.epoch, last.seq)
    if place == known:
        return Fit.REPEATED if head.hash == last.hash else Fit.EQUIVOCATION
    if place < known:
        return Fit.EARLIER
    if head.epoch == last.epoch:
        return _judge_link(linked=prev == last.hash, gap=head.seq != last.seq + 1)
    if prev == GENESIS != last.hash and head.seq == 1:
        return Fit.NEXT_UNLINKED
    return _judge_link(linked=prev == last.hash, gap=head.seq != 1)


def _judge_link(*, linked: bool, gap: bool) -> Fit:
    if gap:
        return Fit.GAP
    return Fit.NEXT if linked else Fit.BROKEN_LINK
