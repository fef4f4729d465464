"""Every event that crosses a boundary, by type; what is not here is not a message of this system."""

from collections.abc import Mapping
from types import MappingProxyType

from habeas.contracts import (
    audit_ledger,
    erasure_executor,
    export_builder,
    notification_mailer,
    participants,
    platform,
    request_intake,
    retention_sweeper,
)
from habeas.contracts.model import Event

EVENTS: tuple[type[Event], ...] = (
    *platform.EVENTS,
    *participants.EVENTS,
    *request_intake.EVENTS,
    *erasure_executor.EVENTS,
    *export_builder.EVENTS,
    *retention_sweeper.EVENTS,
    *notification_mailer.EVENTS,
    *audit_ledger.EVENTS,
)

BY_TYPE: Mapping[str, type[Event]] = MappingProxyType({event.type: event for event in EVENTS})

ROLLED = "topic.rolled"
"""The type of a marker that makes Kafka close a segment; every consumer passes over it. It has no key and says nothing."""

ROLLED_VALUE = b"{}"
