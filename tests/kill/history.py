"""Everything that can be seen of a finished campaign from outside, as plain values: what the checker judges."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from habeas.contracts.audit import AuditEntry
from habeas_demo.checks import Check


class Asked(NamedTuple):
    """One submission as the client remembers it; `tries` counts sends, `acked` says whether one was acknowledged."""

    request_id: UUID
    right: str
    is_verified: bool
    is_carried_out: bool
    is_repeat: bool
    is_changed: bool
    tries: int
    acked: bool


class Taken(NamedTuple):
    """One message that an inbox has or had; `xid` is the transaction that changed or handled it, and of one key's it never falls."""

    event_id: UUID
    topic: str
    partition: int
    offset: int
    type: str
    key: bytes
    state: str
    reason: str | None
    xid: int


class Left(NamedTuple):
    """One row of an outbox."""

    outbox_id: int
    event_id: UUID
    topic: str
    key: str
    type: str
    subject: str
    digest: bytes
    is_published: bool


class Fact(NamedTuple):
    """One audit fact; `line` is what was made of it once it was numbered."""

    seq: int | None
    line: bytes | None
    is_published: bool


class Record(NamedTuple):
    """One record of Kafka's log; `event_id` and `type` are None where a header is missing."""

    topic: str
    partition: int
    offset: int
    event_id: UUID | None
    type: str | None
    key: bytes
    digest: bytes


class Request(NamedTuple):
    """A request as request-intake holds it."""

    state: str
    stuck_reason: str | None
    outcome: str | None
    is_verified: bool
    right: str


class Mail(NamedTuple):
    """A mail as notification-mailer holds it."""

    mail_id: UUID
    kind: str
    state: str
    request_id: UUID | None


class Lane(NamedTuple):
    """A lane's lease, by the database's clock; `is_known` says whether its holder has a living heartbeat."""

    lane: int
    is_held: bool
    is_expired: bool
    is_known: bool


@dataclass(frozen=True, slots=True)
class Slice:
    """What one service holds."""

    inbox: list[Taken]  # with what was handled and has left it
    topics: frozenset[str]  # that it reads
    seen: frozenset[UUID]  # ids that would be known again
    outbox: list[Left]
    facts: list[Fact]
    lanes: list[Lane]
    replicas: list[int]  # ordinals with a living heartbeat


@dataclass(frozen=True, slots=True)
class PublishedLog:
    """The audit log as an auditor takes it: what the offline verifier says, and every entry in its order."""

    problems: list[str]
    lines: list[bytes]
    entries: list[AuditEntry]


@dataclass(frozen=True, slots=True)
class History:
    """A campaign from outside. `replicas` is how many of each service are meant to run; `waiting` names what is still under way."""

    replicas: int
    asked: list[Asked]
    ticks: list[UUID]
    changes: list[str]
    slices: Mapping[str, Slice]
    records: list[Record]
    committed: Mapping[tuple[str, str, int], int]  # by group, topic and partition: the next offset to read
    requests: Mapping[UUID, Request]
    erasures: Mapping[UUID, str]  # state by request
    exports: Mapping[UUID, tuple[str, bool]]  # state by request, and whether the artefact has a key
    opened: frozenset[UUID]  # requests whose export opens with the person's key
    mails: list[Mail]
    uncertain: Mapping[UUID, int]  # by mail: how often its fate was said to be unknown
    delivered: list[str]  # Message-IDs in the order of delivery
    log: PublishedLog
    platform: list[Check]
    waiting: Mapping[str, int] = field(default_factory=dict)
    sweeps: Mapping[UUID, list[str]] = field(default_factory=dict)  # states by tick
    campaigns: Mapping[str, str] = field(default_factory=dict)  # state by change
