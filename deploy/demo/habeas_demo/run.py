"""The demo from beginning to end: servers, platform, fleet, requests, and then the question whether it all is true."""

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import Awaitable, Callable
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
from habeas_demo.ledger import check_audit_log
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
from habeas_embedded.foreign_log import foreign_log
from habeas_embedded.places import runs_directory
from habeas_embedded.provision import Access, prepare_database
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics

_RUN = "demo"
_TRIM_LIMIT_S = 90.0


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
class SetUp:
    """Everything that runs when the curtain rises."""

    servers: Servers
    access: Access
    platform: PlatformAccess
    cast: Cast
    fleet: Fleet
    witness: Witness
    issuer: Issuer
    as_of: dt.datetime

    @property
    def run(self) -> Path:
        """The run's directory."""
        return self.servers.run.directory


@dataclass(frozen=True, slots=True)
class Play:
    """What was asked, and what was heard of it so far."""

    set_up: SetUp
    sent: Sent
    progress: Progress


async def run_demo(options: Options, console: Console) -> bool:
    """Run the demo; True when every check passed."""
    say = _teller(console)
    broken = BREAKS[options.breaking] if options.breaking else None
    lapse = broken is not None and broken.stops_at == "fulfilled"
    async with AsyncExitStack() as stack:
        stack.enter_context(foreign_log(runs_directory() / _RUN / "logs" / "demo.log"))
        set_up = await _set_up(stack, options, say)
        seen_before = await search_platform(set_up.run, set_up.platform.owner_dsn, set_up.cast.erasures)
        checks = [judge_control(seen_before, set_up.cast.erasures)]
        reach = Reach(await asyncpg.connect(set_up.platform.owner_dsn), set_up.servers.mailbox)
        stack.push_async_callback(reach.conn.close)
        if broken is not None:
            console.print(f"breaking on purpose: {broken.does}", style="yellow")
            await broken.do(reach)
        play = await _play(set_up, options)
        if broken is not None:
            checks += await _watch_broken(play, broken, options, console)
            if options.mend:
                console.print("mending it again", style="yellow")
                await broken.undo(reach)
        if broken is None or options.mend:
            await _watch(play, options.limit_s, console, lapse=lapse)
        say(_time_taken(play))
        checks += await _look(play, lapse=lapse)
        show_checks(console, checks)
        show_next(console, set_up.run, play.sent, kept=options.keep)
        if options.keep:
            await asyncio.Event().wait()
        return all(check.passed for check in checks)


def _teller(console: Console) -> Callable[[str], None]:
    """Return what prints a step with the time since the beginning."""
    clock = SystemClock()
    begun = clock.monotonic()

    def say(text: str) -> None:
        console.print(f"{clock.monotonic() - begun:6.1f} s  {text}", style="dim", soft_wrap=True, markup=False)

    return say


async def _set_up(stack: AsyncExitStack, options: Options, say: Callable[[str], None]) -> SetUp:
    """Start servers, invent the platform, note what is there, start the fleet; the stack takes it all down again."""
    now = SystemClock().now()
    say("starting Kafka, PostgreSQL and a mail sink")
    servers = await stack.enter_async_context(Servers(_RUN, say=say))
    await _supervise(stack, partial(servers.supervise, told=say))
    say(f"inventing {options.accounts:,} accounts with {options.days} days of history")
    size = Size(accounts=options.accounts, days=options.days)
    admin_dsn = servers.postgres_admin_dsn
    access, platform, _ = await asyncio.gather(
        prepare_database(admin_dsn),
        prepare_platform(admin_dsn, seed=options.seed, now=now, size=size),
        create_topics(servers.kafka_bootstrap),
    )
    witness = await Witness.open(platform.owner_dsn, start_of_day(now))
    stack.push_async_callback(witness.close)
    issuer = new_issuer(f"accounts-{now:%Y-%m}")
    policy_file = await asyncio.to_thread(_write_policy, servers.run.directory, issuer)
    say("starting the fleet: six services")
    plan = FleetPlan(policy_file, PLATFORM_DIR / "datamap", platform.service_dsns)
    fleet = await stack.enter_async_context(Fleet(servers, access, plan, say))
    await _supervise(stack, fleet.supervise)
    say("ready")
    cast = choose_cast(platform.loaded.people, options.seed)
    return SetUp(servers, access, platform, cast, fleet, witness, issuer, start_of_day(now))


async def _play(set_up: SetUp, options: Options) -> Play:
    """Send everything."""
    now = SystemClock().now()
    bootstrap = set_up.servers.kafka_bootstrap
    sent = await publish(bootstrap, set_up.issuer, set_up.cast, seed=options.seed, now=now, as_of=set_up.as_of)
    return Play(set_up, sent, Progress())


def _time_taken(play: Play) -> str:
    """Say how long the requests took, by the fleet's own times."""
    answered = [event.completed_at for event in play.progress.final.values() if isinstance(event, RequestCompleted)]
    if not answered:
        return "no request was completed"
    took = (max(answered) - play.sent.began_at).total_seconds()
    return (
        f"{len(answered)} of {len(play.sent.requests)} requests completed within {took:.1f} s of the first being sent"
    )


