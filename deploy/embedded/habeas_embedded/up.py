"""`habeas up`: servers, tables, topics and fleet in the foreground, until Ctrl-C.

With nothing said it runs the demonstration platform. A platform of one's own is said by `--policy` and `--datamap` (or
HABEAS_POLICY_FILE and HABEAS_DATAMAP_DIR) and the variable PLATFORM_DSN.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from habeas.chassis.clock import SystemClock
from habeas_embedded.env_file import leave_fleet, source_line, variables, write_env_file
from habeas_embedded.errors import EmbeddedError, each_of
from habeas_embedded.fleet import Fleet, FleetPlan, Member
from habeas_embedded.foreign_log import foreign_log
from habeas_embedded.given_platform import GivenPlatform, find_platform
from habeas_embedded.places import runs_directory
from habeas_embedded.provision import SERVICES, Access, prepare_database
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from habeas_embedded.view import Observer, Pace, render

__all__ = ["UpOptions", "up", "up_command"]

_SEED: Final = 7
_SORT_EVERY_S: Final = 2.0
_REPLICAS_MAX: Final = 32


@dataclass(frozen=True)
class UpOptions:
    """What `habeas up` is to do. Without a policy file it is the demonstration's platform, made anew."""

    name: str = "up"
    keep_data: bool = False
    policy_file: Path | None = None
    datamap_dir: Path | None = None
    replicas: Mapping[str, int] = field(default_factory=dict)
    as_json: bool = False


async def up(options: UpOptions, console: Console) -> int:
    """Run servers and fleet until Ctrl-C or SIGTERM, and return the exit code.

    Raises:
        EmbeddedError: what is given cannot be used, which is found out before anything starts; or something did not start.
    """
    with foreign_log(runs_directory() / options.name / "logs" / "up.log"), _cancelled_by_signals() as was_told:
        try:
            async with _running(options, console) as (servers, access, fleet, changed):
                _show_addresses(servers, access, fleet, console, as_json=options.as_json)
                await _watch(servers, access, fleet, console, changed)
        except asyncio.CancelledError:
            if not was_told():
                raise
    return 0


@asynccontextmanager
async def _running(options: UpOptions, console: Console) -> AsyncIterator[tuple[Servers, Access, Fleet, asyncio.Event]]:
    """Start everything in order and stop it in the opposite order, saying what takes time; the event is set when a server has died."""
    say, changed, stopping = _Steps(console), asyncio.Event(), asyncio.Event()
    given = await find_platform(options.policy_file, options.datamap_dir)
    if given is not None:
        say.done("policy and data map are in order, the platform's database lets us in")
    elif options.keep_data:
        raise EmbeddedError(
            "the demonstration's platform is made anew at each start: --keep-data needs one of your own"
        )

    def told(text: str) -> None:
        _warn(console, text)
        changed.set()

    async with (
        Servers(options.name, keep_data=options.keep_data, say=say.note) as servers,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(servers.supervise(stopping, told))
        try:
            say.done("servers answer")
            access, _ = await asyncio.gather(
                prepare_database(servers.postgres_admin_dsn), create_topics(servers.kafka_bootstrap)
            )
            say.done("database, roles, tables and topics are there")
            plan = await _demonstration(options, servers) if given is None else _plan(options, given)
            if given is None:
                say.done("the demonstration's platform is there")
            async with Fleet(servers, access, plan, say.note) as fleet:
                say.done(f"{len(fleet.members)} services are ready")
                try:
                    yield servers, access, fleet, changed
                finally:
                    say.note("stopping")
        finally:
            stopping.set()


def _plan(options: UpOptions, given: GivenPlatform) -> FleetPlan:
    dsns = dict.fromkeys(SERVICES, given.dsn)
    return FleetPlan(given.policy_file, given.datamap_dir, platform_dsns=dsns, replicas=options.replicas)


async def _demonstration(options: UpOptions, servers: Servers) -> FleetPlan:
    """Make the demonstration's platform. It stands on this distribution, so it is asked for by name and may be absent."""
    try:
        generator, platforms = import_module("habeas_demo.generator"), import_module("habeas_demo.platform")
    except ModuleNotFoundError as error:
        raise EmbeddedError(
            "the distribution habeas-demo is not installed: give a platform of your own by --policy, --datamap and PLATFORM_DSN"
        ) from error
    platform = await platforms.prepare_platform(servers.postgres_admin_dsn, seed=_SEED, now=SystemClock().now())
    files: Path = generator.PLATFORM_DIR
    dsns: Mapping[str, str] = platform.service_dsns
    return FleetPlan(files / "policy.yaml", files / "datamap", platform_dsns=dsns, replicas=options.replicas)


async def _watch(servers: Servers, access: Access, fleet: Fleet, console: Console, changed: asyncio.Event) -> None:
    """Supervise, and show the live view on a terminal, until cancelled."""

    def told(member: Member) -> None:
        _warn(console, f"{member.name} died and was started again ({member.restarts}); see {member.child.log}")
        changed.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(fleet.supervise(asyncio.Event(), told))
        if console.is_terminal:
            group.create_task(_view(servers, access, fleet, console, changed))
        elif servers.has_own_smtp:
            group.create_task(_sort_mail(servers))


async def _sort_mail(servers: Servers) -> None:
    """Give mails files of their own while nobody looks at the view, which does it otherwise."""
    while True:
        servers.mailbox.sort()
        await asyncio.sleep(_SORT_EVERY_S)


async def _view(servers: Servers, access: Access, fleet: Fleet, console: Console, changed: asyncio.Event) -> None:
    """Look often while something changes, and seldom while nothing does: a look asks every service and the database."""
    observer = Observer(fleet, access.operator_dsn, servers.mailbox if servers.has_own_smtp else None)
    pace, seen = Pace(), None
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                changed.clear()
                begun = time.monotonic()
                look = await observer.look()
                live.update(render(look), refresh=True)
                pause_s = pace.after(time.monotonic() - begun, changed=look != seen)
                seen = look
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), pause_s)
    finally:
        await observer.close()


