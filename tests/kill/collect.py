"""Collects the history of a campaign: reads databases, Kafka, mails, the published log and the platform, and changes nothing."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from habeas.auditlog.notes import Verifier
from habeas.auditlog.scan import read_prefix
from habeas.auditlog.tiles import decode_bundle, paths_at
from habeas.auditlog.verify import verify_log
from habeas.contracts.audit import parse_entry
from habeas.contracts.platform import RequestSubmitted
from habeas.contracts.topics import CATALOGUE, DSR_REQUESTS
from habeas_demo.exports import open_exports
from habeas_demo.generator import Connection as Conn
from habeas_embedded.provision import SERVICES
from tests.kill.client import Client, Sending
from tests.kill.ground import Ground
from tests.kill.history import Asked, Fact, History, Lane, Left, Mail, PublishedLog, Record, Request, Slice, Taken
from tests.kill.orders import ABSENT
from tests.support.journal import UNLOGGED

SUBMITTED: Final = RequestSubmitted.type
_INBOX: Final = """
    SELECT event_id, coalesce(topic, ''), coalesce(partition, -1), coalesce(record_offset, -1), coalesce(type, ''), coalesce(key, ''),
           state, reason, xid
      FROM {schema}.taken
"""
_TOPICS: Final = "SELECT DISTINCT topic FROM {schema}.positions"
_SEEN: Final = "SELECT event_id FROM {schema}.seen"
_OUTBOX: Final = """
    SELECT outbox_id, event_id, topic, key, type, subject, value, published_at IS NOT NULL AS is_published FROM {schema}.outbox
"""
_FACTS: Final = """
    SELECT seq, line, seq <= (SELECT published_seq FROM {schema}.audit_head) AS is_published FROM {schema}.audit_lines
    UNION ALL SELECT NULL, NULL, false FROM {schema}.audit_outbox
"""
_LANES: Final = """
    SELECT lane, holder IS NOT NULL AS is_held, expires_at <= clock_timestamp() AS is_expired,
           EXISTS (SELECT FROM {schema}.replicas AS r WHERE r.holder = l.holder AND r.expires_at > clock_timestamp()) AS is_known
      FROM {schema}.lanes AS l
