"""How a service meets Kafka at its start, and how a producer is given up, with clients that fail as they are told."""

import asyncio
import json
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from aiokafka.errors import KafkaConnectionError
from asyncpg import CannotConnectNowError

from habeas.chassis import drift, history, kafka, log, troubles, waiting
from habeas.chassis.clock import SystemClock
from habeas.chassis.database import ServerChanged
from habeas.chassis.health import Health
from habeas.chassis.producer import Producer
from habeas.chassis.service import Service
from habeas.contracts.platform import RetentionTicked
from tests.support.delivery import PROTECTOR, settings
from tests.support.waiting import HANGS_S, until


class NoDatabase:
    """Stands where the database will be."""

    clock = SystemClock()

    schema = "retention_sweeper"

    def __init__(self) -> None:
        self.server_changed = asyncio.Event()

    def on_commit(self, callback: object) -> None:
        """Take the relay's wish to be told."""

    async def ping(self) -> bool:
        """Answer that nobody is there."""
        return False


async def ignore(batch: object, tx: object) -> None:
    """Handle nothing."""


def service() -> Service:
    """A service with one subscription."""
    made = Service("retention-sweeper", settings(), protection=PROTECTOR)
    made.on(RetentionTicked, cast("Any", ignore))
    return made


async def test_kafka_may_go_away_while_the_service_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is gone again when the group is to be joined is waited for; what was half started is stopped each time."""
    made = service()
    running = made._assemble(cast("Any", NoDatabase()))
    assert running.consumer is not None
    done: list[str] = []

    async def start() -> None:
        done.append("start")
        if len(done) < 5:
            raise KafkaConnectionError

    async def stop() -> None:
        done.append("stop")

    monkeypatch.setattr(running.consumer.broker, "start", start)
    monkeypatch.setattr(running.consumer.broker, "stop", stop)
    assert await made._subscribed(running)
    assert done == ["start", "stop", "start", "stop", "start"]


async def test_a_kafka_that_stays_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long Kafka is away the start goes on waiting, says for what, and ends without a failure when the service is stopped."""
    monkeypatch.setattr(waiting, "_TROUBLE_FIRST_S", 0.001)
    monkeypatch.setattr(waiting, "_TROUBLE_LONGEST_S", 0.001)
    made = service()
    seen: list[str | None] = []

    async def away(*_: object) -> drift.Seen:
        seen.append(made._waits_for)
        if len(seen) == 200:
            made.stopping.set()
        raise KafkaConnectionError

    monkeypatch.setattr(drift, "look", away)
    async with asyncio.timeout(60):
        assert not await made._kafka_there()
    assert (seen[0], set(seen[1:])) == (None, {"kafka"})


@pytest.mark.parametrize(
    ("dsn", "told"),
    [
        (
            "postgresql://x:hunter2@127.0.0.1:1/none?sslmode=verify-full",
            "has sslmode=verify-full and no certificate to check by; add sslrootcert=",
        ),
        (
            "postgresql://x:hunter2@127.0.0.1:1/none",
            ": PostgreSQL at 127.0.0.1:1 refuses the connection: nothing listens there",
        ),
    ],
)
async def test_why_a_database_is_waited_for_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dsn: str, told: str
) -> None:
    """Log and health name the variable, the cause and what to write, and show no password."""
    monkeypatch.setenv("HOME", str(tmp_path))
    lines: list[bytes] = []
    monkeypatch.setattr(log._log, "write", lines.append)
    made = Service("retention-sweeper", settings(dsn), protection=PROTECTOR)
    async with asyncio.TaskGroup() as group:
        waits = group.create_task(made._await_database())
        await until(lambda: made._why is not None, "the reason is known")
        assert str(made._why).startswith("RETENTION_SWEEPER_DATABASE_DSN (or HABEAS_DATABASE_DSN)")
        assert told in str(made._why)
        made.stopping.set()
    assert waits.result() is None
    assert told in json.loads(lines[0])["why"]
    assert b"hunter2" not in b"".join(lines)