def _warn(console: Console, text: str) -> None:
    console.print(f"[yellow]{escape(text)}", soft_wrap=True)


def _show_addresses(servers: Servers, access: Access, fleet: Fleet, console: Console, *, as_json: bool) -> None:
    """Say where everything is; DSNs hold passwords, so they go to a file that only its owner reads, and its name is shown."""
    addresses: dict[str, str | int] = {
        **servers.addresses(),
        "database_owner_dsn": access.owner_dsn,
        "database_operator_dsn": access.operator_dsn,
        "database_supervisor_dsn": access.supervisor_dsn,
        **{f"{member.name}_health": f"http://127.0.0.1:{member.health_port}/readyz" for member in fleet.members},
    }
    path = servers.run.directory / "addresses.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(addresses, indent=1), encoding="utf-8")
    shown = {name: value for name, value in addresses.items() if not name.endswith("_dsn")} | {
        "all_with_dsns": str(path)
    }
    env_file = write_env_file(servers.run.directory, variables(servers, access, fleet))
    if as_json:
        Console().print_json(data=shown)  # progress goes to standard error then
        return
    width = max(len(name) for name in shown)
    for name, value in shown.items():  # no table: it would cut or fold paths, which then cannot be copied
        console.print(f"{name.replace('_', ' '):<{width}}  {escape(str(value))}", soft_wrap=True, highlight=False)
    console.print(
        "`habeas` commands find this fleet by themselves; other programs, from a shell after:", soft_wrap=True
    )
    console.print(escape(source_line(env_file)), soft_wrap=True, highlight=False)
    console.print("Ctrl-C stops everything.")


class _Steps:
    """Says each step of the start with the seconds that it took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._since = time.monotonic()

    def note(self, text: str) -> None:
        """Say something by the way."""
        self._console.print(f"[dim]{escape(text)}", soft_wrap=True)

    def done(self, text: str) -> None:
        """Say that a step is over."""
        now = time.monotonic()
        self._console.print(f"[green]✓[/] {escape(text)} [dim]({now - self._since:.1f} s)", soft_wrap=True)
        self._since = now


@contextmanager
def _cancelled_by_signals() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into the cancelling of this task, so that everything stops in order.

    A further one changes nothing: stopping is bounded anyway. Gives what says whether a signal came.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    told: list[int] = []

    def tell(number: int) -> None:
        if not told and task is not None:
            task.cancel()
        told.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, tell, number)
    try:
        yield lambda: bool(told)
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _replicas(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """Read SERVICE=N."""
    replicas = {}
    for value in values:
        service, _, number = value.partition("=")
        if service not in SERVICES or not number.isdigit() or not 0 < int(number) <= _REPLICAS_MAX:
            raise click.BadParameter(
                f"write SERVICE=N with N from 1 to {_REPLICAS_MAX} and SERVICE one of {', '.join(SERVICES)}"
            )
        replicas[service] = int(number)
    return replicas


_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_DIRECTORY: Final = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("up")
@click.option("--name", default="up", show_default=True, help="Name of the run; runs of different names do not meet.")
@click.option("--policy", type=_FILE, help="The policy; the demonstration's when not given.")
@click.option("--datamap", type=_DIRECTORY, help="Directory of annotated datasets.")
@click.option("--keep-data", is_flag=True, help="Go on with what the last run of this name left.")
@click.option("--replicas", multiple=True, callback=_replicas, metavar="SERVICE=N", help="More than one of a service.")
@click.option("--json", "as_json", is_flag=True, help="Addresses as JSON.")
def up_command(
    *, name: str, policy: Path | None, datamap: Path | None, keep_data: bool, replicas: dict[str, int], as_json: bool
) -> None:
    """Start servers and fleet, and keep them until Ctrl-C."""
    options = UpOptions(name, keep_data, policy, datamap, replicas, as_json)
    console = Console(stderr=as_json)
    if (sourced := leave_fleet(os.environ)) is not None:
        console.print(
            f"the variables of the fleet {sourced}, which this shell has sourced, are left out", soft_wrap=True
        )
    code = 1
    try:
        code = asyncio.run(up(options, console))
    except* EmbeddedError as group:
        for error in each_of(group):
            console.print(f"[red]✗[/] {escape(str(error))}", soft_wrap=True)
    raise SystemExit(code)
