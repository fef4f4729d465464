"""Every SQL statement of the delivery core. Names are unqualified: ``search_path`` is the service's schema."""

from typing import Final, TypeAlias

import asyncpg

Row: TypeAlias = asyncpg.Record

# Transactions that emit into one lane end one after the other: each takes its ids under a lock that it holds until it commits. So of one
# key the ids ascend as the transactions commit, also where these share no row: else the relay could publish a later event first.
ADD_EVENTS: Final = """
    WITH alone AS MATERIALIZED (
        SELECT count(pg_advisory_xact_lock(hashtext(current_schema()), l.lane))
          FROM (SELECT DISTINCT lane::integer FROM unnest($4::smallint[]) AS lane ORDER BY lane) AS l)
    INSERT INTO outbox (created_on, created_at, event_id, lane, topic, key, type, subject, traceparent, value)
    SELECT $1::date, $2::timestamptz, n.event_id, n.lane, n.topic, n.key, n.type, n.subject, n.traceparent, n.value
      FROM unnest($3::uuid[], $4::smallint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bytea[])
           WITH ORDINALITY AS n (event_id, lane, topic, key, type, subject, traceparent, value, position), alone
     ORDER BY n.position
"""

ADD_FACTS: Final = """
    INSERT INTO audit_outbox (created_at, event_id, tail, traceparent)
    SELECT $1::timestamptz, n.event_id, n.tail, n.traceparent
      FROM unnest($2::uuid[], $3::text[], $4::text[]) WITH ORDINALITY AS n (event_id, tail, traceparent, position)
     ORDER BY n.position
"""

FIND_UNPUBLISHED: Final = """
    SELECT created_on, outbox_id, event_id, lane, topic, key, type, subject, traceparent, value, created_at
      FROM outbox
     WHERE published_at IS NULL AND lane = ANY($1::smallint[]) AND topic <> ALL($3::text[])
     ORDER BY outbox_id
     LIMIT $2
"""

MARK_PUBLISHED: Final = """
    UPDATE outbox AS o
       SET published_at = $1
      FROM unnest($2::date[], $3::bigint[]) AS n (created_on, outbox_id)
     WHERE o.created_on = n.created_on AND o.outbox_id = n.outbox_id
"""

LOCK_AUDIT_HEAD: Final = """
    SELECT epoch, seq, hash, published_seq, replays, (SELECT seed FROM audit_seed) AS seed
      FROM audit_head ORDER BY epoch DESC LIMIT 1 FOR UPDATE
"""

TAKE_FACTS: Final = """
    DELETE FROM audit_outbox AS a USING (SELECT audit_id FROM audit_outbox ORDER BY audit_id LIMIT $1) AS n
     WHERE a.audit_id = n.audit_id
    RETURNING a.audit_id, a.event_id, a.tail, a.created_at, a.traceparent
"""

ADD_LINES: Final = """
    WITH moved AS (UPDATE audit_head SET seq = $2, hash = $3 WHERE epoch = $1)
    INSERT INTO audit_lines (seq, event_id, line, created_at, traceparent)
    SELECT * FROM unnest($4::bigint[], $5::uuid[], $6::bytea[], $7::timestamptz[], $8::text[])
"""

FIND_LINES: Final = """
    SELECT seq, event_id, line, created_at, traceparent FROM audit_lines WHERE seq > $1 ORDER BY seq LIMIT $2
"""

ARE_FACTS_LEFT: Final = """
    SELECT EXISTS (SELECT FROM audit_outbox) OR EXISTS (SELECT FROM audit_head WHERE published_seq < seq) AS left
"""

# Whoever comes late moves nothing back, and says nothing about a Kafka that was filled anew or a database that was restored meanwhile.
MARK_LINES_PUBLISHED: Final = """
    WITH shown AS (UPDATE audit_seed SET shown_seq = $3 WHERE shown_seq IS NULL)
    UPDATE audit_head SET published_seq = $3 WHERE epoch = $1 AND replays = $2 AND published_seq < $3 AND seq >= $3
"""

