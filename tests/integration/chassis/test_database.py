"""Transactions and the pool: what commits, what is tried again, what is bounded."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from habeas.chassis.clock import FakeClock
from habeas.chassis.connection import Connection
from habeas.chassis.database import TRANSIENT, Database, Transaction
from habeas.chassis.errors import Invariant
from habeas.chassis.outbox import Pending
from habeas.contracts.audit import Action, AuditFact
from habeas_embedded.provision import Access
from tests.support.delivery import NOON, Delivery, extended, new_id, settings
from tests.support.waiting import HANGS_S, until

ADD = "INSERT INTO aggregates (name, number) VALUES ($1, $2)"
CHANGE = "UPDATE aggregates SET number = number + 1 WHERE name = $1"


@pytest_asyncio.fixture
async def delivery(database: Access) -> AsyncIterator[Delivery]:
    """A service's slice with a small pool."""
    delivery = await Delivery.open(database, pool_connections_max=2)
    yield delivery
    await delivery.close()


async def test_own_types_are_asked_for_once_in_a_process(database: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second connection knows PostgreSQL's array types without asking; a type made in a database is asked for each time."""
    monkeypatch.setattr("habeas.chassis.connection._KNOWN", {})  # other tests of this process have asked already
    asked = []

    async def use() -> None:
        connection = await asyncpg.connect(database.admin_dsn, connection_class=Connection)
        connection.add_query_logger(lambda record: asked.append(record.query))
        assert await connection.fetchval("SELECT $1::uuid[]", [new_id()])
        assert await connection.fetchval("SELECT $1::macaddr[]", ["08:00:2b:01:02:03"]) == ["08:00:2b:01:02:03"]
        assert await connection.fetchval("SELECT $1::mood[]", ["good"]) == ["good"]
        await connection.close()

    owner = await asyncpg.connect(database.admin_dsn)
    await owner.execute("CREATE TYPE mood AS ENUM ('good')")
    await owner.close()
    await use()
    first = sum("typeinfo" in query for query in asked)
    await use()
    assert first == 3
    assert sum("typeinfo" in query for query in asked) == first + 1


async def rows(delivery: Delivery) -> tuple[int, int, int]:
    """Rows of state, outbox and audit outbox."""
    (row,) = await delivery.look(
        "SELECT (SELECT count(*) FROM erasure_executor.aggregates) AS state,"
        " (SELECT count(*) FROM erasure_executor.outbox) AS events,"
        " (SELECT count(*) FROM erasure_executor.audit_outbox) AS facts"
    )
    return row["state"], row["events"], row["facts"]


async def change(tx: Transaction) -> None:
    """Change state, emit, record."""
    await tx.execute(ADD, "a", 1)
    tx.emit(extended(new_id(), 1))
    tx.record(AuditFact(Action.REQUEST_ACCEPTED))


async def test_state_events_and_facts_are_one(delivery: Delivery) -> None:
    """They commit together; nothing is there before, everything after."""
    async with delivery.database.transaction("change") as tx:
        await change(tx)
        assert await rows(delivery) == (0, 0, 0)
    assert await rows(delivery) == (1, 1, 1)
    assert tx.statements == 3
    (row,) = await delivery.look("SELECT created_on, created_at, published_at FROM erasure_executor.outbox")
    assert (row["created_on"], row["created_at"], row["published_at"]) == (NOON.date(), NOON, None)


@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError()], ids=lambda error: type(error).__name__)
async def test_an_error_undoes_all(delivery: Delivery, error: BaseException) -> None:
    """Whatever leaves the block, nothing of it stays, and nobody is told of a commit."""
    told: list[Pending] = []
    delivery.database.on_commit(told.append)

    async def fail() -> None:
        async with delivery.database.transaction("change") as tx:
            await change(tx)
            raise error

    with pytest.raises(type(error)):
        await fail()
    assert await rows(delivery) == (0, 0, 0)
    assert told == []


async def test_whoever_asked_is_told_of_commits(delivery: Delivery) -> None:
    """After the commit, with what it left for the outbox."""
    told: list[tuple[int, int]] = []
    delivery.database.on_commit(lambda pending: told.append((len(pending.events), len(pending.facts))))
    await delivery.database.run("change", change)
    assert told == [(1, 1)]


async def test_the_wrong_number_of_rows_is_an_invariant(delivery: Delivery) -> None:
    """A guarded statement that finds another state than was decided on stops the program and leaves nothing."""

    async def twice(tx: Transaction) -> None:
        await change(tx)
        await tx.execute_exactly(1, CHANGE, "nobody")

    with pytest.raises(Invariant, match="guarded: a statement changed 0 rows where 1 were meant"):
        await delivery.database.run("guarded", twice)
    assert await rows(delivery) == (0, 0, 0)


async def test_statements_carry_the_transactions_name(delivery: Delivery) -> None:
    """Whoever looks at the server's activity sees which unit of work a statement belongs to, and whose it is."""
    async with delivery.database.transaction("erase-plan") as tx:
        assert str(await tx.fetchval("SELECT current_query()")).startswith("/* erase-plan */ SELECT")
        assert await tx.fetchval("SELECT current_setting('application_name')") == "erasure_executor"


