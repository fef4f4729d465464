"""A journal of what workers handled. An inbox forgets a message in the transaction that handles it; judges do not.

The table ``handled`` of a schema gets every pending row that leaves the inbox, in the transaction in which it leaves, so that ``xmin``
tells which one that was. The view ``taken`` is the inbox and the journal together: whatever was ever stored, with its state.
"""

from collections.abc import Iterable
from typing import Final

import asyncpg

UNLOGGED: Final = """
    SELECT (SELECT count(*) FROM {schema}.audit_outbox) + (SELECT seq - published_seq FROM {schema}.audit_head)
"""
"""How many audit facts of a schema are not numbered, or not published."""

_COLUMNS: Final = """
    inbox_id, event_id, topic, partition, record_offset, type, key, lane, event_at, traceparent, value, digest, received_at, state, blocks,
    attempts, next_attempt_at, reason, field, handled_at
"""

_MAKE: Final = """
    CREATE TABLE {schema}.handled (LIKE {schema}.inbox);
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
    CREATE VIEW {schema}.taken AS
        SELECT {columns}, xmin::text::bigint AS xid FROM {schema}.inbox
        UNION ALL
        SELECT {columns}, xmin::text::bigint FROM {schema}.handled;
"""


async def keep_journal(owner_dsn: str, schemas: Iterable[str]) -> None:
    """Begin a journal in each of these schemas; before the first message, as what was handled before is not in it."""
    owner = await asyncpg.connect(owner_dsn)
    try:
        for schema in schemas:
            await owner.execute(_MAKE.format(schema=schema, columns=_COLUMNS))
    finally:
        await owner.close()
