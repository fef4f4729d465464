"""A server is away for long: no service ends, everybody says why nothing goes on, and all goes on by itself when it is back.

`make test-loss ARGS="--away-s=600"` lets each be away for ten minutes.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import pytest
import pytest_asyncio

from habeas.contracts.vocabulary import Right
from habeas_embedded.probing import ask
from habeas_embedded.provision import SERVICES
from habeas_embedded.servers import Server
from tests.support.program import run_habeas
from tests.support.stage import Stage, raised
from tests.support.waiting import never, until

_WELL: Final = 200
_UNREADY: Final = 503
RECOVERS_S: Final = 5.0
"""What is promised of the first effect after a return; told, and judged by whoever reads it."""


@pytest_asyncio.fixture
async def stage() -> AsyncIterator[Stage]:
    """A fleet whose servers are taken away."""
    async with raised(f"tests-away-{os.getpid()}", hasty=True) as stage:
        yield stage


@pytest.fixture
def away_s(request: pytest.FixtureRequest) -> float:
    """For how long."""
    given: float = request.config.getoption("--away-s")
    return given


async def reports(stage: Stage, path: str) -> dict[str, tuple[int, dict[str, Any]]]:
    """What each service says about itself."""
    members = stage.fleet.members
    answers = await asyncio.gather(*(ask(member.health_port, path) for member in members))
    return {
        member.service: (status, json.loads(body or b"{}"))
        for member, (status, body) in zip(members, answers, strict=True)
    }


async def all_blame(stage: Stage, probe: str) -> bool:
    """Answer whether every service is alive, and not ready because of this probe."""
    said = await reports(stage, "/readyz")
    lives = await reports(stage, "/livez")
    unready = [body.get("probes", []) for status, body in said.values() if status == _UNREADY]
    blamed = [{"name": probe, "state": "ok"} not in probes for probes in unready]
    return len(blamed) == len(SERVICES) and all(blamed) and all(status == _WELL for status, _ in lives.values())


async def stays_away(stage: Stage, server: Server, probe: str, away_s: float) -> dict[str, int]:
    """Take a server away for a while, in which no service may end; gives the processes, which are the same afterwards."""
    pids = {member.name: member.child.pid for member in stage.fleet.members}
    await server.stop()
    await until(lambda: all_blame(stage, probe), f"every service blames {probe}")
    stays = await never(lambda: not all(member.child.alive for member in stage.fleet.members), away_s)
    assert stays, "a service ended while a server was away"
    assert await all_blame(stage, probe)
    return pids


async def all_ready(stage: Stage) -> bool:
    """Answer whether every service is ready."""
    return all(status == _WELL for status, _ in (await reports(stage, "/readyz")).values())


async def goes_on(
    stage: Stage, back: float, pids: dict[str, int], capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """Let a request be completed in the same processes, and tell how long the first effect took."""
    person = stage.take_one()
    request_id = await stage.ask(Right.ACCESS, person)

    async def accepted() -> bool:
        try:
            return bool(await stage.request(request_id))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False

    await until(accepted, "the first effect")
    first_s = stage.clock.monotonic() - back
    with capsys.disabled():
        verdict = "" if first_s <= RECOVERS_S else f", more than the promised {RECOVERS_S:.0f} s"
        print(f"\n{what} is back: first effect after {first_s:.2f} s{verdict}")  # noqa: T201 -- told to whoever measures
    await stage.completed(request_id)
    await until(lambda: all_ready(stage), "every service is ready again")
    assert {member.name: member.child.pid for member in stage.fleet.members} == pids


async def test_kafka_is_away(stage: Stage, away_s: float, capsys: pytest.CaptureFixture[str]) -> None:
    """Kafka: every service blames it, `habeas status` says that it does not answer; requests go on by themselves afterwards."""
    pids = await stays_away(stage, stage.servers.kafka, "kafka", away_s)
    status = await run_habeas(stage, "status", "--check")
    assert (status.code, "Kafka does not answer" in status.text) == (1, True), status.text
    await stage.servers.kafka.start()
    back = stage.clock.monotonic()
    await goes_on(stage, back, pids, capsys, "Kafka")


async def test_postgresql_is_away(stage: Stage, away_s: float, capsys: pytest.CaptureFixture[str]) -> None:
    """PostgreSQL: every service blames its database, `habeas status` says what does not answer; requests go on afterwards."""
    pids = await stays_away(stage, stage.servers.postgres, "database", away_s)
    status = await run_habeas(stage, "status", "--check")
    assert (status.code, "PostgreSQL at 127.0.0.1" in status.text) == (1, True), status.text
    await stage.servers.postgres.start()
    back = stage.clock.monotonic()
    stage.habeas = await asyncpg.connect(stage.access.admin_dsn)
    await goes_on(stage, back, pids, capsys, "PostgreSQL")
    await stage.habeas.close()
