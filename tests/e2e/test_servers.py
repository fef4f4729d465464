import asyncio
from itertools import permutations

import pytest

from habeas_embedded.kafka import kafka_answers
from habeas_embedded.ports import answers
from habeas_embedded.postgres import postgres_answers
from habeas_embedded.servers import Server, Servers


@pytest.mark.parametrize("order", list(permutations(["kafka", "postgres", "smtp"]))[::2])
async def test_servers_come_back_in_any_order(servers: Servers, order: tuple[str, ...]) -> None:
    """Killed together and started one after the other, in whatever order, all answer again where clients know them."""
    before = servers.addresses()
    by_name: dict[str, Server] = {"kafka": servers.kafka, "postgres": servers.postgres, "smtp": servers.smtp}
    await asyncio.gather(*(server.kill() for server in by_name.values()))
    assert not any(server.alive for server in by_name.values())
    for name in order:
        await by_name[name].start()
    assert await kafka_answers(servers.kafka_bootstrap)
    assert await postgres_answers(servers.postgres_admin_dsn)
    assert answers(servers.smtp_host, servers.smtp_port)
    assert servers.addresses() == before
