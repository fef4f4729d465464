"""The topic catalogue: every topic with its owner, partitions and retention. Topics are made from this and from nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DAY_MS = 24 * 60 * 60 * 1000
MESSAGE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Topic:
    """One Kafka topic.

    ``strict`` topics are written by platforms: a field that nobody knows is refused. ``sensitive`` topics carry the
    platform's account ids, so their records are trimmed from the topic once they have been taken (see
    ``docs/decisions/0004``). Of both kinds inboxes hold records sealed and keys as fingerprints. ``ordered`` topics hold a key's later
    messages back behind a parked one.
    """

    name: str
    owner: str
    partitions: int
    retention_ms: int
    compacted: bool = False
    strict: bool = False
    sensitive: bool = False
    ordered: bool = True
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def sealed(self) -> bool:
        """Whether inboxes hold its records sealed: those that name accounts, and all that outsiders write, as it may hold anything."""
        return self.sensitive or self.strict

    @property
    def configs(self) -> dict[str, str]:
        """Give the topic's settings in Kafka's own names; anything not named here is the broker's default."""
        policy = {"cleanup.policy": "compact"} if self.compacted else {"cleanup.policy": "delete"}
        return {
            **policy,
            "retention.ms": str(self.retention_ms),
            "retention.bytes": "-1",
            "unclean.leader.election.enable": "false",
            "max.message.bytes": str(MESSAGE_BYTES_MAX),
            **self.extra,
        }

    def configs_on(self, replicas: int) -> dict[str, str]:
        """Return ``configs`` and ``min.insync.replicas`` for a topic that so many brokers hold: a majority of them.

        Without it ``acks=all`` may mean one broker: it counts those that are in sync, and that may be the leader alone.
        """
        return {**self.configs, "min.insync.replicas": str(replicas // 2 + 1)}


# A segment's age is counted from its first record's time, which is the broker's: by a publisher's clock that is ahead it would stay open.
_SHORT_SEGMENTS = {
    "segment.ms": "1000",
    "file.delete.delay.ms": "100",
    "message.timestamp.type": "LogAppendTime",
}

DSR_REQUESTS = Topic(
    "platform.dsr-requests.v1",
    "platform",
    4,
    7 * DAY_MS,
    strict=True,
    sensitive=True,
    ordered=False,
    extra=_SHORT_SEGMENTS,
)
RETENTION_TICKS = Topic("platform.retention-ticks.v1", "platform", 1, 7 * DAY_MS, strict=True, ordered=False)
POLICY_CHANGES = Topic("platform.policy-changes.v1", "platform", 1, 90 * DAY_MS, strict=True, ordered=False)
RECEIPTS = Topic("participants.receipts.v1", "participants", 4, 7 * DAY_MS, strict=True, ordered=False)
REQUESTS = Topic("request-intake.requests.v1", "request-intake", 4, 7 * DAY_MS)
SUBJECT_FLAGS = Topic("request-intake.subject-flags.v1", "request-intake", 4, -1, compacted=True)
ERASURES = Topic("erasure-executor.erasures.v1", "erasure-executor", 4, 7 * DAY_MS)
ORDERS = Topic("erasure-executor.orders.v1", "erasure-executor", 4, 7 * DAY_MS, sensitive=True, extra=_SHORT_SEGMENTS)
EXPORTS = Topic("export-builder.exports.v1", "export-builder", 4, 7 * DAY_MS)
SWEEPS = Topic("retention-sweeper.sweeps.v1", "retention-sweeper", 1, 7 * DAY_MS)
DELIVERIES = Topic("notification-mailer.deliveries.v1", "notification-mailer", 4, 7 * DAY_MS)
CHECKPOINTS = Topic("audit-ledger.checkpoints.v1", "audit-ledger", 1, 90 * DAY_MS)
AUDIT_ENTRIES = Topic("audit.entries.v1", "audit-ledger", 1, -1)

CATALOGUE: tuple[Topic, ...] = (
    DSR_REQUESTS,
    RETENTION_TICKS,
    POLICY_CHANGES,
    RECEIPTS,
    REQUESTS,
    SUBJECT_FLAGS,
    ERASURES,
    ORDERS,
    EXPORTS,
    SWEEPS,
    DELIVERIES,
    CHECKPOINTS,
    AUDIT_ENTRIES,
)
