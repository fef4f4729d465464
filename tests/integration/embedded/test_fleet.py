import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from habeas_embedded import fleet as fleet_module
from habeas_embedded import supervision
from habeas_embedded.errors import FleetFailed
from habeas_embedded.fleet import Fleet, FleetPlan
from habeas_embedded.probing import read_metrics
from habeas_embedded.provision import SERVICES, Access, open_access
from habeas_embedded.servers import Servers
from habeas_embedded.waiting import Patience, until

# A service as the fleet sees one: it answers its health port, counts something, and ends in order when told.
STAND_IN = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'# HELP x\\nhabeas_inbox_pending_rows{topic="a"} 2\\nhabeas_inbox_pending_rows{topic="b"} 3.5\\n')
    def log_message(self, *_):
        pass

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
HTTPServer(("127.0.0.1", int(os.environ["REQUEST_INTAKE_HEALTH_PORT"])), Answer).serve_forever()
"""
SLOWLY_READY = """
import json, os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

looks = 0

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        global looks
        looks += 1
        self.send_response(200 if looks > 20 else 503)
        self.end_headers()
        probes = [{"name": "database", "state": "ok"}, {"name": "lanes", "state": "failed"}]
        report = {"state": "failed", "probes": probes, "waiting_for": f"kafka, look {looks}"}
        self.wfile.write(json.dumps(report).encode())
    def log_message(self, *_):
        pass

