"""A connection pooler before the database: refused at once where sessions are not one's own, with the reason and what works."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
from click.testing import CliRunner
from typing_extensions import override

from habeas.chassis import log, migrations
from habeas.chassis.clock import SystemClock
from habeas.chassis.connection import SessionShared, require_own_session
from habeas.chassis.database import Database, _options
from habeas.chassis.health import Health
from habeas.chassis.service import Service
from habeas.cli.main import habeas
from habeas.datamap.errors import StoreUnavailable, Unavailability
from habeas.datamap.postgres import PostgresStore
from habeas_embedded.provision import Access
from tests.support.delivery import PROTECTOR, settings
from tests.support.pgbouncer import IGNORED, pgbouncer
from tests.support.shop import SCHEMA, read_map

SERVICE = "request-intake"
SCHEMA_NAME = "request_intake"
WORKS = "write host and port of PostgreSQL itself, or of a pooler that has pool_mode=session"


async def opened(dsn: str) -> None:
    """Open a service's database and look at it."""
    database = await Database.open(settings(dsn), SCHEMA_NAME, SystemClock())
    try:
        assert await database.ping()
    finally:
        await database.close()


async def keep_settings(access: Access) -> None:
    """Give the role itself the settings that a pooler ignores, as an administrator may."""
    owner = await asyncpg.connect(access.admin_dsn)
    try:
        for name, value in _options(settings(access.dsn(SERVICE)), SCHEMA_NAME)["server_settings"].items():
            if name != "application_name":
                await owner.execute(
                    f"ALTER ROLE {SCHEMA_NAME} IN DATABASE \"{access.database}\" SET {name} = '{value}'"
                )
    finally:
        await owner.close()


@pytest.mark.parametrize(
    ("mode", "ignored"), [("transaction", ()), ("transaction", IGNORED), ("session", IGNORED), ("statement", ())]
)
async def test_settings_that_do_not_reach_the_server_are_refused(
    database: Access, tmp_path: Path, mode: str, ignored: Sequence[str]
) -> None:
    """Whether a pooler refuses the settings of a session or swallows them: nothing begins, and it is said what works."""
    dsn = database.dsn(SERVICE)
    async with pgbouncer(tmp_path, [dsn], mode, ignored) as ways:
        with pytest.raises(SessionShared, match=WORKS):
            await opened(ways[dsn])


async def test_backends_lent_for_a_transaction_are_refused(database: Access, tmp_path: Path) -> None:
    """Also where role and pooler keep every setting, a backend that others get between two transactions is no session."""
    await keep_settings(database)
    dsn = database.dsn(SERVICE)
    async with pgbouncer(tmp_path, [dsn], "transaction", IGNORED) as ways:
        for _ in range(3):  # with backends that earlier clients left, too
            with pytest.raises(SessionShared, match=WORKS):
                await opened(ways[dsn])


async def test_sessions_of_ones_own_are_taken(database: Access, tmp_path: Path) -> None:
    """What the refusal recommends works: a pooler with pool_mode=session and the settings kept, and PostgreSQL itself."""
    await keep_settings(database)
    dsn = database.dsn(SERVICE)
    async with pgbouncer(tmp_path, [dsn], "session", IGNORED) as ways:
        await opened(ways[dsn])
    await opened(dsn)


