"""Every SQL statement of the command line.

Statements over the tables that each service has are made per schema, from the closed list of services; values are always parameters.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final, Protocol
from uuid import UUID

import asyncpg

from habeas.chassis.troubles import KEPT as TROUBLES_KEPT
from habeas.contracts.audit import Producer
from habeas.contracts.topics import AUDIT_ENTRIES, CATALOGUE

_BATCH_ROWS: Final = 50_000
SERVICES: Final = tuple(service.value for service in Producer)


class Querying(Protocol):
    """A connection of asyncpg."""

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Run a query and give its rows."""
        ...

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        """Run a query and give its first row."""
        ...


def schema_of(service: str) -> str:
    """Give the schema of a service; raises KeyError for a name that is none."""
    return _SCHEMAS[service]


_SCHEMAS: Final[Mapping[str, str]] = MappingProxyType({service: service.replace("-", "_") for service in SERVICES})

_COUNT_REQUESTS: Final = """
    SELECT dsr_right, state, count(*) AS requests,
           count(*) FILTER (WHERE stuck_reason NOT IN ('needs_identity', 'earlier_request')) AS stuck,
           string_agg(DISTINCT stuck_reason, ', ' ORDER BY stuck_reason) AS reasons,
           min(received_at) AS oldest_at, min(due_on) AS next_due_on,
           count(*) FILTER (WHERE state = 'completed' AND reach = 'mail') AS answered_by_mail,
           count(*) FILTER (WHERE state = 'completed' AND reach = 'platform') AS answered_by_platform,
           count(*) FILTER (WHERE state = 'completed' AND reach = 'not_reachable') AS not_reachable
      FROM request_intake.requests
     GROUP BY dsr_right, state
     ORDER BY dsr_right, state
"""

# Work that was begun again and again and has no reason is told as such: whoever begins it gives it one before.
_COUNT_WORK: Final = """
    SELECT service, work, state, reason, count(*) AS rows
      FROM (SELECT 'erasure-executor' AS service, 'erasure' AS work, state,
                   coalesce(stuck_reason, CASE WHEN attempts > 3 THEN 'unexplained' ELSE '' END) AS reason
              FROM erasure_executor.erasures WHERE state <> 'completed'
            UNION ALL
            SELECT 'export-builder', 'export', state,
                   coalesce(stuck_reason, CASE WHEN attempts > 3 AND state <> 'withdrawing' THEN 'unexplained' ELSE '' END)
              FROM export_builder.exports WHERE state NOT IN ('completed', 'deleted')
            UNION ALL
            SELECT 'retention-sweeper', 'tick', state, coalesce(stuck_reason, CASE WHEN claims > 3 THEN 'unexplained' ELSE '' END)
              FROM retention_sweeper.ticks WHERE state <> 'completed'
            UNION ALL
            SELECT 'retention-sweeper', 'sweep', state, coalesce(stuck_reason, CASE WHEN claims > 3 THEN 'unexplained' ELSE '' END)
              FROM retention_sweeper.sweeps WHERE state <> 'completed'
            UNION ALL
            SELECT 'notification-mailer', 'mail', state,
                   CASE WHEN ended_at IS NOT NULL THEN coalesce(refusal, '')
                        ELSE coalesce(stuck_reason, CASE WHEN attempt > 1 THEN 'mail_postponed' ELSE '' END) END
              FROM notification_mailer.messages WHERE state NOT IN ('sent', 'suppressed')
            UNION ALL
            SELECT 'audit-ledger', 'producer', state, coalesce(halted_reason, '')
              FROM audit_ledger.producers WHERE state <> 'following') AS unfinished
     GROUP BY service, work, state, reason
     ORDER BY service, work, state, reason
"""

