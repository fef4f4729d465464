-- KEKs that wrap nothing any more, and never may again: a process that still wraps by one, because it holds an old copy of the key ring, is
-- refused and not believed. Written by `habeas keys rotate`, under locks that no writer of wrapped keys shares.
CREATE TABLE sealing.retired_keks (
    kek_id     text        PRIMARY KEY,
    retired_at timestamptz NOT NULL
);

-- For the table of wrapped keys of each service that has one: the new rows of a statement are `written`.
CREATE FUNCTION sealing.refuse_retired_keks() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM written AS w JOIN sealing.retired_keks AS r ON r.kek_id = w.kek_id) THEN
        RAISE check_violation USING MESSAGE = 'a key was wrapped by a retired KEK: this process has an old key ring';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER inserted_by_retired_kek AFTER INSERT ON sealing.subject_keys
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION sealing.refuse_retired_keks();
CREATE TRIGGER updated_by_retired_kek AFTER UPDATE ON sealing.subject_keys
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION sealing.refuse_retired_keks();