# One statement, so that ids, rows and positions are of one moment and cost one round trip. The filter is made so that it becomes a hashed
# subplan, whatever the planner guesses: as a join it would compare every record with every other. Rows keep the order of the records.
STORE_RECORDS: Final = """
    WITH moved AS (
        INSERT INTO positions (topic, partition, next_offset) SELECT * FROM unnest($16::text[], $17::integer[], $18::bigint[])
        ON CONFLICT (topic, partition) DO UPDATE SET next_offset = greatest(positions.next_offset, EXCLUDED.next_offset)),
    fresh AS (
        INSERT INTO seen (event_id, digest, received_at) SELECT n.event_id, n.digest, $1 FROM unnest($2::uuid[], $12::bytea[])
               AS n (event_id, digest)
        ON CONFLICT (event_id) DO NOTHING
        RETURNING event_id)
    INSERT INTO inbox (received_at, next_attempt_at, event_id, topic, partition, record_offset, type, key, lane, event_at,
                       traceparent, value, digest, state, reason, field)
    SELECT $1::timestamptz, $1, n.*
      FROM unnest($2::uuid[], $3::text[], $4::integer[], $5::bigint[], $6::text[], $7::bytea[], $8::smallint[], $9::timestamptz[],
                  $10::text[], $11::bytea[], $12::bytea[], $13::text[], $14::text[], $15::text[]) AS n (event_id)
     WHERE (n.event_id IN (SELECT event_id FROM fresh)) IS TRUE
    RETURNING event_id
"""

# Without messages: none of the records was for this service.
MOVE_POSITIONS: Final = """
    INSERT INTO positions (topic, partition, next_offset) SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[])
    ON CONFLICT (topic, partition) DO UPDATE SET next_offset = greatest(positions.next_offset, EXCLUDED.next_offset)
"""

# What is handled at once leaves its id and its place, and no row in the inbox.
NOTE_RECORDS: Final = """
    WITH moved AS (
        INSERT INTO positions (topic, partition, next_offset) SELECT * FROM unnest($4::text[], $5::integer[], $6::bigint[])
        ON CONFLICT (topic, partition) DO UPDATE SET next_offset = greatest(positions.next_offset, EXCLUDED.next_offset))
    INSERT INTO seen (event_id, digest, received_at)
    SELECT n.event_id, n.digest, $1 FROM unnest($2::uuid[], $3::bytea[]) AS n (event_id, digest)
    ON CONFLICT (event_id) DO NOTHING
"""

# Outside of every transaction that does work: commits that notify wait for one another.
TELL: Final = "SELECT pg_notify($1, n) FROM unnest($2::text[]) AS n"

FIND_POSITIONS: Final = "SELECT topic, partition, next_offset FROM positions WHERE topic = ANY($1::text[])"

FIND_POSITION: Final = "SELECT next_offset FROM positions WHERE topic = $1 AND partition = $2"

FIND_AUDIT_HEAD: Final = "SELECT epoch, seq, hash FROM audit_head ORDER BY epoch DESC LIMIT 1"

FIND_AUDIT_SEED: Final = "SELECT seed, shown_seq FROM audit_seed"

SET_SHOWN_SEQ: Final = "UPDATE audit_seed SET shown_seq = $1 WHERE shown_seq IS NULL OR shown_seq < $1"

FIND_AUDIT_LINES: Final = "SELECT seq, line FROM audit_lines WHERE seq = ANY($1::bigint[])"

FIND_SERVER: Final = """
    SELECT pg_postmaster_start_time() AS started_at, (SELECT system_identifier FROM pg_control_system()) AS system_id
"""

SET_POSITION: Final = """
    INSERT INTO positions (topic, partition, next_offset) VALUES ($1, $2, $3)
    ON CONFLICT (topic, partition) DO UPDATE SET next_offset = EXCLUDED.next_offset
"""