_COUNT_DELIVERY: Final = """
    SELECT i.waiting, i.parked, i.oldest_waiting_at, o.unpublished, a.unlogged + h.seq - h.published_seq AS unlogged,
           least(o.oldest_at, a.oldest_at,
                 (SELECT created_at FROM {schema}.audit_lines WHERE seq = h.published_seq + 1)) AS oldest_unpublished_at,
           c.paused_at, c.log_level, l.paused_lanes, l.free_lanes
      FROM (SELECT count(*) FILTER (WHERE state = 'pending') AS waiting, count(*) FILTER (WHERE state = 'parked') AS parked,
                   min(received_at) FILTER (WHERE state = 'pending') AS oldest_waiting_at
              FROM {schema}.inbox WHERE state IN ('pending', 'parked')) AS i,
           (SELECT count(*) AS unpublished, min(created_at) AS oldest_at FROM {schema}.outbox WHERE published_at IS NULL) AS o,
           (SELECT count(*) AS unlogged, min(created_at) AS oldest_at FROM {schema}.audit_outbox) AS a,
           (SELECT seq, published_seq FROM {schema}.audit_head ORDER BY epoch DESC LIMIT 1) AS h,
           (SELECT paused_at, log_level FROM {schema}.control) AS c,
           (SELECT coalesce(array_agg(lane ORDER BY lane) FILTER (WHERE paused_at IS NOT NULL), ARRAY[]::smallint[]) AS paused_lanes,
                   count(*) FILTER (WHERE holder IS NULL OR expires_at < now()) AS free_lanes FROM {schema}.lanes) AS l
"""

_FIND_REPLICAS: Final = """
    SELECT r.instance, (SELECT count(*) FROM {schema}.lanes AS l WHERE l.holder = r.holder AND l.expires_at >= now()) AS lanes
      FROM {schema}.replicas AS r WHERE r.expires_at >= now() ORDER BY r.instance
"""

_FIND_TROUBLES: Final = """
    SELECT work, topic, reason, bytes, since FROM {schema}.troubles WHERE seen_at >= $1 ORDER BY work, topic
"""

_FIND_LEDGER_POSITION: Final = "SELECT position FROM audit_ledger.head"

# A request is answered in time on the day that is due, and late on the next one.
_COUNT_DEADLINES: Final = """
    SELECT dsr_right, coalesce(stuck_reason, state) AS reason,
           count(*) FILTER (WHERE due_on >= $1 AND due_on - $1 <= $2) AS due_soon,
           count(*) FILTER (WHERE due_on < $1 AND legal_limit_on >= $1) AS overdue,
           count(*) FILTER (WHERE legal_limit_on < $1) AS past_limit,
           min(due_on) AS next_due_on, min(legal_limit_on) AS next_limit_on
      FROM request_intake.requests
     WHERE state <> 'completed' AND due_on - $1 <= $2
     GROUP BY dsr_right, coalesce(stuck_reason, state)
     ORDER BY min(due_on), dsr_right, reason
"""

_FIND_REQUEST: Final = """
    SELECT request_id, dsr_right, state, stuck_reason, outcome, CASE WHEN state = 'completed' THEN reach END AS answered,
           regime, channel, received_at, accepted_at, closed_at, due_on,
           legal_limit_on, is_verified
      FROM request_intake.requests WHERE request_id = $1
"""

# What was handled has left the inbox: that it came is known by its id, and what it was by whoever told it.
_FIND_TAKEN: Final = """
    SELECT i.inbox_id, i.type, i.state, i.reason, i.field, i.received_at AS at
      FROM {schema}.inbox AS i WHERE i.key = convert_to($1::uuid::text, 'UTF8') OR i.request_id = $1
    UNION ALL
    SELECT NULL, t.type, 'handled', NULL, NULL, s.received_at
      FROM unnest($2::uuid[], $3::text[]) AS t (event_id, type) JOIN {schema}.seen AS s USING (event_id)
     WHERE NOT EXISTS (SELECT FROM {schema}.inbox AS i WHERE i.event_id = s.event_id)
"""

_FIND_SUBMISSION: Final = """
    SELECT EXISTS (SELECT FROM request_intake.positions AS p WHERE p.topic = $1 AND p.partition = $2 AND p.next_offset > $3) AS is_taken,
           i.inbox_id, i.state, i.reason, i.field
      FROM (SELECT) AS one
      LEFT JOIN request_intake.inbox AS i ON i.topic = $1 AND i.partition = $2 AND i.record_offset = $3
"""

_FIND_TOLD: Final = """
    SELECT event_id, type, topic, created_at AS at, published_at - created_at AS took
      FROM {schema}.outbox WHERE subject = $1::uuid::text
"""

