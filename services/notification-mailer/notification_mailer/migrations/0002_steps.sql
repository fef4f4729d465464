-- A mail takes three steps after it is queued. No index looks at its state, so that the one from sending to dot changes no indexed column
-- (a heap-only update), and the others enter no index twice.

DROP INDEX notification_mailer.messages_due;
DROP INDEX notification_mailer.messages_due_campaign;
DROP INDEX notification_mailer.messages_held;
DROP INDEX notification_mailer.messages_open;

ALTER TABLE notification_mailer.messages
    SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1),
    ADD CHECK ((ended_at IS NULL) = (state IN ('queued', 'sending', 'dot')));

-- Who has neither a holder nor an end is queued.
CREATE INDEX messages_due ON notification_mailer.messages (next_attempt_at)
    WHERE holder IS NULL AND ended_at IS NULL AND campaign_id IS NULL;
CREATE INDEX messages_due_campaign ON notification_mailer.messages (next_attempt_at)
    WHERE holder IS NULL AND ended_at IS NULL AND campaign_id IS NOT NULL;
CREATE INDEX messages_held ON notification_mailer.messages (holder) WHERE holder IS NOT NULL;
CREATE INDEX messages_open ON notification_mailer.messages (campaign_id) WHERE campaign_id IS NOT NULL AND ended_at IS NULL;
