"""The audit topic as witness: a database that lacks what was told is refused, and no unit of work begins on a server nobody looked at."""

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final, TypeAlias

import pytest
import pytest_asyncio
from aiokafka import ConsumerRecord

from habeas.chassis import history, log
from habeas.chassis.database import Server, ServerChanged
from habeas.chassis.history import AUDIT_PARTITION, DatabaseRestored, Entry, Reach
from habeas.chassis.settings import ChassisSettings
from habeas.contracts.audit import GENESIS, Action, AuditFact, Producer, encode_entry, encode_fact
from habeas.contracts.pledges import PLEDGE_HEADER, make_pledge
from habeas.contracts.topics import AUDIT_ENTRIES
from habeas_embedded.provision import Access
from tests.support.delivery import CONSUMER, NOON, Broker, Delivery, raw_record

TAIL: Final = encode_fact(AuditFact(Action.MESSAGE_PARKED), NOON)
OTHER: Final = encode_fact(AuditFact(Action.MESSAGE_PARKED, count=7), NOON)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was logged of the history."""
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(log, "event", lambda name, **fields: lines.append({"event": name, **fields}))
    return lines


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """One service's slice, in which three entries were told."""
    delivery = await Delivery.open(database)
    yield delivery
    await delivery.close()


async def tell(delivery: Delivery, count: int) -> list[bytes]:
    """Let the service tell entries, and give their lines."""
    return [record.value or b"" for record in await show(delivery, count)]


async def show(delivery: Delivery, count: int) -> "list[ConsumerRecord[bytes, bytes]]":
    """Let the service tell entries, and give the records, which show its secrets."""
    broker = Broker()
    async with delivery.database.transaction("tell") as tx:
        tx.record(*[AuditFact(Action.MESSAGE_PARKED) for _ in range(count)])
    relay = broker.relay(delivery, await delivery.lanes())
    while await relay.step():
        pass
    told = [raw_record(AUDIT_ENTRIES, each.key, each.value, each.headers) for each in broker.of(AUDIT_ENTRIES)]
    _shown.update({record.value or b"": record for record in told})
    return told


async def as_own(delivery: Delivery, seq: int, line: bytes) -> "ConsumerRecord[bytes, bytes]":
    """An entry that the service told in another life of its database: it shows the secret of its place."""
    (row,) = await delivery.look("SELECT seed FROM erasure_executor.audit_seed")
    return raw_record(AUDIT_ENTRIES, b"", line, {PLEDGE_HEADER: make_pledge(row["seed"], 1, seq).encode()})


_shown: Final[dict[bytes, "ConsumerRecord[bytes, bytes]"]] = {}  # what services told, by their lines
Told: TypeAlias = "bytes | ConsumerRecord[bytes, bytes]"


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    """The audit topic, as far as it holds entries of this service; a line alone shows a secret if the service told it."""
    lines: list[Told] = []

    async def read(_: ChassisSettings, service: str, position: int | None, take: Callable[[Entry], None]) -> Reach:
        assert service == CONSUMER
        for offset, each in enumerate(lines):
            if offset >= (position or 0):
                record = (_shown.get(each) or unshown(each)) if isinstance(each, bytes) else each
                line = record.value or b""
                epoch, seq = (int(line.split(part)[1].split(b" ")[0]) for part in (b"epoch=", b"seq="))
                take(Entry(epoch, seq, record))
        return Reach(0, len(lines))

    monkeypatch.setattr(history, "read_entries", read)
    return lines


async def verify(delivery: Delivery) -> None:
    """Look at the history as a service does at its start."""
    await history.verify(delivery.settings, CONSUMER, delivery.database)


async def test_a_database_that_has_all_that_was_told_is_trusted(delivery: Delivery, topic: list[Told]) -> None:
    """Also when it is ahead of the topic; how far the topic was read is kept, so that the next look begins there."""
    topic += (await tell(delivery, 3))[:2]
    await verify(delivery)
    assert delivery.database.is_trusted
    rows = await delivery.look(
        "SELECT next_offset FROM erasure_executor.positions WHERE topic = $1", AUDIT_PARTITION.topic
    )
    assert [row["next_offset"] for row in rows] == [2]
    topic.append((await tell(delivery, 1))[0])
    await verify(delivery)


async def test_a_database_that_went_back_is_refused(delivery: Delivery, topic: list[Told]) -> None:
    """An entry beyond the head was told by a later state of this database; then nothing may begin."""
    topic += await tell(delivery, 3)
    await delivery.look("UPDATE erasure_executor.audit_head SET seq = 1, published_seq = 1, hash = repeat('a', 64)")
    with pytest.raises(DatabaseRestored) as refused:
        await verify(delivery)
    assert refused.value.unknown == 2
    assert not delivery.database.is_trusted


