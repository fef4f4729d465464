"""The worker: takes stored messages in batches and runs handlers, one transaction a batch.

A batch that fails is not thrown at the handlers again as it is. When a handler names the message (by raising inside the iteration),
that message alone gets the verdict and the rest runs again; when nobody is named, the next claim is half as large, until the bad
message is alone. Trouble with the database blames no message.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from habeas.chassis import log, metrics, store, tracing
from habeas.chassis.batch import Batch
from habeas.chassis.database import TRANSIENT, Database, Transaction
from habeas.chassis.errors import Invariant, Poison, Retry
from habeas.chassis.lanes import Lanes
from habeas.chassis.message import Defect, Message, Protection, read
from habeas.chassis.redaction import Name
from habeas.chassis.settings import ChassisSettings, LogLevel
from habeas.contracts.audit import Action, AuditFact
from habeas.contracts.topics import Topic
from habeas.contracts.vocabulary import ParkReason

Handler = Callable[[Batch[Any], Transaction], Awaitable[None]]

_UNEXPECTED: Final = "unexpected"


@dataclass(slots=True)
class _Attempt:
    """Verdicts on single messages, found in earlier runs of the same claim."""

    poison: dict[int, Defect] = field(default_factory=dict)
    later: dict[int, str] = field(default_factory=dict)


class _Blamed(Exception):
    def __init__(self, message: Message, verdict: Poison | Retry) -> None:
        super().__init__()
        self.message = message
        self.verdict = verdict


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
        handled: Callable[[], None] = lambda: None,
    ) -> None:
        self.wake = asyncio.Event()
        self.halted = False
        self._database = database
        self._lanes = lanes
        self._handlers = handlers
        self._topics = topics
        self._protection = protection
        self._settings = settings
        self._told = handled
        self._tolerance = timedelta(seconds=settings.clock_tolerance_s)
        self._limit = settings.inbox_batch_rows_max
        self._parked_in_a_row = 0
        self._more = True  # the last claim was full, or not everything could be settled: look again at once

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until told to stop; the batch in progress is finished. An ``Invariant`` ends the process."""
        while not stopping.is_set():
            self.wake.clear()
            try:
                handled = 0 if self.halted else await self.step()
            except TRANSIENT as error:
                log.event("worker.database_trouble", error=error)
                await _pause(stopping, self._settings.poll_interval_s)
                continue
            if handled:
                self._told()
            if not handled or not self._more:
                await wait_any(self.wake, stopping, self._settings.poll_interval_s)

    async def step(self) -> int:
        """Handle one batch; gives how many messages it settled."""
        attempt = _Attempt()
        while True:
            try:
                settled = await self._handle(attempt)
            except _Blamed as blamed:
                _note(attempt, blamed)
            except (Invariant, *TRANSIENT):
                raise
            except Exception as error:  # noqa: BLE001 -- whatever a handler raises must not cost a message
                log.event("worker.batch_failed", error=error, limit=self._limit)
                if self._limit == 1:
                    await self._settle_alone()
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
            self._more = len(rows) == self._limit
            if not rows:
                return 0
            claimed = {row["inbox_id"] for row in rows}  # lanes may have moved since the verdicts were given
            poison = {key: defect for key, defect in attempt.poison.items() if key in claimed}
            put_off = {key: why for key, why in attempt.later.items() if key in claimed}
            messages: list[Message] = []
            for row in rows:
                got = read(row, self._topics, self._protection, tx.now, self._tolerance)
                if isinstance(got, Defect):
                    poison[row["inbox_id"]] = got
                elif row["inbox_id"] not in poison:
                    messages.append(got)
            later = _held_back(messages, put_off)
            ready = [message for message in messages if message.inbox_id not in later]
            spans = tracing.start_messages(ready, tx.now)
            tx.caused_by(*spans.traces.values())
            with tracing.finished(spans):
                for group in in_order(ready):
                    await self._call(group, tx, spans.traces, poison)
                done = [message.inbox_id for message in ready if message.inbox_id not in poison]
                await self._settle(tx, rows, done, poison, put_off)
        self._tell(ready, poison, len(done))
        return len(done) + len(poison) + len(put_off)

    async def _claim(self, tx: Transaction, limit: int) -> list[Any]:
        lanes, tokens = self._lanes.of_messages()
        if not lanes:
            return []
        return await tx.fetch(store.CLAIM, self._lanes.holder, lanes, tokens, tx.now, limit)

    async def _call(
        self, group: Sequence[Message], tx: Transaction, traces: Mapping[int, str | None], poison: dict[int, Defect]
    ) -> None:
        batch: Batch[Any] = Batch(group, traces)
        try:
            await self._handlers[group[0].type](batch, tx)
        except (Poison, Retry) as verdict:
            if batch.current is None and len(group) > 1:
                message = f"a handler of {group[0].type} gave a verdict on no message"
                raise RuntimeError(message) from verdict
            raise _Blamed(batch.current or group[0], verdict) from verdict
        poison.update(batch.rejected)

    async def _settle(
        self,
        tx: Transaction,
        rows: Sequence[Any],
        done: list[int],
        poison: Mapping[int, Defect],
        later: Mapping[int, str],
    ) -> None:
        if done:
            await tx.execute_exactly(len(done), store.MARK_HANDLED, tx.now, done)
        by_id = {row["inbox_id"]: row for row in rows}
        exhausted = {key: why for key, why in later.items() if self._is_exhausted(by_id[key], tx.now)}
        parked = {**poison, **{key: Defect(ParkReason.EXHAUSTED, why) for key, why in exhausted.items()}}
        if parked:
            blocks = [key in exhausted or self._topics[by_id[key]["topic"]].ordered for key in parked]
            reasons = [defect.reason.value for defect in parked.values()]
            fields = [defect.field for defect in parked.values()]
            await tx.execute_exactly(len(parked), store.MARK_PARKED, tx.now, list(parked), reasons, fields, blocks)
            tx.record(*(AuditFact(Action.MESSAGE_PARKED) for _ in parked))
        waiting = {key: why for key, why in later.items() if key not in exhausted}
        if waiting:
            times = [self._next_attempt(by_id[key]["attempts"], tx.now) for key in waiting]
            await tx.execute_exactly(len(waiting), store.MARK_WAITING, list(waiting), times, list(waiting.values()))

    async def _settle_alone(self) -> None:
        """Give the single message that makes its handler fail a later attempt, or park it when its horizon is over."""
        async with self._database.transaction("inbox-set-aside") as tx:
            rows = await self._claim(tx, 1)
            if rows:
                await self._settle(tx, rows, [], {}, {rows[0]["inbox_id"]: _UNEXPECTED})
        self._limit = 2

    def _is_exhausted(self, row: Any, now: datetime) -> bool:  # noqa: ANN401 -- an asyncpg record
        return bool(now - row["received_at"] > timedelta(seconds=self._settings.retry_horizon_s))

    def _next_attempt(self, attempts: int, now: datetime) -> datetime:
        """Exponential backoff with full jitter above half, so that a crowd of retries spreads out."""
        longest = min(self._settings.retry_max_s, self._settings.retry_first_s * 2 ** min(attempts, 30))
        return now + timedelta(seconds=random.uniform(longest / 2, longest))  # noqa: S311 -- jitter

    def _tell(self, ready: Sequence[Message], poison: Mapping[int, Defect], done: int) -> None:
        for message in ready:
            defect = poison.get(message.inbox_id)
            kind = Name(message.type)
            if defect is None:
                metrics.INBOX_HANDLED_MESSAGES.add(type=kind)
            else:
                metrics.INBOX_PARKED_MESSAGES.add()
            if log.is_logged(LogLevel.INFO):
                log.event(
                    "message.handled" if defect is None else "message.parked",
                    type=kind,
                    event_id=message.event_id,
                    attempts=message.attempts,
                    reason=defect.reason if defect else None,
                )
        self._parked_in_a_row = 0 if done else self._parked_in_a_row + len(poison)
        if self._parked_in_a_row >= self._settings.parked_in_a_row_max:
            self.halted = True
            log.event("worker.halted", severity=LogLevel.ERROR, parked_in_a_row=self._parked_in_a_row)


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


