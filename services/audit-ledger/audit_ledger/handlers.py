"""The message edge of audit-ledger: records of the topic become entries of the log, in their order and once each."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

from aiokafka import ConsumerRecord

from audit_ledger import lifecycle, store
from audit_ledger.errors import SeatLost
from audit_ledger.gateways import LogDirectory, Seat
from audit_ledger.lifecycle import Judgement, Record
from audit_ledger.store import LogHead
from habeas.auditlog.tree import Frontier
from habeas.chassis import log, metrics
from habeas.chassis.database import Database, Transaction
from habeas.chassis.errors import Invariant
from habeas.chassis.redaction import Name
from habeas.chassis.settings import LogLevel
from habeas.chassis.waiting import wait_any
from habeas.contracts.pledges import find_pledge
from habeas.contracts.topics import AUDIT_ENTRIES

_TOPIC: Final = Name(AUDIT_ENTRIES.name)


class Sequencer:
    """Follows the topic. ``frontier`` is the tree as it is committed, and None until it may be signed."""

    def __init__(
        self, seat: Seat, directory: LogDirectory, origin: str, stopping: asyncio.Event, *, look_s: float
    ) -> None:
        self.frontier: Frontier | None = None
        self._seat = seat
        self._directory = directory
        self._origin = origin
        self._stopping = stopping
        self._look_s = look_s
        self._position = -1
        self._tree: Frontier | None = None
        self._signed: dict[int, bytes] = {}

    async def position(self, db: Database) -> int:
        """Wait for the seat, make sure that the database goes on with the log that was signed, and say where to read next.

        Raises ``Invariant`` when the database holds another history than the lock store or the published checkpoint.
        """
        self.frontier = self._tree = None
        while not await self._seat.take(db):
            await wait_any(self._stopping, self._stopping, self._look_s)
            if self._stopping.is_set():
                return 0
        published = await self._directory.checkpoint()
        async with db.transaction("open-log") as tx:
            head = await store.find_head(tx)
            locked = await store.find_last_checkpoint(tx)
            signed = {each.size: each.root for each in (locked, published) if each is not None}
            if locked is not None and signed[locked.size] != locked.root:
                raise Invariant(f"two roots were signed at {locked.size} entries")
            for size in [size for size in signed if size <= head.size]:
                if (await store.find_frontier(tx, size)).root() != signed.pop(size):
                    raise Invariant(f"the database has another history than what was signed at {size} entries")
            tree = await store.find_frontier(tx, head.size)
            if tree.root() != head.root:
                raise Invariant("the head of the log is not the root of its leaves")
        if signed:
            log.event("ledger.behind", severity=LogLevel.WARNING, size=head.size, signed=max(signed))
        self._signed = signed
        self._settle(tree, head)
        for reason in lifecycle.Reason:
            metrics.AUDIT_REFUSED_ENTRIES.add(0, reason=reason)  # so that the first one is an increase too
        return head.position

    async def mark(self, db: Database) -> int | None:
        """Give Kafka's time of the last record that was taken, by which the topic is known again; None when nothing was."""
        async with db.transaction("log-mark") as tx:
            return (await store.find_head(tx)).taken_ms

    async def anew(self, db: Database, first: int) -> None:
        """Begin with a topic that was made anew: entries that the log has are known by their places and change nothing."""
        async with db.transaction("log-anew") as tx:
            await store.move_position(tx, first)

    async def take(self, db: Database, records: Sequence["ConsumerRecord[bytes, bytes]"]) -> None:
        """Append what fits and keep the rest aside, each run of records in one transaction with the position.

        Records that were taken before change nothing. Raises ``SeatLost`` when somebody else moved the head, ``Invariant`` when the
        records do not give a root that was signed already.
        """
        given = [
            Record(
                record.offset,
                record.key or b"",
                record.value or b"",
                _trace(record),
                record.timestamp,
                find_pledge(record.headers),
            )
            for record in records
        ]
        for segment in lifecycle.segments(given):
            await self._take(db, segment)

    async def _take(self, db: Database, records: Sequence[Record]) -> None:
        if not self._seat.held or self._tree is None:
            raise SeatLost
        async with db.transaction("sequence-entries") as tx:
            head = await store.lock_head(tx)
            if head.position != self._position or head.size != self._tree.size:
                raise SeatLost
            new = [record for record in records if record.offset >= head.position]
            if not new:
                return
            tx.caused_by(*(record.trace for record in new))
            judged = await _judge(tx, new)
            tree, leaves, tiles = lifecycle.grow(self._tree, judged.lines, self._signed)
            moved = LogHead(tree.size, tree.root(), new[-1].offset + 1, new[-1].time_ms)
            await store.add_leaves(tx, head.size, judged.places, judged.lines, leaves)
            await store.add_tiles(tx, tiles)
            await store.save_chains(tx, judged.changed())
            await store.move_head(tx, head.size, moved)
            if not any(
                size >= tree.size for size in self._signed
            ):  # what is taken a second time was told the first time
                self._tell(tx, judged)
        self._signed = {size: root for size, root in self._signed.items() if size > tree.size}
        self._settle(tree, moved)
        _count(judged)

    def _tell(self, tx: Transaction, judged: Judgement) -> None:
        for chain in judged.halted:
            event, fact = lifecycle.tell_halted(chain, self._origin)
            tx.emit(event)
            tx.record(fact)
        tx.record(*(lifecycle.tell_resumed(chain.halt.offset) for chain in judged.proven if chain.halt is not None))

    def _settle(self, tree: Frontier, head: LogHead) -> None:
        """Take over what was committed; below a size that was signed before, nothing is signed again."""
        self._tree = tree
        self._position = head.position
        self.frontier = None if self._signed else tree
        metrics.AUDIT_TREE_LEAVES.set(tree.size)
        metrics.FOLLOW_POSITION_MESSAGES.set(head.position, topic=_TOPIC)


