-- A campaign's key is wrapped as the keys of persons are, and is refused like theirs when the KEK is retired.
CREATE TRIGGER inserted_by_retired_kek AFTER INSERT ON notification_mailer.campaigns
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION sealing.refuse_retired_keks();
CREATE TRIGGER updated_by_retired_kek AFTER UPDATE ON notification_mailer.campaigns
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION sealing.refuse_retired_keks();

-- The SHA-256 of a mail could be guessed from what is known of a person; nobody has ever read it.
ALTER TABLE notification_mailer.messages DROP COLUMN digest;
