"""What the fleet says while it works, read from its public topics as any platform service would."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer

from habeas.contracts import topics
from habeas.contracts.catalogue import BY_TYPE
from habeas.contracts.envelope import decode_headers
from habeas.contracts.erasure_executor import ErasureStuck
from habeas.contracts.export_builder import ExportStuck
from habeas.contracts.model import Event
from habeas.contracts.notification_mailer import PolicyChangeNotified
from habeas.contracts.request_intake import (
    RequestCompleted,
    RequestDenied,
    RequestExpired,
    RequestFulfilled,
    RequestWithdrawn,
)
from habeas.contracts.retention_sweeper import SweepCompleted

_POLL_MS: Final = 200
_TOPICS: Final = (topics.REQUESTS, topics.ERASURES, topics.EXPORTS, topics.SWEEPS, topics.DELIVERIES)
FINAL: Final[tuple[type[Event], ...]] = (RequestCompleted, RequestDenied, RequestWithdrawn, RequestExpired)

_GOES_WITH_ACCOUNT: Final = (
    "accounts", "sessions", "api_keys", "provider_keys", "tasks", "task_steps", "task_contents", "execution_logs",
    "support_tickets", "ticket_messages", "cookie_consents", "quality_scores",
)  # fmt: skip
SWEEPS: Final = frozenset(
    {("platform", table, "account") for table in _GOES_WITH_ACCOUNT}
    | {("platform", table, "execution") for table in ("tasks", "task_steps", "execution_logs")}
    | {("platform", table, "invoices") for table in ("invoices", "credit_ledger")}
    | {("platform", "task_contents", "task_content")}
)
"""What one tick has to sweep: store, table and retention class, written down by hand from the policy."""


@dataclass(slots=True)
class Progress:
    """What was heard so far. Every event counts once, however often Kafka delivers it."""

    final: dict[UUID, Event] = field(default_factory=dict)
    fulfilled: set[UUID] = field(default_factory=set)
    stuck_requests: set[UUID] = field(default_factory=set)
    swept: dict[tuple[str, str, str], SweepCompleted] = field(default_factory=dict)
    notified: dict[str, PolicyChangeNotified] = field(default_factory=dict)
    stuck: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    _seen: set[UUID] = field(default_factory=set)

    def hear(self, event_id: UUID, event: Event) -> None:
        """Take one event into account."""
        if event_id in self._seen:
            return
        self._seen.add(event_id)
        self.types[event.type] += 1
        if event.type.endswith(".stuck"):
            self.stuck[f"{event.type}: {getattr(event, 'reason', 'unknown')}"] += 1
        match event:
            case RequestCompleted() | RequestDenied() | RequestWithdrawn() | RequestExpired():
                self.final[event.request_id] = event
            case RequestFulfilled():
                self.fulfilled.add(event.request_id)
            case ErasureStuck() | ExportStuck():
                self.stuck_requests.add(event.request_id)
            case SweepCompleted():
                self.swept[(event.store, event.table, event.retention)] = event
            case PolicyChangeNotified():
                self.notified[event.change_id] = event
            case _:
                pass


async def follow(bootstrap: str, progress: Progress, until: Callable[[Progress], bool], limit_s: float) -> bool:
    """Listen from the beginning of the topics until a condition holds; False when nothing new was heard for `limit_s` before."""
    consumer = AIOKafkaConsumer(
        *(topic.name for topic in _TOPICS),
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        group_id=None,
    )
    await consumer.start()
    try:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(limit_s) as limit:
            heard = 0
            while not until(progress):
                if progress.types.total() > heard:
                    heard = progress.types.total()
                    limit.reschedule(loop.time() + limit_s)
                for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                    for record in records:
                        envelope = decode_headers(record.headers)
                        if event_class := BY_TYPE.get(envelope.type):
                            progress.hear(envelope.event_id, event_class.decode(record.value))
    except TimeoutError:
        return until(progress)
    finally:
        await consumer.stop()
    return True
