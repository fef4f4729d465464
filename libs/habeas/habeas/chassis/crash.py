"""Crash points: the named places between two steps, at which a test lets the process die.

A point stands after every step that outlives the process (a commit, a record on its way to Kafka, a committed offset, a file, the dot of
a mail) and before the next one, so that whatever a death can leave behind is what it leaves at one of these points. ``tests/crash`` proves
that the list is complete, and dies at each of them. Nothing else is in this module: every package may name a point.

Unarmed, a point costs one call and one look at a global: they stand on hot paths.
"""

import os
import re
import signal
from collections.abc import Callable
from enum import StrEnum
from typing import Final


class Point(StrEnum):
    """Every crash point. Three of them are passed by each transaction, with its name as the place."""

    TRANSACTION_DONE = "transaction-done"  # all statements ran, the outbox is not written
    OUTBOX_WRITTEN = "outbox-written"  # nothing is committed
    COMMITTED = "committed"  # nobody was told of it yet

    RELAY_FOUND = "relay-found"
    RELAY_ACKED = "relay-acked"  # not marked as published
    RELAY_MARKED = "relay-marked"
    RELAY_FACTS_FOUND = "relay-facts-found"
    RELAY_FACTS_ACKED = "relay-facts-acked"
    RELAY_FACTS_MARKED = "relay-facts-marked"
    PRODUCER_SENT = "producer-sent"  # with the client, perhaps in part on the wire

    CONSUMER_FETCHED = "consumer-fetched"
    CONSUMER_STORED = "consumer-stored"  # offsets are not committed
    OFFSETS_COMMITTED = "offsets-committed"

    WORKER_CLAIMED = "worker-claimed"
    WORKER_HANDLED = "worker-handled"  # not settled

    LANES_INHERITED = "lanes-inherited"
    LANES_RENEWED = "lanes-renewed"
    LANES_TAKEN = "lanes-taken"
    LANES_RELEASED = "lanes-released"

    FOLLOWER_FETCHED = "follower-fetched"
    FOLLOWER_TOOK = "follower-took"

    TILE_WRITTEN = "tile-written"
    CHECKPOINT_WRITTEN = "checkpoint-written"  # partial tiles that are full now are still there
    LOG_PUBLISHED = "log-published"  # nobody was told

    TRIM_MARKED = "trim-marked"
    TRIM_FOUND = "trim-found"
    TRIMMED = "trimmed"

    STORE_ERASED = "store-erased"  # read again, and not committed in the store
    STORE_COMMITTED = "store-committed"
    KEYS_KEPT = "keys-kept"  # the erasure is decided, its keys are there
    KEYS_DESTROYED = "keys-destroyed"  # not committed

    ARTEFACTS_BEGUN = "artefacts-begun"  # all rows are in, no archive is closed
    ARTEFACT_WRITTEN = "artefact-written"  # read back; nobody has its key
    ARTEFACT_DELETED = "artefact-deleted"

    PARTITION_DROPPED = "partition-dropped"
    ROWS_PURGED = "rows-purged"

    MAIL_CONNECTED = "mail-connected"
    MAIL_TEXT_SENT = "mail-text-sent"  # only the dot is missing
    MAIL_MARKED = "mail-marked"
    MAIL_DOT_WRITTEN = "mail-dot-written"
    MAIL_ANSWERED = "mail-answered"  # not settled


Hook = Callable[[Point], None]

WANTED: Final = re.compile(r"(?P<point>[a-z-]+)(/(?P<place>[a-z-]+))?(>(?P<idle>\d{1,3}))?:(?P<pass>[1-9]\d{0,8})")
"""How a death is asked for: ``point:n``, or ``point/transaction:n``, or ``point/transaction>k:n`` for the n-th pass of a transaction that
has run more than k statements (one that finds nothing to do runs few)."""

_armed: Callable[[Point, str, int], None] | None = None


def at(point: Point, place: str = "", statements: int = 0) -> None:
    """Pass a point; ``place`` is the name of the transaction that passes it, ``statements`` how many it has run."""
    if _armed is not None:
        _armed(point, place, statements)


def arm(hook: Hook | None) -> None:
    """Call ``hook`` at every pass of this process, until None is given; it may raise, best a ``BaseException`` of its own."""
    _arm(None if hook is None else lambda point, _place, _statements: hook(point))


def arm_kill(wanted: str) -> None:
    """Kill this process with SIGKILL at the pass that ``wanted`` names. Raises ``ValueError`` for what names no pass."""
    found = WANTED.fullmatch(wanted)
    if found is None:
        raise ValueError("a death is asked for as point:n or point/transaction:n")
    awaited, place, idle, left = Point(found["point"]), found["place"], int(found["idle"] or -1), int(found["pass"])

    def die(point: Point, passed: str, statements: int) -> None:
        nonlocal left
        if point is awaited and place in (None, passed) and statements > idle:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    _arm(die)


def _arm(passed: Callable[[Point, str, int], None] | None) -> None:
    global _armed  # noqa: PLW0603 -- one process, one death; a look at a global is what hot paths can bear
    _armed = passed
