"""Troubles: what a service cannot do at Kafka and what it keeps in its schema about it, for `habeas status`, metrics and other replicas.

Something that Kafka refuses does not mend itself, unlike a broker that is away: an operator has to give a right or change a topic.
"""

from collections.abc import Collection
from datetime import timedelta
from enum import StrEnum
from typing import Final

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
)

from habeas.chassis import log, metrics, store
from habeas.chassis.database import TRANSIENT, Database
from habeas.chassis.redaction import named

KEPT: Final = timedelta(minutes=5)
"""For how long a trouble that nobody writes again counts; writers repeat themselves within a minute."""

REST_S_MAX: Final = 30.0
"""The longest time between two tries at what Kafka refuses."""


class Work(StrEnum):
    """What cannot be done."""

    PUBLISH = "publish"
    TRIM = "trim"


class Reason(StrEnum):
    """Why Kafka does not do it."""

    NOT_ALLOWED = "not_allowed"
    TOO_LARGE = "too_large"
    REFUSED = "refused"
    FAILING = "failing"


_REASONS: Final[tuple[tuple[type[KafkaError], Reason], ...]] = (
    (TopicAuthorizationFailedError, Reason.NOT_ALLOWED),
    (ClusterAuthorizationFailedError, Reason.NOT_ALLOWED),
    (MessageSizeTooLargeError, Reason.TOO_LARGE),
    (RecordListTooLargeError, Reason.TOO_LARGE),
    (PolicyViolationError, Reason.REFUSED),
    (InvalidTopicError, Reason.REFUSED),
)


def refusal(error: BaseException) -> Reason | None:
    """Return why a topic refuses something; None for an error that is not about the topic, or that may pass by itself."""
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), None)


class Troubles:
    """What one kind of work of a service cannot do now. Others may keep the same: replicas have the same rights."""

    def __init__(self, database: Database, work: Work) -> None:
        self._database = database
        self._work = work
        self._noted: set[str] = set()

    async def note(self, topic: str, reason: Reason, size_bytes: int | None = None) -> None:
        """Keep that it fails. While the database is away nothing is kept: the next failure comes."""
        self._noted.add(topic)
        now = self._database.clock.now()
        log.event(
            "topic.refuses",
            severity=log.LogLevel.WARNING,
            work=self._work,
            topic=named(topic),
            reason=reason,
            bytes=size_bytes,
        )
        try:
            await self._database.change(
                "trouble-note", store.NOTE_TROUBLE, self._work.value, topic, reason.value, size_bytes, now, now - KEPT
            )
        except TRANSIENT as error:
            log.event("topic.trouble_not_kept", error=error)

    async def over(self, topics: Collection[str]) -> None:
        """Keep that it succeeds for these topics; costs nothing where it has not failed."""
        ended = sorted(self._noted.intersection(topics))
        if not ended:
            return
        try:
            await self._database.change("trouble-over", store.END_TROUBLES, self._work.value, ended)
        except TRANSIENT as error:
            log.event("topic.trouble_not_kept", error=error)
        else:
            self._noted.difference_update(ended)


async def forget(database: Database) -> None:
    """Forget what a process before this one kept, as it starts; other replicas' troubles come again. Raises what the database raises."""
    await database.change("troubles-forget", store.FORGET_TROUBLES)


async def show(database: Database) -> None:
    """Show the troubles of the service, whichever replica has them. Raises what the database raises."""
    now = database.clock.now()
    rows = await database.read("measure-troubles", store.FIND_TROUBLES, now - KEPT)
    for work, gauge in ((Work.PUBLISH, metrics.KAFKA_REFUSED_AGE_S), (Work.TRIM, metrics.KAFKA_UNTRIMMED_AGE_S)):
        gauge.show_all(
            {
                (named(row["topic"]), Reason(row["reason"])): max(0.0, (now - row["since"]).total_seconds())
                for row in rows
                if row["work"] == work
            }
        )
