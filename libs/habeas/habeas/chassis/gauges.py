"""Gauges of a running service: what waits, who works, how full the pool is. Counted when somebody asks for them."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

from habeas.chassis import log, metrics, store
from habeas.chassis.clock import Clock
from habeas.chassis.consumer import Consumer
from habeas.chassis.database import TRANSIENT, Database
from habeas.chassis.errors import Invariant
from habeas.chassis.lanes import Lanes
from habeas.chassis.redaction import named
from habeas.chassis.sweep import Sweep
from habeas.chassis.worker import Worker

_FRESH_S: Final = 1.0
_RESTS: Final = 25.0  # long queues take long to count; counting them must take no part in making them longer
_REST_S_MAX: Final = 30.0
_LIMIT_S: Final = 5.0


class Counts:
    """What is counted in the database when metrics are asked for: not again within a second, nor more often than it can be afforded."""

    def __init__(self, clock: Clock, counting: Sequence[Callable[[], Awaitable[None]]]) -> None:
        self._clock = clock
        self._counting = counting
        self._again_at = -math.inf
        self._turn = asyncio.Lock()

    async def refresh(self) -> None:
        """Count anew, in five seconds at most; while the database is away, figures stay as they were last counted."""
        async with self._turn:
            begun = self._clock.monotonic()
            if begun < self._again_at:
                return
            try:
                async with asyncio.timeout(_LIMIT_S):
                    for count in self._counting:
                        await count()
            except TRANSIENT as error:
                log.event("service.not_counted", error=error)
            ended = self._clock.monotonic()
            self._again_at = ended + max(_FRESH_S, min(_REST_S_MAX, _RESTS * (ended - begun)))


async def show(
    database: Database, lanes: Lanes, worker: Worker, consumer: Consumer | None, sweeps: Sequence[Sweep]
) -> None:
    """Show how everything stands now. Raises what the database raises."""
    inbox = await _one(database, store.COUNT_INBOX)
    outbox = await _one(database, store.COUNT_OUTBOX)
    held = await _one(database, store.COUNT_LANES)
    now, monotonic = database.clock.now(), database.clock.monotonic()
    metrics.INBOX_PENDING_ROWS.set(inbox["pending"])
    metrics.INBOX_PARKED_ROWS.set(inbox["parked"])
    metrics.INBOX_OLDEST_AGE_S.set(_age_s(now, inbox["oldest_pending_at"]))
    metrics.INBOX_HALTED_WORKERS.set(worker.halted)
    metrics.OUTBOX_UNPUBLISHED_ROWS.set(outbox["unpublished"])
    metrics.OUTBOX_OLDEST_AGE_S.set(_age_s(now, outbox["oldest_unpublished_at"]))
    metrics.LANE_HELD_LANES.set(len(lanes.held))
    metrics.LANE_FREE_LANES.set(held["free"])
    metrics.LANE_LIVE_REPLICAS.set(held["replicas"])
    pool = database.pool
    metrics.POOL_OPEN_CONNECTIONS.set(pool.get_size())
    metrics.POOL_USED_CONNECTIONS.set(pool.get_size() - pool.get_idle_size())
    metrics.POOL_LIMIT_CONNECTIONS.set(pool.get_max_size())
    if consumer is not None:
        client = consumer.subscriber.consumer
        metrics.KAFKA_POLL_AGE_S.set(0.0 if consumer.polled_at is None else monotonic - consumer.polled_at)
        metrics.KAFKA_HELD_PARTITIONS.set(0 if client is None else len(client.assignment()))
    for sweep in sweeps:
        if sweep.ended_at is not None:
            metrics.SWEEP_LAST_RUN_AGE_S.set(monotonic - sweep.ended_at, sweep=named(sweep.name))


async def _one(database: Database, sql: str) -> store.Row:
    rows = await database.read("gauges", sql)
    if len(rows) != 1:
        message = "an aggregate gives one row"
        raise Invariant(message)
    return rows[0]


def _age_s(now: datetime, then: datetime | None) -> float:
    return 0.0 if then is None else max(0.0, (now - then).total_seconds())


async def show_stuck(database: Database, sql: str) -> None:
    """Show what waits for somebody to look; the statement gives `work`, `reason`, `rows` and `oldest_at`, null where nobody knows."""
    rows = await database.read("measure-stuck", sql)
    now = database.clock.now()
    metrics.WORK_STUCK_ROWS.show_all({(named(row["work"]), named(row["reason"])): row["rows"] for row in rows})
    metrics.WORK_OLDEST_STUCK_AGE_S.show_all(
        {
            (named(row["work"]), named(row["reason"])): _age_s(now, row["oldest_at"])
            for row in rows
            if row["oldest_at"] is not None
        }
    )
