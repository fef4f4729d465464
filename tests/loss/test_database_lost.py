"""PostgreSQL restarted, failed over to a replica, and restored to an earlier moment: nothing lost, nothing twice, never silently wrong."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from habeas.cli.brokers import committed_offsets
from habeas.contracts.vocabulary import Right
from habeas_embedded.postgres import PostgresServer
from habeas_embedded.processes import end_of_log
from habeas_embedded.servers import Servers
from tests.support.journal import UNLOGGED
from tests.support.program import run_habeas
from tests.support.stage import Stage, raised
from tests.support.standby import keep_copy, put_back, standing_by
from tests.support.toy_fleet import PAIR, Toys, paired
from tests.support.waiting import until

PAST_UNKNOWN: Final = 65
TOLD: Final = ("request-intake", "erasure-executor", "export-builder", "notification-mailer")


@pytest_asyncio.fixture
async def own() -> AsyncIterator[Servers]:
    """Durable servers of one test alone: their PostgreSQL is killed for good."""
    async with Servers(f"tests-database-{os.getpid()}", ephemeral=True, env={}) as servers:
        yield servers


def pids(toys: Toys) -> list[int]:
    """Give the processes of the pair; the same ones afterwards mean that nobody had to be restarted."""
    return [toys.fleet.member(service).child.trace().pid for service in PAIR]


async def test_services_outlive_restarts_of_postgresql(servers: Servers) -> None:
    """Under load PostgreSQL is stopped once and killed once; the same processes go on, everything arrives once in order."""
    async with paired(servers) as toys:
        keys = await toys.add(40)
        await toys.fleet.start(PAIR)
        before = pids(toys)
        await toys.want(10)
        for end in (toys.servers.postgres.stop, toys.servers.postgres.kill):
            heard = await toys.heard()
            await toys.want(15)
            await toys.hears(heard + 1)
            await end()
            await toys.servers.postgres.start()
            await toys.reconnect()
        await toys.hears(1600)
        assert await toys.effects() == {key: list(range(1, 41)) for key in keys}
        assert pids(toys) == before


async def test_services_follow_a_failover(own: Servers) -> None:
    """Under load the primary is killed for good and its synchronous replica promoted: nothing is lost, nothing comes twice."""
    async with standing_by(own) as standby:
        port = urlsplit(own.postgres_admin_dsn).port
        async with paired(own, hosts=f"127.0.0.1:{port},127.0.0.1:{standby.port}") as toys:
            keys = await toys.add(40)
            await toys.fleet.start(PAIR)
            before = pids(toys)
            await toys.want(20)
            await toys.hears(100)
            await own.postgres.kill()
            await standby.promote()
            await toys.reconnect(standby.admin_dsn)
            await toys.want(20)
            await toys.hears(1600)
            assert await toys.effects() == {key: list(range(1, 41)) for key in keys}
            assert pids(toys) == before


async def test_a_restored_database_is_refused_until_an_operator_decides(tmp_path: Path) -> None:
    """Services that told more than the database knows end with the reason; after `habeas recover` they go on, no mail goes twice."""
    async with raised(f"tests-restore-{os.getpid()}") as stage:
        postgres = stage.servers.postgres
        if not isinstance(postgres, PostgresServer):
            pytest.skip("PostgreSQL runs in a container")
        people = stage.take(12)
        before = [await stage.ask(Right.ERASURE, person) for person in people[:4]]
        await stage.completed(*before)
        await stage.idle()
        await keep_copy(postgres, tmp_path / "copy")
        await reconnect(stage)
        after = [await stage.ask(Right.ACCESS if at % 2 else Right.ERASURE, each) for at, each in enumerate(people[4:])]
        await stage.completed(*after)
        mails = sorted(kind for person in people for kind in stage.mail_kinds(person.email))
        earlier = tmp_path / "earlier"
        shutil.copyfile(stage.fleet.log_dir / "checkpoint", earlier)

        for member in stage.fleet.members:
            member.wanted = False
        await put_back(postgres, tmp_path / "copy")
        await reconnect(stage)
        told = [each for each in stage.fleet.members if each.service in TOLD]
        await until(lambda: not any(each.child.alive for each in told), "the end of who knows more", stage.progress)
        assert {each.child.exit_code for each in told} == {PAST_UNKNOWN}
        assert all("service.database_restored" in end_of_log(each.child.log, 50) for each in told)
        assert sorted(kind for person in people for kind in stage.mail_kinds(person.email)) == mails

        recovered = await run_habeas(stage, "recover", "--yes")
        assert recovered.code == 0, recovered.text
        assert all(str(request_id) in recovered.text for request_id in after)
        again = await run_habeas(stage, "recover", "--yes")
        assert "0" in again.text
        assert again.code == 0
        for member in told:
            await stage.fleet.start_service(member.service)
        await later(stage)
        assert sorted(kind for person in people for kind in stage.mail_kinds(person.email)) == mails
        await log_holds(stage, earlier)


async def reconnect(stage: Stage) -> None:
    """Connect the test's own eyes again."""
    stage.habeas.terminate()
    stage.habeas = await asyncpg.connect(stage.access.admin_dsn)


