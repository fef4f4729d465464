"""Where a campaign takes place: servers, proxies before them, databases, an invented platform, and two replicas of every service."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from habeas.chassis.clock import Clock, SystemClock
from habeas.kit import Issuer
from habeas_demo.generator import PLATFORM_DIR
from habeas_demo.histories import Size
from habeas_demo.people import Person
from habeas_demo.platform import PlatformAccess, prepare_platform
from habeas_demo.scenario import new_issuer, policy_with_issuer, start_of_day
from habeas_embedded.fleet import Fleet, FleetPlan
from habeas_embedded.kafka import KafkaServer
from habeas_embedded.ports import LOOPBACK, free_port
from habeas_embedded.probing import is_ready
from habeas_embedded.provision import SERVICES, Access, prepare_database
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from tests.kill.proxy import Proxy
from tests.kill.witness import LastingWitness
from tests.support.journal import keep_journal
from tests.support.waiting import until

LEASE_S: Final = 4.0
"""How long a lane stays with a replica that went silent: shorter than many pauses, so that replicas are fenced often."""

_SETTINGS: Final = {
    "HABEAS_LEASE_S": str(LEASE_S),
    "HABEAS_LOG_LEVEL": "warning",
    "HABEAS_TRACE_RATIO": "0",
    "HABEAS_RETRY_MAX_S": "10",
    "HABEAS_CONNECT_TIMEOUT_S": "5",
    "HABEAS_STATEMENT_TIMEOUT_MS": "15000",
}


@dataclass(frozen=True, slots=True)
class Proxies:
    """What stands before each server; services know these ports only."""

    kafka: Proxy
    postgres: Proxy
    smtp: Proxy

    @property
    def all(self) -> tuple[Proxy, ...]:
        """Every proxy."""
        return (self.kafka, self.postgres, self.smtp)


@dataclass(frozen=True, slots=True)
class Ground:
    """A running fleet, what stands between it and its servers, and what was on the platform before."""

    servers: Servers
    proxies: Proxies
    access: Access
    platform: PlatformAccess
    fleet: Fleet
    issuer: Issuer
    witness: LastingWitness
    clock: Clock
    replicas: int

    @property
    def run(self) -> Path:
        """The directory in which servers and services write."""
        return self.servers.run.directory

    @property
    def people(self) -> list[Person]:
        """Those with open accounts whose rows are all inside of their retention."""
        return [each for each in self.platform.loaded.people if each.closed_at is None and not each.old_customer]


@asynccontextmanager
async def laid_out(name: str, *, seed: int, size: Size, replicas: int = 2) -> AsyncIterator[Ground]:
    """Start everything on servers of its own, and stop it at the end; the run directory of this name stays."""
    clock = SystemClock()
    now = clock.now()
    async with AsyncExitStack() as stack:
        front = free_port()
        servers = await stack.enter_async_context(
            Servers(name, env={"HABEAS_SERVERS": "embedded"}, hasty=True, kafka_front_port=front)
        )
        proxies = Proxies(
            Proxy("kafka", lambda: _behind(servers), front),
            Proxy("postgres", lambda: _place(servers.postgres_admin_dsn)),
            Proxy("smtp", lambda: (servers.smtp_host, servers.smtp_port)),
        )
        for proxy in proxies.all:
            await stack.enter_async_context(proxy)
        access, platform, _ = await asyncio.gather(
            prepare_database(servers.postgres_admin_dsn),
            prepare_platform(servers.postgres_admin_dsn, seed=seed, now=now, size=size),
            create_topics(servers.kafka_bootstrap),
        )
        await keep_journal(access.owner_dsn, (service.replace("-", "_") for service in SERVICES))
        witness = await LastingWitness.note(platform.owner_dsn, start_of_day(now), servers.run.directory / "witness")
        issuer = new_issuer("accounts-kill")
        policy = servers.run.directory / "policy.yaml"
        text = (PLATFORM_DIR / "policy.yaml").read_text(encoding="utf-8")
        policy.write_text(policy_with_issuer(text, issuer), encoding="utf-8")
        plan = FleetPlan(
            policy,
            PLATFORM_DIR / "datamap",
            {service: _through(dsn, proxies.postgres) for service, dsn in platform.service_dsns.items()},
            {**_SETTINGS, "HABEAS_KAFKA_BOOTSTRAP": f"{LOOPBACK}:{proxies.kafka.port}"},
            {service: _environment(service, access, proxies) for service in SERVICES},
            dict.fromkeys(SERVICES, replicas),
        )
        fleet = Fleet(servers, access, plan)
        stack.push_async_callback(fleet.stop)
        await _start(fleet)
        yield Ground(servers, proxies, access, platform, fleet, issuer, witness, clock, replicas)


async def _start(fleet: Fleet) -> None:
    """Start every replica, and wait until one of each service is ready: campaigns begin before everybody is."""
    for member in fleet.members:
        fleet._spawn(member)

    async def ready(service: str) -> bool:
        mine = [member for member in fleet.members if member.service == service]
        return any(await asyncio.gather(*(is_ready(member.health_port) for member in mine)))

    for service in SERVICES:
        await until(partial(ready, service), f"{service} to be ready", lambda: _logged(fleet))


def _logged(fleet: Fleet) -> list[int]:
    """How much each replica has logged, which grows while it gets on."""
    return [member.child.log.stat().st_size for member in fleet.members]


def _environment(service: str, access: Access, proxies: Proxies) -> Mapping[str, str]:
    prefix = service.upper().replace("-", "_")
    own = {f"{prefix}_DATABASE_DSN": _through(access.dsn(service), proxies.postgres)}
    if service == "export-builder":
        own["EXPORT_BUILDER_DELETE_INTERVAL_S"] = "2"
    if service == "notification-mailer":
        own |= {
            "NOTIFICATION_MAILER_SMTP_PORT": str(proxies.smtp.port),
            "NOTIFICATION_MAILER_SMTP_FINAL_TIMEOUT_S": "20",
            "NOTIFICATION_MAILER_MAIL_LEASE_S": "25",
            "NOTIFICATION_MAILER_RESEND_LONGEST_S": "5",
            "NOTIFICATION_MAILER_RESEND_UNCERTAIN_FIRST_S": "1",
        }
    return own


def _behind(servers: Servers) -> tuple[str, int]:
    assert isinstance(servers.kafka, KafkaServer), "a campaign kills processes, so Kafka is one"
    host, _, port = servers.kafka.bootstrap_behind.rpartition(":")
    return host, int(port)


def _place(dsn: str) -> tuple[str, int]:
    parts = urlsplit(dsn)
    return parts.hostname or LOOPBACK, parts.port or 5432


def _through(dsn: str, proxy: Proxy) -> str:
    parts = urlsplit(dsn)
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@{LOOPBACK}:{proxy.port}"))
