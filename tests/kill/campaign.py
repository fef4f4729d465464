"""One campaign from beginning to end: ask, break, let it heal, look, judge."""

import asyncio
import datetime as dt
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
from pydantic import HttpUrl

from habeas.chassis.ids import uuid7
from habeas.contracts.platform import PolicyChanged
from habeas_demo.histories import Size
from habeas_demo.scenario import start_of_day
from habeas_embedded.places import home
from habeas_embedded.processes import end_of_log
from tests.kill.checker import Fault, Violation, check, uncertain_of_campaigns
from tests.kill.client import Client
from tests.kill.collect import Observer, look_for_work
from tests.kill.faults import Dose, plan
from tests.kill.ground import LEASE_S, Ground, laid_out
from tests.kill.history import History
from tests.kill.nemesis import Nemesis
from tests.kill.orders import Scenario, notice_date, write_scenario
from tests.kill.waiting import pause

DRAIN_LIMIT_S: Final = 60.0
"""Within this after the last fault everything has to be done."""

_PATIENCE_S: Final = 150.0
"""How long a fleet that did not drain in time is looked at, so that slow can be told from stuck."""

_WITHIN_A_ROUND: Final = 3
_LOOK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Form:
    """How large a campaign is: requests, how fast they come, faults, people, and what it must have come to at the end."""

    name: str
    requests: int
    per_second: float
    dose: Dose
    kills_min: int
    events_min: int = 0
    ticks: int = 4
    replicas: int = 2

    @property
    def size(self) -> Size:
        """A platform with enough people for every request."""
        return Size(accounts=max(60, int(self.requests * 0.6)), logs_each=3, tasks_each=2)


NO_FAULTS: Final = Form("clean", 220, 40.0, Dose(4.0, 0, 0), kills_min=0, ticks=2, replicas=1)
SMALL: Final = Form("small", 300, 15.0, Dose(20.0, 10, 4), kills_min=8, ticks=2)
SHORT: Final = Form("short", 5_000, 50.0, Dose(150.0, 72, 34), kills_min=60)
LONG: Final = Form("long", 17_500, 12.0, Dose(1_500.0, 1_060, 300), kills_min=1_000, events_min=100_000, ticks=12)


@dataclass(slots=True)
class Outcome:
    """What a campaign came to; `drained_s` is the time from the last mended fault to an idle fleet."""

    form: Form
    seed: int
    run: Path
    drained_s: float = 0.0
    took_s: float = 0.0
    events: int = 0
    kills: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)
    requests: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    stuck: Mapping[str, int] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    uncertain_mails: int = 0
    refused: int = 0

    def count(self, fault: Fault) -> int:
        """How many violations of a kind were found."""
        return sum(1 for each in self.violations if each.fault is fault)

    @property
    def failures(self) -> list[str]:
        """What keeps this campaign from being a success, one line each."""
        lines = [f"{each.fault}: {each.what} ({each.where})" for each in self.violations]
        if sum(self.kills.values()) < self.form.kills_min:
            lines.append(f"only {sum(self.kills.values())} kills")
        if self.events < self.form.events_min:
            lines.append(f"only {self.events} events")
        if self.drained_s > DRAIN_LIMIT_S:
            lines.append(f"drained {self.drained_s:.0f} s after the last fault: {dict(self.stuck)}")
        return lines


async def run_campaign(form: Form, seed: int, say: Callable[[str], None]) -> Outcome:
    """Run a campaign; its run directory is left on disk, with what was asked and broken as JSON lines."""
    async with laid_out(f"kill-{form.name}", seed=seed, size=form.size, replicas=form.replicas) as ground:
        begun = ground.clock.monotonic()
        outcome, client, nemesis = await play(form, seed, ground, say)
        await pause(asyncio.Event(), 2 * LEASE_S)  # a lease of somebody dead must have run out by now
        say("looking at everything")
        async with Observer.open(ground, client) as observer:
            history = await observer.collect()
        outcome.violations = check(history)
        outcome.took_s = ground.clock.monotonic() - begun
        _sum_up(outcome, history, client, nemesis)
        await asyncio.to_thread(_write_down, outcome, client, nemesis)
    return outcome


async def play(form: Form, seed: int, ground: Ground, say: Callable[[str], None]) -> tuple[Outcome, Client, Nemesis]:
    """Ask and break, and wait until nothing is under way any more."""
    outcome = Outcome(form, seed, ground.run)
    scenario = write_scenario(seed, form.requests, ground.people, ground.clock)
    client = Client(ground.servers.kafka_bootstrap, ground.issuer, ground.clock, form.per_second)
    nemesis = Nemesis(ground, seed)
    say(f"{len(list(scenario.orders))} submissions, {form.dose.kills} kills and {form.dose.others} other faults")
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks, client.open():
        watching = tasks.create_task(nemesis.keep_alive(stopping))
        telling = tasks.create_task(_tell(client, nemesis, stopping, say))
        await _play(form, seed, scenario, client, nemesis)
        say("the last fault is mended; waiting until nothing is under way")
        await _drain(ground, nemesis, outcome)
        stopping.set()
        await asyncio.gather(watching, telling)
    return outcome, client, nemesis


