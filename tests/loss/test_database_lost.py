"""PostgreSQL restarted, failed over to a replica, and restored to an earlier moment: nothing lost, nothing twice, never silently wrong."""

import os
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from habeas.chassis.ids import uuid7
from habeas.cli.brokers import committed_offsets
from habeas.contracts.vocabulary import Right
from habeas_demo.exports import open_exports
from habeas_demo.histories import Size
from habeas_demo.people import Person
from habeas_embedded.postgres import PostgresServer
from habeas_embedded.processes import end_of_log
from habeas_embedded.servers import Servers
from tests.support.journal import UNLOGGED
from tests.support.program import run_habeas
from tests.support.runbooks import commands
from tests.support.stage import Stage, raised
from tests.support.standby import keep_copy, put_back, standing_by
from tests.support.toy_fleet import PAIR, Toys, paired
from tests.support.waiting import until

PAST_UNKNOWN: Final = 65
PEOPLE: Final = Size(accounts=120, logs_each=4, tasks_each=2)
CARRIED_OUT: Final = (Right.ERASURE, Right.ACCESS, Right.PORTABILITY)
EXECUTORS: Final = ("erasure-executor", "export-builder")
RUNBOOK: Final = "database-restored.md"
ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
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


@dataclass(frozen=True)
class Asked:
    """A request, as the platform keeps it to be able to send it again."""

    right: Right
    person: Person
    at: datetime
    request_id: UUID


@dataclass
class Drill:
    """What was asked before the copy, was under way in it, and came in the time that is lost."""

    stage: Stage
    before: list[Asked] = field(default_factory=list)
    under_way: list[Asked] = field(default_factory=list)
    lost: list[Asked] = field(default_factory=list)

    async def ask(self, right: Right, people: Sequence[Person]) -> list[Asked]:
        """Ask for each of these people."""
        return [await self._send(right, person, self.stage.clock.now(), uuid7(self.stage.clock)) for person in people]

    async def send_again(self) -> None:
        """Send every lost request again, byte for byte."""
        for each in self.lost:
            await self._send(each.right, each.person, each.at, each.request_id)

    async def completed(self, asked: Sequence[Asked]) -> None:
        """Wait until request-intake holds all of these as completed, whatever was said about them in earlier times."""
        ids = [each.request_id for each in asked]
        sql = "SELECT count(*) FROM request_intake.requests WHERE state = 'completed' AND request_id = ANY($1::uuid[])"

        async def all_are() -> bool:
            return bool(await self.stage.habeas.fetchval(sql, ids) == len(ids))

        await self.stage.finds(all_are, f"{len(ids)} completed requests")

    def mails(self) -> list[list[str]]:
        """Return the kinds of the mails that each person got."""
        everybody = [each.person for each in (*self.before, *self.under_way, *self.lost)]
        return [self.stage.mail_kinds(person.email) for person in everybody]

    async def _send(self, right: Right, person: Person, at: datetime, request_id: UUID) -> Asked:
        await self.stage.ask(right, person, request_id=request_id, received_at=at, authenticated_at=at)
        return Asked(right, person, at, request_id)


