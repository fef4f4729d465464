"""The catalogue of metrics: what the fleet counts and measures, and nothing else can be recorded.

Names are `<domain>.<noun>.<unit>`; Prometheus shows them as `habeas_<domain>_<noun>_<unit>`, counters with `_total`;
in code they are the same in capitals, `DOMAIN_NOUN_UNIT`.
"""

from habeas.chassis.instruments import CONTENT_TYPE, ROWS, Counter, Gauge, Histogram, Label, render
from habeas.chassis.instruments import counter as _counter
from habeas.chassis.instruments import gauge as _gauge
from habeas.chassis.instruments import histogram as _histogram

__all__ = ["CONTENT_TYPE", "Counter", "Gauge", "Histogram", "Label", "render"]

# Outbox and relay
OUTBOX_UNPUBLISHED_ROWS = _gauge("outbox.unpublished.rows", "rows not yet acknowledged by Kafka")
OUTBOX_OLDEST_AGE_S = _gauge("outbox.oldest_age_s", "age of the oldest unpublished row")
RELAY_PUBLISHED_MESSAGES = _counter("relay.published.messages", "messages acknowledged by Kafka")
RELAY_BATCH_MESSAGES = _histogram("relay.batch.messages", "messages sent at once", buckets=ROWS)
RELAY_LAG_S = _histogram(
    "relay.lag_s", "from the transaction that emitted a message to its mark as published; the oldest of each batch"
)
RELAY_FAILURES = _counter("relay.failures", "batches that could not be published or marked, and are tried again")
RELAY_REPLACED_PRODUCERS = _counter("relay.replaced.producers", "producers thrown away after a doubtful answer")

# Inbox and workers
INBOX_RECEIVED_MESSAGES = _counter("inbox.received.messages", "messages that Kafka delivered, repeats included")
INBOX_HANDLED_MESSAGES = _counter("inbox.handled.messages", "messages whose handler committed", "type")
INBOX_RETRIED_MESSAGES = _counter("inbox.retried.messages", "messages to be tried again later")
INBOX_PARKED_MESSAGES = _counter("inbox.parked.messages", "messages set aside for a person to look at")
INBOX_PENDING_ROWS = _gauge("inbox.pending.rows", "messages stored and not yet handled")
INBOX_OLDEST_AGE_S = _gauge("inbox.oldest_age_s", "age of the oldest message that is not yet handled")
INBOX_PARKED_ROWS = _gauge("inbox.parked.rows", "messages that wait for a person")
INBOX_HALTED_WORKERS = _gauge("inbox.halted.workers", "1 when handling stopped because too much was parked in a row")
INBOX_WAIT_S = _histogram("inbox.wait_s", "from storing a message to its handler's end; the oldest of each batch")

# Transactions
TRANSACTION_DURATION_S = _histogram("transaction.duration_s", "from begin to the end of commit", "transaction")
TRANSACTION_STATEMENTS = _counter("transaction.statements", "SQL statements", "transaction")

TRANSACTION_REPEATED_TRANSACTIONS = _counter(
    "transaction.repeated.transactions", "units of work done again after trouble with the database", "transaction"
)
POOL_USED_CONNECTIONS = _gauge("pool.used.connections", "database connections in use")
POOL_OPEN_CONNECTIONS = _gauge("pool.open.connections", "database connections open, in use or not")
POOL_LIMIT_CONNECTIONS = _gauge("pool.limit.connections", "database connections open at most")

# Lanes
LANE_FREE_LANES = _gauge("lane.free.lanes", "lanes of the service that no replica holds")
LANE_LIVE_REPLICAS = _gauge("lane.live.replicas", "replicas of the service that are alive")
LANE_HELD_LANES = _gauge("lane.held.lanes", "lanes that this replica holds")
LANE_TAKEN_LANES = _counter("lane.taken.lanes", "lanes taken over")
LANE_PAUSED_LANES = _gauge("lane.paused.lanes", "lanes of the service that operators have paused")
LANE_LOST_LANES = _counter("lane.lost.lanes", "lanes lost to another replica")

