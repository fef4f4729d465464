"""request-intake's desk at a database of its own."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest_asyncio

from habeas.chassis.batch import Batch
from habeas.chassis.clock import FakeClock
from habeas.chassis.database import Database
from habeas.chassis.ids import uuid7
from habeas.chassis.message import Defect, Message
from habeas.contracts import topics
from habeas.contracts.platform import RequestSubmitted
from habeas.contracts.vocabulary import Right
from habeas.datamap.errors import StoreError
from habeas.datamap.policy.model import load_policy
from habeas.datamap.postgres import canonical
from habeas.kit import Issuer, attest
from habeas.sealing import Fingerprinter, KeyKind, KeyStore, Place, open_text
from habeas.sealing.kek import KeyRing, new_key_ring
from habeas_demo.generator import PLATFORM_DIR
from habeas_demo.scenario import new_issuer, policy_with_issuer
from habeas_embedded.provision import Access
from request_intake import handlers
from request_intake.gateways import Spelling
from request_intake.handlers import Desk
from tests.support.databases import opened

NOW: Final = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
LOOK: Final = "SELECT * FROM request_intake.requests WHERE request_id = $1"


class Spelled:
    """How a platform spells account ids: by the type of its identity column, as if a store had told it."""

    def __init__(self, kind: str = "text") -> None:
        """Name the type, as the database does; a test may change it."""
        self.kind = kind
        self.failure: StoreError | None = None

    async def spelling(self) -> Spelling:
        """Give the rule, or fail as a store would."""
        if self.failure is not None:
            raise self.failure
        return partial(canonical, kind=self.kind)


@dataclass(frozen=True)
class Taken:
    """What a submission came to: the request's row, or why the message was parked."""

    request: Mapping[str, Any]
    defects: tuple[Defect, ...] = ()


@dataclass
class Counter:
    """request-intake at its database, the executor's right to destroy keys, and whoever may do everything."""

    db: Database
    executor: Database
    desk: Desk
    owner: "asyncpg.Connection[asyncpg.Record]"
    identities: Spelled
    issuer: Issuer

    def body(self, **parts: Any) -> dict[str, Any]:
        """Give a submission, attested as the kit attests it; ``attestation`` None leaves that out, a mapping changes parts of it."""
        vouched = parts.pop("attestation", {})
        times = {"received_at": NOW.isoformat(), "authenticated_at": NOW.isoformat()} | {
            name: parts.pop(name).isoformat() for name in ("received_at", "authenticated_at") if name in parts
        }
        message: dict[str, Any] = {
            "request_id": str(uuid7(self.desk.clock)),
            "right": "erasure",
            "account_id": "acc_1",
            "received_at": times["received_at"],
            "channel": "web",
            "country": "DE",
            "details": {"right": "erasure", "ground": "consent_withdrawn"},
            **parts,
        }
        if vouched is None:
            return message
        head = {"issuer": self.issuer.name, "key_id": self.issuer.key_id, "authenticated_at": times["authenticated_at"]}
        message["attestation"] = {"method": "session", "acr": "mfa", **head, **vouched}
        return attest(message, self.issuer.private_key)

    async def take(self, *bodies: Mapping[str, Any]) -> Taken:
        """Take submissions as one batch; gives the row of the first one's request, and what was parked."""
        messages = []
        for number, body in enumerate(bodies):
            value = json.dumps(body).encode()
            event = RequestSubmitted.decode(value)
            messages.append(
                Message(
                    number, uuid7(self.desk.clock), topics.DSR_REQUESTS, event.type, b"k", None, NOW, 0, value, event
                )
            )
        batch: Batch[RequestSubmitted] = Batch(messages, {})
        async with self.db.transaction("test-take") as tx:
            await handlers.on_request_submitted(batch, tx, self.desk)
        rows = await self.db.read("test-look", LOOK, UUID(bodies[0]["request_id"]))
        return Taken(dict(rows[0]) if rows else {}, tuple(batch.rejected.values()))

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
async def counter(database: Access, tmp_path: Path) -> AsyncIterator[Counter]:
    """Both services' own roles on a migrated database of this test alone."""
    clock = FakeClock(NOW)
    ring = KeyRing(new_key_ring())
    own = await opened(database, "request-intake", clock)
    executor = await opened(database, "erasure-executor", clock)
    issuer, identities = new_issuer("accounts-tests"), Spelled()
    policy_file = tmp_path / "policy.yaml"
    text = (PLATFORM_DIR / "policy.yaml").read_text(encoding="utf-8")
    policy_file.write_text(policy_with_issuer(text, issuer), encoding="utf-8")
    policy = load_policy(policy_file)
    tolerance = timedelta(seconds=300)
    desk = Desk(policy, KeyStore(ring, clock.now), Fingerprinter(ring), identities, clock, tolerance)
    owner = await asyncpg.connect(database.admin_dsn)
    yield Counter(own, executor, desk, owner, identities, issuer)
    await owner.close()
    await own.close()
    await executor.close()