def _trace(record: "ConsumerRecord[bytes, bytes]") -> str | None:
    """Give the trace parent in the headers, if there is one; what is not one is passed over where it is read."""
    found = next((value for name, value in record.headers if name == "traceparent"), None)
    return None if found is None else found.decode("ascii", "replace")


async def _judge(tx: Transaction, records: Sequence[Record]) -> Judgement:
    """Judge records, a second time when some may be in the log already; keep refused ones, and read them again on a resume."""
    chains = await store.find_chains(tx)
    own = await _find_own_words(tx, records)
    judged = lifecycle.judge(chains, records, {}, tx.now, own)
    if judged.wanted:
        known = await store.find_known(tx, judged.wanted)
        judged = lifecycle.judge(chains, records, known, tx.now, own)
    await store.add_refused(tx, judged.refused)
    if judged.resumed is not None:
        judged.reread(await store.find_held(tx, judged.resumed))
    return judged


async def _find_own_words(tx: Transaction, records: Sequence[Record]) -> list[bytes]:
    """Give audit-ledger's own entries at the places of words to resume: rare, so nothing is asked for as a rule."""
    seqs = [seq for record in records if (seq := lifecycle.place_of_word(record)) is not None]
    return await store.find_own(tx, seqs) if seqs else []


def _count(judged: Judgement) -> None:
    for producer, entries in Counter([place.producer for place in judged.places]).items():
        metrics.AUDIT_ACCEPTED_ENTRIES.add(entries, producer=producer)
    for refused in judged.refused:
        if refused.reason is not None:
            metrics.AUDIT_REFUSED_ENTRIES.add(reason=refused.reason)
    for chain in judged.halted:
        halt = chain.halt
        if halt is not None:
            log.event(
                "producer.halted",
                severity=LogLevel.ERROR,
                producer=chain.producer,
                reason=halt.reason,
                offset=halt.offset,
                expected_seq=halt.expected_seq,
                found_seq=halt.found_seq,
            )
    for chain in [*judged.proven, *([] if judged.resumed is None else [judged.resumed])]:
        log.event("producer.resumed", producer=chain.producer, seq=chain.head.seq)
