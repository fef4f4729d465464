"""The worker: takes stored messages in batches and runs handlers, one transaction a batch.

A batch that fails is not thrown at the handlers again as it is. When a handler names the message (by raising inside the iteration),
that message alone gets the verdict and the rest runs again; when nobody is named, the next claim is half as large, until the bad
message is alone. Trouble with the database blames no message.

Messages that nothing stands against never lie in the inbox: ``at_once`` handles them as they come from Kafka, in the transaction that
notes their ids. At the first sign that a message is special nothing of that stays, and all are stored and claimed like any others.
"""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from habeas.chassis import crash, log, metrics, store, tracing
from habeas.chassis.batch import Batch
from habeas.chassis.crash import Point
from habeas.chassis.database import REFUSED, TRANSIENT, Database, Transaction
from habeas.chassis.errors import EventTooLarge, Invariant, Poison, Retry
from habeas.chassis.lanes import Lanes
from habeas.chassis.message import Arrived, Defect, Message, Protection, Stored, read
from habeas.chassis.pace import Pace
from habeas.chassis.redaction import Name
from habeas.chassis.settings import ChassisSettings, LogLevel
from habeas.chassis.waiting import Outage, on_beat, wait_any
from habeas.contracts.audit import Action, AuditFact
from habeas.contracts.topics import Topic
from habeas.contracts.vocabulary import ParkReason

Handler = Callable[[Batch[Any], Transaction], Awaitable[None]]

_UNEXPECTED: Final = "unexpected"
_ATTEMPTS_MIN: Final = 8  # nothing is given up before it was tried this often
_QUIET_S: Final = 1.0  # after a claim that found nothing, before it is asked when the next message is due


@dataclass(slots=True)
class _Attempt:
    """Verdicts on single messages, found in earlier runs of the same claim."""

    poison: dict[int, Defect] = field(default_factory=dict)
    later: dict[int, str] = field(default_factory=dict)
    claimed: list[int] = field(default_factory=list)

    def note(self, message: Message, verdict: Poison | Retry) -> None:
        """Keep a verdict for the next run."""
        if isinstance(verdict, Poison):
            self.poison[message.inbox_id] = Defect(verdict.reason, verdict.field)
        else:
            self.later[message.inbox_id] = verdict.because


class _Again(Exception):
    """A verdict was found: nothing of this run may stay, and the next one knows more."""


class _Declined(Exception):
    """Messages cannot be handled at once: nothing of it may stay, and they have to be stored."""


