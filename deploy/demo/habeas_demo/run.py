"""The demo from beginning to end: servers, platform, fleet, requests, and then the question whether it all is true."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import asyncpg
from rich.console import Console
from rich.live import Live

from habeas.chassis.clock import SystemClock
from habeas.contracts.request_intake import RequestCompleted
from habeas.contracts.vocabulary import Right
from habeas.kit import Issuer
from habeas_demo.breaking import BREAKS, Break, Reach
from habeas_demo.checks import Check, Witness
from habeas_demo.evidence import judge_control, judge_scan, search_fleet, search_platform
from habeas_demo.exports import check_exports, open_exports
from habeas_demo.generator import PLATFORM_DIR
from habeas_demo.histories import Size
from habeas_demo.mails import check_mails
from habeas_demo.platform import PlatformAccess, prepare_platform
from habeas_demo.progress import SWEEPS, Progress, follow
from habeas_demo.report import View, show_checks, show_next
from habeas_demo.scenario import (
    Asked,
    Cast,
    Sent,
    choose_cast,
    new_issuer,
    policy_with_issuer,
    publish,
    start_of_day,
)
from habeas_embedded.fleet import Fleet, FleetPlan
from habeas_embedded.provision import Access, prepare_database
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics

_TRIM_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """What can be chosen on the command line."""

    accounts: int
    days: int
    seed: int
    limit_s: float
    keep: bool
    breaking: str | None
    mend: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs when the curtain rises."""

    servers: Servers
    access: Access
    platform: PlatformAccess
    cast: Cast
    fleet: Fleet
    witness: Witness
    sent: Sent
    progress: Progress

    @property
    def run(self) -> Path:
        """The run's directory."""
        return self.servers.run.directory


async def run_demo(options: Options, console: Console) -> bool:
    """Run the demo; True when every check passed."""
    clock = SystemClock()
    begun = clock.monotonic()
    now = clock.now()
    say = partial(console.print, style="dim", soft_wrap=True)
    async with AsyncExitStack() as stack:
        say("starting Kafka, PostgreSQL and a mail sink")
        servers = await stack.enter_async_context(Servers("demo", say=say))
        say(f"inventing {options.accounts:,} accounts with {options.days} days of history")
        access, platform, _ = await asyncio.gather(
            prepare_database(servers.postgres_admin_dsn),
            prepare_platform(
                servers.postgres_admin_dsn,
                seed=options.seed,
                now=now,
                size=Size(accounts=options.accounts, days=options.days),
            ),
            create_topics(servers.kafka_bootstrap),
        )
        cast = choose_cast(platform.loaded.people, options.seed)
        witness = await Witness.open(platform.owner_dsn, start_of_day(now))
        stack.push_async_callback(witness.close)
        issuer = new_issuer(f"accounts-{now:%Y-%m}")
        policy_file = await asyncio.to_thread(_write_policy, servers.run.directory, issuer)
        say("starting the fleet: six services")
        plan = FleetPlan(policy_file, PLATFORM_DIR / "datamap", platform.service_dsns)
        fleet = await stack.enter_async_context(Fleet(servers, access, plan))
        await _supervise(stack, fleet)
        say(f"ready after {clock.monotonic() - begun:.1f} s")

        reach = Reach(await asyncpg.connect(platform.owner_dsn), servers.mailbox)
        stack.push_async_callback(reach.conn.close)
        broken = BREAKS[options.breaking] if options.breaking else None
        if broken is not None:
            console.print(f"breaking on purpose: {broken.does}", style="yellow")
            await broken.do(reach)

        seen_before = await search_platform(servers.run.directory, platform.owner_dsn, cast.erasures)
        checks = [judge_control(seen_before, cast.erasures)]
        asked = clock.monotonic()
        sent = await publish(servers.kafka_bootstrap, issuer, cast, seed=options.seed, now=now)
        stage = Stage(servers, access, platform, cast, fleet, witness, sent, Progress())
        if broken is not None:
            checks += await _watch_broken(stage, broken, options, console)
            if options.mend:
                console.print("mending it again", style="yellow")
                await broken.undo(reach)
        if broken is None or options.mend:
            await _watch(stage, options.limit_s, console)
        say(
            f"{len(stage.progress.final)} of {len(sent.requests)} requests final {clock.monotonic() - asked:.1f} s after they were sent"
        )
        checks += await _look(stage)
        show_checks(console, checks)
        show_next(console, stage.run, sent, kept=options.keep)
        if options.keep:
            await asyncio.Event().wait()
        return all(check.passed for check in checks)