async def later(stage: Stage) -> None:
    """Wait until everything that Kafka holds was read again; what is about requests that are unknown now waits behind a parked message."""

    async def settled() -> bool:
        if await behind(stage):
            return False
        waiting = await stage.habeas.fetchval(
            "SELECT (SELECT count(*) FROM request_intake.inbox AS i WHERE state = 'pending'"
            "         AND NOT EXISTS (SELECT FROM request_intake.inbox AS b WHERE b.blocks AND b.key = i.key))"
            " + (SELECT count(*) FROM notification_mailer.inbox WHERE state = 'pending')"
            " + (SELECT count(*) FROM notification_mailer.messages WHERE state IN ('queued', 'sending', 'dot'))"
            f" + ({UNLOGGED.format(schema='notification_mailer')})"
        )
        return bool(waiting == 0)

    await stage.finds(settled, "everything read again")
    reasons = await stage.habeas.fetch("SELECT DISTINCT reason FROM request_intake.inbox WHERE state = 'parked'")
    assert [row["reason"] for row in reasons] == ["unknown_reference"]


async def behind(stage: Stage) -> list[str]:
    """Give the partitions that a service has read from before the restore and of which it has not stored everything again."""
    options = {"bootstrap_servers": stage.servers.kafka_bootstrap}
    admin, consumer = AIOKafkaAdminClient(**options), AIOKafkaConsumer(group_id=None, **options)
    found = []
    await admin.start()
    await consumer.start()
    try:
        for service in TOLD:
            committed = await committed_offsets(admin, service)
            ends = await consumer.end_offsets(list(committed))
            rows = await stage.habeas.fetch(f"SELECT * FROM {service.replace('-', '_')}.positions")
            stored = {TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in rows}
            found += [f"{service} {each}" for each, end in ends.items() if stored.get(each, 0) < end]
    finally:
        await consumer.stop()
        await admin.close()
    return found


async def log_holds(stage: Stage, earlier: Path) -> None:
    """The log goes on from what was signed before the restore, halts nobody, and says that the database was restored."""
    told = await stage.habeas.fetchval(
        "SELECT count(*) FROM notification_mailer.audit_lines WHERE convert_from(line, 'UTF8') LIKE '%action=database.restored%'"
    )
    assert told == 1

    async def caught_up() -> bool:
        return bool(
            await stage.habeas.fetchval(
                "SELECT count(*) FROM audit_ledger.leaves WHERE convert_from(line, 'UTF8') LIKE '%action=database.restored%'"
            )
            >= 4
        )

    await stage.finds(caught_up, "the entry of every restored database")
    assert await stage.habeas.fetchval("SELECT count(*) FROM audit_ledger.producers WHERE state <> 'following'") == 0
    vkey = (stage.fleet.log_dir / "vkey").read_text().strip()
    verified = await run_habeas(
        stage, "audit", "verify", str(stage.fleet.log_dir), "--vkey", vkey, "--earlier", str(earlier)
    )
    assert verified.code == 0, verified.text
