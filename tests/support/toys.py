"""Two toy services: ``python -m tests.support.toys request-intake|erasure-executor``.

Both are services of the chassis under real names, in their real schemas. The first counts toys up to what is wanted of them and says so;
the second writes down what it hears. The first also takes submissions, which are sensitive, and forgets them.
"""

import sys
from typing import Any, ClassVar, Final

from habeas.chassis.batch import Batch
from habeas.chassis.database import Database, Transaction
from habeas.chassis.process import main
from habeas.chassis.service import Service
from habeas.chassis.settings import ServiceSettings
from habeas.chassis.sweep import Swept
from habeas.contracts.platform import RequestSubmitted
from habeas.contracts.request_intake import RequestExtended
from habeas.sealing import Protector
from habeas.sealing.settings import SealingSettings
from tests.support.delivery import extended, number_of

MAKE_TOYS: Final = """
    CREATE TABLE request_intake.toys (
        toy_id uuid PRIMARY KEY, number integer NOT NULL DEFAULT 0, wanted integer NOT NULL DEFAULT 0);
    CREATE TABLE erasure_executor.effects (
        position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, request_id uuid NOT NULL, number integer NOT NULL);
"""

COUNT_UP: Final = """
    UPDATE toys SET number = number + 1
     WHERE toy_id IN (SELECT toy_id FROM toys WHERE number < wanted ORDER BY toy_id LIMIT 20 FOR UPDATE SKIP LOCKED)
    RETURNING toy_id, number
"""

ADD_EFFECTS: Final = """
    INSERT INTO effects (request_id, number) SELECT n.request_id, n.number
      FROM unnest($1::uuid[], $2::integer[]) WITH ORDINALITY AS n (request_id, number, position) ORDER BY n.position
"""


class IntakeSettings(ServiceSettings):
    """Settings of the service that counts."""

    service: ClassVar[str] = "request-intake"
    sealing: SealingSettings


class ExecutorSettings(ServiceSettings):
    """Settings of the service that listens."""

    service: ClassVar[str] = "erasure-executor"
    sealing: SealingSettings


async def count_toys(db: Database) -> Swept:
    """Count some toys up by one, each with its event."""
    async with db.transaction("count-toys") as tx:
        rows = await tx.fetch(COUNT_UP)
        tx.emit(*[extended(row["toy_id"], row["number"]) for row in rows])
    return Swept(len(rows), more=bool(rows))


async def on_request_extended(batch: Batch[RequestExtended], tx: Transaction) -> None:
    """Write down what was heard, in order."""
    events = list(batch)
    await tx.execute(ADD_EFFECTS, [event.request_id for event in events], [number_of(event) for event in events])


async def on_request_submitted(batch: Batch[Any], tx: Transaction) -> None:
    """Forget it."""


def intake(settings: IntakeSettings) -> Service:
    """Build the service that counts."""
    service = Service("request-intake", settings.chassis, protection=Protector(settings.sealing.open()))
    service.on(RequestSubmitted, on_request_submitted)
    service.every(0.05, count_toys)
    return service


def executor(settings: ExecutorSettings) -> Service:
    """Build the service that listens."""
    service = Service("erasure-executor", settings.chassis, protection=Protector(settings.sealing.open()))
    service.on(RequestExtended, on_request_extended)
    return service


if __name__ == "__main__":
    if sys.argv[1] == "request-intake":
        main(IntakeSettings.load, intake)
    main(ExecutorSettings.load, executor)