def _write_policy(run: Path, issuer: Issuer) -> Path:
    """The platform's policy, with the key of the day registered, as the fleet is to read it."""
    text = (PLATFORM_DIR / "policy.yaml").read_text(encoding="utf-8")
    target = run / "policy.yaml"
    target.write_text(policy_with_issuer(text, issuer), encoding="utf-8")
    return target


async def _supervise(stack: AsyncExitStack, fleet: Fleet) -> None:
    """Start again whoever dies, until the demo ends."""
    stopping = asyncio.Event()
    group = await stack.enter_async_context(asyncio.TaskGroup())
    group.create_task(fleet.supervise(stopping))
    stack.callback(stopping.set)


async def _watch(stage: Stage, limit_s: float, console: Console) -> None:
    """Show the progress until everything that was asked for is done, at most for `limit_s`."""
    wanted = {asked.request_id for asked in stage.sent.requests}

    def done(progress: Progress) -> bool:
        return (
            wanted <= progress.final.keys()
            and progress.swept.keys() >= SWEEPS
            and stage.sent.change.change_id in progress.notified
        )

    with Live(View(stage.progress, stage.sent), console=console, refresh_per_second=5):
        await follow(stage.servers.kafka_bootstrap, stage.progress, done, limit_s)


async def _watch_broken(stage: Stage, broken: Break, options: Options, console: Console) -> list[Check]:
    """Show how the fleet says what is wrong; nothing that can't be done may be called done."""
    others = {asked.request_id for asked in stage.sent.requests if asked.right not in broken.stops}

    def told(progress: Progress) -> bool:
        return bool(progress.stuck) and others <= progress.final.keys()

    with Live(View(stage.progress, stage.sent), console=console, refresh_per_second=5):
        await follow(stage.servers.kafka_bootstrap, stage.progress, told, options.limit_s)
    stopped = [asked for asked in stage.sent.requests if asked.right in broken.stops]
    claimed = [asked for asked in stopped if isinstance(stage.progress.final.get(asked.request_id), RequestCompleted)]
    words = ", ".join(f"{what} × {count}" for what, count in stage.progress.stuck.most_common()) or "nothing"
    return [
        Check("broken · nothing false was claimed", not claimed, f"{len(claimed)} of {len(stopped)} called completed"),
        Check("broken · the fleet said so", bool(stage.progress.stuck), words),
    ]


async def _look(stage: Stage) -> list[Check]:
    """Ask whether it all is true."""
    erased = [person.account_id for person in stage.cast.erasures]
    people = stage.platform.loaded.people
    checks = [_check_requests(stage)]
    checks += await stage.witness.check_platform(erased)
    wanted = [asked for asked in stage.sent.requests if asked.right in {Right.ACCESS, Right.PORTABILITY}]
    held = await stage.witness.count_rows([asked.person.account_id for asked in wanted])
    ids = [asked.request_id for asked in wanted]
    opened = await open_exports(stage.access.admin_dsn, stage.fleet.kek_file, stage.fleet.artefacts_dir, ids)
    checks += check_exports(wanted, opened, held)
    checks += check_mails(stage.servers.mailbox.mails(), people, stage.cast)
    scan = await search_fleet(stage.run, stage.access.admin_dsn, people, _TRIM_LIMIT_S)
    checks.append(judge_scan("canary · nobody in clear in what the fleet wrote", scan, stage.run))
    scan = await search_platform(stage.run, stage.platform.owner_dsn, stage.cast.erasures)
    checks.append(judge_scan("canary · the erased in the platform's database", scan, stage.run))
    return checks


def _check_requests(stage: Stage) -> Check:
    """Every request is completed, and erasures say that books were kept."""
    outcomes = Counter(_outcome(asked, stage.progress) for asked in stage.sent.requests)
    wanted = {
        "erasure partly_kept": len(stage.cast.erasures),
        "access done": len(stage.cast.accesses),
        "portability done": len(stage.cast.portabilities),
    }
    detail = ", ".join(f"{what} × {count}" for what, count in sorted(outcomes.items()))
    return Check("requests · completed", outcomes == wanted, detail)


def _outcome(asked: Asked, progress: Progress) -> str:
    final = progress.final.get(asked.request_id)
    if final is None:
        return f"{asked.right.value} open"
    return f"{asked.right.value} {final.outcome.value if isinstance(final, RequestCompleted) else final.type}"