def _held_back(messages: Sequence[Message], later: Mapping[int, str]) -> set[int]:
    """Give the messages that are put off, and those of the same keys that come after them."""
    keys: set[bytes] = set()
    held: set[int] = set()
    for message in messages:
        if message.inbox_id in later:
            keys.add(message.key)
            held.add(message.inbox_id)
        elif message.key in keys:
            held.add(message.inbox_id)
    return held


def _note(attempt: _Attempt, blamed: _Blamed) -> None:
    if isinstance(blamed.verdict, Poison):
        attempt.poison[blamed.message.inbox_id] = Defect(blamed.verdict.reason, blamed.verdict.field)
    else:
        attempt.later[blamed.message.inbox_id] = blamed.verdict.because


async def wait_any(first: asyncio.Event, second: asyncio.Event, limit_s: float) -> bool:
    """Wait until either event is set or the limit is over; answers whether one was set."""
    if first.is_set() or second.is_set():
        return True
    loop = asyncio.get_running_loop()
    waiters = [loop.create_task(first.wait()), loop.create_task(second.wait())]
    try:
        done, _ = await asyncio.wait(waiters, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for waiter in waiters:
            waiter.cancel()


async def _pause(stopping: asyncio.Event, limit_s: float) -> None:
    await wait_any(stopping, stopping, limit_s)