_FIND_LOGGED: Final = """
    SELECT e.seq, e.entry, e.created_at AS at
      FROM (SELECT seq, convert_from(line, 'UTF8') AS entry, created_at FROM {schema}.audit_lines
            UNION ALL SELECT NULL, tail, created_at FROM {schema}.audit_outbox) AS e
     WHERE e.entry LIKE '% request=' || replace($1::uuid::text, '-', '') || ' %'
"""

_FIND_STATES: Final = """
    SELECT 'erasure-executor' AS service, erased_at AS at, 'erasure is ' || state AS what, stuck_reason, attempts
      FROM erasure_executor.erasures WHERE request_id = $1
    UNION ALL
    SELECT 'export-builder', completed_at, 'export ' || export_id || ' is ' || state, stuck_reason, attempts
      FROM export_builder.exports WHERE request_id = $1
    UNION ALL
    SELECT 'notification-mailer', ended_at, kind || ' mail is ' || state || coalesce(' (' || refusal || ')', ''), NULL, attempt
      FROM notification_mailer.messages WHERE request_id = $1
"""

_FIND_PARKED: Final = """
    SELECT inbox_id, event_id, topic, partition, record_offset, type, reason, field, attempts, event_at, received_at, handled_at
      FROM {schema}.inbox WHERE state = 'parked' ORDER BY inbox_id LIMIT $1
"""

_FIND_ONE_PARKED: Final = """
    SELECT inbox_id, event_id, topic, partition, record_offset, type, reason, field, attempts, event_at, received_at, handled_at,
           octet_length(value) AS value_bytes
      FROM {schema}.inbox WHERE inbox_id = $1 AND state = 'parked'
"""

_FIND_PARKED_IDS: Final = """
    SELECT inbox_id FROM {schema}.inbox WHERE state = 'parked' AND ($1::text IS NULL OR reason = $1) ORDER BY inbox_id LIMIT $2
"""

_RETRY_PARKED: Final = (
    "SELECT message_id, verdict = 'retried' AS is_decided, verdict FROM {schema}.supervise_retry($1, $2)"
)

_RESOLVE_PARKED: Final = """
    SELECT message_id, verdict = 'now_resolved' AS is_decided, verdict FROM {schema}.supervise_resolve($1, $2, $3)
"""

_FIND_PARKED_VALUE: Final = "SELECT value FROM {schema}.inbox WHERE inbox_id = $1 AND state = 'parked'"

_COUNT_KEPT: Final = """
    SELECT e.events, h.entries, least(e.oldest_at, h.oldest_at) AS oldest_at
      FROM (SELECT count(*) AS events, min(created_at) AS oldest_at FROM {schema}.outbox
             WHERE published_at IS NOT NULL AND created_at >= coalesce($1::timestamptz, '-infinity')) AS e,
           (SELECT published_seq AS entries,
                   (SELECT created_at FROM {schema}.audit_lines WHERE seq = 1 AND seq <= published_seq) AS oldest_at
              FROM {schema}.audit_head ORDER BY epoch DESC LIMIT 1) AS h
"""

_UNPUBLISH_EVENTS: Final = """
    WITH next AS (
        SELECT created_on, outbox_id FROM {schema}.outbox
         WHERE (created_on, outbox_id) > ($1::date, $2::bigint) AND published_at IS NOT NULL
           AND created_at >= coalesce($3::timestamptz, '-infinity')
         ORDER BY created_on, outbox_id LIMIT $4),
    marked AS (
        UPDATE {schema}.outbox AS o SET published_at = NULL FROM next AS n
         WHERE o.created_on = n.created_on AND o.outbox_id = n.outbox_id
        RETURNING o.created_on, o.outbox_id)
    SELECT created_on, outbox_id, count(*) OVER () AS rows FROM marked ORDER BY created_on DESC, outbox_id DESC LIMIT 1
"""

_UNPUBLISH_ENTRIES: Final = """
    WITH head AS (SELECT epoch, published_seq FROM {schema}.audit_head ORDER BY epoch DESC LIMIT 1 FOR UPDATE)
    UPDATE {schema}.audit_head AS h SET published_seq = 0, replays = h.replays + 1 FROM head WHERE h.epoch = head.epoch
    RETURNING head.published_seq
"""

_WAKE: Final = "SELECT pg_notify($1, 'supervised')"  # with the commit, the service's processes look at once

