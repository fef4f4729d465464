"""The three servers that a fleet needs, together: given by environment variable, by a Docker engine, or embedded.

`python -m habeas_embedded.servers --name dev` starts them, writes their addresses as one JSON object to standard output
and to `.habeas/run/dev/addresses.json`, and stops them at SIGTERM or Ctrl-C.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Protocol, Self

from habeas_embedded.containers import ContainerServer, KafkaContainer, PostgresContainer, containers_wanted
from habeas_embedded.errors import EmbeddedError
from habeas_embedded.kafka import KafkaServer, kafka_prepared
from habeas_embedded.mailbox import Mailbox
from habeas_embedded.own_server import OwnServer
from habeas_embedded.places import cache_directory
from habeas_embedded.postgres import PostgresServer
from habeas_embedded.runs import Run
from habeas_embedded.smtp import SmtpServer
from habeas_embedded.supervision import keep

__all__ = ["ALL_SERVERS", "Server", "Servers", "main"]

ALL_SERVERS: Final = ("kafka", "postgres", "smtp")

_GIVEN: Final = MappingProxyType(
    {
        "kafka": "HABEAS_KAFKA_BOOTSTRAP",
        "postgres": "HABEAS_ADMIN_DATABASE_DSN",
        "smtp": "NOTIFICATION_MAILER_SMTP_HOST",
    }
)
_SMTP_PORT: Final = 25


class Server(Protocol):
    """One server of ours, which tests may stop, kill and start again; its address stays the same."""

    @property
    def name(self) -> str:
        """What it is called: kafka, postgres, smtp."""

    @property
    def alive(self) -> bool:
        """Whether the process runs."""

    async def start(self) -> None:
        """Start and wait until it answers."""

    async def stop(self) -> None:
        """Stop in order, within a limit."""

    async def kill(self) -> None:
        """End as a crash would."""


class Servers:
    """Kafka, PostgreSQL and an SMTP sink of one run; an async context manager that starts and stops them.

    A server given by environment variable is used as it is and never started or stopped. `only` limits what is started,
    as an integration test needs PostgreSQL alone. Without `keep_data` every start begins with empty servers. `ephemeral`
    runs leave nothing on disk. `hasty` is for tests that kill Kafka or look for trimmed records on its disk; without it servers at
    rest take next to nothing (see kafka.py). `kafka_front_port` is for whoever stands between Kafka and its clients (see KafkaServer).
    Start and stop from the main thread, as on Linux the servers end with the thread that started them.
    """

    def __init__(  # noqa: PLR0913 (choices of their own, all by keyword)
        self,
        name: str,
        *,
        only: Iterable[str] = ALL_SERVERS,
        keep_data: bool = False,
        ephemeral: bool = False,
        durable: bool = True,
        hasty: bool = False,
        kafka_front_port: int | None = None,
        env: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.wanted = frozenset(only)
        if unknown := self.wanted - set(ALL_SERVERS):
            raise ValueError(f"no such server: {', '.join(sorted(unknown))}")
        self._keep_data = keep_data
        self._ephemeral = ephemeral
        self._durable = durable
        self._hasty = hasty
        self._kafka_front_port = kafka_front_port
        self._env = dict(os.environ if env is None else env)
        self._say = say
        self._run: Run | None = None
        self._kafka: KafkaServer | KafkaContainer | None = None
        self._postgres: PostgresServer | PostgresContainer | None = None
        self._smtp: SmtpServer | None = None

    async def start(self) -> None:
        """Start all in parallel and wait until each answers; when one fails, all are stopped and its error is raised."""
        if self._run is not None:
            raise RuntimeError("the servers run already")
        self._run = Run(self.name, ephemeral=self._ephemeral, fresh=not self._keep_data)
        if self._run.mended:
            self._say(f"stopped what a killed run left behind: {', '.join(self._run.mended)}")
        try:
            await self._make(self._run)
            outcomes = await asyncio.gather(*(server.start() for server in self._own()), return_exceptions=True)
            for outcome in outcomes:  # raised only now, so that no start is left running beside the stop
                if isinstance(outcome, BaseException):
                    raise outcome
            self._write_addresses()
        except BaseException:
            await self.stop()
            raise

    async def _make(self, run: Run) -> None:
        cache = cache_directory()
        own = {name for name in self.wanted if not self._env.get(_GIVEN[name])}
        contained = bool(own - {"smtp"}) and await asyncio.to_thread(containers_wanted, self._env)
        if "kafka" in own:
            node = KafkaServer(run, cache, self._say, front_port=self._kafka_front_port, hasty=self._hasty)
            self._kafka = KafkaContainer(hasty=self._hasty) if contained else node
        if "postgres" in own:
            embedded = PostgresServer(run, cache, self._say, durable=self._durable)
            self._postgres = PostgresContainer() if contained else embedded
        if "smtp" in own:
            self._smtp = SmtpServer(run, self._say)

    async def stop(self) -> None:
        """Stop all that we started, each within its limit; doing it again does nothing."""
        if self._run is None:
            return
        await asyncio.gather(
            *(server.remove() if isinstance(server, ContainerServer) else server.stop() for server in self._own())
        )
        self._run.close()
        self._run = None

    async def supervise(self, stopping: asyncio.Event, told: Callable[[str], None] = lambda _: None) -> None:
        """Start again every embedded server that dies, at its address, after a pause that doubles from 0.5 s to 30 s.

        This goes on until `stopping` is set. `told` hears of each death and of what came of it. Containers are left to their engine.
        """
        async with asyncio.TaskGroup() as group:
            own = [server for server in self._own() if isinstance(server, OwnServer)]
            keepers = [group.create_task(keep(server, partial(_again, server, told))) for server in own]
            await stopping.wait()
            for keeper in keepers:
                keeper.cancel()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def run(self) -> Run:
        """The run directory that is held while the servers run."""
        if self._run is None:
            raise RuntimeError("the servers do not run")
        return self._run

    @property
    def kafka(self) -> KafkaServer | KafkaContainer:
        """Our own Kafka; raises RuntimeError where Kafka was given, as it is not ours to stop."""
        if self._kafka is None:
            raise _not_ours("kafka")
        return self._kafka

    @property
    def postgres(self) -> PostgresServer | PostgresContainer:
        """Our own PostgreSQL; raises RuntimeError where PostgreSQL was given."""
        if self._postgres is None:
            raise _not_ours("postgres")
        return self._postgres

    @property
    def smtp(self) -> SmtpServer:
        """Our own SMTP sink; raises RuntimeError where an SMTP server was given."""
        if self._smtp is None:
            raise _not_ours("smtp")
        return self._smtp

    @property
    def kafka_bootstrap(self) -> str:
        """Kafka's address, host:port."""
        return self._env.get(_GIVEN["kafka"]) or self.kafka.bootstrap

    @property
    def postgres_admin_dsn(self) -> str:
        """The DSN of a role that may create databases and roles."""
        return self._env.get(_GIVEN["postgres"]) or self.postgres.admin_dsn

    @property
    def smtp_host(self) -> str:
        """The host that takes mail."""
        return self._env.get(_GIVEN["smtp"]) or self.smtp.host

    @property
    def smtp_port(self) -> int:
        """The port that takes mail."""
        if self._env.get(_GIVEN["smtp"]):
            return int(self._env.get("NOTIFICATION_MAILER_SMTP_PORT") or _SMTP_PORT)
        return self.smtp.port

    @property
    def has_own_smtp(self) -> bool:
        """Whether mail goes into our own sink, and can be looked at."""
        return self._smtp is not None

    @property
    def mailbox(self) -> Mailbox:
        """The mails that the sink has delivered; raises RuntimeError where an SMTP server was given."""
        return self.smtp.mailbox

    @property
    def mail_dir(self) -> Path:
        """The sink's directory."""
        return self.mailbox.directory

    def addresses(self) -> dict[str, str | int]:
        """Give all addresses by name, for people and programs; holds the password of the database."""
        found: dict[str, str | int] = {"run_dir": str(self.run.directory)}
        if "kafka" in self.wanted:
            found["kafka_bootstrap"] = self.kafka_bootstrap
        if "postgres" in self.wanted:
            found["postgres_admin_dsn"] = self.postgres_admin_dsn
        if "smtp" in self.wanted:
            found |= {"smtp_host": self.smtp_host, "smtp_port": self.smtp_port}
        for server in self._own():
            match server:
                case KafkaServer() | PostgresServer():
                    found[f"{server.name}_data_dir"] = str(server.data_directory)
                case SmtpServer():
                    found["mail_dir"] = str(self.mail_dir)
                case _:
                    pass
        return found

    def _own(self) -> list[Server]:
        return [server for server in (self._kafka, self._postgres, self._smtp) if server is not None]

    def _write_addresses(self) -> None:
        path = self.run.directory / "addresses.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(self.addresses(), indent=1))


