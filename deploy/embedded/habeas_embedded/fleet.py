"""The six services as child processes on loopback: their environment, their health, their restarts, their end."""

import asyncio
import os
import stat
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from habeas.sealing.kek import KekSettings, open_kek
from habeas_embedded.errors import FleetFailed
from habeas_embedded.ports import free_port
from habeas_embedded.probing import what_is_missing
from habeas_embedded.processes import Child, end_of_log
from habeas_embedded.provision import SERVICES, Access
from habeas_embedded.runs import Run
from habeas_embedded.servers import Servers
from habeas_embedded.supervision import keep
from habeas_embedded.waiting import Patience, until_progress_ends

__all__ = ["Fleet", "FleetPlan", "Member"]

_START: Final = Patience(still_s=90.0)
_STOP_LIMIT_S: Final = 35.0  # services give themselves 30 s


@dataclass(frozen=True)
class FleetPlan:
    """What the fleet is to run with, apart from servers and databases.

    `platform_dsns` gives a service its DSN of the platform's database. `environment` adds variables to one service, `shared`
    to all; both win over what the fleet sets itself. `replicas` is 1 for services that are not named. `programs` replaces
    what is run for a service.
    """

    policy_file: Path
    datamap_dir: Path
    platform_dsns: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    replicas: Mapping[str, int] = field(default_factory=dict)
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class Member:
    """One replica of one service."""

    service: str
    instance: int
    health_port: int
    child: Child
    restarts: int = 0
    wanted: bool = False

    @property
    def name(self) -> str:
        """The service's name with its ordinal, as its log file and its lines in the view are named."""
        return f"{self.service}-{self.instance}"

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.child.alive

    async def ended(self) -> None:
        """Wait until the process has ended."""
        await self.child.ended()