async def test_every_wait_is_bounded(delivery: Delivery) -> None:
    """The session's limits are those of the settings; nothing stands still in a transaction for longer than a lease."""
    async with delivery.database.transaction("limits") as tx:
        limits = [
            await tx.fetchval("SELECT setting FROM pg_settings WHERE name = $1", name)
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        ]
    assert limits == ["30000", "10000", "15000"]


async def test_waiting_for_a_connection_ends(delivery: Delivery) -> None:
    """With every connection in use the next unit of work fails after the limit, as trouble and not for ever."""
    database = delivery.database
    async with database.transaction("one"), database.transaction("two"):
        database._acquire_timeout_s = 0.1
        with pytest.raises(TRANSIENT):
            async with database.transaction("three"):
                pass
        assert not await database.ping()
    database._acquire_timeout_s = HANGS_S
    assert await database.ping()


async def test_victims_of_a_deadlock_are_run_again(delivery: Delivery) -> None:
    """Two units that lock each other out both take effect once, as one of them is run again as a whole."""
    database = delivery.database
    async with database.transaction("prepare") as tx:
        for name in ("a", "b"):
            await tx.execute(ADD, name, 0)
    runs: list[str] = []
    met = asyncio.Barrier(2)

    async def both(first: str, second: str) -> None:
        async def unit(tx: Transaction) -> None:
            runs.append(first)
            await tx.execute(CHANGE, first)
            if len(runs) <= 2:
                await met.wait()
            await tx.execute(CHANGE, second)

        await database.run("cross", unit)

    async with asyncio.timeout(HANGS_S):
        await asyncio.gather(both("a", "b"), both("b", "a"))
    assert len(runs) == 3
    found = await delivery.look("SELECT number FROM erasure_executor.aggregates")
    assert [row["number"] for row in found] == [2, 2]


async def test_trouble_that_stays_is_given_back(delivery: Delivery) -> None:
    """After a few runs the error is the caller's; no unit runs for ever."""
    runs = 0

    async def unit(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        raise asyncpg.SerializationError("x")

    with pytest.raises(asyncpg.SerializationError):
        await delivery.database.run("unlucky", unit)
    assert runs == 5


async def test_lost_connections_are_replaced(delivery: Delivery) -> None:
    """When the server drops every connection, the next unit of work succeeds all the same."""
    await delivery.database.run("change", change)
    await delivery.look(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE usename = 'erasure_executor' AND datname = current_database()"
    )

    async def look(tx: Transaction) -> int:
        return cast("int", await tx.fetchval("SELECT count(*) FROM aggregates"))

    assert await delivery.database.run("look", look) == 1


async def test_a_read_carries_its_name_too(delivery: Delivery) -> None:
    """A single statement that changes nothing needs no begin and commit, and is told apart all the same."""
    (row,) = await delivery.database.read("look", "SELECT current_query() AS text")
    assert row["text"].startswith("/* look */ ")


async def test_opening_without_a_server_is_trouble(delivery: Delivery) -> None:
    """A server that is not there gives an error that callers wait out."""
    with pytest.raises(TRANSIENT):
        await Database.open(settings(), "erasure_executor", delivery.clock)


class StuckPool:
    """A pool whose connections never come back."""

    terminated = False

    async def close(self) -> None:
        """Wait as asyncpg would, until the limit is over."""
        raise TimeoutError

    def terminate(self) -> None:
        """Drop all connections."""
        self.terminated = True


async def test_closing_ends_by_force(delivery: Delivery) -> None:
    """A connection that is never given back does not hold up the end."""
    pool = StuckPool()
    await Database(cast("Any", pool), "erasure_executor", delivery.clock, delivery.settings).close()
    assert pool.terminated


async def test_a_goodbye_before_the_end_of_the_connection_is_trouble_and_no_more(database: Access) -> None:
    """A server that goes says so first; whoever uses the connection before it ends is told to try again, not to give up."""
    place = urlsplit(database.admin_dsn)
    said: list[bytes] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward both ways, and keep the end of the connection back."""
        there, to_server = await asyncio.open_connection(place.hostname, place.port)

        async def upwards() -> None:
            while data := await reader.read(65_536):
                to_server.write(data)

        up = asyncio.create_task(upwards())  # noqa: TID251 -- ended below
        while data := await there.read(65_536):
            said.append(data)
            writer.write(data)
        await over.wait()
        up.cancel()
        for each in (writer, to_server):
            each.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    behind = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    dsn = database.dsn("erasure-executor").replace(f"{place.hostname}:{place.port}", behind)
    slow = await Database.open(settings(dsn, pool_connections_max=1), "erasure_executor", FakeClock(NOON))
    try:
        (pid,) = (await slow.read("pid", "SELECT pg_backend_pid()"))[0]
        admin = await asyncpg.connect(database.admin_dsn)
        assert await admin.fetchval("SELECT pg_terminate_backend($1)", pid)
        await admin.close()
        await until(lambda: b"57P01" in b"".join(said), "the server's goodbye")
        with pytest.raises(TRANSIENT):
            await slow.read("after", "SELECT 1")
    finally:
        over.set()
        slow.pool.terminate()
        server.close()
