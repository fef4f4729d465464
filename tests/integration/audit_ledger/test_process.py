"""The whole service as a process, with Kafka and PostgreSQL."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from audit_ledger.errors import SigningKeyMissing
from audit_ledger.gateways import open_signer
from habeas.auditlog.checkpoint import open_checkpoint
from habeas.auditlog.verify import verify_log
from habeas.contracts.audit import Producer, encode_fact
from habeas.contracts.topics import AUDIT_ENTRIES, CHECKPOINTS
from habeas_embedded.provision import Access, drop_database, prepare_database
from habeas_embedded.servers import Servers
from habeas_embedded.topics import create_topics
from tests.integration.audit_ledger.conftest import root_of_rfc
from tests.support.audit_log import FACTS, START, Producers
from tests.support.waiting import HANGS_S, until

ORIGIN = "audit.habeas.example"
PEERS = [producer for producer in Producer if producer is not Producer.AUDIT_LEDGER]


@pytest_asyncio.fixture
async def fleet_database(own_servers: Servers) -> AsyncIterator[Access]:
    """A migrated database on the server that has Kafka beside it, and all topics."""
    await create_topics(own_servers.kafka_bootstrap)
    access = await prepare_database(own_servers.postgres_admin_dsn, f"habeas_test_{secrets.token_hex(6)}")
    yield access
    await drop_database(own_servers.postgres_admin_dsn, access.database)


@contextmanager
def process(servers: Servers, access: Access, log_dir: Path, output: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """The service as an operator starts it; killed at the end when it still runs."""
    environment = os.environ | {
        "HABEAS_ENVIRONMENT": "development",
        "HABEAS_KAFKA_BOOTSTRAP": servers.kafka_bootstrap,
        "AUDIT_LEDGER_DATABASE_DSN": access.dsn("audit-ledger"),
        "AUDIT_LEDGER_LOG_DIR": str(log_dir),
        "AUDIT_LEDGER_BATCH_ROWS_MAX": "400",
        "AUDIT_LEDGER_CHECKPOINT_INTERVAL_S": "0.05",
        "AUDIT_LEDGER_RESUME_INTERVAL_S": "0.05",
    }
    with output.open("ab") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "audit_ledger"], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.wait(HANGS_S)


def entries(producers: Producers, count: int) -> list[bytes]:
    """Entries of all producers but the ledger, which writes its own."""
    tail = encode_fact(FACTS[0], START)
    return [producers.entry(PEERS[producers.made % len(PEERS)], tail) for _ in range(count)]


async def test_process_killed_halted_and_resumed(own_servers: Servers, fleet_database: Access, tmp_path: Path) -> None:
    """Through a kill, a halt and a resume by an operator, the published log verifies, and is the topic's order."""
    log_dir, output = tmp_path / "log", tmp_path / "output"
    producers = Producers()
    kafka = AIOKafkaProducer(bootstrap_servers=own_servers.kafka_bootstrap, acks="all", enable_idempotence=True)
    await kafka.start()
    database = await asyncpg.connect(fleet_database.dsn("audit-ledger"))

    async def send(*lines: bytes) -> None:
        for line in lines:
            await kafka.send(AUDIT_ENTRIES.name, line, b"test/1", partition=0)
        await kafka.flush()

    async def size() -> int:
        try:
            verifier = open_signer(log_dir.with_name("log.key"), ORIGIN, create=False).verifier
            return open_checkpoint((log_dir / "checkpoint").read_bytes(), verifier).size
        except (OSError, SigningKeyMissing):  # not there yet
            return -1

    async def halted() -> bool:
        return bool(await database.fetchval("SELECT count(*) FROM audit_ledger.producers WHERE state = 'halted'"))

    try:
        with process(own_servers, fleet_database, log_dir, output) as first:
            await until(lambda: first.poll() is not None or log_dir.joinpath("checkpoint").exists(), "a checkpoint")
            await send(*entries(producers, 700))
            await grows(size, 300)
            first.send_signal(signal.SIGKILL)
        await send(*entries(producers, 500))
        missing, late = entries(producers, 1), entries(producers, 5)
        await send(*late)
        with process(own_servers, fleet_database, log_dir, output) as second:
            await until(halted, "a halt", output.read_text)
            await send(*missing)
            # The halt is the ledger's own first entry; it comes back by the topic like everybody's.
            await grows(size, 1_200 + 4 + 1)
            await database.execute("UPDATE audit_ledger.producers SET resume_asked_at = now() WHERE state = 'halted'")
            await grows(size, 1_200 + 6 + 2)
            assert not await halted()
            second.send_signal(signal.SIGTERM)
            assert second.wait(HANGS_S) == 0, output.read_text()
    finally:
        await kafka.stop()
    lines = [row["line"] for row in await database.fetch("SELECT line FROM audit_ledger.leaves ORDER BY index")]
    await database.close()
    verifier = open_signer(log_dir.with_name("log.key"), ORIGIN, create=False).verifier
    assert (log_dir / "vkey").read_text() == f"{verifier.vkey}\n"
    report = verify_log(log_dir, verifier, key_source="the test")
    assert report.ok
    assert (report.size, report.root) == (1_208, root_of_rfc(lines).hex())
    expected: dict[str, int] = dict.fromkeys(PEERS, 241) | {PEERS[0]: 242, Producer.AUDIT_LEDGER: 2}
    assert report.producers == expected  # 1,206 entries in turns of five, a halt and a resume
    await _told(own_servers, report.root)


async def grows(size: Callable[[], Awaitable[int]], wanted: int) -> None:
    """Wait until the published log has so many entries."""

    async def reached() -> bool:
        return await size() >= wanted

    await until(reached, f"{wanted} entries", size)


async def _told(servers: Servers, root: str) -> None:
    """The last checkpoint was announced on the ledger's own topic, after the halt."""
    consumer = AIOKafkaConsumer(
        CHECKPOINTS.name, bootstrap_servers=servers.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        values: list[bytes] = []

        async def seen() -> bool:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                values.extend(record.value for record in records)
            return any(root.encode() in value for value in values)

        await until(seen, "the last checkpoint", lambda: len(values))
        assert any(b'"reason":"gap"' in value for value in values)
    finally:
        await consumer.stop()
