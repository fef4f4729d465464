-- Mails that somebody has are looked for in the order of their ids: an index in that order is never worse than the one of all mails.

DROP INDEX notification_mailer.messages_held;
CREATE INDEX messages_held ON notification_mailer.messages (mail_id) WHERE holder IS NOT NULL;
