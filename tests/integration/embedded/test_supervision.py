import asyncio
import os
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from habeas_embedded.errors import ServerFailed
from habeas_embedded.kafka import kafka_answers
from habeas_embedded.own_server import OwnServer
from habeas_embedded.ports import answers
from habeas_embedded.servers import Servers
from habeas_embedded.supervision import Backoff
from habeas_embedded.waiting import until

BACK_S = 60


@pytest_asyncio.fixture
async def supervised() -> AsyncIterator[tuple[Servers, list[str]]]:
    """All three servers, supervised, and what was told about them."""
    told: list[str] = []
    async with (
        Servers(f"tests-kept-alive-{os.getpid()}", ephemeral=True, hasty=True, env={}) as servers,
        asyncio.TaskGroup() as group,
    ):
        supervision = group.create_task(servers.supervise(asyncio.Event(), told.append))
        yield servers, told
        supervision.cancel()


async def test_dead_servers_come_back_at_their_addresses(supervised: tuple[Servers, list[str]]) -> None:
    """Kafka, PostgreSQL and the sink, killed by somebody else at once, answer again where clients know them; both is said."""
    servers, told = supervised
    before = servers.addresses()
    own = [server for server in servers._own() if isinstance(server, OwnServer)]
    dead = {server.name: server._child for server in own}
    for child in dead.values():
        assert child is not None
        await child.kill()

    async def all_answer() -> bool:
        return (
            await kafka_answers(servers.kafka_bootstrap)
            and answers(servers.smtp_host, servers.smtp_port)
            and await one(servers) == 1
        )

    assert await until(all_answer, BACK_S), told
    assert await until(lambda: sum("answers again" in each for each in told) == 3, BACK_S), told
    assert servers.addresses() == before
    assert {each.partition(" died")[0] for each in told if "died" in each} == set(dead) == {"kafka", "postgres", "smtp"}


async def one(servers: Servers) -> int:
    """Ask PostgreSQL for a one; 0 when it does not answer."""
    try:
        connection = await asyncpg.connect(servers.postgres_admin_dsn, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return 0
    try:
        return int(await connection.fetchval("SELECT 1"))
    finally:
        await connection.close()


async def test_failed_restart_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hinders a restart is said, and does not end the supervision."""
    told: list[str] = []
    async with Servers(f"tests-kept-trying-{os.getpid()}", only=["smtp"], ephemeral=True, env={}) as servers:
        start, tries = servers.smtp.start, 0

        async def fail_once() -> None:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise ServerFailed("no room on the disk")
            await start()

        monkeypatch.setattr(servers.smtp, "start", fail_once)
        async with asyncio.TaskGroup() as group:
            supervision = group.create_task(servers.supervise(asyncio.Event(), told.append))
            await servers.smtp.kill()
            assert await until(lambda: "answers again" in told[-1] if told else False, BACK_S), told
            supervision.cancel()
    assert "no room on the disk" in told


async def test_server_stopped_on_purpose_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Supervision leaves alone what was stopped, and keeps it again once it was started."""
    monkeypatch.setattr("habeas_embedded.supervision._LOOK_S", 0.01)
    monkeypatch.setattr("habeas_embedded.supervision._FIRST_S", 0.0)
    told: list[str] = []
    async with (
        Servers(f"tests-kept-away-{os.getpid()}", only=["smtp"], ephemeral=True, env={}) as servers,
        asyncio.TaskGroup() as group,
    ):
        supervision = group.create_task(servers.supervise(asyncio.Event(), told.append))
        await servers.smtp.stop()
        assert not await until(lambda: servers.smtp.alive, 0.3)  # some thirty looks of the supervisor
        assert told == []
        await servers.smtp.start()
        await servers.smtp.kill()
        assert await until(lambda: servers.smtp.alive, BACK_S)
        supervision.cancel()


def test_pauses_double_and_begin_anew() -> None:
    """0.5, 1, 2 … 30 s for what dies at once; 0.5 s again for what has run for more than a minute."""
    backoff = Backoff()
    assert [backoff.after(0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [backoff.after(61), backoff.after(0)] == [0.5, 1]
