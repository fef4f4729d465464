"""The statements of `habeas recover`: what the database has lost, and what is written down in its place."""

from typing import Final

FIND_ALL_POSITIONS: Final = "SELECT topic, partition, next_offset FROM positions"

FIND_UNKNOWN_REQUESTS: Final = """
    SELECT DISTINCT told.request_id FROM unnest($1::uuid[]) AS told (request_id)
     WHERE NOT EXISTS (SELECT FROM request_intake.requests AS r WHERE r.request_id = told.request_id)
     ORDER BY told.request_id
"""

FIND_KEYED_SUBJECTS: Final = """
    SELECT subject_id FROM sealing.subject_keys WHERE subject_id = ANY($1::uuid[]) AND kind = 'data'
"""

# A message that is known by its id has no effect when it is read again.
ADD_SEEN: Final = """
    INSERT INTO seen (event_id, digest, received_at)
    SELECT n.event_id, n.digest, $1 FROM unnest($2::uuid[], $3::bytea[]) AS n (event_id, digest)
    ON CONFLICT (event_id) DO NOTHING
"""

ADD_TOMBSTONES: Final = """
    INSERT INTO erasure_executor.tombstones (account_fingerprint, subject_id, request_id, erased_at)
    SELECT * FROM unnest($1::bytea[], $2::uuid[], $3::uuid[], $4::timestamptz[])
    ON CONFLICT (account_fingerprint) DO NOTHING
"""

# A fact that was waiting at the restored moment got its number afterwards: it is that entry, and not one more.
ADOPT_ENTRIES: Final = """
    WITH told AS (
        SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[], $4::bytea[]) AS n (event_id, created_at, seq, line)),
    known AS (
        DELETE FROM audit_outbox WHERE (event_id IN (SELECT event_id FROM told)) IS TRUE)
    INSERT INTO audit_lines (seq, event_id, created_at, line) SELECT seq, event_id, created_at, line FROM told ORDER BY seq
"""

# Lines that were not published at the restored moment are published again, and those that were told with them: copies, known by their
# numbers.
ADOPT_HEAD: Final = """
    UPDATE audit_head SET seq = $2, hash = $3, published_seq = CASE published_seq WHEN seq THEN $2 ELSE published_seq END WHERE epoch = $1
"""

TELL_MAILS: Final = """
    INSERT INTO notification_mailer.messages AS m (mail_id, kind, state, request_id, next_attempt_at, queued_at, ended_at)
    SELECT n.mail_id, n.kind, n.state, n.request_id, $1, $1, $1
      FROM unnest($2::uuid[], $3::text[], $4::text[], $5::uuid[]) AS n (mail_id, kind, state, request_id)
    ON CONFLICT (mail_id) DO UPDATE
       SET state = EXCLUDED.state, ended_at = $1, account = NULL, content = NULL, holder = NULL, lease_until = NULL
     WHERE m.state NOT IN ('sent', 'refused', 'suppressed')
"""

# Of the answers that the mailer's database has not heard of: where no store knew an address, no mail was ever written.
DOUBT_ANSWERS: Final = """
    INSERT INTO notification_mailer.messages AS m (mail_id, kind, state, request_id, next_attempt_at, queued_at, ended_at)
    SELECT n.mail_id, 'outcome',
           CASE WHEN n.has_address AND NOT EXISTS (SELECT FROM notification_mailer.contacts AS c
                                                    WHERE c.request_id = n.request_id AND c.contact IS NULL)
                THEN 'uncertain' ELSE 'suppressed' END,
           n.request_id, $1, $1, $1
      FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::boolean[]) AS n (mail_id, request_id, event_id, has_address)
     WHERE NOT EXISTS (SELECT FROM notification_mailer.seen AS s WHERE s.event_id = n.event_id)
    ON CONFLICT DO NOTHING
    RETURNING m.request_id, m.state
"""

# Announced, so that nobody is mailed again; what was said is taken over when the change is read again.
ADD_ANNOUNCED: Final = """
    INSERT INTO notification_mailer.campaigns AS c (campaign_id, change_id, state, version, summary, url, content_digest, effective_on,
           earliest_effective_on, scheduled_at, ended_at, sent, refused, uncertain, suppressed, last_sent_at)
    SELECT n.campaign_id, n.change_id, 'notified', '', '{}', '', decode(repeat('00', 32), 'hex'), n.effective_on,
           n.earliest_effective_on, $1, $1, n.sent, n.refused, n.uncertain, n.suppressed, n.last_sent_at
      FROM unnest($2::uuid[], $3::text[], $4::date[], $5::date[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[],
                  $10::timestamptz[])
           AS n (campaign_id, change_id, effective_on, earliest_effective_on, sent, refused, uncertain, suppressed, last_sent_at)
    ON CONFLICT DO NOTHING
    RETURNING c.change_id
"""

DOUBT_MAILS: Final = """
    UPDATE notification_mailer.messages
       SET state = 'uncertain', ended_at = $1, account = NULL, holder = NULL, lease_until = NULL
     WHERE state NOT IN ('sent', 'refused', 'uncertain', 'suppressed')
    RETURNING mail_id, kind, request_id
"""
