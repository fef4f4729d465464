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
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from habeas.chassis.clock import SystemClock
from habeas_embedded.errors import EmbeddedError
from habeas_embedded.fleet import Fleet, FleetPlan, Member
from habeas_embedded.provision import SERVICES, Access, prepare_database
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from habeas_embedded.view import Observer, render

__all__ = ["UpOptions", "up", "up_command"]

_SEED: Final = 7
_LOOK_EVERY_S: Final = 1.0
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
    """Run servers and fleet until Ctrl-C or SIGTERM; gives the exit code. Raises EmbeddedError when something does not start."""
    with _cancelled_by_signals() as was_told:
        try:
            async with _running(options, console) as (servers, access, fleet):
                _show_addresses(servers, access, fleet, console, as_json=options.as_json)
                await _watch(servers, access, fleet, console)
        except asyncio.CancelledError:
            if not was_told():
                raise
    return 0


@asynccontextmanager
async def _running(options: UpOptions, console: Console) -> AsyncIterator[tuple[Servers, Access, Fleet]]:
    """Start everything in order and stop it in the opposite order, saying what takes time."""
    say = _Steps(console)
    async with Servers(options.name, keep_data=options.keep_data, say=say.note) as servers:
        say.done("servers answer")
        access, _ = await asyncio.gather(
            prepare_database(servers.postgres_admin_dsn), create_topics(servers.kafka_bootstrap)
        )
        say.done("database, roles, tables and topics are there")
        plan = await _plan(options, servers)
        say.done("platform is there")
        async with Fleet(servers, access, plan) as fleet:
            say.done(f"{len(fleet.members)} services are ready")
            yield servers, access, fleet
            say.note("stopping")


async def _plan(options: UpOptions, servers: Servers) -> FleetPlan:
    """Say what the fleet runs with: the given platform, or else the demonstration's."""
    policy = options.policy_file or _path("HABEAS_POLICY_FILE")
    datamap = options.datamap_dir or _path("HABEAS_DATAMAP_DIR")
    given = os.environ.get("PLATFORM_DSN")
    if policy is not None or datamap is not None or given:
        if policy is None or datamap is None or not given:
            raise EmbeddedError(
                "a platform of your own needs all three: --policy, --datamap and the variable PLATFORM_DSN"
            )
        return FleetPlan(policy, datamap, platform_dsns=dict.fromkeys(SERVICES, given), replicas=options.replicas)
    if options.keep_data:
        raise EmbeddedError(
            "the demonstration's platform is made anew at each start: --keep-data needs one of your own"
        )
    return await _demonstration(options, servers)


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


async def _watch(servers: Servers, access: Access, fleet: Fleet, console: Console) -> None:
    """Supervise, and show the live view on a terminal, until cancelled."""
    never = asyncio.Event()

    def told(member: Member) -> None:
        console.print(f"[yellow]{member.name} died and was started again ({member.restarts}); see {member.child.log}")

    async with asyncio.TaskGroup() as group:
        group.create_task(fleet.supervise(never, told))
        if console.is_terminal:
            group.create_task(_view(servers, access, fleet, console))
        elif servers.has_own_smtp:
            group.create_task(_sort_mail(servers))


async def _sort_mail(servers: Servers) -> None:
    """Give mails files of their own while nobody looks at the view, which does it otherwise."""
    while True:
        servers.mailbox.sort()
        await asyncio.sleep(_LOOK_EVERY_S)


async def _view(servers: Servers, access: Access, fleet: Fleet, console: Console) -> None:
    mailbox = servers.mailbox if servers.has_own_smtp else None
    observer = Observer(fleet, access.operator_dsn, mailbox)
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(render(await observer.look()), refresh=True)
                await asyncio.sleep(_LOOK_EVERY_S)
    finally:
        await observer.close()


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
    if as_json:
        Console().print_json(data=shown)  # progress goes to standard error then
        return
    table = Table(box=None, show_header=False)
    for name, value in shown.items():
        table.add_row(name.replace("_", " "), str(value))
    console.print(table)
    console.print("Ctrl-C stops everything.")


class _Steps:
    """Says each step of the start with the seconds that it took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._since = time.monotonic()

    def note(self, text: str) -> None:
        """Say something by the way."""
        self._console.print(f"[dim]{text}")

    def done(self, text: str) -> None:
        """Say that a step is over."""
        now = time.monotonic()
        self._console.print(f"[green]✓[/] {text} [dim]({now - self._since:.1f} s)")
        self._since = now


def _path(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


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
    try:
        code = asyncio.run(up(options, console))
    except EmbeddedError as error:
        console.print(f"[red]✗[/] {escape(str(error))}")
        code = 1
    raise SystemExit(code)
