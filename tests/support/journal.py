"""A journal of what workers handled. An inbox forgets a message in the transaction that handles it; judges do not.

The table ``handled`` of a schema gets every pending row that leaves the inbox, and every id that was noted without lying there, in the
transaction in which that happens, so that ``xmin`` tells which one it was. The view ``taken`` is the inbox and the journal together:
whatever ever came, with its state. What was handled at once left nothing but its id: topic, type, key and place in the order of sending
are those of the outbox that it came from, and unknown for what a platform sent.
"""

from collections.abc import Iterable
from typing import Final

import asyncpg

from habeas_embedded.provision import SERVICES

UNLOGGED: Final = """
    SELECT (SELECT count(*) FROM {schema}.audit_outbox) + (SELECT seq - published_seq FROM {schema}.audit_head)
"""
"""How many audit facts of a schema are not numbered, or not published."""

_COLUMNS: Final = """
    inbox_id, event_id, topic, partition, record_offset, type, key, lane, event_at, traceparent, value, digest, received_at, state, blocks,
    attempts, next_attempt_at, reason, field, handled_at
"""
_SENT: Final = " UNION ALL ".join(
    f"SELECT outbox_id, event_id, topic, type, key, lane FROM {service.replace('-', '_')}.outbox"
    for service in SERVICES
)
_MAKE: Final = """
    CREATE TABLE {schema}.handled AS SELECT {columns} FROM {schema}.inbox WITH NO DATA;
    CREATE FUNCTION {schema}.note_handled() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema} AS $$
    BEGIN
        INSERT INTO handled ({columns})
        SELECT inbox_id, event_id, topic, partition, record_offset, type, key, lane, event_at, traceparent, NULL, digest, received_at,
               'handled', false, attempts, next_attempt_at, NULL, NULL, clock_timestamp()
          FROM gone WHERE state = 'pending' ORDER BY inbox_id;
        RETURN NULL;
    END $$;
    CREATE TRIGGER inbox_handled AFTER DELETE ON {schema}.inbox REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION {schema}.note_handled();
    CREATE FUNCTION {schema}.note_at_once() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema} AS $$
    BEGIN
        INSERT INTO handled (event_id, digest, received_at, state, blocks, attempts, handled_at)
        SELECT event_id, digest, received_at, 'handled', false, 0, clock_timestamp() FROM noted
         WHERE event_id NOT IN (SELECT event_id FROM inbox);
        RETURN NULL;
    END $$;
    CREATE TRIGGER seen_at_once AFTER INSERT ON {schema}.seen REFERENCING NEW TABLE AS noted
        FOR EACH STATEMENT EXECUTE FUNCTION {schema}.note_at_once();
    CREATE VIEW {schema}.taken AS
        SELECT {columns}, xmin::text::bigint AS xid, NULL::bigint AS sent_id FROM {schema}.inbox
        UNION ALL
        SELECT h.inbox_id, event_id, coalesce(h.topic, s.topic), h.partition, h.record_offset, coalesce(h.type, s.type),
               coalesce(h.key, convert_to(s.key, 'UTF8')), coalesce(h.lane, s.lane), h.event_at, h.traceparent, h.value, h.digest,
               h.received_at, h.state, h.blocks, h.attempts, h.next_attempt_at, h.reason, h.field, h.handled_at, h.xmin::text::bigint,
               s.outbox_id
          FROM {schema}.handled AS h LEFT JOIN ({sent}) AS s USING (event_id);
"""


async def keep_journal(owner_dsn: str, schemas: Iterable[str]) -> None:
    """Begin a journal in each of these schemas; before the first message, as what was handled before is not in it."""
    owner = await asyncpg.connect(owner_dsn)
    try:
        for schema in schemas:
            await owner.execute(_MAKE.format(schema=schema, columns=_COLUMNS, sent=_SENT))
    finally:
        await owner.close()