SET_POSITIONS: Final = """
    INSERT INTO positions (topic, partition, next_offset) SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[])
    ON CONFLICT (topic, partition) DO UPDATE SET next_offset = EXCLUDED.next_offset
"""

FIND_DIGESTS: Final = "SELECT event_id, digest FROM seen WHERE event_id = ANY($1::uuid[])"

# A row of a held lane is due when its time has come and no earlier message of its key stands in the way. The share lock on the
# lanes is the fence: whoever wants to take a lane over waits until this transaction ends, and a changed token finds no lane here.
# Lanes are always locked in their order. A time further ahead than any wait was given by a clock that has been put right since.
CLAIM: Final = """
    WITH held AS MATERIALIZED (
        SELECT l.lane
          FROM lanes AS l JOIN unnest($2::smallint[], $3::bigint[]) AS mine (lane, token) USING (lane, token)
         WHERE l.holder = $1 AND l.paused_at IS NULL
         ORDER BY l.lane
           FOR SHARE OF l)
    SELECT i.inbox_id, i.event_id, i.topic, i.type, i.key, i.event_at, i.traceparent, i.value, i.received_at, i.attempts
      FROM inbox AS i
     WHERE i.state = 'pending' AND i.lane = ANY(ARRAY(SELECT lane FROM held))
       AND (i.attempts = 0 OR i.next_attempt_at <= $4 OR i.next_attempt_at > $4 + $6::interval)
       AND NOT EXISTS (SELECT FROM inbox AS b WHERE b.blocks AND b.key = i.key AND b.inbox_id < i.inbox_id)
     ORDER BY i.inbox_id
     LIMIT $5
"""

# When the next message can be claimed, by the same conditions: now, or when one that waits is due. Those behind it of its key come with it.
FIND_NEXT_MESSAGE: Final = """
    WITH free AS MATERIALIZED (SELECT lane FROM lanes WHERE lane = ANY($1::smallint[]) AND paused_at IS NULL)
    SELECT CASE WHEN EXISTS (
                SELECT FROM inbox AS i
                 WHERE i.state = 'pending' AND i.lane = ANY(ARRAY(SELECT lane FROM free)) AND i.attempts = 0
                   AND NOT EXISTS (SELECT FROM inbox AS b WHERE b.blocks AND b.key = i.key AND b.inbox_id < i.inbox_id))
           THEN $2::timestamptz
           ELSE (SELECT min(CASE WHEN i.next_attempt_at > $2 + $3::interval THEN $2 ELSE i.next_attempt_at END)
                   FROM inbox AS i
                  WHERE i.state = 'pending' AND i.lane = ANY(ARRAY(SELECT lane FROM free)) AND i.attempts > 0
                    AND NOT EXISTS (SELECT FROM inbox AS b WHERE b.blocks AND b.key = i.key AND b.inbox_id < i.inbox_id))
           END AS due_at
"""

# The same fence for what is handled at once, and whether the inbox has anything of these keys: it would be overtaken. The ids were noted by
# a statement of its own before: had that waited for another replica's transaction, this one sees what that one stored.
FENCE: Final = """
    WITH held AS MATERIALIZED (
        SELECT l.lane
          FROM lanes AS l JOIN unnest($2::smallint[], $3::bigint[]) AS mine (lane, token) USING (lane, token)
         WHERE l.holder = $1 AND l.paused_at IS NULL
         ORDER BY l.lane
           FOR SHARE OF l)
    SELECT (SELECT count(*) FROM held) AS lanes,
           EXISTS (SELECT FROM inbox WHERE state = 'pending' AND key = ANY($4::bytea[]))
           OR EXISTS (SELECT FROM inbox WHERE blocks AND key = ANY($4::bytea[])) AS is_overtaking
"""

DROP_HANDLED: Final = "DELETE FROM inbox WHERE inbox_id = ANY($1::bigint[])"

