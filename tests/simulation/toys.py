"""Two toy services in three hops: counting up, hearing of it, hearing that it was heard.

``request-intake`` counts its toys up to what is wanted of them and says each number; ``erasure-executor`` writes each number down and
says so; ``request-intake`` writes that down. Handlers can be told to fail on single messages.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from asyncpg import LockNotAvailableError

from habeas.chassis.batch import Batch
from habeas.chassis.database import Database, Transaction
from habeas.chassis.errors import Poison, Retry
from habeas.chassis.outbox import lane_of
from habeas.chassis.worker import Handler
from habeas.contracts import topics
from habeas.contracts.audit import Action, AuditFact
from habeas.contracts.erasure_executor import ErasureStuck
from habeas.contracts.model import Event
from habeas.contracts.request_intake import RequestExtended
from habeas.contracts.vocabulary import ParkReason, StuckReason
from tests.simulation.cast import Part, Role
from tests.support.delivery import NOON, PROTECTOR, extended, number_of

if TYPE_CHECKING:
    from tests.simulation.schedule import Schedule
    from tests.simulation.world import World

FIRST: Final = "request-intake"
SECOND: Final = "erasure-executor"

MAKE_TOYS: Final = """
    CREATE TABLE request_intake.toys (
        toy_id uuid PRIMARY KEY, number integer NOT NULL DEFAULT 0, wanted integer NOT NULL DEFAULT 0);
    GRANT ALL ON request_intake.toys TO request_intake;
"""

ADD_TOY: Final = """
    INSERT INTO request_intake.toys (toy_id, wanted) VALUES ($1, 1) ON CONFLICT (toy_id) DO UPDATE SET wanted = toys.wanted + 1
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


class Toys:
    """The cast of the toys: what is wanted of them, and on which messages they fail."""

    hears: Final = {FIRST: (topics.ERASURES,), SECOND: (topics.REQUESTS,)}
    topics: Final = (topics.REQUESTS, topics.ERASURES)
    flow: Final = (
        ("sweep", FIRST),
        ("relay", FIRST),
        ("consumer", SECOND),
        ("consumer", SECOND),
        ("worker", SECOND),
        ("relay", SECOND),
        ("consumer", FIRST),
        ("consumer", FIRST),
        ("worker", FIRST),
        ("relay", FIRST),
    )
    protection: Final = PROTECTOR
    trouble: Final = ()
    calm_s: Final = 0.0
    wanted: Final = {FIRST: "(SELECT count(*) FROM request_intake.toys WHERE number < wanted)", SECOND: "0"}

    def __init__(self, schedule: "Schedule", rng: random.Random) -> None:
        self.keys = [UUID(int=rng.getrandbits(128), version=4) for _ in range(schedule.keys)]
        self.submitted = dict.fromkeys(self.keys, 0)
        self.plan = Plan()
        for _ in range(schedule.faults):
            place = (rng.choice((FIRST, SECOND)), rng.choice(self.keys), rng.randint(1, 3))
            self.plan.faults.setdefault(place, []).append(rng.choice(list(Fault)))

    def play(self, part: Part) -> Role:
        """Give a toy's handlers, and the first one its sweep."""
        by_event = handlers(part.service, part.holder, self.plan)
        sweeps = {"sweep": lambda: count_toys(part.database)} if part.service == FIRST else {}
        return Role({event.type: handler for event, handler in by_event.items()}, sweeps)

    async def submit(self, world: "World", rng: random.Random) -> None:
        """Want one more of a toy."""
        key = rng.choice(self.keys)
        try:
            await world.ground.admin.execute(ADD_TOY, key)
        except LockNotAvailableError:  # whoever counts it up stands still; nobody submitted anything
            return
        self.submitted[key] += 1
