-- Wrapped keys of data subjects. Destroying a key is deleting its row: nothing marks a row as gone.
CREATE SCHEMA IF NOT EXISTS sealing;

CREATE TABLE sealing.subject_keys (
    subject_id uuid        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('data', 'case')),
    kek_id     text        NOT NULL,
    wrapped    bytea       NOT NULL CHECK (octet_length(wrapped) = 60),  -- 12 nonce, 32 key, 16 tag
    created_at timestamptz NOT NULL,
    PRIMARY KEY (subject_id, kind)
);

-- KeyStore.rewrap looks for rows of retired key-encryption keys.
CREATE INDEX subject_keys_kek ON sealing.subject_keys (kek_id);

-- Every service may read and make keys; only erasure_executor may destroy them. A role that does not exist yet gets nothing.
DO $$
DECLARE
    service text;
BEGIN
    FOR service IN
        SELECT rolname FROM pg_roles
         WHERE rolname IN ('request_intake', 'erasure_executor', 'export_builder', 'retention_sweeper', 'notification_mailer', 'audit_ledger')
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA sealing TO %I', service);
        EXECUTE format('GRANT SELECT, INSERT ON sealing.subject_keys TO %I', service);
        IF service = 'erasure_executor' THEN
            EXECUTE format('GRANT DELETE ON sealing.subject_keys TO %I', service);
        END IF;
    END LOOP;
END
$$;
