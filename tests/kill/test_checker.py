"""The checker finds every violation: each is made in the real stores of a faultless run, judged, and undone."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from habeas.chassis.clock import SystemClock
from habeas.chassis.ids import uuid7
from habeas.contracts.envelope import Envelope, encode_headers
from habeas_demo.generator import Connection
from tests.kill.campaign import NO_FAULTS, play
from tests.kill.checker import Fault, check
from tests.kill.collect import Observer
from tests.kill.ground import laid_out
from tests.kill.history import History
from tests.kill.waiting import pause

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

INTAKE, BUILDER, MAILER = "request_intake", "export_builder", "notification_mailer"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def observer() -> AsyncIterator[Observer]:
    """A fleet at rest after requests of every kind, and somebody who looks at it."""
    async with laid_out(f"kill-checker-{os.getpid()}", seed=5, size=NO_FAULTS.size, replicas=1) as ground:
        _, client, _ = await play(NO_FAULTS, 5, ground, lambda _: None)
        await pause(asyncio.Event(), 1.0)
        async with Observer.open(ground, client) as observer:
            yield observer
        run = ground.run
    shutil.rmtree(run, ignore_errors=True)


@asynccontextmanager
async def rolled_back(observer: Observer) -> AsyncIterator[None]:
    """Let what is changed be seen by the observer alone, and undo it."""
    both = [conn.transaction() for conn in (observer.fleet, observer.platform)]
    for each in both:
        await each.start()
    try:
        yield
    finally:
        for each in both:
            await each.rollback()


@contextmanager
def away(path: Path) -> Iterator[None]:
    """Take a file away, and bring it back."""
    aside = path.with_name(f"{path.name}.away")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@dataclass(frozen=True)
class Seeded:
    """A violation that is made by SQL in the fleet's or the platform's database, and what it has to be found as."""

    name: str
    fault: Fault
    statement: str
    on_platform: bool = False

    async def make(self, observer: Observer) -> None:
        """Change the stores inside of the open transaction; raises AssertionError when nothing was there to be changed."""
        conn: Connection = observer.platform if self.on_platform else observer.fleet
        await conn.execute("SET LOCAL session_replication_role = replica")  # neither triggers nor references in the way
        done = await conn.execute(self.statement)
        assert int(done.rpartition(" ")[2]) >= 1, f"{self.name}: nothing was broken"


def _delete(table: str, where: str) -> str:
    return f"DELETE FROM {table} WHERE ctid = (SELECT ctid FROM {table} WHERE {where} LIMIT 1)"


ONE_DONE = f"(SELECT request_id FROM {INTAKE}.requests WHERE state = 'completed' AND dsr_right = 'erasure' LIMIT 1)"
ONE_ERASED = (
    "(SELECT id FROM before_rows WHERE table_name = 'accounts' AND wanted = 'there'"
    " AND id NOT IN (SELECT id FROM accounts) LIMIT 1)"
)
TWO_OF_A_KEY = f"""
    SELECT a.event_id FROM {MAILER}.taken AS a JOIN {MAILER}.taken AS b USING (topic, key)
     WHERE a.sent_id < b.sent_id AND a.xid < b.xid
     LIMIT 1
"""
COPY_OF_OUTBOX = f"""
    INSERT INTO {INTAKE}.outbox (created_on, event_id, lane, topic, key, type, subject, value, created_at, published_at)
    SELECT created_on, gen_random_uuid(), lane, topic, key, type, subject, value, created_at, published_at
      FROM {INTAKE}.outbox WHERE type = 'request.completed' LIMIT 1
