"""request-intake as a process whose Kafka user lacks rights: what an operator sees of it, and of a request that it parked."""

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import asyncpg
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from click.testing import Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from habeas.contracts.topics import AUDIT_ENTRIES, CATALOGUE, DSR_REQUESTS
from habeas.sealing import KekSettings, open_kek
from habeas_embedded.ports import free_port
from habeas_embedded.provision import Access
from tests.architecture.repository import ROOT
from tests.integration.cli.conftest import Run, parsed
from tests.support.guarded_kafka import GuardedKafka
from tests.support.waiting import HANGS_S, until

SERVICE = "request-intake"


@dataclass
class Intake:
    """The service, and what an operator has to look at it."""

    run: Run
    kafka: GuardedKafka
    env: dict[str, str]
    port: int
    output: Path

    @contextmanager
    def started(self) -> Iterator[None]:
        """Run the service as an operator starts it; killed at the end."""
        with self.output.open("ab") as log:
            program = [sys.executable, "-m", "request_intake"]
            running = subprocess.Popen(program, env=self.env, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            running.kill()
            running.wait(HANGS_S)

    async def is_ready_soon(self) -> None:
        """Wait until every probe passes."""
        await until(self.is_ready, "a ready service", lambda: self.asked("readyz"))

    def asked(self, path: str) -> str:
        """What health answers."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=HANGS_S) as answer:
                return str(answer.read().decode())
        except HTTPError as refused:
            return refused.read().decode()
        except OSError:
            return ""

    def is_ready(self) -> bool:
        """Whether every probe passes."""
        return '{"state":"ok"' in self.asked("readyz")

    async def command(self, *arguments: str) -> Result:
        """Run a command at the open door."""
        return await self.run(*arguments, HABEAS_KAFKA_BOOTSTRAP=self.kafka.bootstrap)

    async def risks(self) -> dict[str, list[str]]:
        """What `habeas status` says is at risk about Kafka and this service."""
        found: dict[str, list[str]] = {}
        for each in parsed(await self.command("status", "--json"))["risks"]:
            if each["service"] in {SERVICE, "kafka"}:
                found.setdefault(each["risk"], []).append(each["said"])
        return found

    def lines(self) -> list[dict[str, Any]]:
        """What the service has logged."""
        return [json.loads(line) for line in self.output.read_text().splitlines() if line.startswith("{")]

    async def kept(self) -> dict[int, tuple[int, int]]:
        """First offset and end of each partition of the sensitive topic."""
        places = [TopicPartition(DSR_REQUESTS.name, number) for number in range(DSR_REQUESTS.partitions)]
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka.bootstrap)
        await consumer.start()
        try:
            first, end = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        finally:
            await consumer.stop()
        return {place.partition: (first[place], end[place]) for place in places}


@pytest_asyncio.fixture
async def intake(
    run: Run, database: Access, empty_database: str, guarded_kafka: GuardedKafka, tmp_path: Path
) -> Intake:
    """The service, with every right that it needs but Write and Delete on the topic that it trims."""
    for topic in CATALOGUE:
        await guarded_kafka.allow("intake", "topic", topic.name, "Read", "DescribeConfigs")
        if topic.owner == SERVICE or topic is AUDIT_ENTRIES:
            await guarded_kafka.allow("intake", "topic", topic.name, "Write")
    await guarded_kafka.allow("intake", "group", SERVICE, "Read")
    platform = await asyncpg.connect(empty_database)
    await platform.execute((ROOT / "deploy" / "demo" / "schema.sql").read_text())
    await platform.close()
    kek, port, output = tmp_path / "kek", free_port(), tmp_path / "output"
    open_kek(KekSettings(file=kek, create=True, production=False))
    env = {
        **os.environ,
        **guarded_kafka.environment("intake"),
        "REQUEST_INTAKE_DATABASE_DSN": database.dsn(SERVICE),
        "REQUEST_INTAKE_HEALTH_PORT": str(port),
        "HABEAS_KEK_FILE": str(kek),
        "HABEAS_POLICY_FILE": str(ROOT / "deploy" / "demo" / "policy.yaml"),
        "HABEAS_DATAMAP_DIR": str(ROOT / "deploy" / "demo" / "datamap"),
        "HABEAS_ADMIN_DATABASE_DSN": database.owner_dsn,
        "PLATFORM_DSN": empty_database,
    }
    return Intake(run, guarded_kafka, env, port, output)


@pytest_asyncio.fixture
async def started(intake: Intake) -> AsyncIterator[Intake]:
    """The service, ready."""
    with intake.started():
        await intake.is_ready_soon()
        yield intake


async def test_account_ids_that_stay_are_told(started: Intake) -> None:
    """Without its rights on the topic that it trims the service says so once in a while, not once a second; with them all ids go."""
    intake = started
    sent = await intake.command("request", "submit", "access", "--account", "acc_7Q2M", "--wait", "--wait-s", "120")
    assert sent.exit_code == 0, sent.output
    assert "accepted: " in sent.stdout

    async def told() -> bool:
        return "topic_untrimmed" in await intake.risks()

    await until(told, "the risk", lambda: len(intake.lines()))
    (said,) = (await intake.risks())["topic_untrimmed"]
    assert said == f"account ids stay in {DSR_REQUESTS.name}: the service needs the rights Write and Delete on it"
    assert (await intake.command("status", "--check")).exit_code == 1
    assert f'habeas_kafka_untrimmed_age_s{{reason="not_allowed",topic="{DSR_REQUESTS.name}"}}' in intake.asked(
        "metrics"
    )

    await intake.kafka.allow("intake", "topic", DSR_REQUESTS.name, "Write", "Delete")

    async def trimmed() -> bool:
        return all(first == end for first, end in (await intake.kept()).values()) and not await told()

    await until(trimmed, "an empty topic", lambda: len(intake.lines()))
    assert f'habeas_kafka_untrimmed_age_s{{reason="not_allowed",topic="{DSR_REQUESTS.name}"}} 0.0' in intake.asked(
        "metrics"
    )
    tries = [line["time"] for line in intake.lines() if line["event"] == "topic.refuses"]
    assert 0 < len(tries) < 12, "tries come less and less often"


async def test_a_parked_submission_is_found_by_its_request(started: Intake, tmp_path: Path) -> None:
    """`submit --wait` ends with why it was parked, and `trail` finds it by the request's id, as a line and as JSON."""
    intake = started
    key_file = tmp_path / "issuer.key"
    key_file.write_text(b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode())
    nobody = ("--issuer", "nobody", "--key-id", "k", "--key-file", str(key_file))
    submit = ("request", "submit", "access", "--account", "acc_7Q2M", *nobody, "--wait", "--wait-s", "120")
    parked = await intake.command(*submit)
    assert parked.exit_code == 1
    request_id, why = parked.stdout.splitlines()
    assert why.startswith("parked: unknown_issuer")
    message = why.rpartition("parked show ")[2].rstrip("`")
    assert message.startswith("request-intake/")
    trail = await intake.command("trail", request_id)
    assert trail.exit_code == 0
    assert "has dsr_request.submitted parked (unknown_issuer" in trail.stdout
    assert f"as {message}" in trail.stdout
    assert parsed(await intake.command("trail", request_id, "--json"))["request"] is None
    assert (await intake.command("parked", "resolve", message, "--because", "forged")).exit_code == 0

    again = await intake.command(
        "request", "submit", "access", "--account", "acc_7Q2M", "--json", "--wait", "--wait-s", "120"
    )
    assert parsed(again)["submission"] == "accepted"
    with_another_body = (
        "request",
        "submit",
        "portability",
        "--account",
        "acc_7Q2M",
        "--id",
        parsed(again)["request_id"],
    )
    conflict = await intake.command(*with_another_body, "--json", "--wait", "--wait-s", "120")
    assert conflict.exit_code == 1
    assert json.loads(conflict.stdout)["submission"] == "parked"


async def test_unfit_topics_keep_it_from_starting(intake: Intake) -> None:
    """It waits, says for what, shows the drift, and goes on by itself when the topic is mended."""
    await intake.kafka.configure(AUDIT_ENTRIES, retention_ms="3600000")
    with intake.started():
        await until(lambda: '"waiting_for":"kafka"' in intake.asked("readyz"), "the refusal", intake.lines)
        assert not intake.is_ready()
        told = [line for line in intake.lines() if line["event"] == "topic.drifted"]
        assert [(line["topic"], line["setting"], line["level"]) for line in told] == [
            (AUDIT_ENTRIES.name, "retention.ms", "error")
        ]
        assert (
            f'habeas_kafka_drifted_settings{{setting="retention.ms",topic="{AUDIT_ENTRIES.name}"}} 2.0'
            in intake.asked("metrics")
        )
        assert AUDIT_ENTRIES.name in (await intake.risks())["topic_unfit"][0]
        mended = await intake.command("migrate", "--reset-topics", "--dsn", intake.env["HABEAS_ADMIN_DATABASE_DSN"])
        assert mended.exit_code == 0, mended.output
        await intake.is_ready_soon()
        assert "topic_unfit" not in await intake.risks()
