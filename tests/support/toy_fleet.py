"""The two toy services as a fleet of their own, in a database of their own: started, killed and looked into by tests."""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from habeas.contracts.topics import CATALOGUE
from habeas_embedded.fleet import Fleet, FleetPlan
from habeas_embedded.processes import end_of_log
from habeas_embedded.provision import Access, drop_database, prepare_database, with_database
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from tests.architecture.repository import ROOT
from tests.support.delivery import by_key, new_id
from tests.support.toys import MAKE_TOYS
from tests.support.waiting import HANGS_S, until

OWN: Final = "WHERE request_id IN (SELECT toy_id FROM request_intake.toys)"
PAIR: Final = ("request-intake", "erasure-executor")


@dataclass
class Toys:
    """The pair with its servers, and a look into its tables."""

    servers: Servers
    access: Access
    fleet: Fleet
    connection: "asyncpg.Connection[asyncpg.Record]"
    heard_last: int = 0

    async def add(self, keys: int) -> list[UUID]:
        """Make toys of which nothing is wanted yet."""
        toys = [new_id() for _ in range(keys)]
        await self.connection.execute("INSERT INTO request_intake.toys (toy_id) SELECT unnest($1::uuid[])", toys)
        return toys

    async def want(self, more: int) -> None:
        """Want so many more events of each toy."""
        await self.connection.execute("UPDATE request_intake.toys SET wanted = wanted + $1", more)

    async def heard(self) -> int:
        """How many effects of these toys there are."""
        self.heard_last = int(await self.connection.fetchval(f"SELECT count(*) FROM erasure_executor.effects {OWN}"))
        return self.heard_last

    async def hears(self, count: int) -> None:
        """Wait until so many effects are there. Raises AssertionError with what does not go on."""

        async def there() -> bool:
            return await self.heard() >= count

        await self.until(there, f"{count} effects")

    async def until(self, condition: Callable[[], bool | Awaitable[bool]], what: str) -> None:
        """Wait until the condition holds. Raises AssertionError with what does not go on."""
        try:
            await until(condition, what, self.progress)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{await self.troubles()}") from None

    async def effects(self) -> dict[UUID, list[int]]:
        """The numbers of each toy, in the order in which they were written."""
        sql = f"SELECT request_id, number FROM erasure_executor.effects {OWN} ORDER BY position"
        rows = await self.connection.fetch(sql)
        return by_key((row["request_id"], row["number"]) for row in rows)

    async def reconnect(self, server_dsn: str | None = None) -> None:
        """Connect again after the server came back, or to the one that took its place."""
        dsn = self.access.admin_dsn if server_dsn is None else with_database(server_dsn, self.access.database)
        self.connection.terminate()
        self.connection = await asyncpg.connect(dsn, timeout=HANGS_S)

    def progress(self) -> tuple[object, ...]:
        """What changes while anything goes on: effects as they were counted last, and how much each service has logged."""
        logs = [each.child.log for each in self.fleet.members if each.service in PAIR]
        return self.heard_last, {log.name: log.stat().st_size for log in logs if log.is_file()}

    async def troubles(self) -> str:
        """Say in a few lines what does not go on, for the message of a failed test."""
        counts = await self.connection.fetchrow(
            "SELECT (SELECT count(*) FROM erasure_executor.effects) AS effects,"
            " (SELECT count(*) FROM request_intake.outbox WHERE published_at IS NULL) AS unpublished,"
            " (SELECT count(*) FROM erasure_executor.inbox) AS unhandled,"
            " (SELECT count(*) FROM erasure_executor.seen) AS stored"
        )
        assert counts is not None
        logs = [
            f"-- {each.name}\n{end_of_log(each.child.log, 6)}" for each in self.fleet.members if each.service in PAIR
        ]
        return "\n".join([str(dict(counts)), *logs])

    def logged(self, service: str, text: str) -> bool:
        """Answer whether a service's log has this text."""
        log = self.fleet.member(service).child.log
        return log.is_file() and text.encode() in log.read_bytes()  # there is none before the first start


async def forget_history(bootstrap: str, owner: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Empty all topics, and let a new database know where they end.

    What services told before on the same Kafka would look like its own lost past to it, and what they left there it would read. A Kafka
    that is killed within a minute forgets that topics were emptied: so the database knows where they end, and others' effects do not count.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await consumer.start()
    await admin.start()
    try:
        places = [TopicPartition(topic.name, each) for topic in CATALOGUE for each in range(topic.partitions)]
        ends = {place: end for place, end in (await consumer.end_offsets(places)).items() if end}
        await admin.delete_records({place: RecordsToDelete(before_offset=end) for place, end in ends.items()})
    finally:
        await admin.close()
        await consumer.stop()
    for service in PAIR:
        rows = [(*place, end) for place, end in ends.items()]
        await owner.executemany(f"INSERT INTO {service.replace('-', '_')}.positions VALUES ($1, $2, $3)", rows)


@asynccontextmanager
async def paired(
    servers: Servers, *, replicas: int = 1, stop_timeout_s: float = 8.0, hosts: str | None = None
) -> AsyncIterator[Toys]:
    """Make the pair, not yet started, and take it down; ``hosts`` are those among which services look for the primary."""
    admin_dsn = servers.postgres_admin_dsn
    access, _ = await asyncio.gather(
        prepare_database(admin_dsn, f"toys_{secrets.token_hex(6)}"), create_topics(servers.kafka_bootstrap)
    )
    owner = await asyncpg.connect(access.owner_dsn)
    await owner.execute(MAKE_TOYS)
    await forget_history(servers.kafka_bootstrap, owner)
    await owner.close()
    nothing = servers.run.directory / "none.yaml"
    shared = {
        "HABEAS_LOG_LEVEL": "warning",
        "HABEAS_TRACE_RATIO": "0",
        "HABEAS_STOP_TIMEOUT_S": str(stop_timeout_s),
        "PYTHONPATH": str(ROOT),
    }
    programs = {service: (sys.executable, "-m", "tests.support.toys", service) for service in PAIR}
    environment = {}
    for service in PAIR if hosts else ():
        parts = urlsplit(access.dsn(service))
        place = f"{parts.netloc.rpartition('@')[0]}@{hosts}"
        dsn = urlunsplit(parts._replace(netloc=place, query="target_session_attrs=read-write"))
        environment[service] = {f"{service.upper().replace('-', '_')}_DATABASE_DSN": dsn}
    plan = FleetPlan(
        nothing,
        servers.run.directory,
        shared=shared,
        environment=environment,
        programs=programs,
        replicas={"erasure-executor": replicas},
    )
    fleet = Fleet(servers, access, plan)
    pair = Toys(servers, access, fleet, await asyncpg.connect(access.admin_dsn))
    try:
        yield pair
    finally:
        await fleet.stop()
        await asyncio.gather(*(server.start() for server in (servers.kafka, servers.postgres) if not server.alive))
        await pair.connection.close()
        await drop_database(admin_dsn, access.database)
