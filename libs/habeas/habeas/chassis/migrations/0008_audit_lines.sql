-- Audit facts wait in a queue and leave it when they are numbered. The lines made of them are only added to a table of their own, and how far
-- they were published is one number: they are numbered without gaps and published in this order.

CREATE TABLE audit_lines (
    seq         bigint      PRIMARY KEY,
    event_id    uuid        NOT NULL,
    created_at  timestamptz NOT NULL,
    traceparent text,
    line        bytea       NOT NULL       -- made once, never rendered again
);
INSERT INTO audit_lines (seq, event_id, created_at, traceparent, line)
SELECT seq, event_id, created_at, traceparent, line FROM audit_outbox WHERE seq IS NOT NULL ORDER BY seq;

ALTER TABLE audit_head
    ADD COLUMN published_seq bigint  NOT NULL DEFAULT 0,  -- every line up to here was acknowledged by Kafka
    ADD COLUMN replays       integer NOT NULL DEFAULT 0;  -- grows when all is published anew: who began before says nothing about it
UPDATE audit_head SET published_seq = least(seq, coalesce(
    (SELECT min(seq) - 1 FROM audit_outbox WHERE seq IS NOT NULL AND published_at IS NULL), seq));
ALTER TABLE audit_head ADD CHECK (published_seq BETWEEN 0 AND seq);
ALTER TABLE audit_head SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

DELETE FROM audit_outbox WHERE seq IS NOT NULL;
ALTER TABLE audit_outbox DROP COLUMN seq, DROP COLUMN line, DROP COLUMN published_at;  -- and the indexes over them
ALTER TABLE audit_outbox SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1, vacuum_truncate = off);