MARK_PARKED: Final = """
    UPDATE inbox AS i
       SET state = 'parked', handled_at = $1, reason = n.reason, field = n.field, blocks = n.blocks
      FROM unnest($2::bigint[], $3::text[], $4::text[], $5::boolean[]) AS n (inbox_id, reason, field, blocks)
     WHERE i.inbox_id = n.inbox_id
"""

MARK_WAITING: Final = """
    UPDATE inbox AS i
       SET attempts = i.attempts + 1, next_attempt_at = n.next_attempt_at, reason = n.reason, blocks = true
      FROM unnest($1::bigint[], $2::timestamptz[], $3::text[]) AS n (inbox_id, next_attempt_at, reason)
     WHERE i.inbox_id = n.inbox_id
"""

DROP_RESOLVED: Final = """
    DELETE FROM inbox WHERE inbox_id IN (
        SELECT inbox_id FROM inbox WHERE state = 'resolved' AND handled_at < $1 ORDER BY handled_at LIMIT $2)
"""

# An id is remembered for as long as its message lies in the inbox, however old it is. As many are looked at as could be kept for that,
# and some more: old messages that stay never hide the ids behind them.
FORGET_SEEN: Final = """
    WITH old AS (
        SELECT event_id FROM seen WHERE received_at < $1 ORDER BY received_at LIMIT $2 + (SELECT count(*) FROM inbox))
    DELETE FROM seen AS s USING (SELECT event_id FROM old EXCEPT SELECT event_id FROM inbox) AS n WHERE s.event_id = n.event_id
    RETURNING s.event_id
"""

COUNT_INBOX: Final = """
    SELECT count(*) FILTER (WHERE state = 'pending') AS pending, count(*) FILTER (WHERE state = 'parked') AS parked,
           min(received_at) FILTER (WHERE state = 'pending') AS oldest_pending_at
      FROM inbox WHERE state IN ('pending', 'parked')
"""

COUNT_OUTBOX: Final = """
    SELECT e.rows + f.rows + h.seq - h.published_seq AS unpublished,
           LEAST(e.oldest_at, f.oldest_at, (SELECT created_at FROM audit_lines WHERE seq = h.published_seq + 1)) AS oldest_unpublished_at
      FROM (SELECT count(*) AS rows, min(created_at) AS oldest_at FROM outbox WHERE published_at IS NULL) AS e,
           (SELECT count(*) AS rows, min(created_at) AS oldest_at FROM audit_outbox) AS f,
           (SELECT seq, published_seq FROM audit_head ORDER BY epoch DESC LIMIT 1) AS h
"""

FIND_CONTROL: Final = """
    SELECT paused_at, log_level, ARRAY(SELECT lane FROM lanes WHERE paused_at IS NOT NULL ORDER BY lane) AS lanes FROM control
"""

COUNT_LANES: Final = """
    SELECT count(*) FILTER (WHERE holder IS NULL OR expires_at < now()) AS free,
           (SELECT count(*) FROM replicas WHERE expires_at >= now()) AS replicas
      FROM lanes
"""

# A trouble that was not seen for long had ended, or its writer had, before it began anew.
NOTE_TROUBLE: Final = """
    INSERT INTO troubles AS t (work, topic, reason, bytes, since, seen_at) VALUES ($1, $2, $3, $4, $5, $5)
    ON CONFLICT (work, topic) DO UPDATE
       SET reason = EXCLUDED.reason, bytes = EXCLUDED.bytes, seen_at = EXCLUDED.seen_at,
           since = CASE WHEN t.seen_at < $6 THEN EXCLUDED.since ELSE t.since END
"""

END_TROUBLES: Final = "DELETE FROM troubles WHERE work = $1 AND topic = ANY($2::text[])"

FORGET_TROUBLES: Final = "DELETE FROM troubles"

FIND_TROUBLES: Final = "SELECT work, topic, reason, bytes, since FROM troubles WHERE seen_at >= $1 ORDER BY work, topic"

NAME_REQUESTS: Final = """
    UPDATE inbox AS i SET request_id = n.request_id FROM unnest($1::uuid[], $2::uuid[]) AS n (event_id, request_id)
     WHERE i.event_id = n.event_id
"""