async def test_the_database_may_go_away_while_the_service_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has to be done before the work begins is tried again while the database is away, and all of it is done then."""
    made = service()
    done: list[str] = []

    async def trouble(name: str) -> None:
        done.append(name)
        if done.count(name) == 1:
            raise CannotConnectNowError

    made.prepare(lambda _: trouble("prepare"))
    assert await made._prepared(cast("Any", NoDatabase()))
    running = made._assemble(cast("Any", NoDatabase()))
    monkeypatch.setattr(running.control, "look", lambda: trouble("look"))
    monkeypatch.setattr(troubles, "forget", lambda _: trouble("troubles"))
    monkeypatch.setattr(running.lanes, "balance", lambda: trouble("balance"))
    monkeypatch.setattr(made, "_keep_house", lambda _: trouble("house"))
    assert await made._settled(running)
    steps = ["look", "troubles", "balance", "house"]
    assert done == ["prepare", "prepare"] + [step for number in range(1, 5) for step in steps[:number]] + steps


async def test_another_server_during_the_start_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anybody watches: what is refused on a server that nobody has looked at goes on once its history was verified."""
    made = service()
    database = NoDatabase()
    verified: list[str] = []

    async def verify(_: object, name: str, __: object) -> None:
        verified.append(name)
        database.server_changed.clear()

    async def refused(_: object) -> None:
        if not verified:
            database.server_changed.set()
            raise ServerChanged

    monkeypatch.setattr(history, "verify", verify)
    made.prepare(refused)
    assert await made._prepared(cast("Any", database))
    assert verified == ["retention-sweeper"]


async def test_a_start_that_waits_for_long_is_alive() -> None:
    """Until its loop has begun a consumer is not late: whoever restarts what does not live must not restart what waits for Kafka."""
    running = service()._assemble(cast("Any", NoDatabase()))
    health = Health()
    running.register(health)
    assert running.consumer is not None
    status, _, _ = await health._report(health._live, {})
    assert status == 200
    running.consumer.polled_at = SystemClock().monotonic() - 1_000
    status, _, _ = await health._report(health._live, {})
    assert status == 503


async def never() -> None:
    """Wait for what does not come."""
    await asyncio.Event().wait()


async def test_a_job_that_is_cancelled_by_nobody_ends_the_process() -> None:
    """A CancelledError of something that a job waited for is a failure like any other: no job goes missing in silence."""
    made = service()

    async def job() -> None:
        other = asyncio.get_running_loop().create_future()
        other.cancel()
        await other

    await made._guard(job())
    assert isinstance(made._failure, asyncio.CancelledError)
    assert made.stopping.is_set()


async def test_a_job_that_is_cancelled_by_the_stop_is_no_failure() -> None:
    """The stop cancels what is late."""
    made = service()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(made._guard(never()))
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert made._failure is None


async def test_whoever_is_cancelled_while_a_client_stops_is_cancelled() -> None:
    """The CancelledError of the caller passes; only that of a request of the client's is its own affair."""
    consumer = AsyncMock()
    consumer.stop.side_effect = never
    async with asyncio.TaskGroup() as group:
        task = group.create_task(kafka.stop_consumer(consumer))
        await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert not consumer._client.close.called


class StuckProducer:
    """A producer whose broker took its leave: it waits for ever to get rid of what it has."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self._sender = self
        self.client = self

    async def stop(self) -> None:
        """Wait for a broker that never comes."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """End a part."""
        self.ended.append("closed")


async def test_a_producer_without_a_broker_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping is bounded, and leaves neither tasks nor connections of the old producer behind."""
    monkeypatch.setattr("habeas.chassis.producer._STOP_TIMEOUT_S", 0.05)
    producer, stuck = Producer(settings(), "x"), StuckProducer()
    producer._producer = cast("Any", stuck)
    async with asyncio.timeout(HANGS_S):
        await producer.stop()
    assert stuck.ended == ["closed", "closed"]
    assert producer._producer is None
