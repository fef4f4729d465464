"""What a fleet says while tests run, read from its public topics and its audit topic as any outsider would."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from habeas.contracts import topics
from habeas.contracts.audit import AuditEntry, parse_entry
from habeas.contracts.catalogue import BY_TYPE
from habeas.contracts.envelope import Envelope, decode_headers
from habeas.contracts.model import Event
from habeas.contracts.request_intake import RequestCompleted

E = TypeVar("E", bound=Event)

_TOLD: Final = (
    topics.REQUESTS,
    topics.SUBJECT_FLAGS,
    topics.ERASURES,
    topics.EXPORTS,
    topics.SWEEPS,
    topics.DELIVERIES,
    topics.AUDIT_ENTRIES,
)
_LISTEN_MS: Final = 100


@dataclass(frozen=True, slots=True)
class Said:
    """One event with its envelope."""

    envelope: Envelope
    event: Event


FORGER: Final = "a-forger"
"""The source of records that a test writes under a service's name; they are no part of what the fleet told."""


class Heard:
    """Everything that the fleet has said since its topics were made, by request; an async context manager.

    Nothing is read in the background: `listen` reads what has arrived, so that whoever waits also drives the reading.
    """

    def __init__(self, bootstrap: str) -> None:
        self.completed: dict[UUID, RequestCompleted] = {}
        self.audit: list[AuditEntry] = []
        self._bootstrap = bootstrap
        self._said: dict[UUID, list[Said]] = defaultdict(list)
        self._seen: set[UUID] = set()
        self._consumer: AIOKafkaConsumer | None = None

    async def __aenter__(self) -> Self:
        self._consumer = AIOKafkaConsumer(
            *(topic.name for topic in _TOLD),
            bootstrap_servers=self._bootstrap,
            group_id=None,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            # The session's event loop stands still while tests with loops of their own run; a request may be under way meanwhile.
            request_timeout_ms=3_600_000,
        )
        await self._consumer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    @property
    def count(self) -> int:
        """How many events and audit entries were heard."""
        return len(self._seen)

    async def listen(self) -> None:
        """Take in what has arrived, waiting a moment for it."""
        assert self._consumer is not None, "Heard listens inside of `async with`"
        for records in (await self._consumer.getmany(timeout_ms=_LISTEN_MS)).values():
            for record in records:
                self._take(record)

    def of(self, request_id: UUID, kind: type[E]) -> list[E]:
        """Give what was said of one kind about a request, in the order of arrival; an event delivered twice counts once."""
        return [said.event for said in self._said[request_id] if isinstance(said.event, kind)]

    def types(self, request_id: UUID) -> list[str]:
        """Give the types of everything that was said about a request."""
        return [said.event.type for said in self._said[request_id]]

    def all_of(self, request_id: UUID) -> Sequence[Said]:
        """Give everything that was said about a request, with envelopes."""
        return tuple(self._said[request_id])

    def actions(self, request_id: UUID) -> list[str]:
        """Give the actions in the audit log about a request, each as `producer action outcome`, sorted."""
        entries = (entry for entry in self.audit if entry.fact.request == request_id)
        return sorted(f"{entry.producer} {entry.fact.action} {entry.fact.outcome or '-'}" for entry in entries)

    def _take(self, record: "ConsumerRecord[Any, Any]") -> None:
        envelope = decode_headers(record.headers)
        if envelope.event_id in self._seen or envelope.source == FORGER:
            return
        self._seen.add(envelope.event_id)
        if record.topic == topics.AUDIT_ENTRIES.name:
            self.audit.append(parse_entry(record.value))
            return
        event = BY_TYPE[envelope.type].decode(record.value)
        request_id = getattr(event, "request_id", None)
        if isinstance(request_id, UUID):
            self._said[request_id].append(Said(envelope, event))
        if isinstance(event, RequestCompleted):
            self.completed[event.request_id] = event
