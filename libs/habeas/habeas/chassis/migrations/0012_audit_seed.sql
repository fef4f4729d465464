-- What the secrets of the service's audit entries are derived from (contracts/pledges.py). It is made here, once, and never leaves the
-- schema but by backups: a restored database has it back. Operators do not see it, and the service cannot change it.

CREATE TABLE audit_seed (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    seed      bytea   NOT NULL CHECK (octet_length(seed) = 32),
    shown_seq bigint                       -- up to which number the topic is known to hold entries with these secrets; null: none yet
);
INSERT INTO audit_seed (seed) SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));  -- 244 random bits

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY[current_schema()::text, 'habeas_operator'] LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role);
        EXECUTE format('REVOKE ALL ON audit_seed FROM %I', role);
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = current_schema()) THEN
        EXECUTE format('GRANT SELECT, UPDATE (shown_seq) ON audit_seed TO %I', current_schema());
    END IF;
END $$;
