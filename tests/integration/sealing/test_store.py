import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from habeas.sealing import KekMismatch, KeyKind, KeyMissing, KeyStore, Place, open_sealed, seal
from habeas.sealing.kek import KeyRing, RingTokens, new_key_ring
from habeas.sealing.rotation import FIRST, SUBJECT_KEYS, announce, promote, retire, retire_keks, rewrap
from habeas_embedded.provision import Access

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
SUBJECTS = [UUID(int=0x0192F0C0 << 96 | 0x7 << 76 | n) for n in range(20)]
PLACE = Place("request", SUBJECTS[0], "account")
RING = new_key_ring()


@pytest.fixture
def sealing_dsn(database: Access) -> str:
    """The owner's DSN, who may do everything with keys; what services may do has its own test."""
    return database.owner_dsn


class Counting:
    """A connection that counts its statements."""

    def __init__(self, conn: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Wrap a connection."""
        self.conn = conn
        self.statements = 0

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Count and pass on."""
        self.statements += 1
        return await self.conn.fetch(query, *args)

    async def execute(self, query: str, *args: object) -> str:
        """Count and pass on."""
        self.statements += 1
        return await self.conn.execute(query, *args)


def a_store(ring: str = RING, clock: list[datetime] | None = None) -> KeyStore:
    """A store whose clock is the first element of the list."""
    times = clock or [NOW]
    return KeyStore(KeyRing(ring), lambda: times[0])


async def test_create_is_idempotent(sealing_dsn: str) -> None:
    """Two stores get the same keys for the same subjects, each with two statements for the whole batch."""
    conn = await asyncpg.connect(sealing_dsn)
    counting = Counting(conn)
    first = await a_store().create(counting, SUBJECTS, NOW)
    assert counting.statements == 2
    again = await a_store().create(counting, [*SUBJECTS, *SUBJECTS], NOW + timedelta(days=1))
    assert counting.statements == 4
    for subject in SUBJECTS:
        for kind in KeyKind:
            assert open_sealed(again[subject].of(kind), PLACE, seal(first[subject].of(kind), PLACE, b"v")) == b"v"
    rows = await conn.fetch("SELECT DISTINCT created_at FROM sealing.subject_keys")
    assert [row["created_at"] for row in rows] == [NOW]
    assert await conn.fetchval("SELECT count(*) FROM sealing.subject_keys") == 2 * len(SUBJECTS)
    await conn.close()


async def test_concurrent_makers_get_one_key(sealing_dsn: str) -> None:
    """Ten makers of the same subjects in opposite orders, each in a transaction, end with one key and no deadlock."""

    async def make(number: int) -> str:
        conn = await asyncpg.connect(sealing_dsn)
        async with conn.transaction():
            order = SUBJECTS if number % 2 else SUBJECTS[::-1]
            keys = await a_store().create(conn, order, NOW)
            sealed = seal(keys[SUBJECTS[0]].data, PLACE, b"v")
        await conn.close()
        return sealed

    texts = await asyncio.gather(*(make(number) for number in range(10)))
    conn = await asyncpg.connect(sealing_dsn)
    keys = await a_store().require(conn, SUBJECTS, KeyKind.DATA)
    assert [open_sealed(keys[SUBJECTS[0]], PLACE, text) for text in texts] == [b"v"] * 10
    await conn.close()


async def test_destroyed_key_is_missing_everywhere(sealing_dsn: str) -> None:
    """After the data key is destroyed no store finds it, not even one that had it in memory; the case key stays."""
    conn = await asyncpg.connect(sealing_dsn)
    eraser, other = a_store(), a_store()
    await eraser.create(conn, SUBJECTS, NOW)
    await other.require(conn, SUBJECTS, KeyKind.DATA)
    gone = SUBJECTS[:2]
    assert await eraser.destroy(conn, gone, KeyKind.DATA) == frozenset(gone)
    assert await eraser.destroy(conn, gone, KeyKind.DATA) == frozenset()
    for store in (eraser, other):
        assert set(await store.read(conn, SUBJECTS, KeyKind.DATA)) == set(SUBJECTS[2:])
        with pytest.raises(KeyMissing, match="2 of 20") as caught:
            await store.require(conn, SUBJECTS, KeyKind.DATA)
        assert str(SUBJECTS[0]) not in str(caught.value)
        assert set(await store.require(conn, SUBJECTS, KeyKind.CASE)) == set(SUBJECTS)
    await conn.close()


async def test_a_destroyed_key_is_never_made_again(sealing_dsn: str) -> None:
    """Another key under the same subject would open nothing that the first one sealed: its maker is refused."""
    conn = await asyncpg.connect(sealing_dsn)
    store = a_store()
    await store.create(conn, SUBJECTS, NOW)
    await store.destroy(conn, SUBJECTS[:1], KeyKind.DATA)
    with pytest.raises(KeyMissing, match="1 of 40"):
        await store.create(conn, SUBJECTS, NOW)
    assert set(await store.read(conn, SUBJECTS, KeyKind.DATA)) == set(SUBJECTS[1:])
    await conn.close()


async def test_rolled_back_key_is_not_served(sealing_dsn: str) -> None:
    """A key made in a transaction that was rolled back is gone from memory too: the next one is another key."""
    conn = await asyncpg.connect(sealing_dsn)
    store = a_store()
    transaction = conn.transaction()
    await transaction.start()
    lost = (await store.create(conn, SUBJECTS[:1], NOW))[SUBJECTS[0]].data
    await transaction.rollback()
    assert await store.read(conn, SUBJECTS[:1], KeyKind.DATA) == {}
    kept = (await store.create(conn, SUBJECTS[:1], NOW))[SUBJECTS[0]].data
    assert kept.reference(b"") != lost.reference(b"")
    assert (await a_store().require(conn, SUBJECTS[:1], KeyKind.DATA))[SUBJECTS[0]].reference(b"") == kept.reference(
        b""
    )
    await conn.close()


async def test_unwrapping_is_remembered_for_a_while(sealing_dsn: str) -> None:
    """The same key object is served until its age or `forget` ends that."""
    conn = await asyncpg.connect(sealing_dsn)
    clock = [NOW]
    store = a_store(clock=clock)
    first = (await store.create(conn, SUBJECTS[:1], NOW))[SUBJECTS[0]].data

    async def read() -> object:
        return (await store.require(conn, SUBJECTS[:1], KeyKind.DATA))[SUBJECTS[0]]

    assert await read() is first
    clock[0] = NOW + timedelta(minutes=5)
    second = await read()
    assert second is not first
    store.forget(SUBJECTS[:1])
    assert await read() is not second
    await conn.close()


async def test_memory_is_bounded(sealing_dsn: str) -> None:
    """The cache never holds more keys than it may."""
    conn = await asyncpg.connect(sealing_dsn)
    store = KeyStore(KeyRing(RING), lambda: NOW, cache_keys_max=3)
    await store.create(conn, SUBJECTS, NOW)
    assert len(store._cache) == 3
    await conn.close()


async def test_foreign_ring_reads_nothing(sealing_dsn: str) -> None:
    """A store with another key ring fails with KekMismatch instead of making or serving keys."""
    conn = await asyncpg.connect(sealing_dsn)
    await a_store().create(conn, SUBJECTS, NOW)
    stranger = a_store(new_key_ring())
    for attempt in (stranger.create(conn, SUBJECTS, NOW), stranger.read(conn, SUBJECTS, KeyKind.DATA)):
        with pytest.raises(KekMismatch):
            await attempt
    await conn.close()


async def test_row_moved_to_another_subject_does_not_unwrap(sealing_dsn: str) -> None:
    """Whoever swaps wrapped keys in the database is found out."""
    conn = await asyncpg.connect(sealing_dsn)
    await a_store().create(conn, SUBJECTS[:2], NOW)
    await conn.execute(
        "UPDATE sealing.subject_keys SET wrapped = (SELECT wrapped FROM sealing.subject_keys"
        " WHERE subject_id = $2 AND kind = 'data') WHERE subject_id = $1 AND kind = 'data'",
        *SUBJECTS[:2],
    )
    with pytest.raises(KekMismatch):
        await a_store().read(conn, SUBJECTS[:2], KeyKind.DATA)
    await conn.close()


async def test_rewrapping_moves_every_key(sealing_dsn: str) -> None:
    """Page by page every row moves to the new KEK, each read once; then the old one is no longer needed."""
    conn = await asyncpg.connect(sealing_dsn)
    before = (await a_store().create(conn, SUBJECTS, NOW))[SUBJECTS[0]].data.reference(b"")
    ring = promote(announce(RingTokens.parse(RING)))
    kek = KeyRing(ring.text())
    steps, place = [], FIRST
    while True:
        page = await rewrap(conn, SUBJECT_KEYS, kek, kek.kek_id, place, 15)
        steps.append(page.moved)
        if page.last is None:
            break
        place = page.last
    assert steps == [15, 15, 10]
    assert (await rewrap(conn, SUBJECT_KEYS, kek, kek.kek_id, FIRST, 15)) == (0, 0, None)
    after = await a_store(retire(ring).text()).require(conn, SUBJECTS, KeyKind.DATA)
    assert after[SUBJECTS[0]].reference(b"") == before
    await conn.close()


async def test_rewrapping_waits_for_nobody(sealing_dsn: str) -> None:
    """Keys that somebody has locked, and one that was altered, are passed over; all others move."""
    conn, other = await asyncpg.connect(sealing_dsn), await asyncpg.connect(sealing_dsn)
    await a_store().create(conn, SUBJECTS, NOW)
    altered = "UPDATE sealing.subject_keys SET wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) WHERE subject_id = $1"
    await conn.execute(altered, SUBJECTS[3])
    kek = KeyRing(promote(announce(RingTokens.parse(RING))).text())
    async with other.transaction():
        await other.execute("DELETE FROM sealing.subject_keys WHERE subject_id = $1", SUBJECTS[0])
        page = await rewrap(conn, SUBJECT_KEYS, kek, kek.kek_id, FIRST, 100)
    assert page == (2 * len(SUBJECTS) - 4, 2, None)
    await conn.close()
    await other.close()


async def test_a_retired_kek_wraps_nothing_more(sealing_dsn: str) -> None:
    """A process with an old copy of the ring is refused by the database, and reads what the new one wrapped nowhere."""
    conn = await asyncpg.connect(sealing_dsn)
    ring = promote(announce(RingTokens.parse(RING)))
    kek = KeyRing(ring.text())
    await retire_keks(conn, kek.kek_ids[1:])
    await retire_keks(conn, kek.kek_ids[1:])
    with pytest.raises(asyncpg.CheckViolationError, match="retired"):
        await a_store().create(conn, SUBJECTS, NOW)
    keys = await a_store(ring.text()).create(conn, SUBJECTS, NOW)
    assert len(keys) == len(SUBJECTS)
    with pytest.raises(asyncpg.CheckViolationError, match="retired"):
        await conn.execute("UPDATE sealing.subject_keys SET kek_id = $1", KeyRing(RING).kek_id)
    await conn.close()


async def test_empty_batches_ask_nothing(sealing_dsn: str) -> None:
    """No subjects, no statement, no error."""
    conn = await asyncpg.connect(sealing_dsn)
    counting = Counting(conn)
    assert await a_store().create(counting, [], NOW) == {}
    assert await a_store().require(counting, [], KeyKind.DATA) == {}
    assert await a_store().destroy(counting, [], KeyKind.DATA) == frozenset()
    assert counting.statements == 0
    await conn.close()


SERVICES = (
    "request-intake",
    "erasure-executor",
    "export-builder",
    "retention-sweeper",
    "notification-mailer",
    "audit-ledger",
)


@pytest.mark.parametrize("service", SERVICES)
async def test_only_the_executor_destroys(service: str, database: Access) -> None:
    """Every service makes and reads keys; erasure-executor alone destroys them, and none rewrites one."""
    conn = await asyncpg.connect(database.dsn(service))
    store = a_store()
    await store.create(conn, SUBJECTS, NOW)
    assert len(await store.require(conn, SUBJECTS, KeyKind.CASE)) == len(SUBJECTS)
    if service == "erasure-executor":
        assert await store.destroy(conn, SUBJECTS, KeyKind.DATA) == frozenset(SUBJECTS)
    else:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await store.destroy(conn, SUBJECTS, KeyKind.DATA)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await conn.execute("UPDATE sealing.subject_keys SET wrapped = wrapped")
    await conn.close()
