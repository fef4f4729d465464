"""Which records become entries of the log, decided without I/O, clock or randomness.

The order of the log follows from the order of the topic and from nothing else: the same records, in whatever batches, give the same tree.
That holds for resuming too, because the word to resume is itself an entry (``producer.resumed`` of audit-ledger).

Anybody who may write to the topic can claim to be a producer. So an entry has to show the secret that the entry before pledged
(``contracts/pledges.py``). What does not fit halts its producer, and the next entry that fits and shows its secret lets it go on.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from habeas.auditlog.chains import Fit, Head, fit
from habeas.auditlog.scan import ACTIONS, LINES, OUTCOMES, PRODUCERS
from habeas.auditlog.tree import HASH_BYTES, Frontier, Tile, hash_leaf, hash_leaves
from habeas.chassis.errors import Invariant
from habeas.chassis.lifecycle import row, table
from habeas.contracts.audit import GENESIS, Action, AuditEntry, AuditFact, AuditOutcome, BadEntry, Producer, parse_entry
from habeas.contracts.audit_ledger import ProducerHalted
from habeas.contracts.pledges import Pledge

_RESUMED: Final = f" action={Action.PRODUCER_RESUMED} ".encode()
_PLACE: Final = re.compile(
    rb"habeas-audit/[0-9]+ producer=([a-z\-]{1,64}) epoch=([1-9][0-9]{0,9}) seq=([1-9][0-9]{0,17}) "
)
_PRODUCERS: Final[Mapping[str, Producer]] = {producer.value: producer for producer in Producer}
_NONE_YET: Final = Head(0, 0, GENESIS)
_KEY: Final = re.compile(rb"([a-z\-]{1,64})/([1-9][0-9]{0,17})")
_OPEN: Final = "open"  # pledged by nobody: a person lets the next entry that links on begin to pledge anew


class State(StrEnum):
    """Where a producer stands."""

    FOLLOWING = "following"
    HALTED = "halted"  # something did not fit: only an entry that proves itself is taken, or what a person lets go on


TRANSITIONS = table(
    State.FOLLOWING,
    row(State.FOLLOWING, "entry fits", State.FOLLOWING),
    row(State.FOLLOWING, "gap, equivocation, broken link, bad grammar or unproven", State.HALTED),
    row(State.HALTED, "next entry shows its secret, or a person resumed it", State.FOLLOWING),
)


class Reason(StrEnum):
    """Why an entry does not fit."""

    GAP = "gap"
    EQUIVOCATION = "equivocation"
    BROKEN_LINK = "broken_link"
    BAD_GRAMMAR = "bad_grammar"
    UNPROVEN = "unproven"  # it links on, and does not show the secret that the entry before pledged


class Record(NamedTuple):
    """One record of the topic."""

    offset: int
    key: bytes
    value: bytes
    trace: str | None = None
    time_ms: int | None = None  # Kafka's, by which the topic is known again
    pledge: Pledge | None = None


class Place(NamedTuple):
    """Where an entry stands in its producer's sequence."""

    producer: Producer
    epoch: int
    seq: int


class Refused(NamedTuple):
    """A record that does not go into the log now; without a reason it only came while its producer was halted."""

    offset: int
    place: Place | None
    producer: Producer | None
    reason: Reason | None
    value: bytes
    pledge: Pledge | None = None


class Held(NamedTuple):
    """A record that was kept aside and may fit now."""

    value: bytes
    pledge: Pledge | None = None


@dataclass(frozen=True, slots=True)
class Halt:
    """What stopped a producer: the record at ``offset`` of the topic."""

    offset: int
    reason: Reason
    expected_seq: int
    found_seq: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Chain:
    """One producer: its last entry in the log, what that entry pledged (None: none ever did), and what stopped the producer."""

    producer: Producer
    head: Head = _NONE_YET
    state: State = State.FOLLOWING
    halt: Halt | None = None
    pledged: str | None = None

    def halted(self, halt: Halt) -> "Chain":
        """Give the chain as it stands still."""
        TRANSITIONS.check(self.state, State.HALTED)
        return replace(self, state=State.HALTED, halt=halt)

    def resumed(self) -> "Chain":
        """Give the chain as it goes on."""
        TRANSITIONS.check(self.state, State.FOLLOWING)
        return replace(self, state=State.FOLLOWING, halt=None)


