"""audit-ledger without Kafka: a topic that is a list, entries made by hand, and a process that can die at every point."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import pytest_asyncio
from aiokafka import ConsumerRecord
from pydantic import SecretStr
from typing_extensions import override

from audit_ledger import sweeps
from audit_ledger.gateways import LogDirectory, Seat
from audit_ledger.handlers import Sequencer
from habeas.auditlog.tiles import TilePath
from habeas.auditlog.verify import Report, verify_log
from habeas.chassis.clock import FakeClock
from habeas.chassis.database import Database, Transaction
from habeas.chassis.settings import ChassisSettings, Environment
from habeas.contracts.envelope import Headers
from habeas.contracts.pledges import PLEDGE_HEADER, make_pledge
from habeas.contracts.topics import AUDIT_ENTRIES
from habeas_embedded.provision import Access, apply_roles, clone_database, drop_database, open_access
from tests.support.audit_log import ORIGIN, SIGNER, Producers

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
FORGERS_KEY = b"request-intake/999999"
LOG_ORIGIN = ORIGIN.partition("/")[0]


class Killed(BaseException):
    """What ends a process without a word; no handler of errors may catch it."""


@dataclass
class Fate:
    """Counts the points at which a process can die, and lets it die at one of them."""

    dies_at: int | None = None
    points: int = 0

    def pass_by(self) -> None:
        """Come to a point."""
        self.points += 1
        if self.points == self.dies_at:
            raise Killed


class MortalDatabase(Database):
    """Dies right before or right after a commit."""

    fate: Fate

    @override
    @asynccontextmanager
    async def transaction(self, name: str) -> AsyncIterator[Transaction]:
        """Open a transaction that may not live to see its commit."""
        async with super().transaction(name) as tx:
            yield tx
            self.fate.pass_by()
        self.fate.pass_by()


class MortalDirectory(LogDirectory):
    """Dies before, between and after files."""

    fate: Fate
    path: Path

    @override
    async def write(self, files: Sequence[tuple[TilePath, bytes]]) -> None:
        self.fate.pass_by()
        for file in files:
            await super().write([file])
            self.fate.pass_by()

    @override
    async def finish(self, note: bytes, full: Iterable[TilePath]) -> None:
        (self.path / ".checkpoint.draft").write_bytes(note[:20])  # what a crash in the middle of writing leaves
        self.fate.pass_by()
        await super().finish(note, [])
        self.fate.pass_by()
        await super().finish(note, full)
        self.fate.pass_by()


@dataclass
class Topic:
    """The topic: its records from offset 0 on. With a seed, what producers send shows their pledges, as relays do."""

    records: "list[ConsumerRecord[bytes, bytes]]" = field(default_factory=list)
    producers: Producers = field(default_factory=Producers)
    seed: bytes | None = None

    def send(self, *values: bytes, key: bytes | None = None) -> list[bytes]:
        """Append records, with the keys that a relay gives them."""
        for value in values:
            fields = dict(part.partition(b"=")[::2] for part in value.split(b" ")[1:4])
            relayed = fields.get(b"producer", b"") + b"/" + fields.get(b"seq", b"")
            headers: Headers = []
            if self.seed is not None:
                pledge = make_pledge(self.seed + fields[b"producer"], int(fields[b"epoch"]), int(fields[b"seq"]))
                headers.append((PLEDGE_HEADER, pledge.encode()))
            self.records.append(record_at(len(self.records), relayed if key is None else key, value, headers))
        return list(values)

    def forge(self, *values: bytes, headers: Headers | None = None) -> list[bytes]:
        """Append records as somebody can who knows all that is in the topic, and no seed."""
        for value in values:
            self.records.append(record_at(len(self.records), FORGERS_KEY, value, headers))
        return list(values)

    def grow(self, count: int) -> list[bytes]:
        """Append good entries of all producers, in turns."""
        return self.send(*self.producers.entries(count))


def record_at(offset: int, key: bytes, value: bytes, headers: Headers | None = None) -> "ConsumerRecord[bytes, bytes]":
    """A record as Kafka delivers it."""
    given = tuple(headers or ())
    return ConsumerRecord(AUDIT_ENTRIES.name, 0, offset, 0, 0, key, value, None, len(key), len(value), given)


@dataclass
class Ledger:
    """The service's parts as its composition root puts them together, and what a test may look at."""

    db: MortalDatabase
    seat: Seat
    directory: MortalDirectory
    sequencer: Sequencer
    reader: "asyncpg.Connection[asyncpg.Record]"
    fate: Fate

    async def open(self) -> int:
        """Start following, and give the position to read from."""
        await self.directory.prepare(self.db)
        return await self.sequencer.position(self.db)

    async def follow(self, topic: Topic, batch: int | Callable[[], int] = 5_000) -> None:
        """Take everything that the topic has beyond the position, in batches."""
        at = await self.open()
        while at < len(topic.records):
            size = batch if isinstance(batch, int) else batch()
            records = topic.records[at : at + size]
            await self.sequencer.take(self.db, records)
            at += len(records)

    async def publish(self) -> int:
        """Run the sweep that signs and publishes, once."""
        swept = await sweeps.publish_checkpoint(self.db, self.sequencer, self.seat, self.directory, SIGNER_OF_LOG)
        return swept.handled

    async def lines(self) -> list[bytes]:
        """Give the log's entries in their order."""
        rows = await self.reader.fetch("SELECT index, line FROM audit_ledger.leaves ORDER BY index")
        assert [row["index"] for row in rows] == list(range(len(rows)))
        return [row["line"] for row in rows]

    async def head(self) -> tuple[int, bytes, int]:
        """Give size, root and position."""
        row = await self.reader.fetchrow("SELECT size, root, position FROM audit_ledger.head")
        assert row is not None
        return row["size"], row["root"], row["position"]

    async def halted(self) -> dict[str, tuple[str, int, int, int]]:
        """Give reason, offset, expected and found sequence of each halted producer."""
        rows = await self.reader.fetch("SELECT * FROM audit_ledger.producers WHERE state = 'halted'")
        return {
            row["producer"]: (row["halted_reason"], row["halted_offset"], row["expected_seq"], row["found_seq"])
            for row in rows
        }

    async def refused(self) -> list[tuple[int, str | None, str | None]]:
        """Give offset, producer and reason of each record that was refused."""
        rows = await self.reader.fetch("SELECT * FROM audit_ledger.refused ORDER BY topic_offset")
        return [(row["topic_offset"], row["producer"], row["reason"]) for row in rows]

    async def told(self, kind: str) -> list[dict[str, Any]]:
        """Give the events of one type that were emitted, in order."""
        rows = await self.reader.fetch("SELECT value FROM audit_ledger.outbox WHERE type = $1 ORDER BY outbox_id", kind)
        return [json.loads(row["value"]) for row in rows]

    async def facts(self) -> list[str]:
        """Give the audit facts without their time, in order."""
        rows = await self.reader.fetch("SELECT tail FROM audit_ledger.audit_outbox ORDER BY audit_id")
        return [row["tail"].partition(" ")[2] for row in rows]

    def verified(self) -> Report:
        """Verify what is published."""
        return verify_log(self.directory.path, SIGNER_OF_LOG.verifier, key_source="the test")

    def passes(self) -> bool:
        """Answer whether the published log passes every check."""
        return self.verified().ok


