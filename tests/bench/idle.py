"""B15: what a fleet takes that has nothing to do, beside the same servers with nobody connected.

Processes are looked at from the outside, at the beginning and the end of a window; nothing is asked in between. Requests to Kafka are
counted in a second, shorter stage, as whoever counts them has to stand in their way.
"""

import asyncio
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
from rich.console import Console
from rich.table import Table

from habeas.chassis.clock import SystemClock
from habeas_demo.generator import PLATFORM_DIR
from habeas_demo.platform import prepare_platform
from habeas_embedded.fleet import Fleet, FleetPlan
from habeas_embedded.kafka import KafkaServer
from habeas_embedded.ports import LOOPBACK, free_port
from habeas_embedded.probing import ask
from habeas_embedded.processes import Child, end_of_log
from habeas_embedded.provision import SERVICES, prepare_database
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from habeas_embedded.waiting import until
from tests.bench import outside
from tests.bench.front import Front
from tests.bench.outside import Cost, Look, Machine
from tests.bench.report import Figure

_START_LIMIT_S: Final = 600.0
_STOP_LIMIT_S: Final = 120.0
_PAUSE_S: Final = 5.0  # from a question to the window
_NOTED: Final = 12
_LEAST_CORES: Final = 1e-5  # less is less than the kernel counts: one tick in a thousand seconds
_SHOWN_PER_S: Final = 0.01
_OURS: Final = ("HABEAS_HOME", "HABEAS_CACHE")
_EMBEDDED: Final = {"HABEAS_SERVERS": "embedded"}
_CLOCK: Final = SystemClock()
_STATEMENTS: Final = re.compile(
    rb'^habeas_transaction_statements_total\{[^}]*transaction="([^"]*)"[^}]*\} (\S+)$', re.MULTILINE
)
_YARDSTICK: Final = """
import asyncio, json
data = {str(n): [n, str(n)] for n in range(100)}
async def main():
    while True:
        await asyncio.sleep(0.02)
        json.loads(json.dumps(data))
asyncio.run(main())
"""  # always the same work at the same pace: what it takes tells how quick the machine was in these minutes
_ENDED: Final = "SELECT datname, xact_commit + xact_rollback AS ended FROM pg_stat_database WHERE datname IS NOT NULL"

