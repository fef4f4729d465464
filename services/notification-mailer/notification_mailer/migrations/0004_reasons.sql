-- Why nobody will deliver a mail, and how often the reply to its final dot was lost: after a few times it is not sent again.

ALTER TABLE notification_mailer.messages
    ADD COLUMN refusal text,
    ADD COLUMN doubts  integer NOT NULL DEFAULT 0;