class Worker:
    """Handles the messages of the lanes that this replica holds, one batch at a time."""

    def __init__(
        self,
        database: Database,
        lanes: Lanes,
        handlers: Mapping[str, Handler],
        topics: Mapping[str, Topic],
        protection: Protection,
        settings: ChassisSettings,
        handled: Callable[[Collection[str]], None] = lambda _: None,
        *,
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self.wake = asyncio.Event()
        self.idle = asyncio.Event()  # set while nothing is stored that could be handled now, as far as is known
        self.free = asyncio.Event()  # set while no batch is being handled
        self.free.set()
        self.halted = False
        self._database = database
        self._lanes = lanes
        self._handlers = handlers
        self._topics = topics
        self._protection = protection
        self._settings = settings
        self._told = handled
        self._paused = paused
        self._tolerance = timedelta(seconds=settings.clock_tolerance_s)
        self._limit = settings.inbox_batch_rows_max
        self._parked_in_a_row = 0
        self._more = True  # the last claim was full, or not everything could be settled: look again at once

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until told to stop; the batch in progress is finished. An ``Invariant`` ends the process."""
        pace = Pace(self._database.clock)
        outage = Outage("worker.database_trouble")
        while not stopping.is_set():
            self.wake.clear()
            pace.begin()
            try:
                handled = await self.step() if self.is_willing else 0
                if not handled or not self._more:
                    await self._rest(stopping)
                    await pace.rest(handled, self._settings.inbox_batch_rows_max, stopping)
            except TRANSIENT as error:
                await outage.wait(error, stopping)
            else:
                outage.over()

    async def _rest(self, stopping: asyncio.Event) -> None:
        """Wait until messages were stored, or one can be claimed of which nobody told; that is asked for at each interval."""
        every_s = self._settings.poll_interval_s
        rest_s = min(every_s, _QUIET_S)
        while not await wait_any(self.wake, stopping, rest_s):
            due_s = await self._due_s() if self.is_willing else math.inf
            if due_s <= 0:
                return
            rest_s = due_s if due_s < every_s else on_beat(every_s)

    async def _due_s(self) -> float:
        """Give in how many seconds a message can be claimed; infinite when there is none."""
        lanes, _ = self._lanes.of_messages()
        if not lanes:
            return math.inf
        now = self._database.clock.now()
        longest = timedelta(seconds=self._settings.retry_max_s)
        (row,) = await self._database.read("inbox-next", store.FIND_NEXT_MESSAGE, lanes, now, longest)
        due_at: datetime | None = row["due_at"]
        return math.inf if due_at is None else (due_at - now).total_seconds()

    @property
    def is_willing(self) -> bool:
        """Whether messages are handled at all now."""
        return not (self.halted or self._paused())

    def note(self) -> None:
        """Messages were stored."""
        self.idle.clear()
        self.wake.set()

    async def step(self) -> int:
        """Handle one batch; gives how many messages it settled. None while others are handled at once: one at a time."""
        if not self.free.is_set():
            return 0
        self.free.clear()
        self.idle.set()
        self._more = True
        try:
            return await self._step()
        finally:
            self.free.set()
            if self._more:
                self.idle.clear()

    async def at_once(self, stored: Sequence[Stored], reached: tuple[list[str], list[int], list[int]]) -> bool:
        """Handle messages without storing them first, and store those of other replicas' lanes; False when nothing was done.

        ``reached`` is how far the records go of which these are, as ``positions.columns`` gives it. Everything that is not plain (a
        message that came before, is to be parked or waits, an error of a handler, trouble with the database) is left to ``step``,
        which then meets it again in the inbox.
        """
        if not self.free.is_set() or not self.is_willing or any(each.reason is not None for each in stored):
            return False
        lanes = dict(zip(*self._lanes.of_messages(), strict=True))
        mine = [each for each in stored if each.lane in lanes]
        if not mine:
            return False
        others = [each for each in stored if each.lane not in lanes]
        self.free.clear()
        try:
            rows = await self._handle_at_once(mine, others, reached, lanes)
        except (_Declined, REFUSED, *TRANSIENT):
            return False
        finally:
            self.free.set()
            if not self.idle.is_set():
                self.wake.set()
        self._tell(rows, [row.inbox_id for row in rows], {}, {})
        metrics.INBOX_WAIT_S.observe(0.0)
        return True

    async def _handle_at_once(
        self,
        mine: Sequence[Stored],
        others: Sequence[Stored],
        reached: tuple[list[str], list[int], list[int]],
        lanes: Mapping[int, int],
    ) -> list[Arrived]:
        """Note, fence, decode and run handlers, in one transaction; gives the messages as rows. Raises ``_Declined``."""
        async with self._database.transaction("inbox-direct") as tx:
            await self._note(tx, mine, others, reached, lanes)
            rows = [Arrived.past_the_inbox(each, number, tx.now) for number, each in enumerate(mine)]
            messages, poison = self._read(rows, tx.now)
            if poison:
                raise _Declined
            ready = list(messages.values())
            spans = tracing.start_messages(ready, tx.now)
            tx.caused_by(*spans.traces.values())
            with tracing.finished(spans):
                for group in in_order(ready):
                    try:
                        rejected = await self._call(group, tx, spans.traces, _Attempt())
                    except (Invariant, *TRANSIENT):
                        raise
                    except Exception as error:  # it comes again when the messages are claimed, and is told then
                        raise _Declined from error
                    if rejected:
                        raise _Declined
        return rows

    async def _note(
        self,
        tx: Transaction,
        mine: Sequence[Stored],
        others: Sequence[Stored],
        reached: tuple[list[str], list[int], list[int]],
        lanes: Mapping[int, int],
    ) -> None:
        """Note ids and places, store what others have to handle, and make sure that nothing is overtaken or handled twice."""
        ids, digests = [each.event_id for each in mine], [each.digest for each in mine]
        if await tx.count(store.NOTE_RECORDS, tx.now, ids, digests, *reached) < len(mine):
            raise _Declined
        if others:
            rows = await tx.fetch(store.STORE_RECORDS, tx.now, *zip(*others, strict=True), [], [], [])
            if len(rows) < len(others):
                raise _Declined
        if not await self._is_free(tx, mine, lanes):
            raise _Declined

    async def _is_free(self, tx: Transaction, mine: Sequence[Stored], lanes: Mapping[int, int]) -> bool:
        """Lock the lanes under their tokens, and answer whether they are ours and nothing lies in the inbox before these messages."""
        wanted = sorted({each.lane for each in mine})
        keys = list({each.key for each in mine})
        tokens = [lanes[lane] for lane in wanted]
        fence = await tx.fetchrow(store.FENCE, self._lanes.holder, wanted, tokens, keys)
        return fence is not None and fence["lanes"] == len(wanted) and not fence["is_overtaking"]

    async def _step(self) -> int:
        attempt = _Attempt()
        while True:
            try:
                settled = await self._handle(attempt)
            except _Again:
                continue
            except Invariant:
                raise
            except TRANSIENT:
                self._limit = max(1, self._limit // 2)  # perhaps there is less trouble with less to do at once
                raise
            except Exception as error:  # noqa: BLE001 -- whatever a handler raises must not cost a message
                log.event("worker.batch_failed", error=error, limit=self._limit)
                if self._limit == 1:
                    await self._set_aside(attempt.claimed, error)
                    self._more = True
                    return 1
                self._limit = max(1, self._limit // 2)
                attempt = _Attempt()
            else:
                self._limit = min(self._settings.inbox_batch_rows_max, self._limit * 2)
                return settled

    async def _handle(self, attempt: _Attempt) -> int:
        """Claim, decode, run handlers and settle, in one transaction."""
        async with self._database.transaction("inbox-batch") as tx:
            rows = await self._claim(tx, self._limit)
            attempt.claimed = [row.inbox_id for row in rows]
            # What waits behind a message of its key that is tried again can be claimed once that is settled.
            self._more = len(rows) == self._limit or any(row.attempts for row in rows)
            if not rows:
                return 0
            crash.at(Point.WORKER_CLAIMED)
            messages, poison = self._read(rows, tx.now)
            poison |= {key: defect for key, defect in attempt.poison.items() if key in messages}
            held = self._held_back(rows, poison, attempt.later)
            poison = {key: defect for key, defect in poison.items() if key not in held}
            later = {key: why for key, why in attempt.later.items() if key in messages and key not in held}
            ready = [messages[key] for key in messages if not (key in poison or key in later or key in held)]
            spans = tracing.start_messages(ready, tx.now)
            tx.caused_by(*spans.traces.values())
            with tracing.finished(spans):
                rejected: dict[int, Defect] = {}
                for group in in_order(ready):
                    rejected |= await self._call(group, tx, spans.traces, attempt)
                crash.at(Point.WORKER_HANDLED)
                if not self._held_back(rows, rejected, {}).isdisjoint(message.inbox_id for message in ready):
                    attempt.poison |= rejected
                    raise _Again
                done = [message.inbox_id for message in ready if message.inbox_id not in rejected]
                parked, waiting = await self._settle(tx, rows, done, poison | rejected, later)
        self._tell(rows, done, parked, waiting)
        metrics.INBOX_WAIT_S.observe(max(0.0, (tx.now - rows[0].received_at).total_seconds()))
        return len(done) + len(parked) + len(waiting)

    async def _claim(self, tx: Transaction, limit: int) -> list[Arrived]:
        lanes, tokens = self._lanes.of_messages()
        if not lanes:
            return []
        longest = timedelta(seconds=self._settings.retry_max_s)
        rows = await tx.fetch(store.CLAIM, self._lanes.holder, lanes, tokens, tx.now, limit, longest)
        return [Arrived(*row) for row in rows]

    def _read(self, rows: Sequence[Arrived], now: datetime) -> tuple[dict[int, Message], dict[int, Defect]]:
        """Decode rows; one that was stored for a handler which is no more is as wrong as one that cannot be read."""
        messages: dict[int, Message] = {}
        poison: dict[int, Defect] = {}
        for row in rows:
            got = read(row, self._topics, self._protection, now, self._tolerance)
            if isinstance(got, Defect):
                poison[row.inbox_id] = got
            elif got.type not in self._handlers:
                poison[row.inbox_id] = Defect(ParkReason.UNKNOWN_TYPE, "ce_type")
            else:
                messages[row.inbox_id] = got
        return messages, poison

    def _held_back(self, rows: Sequence[Arrived], poison: Mapping[int, Defect], later: Mapping[int, str]) -> set[int]:
        """Give the messages that must wait behind another of their key: one that waits, or is parked on an ordered topic."""
        if not poison and not later:
            return set()
        stopped: set[bytes] = set()
        held: set[int] = set()
        for row in rows:
            if row.key in stopped:
                held.add(row.inbox_id)
            elif row.inbox_id in later or (row.inbox_id in poison and self._is_ordered(row)):
                stopped.add(row.key)
        return held

    def _is_ordered(self, row: Arrived) -> bool:
        topic = self._topics.get(row.topic)
        return topic is None or topic.ordered

    def _is_foreign(self, row: Arrived) -> bool:
        """Answer whether outsiders write to the message's topic: their garbage says nothing about us, and must not stop us."""
        topic = self._topics.get(row.topic)
        return topic is not None and topic.strict

    async def _call(
        self, group: Sequence[Message], tx: Transaction, traces: Mapping[int, str | None], attempt: _Attempt
    ) -> Mapping[int, Defect]:
        """Run the handler of one group; gives what it rejected."""
        batch: Batch[Any] = Batch(group, traces)
        try:
            await self._handlers[group[0].type](batch, tx)
        except (Poison, Retry) as verdict:
            if batch.current is None and len(group) > 1:
                message = f"a handler of {group[0].type} gave a verdict on no message"
                raise RuntimeError(message) from verdict
            attempt.note(batch.current or group[0], verdict)
            raise _Again from verdict
        return batch.rejected

    async def _settle(
        self,
        tx: Transaction,
        rows: Sequence[Arrived],
        done: list[int],
        poison: Mapping[int, Defect],
        later: Mapping[int, str],
    ) -> tuple[Mapping[int, Defect], Mapping[int, str]]:
        """Write down what became of each message; gives what was parked and what waits."""
        if done:
            await tx.execute_exactly(len(done), store.DROP_HANDLED, done)
        by_id = {row.inbox_id: row for row in rows}
        exhausted = {key: why for key, why in later.items() if self._is_exhausted(by_id[key], tx.now)}
        parked = {**poison, **{key: Defect(ParkReason.EXHAUSTED, why) for key, why in exhausted.items()}}
        if parked:
            blocks = [self._is_ordered(by_id[key]) for key in parked]
            reasons = [defect.reason.value for defect in parked.values()]
            fields = [defect.field for defect in parked.values()]
            await tx.execute_exactly(len(parked), store.MARK_PARKED, tx.now, list(parked), reasons, fields, blocks)
            tx.record(*(AuditFact(Action.MESSAGE_PARKED) for _ in parked))
        waiting = {key: why for key, why in later.items() if key not in exhausted}
        if waiting:
            times = [self._next_attempt(by_id[key].attempts, tx.now) for key in waiting]
            await tx.execute_exactly(len(waiting), store.MARK_WAITING, list(waiting), times, list(waiting.values()))
        return parked, waiting

    async def _set_aside(self, failed: Sequence[int], error: Exception) -> None:
        """Give the single message that makes its handler fail a later attempt; park it when its horizon is over, or no attempt can help."""
        is_refused = isinstance(error, (REFUSED, EventTooLarge))
        async with self._database.transaction("inbox-set-aside") as tx:
            rows = [row for row in await self._claim(tx, 1) if row.inbox_id in failed]
            poison = {row.inbox_id: Defect(ParkReason.WRONG_VALUE, "value") for row in rows if is_refused}
            later = {row.inbox_id: _UNEXPECTED for row in rows if not is_refused}
            parked, waiting = await self._settle(tx, rows, [], poison, later)
        self._tell(rows, [], parked, waiting)
        self._limit = 2

    def _is_exhausted(self, row: Arrived, now: datetime) -> bool:
        """Answer whether a message was tried long and often enough; time alone may be a jump of the clock, or a long pause."""
        over = now - row.received_at > timedelta(seconds=self._settings.retry_horizon_s)
        return bool(over and row.attempts + 1 >= _ATTEMPTS_MIN)

    def _next_attempt(self, attempts: int, now: datetime) -> datetime:
        """Exponential backoff with full jitter above half, so that a crowd of retries spreads out."""
        longest = min(self._settings.retry_max_s, self._settings.retry_first_s * 2 ** min(attempts, 30))
        return now + timedelta(seconds=random.uniform(longest / 2, longest))  # noqa: S311 -- nothing secret

    def _tell(
        self, rows: Sequence[Arrived], done: Sequence[int], parked: Mapping[int, Defect], waiting: Mapping[int, str]
    ) -> None:
        metrics.INBOX_RETRIED_MESSAGES.add(len(waiting))
        metrics.INBOX_PARKED_MESSAGES.add(len(parked))
        handled = frozenset(done)
        kinds = Counter([row.type for row in rows if row.inbox_id in handled])
        for kind, count in kinds.items():
            metrics.INBOX_HANDLED_MESSAGES.add(count, type=Name(kind))
        if kinds:
            self._told(kinds.keys())
        if parked or log.is_logged(LogLevel.INFO):
            self._log_each(rows, handled, parked, waiting)
        own = sum(1 for row in rows if row.inbox_id in parked and not self._is_foreign(row))
        self._parked_in_a_row = 0 if done else self._parked_in_a_row + own
        if self._parked_in_a_row >= self._settings.parked_in_a_row_max:
            self.halted = True
            log.event("worker.halted", severity=LogLevel.ERROR, parked_in_a_row=self._parked_in_a_row)

    def _log_each(
        self, rows: Sequence[Arrived], handled: frozenset[int], parked: Mapping[int, Defect], waiting: Mapping[int, str]
    ) -> None:
        for row in rows:
            defect = parked.get(row.inbox_id)
            if defect is not None:
                self._log("message.parked", row, LogLevel.WARNING, defect.reason)
            elif row.inbox_id in handled:
                self._log("message.handled", row, LogLevel.INFO)
            elif row.inbox_id in waiting:
                self._log("message.put_off", row, LogLevel.INFO)

    def _log(self, name: str, row: Arrived, severity: LogLevel, reason: ParkReason | None = None) -> None:
        if log.is_logged(severity):
            kind = Name(row.type)
            log.event(name, severity=severity, type=kind, event_id=row.event_id, attempts=row.attempts, reason=reason)


def in_order(messages: Sequence[Message]) -> list[list[Message]]:
    """Group messages by type into as few groups as keep the order of every key.

    A message may join the earliest group of its type that is not before the last group that holds its key.
    """
    groups: list[list[Message]] = []
    last_of_key: dict[bytes, int] = {}
    for message in messages:
        first = last_of_key.get(message.key, 0)
        for index in range(first, len(groups)):
            if groups[index][0].type == message.type:
                groups[index].append(message)
                last_of_key[message.key] = index
                break
        else:
            groups.append([message])
            last_of_key[message.key] = len(groups) - 1
    return groups
