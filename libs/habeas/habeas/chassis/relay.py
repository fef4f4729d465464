"""The relay: takes what transactions left in the outbox to Kafka, in order, until it is acknowledged.

It needs no cursor: a row is unpublished until it is marked, so a transaction that commits late is simply found on the next pass.
A crash between the acknowledgement and the mark sends rows twice; consumers drop the copies by event id.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Final, NamedTuple
from uuid import UUID

from habeas.chassis import crash, metrics, store, tracing
from habeas.chassis.crash import Point
from habeas.chassis.database import TRANSIENT, Database, Transaction
from habeas.chassis.errors import Invariant
from habeas.chassis.lanes import Lanes
from habeas.chassis.outbox import Pending
from habeas.chassis.pace import Pace
from habeas.chassis.producer import Producer, PublishFailed, Record, Refused
from habeas.chassis.settings import ChassisSettings
from habeas.chassis.troubles import REST_S_MAX, Troubles, Work
from habeas.chassis.waiting import Outage, on_beat, wait_any
from habeas.contracts import audit, topics
from habeas.contracts.envelope import Envelope, encode_headers
from habeas.contracts.pledges import PLEDGE_HEADER, make_pledge

_PUBLISH_TIMEOUT_S: Final = 15.0  # `habeas replay` waits longer than a batch is held on to
_FACTS_LATER_S: Final = 0.25
_AUDIT_TYPE: Final = "audit.entry"

# A key's lane fixes its partition. A topic that was given more partitions than the catalogue has goes on in the first ones, so that no key
# ever moves.
_PARTITIONS: Final = {topic.name: topic.partitions for topic in topics.CATALOGUE}

_REST_S: Final = 0.5  # before the first further try at a topic that refuses; twice as long each time


class _Rest(NamedTuple):
    """How long a refused topic rests, and until when on the monotonic clock."""

    rest_s: float
    until: float


class _Line:
    """What one of the two loops looks for, and what wakes it."""

    def __init__(self, publish: Callable[[], Awaitable[int]]) -> None:
        self.publish = publish
        self.wake = asyncio.Event()
        self.waits = True  # something may be waiting; found out by looking
        self.is_told = True  # that there is something

    def note(self) -> None:
        """Something was left to publish."""
        self.waits = self.is_told = True
        self.wake.set()


class Relay:
    """Publishes the events of the held lanes, and the service's audit entries where this replica holds the audit lane.

    Each has a loop and a producer of its own, so that an event never waits for the log.
    """

    def __init__(
        self,
        service: str,
        database: Database,
        lanes: Lanes,
        producer: Producer,
        settings: ChassisSettings,
        facts_producer: Producer | None = None,
    ) -> None:
        self._service = service
        self._producer_name = audit.Producer(service)
        self._database = database
        self._lanes = lanes
        self._producer = producer
        self._facts_producer = facts_producer or producer
        self._settings = settings
        self._events = _Line(self._publish_events)
        self._facts = _Line(self._publish_facts)
        self._facts_are_due = False
        self._troubles = Troubles(database, Work.PUBLISH)
        self._resting: dict[str, _Rest] = {}  # topics that refuse what they are sent

    def note(self, pending: Pending) -> None:
        """Wake up when a commit left something to publish."""
        if pending.events:
            self._events.note()
        if pending.facts:
            self._facts.note()

    def note_soon(self, pending: Pending) -> None:
        """Wake up for events at once, and for facts a moment later, once for all that come until then.

        The facts of one request then go together, and their way through the log takes no time from the request that caused them.
        """
        if pending.events:
            self._events.note()
        if pending.facts:
            self.look_for_facts_soon()

    def _note_facts(self) -> None:
        self._facts_are_due = False
        self._facts.note()

    def look(self) -> None:
        """Look for both kinds with the next step, whoever wrote them."""
        self.look_for_events()
        self.look_for_facts()

    def look_for_events(self) -> None:
        """Look for events with the next step: another replica wrote some, or has given their lanes back."""
        self._events.note()

    def look_for_facts(self) -> None:
        """Look for facts with the next step, likewise."""
        self._facts.note()

    def look_for_facts_soon(self) -> None:
        """Look for facts a moment later, once for all that come until then."""
        if not self._facts_are_due:
            self._facts_are_due = True
            asyncio.get_running_loop().call_later(_FACTS_LATER_S, self._note_facts)

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish events until told to stop; while Kafka or the database is away, keep trying."""
        await self._run(self._events, stopping)

    async def run_facts(self, stopping: asyncio.Event) -> None:
        """Publish audit entries until told to stop, likewise."""
        await self._run(self._facts, stopping)

    async def step(self) -> int:
        """Publish one batch of events and one of audit entries; gives how many records were acknowledged."""
        return await self._step(self._events) + await self._step(self._facts)

    async def _run(self, line: _Line, stopping: asyncio.Event) -> None:
        pace = Pace(self._database.clock)
        outage = Outage("relay.trouble")
        while not stopping.is_set():
            line.wake.clear()
            pace.begin()
            try:
                sent = await self._step(line)
            except (PublishFailed, *TRANSIENT) as error:
                metrics.RELAY_FAILURES.add()
                line.waits = line.is_told = True
                await outage.wait(error, stopping, REST_S_MAX if isinstance(error, Refused) else None)
                continue
            outage.over()
            if sent == 0 and not await wait_any(line.wake, stopping, on_beat(self._settings.poll_interval_s)):
                line.waits = True  # nobody told of anything for long: other replicas write rows for these lanes too
            await pace.rest(sent, self._settings.relay_batch_rows_max, stopping)

    async def _step(self, line: _Line) -> int:
        if not line.waits:
            return 0
        line.waits = False
        sent = await line.publish()
        line.is_told = line.waits = line.waits or sent == self._settings.relay_batch_rows_max
        return sent

    async def _publish_events(self) -> int:
        lanes, _ = self._lanes.of_messages()
        if not lanes:
            return 0

        begun = self._database.clock.monotonic()
        resting = [topic for topic, rest in self._resting.items() if rest.until > begun]
        rows = await self._database.read(
            "relay-find", store.FIND_UNPUBLISHED, lanes, self._settings.relay_batch_rows_max, resting
        )
        if not rows:
            return 0
        crash.at(Point.RELAY_FOUND)
        hops = [tracing.start_hop(row["topic"], row["traceparent"], row["created_at"]) for row in rows]
        records = [self._record(row, hop) for row, hop in zip(rows, hops, strict=True)]
        try:
            await self._producer.publish(records, _PUBLISH_TIMEOUT_S)
        except Refused as refused:
            await self._set_aside(refused, {row["topic"] for row in rows})
            done = sorted(refused.acknowledged)
            rows, hops = [rows[position] for position in done], [hops[position] for position in done]
            if not rows:
                return 0
        else:
            await self._taken({row["topic"] for row in rows})
        crash.at(Point.RELAY_ACKED)
        _end(hops)

        days, ids = [row["created_on"] for row in rows], [row["outbox_id"] for row in rows]
        now = self._database.clock.now()
        await self._database.change("relay-mark", store.MARK_PUBLISHED, now, days, ids)
        crash.at(Point.RELAY_MARKED)
        metrics.RELAY_PUBLISHED_MESSAGES.add(len(rows))
        metrics.RELAY_BATCH_MESSAGES.observe(len(rows))
        waited = self._database.clock.now() - rows[0]["created_at"]
        metrics.RELAY_LAG_S.observe(max(0.0, waited.total_seconds()))
        return len(rows)

    async def _set_aside(self, refused: Refused, topics_sent: set[str]) -> None:
        """Let topics that refuse rest, each longer every time, so that events for others go out; say so where operators look."""
        metrics.RELAY_FAILURES.add()
        loop, now = asyncio.get_running_loop(), self._database.clock.monotonic()
        for topic, refusal in refused.refusals.items():
            rest_s = min(2 * self._resting[topic].rest_s, REST_S_MAX) if topic in self._resting else _REST_S
            self._resting[topic] = _Rest(rest_s, now + rest_s)
            loop.call_later(rest_s, self._events.note)
            await self._troubles.note(topic, refusal.reason, refusal.size_bytes)
        await self._taken(topics_sent - refused.refusals.keys())
        self._events.note()  # others may wait behind those that were refused

    async def _taken(self, topics_sent: set[str]) -> None:
        for topic in topics_sent & self._resting.keys():
            del self._resting[topic]
        await self._troubles.over(topics_sent)

    def _record(self, row: store.Row, hop: tracing.Hop | None) -> Record:
        trace = row["traceparent"] if hop is None else hop.traceparent
        envelope = Envelope(row["event_id"], row["type"], self._service, row["created_at"], row["subject"], trace)
        partition = row["lane"] % _PARTITIONS.get(row["topic"], 1)
        return Record(row["topic"], row["key"].encode(), row["value"], encode_headers(envelope), partition)

    async def _publish_facts(self) -> int:
        """Number facts, then publish lines. A line is made once and kept: after any crash the same bytes go out again."""
        if not self._lanes.has_audit():
            return 0
        if not self._facts.is_told and not (await self._database.read("relay-look", store.ARE_FACTS_LEFT))[0]["left"]:
            return 0
        run = await self._database.run("relay-sequence", self._sequence)
        if not run.lines:
            return 0
        crash.at(Point.RELAY_FACTS_FOUND)
        topic = topics.AUDIT_ENTRIES.name
        hops = [tracing.start_hop(topic, line.traceparent, line.created_at) for line in run.lines]
        records = []
        for line, hop in zip(run.lines, hops, strict=True):
            trace = line.traceparent if hop is None else hop.traceparent
            envelope = Envelope(line.event_id, _AUDIT_TYPE, self._service, line.created_at, self._service, trace)
            key = f"{self._service}/{line.seq}".encode()
            pledge = make_pledge(run.seed, run.epoch, line.seq).encode()
            headers = [*encode_headers(envelope), (PLEDGE_HEADER, pledge)]
            records.append(Record(topic, key, line.line, headers, partition=0))
        try:
            await self._facts_producer.publish(records, _PUBLISH_TIMEOUT_S)
        except Refused as refused:
            for name, refusal in refused.refusals.items():
                await self._troubles.note(name, refusal.reason, refusal.size_bytes)
            raise
        await self._troubles.over({topic})
        crash.at(Point.RELAY_FACTS_ACKED)
        _end(hops)
        reached = run.lines[-1].seq
        await self._database.change("relay-mark-facts", store.MARK_LINES_PUBLISHED, run.epoch, run.replays, reached)
        crash.at(Point.RELAY_FACTS_MARKED)
        return len(run.lines)

    async def _sequence(self, tx: Transaction) -> "_Run":
        """Give every waiting fact its number and link; gives the first lines that are not published.

        The head row's lock makes sequences gapless whatever commits late. When nothing older is left, these are the lines just made,
        and nothing has to be read; else (after trouble, a start, a replay) they are read.
        """
        head = await tx.fetchrow(store.LOCK_AUDIT_HEAD)
        if head is None:
            message = "the audit head is gone; the log cannot be continued"
            raise Invariant(message)
        # Taken under the lock: another relay may be numbering facts at the same time.
        facts = await tx.fetch(store.TAKE_FACTS, self._settings.relay_batch_rows_max)
        seq, link = head["seq"], head["hash"]
        lines: list[_AuditLine] = []
        for fact in sorted(facts, key=itemgetter("audit_id")):
            seq += 1
            line = audit.encode_entry(self._producer_name, head["epoch"], seq, link, fact["tail"])
            link = audit.entry_hash(line)
            lines.append(_AuditLine(seq, fact["event_id"], line, fact["created_at"], fact["traceparent"]))
        if lines:
            await tx.execute_exactly(len(lines), store.ADD_LINES, head["epoch"], seq, link, *zip(*lines, strict=True))
        if head["published_seq"] < head["seq"]:
            limit = self._settings.relay_batch_rows_max
            lines = [_AuditLine(*row) for row in await tx.fetch(store.FIND_LINES, head["published_seq"], limit)]
        return _Run(head["epoch"], head["replays"], head["seed"], lines)


class _AuditLine(NamedTuple):
    """A numbered entry, in the order of ``store.ADD_LINES``."""

    seq: int
    event_id: UUID
    line: bytes
    created_at: datetime
    traceparent: str | None


class _Run(NamedTuple):
    """Lines to be published in this order, each right after the one before, and all before them are published."""

    epoch: int
    replays: int
    seed: bytes
    lines: list[_AuditLine]


def _end(hops: Sequence[tracing.Hop | None]) -> None:
    """Kafka has acknowledged the messages."""
    for hop in hops:
        if hop is not None:
            hop.end()