class Judgement:
    """What a run of records comes to: entries to append in their order, records refused, and where each producer stands then.

    ``known`` holds the leaf hashes of places that the log has already (None: it has not). Places that would have had to be known are
    in ``wanted`` afterwards: then the judgement holds only until they are, and has to be made again. ``own`` are lines that audit-ledger's
    own database holds, by which it knows its word to resume itself.
    """

    def __init__(
        self,
        chains: Mapping[Producer, Chain],
        known: Mapping[Place, bytes | None],
        now: datetime,
        own: Collection[bytes] = (),
    ) -> None:
        self.lines: list[bytes] = []
        self.places: list[Place] = []
        self.refused: list[Refused] = []
        self.halted: list[Chain] = []
        self.resumed: Chain | None = None
        self._seed_is_new = False
        self.proven: list[Chain] = []  # as they were halted: an entry that proved itself let them go on
        self.wanted: set[Place] = set()
        self._before = dict(chains)
        self._chains = dict(chains)
        self._known = known
        self._now = now
        self._own_lines = own
        # The heads of the producers that are followed: all that the common case looks at.
        self._heads: dict[str, Head] = {
            chain.producer: chain.head for chain in chains.values() if chain.state is State.FOLLOWING
        }
        self._pledged: dict[str, str | None] = {chain.producer: chain.pledged for chain in chains.values()}
        self._own: dict[Place, int] = {}

    def take(self, records: Sequence[Record]) -> None:
        """Judge records in their order. A word to resume may only be the last of them (see ``segments``)."""
        rows = _read([record.value for record in records])
        if rows is None:
            for record in records:
                self._consider(record)
            return
        heads, lines, places, pledges = self._heads, self.lines, self.places, self._pledged
        for record, (producer, epoch, seq, prev, *_) in zip(records, rows, strict=True):
            head = heads.get(producer)
            # What passed the expressions and names the hash that was computed here follows the grammar to its last byte.
            if head is None or prev != head.hash or int(seq) != head.seq + 1 or int(epoch) != head.epoch:
                self._consider(record)
                continue
            if producer == Producer.AUDIT_LEDGER and _RESUMED in record.value:
                self._consider(record)
                continue
            pledged, pledge = pledges.get(producer), record.pledge
            if pledge is not None:
                if pledged is not None and not pledge.keeps(pledged):
                    self._consider(record)
                    continue
                pledges[producer] = pledge.next_hash
            elif pledged is not None:
                self._consider(record)
                continue
            heads[producer] = Head(head.epoch, head.seq + 1, sha256(record.value).hexdigest())
            lines.append(record.value)
            places.append(Place(_PRODUCERS[producer], head.epoch, head.seq + 1))

    def reread(self, held: Sequence[Held]) -> None:
        """Take what fits of the records that a resumed producer sent while it was halted, in the order of its sequence.

        What does not fit stays refused, and halts nobody a second time. If the word to resume says that the seed is new, a person answers
        for what cannot show the secret that was pledged: whatever links on counts, of what was held or what comes next, and pledges anew.
        """
        is_done = bool(self._reread(held))
        if is_done or self.resumed is None or self.resumed.pledged is None or not self._seed_is_new:
            return
        producer = self.resumed.producer
        self._pledged[producer] = _OPEN
        self._chains[producer] = replace(self._chains[producer], pledged=_OPEN)
        self._reread(held)

    def _reread(self, held: Sequence[Held]) -> int:
        taken = len(self.lines)
        for value, pledge in held:
            try:
                entry = parse_entry(value)
            except BadEntry:
                continue
            last = self._heads.get(entry.producer)
            head = _head_of(entry, value)
            verdict = fit(last, head, entry.prev)
            if _fits_next(verdict) and _may_follow(self._pledged.get(entry.producer), verdict, pledge):
                self._append(entry.producer, head, value, pledge)
        return len(self.lines) - taken

    def changed(self) -> list[Chain]:
        """Give the producers that do not stand where they stood, as they stand now."""
        for name, head in self._heads.items():
            producer = Producer(name)
            chain = self._chains.get(producer, Chain(producer))
            if chain.head != head:
                self._chains[producer] = replace(chain, head=head, pledged=self._pledged.get(name))
        return [chain for producer, chain in self._chains.items() if chain != self._before.get(producer)]

    def _consider(self, record: Record) -> None:
        """Judge one record that is not simply the next of its producer."""
        try:
            entry = parse_entry(record.value)
        except BadEntry:
            self._refuse_unreadable(record)
            return
        head = _head_of(entry, record.value)
        place = Place(entry.producer, entry.epoch, entry.seq)
        chain = self._chain(entry.producer)
        verdict = fit(chain.head, head, entry.prev)
        if chain.state is State.HALTED and not self._goes_on(chain, verdict, record):
            self._hold(chain, record, place, entry)
            return
        match verdict:
            case Fit.NEXT | Fit.NEXT_UNLINKED:
                if not _may_follow(chain.pledged, verdict, record.pledge):
                    self._halt(chain, record, place, Reason.UNPROVEN)
                    return
                self._append(entry.producer, head, record.value, record.pledge)
                target = self._resumes(entry)
                if target is not None:
                    self._resume(target, entry)
            case Fit.REPEATED:
                pass
            case Fit.EARLIER:
                if not self._repeats(place, record.value):
                    self._halt(chain, record, place, Reason.EQUIVOCATION)
            case Fit.EQUIVOCATION:
                self._halt(chain, record, place, Reason.EQUIVOCATION)
            case Fit.GAP:
                self._halt(chain, record, place, Reason.GAP)
            case Fit.BROKEN_LINK:
                self._halt(chain, record, place, Reason.BROKEN_LINK)

    def _chain(self, producer: Producer) -> Chain:
        chain = self._chains.get(producer, Chain(producer))
        head = self._heads.get(producer)
        if head is None or chain.head == head:
            return chain
        return replace(chain, head=head, pledged=self._pledged.get(producer))

    def _append(self, producer: Producer, head: Head, line: bytes, pledge: Pledge | None) -> None:
        self._heads[producer] = head
        if pledge is not None:
            self._pledged[producer] = pledge.next_hash
        self.lines.append(line)
        self.places.append(Place(producer, head.epoch, head.seq))

    def _repeats(self, place: Place, line: bytes) -> bool:
        """Answer whether the log has these bytes at this place; yes for now where that has yet to be looked up."""
        for at in range(len(self._own), len(self.places)):
            self._own[self.places[at]] = at
        at_own = self._own.get(place)
        if at_own is not None:
            return self.lines[at_own] == line
        if place not in self._known:
            self.wanted.add(place)
            return True
        return self._known[place] == hash_leaf(line)

    def _refuse_unreadable(self, record: Record) -> None:
        """Blame the producer that the line names, else the one of the record's key; a stranger's record halts nobody."""
        found, key = _PLACE.match(record.value), _KEY.fullmatch(record.key)
        named = _producer(found[1]) if found else None
        producer = named or (_producer(key[1]) if key else None)
        place = Place(named, int(found[2]), int(found[3])) if found and named else None
        if producer is None:
            self.refused.append(Refused(record.offset, None, None, Reason.BAD_GRAMMAR, record.value, record.pledge))
            return
        chain = self._chain(producer)
        if chain.state is State.HALTED:
            self.refused.append(
                Refused(record.offset, place, producer, Reason.BAD_GRAMMAR, record.value, record.pledge)
            )
            return
        if place is None:
            seq = int(key[2]) if key else chain.head.seq + 1
            self._halt(chain, record, None, Reason.BAD_GRAMMAR, found_seq=seq)
        else:
            self._halt(chain, record, place, Reason.BAD_GRAMMAR)

    def _halt(
        self, chain: Chain, record: Record, place: Place | None, reason: Reason, *, found_seq: int | None = None
    ) -> None:
        expected = 1 if place is not None and place.epoch > chain.head.epoch else chain.head.seq + 1
        found = place.seq if place is not None else found_seq or expected
        halted = chain.halted(Halt(record.offset, reason, expected, found, self._now))
        self._chains[chain.producer] = halted
        self._heads.pop(chain.producer, None)
        self.halted.append(halted)
        self.refused.append(Refused(record.offset, place, chain.producer, reason, record.value, record.pledge))

    def _hold(self, chain: Chain, record: Record, place: Place, entry: AuditEntry) -> None:
        """Keep an entry of a halted producer aside.

        The ledger, when it is halted itself, cannot say that it is resumed by an entry that is taken. Such a word counts if the ledger
        never pledged, or if its own database holds that line.
        """
        self.refused.append(Refused(record.offset, place, chain.producer, None, record.value, record.pledge))
        is_own = chain.pledged is None or record.value in self._own_lines
        if is_own and self._resumes(entry) is chain:
            self._resume(chain, entry)

    def _goes_on(self, chain: Chain, verdict: Fit, record: Record) -> bool:
        """Let a halted producer go on if this is its next entry, and proves itself; answer whether it is."""
        if not (_fits_next(verdict) and _proves_itself(chain.pledged, record.pledge)):
            return False
        self.proven.append(chain)
        self._chains[chain.producer] = chain.resumed()
        self._heads[chain.producer] = chain.head
        return True

    def _resumes(self, entry: AuditEntry) -> Chain | None:
        """Give the halted producer that the entry is the word to resume for: it names the offset that halted it."""
        if entry.producer is not Producer.AUDIT_LEDGER or entry.fact.action is not Action.PRODUCER_RESUMED:
            return None
        for chain in self._chains.values():
            if chain.halt is not None and chain.halt.offset == entry.fact.count:
                return chain
        return None

    def _resume(self, chain: Chain, word: AuditEntry) -> None:
        self._seed_is_new = word.fact.outcome is AuditOutcome.KEY_MISSING
        self.resumed = self._chains[chain.producer] = chain.resumed()
        self._heads[chain.producer] = chain.head