print("begins", flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
HTTPServer(("127.0.0.1", int(os.environ["REQUEST_INTAKE_HEALTH_PORT"])), Answer).serve_forever()
"""
ONE = ("request-intake",)


def a_plan(*program: str) -> FleetPlan:
    """A plan whose request-intake is another program."""
    return FleetPlan(Path("policy.yaml"), Path("datamap"), programs={"request-intake": program})


@pytest_asyncio.fixture
async def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Servers]:
    """Servers that are all given, so that nothing is started, with a home of their own."""
    monkeypatch.setenv("HABEAS_HOME", str(tmp_path / "home"))
    env = {
        "HABEAS_KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "HABEAS_ADMIN_DATABASE_DSN": "postgresql://admin:secret@127.0.0.1:1/postgres",
        "NOTIFICATION_MAILER_SMTP_HOST": "127.0.0.1",
        "NOTIFICATION_MAILER_SMTP_PORT": "2",
    }
    async with Servers("fleet", env=env) as servers:
        yield servers


@pytest.fixture
def access(given: Servers) -> Access:
    """An access that nobody uses."""
    return open_access(given.postgres_admin_dsn, "habeas")


async def test_dead_member_is_started_again_and_counted(given: Servers, access: Access) -> None:
    """Supervision brings back a member that died, as another process, ready, and says so."""
    fleet = Fleet(given, access, a_plan(sys.executable, "-c", STAND_IN))
    stopping = asyncio.Event()
    await fleet.start(ONE)
    member = fleet.member("request-intake")
    first = member.child.pid
    async with asyncio.TaskGroup() as group:
        group.create_task(fleet.supervise(stopping))
        await fleet.kill("request-intake")
        came_back = await until(lambda: member.child.alive and member.child.pid != first, 10)
        stopping.set()
    await fleet.start_service("request-intake")
    await fleet.stop()
    assert came_back
    assert member.restarts == 1
    assert not member.child.alive


async def test_stopped_member_stays_away(given: Servers, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    """Supervision leaves alone who was stopped on purpose, until somebody starts it; then it is kept again."""
    fleet = Fleet(given, access, a_plan(sys.executable, "-c", STAND_IN))
    monkeypatch.setattr(supervision, "_FIRST_S", 0.0)
    monkeypatch.setattr(supervision, "_LOOK_S", 0.01)
    stopping = asyncio.Event()
    member = fleet.member("request-intake")
    async with asyncio.TaskGroup() as group:
        group.create_task(fleet.supervise(stopping))
        await fleet.start(ONE)
        await fleet.stop_service("request-intake")
        assert not await until(lambda: member.alive, 0.3)  # some thirty looks of the supervisor
        assert member.child.exit_code == 0
        await fleet.start_service("request-intake")
        first = member.child.pid
        await fleet.kill("request-intake")
        assert await until(lambda: member.child.alive and member.child.pid != first, 10)
        stopping.set()
    await fleet.stop()
    assert member.restarts == 1


async def test_member_that_ends_at_once_fails_the_start(given: Servers, access: Access) -> None:
    """A service that refuses its settings ends the start with its own words, not with a time-out."""
    fleet = Fleet(given, access, a_plan(sys.executable, "-c", "import sys; sys.exit('settings are not usable')"))
    with pytest.raises(FleetFailed, match="settings are not usable"):
        await fleet.start(ONE)


async def test_start_waits_for_a_service_that_gets_on_and_says_what_for(
    given: Servers, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that gives one reason after another for longer than one may stand still is waited for; the reasons are said."""
    monkeypatch.setattr(fleet_module, "_START", Patience(still_s=0.8, first_word_s=0.2, later_words_s=0.2))
    said: list[str] = []
    fleet = Fleet(given, access, a_plan(sys.executable, "-c", SLOWLY_READY), said.append)
    await fleet.start(ONE)
    await fleet.stop()
    assert any(
        "request-intake-0: still starting" in each and "not ready: waits for kafka, look " in each for each in said
    )


async def test_start_that_stands_still_is_given_up_with_its_reason(
    given: Servers, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that only repeats one reason is given up with it and the end of its log."""
    monkeypatch.setattr(fleet_module, "_START", Patience(still_s=0.8))
    program = SLOWLY_READY.replace("looks += 1", "looks = 1")
    fleet = Fleet(given, access, a_plan(sys.executable, "-c", program))
    with pytest.raises(FleetFailed, match=r"(?s)stands still \(not ready: waits for kafka, look 1; lanes\).*begins"):
        await fleet.start(ONE)
    await fleet.stop()


async def test_metrics_are_summed_over_labels(given: Servers, access: Access) -> None:
    """Samples of one metric under several labels count together: 2 + 3.5."""
    async with Fleet(
        given, access, FleetPlan(Path("p"), Path("d"), programs=dict.fromkeys(SERVICES, _any_service()))
    ) as fleet:
        assert await read_metrics(fleet.member("request-intake").health_port) == {"habeas_inbox_pending_rows": 5.5}


async def test_environment_holds_no_secret_of_others(
    given: Servers, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service gets its own password and neither another's nor the administrator's, whatever we were started with."""
    monkeypatch.setenv("AUDIT_LEDGER_DATABASE_DSN", "postgresql://audit_ledger:theirs@h/d")
    monkeypatch.setenv("HABEAS_ADMIN_DATABASE_DSN", "postgresql://admin:ours@h/d")
    monkeypatch.setenv("PGPASSWORD", "ours")
    fleet = Fleet(given, access, a_plan(sys.executable))
    env = fleet.environment("request-intake", 0, 1)
    foreign = {access.passwords[role] for role in access.passwords if role != "request_intake"}
    assert access.passwords["request_intake"] in env["REQUEST_INTAKE_DATABASE_DSN"]
    assert not [
        name for name, value in env.items() if value in ("theirs", "ours") or ":ours@" in value or ":theirs@" in value
    ]
    assert not [name for name, value in env.items() if any(password in value for password in foreign)]
    assert env["PATH"] == os.environ["PATH"]


def _any_service() -> tuple[str, ...]:
    find = 'next(v for k, v in os.environ.items() if k.endswith("_HEALTH_PORT"))'
    return (sys.executable, "-c", STAND_IN.replace('os.environ["REQUEST_INTAKE_HEALTH_PORT"]', find))
