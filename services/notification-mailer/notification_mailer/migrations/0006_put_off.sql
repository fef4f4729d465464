-- Why no letter could be written the last time; null once one was.

ALTER TABLE notification_mailer.messages ADD COLUMN stuck_reason text;
