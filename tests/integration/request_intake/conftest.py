"""request-intake's desk at a database of its own."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import pytest_asyncio

from habeas.chassis.batch import Batch
from habeas.chassis.clock import FakeClock
from habeas.chassis.database import Database
from habeas.chassis.ids import uuid7
from habeas.chassis.message import Message
from habeas.contracts import topics
from habeas.contracts.platform import RequestSubmitted
from habeas.contracts.vocabulary import Right
from habeas.datamap.policy import load_policy
from habeas.sealing import Fingerprinter, KeyKind, KeyStore, Place, open_text
from habeas.sealing.kek import KeyRing, new_key_ring
from habeas_demo.generator import PLATFORM_DIR
from habeas_embedded.provision import Access
from request_intake import handlers
from request_intake.handlers import Desk
from tests.support.databases import opened

NOW: Final = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)


@dataclass
class Counter:
    """request-intake at its database, the executor's right to destroy keys, and whoever may do everything."""

    db: Database
    executor: Database
    desk: Desk
    owner: "asyncpg.Connection[asyncpg.Record]"

    async def submit(self, account_id: str) -> UUID:
        """Take a submission; gives the subject that it was taken for."""
        request_id = uuid7(self.desk.clock)
        event = RequestSubmitted(
            request_id=request_id, right=Right.ACCESS, account_id=account_id, received_at=NOW, channel="web"
        )
        message = Message(1, request_id, topics.DSR_REQUESTS, event.type, b"k", None, NOW, 0, event.encode(), event)
        async with self.db.transaction("test-submit") as tx:
            await handlers.on_request_submitted(Batch([message], {}), tx, self.desk)
        rows = await self.db.read(
            "test-look", "SELECT subject_id, account FROM request_intake.requests WHERE request_id = $1", request_id
        )
        subject: UUID = rows[0]["subject_id"]
        async with self.db.transaction("test-open") as tx:
            keys = await self.desk.keys.read(tx, [subject], KeyKind.DATA)
        place = Place("request", request_id, "account")
        assert open_text(keys[UUID(bytes=subject.bytes)], place, rows[0]["account"]) == account_id
        return subject

    async def destroy(self, subject_id: UUID) -> None:
        """Do what ends an erasure; nobody has told request-intake of it yet."""
        async with self.executor.transaction("test-destroy") as tx:
            await self.desk.keys.destroy(tx, [subject_id], KeyKind.DATA)

    async def keyed(self, subject_id: UUID) -> set[KeyKind]:
        """Say which keys the subject has."""
        async with self.db.transaction("test-keys") as tx:
            return {kind for kind in KeyKind if await self.desk.keys.read(tx, [subject_id], kind)}


@pytest_asyncio.fixture
async def counter(database: Access) -> AsyncIterator[Counter]:
    """Both services' own roles on a migrated database of this test alone."""
    clock = FakeClock(NOW)
    ring = KeyRing(new_key_ring())
    own = await opened(database, "request-intake", clock)
    executor = await opened(database, "erasure-executor", clock)
    policy = load_policy(PLATFORM_DIR / "policy.yaml")
    desk = Desk(policy, KeyStore(ring, clock.now), Fingerprinter(ring), clock, timedelta(seconds=300))
    owner = await asyncpg.connect(database.admin_dsn)
    yield Counter(own, executor, desk, owner)
    await owner.close()
    await own.close()
    await executor.close()
