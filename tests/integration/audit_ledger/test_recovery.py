import shutil
from pathlib import Path

import asyncpg
import pytest

from audit_ledger.gateways import LogDirectory
from habeas.auditlog.scan import Check
from habeas.auditlog.verify import Earlier, Verdict, verify_log
from habeas.chassis.errors import Invariant
from habeas_embedded.provision import Access
from tests.integration.audit_ledger.conftest import (
    LOG_ORIGIN,
    SIGNER_OF_LOG,
    Fate,
    Killed,
    Ledger,
    Topic,
    root_of_rfc,
    start_ledger,
)

SIZES = (3, 300, 520)


async def live(ledger: Ledger, topic: Topic) -> None:
    """Take what the topic has, signing and publishing on the way."""
    position = await ledger.open()
    await ledger.publish()
    for size in SIZES:
        if position < size:
            await ledger.sequencer.take(ledger.db, topic.records[position:size])
            position = size
        await ledger.publish()


async def test_published_log_verifies_at_every_size(ledger: Ledger, tmp_path: Path) -> None:
    """The verifier accepts what is published after each checkpoint, from the empty log on, and finds a flipped byte of any file."""
    topic = Topic()
    await ledger.open()
    assert await ledger.publish() == 1
    assert ledger.passes()
    notes = []
    for count in (3, 297, 220, 0):
        lines = topic.grow(count)
        await ledger.follow(topic)
        assert await ledger.publish() == (1 if lines else 0)
        assert ledger.passes()
        notes.append((ledger.directory.path / "checkpoint").read_bytes())
    report = verify_log(
        ledger.directory.path,
        SIGNER_OF_LOG.verifier,
        key_source="the test",
        earlier=[Earlier(str(at), note) for at, note in enumerate(notes)],
    )
    assert report.size == report.entries == 520
    assert report.of(Check.CONSISTENCY).verdict is Verdict.PASSED
    assert not (ledger.directory.path / "tile" / "entries" / "000.p").exists()
    for name in ("tile/entries/000", "tile/0/001", "tile/entries/002.p/8", "tile/1/000.p/2", "checkpoint"):
        file = ledger.directory.path / name
        whole = file.read_bytes()
        file.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
        assert not ledger.passes(), name
        file.write_bytes(whole)
    assert ledger.passes()


async def test_checkpoints_are_told_once_and_in_order(ledger: Ledger) -> None:
    """Everybody hears of each published checkpoint once, and nothing is signed while nothing was added; no fact goes to the log."""
    topic = Topic()
    sizes = []
    for count in (0, 5, 0, 0, 7):
        topic.grow(count)
        await ledger.follow(topic)
        await ledger.publish()
        sizes.append(len(topic.records))
    told = await ledger.told("checkpoint.signed")
    assert [event["size"] for event in told] == sorted(set(sizes))
    lines = await ledger.lines()
    assert [event["root"] for event in told] == [root_of_rfc(lines[: event["size"]]).hex() for event in told]
    assert {event["origin"] for event in told} == {LOG_ORIGIN}
    assert await ledger.facts() == []


async def begin_anew(access: Access) -> None:
    """Make the database what it was before anything happened."""
    connection = await asyncpg.connect(access.admin_dsn)
    await connection.execute(
        "SET session_replication_role = replica;"
        "DELETE FROM audit_ledger.leaves; DELETE FROM audit_ledger.tiles; DELETE FROM audit_ledger.checkpoints;"
        "DELETE FROM audit_ledger.producers; DELETE FROM audit_ledger.outbox;"
        "UPDATE audit_ledger.head SET size = 0, root = sha256(''), position = 0;"
        "UPDATE audit_ledger.publication SET size = -1, published_at = NULL"
    )
    await connection.close()


async def test_no_crash_forks_or_loses(database: Access, tmp_path: Path) -> None:
    """Killed before or after any commit or file, the ledger goes on to the same log, and whatever was published stays true."""
    topic = Topic()
    lines = topic.grow(SIZES[-1])
    point, died = 0, True
    while died:
        point += 1
        died, seen = False, None
        path = tmp_path / f"log{point}"
        await begin_anew(database)
        async with start_ledger(database, path, Fate(dies_at=point)) as ledger:
            try:
                await live(ledger, topic)
            except Killed:
                died = True
            if (path / "checkpoint").exists():
                seen = (path / "checkpoint").read_bytes()
                assert ledger.passes()  # a reader never sees a checkpoint without its tiles
        async with start_ledger(database, path) as ledger:
            await live(ledger, topic)
            assert await ledger.lines() == lines
            assert ledger.passes()
            told = [event["size"] for event in await ledger.told("checkpoint.signed")]
            assert told == sorted(set(told))
            assert told[-1] == len(lines)
        earlier = [Earlier("before the crash", seen)] if seen else []
        report = verify_log(path, SIGNER_OF_LOG.verifier, key_source="the test", earlier=earlier)
        assert report.of(Check.CONSISTENCY).verdict is not Verdict.FAIL
    assert point > 40  # commits and files of four checkpoints


