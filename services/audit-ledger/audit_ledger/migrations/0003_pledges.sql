-- What each producer's last entry pledged: the next one has to show the secret that hashes to it (contracts/pledges.py).

ALTER TABLE audit_ledger.producers
    ADD COLUMN pledged text CHECK (pledged ~ '^([0-9a-f]{64}|open)$'),  -- null: it never pledged; open: a person lets whoever links on, pledge
    DROP CONSTRAINT producers_halted_reason_check,
    ADD CONSTRAINT producers_halted_reason_check CHECK (halted_reason IN ('gap', 'equivocation', 'broken_link', 'bad_grammar', 'unproven'));

ALTER TABLE audit_ledger.refused
    ADD COLUMN pledge bytea,                                            -- what the record showed, if it had the form of it
    DROP CONSTRAINT refused_reason_check,
    ADD CONSTRAINT refused_reason_check CHECK (reason IN ('gap', 'equivocation', 'broken_link', 'bad_grammar', 'unproven'));
