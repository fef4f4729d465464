-- What each producer's last entry pledged: the next one has to show the secret that hashes to it (contracts/pledges.py).

ALTER TABLE audit_ledger.producers
    ADD COLUMN pledged text CHECK (pledged ~ '^([0-9a-f]{64}|open)$'),  -- null: it never pledged; open: a person lets whoever links on, pledge
    ADD COLUMN resume_new_seed boolean NOT NULL DEFAULT false,          -- what cannot show the secret is to be taken too
    DROP CONSTRAINT producers_halted_reason_check,
    ADD CONSTRAINT producers_halted_reason_check CHECK (halted_reason IN ('gap', 'equivocation', 'broken_link', 'bad_grammar', 'unproven'));

ALTER TABLE audit_ledger.refused
    ADD COLUMN pledge bytea,                                            -- what the record showed, if it had the form of it
    DROP CONSTRAINT refused_reason_check,
    ADD CONSTRAINT refused_reason_check CHECK (reason IN ('gap', 'equivocation', 'broken_link', 'bad_grammar', 'unproven'));

-- Let a halted producer go on: a supervisor has looked (`habeas audit resume`). The service puts it into the log as `producer.resumed`, and the
-- producer goes on where that entry stands; with a new seed, what cannot show the secret is taken too. Gives whether it was halted.
CREATE FUNCTION audit_ledger.supervise_resume_producer(name text, new_seed boolean) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE audit_ledger.producers SET resume_asked_at = now(), resume_told_at = NULL, resume_new_seed = new_seed
     WHERE producer = name AND state = 'halted';
    RETURN FOUND;
END $$;

-- Where the role was made before; deploy/postgres/roles.sql grants the same where it is made after.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'habeas_supervisor') THEN
        GRANT EXECUTE ON FUNCTION audit_ledger.supervise_resume_producer(text, boolean) TO habeas_supervisor;
    END IF;
END $$;