async def test_a_restored_database_goes_on_by_the_runbook(tmp_path: Path) -> None:
    """Services that told more than the database knows end with the reason. By the runbook's words alone every request then ends.

    Ten requests of each right that has an executor come in the lost time, half of them of people who were known before, and three of
    each are under way in the copy. Nobody is mailed twice, every export opens, and who was erased is erased again, with their keys.
    """
    async with raised(f"tests-restore-{os.getpid()}", size=PEOPLE) as stage:
        postgres = stage.servers.postgres
        if not isinstance(postgres, PostgresServer):
            pytest.skip("PostgreSQL runs in a container")
        drill = Drill(stage)
        known = stage.take(15)
        drill.before = await drill.ask(Right.ACCESS, known)
        await drill.completed(drill.before)
        for service in EXECUTORS:
            await stage.fleet.stop_service(service)
        for right in CARRIED_OUT:
            drill.under_way += await drill.ask(right, stage.take(3))
        await stage.finds(lambda: are_in_progress(stage, drill.under_way), "requests under way")
        await stage.idle()
        await keep_copy(postgres, tmp_path / "copy")
        await reconnect(stage)
        for service in EXECUTORS:
            await stage.fleet.start_service(service)
        for at, right in enumerate(CARRIED_OUT):
            drill.lost += await drill.ask(right, [*known[at * 5 :][:5], *stage.take(5)])
        await drill.completed([*drill.under_way, *drill.lost])
        await stage.idle()
        mails = drill.mails()
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

        (looked,) = [await run_habeas(stage, *each, answer="y\n") for each in commands(RUNBOOK, "Look and decide")]
        assert looked.code == 0, looked.text
        assert {str(each.request_id) for each in drill.lost} == set(ID.findall(looked.text))
        for member in told:
            await stage.fleet.start_service(member.service)
        await drill.completed(drill.under_way)
        await drill.send_again()
        await drill.completed(drill.lost)
        await later(stage)
        ran = [await run_habeas(stage, *each) for each in commands(RUNBOOK, "Send the listed requests again")]
        assert [each.code for each in ran] == [0, 0, 0], ran
        assert not ID.search(ran[0].text)
        assert "nothing is parked" in ran[-1].text
        assert await stage.parked() == {}
        assert drill.mails() == mails
        await exports_open(drill)
        await erased_again(drill)
        await log_holds(stage, earlier)


async def are_in_progress(stage: Stage, asked: Sequence[Asked]) -> bool:
    """Whether request-intake waits for executors to carry all of these out."""
    sql = "SELECT count(*) FROM request_intake.requests WHERE state = 'in_progress' AND request_id = ANY($1::uuid[])"
    return bool(await stage.habeas.fetchval(sql, [each.request_id for each in asked]) == len(asked))


async def exports_open(drill: Drill) -> None:
    """Every export that somebody was mailed opens with the person's key, unless they were erased since."""
    stage = drill.stage
    erased = {each.person.account_id for each in (*drill.under_way, *drill.lost) if each.right is Right.ERASURE}
    asked = [each for each in (*drill.before, *drill.under_way, *drill.lost) if each.right is not Right.ERASURE]
    wanted = [each.request_id for each in asked if each.person.account_id not in erased]
    opened = await open_exports(stage.access.admin_dsn, stage.fleet.kek_file, stage.fleet.artefacts_dir, wanted)
    assert set(opened) == set(wanted)


async def erased_again(drill: Drill) -> None:
    """No key of anybody who was erased is there, whenever it was made, and each of them has a tombstone."""
    stage = drill.stage
    erased = [each for each in (*drill.under_way, *drill.lost) if each.right is Right.ERASURE]
    people = {each.person.account_id for each in erased}
    theirs = [each.request_id for each in (*drill.before, *erased) if each.person.account_id in people]
    sql = (
        "SELECT count(*) FROM request_intake.requests JOIN sealing.subject_keys USING (subject_id)"
        " WHERE kind = 'data' AND request_id = ANY($1::uuid[])"
    )

    async def no_key_is_left() -> bool:
        return bool(await stage.habeas.fetchval(sql, theirs) == 0)

    await stage.finds(no_key_is_left, "the keys of those who were erased to be gone again")
    assert await stage.habeas.fetchval("SELECT count(*) FROM erasure_executor.tombstones") == len(people)


async def reconnect(stage: Stage) -> None:
    """Connect the test's own eyes again."""
    stage.habeas.terminate()
    stage.habeas = await asyncpg.connect(stage.access.admin_dsn)


async def later(stage: Stage) -> None:
    """Wait until everything that Kafka holds was read again, and nothing of it waits any more."""

    async def settled() -> bool:
        if await behind(stage):
            return False
        waiting = await stage.habeas.fetchval(
            "SELECT (SELECT count(*) FROM request_intake.inbox WHERE state = 'pending')"
            " + (SELECT count(*) FROM notification_mailer.inbox WHERE state = 'pending')"
            " + (SELECT count(*) FROM notification_mailer.messages WHERE state IN ('queued', 'sending', 'dot'))"
            f" + ({UNLOGGED.format(schema='notification_mailer')})"
        )
        return bool(waiting == 0)

    await stage.finds(settled, "everything read again")


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