MAKE_PARTITIONS: Final = "SELECT outbox_make_partitions($1, $2)"
DROP_PARTITIONS: Final = "SELECT outbox_drop_partitions($1)"

# Leases run on the database's clock, the only one that all replicas share.
HEARTBEAT: Final = """
    INSERT INTO replicas (holder, instance, expires_at) VALUES ($1, $2, now() + $3::interval)
    ON CONFLICT (holder) DO UPDATE SET expires_at = EXCLUDED.expires_at
"""

INHERIT_LANES: Final = """
    UPDATE lanes SET holder = $1, token = token + 1, expires_at = now() + $3::interval
     WHERE lane IN (SELECT lane FROM lanes
                     WHERE holder IN (SELECT holder FROM replicas WHERE instance = $2 AND holder <> $1)
                     ORDER BY lane FOR NO KEY UPDATE)
"""

FORGET_PREDECESSORS: Final = "DELETE FROM replicas WHERE instance = $2 AND holder <> $1"

FORGET_DEAD_REPLICAS: Final = "DELETE FROM replicas WHERE expires_at < now() - interval '1 minute'"

# All that a replica has to write while nothing changes, in one round trip: its sign of life and its leases.
KEEP_LANES: Final = """
    WITH alive AS (
        UPDATE replicas SET expires_at = now() + $3::interval WHERE holder = $1 RETURNING holder),
    renewed AS (
        UPDATE lanes SET expires_at = now() + $3::interval
         WHERE EXISTS (SELECT FROM alive)
           AND lane IN (SELECT lane FROM lanes WHERE holder = $1 ORDER BY lane FOR NO KEY UPDATE)
        RETURNING lane, token),
    others AS (
        SELECT count(*) AS replicas, count(*) FILTER (WHERE (instance, holder) < ($2::integer, $1::uuid)) AS rank,
               count(*) FILTER (WHERE expires_at < now()) AS silent
          FROM replicas WHERE holder <> $1)
    SELECT (SELECT array_agg(lane ORDER BY lane) FROM renewed) AS lanes, (SELECT array_agg(token ORDER BY lane) FROM renewed) AS tokens,
           o.replicas, o.rank, o.silent,
           (SELECT extract(epoch FROM min(expires_at) - now())::float8 FROM lanes WHERE holder IS NOT NULL AND holder <> $1)
               AS next_expiry_s
      FROM others AS o
"""

COUNT_REPLICAS: Final = """
    SELECT count(*) AS replicas, count(*) FILTER (WHERE (instance, holder) < ($2::integer, $1::uuid)) AS rank
      FROM replicas WHERE expires_at >= now()
"""

FIND_NEXT_EXPIRY: Final = """
    SELECT extract(epoch FROM min(expires_at) - now())::float8 FROM lanes WHERE holder IS NOT NULL AND holder <> $1
"""

RENEW_LANES: Final = """
    UPDATE lanes SET expires_at = now() + $2::interval
     WHERE lane IN (SELECT lane FROM lanes WHERE holder = $1 ORDER BY lane FOR NO KEY UPDATE)
    RETURNING lane, token
"""

TAKE_LANES: Final = """
    UPDATE lanes SET holder = $1, token = token + 1, expires_at = now() + $2::interval
     WHERE lane IN (SELECT lane FROM lanes WHERE expires_at < now() OR holder IS NULL
                     ORDER BY lane LIMIT $3 FOR UPDATE SKIP LOCKED)
    RETURNING lane, token
"""

RELEASE_LANES: Final = """
    UPDATE lanes SET holder = NULL, token = token + 1, expires_at = '-infinity'
     WHERE lane IN (SELECT lane FROM lanes WHERE holder = $1 AND lane = ANY($2::smallint[]) ORDER BY lane FOR NO KEY UPDATE)
"""

LEAVE: Final = "DELETE FROM replicas WHERE holder = $1"
