"""PostgreSQL restarted, and failed over to a replica: nothing lost, nothing twice."""

import os
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from habeas_embedded.servers import Servers
from tests.support.standby import standing_by
from tests.support.toy_fleet import PAIR, Toys, paired

WAIT_S: Final = 60.0


@pytest_asyncio.fixture
async def own() -> AsyncIterator[Servers]:
    """Durable servers of one test alone: their PostgreSQL is killed for good."""
    async with Servers(f"tests-database-{os.getpid()}", ephemeral=True, env={}) as servers:
        yield servers


def pids(toys: Toys) -> list[int]:
    """Give the processes of the pair; the same ones afterwards mean that nobody had to be restarted."""
    return [toys.fleet.member(service).child.trace().pid for service in PAIR]


@pytest.mark.timeout(240)
async def test_services_outlive_restarts_of_postgresql(servers: Servers) -> None:
    """Under load PostgreSQL is stopped once and killed once; the same processes go on, everything arrives once in order."""
    async with paired(servers) as toys:
        keys = await toys.add(40)
        await toys.fleet.start(PAIR)
        before = pids(toys)
        await toys.want(10)
        for end in (toys.servers.postgres.stop, toys.servers.postgres.kill):
            heard = await toys.heard()
            await toys.want(15)
            assert await toys.hears(heard + 1, WAIT_S)
            await end()
            await toys.servers.postgres.start()
            await toys.reconnect()
        assert await toys.hears(1600, WAIT_S), await toys.heard()
        assert await toys.effects() == {key: list(range(1, 41)) for key in keys}
        assert pids(toys) == before


@pytest.mark.timeout(240)
async def test_services_follow_a_failover(own: Servers) -> None:
    """Under load the primary is killed for good and its synchronous replica promoted: nothing is lost, nothing comes twice."""
    async with standing_by(own) as standby:
        port = urlsplit(own.postgres_admin_dsn).port
        async with paired(own, hosts=f"127.0.0.1:{port},127.0.0.1:{standby.port}") as toys:
            keys = await toys.add(40)
            await toys.fleet.start(PAIR)
            before = pids(toys)
            await toys.want(20)
            assert await toys.hears(100, WAIT_S)
            await own.postgres.kill()
            await standby.promote()
            await toys.reconnect(standby.admin_dsn)
            await toys.want(20)
            assert await toys.hears(1600, WAIT_S), await toys.heard()
            assert await toys.effects() == {key: list(range(1, 41)) for key in keys}
            assert pids(toys) == before
