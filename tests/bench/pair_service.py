"""One half of the pair for B9 and B10: ``python -m tests.bench.pair_service first|second``.

Both are real services of the chassis under real names, in a database of their own: each stores what it gets, writes one effect row per
event, and the first passes an event on to the second.
"""

import sys
from typing import ClassVar

from habeas.chassis.batch import Batch
from habeas.chassis.database import Transaction
from habeas.chassis.process import main
from habeas.chassis.service import Service
from habeas.chassis.settings import ServiceSettings
from habeas.contracts.erasure_executor import ErasureCompleted
from habeas.contracts.request_intake import RequestCompleted
from habeas.contracts.vocabulary import Outcome, Right

ADD_EFFECTS = """
    INSERT INTO effects (request_id, number) SELECT n.request_id, n.number
      FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS n (request_id, number, position) ORDER BY n.position
"""


class FirstSettings(ServiceSettings):
    """Settings of the first service."""

    service: ClassVar[str] = "request-intake"


class SecondSettings(ServiceSettings):
    """Settings of the second service."""

    service: ClassVar[str] = "retention-sweeper"


class _Unprotected:
    """Nothing here is sensitive; the pair's topics carry numbers."""

    def seal(self, value: bytes, aad: bytes) -> bytes:
        return value

    def open(self, value: bytes, aad: bytes) -> bytes:
        return value

    def fingerprint(self, value: bytes) -> bytes:
        return value


async def on_erasure_completed(batch: Batch[ErasureCompleted], tx: Transaction) -> None:
    """Write an effect and pass the number on; it travels as microseconds of a time."""
    events = list(batch)
    await tx.execute(ADD_EFFECTS, [each.request_id for each in events], [each.erased_at.microsecond for each in events])
    for each in batch:
        tx.emit(
            RequestCompleted(
                request_id=each.request_id,
                subject_id=each.subject_id,
                right=Right.ERASURE,
                outcome=Outcome.DONE,
                categories=(),
                completed_at=each.erased_at,
            )
        )


async def on_request_completed(batch: Batch[RequestCompleted], tx: Transaction) -> None:
    """Write an effect."""
    events = list(batch)
    await tx.execute(
        ADD_EFFECTS, [each.request_id for each in events], [each.completed_at.microsecond for each in events]
    )


def first(settings: FirstSettings) -> Service:
    """Build the service that passes events on."""
    service = Service("request-intake", settings.chassis, protection=_Unprotected())
    service.on(ErasureCompleted, on_erasure_completed)
    return service


def second(settings: SecondSettings) -> Service:
    """Build the service in which events end."""
    service = Service("retention-sweeper", settings.chassis, protection=_Unprotected())
    service.on(RequestCompleted, on_request_completed)
    return service


if __name__ == "__main__":
    if sys.argv[1] == "first":
        main(FirstSettings.load, first)
    main(SecondSettings.load, second)