async def test_service_ends_at_once_and_says_why(
    database: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends as for any wrong configuration, with variable, place, reason and what works in its log."""
    lines: list[bytes] = []
    monkeypatch.setattr(log._log, "write", lines.append)
    dsn = database.dsn(SERVICE)
    async with pgbouncer(tmp_path, [dsn], "transaction") as ways:
        service = Service(SERVICE, settings(ways[dsn]), protection=PROTECTOR)
        async with asyncio.timeout(60):
            assert await service._run(Health()) == 2
    (told,) = (line for line in map(json.loads, lines) if line["event"] == "service.refused")
    assert told["why"].startswith("REQUEST_INTAKE_DATABASE_DSN (or HABEAS_DATABASE_DSN): PostgreSQL at 127.0.0.1:")
    assert WORKS in told["why"]


async def test_database_behind_the_pooler_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """A pooler that only cannot reach its server is no wrong configuration: it is tried again."""
    dsn = "postgresql://request_intake:x@127.0.0.1:1/habeas"
    async with pgbouncer(tmp_path, [dsn], "session", IGNORED) as ways:
        with pytest.raises((OSError, asyncpg.PostgresError)) as caught:
            await opened(ways[dsn])
    assert not isinstance(caught.value, SessionShared)


async def test_stores_commands_and_migrations_refuse_it_too(empty_database: str, tmp_path: Path) -> None:
    """Over a pooler no person is erased, since row-level rules could hide rows; no command looks, and nothing is migrated."""
    owner = await asyncpg.connect(empty_database)
    await owner.execute(SCHEMA)
    await owner.close()
    store_map, policy = read_map(tmp_path)
    for ignored in ((), IGNORED):
        async with pgbouncer(tmp_path, [empty_database], "transaction", ignored) as ways:
            way = ways[empty_database]
            async with PostgresStore(store_map, policy, way) as store:
                with pytest.raises(StoreUnavailable, match="SHOP_DSN: PostgreSQL at .*" + WORKS) as caught:
                    await store.check()
            assert caught.value.reason is Unavailability.MISCONFIGURED
            result = await asyncio.to_thread(CliRunner().invoke, habeas, ["status", "--dsn", way])
            assert (result.exit_code, WORKS in result.output) == (1, True), result.output
            with pytest.raises(SessionShared, match=WORKS):
                await migrations.migrate(way, "sealing", [])


async def test_lending_is_seen_whichever_backend_is_lent() -> None:
    """A stand-in that lends by turns, last in first out, or one backend in all is found out; a session of one's own is not."""
    for name, lend in {"turns": _Turns(), "last": _Last(), "one": _One()}.items():
        with pytest.raises(SessionShared):
            await require_own_session(lend.session("a"), {}, _give(lend.session("b")))
        assert name
    own = _Own()
    await require_own_session(own.session("a"), {}, _give(own.session("b")))


class _Lender:
    """Lends backends to sessions, one for each transaction."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}

    def lend(self, name: str) -> int:
        """The backend for a transaction of this session."""
        raise NotImplementedError

    def session(self, name: str) -> Any:  # noqa: ANN401 -- as much of a connection as is asked
        """A connection of asyncpg that a pooler answers."""
        return _Pooled(self, name)


class _Turns(_Lender):
    count = 0

    @override
    def lend(self, name: str) -> int:
        self.count += 1
        return self.count % 5 + 1


class _Last(_Lender):
    @override
    def lend(self, name: str) -> int:
        return min({1, 2, 3} - {backend for holder, backend in self.held.items() if holder != name})


class _One(_Lender):
    @override
    def lend(self, name: str) -> int:
        if any(holder != name for holder in self.held):
            message = "it would wait for the only backend"
            raise AssertionError(message)
        return 1


class _Own(_Lender):
    @override
    def lend(self, name: str) -> int:
        return {"a": 1, "b": 2}[name]


class _Pooled:
    def __init__(self, lender: _Lender, name: str) -> None:
        self._lender = lender
        self._name = name

    def get_server_pid(self) -> int:
        return 4_711

    async def fetchval(self, _: str) -> int:
        held = self._lender.held
        return held[self._name] if self._name in held else self._lender.lend(self._name)

    async def fetchrow(self, query: str, *_: object) -> Any:  # noqa: ANN401 -- one row
        return {"backend": await self.fetchval(query), "held": []}

    def transaction(self) -> "_Pooled":
        return self

    async def __aenter__(self) -> None:
        self._lender.held[self._name] = self._lender.lend(self._name)

    async def __aexit__(self, *_: object) -> None:
        del self._lender.held[self._name]

    def terminate(self) -> None:
        pass


def _give(session: Any) -> Any:  # noqa: ANN401 -- a stand-in for a connection
    async def connect() -> Any:  # noqa: ANN401 -- as above
        return session

    return cast("Any", connect)