def root_of_rfc(lines: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not lines:
        return sha256(b"").digest()
    if len(lines) == 1:
        return sha256(b"\x00" + lines[0]).digest()
    k = 1
    while 2 * k < len(lines):
        k *= 2
    return sha256(b"\x01" + root_of_rfc(lines[:k]) + root_of_rfc(lines[k:])).digest()


SIGNER_OF_LOG = type(SIGNER)(LOG_ORIGIN, SIGNER._private_key)


@asynccontextmanager
async def start_ledger(access: Access, path: Path, fate: Fate | None = None) -> AsyncIterator[Ledger]:
    """Start a process: nothing is shared with an earlier one but the database and the directory."""
    settings = ChassisSettings(
        environment=Environment.DEVELOPMENT,
        kafka_bootstrap="127.0.0.1:9",
        database_dsn=SecretStr(access.dsn("audit-ledger")),
        pool_connections_max=3,
    )
    db = await MortalDatabase.open(settings, "audit_ledger", FakeClock(NOW))
    assert isinstance(db, MortalDatabase)
    directory = MortalDirectory(path, SIGNER_OF_LOG.verifier)
    directory.path = path
    fate = db.fate = directory.fate = fate or Fate()
    seat = Seat()
    sequencer = Sequencer(seat, directory, LOG_ORIGIN, asyncio.Event(), look_s=0.02)
    reader = await asyncpg.connect(access.operator_dsn)
    try:
        yield Ledger(db, seat, directory, sequencer, reader, fate)
    finally:
        await seat.leave()
        await reader.close()
        await db.close()


@pytest_asyncio.fixture
async def ledger(database: Access, tmp_path: Path) -> AsyncIterator[Ledger]:
    """A ledger that begins."""
    async with start_ledger(database, tmp_path / "log") as started:
        yield started


@pytest_asyncio.fixture
async def empty_ledger(postgres_template: Access) -> AsyncIterator[Access]:
    """A second migrated database, in which nothing ever was."""
    server_dsn = postgres_template.server_dsn
    access = open_access(server_dsn, f"habeas_test_{secrets.token_hex(6)}")
    await clone_database(server_dsn, postgres_template.database, access.database)
    await apply_roles(access, set_passwords=False)
    yield access
    await drop_database(server_dsn, access.database)