Addresses = Mapping[str, Any]
Rates = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class Times:
    """How long to wait and to look; B15 is of the defaults, anything shorter is for trying."""

    settle_s: float
    window_s: float
    front_settle_s: float
    front_window_s: float

    @classmethod
    def read(cls) -> "Times":
        """Take the times from the environment."""
        return cls(
            float(os.environ.get("HABEAS_BENCH_SETTLE_S", "300")),
            float(os.environ.get("HABEAS_BENCH_IDLE_S", "600")),
            float(os.environ.get("HABEAS_BENCH_FRONT_SETTLE_S", "60")),
            float(os.environ.get("HABEAS_BENCH_FRONT_S", "120")),
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """What counters say at one time: the services' statements by transaction, PostgreSQL's ended transactions by database."""

    at_s: float
    statements: Mapping[tuple[str, str], float]
    ended: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Quiet:
    """What the first stage found, all of it per second; `others` is what the rest of the machine took, in cores."""

    fleet: Mapping[str, Cost]
    floor: Mapping[str, Cost]
    kafka_threads: Mapping[str, Cost]
    floor_threads: Mapping[str, Cost]
    statements: Rates
    ended: Mapping[str, float]
    database: str
    yardstick: Cost
    others: float
    disturbance: str


async def measure(console: Console) -> list[Figure]:
    """Measure a quiet fleet and quiet servers in the same window, then the requests to Kafka of another quiet fleet."""
    times = Times.read()
    quiet = await _quiet(console, times)
    _show_parts(console, quiet)
    _show_causes(console, "Statements per second", ("service", "transaction"), quiet.statements)
    requests = await _requests(console, times)
    _show_causes(console, "Requests to Kafka per second", ("client", "API"), requests)
    return [*_cores(quiet), *_wakeups(quiet), *_work(quiet, requests)]


async def _quiet(console: Console, times: Times) -> Quiet:
    async with AsyncExitStack() as stack:
        logs = Path(stack.enter_context(TemporaryDirectory()))  # its files hold DSNs
        console.print("B15: servers with nobody connected, and a fleet with nothing to do")
        servers = (sys.executable, "-m", "habeas_embedded.servers", "--name", "bench-idle-floor")
        floor, addresses = await _started(stack, Child("floor", servers, logs / "floor.log", env=_environment()))
        await asyncio.gather(
            prepare_database(addresses["postgres_admin_dsn"]), create_topics(addresses["kafka_bootstrap"])
        )
        yardstick = Child("yardstick", (sys.executable, "-c", _YARDSTICK), logs / "yardstick.log")
        yardstick.spawn()
        stack.push_async_callback(yardstick.stop, _STOP_LIMIT_S)
        up = (str(Path(sys.executable).with_name("habeas")), "up", "--name", "bench-idle", "--json")
        fleet, addresses = await _started(stack, Child("up", up, logs / "up.log", env=_environment()))
        console.print(f"both run; {times.settle_s:.0f} s to settle, then {times.window_s:.0f} s are measured")
        await asyncio.sleep(times.settle_s)
        asked = await _ask(addresses)
        await asyncio.sleep(_PAUSE_S)
        before, machine = _look(floor, fleet, yardstick), Machine.look(_CLOCK.monotonic())
        await asyncio.sleep(times.window_s)
        after, machine_after = _look(floor, fleet, yardstick), Machine.look(_CLOCK.monotonic())
        await asyncio.sleep(_PAUSE_S)
        asked_after = await _ask(addresses)
    costs = [outside.costs(*each) for each in zip(before, after, strict=True)]
    others, disturbance = _disturbance(machine, machine_after, costs)
    length_s = asked_after.at_s - asked.at_s
    return Quiet(
        costs[1],
        costs[0],
        outside.costs_by_thread(before[1], after[1], "kafka"),
        outside.costs_by_thread(before[0], after[0], "kafka"),
        {cause: (n - asked.statements.get(cause, 0)) / length_s for cause, n in asked_after.statements.items()},
        {name: (n - asked.ended.get(name, 0)) / length_s for name, n in asked_after.ended.items()},
        urlsplit(addresses["database_owner_dsn"]).path.strip("/"),
        costs[2]["yardstick"],
        others,
        disturbance,
    )


def _look(*children: Child) -> list[Look]:
    return [outside.look(child.pid, child.name, _CLOCK.monotonic()) for child in children]


async def _started(stack: AsyncExitStack, child: Child) -> tuple[Child, Addresses]:
    """Start a program that prints its addresses when it is ready; it is stopped with the stack. Raises AssertionError."""
    child.spawn()
    stack.push_async_callback(child.stop, _STOP_LIMIT_S)
    await until(lambda: not child.alive or _printed(child.log) is not None, _START_LIMIT_S)
    printed = _printed(child.log)
    if printed is None or not child.alive:
        message = f"{child.name} did not start; its output ends with:\n{end_of_log(child.log)}"
        raise AssertionError(message)
    return child, _addresses(Path(printed["run_dir"]))


def _printed(log: Path) -> Addresses | None:
    """Return the JSON object that a program has printed among other lines; None until it is whole."""
    text = f"\n{log.read_text(errors='replace')}"
    begin = text.find("\n{")
    try:
        found: Addresses = json.JSONDecoder().raw_decode(text, begin + 1)[0]
    except json.JSONDecodeError:
        return None
    return found


def _addresses(run_dir: Path) -> Addresses:
    """Return all addresses with their DSNs, which are not printed."""
    found: Addresses = json.loads((run_dir / "addresses.json").read_text())
    return found


def _environment() -> dict[str, str]:
    """Return what a newcomer's fleet has: no settings, whatever ours are."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in _OURS or not name.startswith(("HABEAS_", "PLATFORM_DSN", "FORCE_COLOR"))
    }
    return inherited | _EMBEDDED


async def _ask(addresses: Addresses) -> Asked:
    statements: Counter[tuple[str, str]] = Counter()
    at_s = _CLOCK.monotonic()
    for name, address in addresses.items():
        if name.endswith("_health"):
            status, body = await ask(urlsplit(address).port or 0, "/metrics", limit_s=30.0)
            assert status == 200, f"{name.removesuffix('_health')} does not answer"
            service = name.removesuffix("_health").rpartition("-")[0]
            for transaction, count in _STATEMENTS.findall(body):
                statements[service, transaction.decode()] += int(float(count))
    conn = await asyncpg.connect(addresses["postgres_admin_dsn"])
    try:
        ended = {row["datname"]: row["ended"] for row in await conn.fetch(_ENDED)}
    finally:
        await conn.close()
    return Asked(at_s, statements, ended)


def _disturbance(before: Machine, after: Machine, ours: list[dict[str, Cost]]) -> tuple[float, str]:
    """Return the cores that the rest of the machine took, and a sentence about it."""
    length_s = after.at_s - before.at_s
    own = sum(cost.cores for costs in ours for cost in costs.values())
    others = (after.busy_s - before.busy_s) / length_s - own
    stolen = (after.stolen_s - before.stolen_s) / length_s
    text = f"window of {length_s:.0f} s, load {before.load:.2f} at its beginning and {after.load:.2f} at its end; "
    return others, f"{text}all other processes took {others:.3f} cores, other machines {stolen:.3f}"


async def _requests(console: Console, times: Times) -> Rates:
    """Count the requests of a fleet whose Kafka is behind us."""
    console.print(f"B15: requests to Kafka, for {times.front_window_s:.0f} s after {times.front_settle_s:.0f} s")
    async with AsyncExitStack() as stack:
        port = free_port()
        servers = await stack.enter_async_context(Servers("bench-idle-front", env=_EMBEDDED, kafka_front_port=port))
        assert isinstance(servers.kafka, KafkaServer), "the servers are embedded, so Kafka is a process"
        front = await stack.enter_async_context(Front(port, servers.kafka.bootstrap_behind))
        access, platform, _ = await asyncio.gather(
            prepare_database(servers.postgres_admin_dsn),
            prepare_platform(servers.postgres_admin_dsn, seed=7, now=_CLOCK.now()),
            create_topics(servers.kafka_bootstrap),
        )
        plan = FleetPlan(
            PLATFORM_DIR / "policy.yaml",
            PLATFORM_DIR / "datamap",
            platform.service_dsns,
            {"HABEAS_KAFKA_BOOTSTRAP": f"{LOOPBACK}:{port}"},
        )
        await stack.enter_async_context(Fleet(servers, access, plan))
        await asyncio.sleep(times.front_settle_s)
        front.requests.clear()
        begun = _CLOCK.monotonic()
        await asyncio.sleep(times.front_window_s)
        length_s = _CLOCK.monotonic() - begun
        return {cause: count / length_s for cause, count in front.requests.items()}


def _cores(quiet: Quiet) -> list[Figure]:
    services = {service: quiet.fleet[service].cores for service in SERVICES}
    everything = {part: cost.cores for part, cost in quiet.fleet.items()}
    return [
        _figure("services together", sum(services.values()), "cores", 0.03, _noted(services, 4)),
        *(
            _figure(
                f"{name}, to the same with nobody connected",
                quiet.fleet[part].cores / max(quiet.floor[part].cores, _LEAST_CORES),
                "×",
                1.3,
                f"{quiet.fleet[part].cores:.4f} against {quiet.floor[part].cores:.4f} cores",
            )
            for name, part in (("Kafka", "kafka"), ("PostgreSQL", "postgresql"))
        ),
        *(
            _figure(f"{name} with nobody connected", quiet.floor[part].cores, "cores")
            for name, part in (("Kafka", "kafka"), ("PostgreSQL", "postgresql"))
        ),
        _figure("`up`", quiet.fleet["up"].cores, "cores"),
        _figure(
            "everything together",
            sum(everything.values()),
            "cores",
            note=_noted(everything, 4),
        ),
        _figure(
            "a yardstick: 50 wake-ups a second of Python, JSON of 1.8 kB each",
            quiet.yardstick.cores,
            "cores",
            note=f"services together: {sum(services.values()) / quiet.yardstick.cores:.2f} times as much",
        ),
        _figure("all else on the machine, which disturbs", quiet.others, "cores", note=quiet.disturbance),
    ]


def _wakeups(quiet: Quiet) -> list[Figure]:
    services = {service: quiet.fleet[service].wakeups_per_s for service in SERVICES}
    busy, bare = (
        _noted({name: cost.wakeups_per_s for name, cost in threads.items()}, 1)
        for threads in (quiet.kafka_threads, quiet.floor_threads)
    )
    notes = {
        "kafka": f"threads: {busy}; with nobody connected {quiet.floor['kafka'].wakeups_per_s:.1f}: {bare}",
        "postgresql": f"with nobody connected {quiet.floor['postgresql'].wakeups_per_s:.1f}",
        "smtp-sink": f"with nobody connected {quiet.floor['smtp-sink'].wakeups_per_s:.1f}",
        "up": "",
    }
    return [
        _figure("wake-ups of the services together", sum(services.values()), "1/s", note=_noted(services, 1)),
        *(
            _figure(f"wake-ups of {part}", quiet.fleet[part].wakeups_per_s, "1/s", note=note)
            for part, note in notes.items()
        ),
    ]


def _work(quiet: Quiet, requests: Rates) -> list[Figure]:
    by_service, by_client = _grouped(quiet.statements), _grouped(requests)
    others = {name: rate for name, rate in quiet.ended.items() if name != quiet.database}
    note = f"of the other databases: {_noted(others, 2)}"
    asked = f"between one question for /metrics {_PAUSE_S:.0f} s before the window and one {_PAUSE_S:.0f} s after it"
    return [
        _figure("transactions ended in the fleet's database", quiet.ended[quiet.database], "1/s", note=note),
        _figure("statements of the services together", sum(quiet.statements.values()), "1/s", note=asked),
        *(
            _figure(f"statements of {service}", sum(causes.values()), "1/s", note=_noted(causes, 3))
            for service, causes in by_service.items()
        ),
        _figure("requests to Kafka", sum(requests.values()), "1/s", note=_noted(_by_api(requests), 2)),
        *(
            _figure(f"requests to Kafka of {client}", sum(causes.values()), "1/s", note=_noted(causes, 3))
            for client, causes in by_client.items()
        ),
    ]


def _figure(what: str, value: float, unit: str, goal: float | None = None, note: str = "") -> Figure:
    return Figure("B15", what, value, unit, goal, "lower", note=note)


def _noted(rates: Mapping[str, float], digits: int) -> str:
    """Write down the greatest of them, and how much the rest is together."""
    ranked = sorted(((name, rate) for name, rate in rates.items() if rate > 0), key=lambda each: -each[1])
    parts = [f"{name} {rate:.{digits}f}" for name, rate in ranked[:_NOTED]]
    if rest := ranked[_NOTED:]:
        parts.append(f"{len(rest)} more {sum(rate for _, rate in rest):.{digits}f}")
    return ", ".join(parts)


def _grouped(rates: Rates) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for (who, cause), rate in sorted(rates.items()):
        found.setdefault(who, {})[cause] = rate
    return found


def _by_api(requests: Rates) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for (_, api), rate in requests.items():
        found[api] = found.get(api, 0.0) + rate
    return found


def _show_parts(console: Console, quiet: Quiet) -> None:
    console.print(quiet.disturbance)
    for title, first, fleet, floor in (
        ("By part", "part", quiet.fleet, quiet.floor),
        ("Threads of Kafka", "thread", quiet.kafka_threads, quiet.floor_threads),
    ):
        table = Table(title=title, title_justify="left")
        table.add_column(first)
        for head in ("cores", "with nobody connected", "wake-ups/s", "with nobody connected"):
            table.add_column(head, justify="right")
        for name, cost in sorted(fleet.items(), key=lambda each: -each[1].cores):
            if cost.cores + cost.wakeups_per_s < _SHOWN_PER_S:
                continue
            bare = floor.get(name)
            without = ("", "") if bare is None else (f"{bare.cores:.4f}", f"{bare.wakeups_per_s:.2f}")
            table.add_row(name, f"{cost.cores:.4f}", without[0], f"{cost.wakeups_per_s:.2f}", without[1])
        console.print(table)


def _show_causes(console: Console, title: str, heads: tuple[str, str], rates: Rates) -> None:
    table = Table(title=title, title_justify="left")
    for head in (*heads, "per second"):
        table.add_column(head, justify="left" if head in heads else "right")
    for (who, cause), rate in sorted(rates.items(), key=lambda each: (each[0][0], -each[1])):
        if rate > 0:
            table.add_row(who, cause, f"{rate:.3f}")
    console.print(table)