async def test_a_database_that_went_back_and_on_is_refused(delivery: Delivery, topic: list[Told]) -> None:
    """Other bytes at the place of an entry are another history, however far it has come."""
    topic += await tell(delivery, 3)
    await delivery.look("UPDATE erasure_executor.audit_lines SET line = 'other' WHERE seq = 3")
    await delivery.look("UPDATE erasure_executor.audit_seed SET shown_seq = 1")
    with pytest.raises(DatabaseRestored):
        await verify(delivery)


def forged(seq: int, prev: str = "f" * 64, *, epoch: int = 1, tail: str = TAIL) -> bytes:
    """An entry that follows the grammar, by whoever may write to the topic."""
    return encode_entry(Producer(CONSUMER), epoch, seq, prev, tail)


FORGERIES: Final[Mapping[str, Callable[[list[bytes]], list[bytes]]]] = {
    "without grammar": lambda _: [f"habeas-audit/1 producer={CONSUMER} epoch=1 seq=999999 x".encode()],
    "without grammar, at the next place": lambda told: [told[-1].replace(b"seq=3", b"seq=4") + b" x"],
    "a wrong link at the next place": lambda _: [forged(4)],
    "a wrong link at a place that was told": lambda _: [forged(3)],
    "zeros as link": lambda _: [forged(4, GENESIS)],
    "far ahead": lambda _: [forged(10**17)],
    "a later epoch": lambda _: [forged(1, GENESIS, epoch=2), forged(1, epoch=9), forged(7, epoch=2)],
    "the true link at a wrong place": lambda told: [forged(5, sha256(told[-1]).hexdigest())],
    "a chain of its own": lambda _: [four := forged(4), forged(5, sha256(four).hexdigest())],
    "an entry that was told, once more": lambda told: [told[1], told[2]],
}


@pytest.mark.parametrize("kind", FORGERIES)
@pytest.mark.parametrize("place", ["before", "between", "behind"])
async def test_what_links_to_nothing_ends_no_service(
    delivery: Delivery, topic: list[Told], kind: str, place: str, logged: list[dict[str, Any]]
) -> None:
    """Forged records of any kind are passed over and told, wherever they stand; a restored database is found among them all the same."""
    told = await tell(delivery, 3)
    false = FORGERIES[kind](told)
    at = {"before": 0, "between": 2, "behind": 3}[place]
    topic += [*told[:at], *false, *told[at:]]
    await verify(delivery)
    assert delivery.database.is_trusted
    said = [line["entries"] for line in logged if line["event"] == "history.passed_over"]
    assert said == ([] if "once more" in kind else [len(false)])
    await delivery.look("DELETE FROM erasure_executor.positions")
    await delivery.look(
        "UPDATE erasure_executor.audit_head SET seq = 1, published_seq = 1, hash = $1", sha256(told[0]).hexdigest()
    )
    with pytest.raises(DatabaseRestored) as refused:
        await verify(delivery)
    assert refused.value.unknown == 2


def unshown(line: bytes) -> "ConsumerRecord[bytes, bytes]":
    """A record that shows no secret."""
    return raw_record(AUDIT_ENTRIES, b"", line, {})


FORGERS_PLEDGE: Final = {PLEDGE_HEADER: make_pledge(b"f" * 32, 1, 4).encode()}


@pytest.mark.parametrize(
    "kind", ["nothing shown", "a secret made up", "a secret shown before", "a later epoch", "a place that was told"]
)
async def test_what_links_on_without_the_secret_ends_no_service(
    delivery: Delivery, topic: list[Told], kind: str, logged: list[dict[str, Any]]
) -> None:
    """Whoever reads the topic can link on from the last entry, and cannot show the next secret; a restore is found all the same."""
    told = await show(delivery, 3)
    topic += told
    link = sha256(told[-1].value or b"").hexdigest()
    next_one = forged(4, link)
    before = sha256(told[1].value or b"").hexdigest()
    topic.append(
        {
            "nothing shown": unshown(next_one),
            "a secret made up": raw_record(AUDIT_ENTRIES, b"", next_one, FORGERS_PLEDGE),
            "a secret shown before": raw_record(AUDIT_ENTRIES, b"", next_one, told[-1].headers),
            "a later epoch": forged(1, link, epoch=2),
            "a place that was told": raw_record(AUDIT_ENTRIES, b"", forged(3, before, tail=OTHER), told[-1].headers),
        }[kind]
    )
    await verify(delivery)
    assert delivery.database.is_trusted
    assert [line["entries"] for line in logged if line["event"] == "history.passed_over"] == [1]
    await delivery.look("DELETE FROM erasure_executor.positions")
    await delivery.look("UPDATE erasure_executor.audit_head SET seq = 2, published_seq = 2, hash = $1", before)
    await delivery.look("UPDATE erasure_executor.audit_seed SET shown_seq = 2 RETURNING 1")
    with pytest.raises(DatabaseRestored) as refused:
        await verify(delivery)
    assert refused.value.unknown >= 1


