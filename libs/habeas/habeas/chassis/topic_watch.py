"""What a service makes of its topics' drift: it does not start where messages could be lost, and shows every difference while it runs."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from habeas.chassis import drift, kafka, log, metrics
from habeas.chassis.redaction import Name, named
from habeas.chassis.settings import ChassisSettings, LogLevel
from habeas.chassis.waiting import on_beat, wait_any
from habeas.contracts import topics as catalogue
from habeas.contracts.topics import Topic

UNFIT: Final = (kafka.TopicsMissing, drift.TopicsUnfit)
"""What ``TopicWatch.require`` raises until somebody has mended the topics or given the right."""

_LOOK_S: Final = 300.0
_UNREADABLE: Final = Name("unreadable")


class TopicWatch:
    """Looks at the topics that a service consumes or owns, and at the audit log's."""

    def __init__(self, service: str, settings: ChassisSettings, consumed: Mapping[str, Topic]) -> None:
        """``consumed`` may grow until the first look."""
        self._service = service
        self._settings = settings
        self._consumed = consumed
        self._told: drift.Seen | None = None

    async def require(self) -> None:
        """Look, and raise ``UNFIT`` when the service cannot work with what is there. Raises what Kafka raises."""
        seen = await self.look()
        if missing := seen.missing & self._consumed.keys():
            raise kafka.TopicsMissing(missing)
        read = {*self._consumed, catalogue.AUDIT_ENTRIES.name}  # everybody reads the log at the start
        if hidden := seen.hidden & read:
            raise kafka.TopicsForbidden(hidden)
        if seen.unfit:
            raise drift.TopicsUnfit(seen.unfit)

    async def run(self, stopping: asyncio.Event) -> None:
        """Look every five minutes until told to stop; while Kafka is away, what was seen last is shown."""
        while not await wait_any(stopping, stopping, on_beat(_LOOK_S)):
            with suppress(kafka.KafkaError, OSError, TimeoutError):
                await self.look()

    async def look(self) -> drift.Seen:
        """Look once, show every difference as a metric, and log what is new. Raises what Kafka raises."""
        wanted = [*self._consumed.values()]
        wanted += [
            each
            for each in catalogue.CATALOGUE
            if each.name not in self._consumed and (each.owner == self._service or each is catalogue.AUDIT_ENTRIES)
        ]
        seen = await drift.look(kafka.client_options(self._settings), wanted, self._settings.replicas_min)
        metrics.KAFKA_DRIFTED_SETTINGS.show_all(
            {
                **{(named(each), _UNREADABLE): 1 for each in seen.hidden | seen.unread},
                **{(named(each.topic), named(each.setting)): 1 + each.is_unfit for each in seen.differences},
            }
        )
        if seen != self._told:
            self._told = seen
            _tell(seen)
        return seen


def _tell(seen: drift.Seen) -> None:
    for each in seen.differences:
        severity = LogLevel.ERROR if each.is_unfit else LogLevel.WARNING
        log.event("topic.drifted", severity=severity, topic=named(each.topic), setting=named(each.setting))
    for name in sorted(seen.hidden | seen.unread):
        log.event("topic.unreadable", severity=LogLevel.WARNING, topic=named(name), is_hidden=name in seen.hidden)