def judge(
    chains: Mapping[Producer, Chain],
    records: Sequence[Record],
    known: Mapping[Place, bytes | None],
    now: datetime,
    own: Collection[bytes] = (),
) -> Judgement:
    """Judge one segment of records."""
    judgement = Judgement(chains, known, now, own)
    judgement.take(records)
    return judgement


def segments(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Cut after every word to resume: what a producer sent while it was halted comes before what follows."""
    start = 0
    for end, record in enumerate(records, 1):
        if _RESUMED in record.value:
            yield records[start:end]
            start = end
    if start < len(records):
        yield records[start:]


def grow(frontier: Frontier, lines: Sequence[bytes], signed: Mapping[int, bytes]) -> tuple[Frontier, bytes, list[Tile]]:
    """Append entries; give the new edge, the leaf hashes, and the tiles that became full.

    ``signed`` holds roots that were signed at sizes this tree has not reached: a tree that comes to another one there
    would be a second history of the log, and raises ``Invariant``.
    """
    leaves = hash_leaves(lines)
    tiles: list[Tile] = []
    end = frontier.size + len(lines)
    done = 0
    for size in sorted({size for size in signed if frontier.size < size <= end} | {end}):
        upto = done + (size - frontier.size) * HASH_BYTES
        frontier, made = frontier.append(leaves[done:upto])
        done = upto
        tiles += made
        if size in signed and frontier.root() != signed[size]:
            raise Invariant(
                f"the topic does not give the root that was signed at {size} entries; the log must not fork"
            )
    return frontier, leaves, tiles


def tell_halted(chain: Chain, origin: str) -> tuple[ProducerHalted, AuditFact]:
    """Say that a producer was halted; the fact names the record by its offset in the topic."""
    halt = chain.halt
    if halt is None:
        raise Invariant("only a halted producer is told to be halted")
    event = ProducerHalted(
        origin=origin,
        producer=chain.producer,
        expected_seq=halt.expected_seq,
        found_seq=halt.found_seq,
        reason=halt.reason.value,
        halted_at=halt.at,
    )
    return event, AuditFact(Action.PRODUCER_HALTED, count=halt.offset)


def tell_resumed(offset: int, *, seed_is_new: bool = False) -> AuditFact:
    """Word the entry that lets the producer go on that was halted by the record at this offset.

    ``seed_is_new`` says that the producer cannot show the secret that it pledged, since its database was made anew.
    """
    return AuditFact(Action.PRODUCER_RESUMED, outcome=AuditOutcome.KEY_MISSING if seed_is_new else None, count=offset)


def place_of_word(record: Record) -> int | None:
    """Return the number of audit-ledger's entry if the record looks like its word to resume a producer, else None."""
    found = _PLACE.match(record.value) if _RESUMED in record.value else None
    return int(found[3]) if found and _producer(found[1]) is Producer.AUDIT_LEDGER else None


def _fits_next(verdict: Fit) -> bool:
    return verdict in {Fit.NEXT, Fit.NEXT_UNLINKED}


def _proves_itself(pledged: str | None, pledge: Pledge | None) -> bool:
    """Answer whether an entry shows the secret that the one before pledged; where nothing is pledged, nothing can be proved."""
    return pledged not in {None, _OPEN} and pledge is not None and pledge.keeps(str(pledged))


def _may_follow(pledged: str | None, verdict: Fit, pledge: Pledge | None) -> bool:
    """Answer whether an entry that fits may be its producer's, as far as anybody can know."""
    if pledged is None:
        return True
    if pledged == _OPEN:
        return verdict is Fit.NEXT and pledge is not None
    return _proves_itself(pledged, pledge)


def _head_of(entry: AuditEntry, line: bytes) -> Head:
    return Head(entry.epoch, entry.seq, sha256(line).hexdigest())


def _producer(name: bytes) -> Producer | None:
    return _PRODUCERS.get(name.decode("ascii"))


def _read(values: Sequence[bytes]) -> list[tuple[str, ...]] | None:
    """Read all lines at once, one tuple of fields each; None when any of them does not follow the grammar."""
    try:
        text = b"\n".join(values).decode("ascii")
    except UnicodeDecodeError:
        return None
    if text.count("\n") != len(values) - 1:
        return None
    rows: list[tuple[str, ...]] = LINES.findall(text)
    known = (
        len(rows) == len(values)
        and {fields[0] for fields in rows} <= PRODUCERS
        and {fields[5] for fields in rows} <= ACTIONS
        and {fields[6] for fields in rows} <= OUTCOMES
        and all(map(_is_day, {fields[4] for fields in rows}))
    )
    return rows if known else None


@lru_cache(maxsize=1024)
def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