class Fleet:
    """The services of one run; an async context manager that starts them and stops them.

    `supervise` restarts who dies. `kill` ends a member as a crash would, and supervision brings it back; who was stopped by
    `stop_service` stays away until `start_service`. `say` is told of starts that take long, and what they wait for.
    """

    def __init__(
        self, servers: Servers, access: Access, plan: FleetPlan, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._servers = servers
        self._access = access
        self._plan = plan
        self._say = say
        self._run: Run = servers.run
        self.kek_file = Path(os.environ.get("HABEAS_KEK_FILE") or self._run.directory / "fleet.kek").resolve()
        self.artefacts_dir = self._run.directory / "artefacts"
        self.log_dir = self._run.directory / "audit-log"
        self.traces_dir = self._run.directory / "traces"
        for directory in (self.artefacts_dir, self.log_dir, self.traces_dir):
            directory.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        open_kek(KekSettings(file=self.kek_file, create=True, production=False))
        self.members = tuple(
            self._member(service, instance) for service in SERVICES for instance in range(plan.replicas.get(service, 1))
        )

    async def start(self, services: Iterable[str] = SERVICES) -> None:
        """Start services and wait until each says that it is ready, for as long as it gets on.

        Raises:
            FleetFailed: one ended, or stood still; the others are left running.
        """
        members = [member for member in self.members if member.service in set(services)]
        for member in members:
            self._spawn(member)
        outcomes = await asyncio.gather(*(self._until_ready(member) for member in members), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failures:
            raise failures[0]

    async def stop(self) -> None:
        """Stop all in order, or after a limit at once; doing it again does nothing."""
        for member in self.members:
            member.wanted = False
        await asyncio.gather(*(self._end(member) for member in self.members))

    async def start_service(self, service: str, instance: int = 0) -> None:
        """Start one member and wait until it is ready; nothing happens when it runs."""
        member = self.member(service, instance)
        if not member.child.alive:
            self._spawn(member)
        await self._until_ready(member)

    async def stop_service(self, service: str, instance: int = 0) -> None:
        """Stop one member in order; it stays away."""
        member = self.member(service, instance)
        member.wanted = False
        await self._end(member)

    async def kill(self, service: str, instance: int = 0) -> None:
        """End one member as a crash would."""
        member = self.member(service, instance)
        await member.child.kill()
        self._run.forget(member.child)

    def member(self, service: str, instance: int = 0) -> Member:
        """Give one member; raises KeyError when there is none of this name."""
        for member in self.members:
            if (member.service, member.instance) == (service, instance):
                return member
        raise KeyError(f"{service}-{instance}")

    async def supervise(self, stopping: asyncio.Event, told: Callable[[Member], None] = lambda _: None) -> None:
        """Start again whoever dies, after a pause that doubles from 0.5 s to 30 s, until `stopping` is set."""

        def again(member: Member) -> Callable[[], Awaitable[None]]:
            async def start() -> None:
                member.restarts += 1
                self._spawn(member)
                told(member)

            return start

        async with asyncio.TaskGroup() as group:
            keepers = [group.create_task(keep(member, again(member))) for member in self.members]
            await stopping.wait()
            for keeper in keepers:
                keeper.cancel()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def environment(self, service: str, instance: int, health_port: int) -> dict[str, str]:
        """Give all environment variables of a member: ours, what we were started with, and nothing of other services."""
        prefix = _prefix(service)
        fleet_wide = {
            "HABEAS_ENVIRONMENT": "development",
            "HABEAS_KAFKA_BOOTSTRAP": self._servers.kafka_bootstrap,
            "HABEAS_KEK_FILE": str(self.kek_file),
            "HABEAS_POLICY_FILE": str(self._plan.policy_file.resolve()),
            "HABEAS_DATAMAP_DIR": str(self._plan.datamap_dir.resolve()),
            "HABEAS_TRACES_DIR": str(self.traces_dir),
        }
        own = {
            f"{prefix}DATABASE_DSN": self._access.dsn(service),
            f"{prefix}HEALTH_PORT": str(health_port),
            f"{prefix}INSTANCE": str(instance),
        }
        if service in self._plan.platform_dsns:
            own["PLATFORM_DSN"] = self._plan.platform_dsns[service]
        match service:
            case "export-builder":
                own["EXPORT_BUILDER_ARTEFACTS_DIR"] = str(self.artefacts_dir)
            case "audit-ledger":
                own["AUDIT_LEDGER_LOG_DIR"] = str(self.log_dir)
            case "notification-mailer":
                own["NOTIFICATION_MAILER_SMTP_HOST"] = self._servers.smtp_host
                own["NOTIFICATION_MAILER_SMTP_PORT"] = str(self._servers.smtp_port)
            case _:
                pass
        planned = self._plan.environment.get(service, {})
        return _inherited(service) | fleet_wide | own | dict(self._plan.shared) | dict(planned)

    def _member(self, service: str, instance: int) -> Member:
        program = self._plan.programs.get(service, (sys.executable, "-m", service.replace("-", "_")))
        port = free_port()
        log = self._run.logs / f"{service}-{instance}.log"
        env = self.environment(service, instance, port)
        return Member(service, instance, port, Child(f"{service}-{instance}", program, log, env=env))

    def _spawn(self, member: Member) -> None:
        member.child.spawn()
        member.wanted = True
        self._run.remember(member.child)

    async def _until_ready(self, member: Member) -> None:
        child = member.child
        missing: str | None = "does not answer yet"

        async def ready_or_ended() -> bool:
            nonlocal missing
            missing = await what_is_missing(member.health_port) if child.alive else None
            return missing is None

        def told(waited_s: float) -> None:
            self._say(f"{member.name}: still starting, {waited_s:.0f} s, {missing}; its log is {child.log}")

        done = await until_progress_ends(ready_or_ended, lambda: (child.progress(), missing), _START, told)
        if done and child.alive:
            return
        how = (
            f"was not ready and stands still ({missing})" if child.alive else f"ended with exit code {child.exit_code}"
        )
        raise FleetFailed(f"{member.name} {how}; its log {child.log} ends with:\n{end_of_log(child.log)}")

    async def _end(self, member: Member) -> None:
        await member.child.stop(_STOP_LIMIT_S)
        self._run.forget(member.child)


def _prefix(service: str) -> str:
    return f"{service.upper().replace('-', '_')}_"


def _inherited(service: str) -> dict[str, str]:
    """Give what a member takes over from our own environment.

    Settings for it and for the whole fleet pass. The administrator's DSN, PostgreSQL's own variables (they would complete
    DSNs), and settings of other services (they hold their passwords) do not.
    """
    others = tuple(_prefix(other) for other in SERVICES if other != service)
    withheld = ("HABEAS_ADMIN_DATABASE_DSN", "PG", "PLATFORM_DSN", *others)
    return {name: value for name, value in os.environ.items() if not name.startswith(withheld)}