async def _play(form: Form, seed: int, scenario: Scenario, client: Client, nemesis: Nemesis) -> None:
    """Ask and break at the same time; returns when all is acknowledged and mended."""
    never = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.play(scenario, never))
        tasks.create_task(_occasions(form, client, never))
        tasks.create_task(nemesis.run(plan(seed, form.dose, form.replicas), never))
    await nemesis.set_clocks_right()


async def _occasions(form: Form, client: Client, stopping: asyncio.Event) -> None:
    """Send retention ticks all along, the same moment again and earlier ones too, and a policy change in the middle."""
    now = client.clock.now()
    today = start_of_day(now)
    for number in range(form.ticks):
        await pause(stopping, form.dose.duration_s / (form.ticks + 1))
        await client.tick(today - dt.timedelta(days=number % _WITHIN_A_ROUND), uuid7(client.clock), stopping)
        if number == form.ticks // 2:
            change = PolicyChanged(
                change_id=f"{now:%Y-%m-%d}-kill",
                material=True,
                published_at=now,
                effective_on=notice_date(now),
                version=f"{notice_date(now)}",
                summary={"en": "One more provider.", "de": "Ein weiterer Anbieter."},
                url=HttpUrl("https://example.org/privacy"),
            )
            await client.change(change, stopping)


async def _drain(ground: Ground, nemesis: Nemesis, outcome: Outcome) -> None:
    """Wait until nothing is under way; what still is after the limit is kept for the report."""
    never = asyncio.Event()
    while True:
        since = nemesis.now_s() - nemesis.last_mended_s
        try:
            conn = await asyncpg.connect(ground.access.admin_dsn, timeout=5)
            try:
                waiting = await look_for_work(conn)
            finally:
                await conn.close()
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            waiting = {f"database: {type(error).__name__}": 1}
        if not waiting:
            outcome.drained_s = since
            return
        if since > DRAIN_LIMIT_S and not outcome.stuck:
            outcome.stuck = waiting
        if since > _PATIENCE_S:
            outcome.drained_s = since
            return
        await pause(never, _LOOK_S)


async def _tell(client: Client, nemesis: Nemesis, stopping: asyncio.Event, say: Callable[[str], None]) -> None:
    while not stopping.is_set():
        await pause(stopping, 15.0)
        say(f"{nemesis.now_s():.0f} s: {client.acked} acknowledged, {sum(nemesis.kills.values())} killed")


def _sum_up(outcome: Outcome, history: History, client: Client, nemesis: Nemesis) -> None:
    outcome.kills = dict(sorted(nemesis.kills.items()))
    outcome.faults = dict(sorted(Counter(each.fault.kind.value for each in nemesis.happened if each.did).items()))
    outcome.ended = list(nemesis.ended)
    outcome.refused = nemesis.refused
    outcome.uncertain_mails = sum(history.uncertain.values()) + uncertain_of_campaigns(history)
    outcome.events = sum(len(held.outbox) for held in history.slices.values()) + client.acked
    table: dict[str, Counter[str]] = {}
    for row in history.requests.values():
        end = row.outcome or row.state
        table.setdefault(row.right, Counter())[end] += 1
    outcome.requests = {right: dict(sorted(ends.items())) for right, ends in sorted(table.items())}


def _write_down(outcome: Outcome, client: Client, nemesis: Nemesis) -> None:
    """Leave what was asked and broken in the run directory, and the figures where figures of campaigns are kept."""
    asked = [
        {
            "request_id": each.order.request_id,
            "right": each.order.right,
            "acr": each.order.acr,
            "repeats": each.order.first,
            "changed": each.order.changed,
            "tries": each.tries,
            "acked_at": each.acked_at,
        }
        for each in client.sent
    ]
    _lines(outcome.run / "requests.jsonl", asked)
    _lines(outcome.run / "faults.jsonl", [asdict(each) for each in nemesis.happened])
    _lines(outcome.run / "violations.jsonl", [each._asdict() for each in outcome.violations])
    kept = home() / "kill"
    kept.mkdir(parents=True, exist_ok=True)
    (kept / f"{outcome.form.name}-{outcome.seed}.json").write_text(json.dumps(figures(outcome), indent=1))


def figures(outcome: Outcome) -> dict[str, Any]:
    """Give the figures of a campaign as JSON holds them."""
    return {
        "form": outcome.form.name,
        "seed": outcome.seed,
        "took_s": round(outcome.took_s, 1),
        "drained_s": round(outcome.drained_s, 1),
        "events": outcome.events,
        "kills": outcome.kills,
        "faults": outcome.faults,
        "requests": outcome.requests,
        "ended_by_themselves": Counter(outcome.ended),
        "uncertain_mails": outcome.uncertain_mails,
        "faults_refused": outcome.refused,
        **{fault.value: outcome.count(fault) for fault in Fault},
        "failures": outcome.failures[:200],
    }


def _lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(f"{json.dumps(row, default=str)}\n" for row in rows), encoding="utf-8")


def ends_of_logs(run: Path) -> str:
    """Give the last lines of every log, for whoever reads a failure without the directory."""
    with suppress(OSError):
        return "\n".join(f"-- {path.name}\n{end_of_log(path, 4)}" for path in sorted((run / "logs").glob("*.log")))
    return ""
