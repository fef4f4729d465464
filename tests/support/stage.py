"""A whole fleet for journeys: servers, databases, the demonstration platform with invented people, six services, and ears.

One stage serves all tests of a session; each test takes people of its own with `take`. Tests that spoil a fleet for
others raise a stage of their own.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg

from habeas.chassis.clock import Clock, SystemClock
from habeas.contracts.audit import Action
from habeas.contracts.request_intake import RequestCompleted
from habeas.contracts.vocabulary import ErasureGround, Right
from habeas.kit import Issuer, Publisher
from habeas_demo.generator import PLATFORM_DIR, Connection
from habeas_demo.histories import Size
from habeas_demo.people import Person
from habeas_demo.platform import PlatformAccess, prepare_platform
from habeas_demo.scenario import new_issuer, policy_with_issuer
from habeas_embedded.fleet import Fleet, FleetPlan
from habeas_embedded.processes import end_of_log
from habeas_embedded.provision import SERVICES, Access, prepare_database
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from tests.support.heard import Heard
from tests.support.journal import UNLOGGED, keep_journal
from tests.support.waiting import until

SMALL: Final = Size(accounts=60, logs_each=4, tasks_each=2)
"""Enough people for a few journeys."""

_SEED: Final = 11
_EMBEDDED: Final = {"HABEAS_SERVERS": "embedded"}  # never shared with others, and their files can be looked into
_DETAILS: Final = {Right.ERASURE: {"ground": ErasureGround.CONSENT_WITHDRAWN.value}}
_INBOXES: Final = tuple(service.replace("-", "_") for service in SERVICES)


@dataclass
class Stage:
    """A running fleet and what a test needs to play on it."""

    servers: Servers
    access: Access
    platform: PlatformAccess
    fleet: Fleet
    issuer: Issuer
    publisher: Publisher
    heard: Heard
    habeas: Connection
    owner: Connection
    clock: Clock
    services: tuple[str, ...]
    _people: Iterator[Person] = field(repr=False)
    _read: set[str] = field(default_factory=set, repr=False)
    _mails: dict[str, list[Message]] = field(default_factory=lambda: defaultdict(list), repr=False)

    @property
    def run(self) -> Path:
        """The directory in which servers and services write."""
        return self.servers.run.directory

    def take(self, count: int) -> list[Person]:
        """Give people with open accounts whom no other test has had; raises ValueError when there are too few left."""
        taken = [person for person, _ in zip(self._people, range(count), strict=False)]
        if len(taken) < count:
            raise ValueError(f"{count} people were wanted, {len(taken)} are left: the platform has to be larger")
        return taken

    def take_one(self) -> Person:
        """Give one person."""
        return self.take(1)[0]

    async def ask(self, right: Right, person: Person, **given: Any) -> UUID:
        """Send a request of this person through the publisher kit."""
        parts: dict[str, Any] = {
            "account_id": person.account_id,
            "country": "DE",
            "language": person.language,
            "details": _DETAILS.get(right),
            **given,
        }
        return await self.publisher.request(right, **parts)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Listen until the condition holds. Raises AssertionError with what the fleet says about itself when it stands still before."""

        async def holds() -> bool:
            return condition()

        await self.finds(holds, what)

    async def completed(self, *request_ids: UUID) -> list[RequestCompleted]:
        """Wait until all these requests are completed, and give what was said then."""
        wanted = set(request_ids)
        await self.until(lambda: wanted <= self.heard.completed.keys(), f"{len(wanted)} completions")
        return [self.heard.completed[request_id] for request_id in request_ids]

    async def told(self, request_id: UUID, kind: str) -> None:
        """Wait until an event of this type was said about the request."""
        await self.until(lambda: kind in self.heard.types(request_id), f"{kind} of {request_id}")

    async def logged(self, request_id: UUID, *actions: Action) -> None:
        """Wait until the audit topic has these actions about the request."""

        def all_there() -> bool:
            return set(actions) <= {entry.fact.action for entry in self.heard.audit if entry.fact.request == request_id}

        await self.until(all_there, f"{', '.join(actions)} of {request_id} in the audit topic")

    async def request(self, request_id: UUID) -> Mapping[str, Any]:
        """Give the request's row as request-intake holds it, empty when there is none."""
        row = await self.habeas.fetchrow("SELECT * FROM request_intake.requests WHERE request_id = $1", request_id)
        return {} if row is None else dict(row)

    async def holds(self, request_id: UUID, **columns: object) -> Mapping[str, Any]:
        """Wait until the request's row has these values, and give it."""
        row: Mapping[str, Any] = {}

        async def holds() -> bool:
            nonlocal row
            row = await self.request(request_id)
            return bool(row) and all(row[name] == value for name, value in columns.items())

        await self.finds(holds, f"{columns} of {request_id}")
        return row

    async def finds(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait until a condition holds that has to be asked for, as `until` does."""

        async def holds() -> bool:
            if await condition():
                return True
            self._all_alive()
            await self.heard.listen()
            return False

        try:
            await until(holds, what, self.progress)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{await self.troubles()}") from None

    def progress(self) -> tuple[object, ...]:
        """What changes while anything goes on: events and entries that were heard, mails, and how much each service has logged."""
        logs = [member.child.log for member in self.fleet.members if member.service in self.services]
        sizes = {log.name: log.stat().st_size for log in logs if log.is_file()}
        return self.heard.count, self.servers.mailbox.count(), sizes

    def mails(self, address: str) -> list[Message]:
        """Give the headers of the mails that were delivered to an address, in order of delivery; each is read once."""
        directory = self.servers.mailbox.sort()
        if not directory.is_dir():
            return []
        for name in sorted(set(os.listdir(directory)) - self._read):  # noqa: PTH208 -- thousands of names, many times
            self._read.add(name)
            headers = BytesHeaderParser().parsebytes((directory / name).read_bytes())
            for recipient in headers.get_all("Delivered-To", []):
                self._mails[recipient.strip().lower()].append(headers)
        return list(self._mails[address.lower()])

    def mail_kinds(self, address: str) -> list[str]:
        """Give the kinds of the mails that an address got, sorted."""
        return sorted(str(mail["X-Habeas-Kind"]) for mail in self.mails(address))

    async def parked(self) -> dict[tuple[str, int, int], tuple[str, str]]:
        """Give reason and field of every parked message of every service, by topic, partition and offset."""
        found: dict[tuple[str, int, int], tuple[str, str]] = {}
        for schema in _INBOXES:
            for row in await self.habeas.fetch(
                f"SELECT topic, partition, record_offset, reason, field FROM {schema}.inbox WHERE state = 'parked'"
            ):
                place = (row["topic"], row["partition"], row["record_offset"])
                assert place not in found, "one record was parked by two services"
                found[place] = (row["reason"], row["field"])
        return found

    async def idle(self) -> None:
        """Wait until nothing is under way: no message waits in an inbox or outbox, and no mail."""
        waiting = " + ".join(
            f"(SELECT count(*) FROM {schema}.inbox WHERE state = 'pending')"
            f" + (SELECT count(*) FROM {schema}.outbox WHERE published_at IS NULL)"
            f" + ({UNLOGGED.format(schema=schema)})"
            for schema in _INBOXES
        )
        mails = "(SELECT count(*) FROM notification_mailer.messages WHERE state IN ('queued', 'sending', 'dot'))"

        async def nothing() -> bool:
            return bool(await self.habeas.fetchval(f"SELECT {waiting} + {mails}") == 0)

        await self.finds(nothing, "an idle fleet")

    async def troubles(self) -> str:
        """Say in a few lines what does not go on, for the message of a failed test."""
        lines = [
            f"requests {row['state']} ({row['stuck_reason']}): {row['count']}"
            for row in await self.habeas.fetch(
                "SELECT state, stuck_reason, count(*) FROM request_intake.requests GROUP BY 1, 2 ORDER BY 1, 2"
            )
        ]
        for schema in _INBOXES:
            rows = await self.habeas.fetch(
                f"SELECT state, type, reason, field, count(*) FROM {schema}.inbox WHERE state IN ('pending', 'parked')"
                " GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC LIMIT 5"
            )
            lines += [f"{schema}: {' '.join(str(value) for value in row.values())}" for row in rows]
        for member in self.fleet.members:
            if member.service in self.services:
                lines += [f"-- {member.name}", end_of_log(member.child.log, 3)]
        return "\n".join(lines)

    def _all_alive(self) -> None:
        for member in self.fleet.members:
            if member.wanted and not member.child.alive:
                raise AssertionError(
                    f"{member.name} ended with {member.child.exit_code}:\n{end_of_log(member.child.log, 20)}"
                )


@asynccontextmanager
async def raised(
    name: str,
    *,
    size: Size = SMALL,
    services: Iterable[str] = SERVICES,
    environment: Mapping[str, Mapping[str, str]] | None = None,
    programs: Mapping[str, tuple[str, ...]] | None = None,
    shared: Mapping[str, str] | None = None,
    replicas: Mapping[str, int] | None = None,
    database_settings: str = "",
    hasty: bool = False,
) -> AsyncIterator[Stage]:
    """Start a stage and take it down at the end; `name` is that of its run, what has no word of its own is as in FleetPlan.

    `hasty` is for a test that kills Kafka, as in Servers.
    `database_settings` is SQL that an administrator runs before any service connects.
    """
    clock = SystemClock()
    now = clock.now()
    services = tuple(services)
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(Servers(name, ephemeral=True, hasty=hasty, env=_EMBEDDED))
        access, platform, _ = await asyncio.gather(
            prepare_database(servers.postgres_admin_dsn),
            prepare_platform(servers.postgres_admin_dsn, seed=_SEED, now=now, size=size),
            create_topics(servers.kafka_bootstrap),
        )
        await keep_journal(access.owner_dsn, (service.replace("-", "_") for service in SERVICES))
        habeas = await _connected(stack, access.admin_dsn)
        if database_settings:
            await habeas.execute(database_settings)
        issuer = new_issuer("accounts-tests")
        policy = servers.run.directory / "policy.yaml"
        text = (PLATFORM_DIR / "policy.yaml").read_text(encoding="utf-8")
        policy.write_text(policy_with_issuer(text, issuer), encoding="utf-8")
        plan = FleetPlan(
            policy,
            PLATFORM_DIR / "datamap",
            platform.service_dsns,
            environment=environment or {},
            programs=programs or {},
            shared=shared or {},
            replicas=replicas or {},
        )
        fleet = Fleet(servers, access, plan)
        stack.push_async_callback(fleet.stop)
        await fleet.start(services)
        publisher = await stack.enter_async_context(
            Publisher(servers.kafka_bootstrap, source=issuer.name, issuer=issuer, clock=clock)
        )
        heard = await stack.enter_async_context(Heard(servers.kafka_bootstrap))
        owner = await _connected(stack, platform.owner_dsn)
        people = (person for person in platform.loaded.people if person.closed_at is None and not person.old_customer)
        yield Stage(servers, access, platform, fleet, issuer, publisher, heard, habeas, owner, clock, services, people)


async def _connected(stack: AsyncExitStack, dsn: str) -> Connection:
    connection = await asyncpg.connect(dsn)
    await connection.execute("SET idle_session_timeout = 0")
    stack.push_async_callback(connection.close)
    return connection