# Kafka
KAFKA_LAG_MESSAGES = _gauge("kafka.lag.messages", "messages behind the end of the partitions held", "topic")
KAFKA_BEHIND_S = _gauge("kafka.behind_s", "age of the messages that were taken last; 0 while none are left to take")
KAFKA_GONE_MESSAGES = _counter("kafka.gone.messages", "records gone from Kafka before they were stored", "topic")
KAFKA_RENEWED_CLIENTS = _counter(
    "kafka.renewed.clients", "clients replaced because they failed by a fault of their own"
)
KAFKA_HELD_PARTITIONS = _gauge("kafka.held.partitions", "partitions that this replica consumes")
KAFKA_POLL_AGE_S = _gauge("kafka.poll_age_s", "time since the consumer last asked for messages")
KAFKA_UNREACHABLE_S = _gauge(
    "kafka.unreachable_s", "time since the reader last had a connection to a broker; 0 while it has one"
)
KAFKA_DRIFTED_SETTINGS = _gauge(
    "kafka.drifted.settings",
    "settings of topics that are not as the catalogue has them: 1, or 2 where messages can be lost by it",
    "topic",
    "setting",
)
KAFKA_REFUSED_AGE_S = _gauge(
    "kafka.refused_age_s",
    "for how long Kafka has refused what the service has to publish to a topic",
    "topic",
    "reason",
)
KAFKA_UNTRIMMED_AGE_S = _gauge(
    "kafka.untrimmed_age_s", "for how long account ids have stayed in a topic that cannot be trimmed", "topic", "reason"
)
FOLLOW_POSITION_MESSAGES = _gauge("follow.position.messages", "next position of an ordered follower", "topic")

FOLLOW_LAG_MESSAGES = _gauge("follow.lag.messages", "messages behind the end of what is followed in order", "topic")

# What operators set
CONTROL_PAUSED_SERVICES = _gauge("control.paused.services", "1 while operators have paused this service, else 0")

# Sweeps and the process
SWEEP_DURATION_S = _histogram("sweep.duration_s", "one run of a sweep", "sweep")
SWEEP_HANDLED_ROWS = _counter("sweep.handled.rows", "rows that sweeps handled", "sweep")
SWEEP_FAILURES = _counter("sweep.failures", "runs of a sweep that ended in an error", "sweep")
SWEEP_LAST_RUN_AGE_S = _gauge("sweep.last_run_age_s", "time since a sweep last ended well", "sweep")
BUILD_INFO = _gauge("build.info", "1; which program this is", "service", "version")
LOOP_DELAY_S = _histogram("loop.delay_s", "how late the event loop ran what was due")

# Requests and their deadlines; each replica measures the same rows, so these are not added up over replicas
REQUEST_OPEN_REQUESTS = _gauge("request.open.requests", "requests that are not in a final state", "right", "state")
REQUEST_DUE_SOON_REQUESTS = _gauge(
    "request.due_soon.requests", "open requests that are due within five days, not late yet", "right", "reason"
)
REQUEST_OVERDUE_REQUESTS = _gauge(
    "request.overdue.requests", "open requests past the day that we promised, within the law's", "right", "reason"
)
REQUEST_PAST_LIMIT_REQUESTS = _gauge(
    "request.past_limit.requests", "open requests past the last day that the law allows", "right", "reason"
)
WORK_STUCK_ROWS = _gauge("work.stuck.rows", "pieces of work that wait for somebody to look", "work", "reason")
WORK_OLDEST_STUCK_AGE_S = _gauge(
    "work.oldest_stuck_age_s", "since when the oldest stuck piece of work was asked for", "work", "reason"
)

# Retention, mail, audit
RETENTION_PURGED_ROWS = _counter("retention.purged.rows", "rows purged because of their age", "rule")
RETENTION_REACHED_AGE_S = _gauge("retention.reached_age_s", "since when a rule was last carried out to its end", "rule")
MAIL_WAITING_MESSAGES = _gauge("mail.waiting.messages", "mails not yet sent", "kind")
MAIL_OLDEST_WAITING_AGE_S = _gauge("mail.oldest_waiting_age_s", "age of the oldest mail not yet sent", "kind")
MAIL_SENT_MESSAGES = _counter("mail.sent.messages", "mails that the mail server took", "template")
MAIL_FAILED_MESSAGES = _counter("mail.failed.messages", "mails that were not taken", "reason")
MAIL_UNKNOWN_MESSAGES = _counter("mail.unknown.messages", "mails of which nobody knows whether the server took them")
AUDIT_ACCEPTED_ENTRIES = _counter("audit.accepted.entries", "entries taken into the log", "producer")
AUDIT_REFUSED_ENTRIES = _counter("audit.refused.entries", "entries refused", "reason")
AUDIT_TREE_LEAVES = _gauge("audit.tree.leaves", "leaves of the log's tree")
AUDIT_CHECKPOINT_AGE_S = _gauge("audit.checkpoint_age_s", "age of the last signed checkpoint")
AUDIT_UNSIGNED_AGE_S = _gauge(
    "audit.unsigned_age_s", "age of the last signed checkpoint while there are entries that it does not hold, else 0"
)
