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
RELAY_LAG_S = _histogram("relay.lag_s", "from the transaction that emitted a message to Kafka's acknowledgement")
RELAY_REPLACED_PRODUCERS = _counter("relay.replaced.producers", "producers thrown away after a doubtful answer")

# Inbox and workers
INBOX_RECEIVED_MESSAGES = _counter("inbox.received.messages", "messages that Kafka delivered, repeats included")
INBOX_HANDLED_MESSAGES = _counter("inbox.handled.messages", "messages whose handler committed", "type")
INBOX_RETRIED_MESSAGES = _counter("inbox.retried.messages", "messages to be tried again later")
INBOX_PARKED_MESSAGES = _counter("inbox.parked.messages", "messages set aside for a person to look at")
INBOX_PENDING_ROWS = _gauge("inbox.pending.rows", "messages stored and not yet handled")
INBOX_OLDEST_AGE_S = _gauge("inbox.oldest_age_s", "age of the oldest message that is not yet handled")
INBOX_PARKED_ROWS = _gauge("inbox.parked.rows", "messages that wait for a person")
INBOX_BATCH_MESSAGES = _histogram("inbox.batch.messages", "messages handled in one transaction", "type", buckets=ROWS)
INBOX_WAIT_S = _histogram("inbox.wait_s", "from storing a message to its handler's commit", "type")
HANDLER_DURATION_S = _histogram("handler.duration_s", "one batch in its handler, commit included", "type")

# Transactions
TRANSACTION_DURATION_S = _histogram("transaction.duration_s", "from begin to the end of commit", "transaction")
TRANSACTION_STATEMENTS = _counter("transaction.statements", "SQL statements", "transaction")
TRANSACTION_FAILED_TRANSACTIONS = _counter("transaction.failed.transactions", "transactions rolled back", "transaction")
POOL_WAIT_S = _histogram("pool.wait_s", "wait for a database connection")
POOL_OPEN_CONNECTIONS = _gauge("pool.open.connections", "database connections open")
POOL_IDLE_CONNECTIONS = _gauge("pool.idle.connections", "database connections open and not in use")

# Lanes
LANE_HELD_LANES = _gauge("lane.held.lanes", "lanes that this replica holds")
LANE_TAKEN_LANES = _counter("lane.taken.lanes", "lanes taken over")
LANE_PAUSED_LANES = _gauge("lane.paused.lanes", "lanes of the service that operators have paused")
LANE_LOST_LANES = _counter("lane.lost.lanes", "lanes lost to another replica")

# Kafka
KAFKA_LAG_MESSAGES = _gauge("kafka.lag.messages", "messages behind the end of the partitions held", "topic")
KAFKA_GONE_MESSAGES = _counter("kafka.gone.messages", "records gone from Kafka before they were stored", "topic")
KAFKA_HELD_PARTITIONS = _gauge("kafka.held.partitions", "partitions that this replica consumes", "topic")
KAFKA_FINISHED_REBALANCES = _counter("kafka.finished.rebalances", "changes of the partitions held")
KAFKA_POLL_AGE_S = _gauge("kafka.poll_age_s", "time since the consumer last asked for messages", "topic")
KAFKA_UNREACHABLE_S = _gauge("kafka.unreachable_s", "time since a broker last answered; 0 while one answers")
FOLLOW_POSITION_MESSAGES = _gauge("follow.position.messages", "next position of an ordered follower", "topic")

# What operators set
CONTROL_PAUSED_SERVICES = _gauge("control.paused.services", "1 while operators have paused this service, else 0")

# Sweeps and the process
SWEEP_DURATION_S = _histogram("sweep.duration_s", "one run of a sweep", "sweep")
SWEEP_HANDLED_ROWS = _counter("sweep.handled.rows", "rows that sweeps handled", "sweep")
SWEEP_FAILURES = _counter("sweep.failures", "runs of a sweep that ended in an error", "sweep")
SWEEP_LAST_RUN_AGE_S = _gauge("sweep.last_run_age_s", "time since a sweep last ended well", "sweep")
LOOP_DELAY_S = _histogram("loop.delay_s", "how late the event loop ran what was due")

# Requests and their deadlines
REQUEST_OPEN_REQUESTS = _gauge("request.open.requests", "requests that are not in a final state", "right", "state")
REQUEST_LEAST_TIME_LEFT_S = _gauge(
    "request.least_time_left_s", "time left to the nearest deadline; negative when it passed", "right"
)
REQUEST_ACCEPTED_REQUESTS = _counter("request.accepted.requests", "requests accepted", "right", "channel")
REQUEST_CLOSED_REQUESTS = _counter("request.closed.requests", "requests that reached a final state", "right", "state")
REQUEST_DURATION_S = _histogram(
    "request.duration_s",
    "from receiving a request to its final state",
    "right",
    buckets=(1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0, 1_296_000.0, 2_592_000.0, 7_776_000.0),
)

# Erasure, export, retention, mail, audit
ERASURE_STUCK_ERASURES = _gauge("erasure.stuck.erasures", "erasures that wait for a person", "reason")
ERASURE_CHANGED_ROWS = _counter("erasure.changed.rows", "rows erased or anonymised", "store", "action")
ERASURE_RETURNED_SUBJECTS = _counter(
    "erasure.returned.subjects", "erased persons whose data came back and was erased again"
)
EXPORT_WRITTEN_BYTES = _counter("export.written.bytes", "bytes of encrypted exports written")
EXPORT_FAILED_EXPORTS = _counter("export.failed.exports", "exports that could not be made", "reason")
RETENTION_PURGED_ROWS = _counter("retention.purged.rows", "rows purged because of their age", "rule")
RETENTION_OLDEST_OVERDUE_S = _gauge(
    "retention.oldest_overdue_s", "by how much the oldest row left is past its time", "rule"
)
MAIL_SENT_MESSAGES = _counter("mail.sent.messages", "mails that the mail server took", "template")
MAIL_FAILED_MESSAGES = _counter("mail.failed.messages", "mails that were not taken", "reason")
MAIL_UNKNOWN_MESSAGES = _counter("mail.unknown.messages", "mails of which nobody knows whether the server took them")
AUDIT_ACCEPTED_ENTRIES = _counter("audit.accepted.entries", "entries taken into the log", "producer")
AUDIT_REFUSED_ENTRIES = _counter("audit.refused.entries", "entries refused", "reason")
AUDIT_TREE_LEAVES = _gauge("audit.tree.leaves", "leaves of the log's tree")
AUDIT_CHECKPOINT_AGE_S = _gauge("audit.checkpoint_age_s", "age of the last signed checkpoint")
