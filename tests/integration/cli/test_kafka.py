"""Topics are made and requests are sent over a real broker."""

import asyncio
import json
from base64 import b64encode
from pathlib import Path
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from habeas.cli.main import habeas
from habeas.contracts.topics import CATALOGUE, DSR_REQUESTS
from habeas.kit import verify
from habeas_embedded.provision import apply_roles, create_database, drop_database, open_access
from habeas_embedded.servers import Servers
from tests.support.waiting import HANGS_S

DATABASE = "habeas_cli_kafka"
REQUEST = "01990c5e-7b1a-7c62-9f0e-3d6a5b1c2d3e"


async def _run(servers: Servers, *arguments: str) -> Result:
    env = {"HABEAS_KAFKA_BOOTSTRAP": servers.kafka_bootstrap, "HABEAS_ENVIRONMENT": "development"}
    return await asyncio.to_thread(CliRunner().invoke, habeas, list(arguments), env=env)


async def _read_all(bootstrap: str) -> list[Any]:
    """Read every record of the requests' topic."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(DSR_REQUESTS.name, number) for number in range(DSR_REQUESTS.partitions)]
        consumer.assign(places)
        wanted = sum((await consumer.end_offsets(places)).values())
        return [await asyncio.wait_for(consumer.getone(), HANGS_S) for _ in range(wanted)]
    finally:
        await consumer.stop()


async def test_migrate_and_submit(own_servers: Servers, tmp_path: Path) -> None:
    """Migrating makes every topic of the catalogue, once; then a request can be sent, attested by the issuer's key."""
    servers = own_servers
    admin_dsn = servers.postgres_admin_dsn
    await create_database(admin_dsn, DATABASE)
    access = open_access(admin_dsn, DATABASE)
    try:
        await apply_roles(access, set_passwords=False)
        first = await _run(servers, "migrate", "--json", "--dsn", access.admin_dsn)
        assert first.exit_code == 0, first.output
        assert json.loads(first.stdout)["topics_made"] == len(CATALOGUE)
        again = await _run(servers, "migrate", "--json", "--dsn", access.admin_dsn)
        assert json.loads(again.stdout)["topics_made"] == 0
    finally:
        await drop_database(admin_dsn, DATABASE)
    key = Ed25519PrivateKey.generate()
    key_file = tmp_path / "issuer.key"
    key_file.write_text(b64encode(key.private_bytes_raw()).decode())
    issuer = ("--issuer", "accounts", "--key-id", "accounts-2026-10", "--key-file", str(key_file))
    erasure = (
        "request",
        "submit",
        "erasure",
        "--account",
        "acc_7Q2M",
        "--ground",
        "consent_withdrawn",
        "--country",
        "DE",
    )
    sent = await _run(servers, *erasure, "--id", REQUEST, *issuer)
    assert (sent.exit_code, sent.stdout) == (0, f"{REQUEST}\n"), sent.output
    access_sent = await _run(servers, "request", "submit", "access", "--account", "acc_7Q2M", "--json")
    records = {json.loads(record.value)["request_id"]: record for record in await _read_all(servers.kafka_bootstrap)}
    assert set(records) == {REQUEST, str(UUID(json.loads(access_sent.stdout)["request_id"]))}
    value = records[REQUEST].value
    verify(value, key.public_key())
    body = json.loads(value)
    assert body["details"] == {"right": "erasure", "ground": "consent_withdrawn"}
    assert (body["account_id"], body["country"], body["channel"]) == ("acc_7Q2M", "DE", "command-line")
    assert "attestation" not in json.loads(records[str(json.loads(access_sent.stdout)["request_id"])].value)