"""
SEEDED = [
    Seeded("a lost request", Fault.LOST, _delete(f"{INTAKE}.requests", "true")),
    Seeded(
        "a request that nobody sent",
        Fault.DOUBLE,
        f"UPDATE {INTAKE}.requests SET request_id = gen_random_uuid() WHERE request_id = {ONE_DONE}",
    ),
    Seeded(
        "a request that goes back from its final state",
        Fault.LEFT,
        f"UPDATE {INTAKE}.requests SET state = 'in_progress', outcome = NULL WHERE request_id = {ONE_DONE}",
    ),
    Seeded("a lost inbox row", Fault.LOST, _delete(f"{BUILDER}.handled", "true")),
    Seeded(
        "a message that waits",
        Fault.LEFT,
        f"INSERT INTO {BUILDER}.inbox (event_id, topic, partition, record_offset, type, key, lane, event_at, value, digest, received_at,"
        f" next_attempt_at) SELECT event_id, topic, 0, 0, type, key, lane, received_at, '', digest, received_at, received_at"
        f" FROM {BUILDER}.taken WHERE topic IS NOT NULL LIMIT 1",
    ),
    Seeded(
        "a message that was parked without an entry",
        Fault.AUDIT,
        f"UPDATE {BUILDER}.handled SET state = 'parked', reason = 'wrong_value'"
        f" WHERE event_id = (SELECT event_id FROM {BUILDER}.handled LIMIT 1)",
    ),
    Seeded("an id that was forgotten", Fault.DOUBLE, _delete(f"{BUILDER}.seen", "true")),
    Seeded(
        "an id that is known without its message",
        Fault.LOST,
        f"INSERT INTO {BUILDER}.seen VALUES (gen_random_uuid(), '', now())",
    ),
    Seeded("an event that was told twice", Fault.DOUBLE, COPY_OF_OUTBOX),
    Seeded(
        "an outbox row that never reached Kafka",
        Fault.LOST,
        f"UPDATE {INTAKE}.outbox SET event_id = gen_random_uuid() WHERE event_id ="
        f" (SELECT event_id FROM {INTAKE}.outbox WHERE type = 'request.accepted' LIMIT 1)",
    ),
    Seeded(
        "an unpublished outbox row",
        Fault.LEFT,
        f"UPDATE {INTAKE}.outbox SET published_at = NULL WHERE event_id = (SELECT event_id FROM {INTAKE}.outbox LIMIT 1)",
    ),
    Seeded("an event that was never told", Fault.LOST, _delete(f"{INTAKE}.outbox", "type = 'request.completed'")),
    Seeded(
        "an event with other bytes than in Kafka",
        Fault.DOUBLE,
        f"UPDATE {INTAKE}.outbox SET value = value || ' '::bytea WHERE event_id ="
        f" (SELECT event_id FROM {INTAKE}.outbox WHERE type = 'request.accepted' LIMIT 1)",
    ),
    Seeded(
        "two messages of a key in the wrong order",
        Fault.ORDER,
        f"UPDATE {MAILER}.handled SET attempts = attempts + 1 WHERE event_id = ({TWO_OF_A_KEY})",
    ),
    Seeded(
        "two events of a key published in the wrong order",
        Fault.ORDER,
        f"UPDATE {INTAKE}.outbox SET event_id = CASE type WHEN 'request.accepted' THEN v.event_id ELSE a.event_id END"
        f"  FROM (SELECT event_id, key FROM {INTAKE}.outbox WHERE type = 'request.accepted') AS a"
        f"  JOIN (SELECT event_id, key FROM {INTAKE}.outbox WHERE type = 'request.completed') AS v USING (key)"
        f" WHERE outbox.key = a.key AND outbox.type IN ('request.accepted', 'request.completed')"
        f"   AND a.key = (SELECT key FROM {INTAKE}.outbox WHERE type = 'request.completed' LIMIT 1)",
    ),
    Seeded("a missing audit entry", Fault.AUDIT, _delete(f"{INTAKE}.audit_lines", "seq = 7")),
    Seeded(
        "an altered audit entry",
        Fault.AUDIT,
        f"UPDATE {INTAKE}.audit_lines SET line = line || ' '::bytea WHERE seq = 7",
    ),
    Seeded(
        "a state change without its entry",
        Fault.AUDIT,
        f"UPDATE {INTAKE}.requests SET state = 'completed', outcome = 'done', stuck_reason = NULL WHERE request_id ="
        f" (SELECT request_id FROM {INTAKE}.requests WHERE state = 'awaiting_decision' LIMIT 1)",
    ),
    Seeded("an erasure that has no row", Fault.DOUBLE, _delete("erasure_executor.erasures", "state = 'completed'")),
    Seeded("an export that has no row", Fault.DOUBLE, _delete(f"{BUILDER}.exports", "state = 'completed'")),
    Seeded(
        "a mail that nobody wrote", Fault.DOUBLE, _delete(f"{MAILER}.messages", "state = 'sent' AND kind = 'outcome'")
    ),
    Seeded(
        "a mail that is uncertain, and nobody was told",
        Fault.AUDIT,
        f"UPDATE {MAILER}.messages SET state = 'uncertain' WHERE mail_id = (SELECT mail_id FROM {MAILER}.messages LIMIT 1)",
    ),
    Seeded(
        "a refused mail that arrived",
        Fault.DOUBLE,
        f"UPDATE {MAILER}.messages SET state = 'refused'"
        f" WHERE mail_id = (SELECT mail_id FROM {MAILER}.messages WHERE state = 'sent' LIMIT 1)",
    ),
    Seeded(
        "a tick that was not swept",
        Fault.LOST,
        "DELETE FROM retention_sweeper.sweeps WHERE tick_id = (SELECT tick_id FROM retention_sweeper.sweeps LIMIT 1)",
    ),
    Seeded("a change that nobody was told of", Fault.LOST, f"DELETE FROM {MAILER}.campaigns"),
    Seeded(
        "a lane that somebody dead holds",
        Fault.LEFT,
        f"UPDATE {INTAKE}.lanes SET holder = gen_random_uuid(), expires_at = now() + interval '1 hour' WHERE lane = 3",
    ),
    Seeded("a lane that nobody holds", Fault.LEFT, f"UPDATE {INTAKE}.lanes SET holder = NULL WHERE lane = 3"),
    Seeded("a replica that does not live", Fault.LEFT, f"DELETE FROM {INTAKE}.replicas"),
    Seeded(
        "a surviving row of an erased person",
        Fault.LEFT,
        f"UPDATE quality_scores SET account_id = {ONE_ERASED} WHERE id = (SELECT id FROM quality_scores LIMIT 1)",
        on_platform=True,
    ),
    Seeded(
        "a lost row of somebody else",
        Fault.LOST,
        "DELETE FROM sessions WHERE id = (SELECT s.id FROM sessions AS s JOIN accounts AS a ON a.id = s.account_id"
        " WHERE a.closed_at IS NULL LIMIT 1)",
        on_platform=True,
    ),
    Seeded(
        "an altered row of somebody else",
        Fault.LOST,
        "UPDATE accounts SET name = name || '!' WHERE id = (SELECT id FROM accounts WHERE closed_at IS NULL LIMIT 1)",
        on_platform=True,
    ),
    Seeded("an altered table without persons", Fault.LOST, "UPDATE plans SET name = name || '!'", on_platform=True),
]


async def test_a_faultless_run_is_clean(observer: Observer) -> None:
    """Nothing is found where nothing is wrong, and there is something of everything to look at."""
    history = await observer.collect()
    assert check(history) == []
    assert {row.right for row in history.requests.values()} >= {"erasure", "access", "portability", "objection"}
    assert any(row.state == "parked" for row in history.slices["request-intake"].inbox)
    assert history.opened
    assert history.delivered
    assert len(history.log.entries) > 500


@pytest.mark.parametrize("seeded", SEEDED, ids=lambda seeded: seeded.name)
async def test_it_finds_what_is_wrong_in_a_database(observer: Observer, seeded: Seeded) -> None:
    """A violation that is made by SQL is found, and found as what it is."""
    await observer.collect()  # what the platform was like is noted before it is changed
    async with rolled_back(observer):
        await seeded.make(observer)
        found = check(await observer.collect())
    assert seeded.fault in {each.fault for each in found}, found


async def _found(observer: Observer, *, again: bool = False) -> set[Fault]:
    return {each.fault for each in check(await observer.collect(again=again))}


async def test_it_finds_a_mail_that_is_missing(observer: Observer) -> None:
    """The sink has not what the fleet says it sent."""
    with away(observer.ground.servers.mailbox.mails(headers_only=True)[0].path):
        assert Fault.LOST in await _found(observer)


async def test_it_finds_a_mail_that_arrived_twice(observer: Observer) -> None:
    """The same Message-ID is in the sink a second time."""
    mail = observer.ground.servers.mailbox.mails(headers_only=True)[0].path
    copy = mail.with_name(f"9{mail.name}")
    shutil.copy(mail, copy)
    try:
        assert Fault.DOUBLE in await _found(observer)
    finally:
        copy.unlink()


async def test_it_finds_an_export_that_does_not_open(observer: Observer) -> None:
    """The artefact of a finished export is gone."""
    export = await observer.fleet.fetchrow(
        f"SELECT export_id, attempts FROM {BUILDER}.exports WHERE state = 'completed' AND artefact_key IS NOT NULL LIMIT 1"
    )
    assert export is not None
    artefact = observer.ground.fleet.artefacts_dir / f"{export['export_id']}.{export['attempts']}.zip.tink"
    with away(artefact):
        assert Fault.LOST in await _found(observer)


async def test_it_finds_a_tile_that_was_altered(observer: Observer) -> None:
    """One bit of the published log is another."""
    entries = sorted(path for path in (observer.ground.fleet.log_dir / "tile" / "entries").rglob("*") if path.is_file())
    kept = entries[0].read_bytes()
    entries[0].chmod(0o600)
    at = kept.index(b" prev=") + 10  # a digit of a hash: any other may make a word that the grammar does not have
    entries[0].write_bytes(kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1 :])
    try:
        found = await observer.collect()
        assert found.log.problems
        assert Fault.AUDIT in {each.fault for each in check(found)}
    finally:
        entries[0].write_bytes(kept)


async def test_it_finds_a_forked_log(observer: Observer) -> None:
    """An entry of the log was replaced by another of the same place: a branch that verifies by itself."""
    history = await observer.collect()
    lines = [*history.log.lines]
    lines[5] = lines[5].replace(b" time=2", b" time=1", 1)
    forked = replace(history, log=replace(history.log, lines=lines))
    assert Fault.AUDIT in {each.fault for each in check(forked)}


async def test_it_finds_an_entry_that_is_twice_in_the_log(observer: Observer) -> None:
    """The log repeats an entry."""
    history = await observer.collect()
    log = replace(
        history.log,
        lines=[*history.log.lines, history.log.lines[5]],
        entries=[*history.log.entries, history.log.entries[5]],
    )
    assert Fault.DOUBLE in {each.fault for each in check(replace(history, log=log))}


async def test_it_finds_an_offset_beyond_the_inbox(observer: Observer) -> None:
    """A group has committed what its inbox does not hold."""
    history = await observer.collect()
    held = history.slices["export-builder"]
    last = max((row for row in held.inbox if row.topic.startswith("request-intake")), key=lambda row: row.offset)
    shorter = replace(held, inbox=[row for row in held.inbox if row is not last])
    records = [record for record in history.records if record.event_id != last.event_id]
    assert Fault.LOST in _faults(replace(history, slices={**history.slices, "export-builder": shorter}))
    beyond = {**history.committed, ("export-builder", last.topic, last.partition): 10**9}
    assert Fault.LOST in _faults(replace(history, records=records, committed=beyond))


async def test_it_finds_an_event_twice_in_an_inbox(observer: Observer) -> None:
    """One event was taken twice; the database itself would refuse it, so the history is changed."""
    history = await observer.collect()
    held = history.slices["export-builder"]
    doubled = replace(held, inbox=[*held.inbox, held.inbox[0]])
    assert Fault.DOUBLE in _faults(replace(history, slices={**history.slices, "export-builder": doubled}))


async def test_it_finds_a_phantom(observer: Observer) -> None:
    """A record that no outbox has is found, once it is in Kafka; it is filtered out again for the other tests."""
    clock = SystemClock()
    envelope = Envelope(uuid7(clock), "request.withdrawn", "request-intake", clock.now(), str(uuid7(clock)))
    producer = AIOKafkaProducer(bootstrap_servers=observer.ground.servers.kafka_bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(
            "retention-sweeper.sweeps.v1", b"{}", b"nobody", headers=encode_headers(envelope), partition=0
        )
    finally:
        await producer.stop()
    before = await observer.collect()
    assert Fault.DOUBLE in await _found(observer, again=True)
    observer.keep(before)


def _faults(history: History) -> set[Fault]:
    return {each.fault for each in check(history)}