"""
_REPLICAS: Final = "SELECT instance FROM {schema}.replicas WHERE expires_at > clock_timestamp()"

WAITING: Final[Mapping[str, str]] = {
    **{
        f"{service} inbox": f"SELECT count(*) FROM {service.replace('-', '_')}.inbox WHERE state = 'pending'"
        for service in SERVICES
    },
    **{
        f"{service} outbox": f"SELECT count(*) FROM {service.replace('-', '_')}.outbox WHERE published_at IS NULL"
        for service in SERVICES
    },
    **{f"{service} audit outbox": UNLOGGED.format(schema=service.replace("-", "_")) for service in SERVICES},
    "requests received": "SELECT count(*) FROM request_intake.requests WHERE state IN ('received', 'in_progress')",
    "requests answering": "SELECT count(*) FROM request_intake.requests WHERE state = 'answering' AND stuck_reason IS NULL",
    "erasures": "SELECT count(*) FROM erasure_executor.erasures WHERE state <> 'completed'",
    "exports": "SELECT count(*) FROM export_builder.exports WHERE state NOT IN ('completed', 'deleted')",
    "ticks": "SELECT count(*) FROM retention_sweeper.ticks WHERE state <> 'completed'",
    "sweeps": "SELECT count(*) FROM retention_sweeper.sweeps WHERE state <> 'completed'",
    "mails": "SELECT count(*) FROM notification_mailer.messages WHERE state IN ('queued', 'sending', 'dot')",
    "campaigns": "SELECT count(*) FROM notification_mailer.campaigns WHERE state IN ('gathering', 'mailing')",
    "entries not in the log": """
        SELECT (SELECT count(*) FROM request_intake.audit_outbox) + (SELECT count(*) FROM erasure_executor.audit_outbox)
             + (SELECT count(*) FROM export_builder.audit_outbox) + (SELECT count(*) FROM retention_sweeper.audit_outbox)
             + (SELECT count(*) FROM notification_mailer.audit_outbox) + (SELECT count(*) FROM audit_ledger.audit_outbox)
             + (SELECT count(*) FROM request_intake.audit_lines) + (SELECT count(*) FROM erasure_executor.audit_lines)
             + (SELECT count(*) FROM export_builder.audit_lines) + (SELECT count(*) FROM retention_sweeper.audit_lines)
             + (SELECT count(*) FROM notification_mailer.audit_lines) + (SELECT count(*) FROM audit_ledger.audit_lines)
             - (SELECT size FROM audit_ledger.publication)
    """,
}
"""What may be under way, and how much of it: all of it nothing when the fleet is idle."""

_READ_LIMIT_S: Final = 120.0


async def look_for_work(conn: Conn) -> dict[str, int]:
    """Count what is under way; empty when the fleet is idle."""
    columns = ", ".join(f'({query}) AS "{name}"' for name, query in WAITING.items())
    row = await conn.fetchrow(f"SELECT {columns}")
    return {name: count for name, count in (row or {}).items() if count}


@dataclass(slots=True)
class Observer:
    """Looks at a campaign's end. The fleet may run on: it is idle, and nothing is asked of it.

    Whoever gives connections sees what they see, also what they have changed and not committed.
    """

    ground: Ground
    client: Client
    fleet: Conn
    platform: Conn
    _kafka: tuple[list[Record], dict[tuple[str, str, int], int]] | None = field(default=None, init=False, repr=False)

    @classmethod
    @asynccontextmanager
    async def open(cls, ground: Ground, client: Client) -> AsyncIterator["Observer"]:
        """Connect as somebody who may see everything."""
        async with AsyncExitStack() as stack:
            connections = []
            for dsn in (ground.access.admin_dsn, ground.platform.owner_dsn):
                conn = await asyncpg.connect(dsn)
                stack.push_async_callback(conn.close)
                await conn.execute("SET idle_session_timeout = 0; SET idle_in_transaction_session_timeout = 0")
                connections.append(conn)
            yield cls(ground, client, *connections)

    async def collect(self, *, again: bool = False) -> History:
        """Look at everything; Kafka's log is read once, as nothing is written to it any more, or `again` when something was."""
        parts = await self._read_database()
        if self._kafka is None or again:
            self._kafka = await read_kafka(self.ground.servers.kafka_bootstrap, parts["slices"])
        records, committed = self._kafka
        parts["slices"] = {service: _placed(held, records) for service, held in parts["slices"].items()}
        exports: Mapping[UUID, tuple[str, bool]] = parts["exports"]
        handed_out = [
            request_id for request_id, (state, has_key) in exports.items() if state == "completed" and has_key
        ]
        fleet = self.ground.fleet
        opened = await open_exports(self.ground.access.admin_dsn, fleet.kek_file, fleet.artefacts_dir, handed_out)
        known = {person.account_id for person in self.ground.people}  # of strangers the platform never held anything
        erased = {
            each.order.account_id
            for each in self.client.sent
            if each.order.account_id in known and parts["erasures"].get(each.order.request_id) == "completed"
        }
        return History(
            replicas=self.ground.replicas,
            asked=[asked(each) for each in self.client.sent],
            ticks=list(self.client.ticks),
            changes=list(self.client.changes),
            records=records,
            committed=committed,
            opened=frozenset(opened),
            delivered=[mail.message_id for mail in self.ground.servers.mailbox.mails(headers_only=True)],
            log=await asyncio.to_thread(read_log, fleet.log_dir),
            platform=await self.ground.witness.compare(self.platform, sorted(erased)),
            waiting=await look_for_work(self.fleet),
            **parts,
        )

    def keep(self, history: History) -> None:
        """Take Kafka's log from now on as this history has it."""
        self._kafka = (history.records, dict(history.committed))

    async def _read_database(self) -> dict[str, Any]:
        conn = self.fleet
        requests = await conn.fetch(
            "SELECT request_id, state, stuck_reason, outcome, is_verified, dsr_right FROM request_intake.requests"
        )
        erasures = await conn.fetch("SELECT request_id, state FROM erasure_executor.erasures")
        exports = await conn.fetch("SELECT request_id, state, artefact_key FROM export_builder.exports")
        mails = await conn.fetch("SELECT mail_id, kind, state, request_id FROM notification_mailer.messages")
        said = await conn.fetch("SELECT value FROM notification_mailer.outbox WHERE type = 'mail.uncertain'")
        sweeps = await conn.fetch(
            "SELECT tick_id, array_agg(state) AS states FROM retention_sweeper.sweeps GROUP BY tick_id"
        )
        campaigns = await conn.fetch("SELECT change_id, state FROM notification_mailer.campaigns")
        return {
            "slices": {service: await _slice(conn, service) for service in SERVICES},
            "requests": {row["request_id"]: Request(*tuple(row)[1:]) for row in requests},
            "erasures": {row["request_id"]: row["state"] for row in erasures},
            "exports": {row["request_id"]: (row["state"], row["artefact_key"] is not None) for row in exports},
            "mails": [Mail(*row) for row in mails],
            "uncertain": Counter(UUID(json.loads(row["value"])["mail_id"]) for row in said),
            "sweeps": {row["tick_id"]: row["states"] for row in sweeps},
            "campaigns": {row["change_id"]: row["state"] for row in campaigns},
        }