async def test_an_entry_that_shows_the_secret_counts_without_its_link(delivery: Delivery, topic: list[Told]) -> None:
    """Where Kafka has lost records in the middle, what comes after them cannot be linked, and was told by the service all the same."""
    told = await show(delivery, 3)
    topic += [told[0], told[2]]
    await delivery.look(
        "UPDATE erasure_executor.audit_head SET seq = 1, published_seq = 1, hash = $1",
        sha256(told[0].value or b"").hexdigest(),
    )
    with pytest.raises(DatabaseRestored) as refused:
        await verify(delivery)
    assert refused.value.unknown == 1


async def test_a_seed_that_nobody_has_seen_proves_nothing(delivery: Delivery, topic: list[Told]) -> None:
    """A database restored to before its seed was made has another one: what was told with the lost one, or without any, is a witness."""
    told = await show(delivery, 3)
    topic += [told[0], told[1], unshown(told[2].value or b"")]
    await delivery.look("UPDATE erasure_executor.audit_seed SET seed = sha256('another'), shown_seq = NULL")
    await delivery.look(
        "UPDATE erasure_executor.audit_head SET seq = 1, published_seq = 1, hash = $1",
        sha256(told[0].value or b"").hexdigest(),
    )
    with pytest.raises(DatabaseRestored) as refused:
        await verify(delivery)
    assert refused.value.unknown == 2


async def test_how_far_secrets_were_seen_is_kept(delivery: Delivery, topic: list[Told]) -> None:
    """The number grows with what the topic is seen to hold, and what shows no secret does not count."""
    told = await show(delivery, 3)
    await delivery.look("UPDATE erasure_executor.audit_seed SET shown_seq = NULL")
    topic += [unshown(told[0].value or b""), told[1]]
    for more, expected in (([], 2), ([unshown(told[2].value or b"")], 2), ([told[2]], 3)):
        topic += more
        await verify(delivery)
        rows = await delivery.look("SELECT shown_seq FROM erasure_executor.audit_seed")
        assert [row["shown_seq"] for row in rows] == [expected]


async def test_a_branch_that_is_longer_is_found(delivery: Delivery, topic: list[Told]) -> None:
    """It went back to its second entry and on by itself: the third one is its own, and the fourth of the lost time links to a lost one."""
    told = await tell(delivery, 3)
    lost = forged(3, sha256(told[1]).hexdigest())
    another = forged(4, sha256(lost).hexdigest())
    topic += [*told[:2], await as_own(delivery, 3, lost), await as_own(delivery, 4, another), told[2]]
    with pytest.raises(DatabaseRestored):
        await verify(delivery)


@pytest.mark.parametrize("is_shown", [True, False])
async def test_links_that_cannot_be_followed_count(
    delivery: Delivery, topic: list[Told], monkeypatch: pytest.MonkeyPatch, *, is_shown: bool
) -> None:
    """When Kafka lost the beginning of what was not read yet, an entry beyond the head may be true: the service does not go on."""
    await tell(delivery, 3)
    told = await as_own(delivery, 9, forged(9)) if is_shown else unshown(forged(9))
    if not is_shown:
        await delivery.look("UPDATE erasure_executor.audit_seed SET shown_seq = NULL")

    async def cut(_: ChassisSettings, __: str, ___: int | None, take: Callable[[Entry], None]) -> Reach:
        take(Entry(1, 9, told))
        return Reach(5, 6)

    monkeypatch.setattr(history, "read_entries", cut)
    with pytest.raises(DatabaseRestored):
        await verify(delivery)


async def test_nothing_begins_on_another_server(delivery: Delivery, topic: list[Told]) -> None:
    """After a restart or failover new connections wait until the history was looked at again."""
    await verify(delivery)
    async with delivery.database.apart() as connection:
        server = await Server.of(connection)
    delivery.database.trust(server._replace(started_at=server.started_at - timedelta(seconds=9)))
    await delivery.database.pool.expire_connections()
    with pytest.raises(ServerChanged):
        await delivery.database.read("look", "SELECT true")
    assert delivery.database.server_changed.is_set()
    assert not await delivery.database.ping()
    await verify(delivery)
    assert await delivery.database.ping()