_FORGET_HISTORY: Final = "DELETE FROM {schema}.positions WHERE topic = $1"

_COUNT_UNPUBLISHED: Final = """
    SELECT (SELECT count(*) FROM {schema}.outbox WHERE published_at IS NULL)
         + (SELECT count(*) FROM {schema}.audit_outbox)
         + (SELECT seq - published_seq FROM {schema}.audit_head ORDER BY epoch DESC LIMIT 1) AS rows
"""

_FIND_PUBLISHED_TOPIC: Final = "SELECT 1 FROM {schema}.outbox WHERE published_at IS NOT NULL AND topic = $1 LIMIT 1"

_FIND_PUBLISHED_ENTRY: Final = "SELECT 1 FROM {schema}.audit_head WHERE published_seq > 0 LIMIT 1"

_FIND_EXPORT: Final = """
    SELECT export_id, request_id, subject_id, state, artefact_key, artefact_sha256, expires_on
      FROM export_builder.exports WHERE export_id = $1
"""

_SET_PAUSED: Final = "SELECT {schema}.supervise_pause($1, $2, $3) AS changed"

_RESUME_PRODUCER: Final = "SELECT audit_ledger.supervise_resume_producer($1, $2) AS is_asked"

_SET_LOG_LEVEL: Final = "SELECT {schema}.supervise_log_level($1, $2) AS changed"


_TAKE_ROTATION: Final = "SELECT pg_try_advisory_lock(hashtext('habeas keys rotate')) AS taken"

# As `sealing.store` has them for the keys of persons; a campaign's key is a data key under the campaign's id.
LOCK_CAMPAIGN_KEYS: Final = """
    SELECT campaign_id AS subject_id, 'data' AS kind, kek_id, wrapped_key AS wrapped
      FROM notification_mailer.campaigns
     WHERE (campaign_id, 'data'::text) > ($2::uuid, $3::text) AND kek_id <> $1::text
     ORDER BY campaign_id
     LIMIT $4::int
       FOR UPDATE SKIP LOCKED
"""

REWRAP_CAMPAIGN_KEYS: Final = """
    UPDATE notification_mailer.campaigns AS c
       SET kek_id = n.kek_id, wrapped_key = n.wrapped
      FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[]) AS n (campaign_id, kind, kek_id, wrapped)
     WHERE c.campaign_id = n.campaign_id
"""

COUNT_CAMPAIGN_KEYS: Final = """
    SELECT kek_id, count(*) AS keys FROM notification_mailer.campaigns WHERE kek_id IS NOT NULL GROUP BY kek_id
"""

# Whoever is writing wrapped keys ends first, and nobody begins before the end of the transaction; readers go on.
_LIMIT_LOCK_WAIT: Final = "SET LOCAL lock_timeout = '2s'"
_LOCK_WRAPPED_KEYS: Final = "LOCK TABLE sealing.subject_keys, notification_mailer.campaigns IN SHARE ROW EXCLUSIVE MODE"

_HAS_KEYS_OF_OTHERS: Final = """
    SELECT EXISTS (SELECT FROM sealing.subject_keys WHERE kek_id < $1) OR EXISTS (SELECT FROM sealing.subject_keys WHERE kek_id > $1)
           OR EXISTS (SELECT FROM notification_mailer.campaigns WHERE kek_id <> $1) AS found
"""


async def take_rotation(conn: Querying) -> bool:
    """Take the seat of whoever rotates keys, until the connection ends; False when somebody else has it."""
    row = await conn.fetchrow(_TAKE_ROTATION)
    return row is not None and bool(row["taken"])


async def shut_out_wrapping(conn: Querying) -> None:
    """Let nobody write a wrapped key until the transaction ends. Raises LockNotAvailableError when somebody writes for too long."""
    await conn.fetch(_LIMIT_LOCK_WAIT)
    await conn.fetch(_LOCK_WRAPPED_KEYS)


async def has_keys_of_others(conn: Querying, kek_id: str) -> bool:
    """Answer whether any KEK but this one wraps anything."""
    row = await conn.fetchrow(_HAS_KEYS_OF_OTHERS, kek_id)
    return row is None or bool(row["found"])


