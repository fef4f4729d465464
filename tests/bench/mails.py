"""B1's share of mails, and B13: the real notification-mailer from Kafka to the embedded mail sink, with nothing else of the fleet."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaProducer
from pydantic import HttpUrl
from rich.console import Console

from habeas.chassis.clock import SystemClock
from habeas.chassis.ids import uuid7
from habeas.contracts.envelope import Envelope, encode_headers
from habeas.contracts.model import Event
from habeas.contracts.outcomes import CategoryOutcome
from habeas.contracts.platform import PolicyChanged
from habeas.contracts.request_intake import RequestAccepted, RequestFulfilled
from habeas.contracts.vocabulary import KeepGround, Outcome, Right, TableResult
from habeas.sealing import KeyKind, KeyStore, Place, seal_json
from habeas.sealing.kek import FileKek
from habeas_demo.generator import PLATFORM_DIR
from habeas_demo.histories import Size
from habeas_demo.platform import prepare_platform
from habeas_embedded.fleet import Fleet, FleetPlan
from habeas_embedded.mailbox import Mailbox
from habeas_embedded.provision import Access, prepare_database
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from tests.bench import cpu
from tests.bench.report import Figure

MAILER: Final = "notification-mailer"
_LIMIT_S: Final = 300.0
_LOOK_S: Final = 0.25
_CLOCK: Final = SystemClock()
_KINDS: Final = ("acknowledgement", "outcome")

_COUNT_STATES: Final = (
    "SELECT state, count(*) AS mails FROM notification_mailer.messages WHERE kind = ANY($1) GROUP BY state"
)
_OPEN_ACCOUNTS: Final = """
    INSERT INTO accounts (id, email, name, language, country, clerk_user_id, plan_id, created_at, updated_at)
    SELECT 'acc_bench' || n, 'holder' || n || '@example.net', CASE n % 3 WHEN 0 THEN 'Zoë Müller ' ELSE 'Ann Miller ' END || n,
           CASE n % 2 WHEN 0 THEN 'en' ELSE 'de' END, 'DE', 'user_bench' || n, (SELECT min(id) FROM plans), now(), now()
      FROM generate_series(1, $1::integer) AS n
"""
_COUNT_UNPUBLISHED: Final = """
    SELECT (SELECT count(*) FROM notification_mailer.outbox WHERE published_at IS NULL)
         + (SELECT count(*) FROM notification_mailer.audit_outbox)
         + (SELECT seq - published_seq FROM notification_mailer.audit_head)
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many requests are answered, each by two mails, and how many account holders a campaign tells."""

    requests: int = 2_000
    recipients: int = 10_000


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who asked."""

    request_id: UUID
    subject_id: UUID
    address: str
    contact: str


async def measure(console: Console, sizes: Sizes | None = None) -> list[Figure]:
    """Send the mails of requests, then a campaign; every mail is looked for before a figure counts."""
    sizes = sizes or Sizes()
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(Servers("bench-mails", ephemeral=True))
        few = Size(accounts=20, days=120, logs_each=1, tasks_each=1)
        access, platform, _ = await asyncio.gather(
            prepare_database(servers.postgres_admin_dsn),
            prepare_platform(servers.postgres_admin_dsn, seed=7, now=_CLOCK.now(), size=few),
            create_topics(servers.kafka_bootstrap),
        )
        recipients = await _open_accounts(platform.owner_dsn, sizes.recipients)
        plan = FleetPlan(
            PLATFORM_DIR / "policy.yaml",
            PLATFORM_DIR / "datamap",
            platform.service_dsns,
            {"HABEAS_LOG_LEVEL": "warning", "HABEAS_TRACE_RATIO": "0"},
        )
        fleet = Fleet(servers, access, plan)
        stack.push_async_callback(fleet.stop)
        await fleet.start([MAILER])
        producer = AIOKafkaProducer(bootstrap_servers=servers.kafka_bootstrap, linger_ms=5)
        await producer.start()
        stack.push_async_callback(producer.stop)
        conn = await asyncpg.connect(access.admin_dsn)
        stack.push_async_callback(conn.close)
        console.print(f"mails of {sizes.requests} requests")
        people = await _people(access, fleet, sizes.requests)
        figures = await _requests(producer, conn, servers.mailbox, people)
        console.print(f"a campaign of {len(recipients)} recipients")
        figures += await _campaign(producer, conn, servers.mailbox, recipients)
        return figures


async def _open_accounts(platform_dsn: str, count: int) -> list[str]:
    """Open accounts on the platform, without histories; gives the addresses of all account holders."""
    conn = await asyncpg.connect(platform_dsn)
    try:
        await conn.execute(_OPEN_ACCOUNTS, count)
        return [row["email"] for row in await conn.fetch("SELECT email FROM accounts")]
    finally:
        await conn.close()


async def _people(access: Access, fleet: Fleet, count: int) -> list[Person]:
    """Make requests with keys and sealed contacts, as request-intake does; a third has a name beyond ASCII."""
    conn = await asyncpg.connect(access.admin_dsn)
    try:
        keys = await KeyStore(FileKek(fleet.kek_file), _CLOCK.now).create(
            conn, [uuid7(_CLOCK) for _ in range(count)], _CLOCK.now()
        )
    finally:
        await conn.close()
    people = []
    for number, (subject_id, both) in enumerate(keys.items()):
        request_id, address = uuid7(_CLOCK), f"person{number}@example.net"
        name = f"Zoë Müller {number}" if number % 3 == 0 else f"Ann Miller {number}"
        value = {"address": address, "name": name, "language": ("en", "de")[number % 2]}
        contact = seal_json(both.of(KeyKind.CASE), Place("request", request_id, "contact"), value)
        people.append(Person(request_id, subject_id, address, contact))
    return people


