import asyncio
import random
from pathlib import Path

import asyncpg
import pytest

from audit_ledger import store
from audit_ledger.errors import SeatLost
from habeas.contracts.audit import GENESIS, Producer, encode_entry, encode_fact
from habeas_embedded.provision import Access
from tests.integration.audit_ledger.conftest import LOG_ORIGIN, Ledger, Topic, root_of_rfc, start_ledger
from tests.support.audit_log import FACTS, START
from tests.support.waiting import HANGS_S, until

TAIL = encode_fact(FACTS[0], START)
INTAKE = Producer.REQUEST_INTAKE


@pytest.mark.parametrize("seed", range(4))
async def test_any_split_gives_the_tree_of_the_rfc(ledger: Ledger, seed: int) -> None:
    """However records fall into batches, the log is the topic's order and its root that of RFC 6962 section 2.1."""
    chance = random.Random(seed)  # noqa: S311 -- splits are chosen, not secrets
    topic = Topic()
    lines = topic.grow(chance.choice((1, 255, 256, 257, 900)))
    await ledger.follow(topic, lambda: chance.choice((1, 2, 7, 100, 256, 300)))
    assert await ledger.lines() == lines
    assert await ledger.head() == (len(lines), root_of_rfc(lines), len(lines))
    assert await ledger.halted() == {}


async def test_batch_that_comes_again_changes_nothing(ledger: Ledger) -> None:
    """Records that were taken are dropped by their offset: what Kafka delivers twice is there once."""
    topic = Topic()
    lines = topic.grow(20)
    await ledger.follow(topic)
    before = await ledger.head()
    await ledger.sequencer.take(ledger.db, topic.records[5:])
    await ledger.follow(topic)
    assert await ledger.head() == before
    topic.grow(3)
    await ledger.sequencer.take(ledger.db, topic.records[10:])
    assert (await ledger.lines())[:20] == lines
    assert (await ledger.head())[0] == 23


async def test_entries_sent_again_are_dropped(ledger: Ledger) -> None:
    """A relay that died sends entries again: in the same batch or in a later one, they are there once and halt nobody."""
    topic = Topic()
    lines = topic.grow(300)
    topic.send(*lines[100:300])
    await ledger.follow(topic, 400)
    topic.send(*lines)
    topic.send(lines[-1])
    more = topic.grow(10)
    await ledger.follow(topic)
    assert await ledger.lines() == [*lines, *more]
    assert await ledger.halted() == {}
    assert await ledger.refused() == []
    assert (await ledger.head())[2] == len(topic.records)


def break_link(topic: Topic) -> bytes:
    """An entry with the right number and another link than the entry before has."""
    return encode_entry(INTAKE, 1, topic.producers.seqs[INTAKE] + 1, "ab" * 32, TAIL)


def leave_gap(topic: Topic) -> bytes:
    """An entry after the next one."""
    topic.producers.entry(INTAKE, TAIL)
    return topic.producers.entry(INTAKE, TAIL)


def say_another_last(topic: Topic) -> bytes:
    """The last entry's place with other bytes."""
    return encode_entry(INTAKE, 1, topic.producers.seqs[INTAKE], "cd" * 32, TAIL)


def say_another_first(topic: Topic) -> bytes:
    """The first entry's place with other bytes."""
    return encode_entry(INTAKE, 1, 1, GENESIS, encode_fact(FACTS[2], START))


def break_grammar(topic: Topic) -> bytes:
    """The next entry with a word that the grammar does not have."""
    return topic.producers.entry(INTAKE, TAIL).replace(b"action=request.accepted", b"action=request.dreamt")


def send_rubbish(_: Topic) -> bytes:
    """No entry at all."""
    return "kein Eintrag: ä".encode()


@pytest.mark.parametrize("batch", [1, 5_000])
@pytest.mark.parametrize(
    ("make", "reason", "expected", "found"),
    [
        (leave_gap, "gap", 4, 5),
        (break_link, "broken_link", 4, 4),
        (say_another_last, "equivocation", 4, 3),
        (say_another_first, "equivocation", 4, 1),
        (break_grammar, "bad_grammar", 4, 4),
        (send_rubbish, "bad_grammar", 4, 9),
    ],
)
async def test_producer_that_does_not_fit_is_halted(
    ledger: Ledger, make: object, reason: str, expected: int, found: int, batch: int
) -> None:
    """The producer of the misfit is halted and nothing more of it taken, the others go on; all are told, and nothing is lost."""
    assert callable(make)
    topic = Topic()
    good = topic.grow(18)  # three of each producer
    wrong = make(topic)
    topic.send(wrong, key=b"request-intake/9")
    later = topic.grow(12)  # two more of each
    await ledger.follow(topic, batch)
    others = [line for line in later if b"producer=request-intake" not in line]
    held = [line for line in later if b"producer=request-intake" in line]
    assert await ledger.lines() == [*good, *others]
    assert await ledger.halted() == {"request-intake": (reason, 18, expected, found)}
    assert (await ledger.head())[2] == 31
    assert await ledger.refused() == [
        (18, "request-intake", reason),
        *((topic.records.index(record), "request-intake", None) for record in topic.records if record.value in held),
    ]
    assert await ledger.reader.fetchval("SELECT value FROM audit_ledger.refused WHERE topic_offset = 18") == wrong
    assert await ledger.told("producer.halted") == [
        {
            "origin": LOG_ORIGIN,
            "producer": "request-intake",
            "expected_seq": expected,
            "found_seq": found,
            "reason": reason,
            "halted_at": "2026-11-24T09:30:00Z",
        }
    ]
    assert await ledger.facts() == [
        "action=producer.halted request=- subject=- outcome=- count=18 commitments=-",
    ]
    await ledger.publish()
    assert ledger.passes()