def _write_policy(run: Path, issuer: Issuer) -> Path:
    """The platform's policy, with the key of the day registered, as the fleet is to read it."""
    text = (PLATFORM_DIR / "policy.yaml").read_text(encoding="utf-8")
    target = run / "policy.yaml"
    target.write_text(policy_with_issuer(text, issuer), encoding="utf-8")
    return target


async def _supervise(stack: AsyncExitStack, supervise: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Start again whoever dies, until the stack is left."""
    stopping = asyncio.Event()
    group = await stack.enter_async_context(asyncio.TaskGroup())
    group.create_task(_supervised(supervise, stopping))
    stack.callback(stopping.set)


async def _supervised(supervise: Callable[[asyncio.Event], Awaitable[None]], stopping: asyncio.Event) -> None:
    await supervise(stopping)


async def _watch(play: Play, limit_s: float, console: Console, *, lapse: bool) -> None:
    """Show the progress until everything that was asked for is done, or nothing was heard for `limit_s`.

    That is also two mails for each request; with `lapse` one, see `check_mails`.
    """
    wanted = {asked.request_id for asked in play.sent.requests}

    def done(progress: Progress) -> bool:
        return (
            wanted <= progress.final.keys()
            and progress.swept.keys() >= SWEEPS
            and progress.types["mail.sent"] >= len(wanted) * (1 if lapse else 2)
            and play.sent.change.change_id in progress.notified
        )

    with Live(View(play.progress, play.sent), console=console, refresh_per_second=5):
        await follow(play.set_up.servers.kafka_bootstrap, play.progress, done, limit_s)
    console.print()


async def _watch_broken(play: Play, broken: Break, options: Options, console: Console) -> list[Check]:
    """Show how the fleet says what is wrong; nothing that can't be done may be called done."""
    progress = play.progress
    stopped = {asked.request_id for asked in play.sent.requests if asked.right in broken.stops}
    others = {asked.request_id for asked in play.sent.requests} - stopped

    def told(progress: Progress) -> bool:
        at = progress.stuck_requests if broken.stops_at == "stuck" else progress.fulfilled
        return stopped <= at and others <= progress.final.keys()

    with Live(View(progress, play.sent), console=console, refresh_per_second=5):
        await follow(play.set_up.servers.kafka_bootstrap, progress, told, options.limit_s)
    console.print()
    claimed = [each for each in stopped if isinstance(progress.final.get(each), RequestCompleted)]
    stand = len(stopped & (progress.stuck_requests if broken.stops_at == "stuck" else progress.fulfilled))
    words = ", ".join(f"{what} × {count}" for what, count in progress.stuck.most_common()) or "nothing stuck"
    return [
        Check("broken · nothing false was claimed", not claimed, f"{len(claimed)} of {len(stopped)} called completed"),
        Check("broken · the fleet said so", told(progress), f"{stand} of {len(stopped)} {broken.stops_at}; {words}"),
    ]


async def _look(play: Play, *, lapse: bool) -> list[Check]:
    """Ask whether it all is true."""
    erased = [person.account_id for person in play.set_up.cast.erasures]
    people = play.set_up.platform.loaded.people
    checks = [_check_requests(play)]
    checks += await play.set_up.witness.check_platform(erased)
    wanted = [asked for asked in play.sent.requests if asked.right in {Right.ACCESS, Right.PORTABILITY}]
    held = await play.set_up.witness.count_rows([asked.person.account_id for asked in wanted])
    ids = [asked.request_id for asked in wanted]
    opened = await open_exports(
        play.set_up.access.admin_dsn, play.set_up.fleet.kek_file, play.set_up.fleet.artefacts_dir, ids
    )
    checks += check_exports(wanted, opened, held)
    checks += check_mails(play.set_up.servers.mailbox.mails(headers_only=True), people, play.set_up.cast, lapse=lapse)
    checks.append(await check_audit_log(play.set_up.fleet.log_dir, play.set_up.access.admin_dsn))
    scan = await search_fleet(play.set_up.run, play.set_up.access.admin_dsn, people, _TRIM_LIMIT_S)
    checks.append(judge_scan("canary · nobody in clear in what the fleet wrote", scan, play.set_up.run))
    scan = await search_platform(play.set_up.run, play.set_up.platform.owner_dsn, play.set_up.cast.erasures)
    checks.append(judge_scan("canary · the erased in the platform's database", scan, play.set_up.run))
    return checks


def _check_requests(play: Play) -> Check:
    """Every request is completed, and erasures say that books were kept."""
    outcomes = Counter(_outcome(asked, play.progress) for asked in play.sent.requests)
    wanted = {
        "erasure partly_kept": len(play.set_up.cast.erasures),
        "access done": len(play.set_up.cast.accesses),
        "portability done": len(play.set_up.cast.portabilities),
    }
    detail = ", ".join(f"{what} × {count}" for what, count in sorted(outcomes.items()))
    return Check("requests · completed", outcomes == wanted, detail)


def _outcome(asked: Asked, progress: Progress) -> str:
    final = progress.final.get(asked.request_id)
    if final is None:
        return f"{asked.right.value} open"
    return f"{asked.right.value} {final.outcome.value if isinstance(final, RequestCompleted) else final.type}"
