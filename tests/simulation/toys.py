"""Two toy services in three hops: counting up, hearing of it, hearing that it was heard.

``request-intake`` counts its toys up to what is wanted of them and says each number; ``erasure-executor`` writes each number down and
says so; ``request-intake`` writes that down. Handlers can be told to fail on single messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from habeas.chassis.batch import Batch
from habeas.chassis.database import Database, Transaction
from habeas.chassis.errors import Poison, Retry
from habeas.chassis.outbox import lane_of
from habeas.chassis.worker import Handler
from habeas.contracts.audit import Action, AuditFact
from habeas.contracts.erasure_executor import ErasureStuck
from habeas.contracts.model import Event
from habeas.contracts.request_intake import RequestExtended
from habeas.contracts.vocabulary import ParkReason, StuckReason
from tests.support.delivery import NOON, extended, number_of

FIRST: Final = "request-intake"
SECOND: Final = "erasure-executor"

MAKE_TOYS: Final = """
    CREATE TABLE request_intake.toys (
        toy_id uuid PRIMARY KEY, number integer NOT NULL DEFAULT 0, wanted integer NOT NULL DEFAULT 0);
    GRANT ALL ON request_intake.toys TO request_intake;
"""

COUNT_UP: Final = """
    UPDATE toys SET number = number + 1
     WHERE toy_id IN (SELECT toy_id FROM toys WHERE number < wanted ORDER BY toy_id LIMIT 2 FOR UPDATE SKIP LOCKED)
    RETURNING toy_id, number
"""

ADD_EFFECTS: Final = """
    INSERT INTO effects (key, number, holder, lane) SELECT n.key, n.number, $3, n.lane
      FROM unnest($1::uuid[], $2::integer[], $4::smallint[]) WITH ORDINALITY AS n (key, number, lane, position) ORDER BY n.position
"""


class Fault(StrEnum):
    """How a handler fails on one message, the first time it sees it."""

    RETRY = "retry"
    POISON = "poison"
    REJECT = "reject"
    ERROR = "error"


@dataclass
class Plan:
    """Which messages handlers fail on; each fault happens once, and stays undone when the transaction is."""

    faults: dict[tuple[str, UUID, int], list[Fault]] = field(default_factory=dict)

    def next(self, service: str, key: UUID, number: int) -> Fault | None:
        """Take the next fault of a message."""
        left = self.faults.get((service, key, number))
        return left.pop(0) if left else None


async def count_toys(db: Database) -> int:
    """Count some toys up by one, each with its event and its entry."""
    async with db.transaction("count-toys") as tx:
        rows = await tx.fetch(COUNT_UP)
        tx.emit(*[extended(row["toy_id"], row["number"]) for row in rows])
        tx.record(*[AuditFact(Action.REQUEST_ACCEPTED, request=row["toy_id"], count=row["number"]) for row in rows])
    return len(rows)


def heard(key: UUID, number: int) -> ErasureStuck:
    """The answer of the second service; the number is hidden in its time."""
    at = NOON + timedelta(days=number)
    return ErasureStuck(
        request_id=key, subject_id=key, reason=StuckReason.STORE_UNAVAILABLE, store=None, table=None, stuck_at=at
    )


def handlers(service: str, holder: UUID, plan: Plan) -> Mapping[type[Event], Handler]:
    """The handlers of a service's replica, which signs what it does with its holder's id."""

    async def write_down(batch: Batch[Any], tx: Transaction) -> None:
        keys, numbers = [], []
        for event in batch:
            number = number_of(event) if isinstance(event, RequestExtended) else (event.stuck_at - NOON).days
            fault = plan.next(service, event.request_id, number)
            if fault is Fault.REJECT:
                batch.reject(ParkReason.WRONG_VALUE, "number")
                continue
            _fail(fault)
            keys.append(event.request_id)
            numbers.append(number)
            if isinstance(event, RequestExtended):
                tx.emit(heard(event.request_id, number))
            tx.record(AuditFact(Action.ERASURE_STUCK, request=event.request_id, count=number))
        lanes = [lane_of(str(key).encode()) for key in keys]
        await tx.execute(ADD_EFFECTS, keys, numbers, holder, lanes)

    return {RequestExtended: write_down} if service == SECOND else {ErasureStuck: write_down}


def _fail(fault: Fault | None) -> None:
    if fault is Fault.RETRY:
        raise Retry("busy")
    if fault is Fault.POISON:
        raise Poison(ParkReason.WRONG_VALUE, "number")
    if fault is Fault.ERROR:
        raise RuntimeError("a handler that breaks")