async def count_requests(conn: Querying) -> list[asyncpg.Record]:
    """Count requests by right and state, with the oldest, the next that is due, and how completed ones were answered."""
    return await conn.fetch(_COUNT_REQUESTS)


async def count_work(conn: Querying) -> list[asyncpg.Record]:
    """Count what services have not finished, by state and reason."""
    return await conn.fetch(_COUNT_WORK)


async def count_delivery(conn: Querying, service: str) -> asyncpg.Record | None:
    """Count messages that wait, are parked or are not published yet."""
    return await conn.fetchrow(_COUNT_DELIVERY.format(schema=schema_of(service)))


async def count_deadlines(conn: Querying, today: date, days: int) -> list[asyncpg.Record]:
    """Count open requests that are due within so many days or late, by right and by what keeps them open."""
    return await conn.fetch(_COUNT_DEADLINES, today, days)


async def find_replicas(conn: Querying, service: str) -> list[asyncpg.Record]:
    """Give a service's replicas that are alive, with how many lanes each holds."""
    return await conn.fetch(_FIND_REPLICAS.format(schema=schema_of(service)))


async def find_troubles(conn: Querying, service: str, now: datetime) -> list[asyncpg.Record]:
    """Give what Kafka refuses a service at present."""
    return await conn.fetch(_FIND_TROUBLES.format(schema=schema_of(service)), now - TROUBLES_KEPT)


async def find_ledger_position(conn: Querying) -> int:
    """Give the offset in the audit topic that the ledger reads next."""
    row = await conn.fetchrow(_FIND_LEDGER_POSITION)
    return 0 if row is None else int(row["position"])


async def find_request(conn: Querying, request_id: UUID) -> asyncpg.Record | None:
    """Give where a request stands."""
    return await conn.fetchrow(_FIND_REQUEST, request_id)


async def find_taken(
    conn: Querying, service: str, request_id: UUID, told: Mapping[UUID, str]
) -> Sequence[asyncpg.Record]:
    """Give the messages about a request that a service has, and those of the told ones (types by id) that it took."""
    return await conn.fetch(_FIND_TAKEN.format(schema=schema_of(service)), request_id, list(told), list(told.values()))


async def find_submission(conn: Querying, place: tuple[str, int, int]) -> asyncpg.Record:
    """Give whether request-intake has taken the record at a topic, partition and offset, and what its inbox has of it."""
    rows = await conn.fetch(_FIND_SUBMISSION, *place)
    return rows[0]


async def find_told(conn: Querying, service: str, request_id: UUID) -> Sequence[asyncpg.Record]:
    """Give the messages about a request that a service sent; reads the whole outbox."""
    return await conn.fetch(_FIND_TOLD.format(schema=schema_of(service)), request_id)


async def find_logged(conn: Querying, service: str, request_id: UUID) -> Sequence[asyncpg.Record]:
    """Give a service's audit entries about a request; reads all of them."""
    return await conn.fetch(_FIND_LOGGED.format(schema=schema_of(service)), request_id)


async def find_states(conn: Querying, request_id: UUID) -> Sequence[asyncpg.Record]:
    """Give where a request stands at the services that work on it."""
    return await conn.fetch(_FIND_STATES, request_id)


async def find_parked(conn: Querying, service: str, limit: int) -> Sequence[asyncpg.Record]:
    """Give a service's parked messages, oldest first, without their values."""
    return await conn.fetch(_FIND_PARKED.format(schema=schema_of(service)), limit)


async def find_one_parked(conn: Querying, service: str, inbox_id: int) -> asyncpg.Record | None:
    """Give one parked message without its value."""
    return await conn.fetchrow(_FIND_ONE_PARKED.format(schema=schema_of(service)), inbox_id)


async def find_parked_value(conn: Querying, service: str, inbox_id: int) -> bytes | None:
    """Give the value of one parked message as it is stored, sealed where its topic is sensitive."""
    row = await conn.fetchrow(_FIND_PARKED_VALUE.format(schema=schema_of(service)), inbox_id)
    return None if row is None else row["value"]


async def find_export(conn: Querying, export_id: UUID) -> asyncpg.Record | None:
    """Give what is needed to open an export; the artefact's key is sealed."""
    return await conn.fetchrow(_FIND_EXPORT, export_id)