async def roll_back(access: Access, size: int) -> None:
    """Bring the database back to an earlier state, as restoring a backup does: of the whole log, lock store included."""
    connection = await asyncpg.connect(access.admin_dsn)
    await connection.execute("SET session_replication_role = replica")
    rows = await connection.fetch("SELECT line FROM audit_ledger.leaves WHERE index < $1 ORDER BY index", size)
    lines = [row["line"] for row in rows]
    await connection.execute("DELETE FROM audit_ledger.leaves WHERE index >= $1", size)
    await connection.execute("DELETE FROM audit_ledger.tiles WHERE (tile_index + 1) << (8 * (level + 1)) > $1", size)
    await connection.execute("DELETE FROM audit_ledger.checkpoints WHERE size > $1", size)
    await connection.execute("DELETE FROM audit_ledger.producers")
    await connection.execute(
        "INSERT INTO audit_ledger.producers (producer, state, epoch, seq, hash)"
        " SELECT DISTINCT ON (producer) producer, 'following', epoch, seq, encode(sha256(line), 'hex')"
        " FROM audit_ledger.leaves ORDER BY producer, epoch DESC, seq DESC"
    )
    await connection.execute(
        "UPDATE audit_ledger.head SET size = $1, root = $2, position = $1", size, root_of_rfc(lines)
    )
    await connection.execute("UPDATE audit_ledger.publication SET size = -1")
    await connection.close()


@pytest.mark.parametrize("back_to", [0, 3, 256, 290])
async def test_database_restored_from_a_backup_comes_to_the_same_log(
    database: Access, tmp_path: Path, back_to: int
) -> None:
    """While the published log is larger than the database, nothing is signed; the topic gives the same roots again."""
    topic = Topic()
    lines = topic.grow(300)
    async with start_ledger(database, tmp_path / "log") as before:
        await before.follow(topic, 100)
        await before.publish()
    published = (tmp_path / "log" / "checkpoint").read_bytes()
    await roll_back(database, back_to)
    async with start_ledger(database, tmp_path / "log") as after:
        assert await after.open() == back_to
        assert await after.publish() == 0
        await after.sequencer.take(after.db, topic.records[back_to:299])
        assert await after.publish() == 0
        assert (tmp_path / "log" / "checkpoint").read_bytes() == published
        lines += topic.grow(50)
        await after.sequencer.take(after.db, topic.records[299:])
        assert await after.publish() == 1
        assert await after.lines() == lines
        assert (await after.head())[1] == root_of_rfc(lines)
        assert after.passes()


@pytest.mark.parametrize("back_to", [0, 290])
async def test_topic_that_lost_its_records_is_not_followed(database: Access, tmp_path: Path, back_to: int) -> None:
    """When the topic does not give the root that was signed, the ledger stops before it commits anything, and signs nothing."""
    topic = Topic()
    topic.grow(300)
    async with start_ledger(database, tmp_path / "log") as before:
        await before.follow(topic)
        await before.publish()
    await roll_back(database, back_to)
    other = Topic(topic.records[:back_to])
    other.producers = Topic().producers
    if back_to:
        list(other.producers.entries(back_to))
        other.producers.made += 1  # the same producers go on with other facts
    other.grow(400 - back_to)
    async with start_ledger(database, tmp_path / "log") as after:
        await after.open()
        with pytest.raises(Invariant, match="300 entries"):
            await after.sequencer.take(after.db, (other if back_to else shifted(other)).records[back_to:])
        assert (await after.head())[0] == back_to
        assert await after.publish() == 0


def shifted(topic: Topic) -> Topic:
    """The same producers in another order: each sequence is whole, and the log is another one."""
    other = Topic()
    mine = [record for record in topic.records if record.key and record.key.startswith(b"audit-ledger/")]
    rest = [record for record in topic.records if record not in mine]
    other.send(*(record.value or b"" for record in [*mine, *rest]))
    return other


