"""The audit topic as witness: a database that lacks what was told is refused, and no unit of work begins on a server nobody looked at."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
import pytest_asyncio

from habeas.chassis import history
from habeas.chassis.database import Server, ServerChanged
from habeas.chassis.history import AUDIT_PARTITION, DatabaseRestored, Entry
from habeas.chassis.settings import ChassisSettings
from habeas.contracts.audit import Action, AuditFact
from habeas.contracts.topics import AUDIT_ENTRIES
from habeas_embedded.provision import Access
from tests.support.delivery import CONSUMER, Broker, Delivery, raw_record


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """One service's slice, in which three entries were told."""
    delivery = await Delivery.open(database)
    yield delivery
    await delivery.close()


async def tell(delivery: Delivery, count: int) -> list[bytes]:
    """Let the service tell entries, and give their lines."""
    broker = Broker()
    async with delivery.database.transaction("tell") as tx:
        tx.record(*[AuditFact(Action.MESSAGE_PARKED) for _ in range(count)])
    relay = broker.relay(delivery, await delivery.lanes())
    while await relay.step():
        pass
    return [record.value for record in broker.of(AUDIT_ENTRIES)]


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The audit topic, as far as it holds entries of this service."""
    lines: list[bytes] = []

    async def read(_: ChassisSettings, service: str, position: int | None, take: Callable[[Entry], None]) -> int:
        assert service == CONSUMER
        for offset, line in enumerate(lines):
            if offset >= (position or 0):
                seq = int(line.split(b"seq=")[1].split(b" ")[0])
                take(Entry(1, seq, raw_record(AUDIT_ENTRIES, b"", line, {})))
        return len(lines)

    monkeypatch.setattr(history, "read_entries", read)
    return lines


async def verify(delivery: Delivery) -> None:
    """Look at the history as a service does at its start."""
    await history.verify(delivery.settings, CONSUMER, delivery.database)


async def test_a_database_that_has_all_that_was_told_is_trusted(delivery: Delivery, topic: list[bytes]) -> None:
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


async def test_a_database_that_went_back_is_refused(delivery: Delivery, topic: list[bytes]) -> None:
    """An entry beyond the head was told by a later state of this database; then nothing may begin."""
    topic += await tell(delivery, 3)
    await delivery.look("UPDATE erasure_executor.audit_head SET seq = 1, published_seq = 1, hash = repeat('a', 64)")
    with pytest.raises(DatabaseRestored) as refused:
        await verify(delivery)
    assert refused.value.unknown == 2
    assert not delivery.database.is_trusted


async def test_a_database_that_went_back_and_on_is_refused(delivery: Delivery, topic: list[bytes]) -> None:
    """Other bytes at the place of an entry are another history, however far it has come."""
    topic += await tell(delivery, 3)
    await delivery.look("UPDATE erasure_executor.audit_lines SET line = 'other' WHERE seq = 3")
    with pytest.raises(DatabaseRestored):
        await verify(delivery)


async def test_nothing_begins_on_another_server(delivery: Delivery, topic: list[bytes]) -> None:
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