async def test_stranger_halts_nobody(ledger: Ledger) -> None:
    """A record that names no producer of the fleet is kept aside, and everybody goes on."""
    topic = Topic()
    topic.grow(6)
    topic.send(b"hello", key=b"somebody/7")
    topic.send(b"", key=b"")
    topic.send(topic.producers.entry(INTAKE, TAIL).replace(b"producer=request-intake", b"producer=request-outtake"))
    topic.producers.seqs[INTAKE] -= 1
    await ledger.follow(topic)
    assert await ledger.halted() == {}
    assert await ledger.refused() == [(6, None, "bad_grammar"), (7, None, "bad_grammar"), (8, None, "bad_grammar")]
    assert (await ledger.head())[0] == 6


async def test_epochs(ledger: Ledger) -> None:
    """A new epoch begins at 1, linked to the entry before or to nothing; nothing of an earlier epoch may follow it."""
    topic = Topic()
    topic.grow(6)
    linked = encode_entry(INTAKE, 2, 1, topic.producers.hashes[INTAKE], TAIL)
    unlinked = encode_entry(INTAKE, 3, 1, GENESIS, TAIL)
    stale = encode_entry(INTAKE, 1, 2, topic.producers.hashes[INTAKE], TAIL)
    topic.send(linked, unlinked, linked, stale)
    await ledger.follow(topic)
    assert (await ledger.lines())[6:] == [linked, unlinked]
    assert await ledger.halted() == {"request-intake": ("equivocation", 9, 2, 2)}


async def test_second_replica_is_idle_until_the_first_is_gone(database: Access, tmp_path: Path) -> None:
    """One replica sequences; the other waits for its seat and then goes on where the first one was."""
    topic = Topic()
    async with start_ledger(database, tmp_path / "log") as second:
        async with start_ledger(database, tmp_path / "log") as first:
            topic.grow(10)
            await first.follow(topic)
            waiting = asyncio.get_running_loop().create_task(second.open())
            for _ in range(3):
                assert not (await asyncio.wait([waiting], timeout=0.05))[0]
            assert await second.publish() == 0
            assert await first.publish() == 1
        assert await asyncio.wait_for(waiting, HANGS_S) == 10
        topic.grow(10)
        await second.follow(topic)
        assert (await second.head())[0] == 20
        await second.publish()
        assert second.passes()


async def test_a_sequencer_that_stands_still_loses_its_seat(database: Access, tmp_path: Path) -> None:
    """The server ends the session of one that is silent for a lease; the other goes on, and the first one finds its place taken."""
    topic = Topic()
    async with start_ledger(database, tmp_path / "log") as first, start_ledger(database, tmp_path / "log") as second:
        for ledger in (first, second):
            ledger.seat._lease_s = HANGS_S
        topic.grow(3)
        await first.follow(topic)
        assert not await second.seat.take(second.db)
        assert first.seat._connection is not None
        await first.seat._connection.fetchval(store.KEEP_SEAT, "100")  # from now on every silence is one for a lease

        async def taken() -> bool:
            return await second.seat.take(second.db)

        async def noticed() -> bool:
            return not first.seat.held

        await until(taken, "the seat")
        await until(noticed, "the loss of the seat")  # the server's goodbye has a way to go
        with pytest.raises(SeatLost):
            await first.sequencer.take(first.db, topic.records)


async def test_replica_that_lost_its_seat_takes_nothing(ledger: Ledger, database: Access, tmp_path: Path) -> None:
    """A replica whose head was moved by another one stops taking; there is no fork even where both believe they are seated."""
    topic = Topic()
    topic.grow(10)
    await ledger.follow(topic)
    async with start_ledger(database, tmp_path / "log") as other:
        connection = ledger.seat._connection
        ledger.seat._connection = None  # the lock is free, and the first does not know
        assert connection is not None
        await connection.close()
        topic.grow(10)
        await other.follow(topic)
        ledger.seat._connection = other.seat._connection
        with pytest.raises(SeatLost):
            await ledger.sequencer.take(ledger.db, topic.records[10:])
        ledger.seat._connection = None
        with pytest.raises(SeatLost):
            await ledger.sequencer.take(ledger.db, topic.records[10:])
        assert (await other.head())[0] == 20


@pytest.mark.parametrize("table", ["leaves", "tiles", "checkpoints", "refused"])
async def test_what_was_written_stays(ledger: Ledger, database: Access, table: str) -> None:
    """The service has no right to change or delete what it wrote, and even the owner is refused."""
    for dsn, error in (
        (database.dsn("audit-ledger"), asyncpg.InsufficientPrivilegeError),
        (database.owner_dsn, asyncpg.InsufficientPrivilegeError),
    ):
        connection = await asyncpg.connect(dsn)
        for statement in (
            f"DELETE FROM audit_ledger.{table}",
            f"TRUNCATE audit_ledger.{table}",
            f"UPDATE audit_ledger.{table} SET {'size = 1' if table == 'checkpoints' else 'level = 1' if table == 'tiles' else 'seq = 1'}",
        ):
            with pytest.raises(error):
                await connection.execute(statement)
        await connection.close()
