import asyncio
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
import psutil
import pytest
import pytest_asyncio

from habeas_embedded.kafka import kafka_answers
from habeas_embedded.places import cache_directory
from habeas_embedded.places import home as embedded_home
from habeas_embedded.ports import answers
from habeas_embedded.probing import is_ready
from habeas_embedded.waiting import until

SERVERS: Final = ("kafka", "postgres", "smtp")
COMES_S: Final = 150.0


@dataclass
class Up:
    """A running `habeas up` and the file into which it writes."""

    process: asyncio.subprocess.Process
    said: Path
    home: Path

    @property
    def text(self) -> str:
        """What it has said so far, to whichever of its two outputs."""
        return self.said.read_text(encoding="utf-8")

    @property
    def run(self) -> Path:
        """The directory of its run."""
        return self.home / "run" / "tests-up"

    def addresses(self) -> dict[str, str | int]:
        """Where everything is."""
        found: dict[str, str | int] = json.loads((self.run / "addresses.json").read_text())
        return found

    def pids(self) -> dict[str, int]:
        """The processes of the run."""
        state = json.loads((self.run / "state.json").read_text())
        return {each["name"]: each["pid"] for each in state["processes"]}


@pytest_asyncio.fixture
async def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Up]:
    """`habeas up` with the demonstration's platform, without a terminal, in a home of its own, ready."""
    said = tmp_path / "said"
    # Not under pytest's own directory: as root PostgreSQL runs as another user, and every start of pytest closes that one to others.
    home = embedded_home() / f"tests-up-{os.getpid()}" / "its-name-is-so-long-that-eighty-columns-do-not-hold-it"
    own = {"HABEAS_HOME": str(home), "HABEAS_CACHE": str(cache_directory()), "HABEAS_SERVERS": "embedded"}
    env = os.environ | own | {"COLUMNS": "80"}
    with said.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("habeas")), "up", "--name", "tests-up"),
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )
    up = Up(process, said, home)
    try:
        assert await until(lambda: "Ctrl-C stops everything." in up.text or process.returncode is not None, COMES_S)
        assert process.returncode is None, up.text
        yield up
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.wait()
        await asyncio.to_thread(shutil.rmtree, home.parent)


async def serves(addresses: dict[str, str | int]) -> bool:
    """Answer whether all three servers answer at these addresses."""
    try:
        connection = await asyncpg.connect(str(addresses["postgres_admin_dsn"]), timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return False
    await connection.close()
    return answers(str(addresses["smtp_host"]), int(addresses["smtp_port"])) and await kafka_answers(
        str(addresses["kafka_bootstrap"])
    )


async def run_habeas(up: Up, program: str) -> tuple[int | None, str, str]:
    """Run a shell program that calls `habeas` in a shell that knows nothing of a fleet but where its home is."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("HABEAS_")}
    places = {"HABEAS_HOME": str(up.home), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    shell = await asyncio.create_subprocess_exec(
        *("sh", "-c", program), env=bare | places, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await shell.communicate()
    return shell.returncode, output.decode(), errors.decode()


@pytest.mark.timeout(400)
async def test_commands_find_the_fleet_by_themselves_and_from_its_file(up: Up) -> None:
    """A new shell needs no variable: a command finds the fleet and says which; what is printed gives the same to any shell."""
    code, output, errors = await run_habeas(up, "habeas status --json")
    assert (code, json.loads(output)["kafka"]) == (0, "answers"), errors
    assert errors == f"speaking to the local fleet tests-up ({up.run})\n"
    code, output, errors = await run_habeas(up, "habeas request submit access --account nobody --country DE --json")
    assert (code, set(json.loads(output))) == (0, {"request_id"}), errors
    (line,) = [line for line in up.text.splitlines() if line.startswith("source ")]
    code, output, errors = await run_habeas(
        up, f"{line.replace('source', '.')}; habeas status --json; habeas parked list"
    )
    assert (code, errors) == (0, ""), errors
    assert (up.run / "env").stat().st_mode & 0o077 == 0
    code, output, errors = await run_habeas(up, "HABEAS_ENVIRONMENT=production habeas status")
    assert (code, "HABEAS_OPERATOR_DATABASE_DSN" in errors) == (2, True)


@pytest.mark.timeout(400)
async def test_up_brings_servers_back_and_its_lines_are_whole(up: Up) -> None:
    """All three servers are killed: each comes back at its address, which is said; paths are whole; no library speaks in between."""
    addresses, before = up.addresses(), up.pids()
    assert str(addresses["kafka_data_dir"]) in up.text  # longer than a line, and neither cut nor folded
    for name in SERVERS:
        psutil.Process(before[name]).kill()
    assert await until(lambda: all(f"{name} answers again" in up.text for name in SERVERS), COMES_S), up.text
    assert await serves(addresses)
    assert all(up.pids()[name] != before[name] for name in SERVERS)
    ports = [int(str(url).split(":")[2].split("/")[0]) for name, url in addresses.items() if name.endswith("_health")]

    async def all_ready() -> bool:
        return all([await is_ready(port) for port in ports])

    assert await until(all_ready, COMES_S), up.text
    up.process.send_signal(signal.SIGINT)
    assert await up.process.wait() == 0
    ours = re.compile(r"(✓ .* \(\d+\.\d s\)|[\w-]+: still starting, .*|[\w-]+: answers after .*|stopping|(making|formatting) .*"
                      r"|[\w-]+ died and .*|[\w-]+ answers again after .*|[\w -]+  \S+"
                      r"|`habeas` commands find this fleet .*|source \S+/env|Ctrl-C stops everything\.)")  # fmt: skip
    assert [line for line in up.text.splitlines() if line and not ours.fullmatch(line)] == []
    assert not any(psutil.pid_exists(pid) for pid in up.pids().values())