async def _again(server: OwnServer, told: Callable[[str], None]) -> None:
    """Start a server that has died; what hinders it is told, and tried again later."""
    told(f"{server.name} died and is started again; see {server.log}")
    begun = time.monotonic()
    try:
        await server.start()
    except (EmbeddedError, OSError) as error:
        told(str(error))
    else:
        told(f"{server.name} answers again after {time.monotonic() - begun:.1f} s")


def _not_ours(name: str) -> RuntimeError:
    return RuntimeError(f"{name} was not started by us: it is given, not wanted, or not started yet")


async def _until_told(servers: Servers) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with servers:
        sys.stdout.write(json.dumps(servers.addresses()) + "\n")
        sys.stdout.flush()
        await servers.supervise(ended, _tell)


async def _prepare(servers: Servers) -> None:
    """Fetch and make what later starts take from the cache; does nothing where that is done, or where Kafka is given."""
    if os.environ.get(_GIVEN["kafka"]) or kafka_prepared(cache_directory()):
        return
    async with servers:
        pass


def main() -> int:
    """Run the servers until SIGTERM; gives the exit code."""
    parser = argparse.ArgumentParser(description="Kafka, PostgreSQL and an SMTP sink on loopback, until SIGTERM")
    parser.add_argument(
        "--name", default="dev", help="name of the run; runs of different names do not disturb each other"
    )
    parser.add_argument("--only", nargs="+", choices=ALL_SERVERS, default=ALL_SERVERS)
    parser.add_argument("--keep-data", action="store_true", help="go on with what the last run of this name left")
    parser.add_argument("--prepare", action="store_true", help="only fetch and make what later starts need, once")
    given = parser.parse_args()
    try:
        if given.prepare:
            asyncio.run(_prepare(Servers(f"prepare-{os.getpid()}", ephemeral=True, say=_tell)))
        else:
            asyncio.run(_until_told(Servers(given.name, only=given.only, keep_data=given.keep_data, say=_tell)))
    except EmbeddedError as error:
        _tell(str(error))
        return 1
    return 0


def _tell(text: str) -> None:
    """Tell a person something, apart from the addresses on standard output."""
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