async def set_paused(conn: Querying, service: str, fact_id: UUID, lane: int | None, *, wanted: bool) -> bool:
    """Pause or resume a service or one lane, on record; False when it was so already."""
    row = await conn.fetchrow(_SET_PAUSED.format(schema=schema_of(service)), fact_id, wanted, lane)
    return row is not None and bool(row["changed"])


async def set_log_level(conn: Querying, service: str, fact_id: UUID, level: str | None) -> bool:
    """Set a service's log level, or give it back to its configuration, on record; False when it was so already."""
    row = await conn.fetchrow(_SET_LOG_LEVEL.format(schema=schema_of(service)), fact_id, level)
    return row is not None and bool(row["changed"])


async def resume_producer(conn: Querying, producer: str, *, new_seed: bool) -> bool:
    """Let a halted producer of the audit log go on, on record; False when it is not halted."""
    row = await conn.fetchrow(_RESUME_PRODUCER, producer, new_seed)
    return row is not None and bool(row["is_asked"])


async def find_parked_ids(conn: Querying, service: str, reason: str | None, limit: int) -> list[int]:
    """Give the numbers of a service's parked messages, of one reason or of all, oldest first."""
    rows = await conn.fetch(_FIND_PARKED_IDS.format(schema=schema_of(service)), reason, limit)
    return [row["inbox_id"] for row in rows]


async def decide_parked(
    conn: Querying, service: str, ids: Sequence[int], facts: Sequence[UUID], because: str | None
) -> dict[int, str]:
    """Retry parked messages, or resolve them when there is a reason, on record.

    Gives "decided" or why not for each message that there is: its state, `unreadable`, `id_conflict`.
    """
    schema = schema_of(service)
    if because is None:
        rows = await conn.fetch(_RETRY_PARKED.format(schema=schema), ids, facts)
    else:
        rows = await conn.fetch(_RESOLVE_PARKED.format(schema=schema), ids, facts, because)
    return {row["message_id"]: "decided" if row["is_decided"] else row["verdict"] for row in rows}


async def count_kept(conn: Querying, service: str, since: datetime | None) -> asyncpg.Record:
    """Count the published events (since a moment) and audit entries that a service still keeps; reads all of them."""
    rows = await conn.fetch(_COUNT_KEPT.format(schema=schema_of(service)), since)
    return rows[0]


async def unpublish(conn: Querying, service: str, since: datetime | None) -> int:
    """Make what a service published unpublished, in batches, for its relay to send again; gives how many rows.

    To be run in one transaction. How far the audit topic was read is forgotten with it: it will be another topic.
    """
    schema = schema_of(service)
    rows = 0
    last_event: tuple[date, int] = (date.min, 0)
    while row := await conn.fetchrow(_UNPUBLISH_EVENTS.format(schema=schema), *last_event, since, _BATCH_ROWS):
        last_event = (row["created_on"], row["outbox_id"])
        rows += row["rows"]
    entries = await conn.fetchrow(_UNPUBLISH_ENTRIES.format(schema=schema))
    rows += 0 if entries is None else entries["published_seq"]
    await conn.fetch(_FORGET_HISTORY.format(schema=schema), AUDIT_ENTRIES.name)
    await conn.fetch(_WAKE, schema)
    return rows


async def count_unpublished(conn: Querying, service: str) -> int:
    """Count what a service has to publish."""
    row = await conn.fetchrow(_COUNT_UNPUBLISHED.format(schema=schema_of(service)))
    return 0 if row is None else int(row["rows"])


async def find_published_topics(conn: Querying, names: Sequence[str]) -> list[str]:
    """Give those of some topics to which somebody has published; reads outboxes of the topics' owners."""
    wanted = {topic.name: topic for topic in CATALOGUE if topic.name in names}
    found = []
    for name, topic in wanted.items():
        if name == AUDIT_ENTRIES.name:
            hits = [await conn.fetch(_FIND_PUBLISHED_ENTRY.format(schema=schema)) for schema in _SCHEMAS.values()]
        elif topic.owner in _SCHEMAS:
            hits = [await conn.fetch(_FIND_PUBLISHED_TOPIC.format(schema=schema_of(topic.owner)), name)]
        else:
            continue
        if any(hits):
            found.append(name)
    return found
