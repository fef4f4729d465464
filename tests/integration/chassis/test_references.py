"""Events of a time that the database has forgotten: whatever they refer to, they are handled or parked, and never tried again."""

import json
import random
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest

from habeas.chassis.clock import SystemClock
from habeas.chassis.consumer import Consumer
from habeas.chassis.database import Database
from habeas.chassis.ids import uuid7
from habeas.chassis.lanes import Lanes
from habeas.chassis.worker import Worker
from habeas.contracts.catalogue import BY_TYPE
from habeas.contracts.model import Event
from habeas.contracts.platform import RequestSubmitted
from habeas.contracts.vocabulary import MailKind, ParkReason, Right
from habeas_embedded.provision import Access
from tests.architecture.repository import ROOT, SERVICES
from tests.support.built import build
from tests.support.delivery import PROTECTOR, drain, record_of, settings

RECORDED: Final = ROOT / "tests" / "contracts" / "recorded"
ROUNDS: Final = 25
EVENTS: Final = 20
STATES: Final = ("received", "awaiting_identity", "awaiting_decision", "in_progress", "answering", "completed")
REASONS: Final = {None, ParkReason.UNKNOWN_REFERENCE, ParkReason.ID_CONFLICT}
CHOICES: Final[dict[str, list[str]]] = {
    "right": [right.value for right in Right],
    "kind": [MailKind.ACKNOWLEDGEMENT, MailKind.OUTCOME],
}


class Sender:
    """Makes events of the types that a service handles, about a few ids that come again and again and others that nobody knows."""

    def __init__(self, kinds: list[str], seed: int) -> None:
        self.clock = SystemClock()
        self.chance = random.Random(seed)  # noqa: S311 -- nothing secret
        self.kinds = sorted(kinds)
        self.ids: dict[str, list[str]] = {}

    def event(self) -> Event:
        """Return one event, as one of its type was recorded but for what it refers to."""
        kind = self.chance.choice(self.kinds)
        value: dict[str, Any] = json.loads((RECORDED / f"{kind}.v1.json").read_text())["value"]
        altered = {name: self._altered(name, given) for name, given in value.items()}
        return BY_TYPE[kind].decode(json.dumps(altered).encode())

    def _altered(self, name: str, given: object) -> object:
        if name in CHOICES:
            return self.chance.choice(CHOICES[name])
        if not (name.endswith("_id") and isinstance(given, str) and _is_uuid(given)):
            return given
        return self.chance.choice([*self.known(name), str(uuid7(self.clock))])

    def known(self, name: str) -> list[str]:
        """Return the ids of a kind that come again and again."""
        return self.ids.setdefault(name, [str(uuid7(self.clock)) for _ in range(3)])


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "audit-ledger"])
async def test_no_event_is_tried_again_for_what_it_refers_to(
    name: str, database: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every handler of every service, in any order, with ids that are known, known of somebody else, or nobody's."""
    service = build(name, tmp_path, monkeypatch)
    chosen = settings(database.dsn(name), parked_in_a_row_max=100_000)
    sender = Sender(
        [kind for kind in service.handlers if kind != RequestSubmitted.type], seed=7
    )  # that one refers to nothing
    db = await Database.open(chosen, service.schema, sender.clock)
    owner = await asyncpg.connect(database.admin_dsn)
    try:
        if name == "request-intake":
            await _know(owner, sender)
        lanes = Lanes(db, uuid7(sender.clock), 0, 600.0)
        await lanes.balance()
        worker = Worker(db, lanes, service.handlers, service.topics, PROTECTOR, chosen)
        consumer = Consumer(name, service.topics, frozenset(service.handlers), db, PROTECTOR, chosen)
        for _ in range(ROUNDS):
            records = [record_of(event, at=sender.clock.now()) for event in (sender.event() for _ in range(EVENTS))]
            assert await consumer._take(records, service.stopping)
            await drain(worker)
            left = await owner.fetch(f"SELECT type, state, reason, field, attempts FROM {service.schema}.inbox")
            assert [dict(row) for row in left if row["attempts"] or row["reason"] not in REASONS] == []
            await owner.execute(f"DELETE FROM {service.schema}.inbox")  # keys that are held back would hide others
            if name == "request-intake":
                await _move(owner, sender)
    finally:
        await owner.close()
        await db.close()


async def _know(owner: "asyncpg.Connection[asyncpg.Record]", sender: Sender) -> None:
    """Let request-intake know some people, and a request of each."""
    for at, (request_id, subject_id) in enumerate(
        zip(sender.known("request_id"), sender.known("subject_id"), strict=True)
    ):
        await owner.execute(
            "INSERT INTO request_intake.subjects (subject_id, account_fingerprint, created_at) VALUES ($1, $2, now())",
            subject_id,
            bytes([at]) * 32,
        )
        await owner.execute(
            "INSERT INTO request_intake.requests (request_id, subject_id, dsr_right, state, regime, law_version, channel, received_at,"
            " due_on, legal_limit_on, is_verified, account, subject_ref, submission_digest)"
            " VALUES ($1, $2, 'erasure', 'received', 'gdpr', '2016-679', 'web', now(), now(), now(), true, '', '', $3)",
            request_id,
            subject_id,
            bytes(32),
        )


async def _move(owner: "asyncpg.Connection[asyncpg.Record]", sender: Sender) -> None:
    """Let requests be wherever they can be."""
    for row in await owner.fetch("SELECT request_id FROM request_intake.requests ORDER BY request_id"):
        state = sender.chance.choice(STATES)
        await owner.execute("UPDATE request_intake.requests SET state = $2 WHERE request_id = $1", *row, state)
