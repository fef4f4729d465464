"""The catalogue of metrics: what the fleet counts and measures, and nothing else can be recorded.

Names are `<domain>.<noun>.<unit>`; Prometheus shows them as `habeas_<domain>_<noun>_<unit>`, counters with `_total`.
"""

from habeas.chassis.instruments import CONTENT_TYPE, ROWS, Counter, Gauge, Histogram, Label, render
from habeas.chassis.instruments import counter as _counter
from habeas.chassis.instruments import gauge as _gauge
from habeas.chassis.instruments import histogram as _histogram

__all__ = ["CONTENT_TYPE", "Counter", "Gauge", "Histogram", "Label", "render"]

# Outbox and relay
OUTBOX_UNPUBLISHED = _gauge("outbox.unpublished.rows", "rows not yet acknowledged by Kafka", "kind")
OUTBOX_OLDEST_AGE = _gauge("outbox.oldest_age_s", "age of the oldest unpublished row", "kind")
RELAY_PUBLISHED = _counter("relay.published.messages", "messages acknowledged by Kafka", "topic")
RELAY_BATCH = _histogram("relay.batch.messages", "messages sent at once", "kind", buckets=ROWS)
RELAY_LAG = _histogram("relay.lag_s", "from the transaction that emitted a message to Kafka's acknowledgement", "kind")
RELAY_REPLACED = _counter("relay.replaced.producers", "producers thrown away after a doubtful answer")

# Inbox and workers
INBOX_STORED = _counter("inbox.stored.messages", "messages stored for the first time", "topic")
INBOX_REPEATED = _counter("inbox.repeated.messages", "messages that Kafka delivered again", "topic")
INBOX_HANDLED = _counter("inbox.handled.messages", "messages whose handler committed", "type")
INBOX_RETRIED = _counter("inbox.retried.messages", "messages to be tried again later", "type", "reason")
INBOX_SET_ASIDE = _counter("inbox.set_aside.messages", "messages parked for a person to look at", "type", "reason")
INBOX_PENDING = _gauge("inbox.pending.rows", "messages stored and not yet handled")
INBOX_OLDEST_AGE = _gauge("inbox.oldest_age_s", "age of the oldest message that is not yet handled")
INBOX_PARKED = _gauge("inbox.parked.rows", "messages that wait for a person")
INBOX_BATCH = _histogram("inbox.batch.messages", "messages handled in one transaction", "type", buckets=ROWS)
INBOX_WAIT = _histogram("inbox.wait_s", "from storing a message to its handler's commit", "type")
HANDLER_DURATION = _histogram("handler.duration_s", "one batch in its handler, commit included", "type")

# Transactions
TRANSACTION_DURATION = _histogram("transaction.duration_s", "from begin to the end of commit", "name")
TRANSACTION_STATEMENTS = _counter("transaction.run.statements", "SQL statements", "name")
TRANSACTION_FAILED = _counter("transaction.failed.transactions", "transactions rolled back", "name", "reason")
POOL_WAIT = _histogram("pool.wait_s", "wait for a database connection")
POOL_OPEN = _gauge("pool.open.connections", "database connections open")
POOL_IDLE = _gauge("pool.idle.connections", "database connections open and not in use")

# Lanes
LANE_HELD = _gauge("lane.held.lanes", "lanes that this replica holds")
LANE_TAKEN = _counter("lane.taken.lanes", "lanes taken over")
LANE_LOST = _counter("lane.lost.lanes", "lanes lost to another replica")

# Kafka
KAFKA_LAG = _gauge("kafka.lag.messages", "messages behind the end of the partitions held", "topic")
KAFKA_PARTITIONS = _gauge("kafka.held.partitions", "partitions that this replica consumes", "topic")
KAFKA_REBALANCES = _counter("kafka.finished.rebalances", "changes of the partitions held")
KAFKA_POLL_AGE = _gauge("kafka.poll_age_s", "time since the consumer last asked for messages", "topic")
KAFKA_UNREACHABLE = _gauge("kafka.unreachable_s", "time since a broker last answered; 0 while one answers")
FOLLOW_POSITION = _gauge("follow.position.messages", "next position of an ordered follower", "topic")

# Sweeps and the process
SWEEP_DURATION = _histogram("sweep.duration_s", "one run of a sweep", "sweep")
SWEEP_HANDLED = _counter("sweep.handled.rows", "rows that sweeps handled", "sweep")
SWEEP_FAILED = _counter("sweep.failed.runs", "runs of a sweep that ended in an error", "sweep", "reason")
SWEEP_LAST_RUN_AGE = _gauge("sweep.last_run_age_s", "time since a sweep last ended well", "sweep")
LOOP_DELAY = _histogram("loop.delay_s", "how late the event loop ran what was due")

# Requests and their deadlines
REQUEST_OPEN = _gauge("request.open.requests", "requests that are not in a final state", "right", "state")
REQUEST_TIME_LEFT = _gauge(
    "request.least_time_left_s", "time left to the nearest deadline; negative when it passed", "right"
)
REQUEST_ACCEPTED = _counter("request.accepted.requests", "requests accepted", "right", "channel")
REQUEST_CLOSED = _counter("request.closed.requests", "requests that reached a final state", "right", "state")
REQUEST_DURATION = _histogram(
    "request.duration_s",
    "from receiving a request to its final state",
    "right",
    buckets=(1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0, 1_296_000.0, 2_592_000.0, 7_776_000.0),
)

# Erasure, export, retention, mail, audit
ERASURE_STUCK = _gauge("erasure.stuck.erasures", "erasures that wait for a person", "reason")
ERASURE_CHANGED = _counter("erasure.changed.rows", "rows erased or anonymised", "store", "action")
ERASURE_RETURNED = _counter("erasure.returned.subjects", "erased persons whose data came back and was erased again")
EXPORT_WRITTEN = _counter("export.written.bytes", "bytes of encrypted exports written")
EXPORT_FAILED = _counter("export.failed.exports", "exports that could not be made", "reason")
RETENTION_PURGED = _counter("retention.purged.rows", "rows purged because of their age", "rule")
RETENTION_OVERDUE = _gauge("retention.oldest_overdue_s", "by how much the oldest row left is past its time", "rule")
MAIL_SENT = _counter("mail.sent.messages", "mails that the mail server took", "template")
MAIL_FAILED = _counter("mail.failed.messages", "mails that were not taken", "reason")
MAIL_UNKNOWN = _counter("mail.unknown.messages", "mails of which nobody knows whether the server took them")
AUDIT_ACCEPTED = _counter("audit.accepted.entries", "entries taken into the log", "producer")
AUDIT_REFUSED = _counter("audit.refused.entries", "entries refused", "reason")
AUDIT_TREE = _gauge("audit.tree.leaves", "leaves of the log's tree")
AUDIT_CHECKPOINT_AGE = _gauge("audit.checkpoint_age_s", "age of the last signed checkpoint")
