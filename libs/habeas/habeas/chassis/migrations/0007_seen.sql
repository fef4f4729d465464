-- The inbox is a queue: it holds what waits, what is parked and what was resolved, and a message leaves it when it is handled. Which ids came
-- before stands in a table of its own, which is only added to and, three weeks later, cut off at its old end.

CREATE TABLE seen (
    event_id    uuid        PRIMARY KEY,
    digest      bytea       NOT NULL,  -- SHA-256 of the value, or its fingerprint on sensitive topics
    received_at timestamptz NOT NULL
);
INSERT INTO seen (event_id, digest, received_at)
SELECT event_id, digest, greatest(received_at, handled_at) FROM inbox;  -- nothing is forgotten earlier than it would have been
CREATE INDEX seen_received ON seen (received_at);

DELETE FROM inbox WHERE state = 'handled';
ALTER TABLE inbox DROP CONSTRAINT inbox_event_id_key, DROP CONSTRAINT inbox_state_check,
    ADD CONSTRAINT inbox_state_check CHECK (state IN ('pending', 'parked', 'resolved'));
DROP INDEX inbox_handled;
CREATE INDEX inbox_resolved ON inbox (handled_at) WHERE state = 'resolved';
-- Cutting an empty end off the file would need a lock that stops the service, and the queue grows there again at once.
ALTER TABLE inbox RESET (fillfactor);
ALTER TABLE inbox SET (vacuum_truncate = off);