async def test_other_history_than_signed_is_refused_at_the_start(database: Access, tmp_path: Path) -> None:
    """A database of the right size with another history, or a directory of another log, stops the start."""
    topic = Topic()
    topic.grow(300)
    async with start_ledger(database, tmp_path / "log") as ledger:
        await ledger.follow(topic)
        await ledger.publish()
    connection = await asyncpg.connect(database.admin_dsn)
    await connection.execute("SET session_replication_role = replica")
    await connection.execute("UPDATE audit_ledger.leaves SET leaf_hash = sha256(line) WHERE index = 299")
    async with start_ledger(database, tmp_path / "log") as ledger:
        with pytest.raises(Invariant, match="another history"):
            await ledger.open()
        assert await ledger.publish() == 0
    await connection.execute("UPDATE audit_ledger.leaves SET leaf_hash = sha256('\\x00' || line) WHERE index = 299")
    await connection.execute("DELETE FROM audit_ledger.leaves WHERE index = 298")
    async with start_ledger(database, tmp_path / "log") as ledger:
        with pytest.raises(Invariant, match="missing"):
            await ledger.open()
    await connection.close()


async def test_two_roots_for_a_size_are_refused(ledger: Ledger, database: Access, tmp_path: Path) -> None:
    """A published checkpoint of our own key with another root at the same size stops the start: the key signed a fork."""
    topic = Topic()
    topic.grow(5)
    await ledger.follow(topic)
    await ledger.publish()
    fork = await asyncpg.connect(database.admin_dsn)
    await fork.execute("SET session_replication_role = replica")
    await fork.execute("UPDATE audit_ledger.checkpoints SET root = sha256('another')")
    await fork.close()
    with pytest.raises(Invariant, match="two roots were signed at 5"):
        await ledger.open()


async def test_a_late_publisher_takes_nothing_back(ledger: Ledger, tmp_path: Path) -> None:
    """A replica that stood still while another one published more neither puts its older checkpoint in place nor spoils a file."""
    topic = Topic()
    await ledger.open()
    topic.grow(3)
    await ledger.follow(topic)
    await ledger.publish()
    target = ledger.directory.path / "checkpoint"
    older = target.read_bytes()
    topic.grow(3)
    await ledger.follow(topic)
    await ledger.publish()
    newer = target.read_bytes()
    late = LogDirectory(ledger.directory.path, SIGNER_OF_LOG.verifier)
    await late.finish(older, [])
    assert target.read_bytes() == newer


async def test_replicas_that_start_together_share_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that found no key in the directory finishes well, although another one has put it there meanwhile."""
    first, second = (LogDirectory(tmp_path / "log", SIGNER_OF_LOG.verifier) for _ in range(2))
    change_mode = Path.chmod

    def meanwhile(draft: Path, mode: int) -> None:
        monkeypatch.undo()
        second._prepare()
        change_mode(draft, mode)

    monkeypatch.setattr(Path, "chmod", meanwhile)
    first._prepare()
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["vkey"]


async def test_directory_of_another_key_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    """Where another key's log is published, this one neither starts nor writes."""
    topic = Topic()
    topic.grow(5)
    await ledger.follow(topic)
    await ledger.publish()
    stranger = type(SIGNER_OF_LOG)("other.example", SIGNER_OF_LOG._private_key).verifier
    directory = LogDirectory(ledger.directory.path, stranger)
    with pytest.raises(Invariant, match="another key"):
        await directory.prepare(ledger.db)
    with pytest.raises(Invariant, match="not signed"):
        await directory.checkpoint()


async def test_lost_directory_is_published_again(ledger: Ledger) -> None:
    """When everything published is gone, the next pass writes all of it, under the checkpoint that was signed before."""
    topic = Topic()
    topic.grow(600)
    await ledger.follow(topic)
    await ledger.publish()
    checkpoint = (ledger.directory.path / "checkpoint").read_bytes()
    shutil.rmtree(ledger.directory.path)
    await ledger.open()
    await ledger.publish()
    assert (ledger.directory.path / "checkpoint").read_bytes() == checkpoint
    assert ledger.passes()


async def test_changed_file_is_not_written_over(ledger: Ledger) -> None:
    """A tile that is there with other bytes than the database gives stops the ledger instead of being mended quietly."""
    topic = Topic()
    topic.grow(5)
    await ledger.follow(topic)
    target = ledger.directory.path / "tile" / "0" / "000.p" / "5"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"\0" * 160)
    with pytest.raises(Invariant, match="must not fork"):
        await ledger.publish()
    assert not (ledger.directory.path / "checkpoint").exists()