async def _requests(
    producer: AIOKafkaProducer, conn: "asyncpg.Connection[asyncpg.Record]", mailbox: Mailbox, people: Sequence[Person]
) -> list[Figure]:
    before, begun = cpu.spent(), _CLOCK.monotonic()
    await _publish(producer, [_accepted(person) for person in people])
    await _until_sent(conn, _KINDS, len(people))
    await _publish(producer, [_fulfilled(person, number) for number, person in enumerate(people)])
    await _until_sent(conn, _KINDS, 2 * len(people))
    took_s, used = _CLOCK.monotonic() - begun, cpu.between(before, cpu.spent())
    told = Counter((mail.recipients, mail.message["X-Habeas-Kind"]) for mail in mailbox.mails(headers_only=True))
    if told != Counter(((person.address,), kind) for person in people for kind in _KINDS):
        message = "not everybody got an acknowledgement and an outcome, each once: this run counts for nothing"
        raise AssertionError(message)
    return _figures("B1", "mails of requests", 2 * len(people), took_s, used, None)


async def _campaign(
    producer: AIOKafkaProducer, conn: "asyncpg.Connection[asyncpg.Record]", mailbox: Mailbox, addresses: Sequence[str]
) -> list[Figure]:
    earlier = mailbox.count()
    before, begun = cpu.spent(), _CLOCK.monotonic()
    await _publish(producer, [_policy_changed()])
    await _until_sent(conn, ("policy_change",), len(addresses))
    took_s, used = _CLOCK.monotonic() - begun, cpu.between(before, cpu.spent())
    told = Counter(mail.recipients for mail in mailbox.mails(headers_only=True)[earlier:])
    if told != Counter((address,) for address in addresses):
        message = "not every account holder was told exactly once: this run counts for nothing"
        raise AssertionError(message)
    return _figures("B13", "policy-change mails", len(addresses), took_s, used, 1_500.0)


def _figures(
    bench: str, what: str, count: int, took_s: float, used: dict[str, float], rate: float | None
) -> list[Figure]:
    figures = [Figure(bench, f"{what} per second, {count} at once", count / took_s, "1/s", rate, cpu_s=used)]
    for part, goal in ((MAILER, 0.6), ("smtp-sink", 0.2), ("postgresql", 0.3)):
        each = used.get(part, 0.0) / count * 1000
        figures.append(Figure(bench, f"{what}: CPU of {part} per mail", each, "ms", goal, "lower"))
    return figures


async def _until_sent(conn: "asyncpg.Connection[asyncpg.Record]", kinds: Sequence[str], count: int) -> None:
    """Wait until so many mails are sent and everything about them is told; any other end is a failure."""
    states: dict[str, int] = {}
    end = _CLOCK.monotonic() + _LIMIT_S
    while states.get("sent", 0) < count or await conn.fetchval(_COUNT_UNPUBLISHED):
        if _CLOCK.monotonic() > end:
            break
        await asyncio.sleep(_LOOK_S)  # each look counts rows, which is work that would be measured
        states = {row["state"]: row["mails"] for row in await conn.fetch(_COUNT_STATES, list(kinds))}
    if states != {"sent": count}:
        message = f"of {count} mails {states} after {_LIMIT_S:.0f} s: this run counts for nothing"
        raise AssertionError(message)


async def _publish(producer: AIOKafkaProducer, events: Sequence[Event]) -> None:
    now = _CLOCK.now()
    sent = []
    for event in events:
        envelope = Envelope(uuid7(_CLOCK), event.type, "request-intake", now, event.subject())
        headers = encode_headers(envelope)
        sent.append(await producer.send(event.topic.name, event.encode(), event.key().encode(), headers=headers))
    await asyncio.gather(*sent)


def _accepted(person: Person) -> RequestAccepted:
    now = _CLOCK.now()
    due_on = now.date() + timedelta(days=30)
    return RequestAccepted(
        request_id=person.request_id,
        subject_id=person.subject_id,
        right=Right.ERASURE,
        regime="gdpr",
        law_version="2016-679",
        received_at=now,
        accepted_at=now,
        due_on=due_on,
        legal_limit_on=due_on,
        language=None,
        contact=person.contact,
        subject_ref="0" * 64,
    )


def _fulfilled(person: Person, number: int) -> RequestFulfilled:
    erased = ("account", "usage", "task_content", "technical", "support")
    kept_until = date(_CLOCK.now().year + 10, 12, 31)
    return RequestFulfilled(
        request_id=person.request_id,
        subject_id=person.subject_id,
        right=Right.ERASURE,
        outcome=Outcome.PARTLY_KEPT,
        categories=(
            *(
                CategoryOutcome(category=name, result=TableResult.ERASED, rows=number % (7 * place + 1))
                for place, name in enumerate(erased)
            ),
            CategoryOutcome(
                category="payment",
                result=TableResult.KEPT,
                rows=number % 5,
                ground=KeepGround.LEGAL_OBLIGATION,
                until=kept_until,
            ),
        ),
        export_id=None,
        fulfilled_at=_CLOCK.now(),
    )


def _policy_changed() -> PolicyChanged:
    now = _CLOCK.now()
    effective_on = now.date() + timedelta(days=60)
    return PolicyChanged(
        change_id=f"{effective_on}-privacy",
        material=True,
        published_at=now,
        effective_on=effective_on,
        version=str(effective_on),
        summary={"en": "We log less.", "de": "Wir protokollieren weniger."},
        url=HttpUrl("https://example.org/privacy"),
    )