def asked(sending: Sending) -> Asked:
    """Give what the client remembers of one order; the strength that each right needs stands in the policy's own words."""
    order = sending.order
    return Asked(
        order.request_id,
        order.right.value,
        order.acr not in {"none", ABSENT},
        order.is_carried_out,
        order.first is not None,
        order.changed,
        sending.tries,
        sending.acked_at is not None,
    )


async def _slice(conn: Conn, service: str) -> Slice:
    schema = service.replace("-", "_")
    outbox = await conn.fetch(_OUTBOX.format(schema=schema))
    return Slice(
        inbox=[Taken(*row) for row in await conn.fetch(_INBOX.format(schema=schema))],
        topics=frozenset(row["topic"] for row in await conn.fetch(_TOPICS.format(schema=schema))),
        seen=frozenset(row["event_id"] for row in await conn.fetch(_SEEN.format(schema=schema))),
        outbox=[
            Left(*tuple(row)[:6], hashlib.sha256(row["value"]).digest(), row["is_published"])  # type: ignore[call-arg]  # six of eight
            for row in outbox
        ],
        facts=[Fact(*row) for row in await conn.fetch(_FACTS.format(schema=schema))],
        lanes=[Lane(*row) for row in await conn.fetch(_LANES.format(schema=schema))],
        replicas=[row["instance"] for row in await conn.fetch(_REPLICAS.format(schema=schema))],
    )


def _placed(held: Slice, records: Iterable[Record]) -> Slice:
    """Give messages that were handled at once the places that Kafka has for them.

    What is not there any more was sent by the platform, whose sensitive topic is emptied: each such message is alone with its key.
    """
    places = {record.event_id: record for record in reversed(list(records))}  # of copies the first

    def placed(row: Taken) -> Taken:
        if row.partition >= 0:
            return row
        found = places.get(row.event_id)
        if found is None:
            return row._replace(topic=DSR_REQUESTS.name, type=SUBMITTED, key=row.event_id.bytes)
        return row._replace(
            topic=found.topic, partition=found.partition, offset=found.offset, type=found.type or "", key=found.key
        )

    return replace(held, inbox=[placed(row) for row in held.inbox])


async def read_kafka(
    bootstrap: str, slices: Mapping[str, Slice]
) -> tuple[list[Record], dict[tuple[str, str, int], int]]:
    """Read every topic from its beginning to its end, and what each service's group has committed."""
    partitions = [TopicPartition(topic.name, number) for topic in CATALOGUE for number in range(topic.partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    records: list[Record] = []
    try:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        async with asyncio.timeout(_READ_LIMIT_S):
            while not await _all_read(consumer, ends):
                for batch in (await consumer.getmany(timeout_ms=200, max_records=20_000)).values():
                    records += map(_record, batch)
    finally:
        await consumer.stop()
    committed: dict[tuple[str, str, int], int] = {}
    for service, held in slices.items():
        mine = [each for each in partitions if each.topic in held.topics]
        committed |= await _committed(bootstrap, service, mine)
    return records, committed


async def _all_read(consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> bool:
    for partition, end in ends.items():
        if await consumer.position(partition) < end:
            return False
    return True


async def _committed(
    bootstrap: str, group: str, partitions: Iterable[TopicPartition]
) -> dict[tuple[str, str, int], int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(list(partitions))
        found = {each: await consumer.committed(each) for each in partitions}
    finally:
        await consumer.stop()
    return {(group, each.topic, each.partition): offset for each, offset in found.items() if offset is not None}


def _record(record: "ConsumerRecord[Any, Any]") -> Record:
    headers = dict(record.headers)
    event_id = None
    with suppress(KeyError, ValueError):
        event_id = UUID(headers["ce_id"].decode())
    kind = headers["ce_type"].decode() if "ce_type" in headers else None
    digest = hashlib.sha256(record.value or b"").digest()
    return Record(record.topic, record.partition, record.offset, event_id, kind, record.key or b"", digest)


def read_log(directory: Path) -> PublishedLog:
    """Verify a published log with its own key, and read every entry of it."""
    key = directory / "vkey"
    if not key.exists():
        return PublishedLog(["nothing was published"], [], [])
    report = verify_log(directory, Verifier.parse(key.read_text().strip()), key_source="the run's directory")
    problems = [f"{each.check}: {each.detail}" for each in report.findings if each.verdict.value == "FAIL"]
    lines: list[bytes] = []
    for path in paths_at(report.size):
        if path.level is None:
            lines += decode_bundle(read_prefix(directory, path) or b"", path.width)
    return PublishedLog(problems if report.ok or problems else ["not verified"], lines, list(map(parse_entry, lines)))
