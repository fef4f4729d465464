"""Pausing, resuming and log levels, by command, at services that run: it takes effect within seconds and survives a restart."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator

import pytest_asyncio
from click.testing import CliRunner

from habeas.cli.main import habeas
from habeas_embedded.servers import Servers
from tests.architecture.test_alerts import queries, shown
from tests.support import promql
from tests.support.toy_fleet import PAIR, Toys, paired
from tests.support.waiting import HANGS_S

SERVICE = "erasure-executor"


@pytest_asyncio.fixture
async def toys(own_servers: Servers) -> AsyncIterator[Toys]:
    """The pair on servers of its own: what is put on record here would look like another database's past to others."""
    async with paired(own_servers) as pair:
        yield pair


async def command(toys: Toys, *arguments: str) -> None:
    """Run a command as a supervisor."""
    given = [*arguments, "--dsn", toys.access.supervisor_dsn]
    env = {"HABEAS_ENVIRONMENT": "development"}
    result = await asyncio.to_thread(CliRunner().invoke, habeas, given, env=env)
    assert result.exit_code == 0, result.output


def asked(toys: Toys, path: str) -> str:
    """What the service answers on its health port."""
    port = toys.fleet.member(SERVICE).health_port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=HANGS_S) as answer:
        body: bytes = answer.read()
    return body.decode()


async def shows(toys: Toys, **wanted: object) -> None:
    """Wait until /readyz shows this."""

    async def shown() -> bool:
        control = json.loads(await asyncio.to_thread(asked, toys, "/readyz"))["control"]
        return {name: control[name] for name in wanted} == wanted

    await toys.until(shown, f"/readyz with {wanted}")


async def test_pause_resume_and_log_level_while_running(toys: Toys) -> None:
    """A paused service stores and handles nothing, also after a restart, until it is resumed; the log level changes on the way."""
    keys = await toys.add(20)
    await toys.fleet.start(PAIR)
    await toys.want(2)
    await toys.hears(40)

    await command(toys, "pause", SERVICE)
    await shows(toys, paused=True)
    rendered = await asyncio.to_thread(asked, toys, "/metrics")
    assert "habeas_control_paused_services 1.0" in rendered
    named = {name for _, query in queries() for name in promql.read(query).metrics}
    assert named <= shown(rendered.encode()).keys()  # rules and dashboard ask for what a running service shows
    await toys.want(2)

    async def stored() -> bool:
        return bool(await toys.connection.fetchval("SELECT count(*) = 80 FROM erasure_executor.seen"))

    await toys.until(stored, "everything stored")
    await command(toys, "log-level", SERVICE, "info")
    await shows(toys, log_level="info", paused=True)
    await toys.fleet.stop_service(SERVICE)
    await toys.fleet.start_service(SERVICE)
    await shows(toys, log_level="info", paused=True)
    assert await toys.heard() == 40
    assert not toys.logged(SERVICE, '"message.handled"')

    await command(toys, "resume", SERVICE)
    await toys.hears(80)
    assert await toys.effects() == {key: [1, 2, 3, 4] for key in keys}
    assert toys.logged(SERVICE, '"message.handled"')
    await command(toys, "log-level", SERVICE, "--reset")
    await shows(toys, log_level="warning", paused=False)
