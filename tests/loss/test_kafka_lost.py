"""Kafka's data is gone: the whole fleet finishes its requests all the same, and nothing takes effect twice."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Final

import pytest

from habeas.contracts.vocabulary import Right
from habeas_embedded.kafka import KafkaServer
from tests.support.program import run_habeas
from tests.support.stage import Stage, raised

REQUESTS: Final = 24

TWICE = """
    SELECT count(*) FROM (
        SELECT substring(e.entry FROM 'action=[^ ]+ request=[^ ]+ subject=[^ ]+ outcome=[^ ]+') AS what
          FROM (SELECT tail AS entry FROM {schema}.audit_outbox
                UNION ALL SELECT convert_from(line, 'UTF8') FROM {schema}.audit_lines) AS e
         WHERE e.entry NOT LIKE '%request=- %' GROUP BY 1 HAVING count(*) > 1) AS twice
"""
SCHEMAS = ("request_intake", "erasure_executor", "export_builder", "notification_mailer")


async def completed(stage: Stage) -> int:
    """How many requests are completed."""
    count: int = await stage.habeas.fetchval("SELECT count(*) FROM request_intake.requests WHERE state = 'completed'")
    return count


async def lose_kafka(stage: Stage) -> None:
    """Kill Kafka, delete all that it had, and start it anew at the same address."""
    kafka = stage.servers.kafka
    if not isinstance(kafka, KafkaServer):
        pytest.skip("Kafka runs in a container")
    await kafka.kill()
    await asyncio.to_thread(shutil.rmtree, kafka.data_directory)
    await kafka.start()


async def test_a_lost_kafka_is_filled_again_and_nothing_happens_twice(tmp_path: Path) -> None:
    """In the middle of 24 requests Kafka's data directory is deleted; after `habeas replay` all are answered, once."""
    async with raised(f"tests-loss-{os.getpid()}", hasty=True) as stage:
        people = stage.take(REQUESTS)
        rights = [Right.ERASURE if number % 2 else Right.ACCESS for number in range(REQUESTS)]
        early = [await stage.ask(right, person) for right, person in zip(rights[:4], people[:4], strict=True)]
        await stage.completed(*early)
        for right, person in zip(rights[4:], people[4:], strict=True):
            await stage.ask(right, person)

        async def accepted() -> bool:
            return bool(await stage.habeas.fetchval("SELECT count(*) FROM request_intake.requests") == REQUESTS)

        await stage.finds(accepted, "all requests accepted")
        done = await completed(stage)
        mark = tmp_path / "earlier"
        shutil.copyfile(stage.fleet.log_dir / "checkpoint", mark)
        await lose_kafka(stage)
        assert len(early) <= done < REQUESTS, "Kafka was to be lost in the middle of it"

        refused = await run_habeas(stage, "migrate")
        assert refused.code == 1
        assert "run `habeas replay`" in refused.text
        replayed = await run_habeas(stage, "replay", "--yes", "--limit-s", "600")
        assert replayed.code == 0, replayed.text

        async def all_done() -> bool:
            return await completed(stage) == REQUESTS

        await stage.finds(all_done, "all requests completed")
        await stage.until(lambda: all_mailed(stage, [person.email for person in people]), "two mails for everybody")
        for schema in SCHEMAS:
            assert await stage.habeas.fetchval(TWICE.format(schema=schema)) == 0, schema
        assert await stage.parked() == {}
        await log_holds(stage, mark)


def all_mailed(stage: Stage, addresses: list[str]) -> bool:
    """Answer whether everybody got the two mails of a request; a third is an error at once."""
    kinds = [stage.mail_kinds(address) for address in addresses]
    assert all(len(each) <= 2 for each in kinds), kinds
    return all(each == ["acknowledgement", "outcome"] for each in kinds)


async def log_holds(stage: Stage, earlier: Path) -> None:
    """Wait until all entries are in the log; it has to verify, go on from what was signed before, and halt nobody."""
    unlogged = " + ".join(
        f"(SELECT count(*) FROM {schema}.{table})"
        for schema in (*SCHEMAS, "retention_sweeper", "audit_ledger")
        for table in ("audit_outbox", "audit_lines")
    )

    async def all_logged() -> bool:
        told, leaves = await stage.habeas.fetchrow(
            f"SELECT {unlogged}, (SELECT size FROM audit_ledger.publication)"
        ) or (0, 0)
        return bool(told == leaves)

    await stage.finds(all_logged, "all entries in the log")
    assert await stage.habeas.fetchval("SELECT count(*) FROM audit_ledger.producers WHERE state <> 'following'") == 0
    assert await stage.habeas.fetchval("SELECT count(*) FROM audit_ledger.refused") == 0
    vkey = (stage.fleet.log_dir / "vkey").read_text().strip()
    verified = await run_habeas(
        stage, "audit", "verify", str(stage.fleet.log_dir), "--vkey", vkey, "--earlier", str(earlier)
    )
    assert verified.code == 0, verified.text
