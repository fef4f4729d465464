-- What supervisors set while a service runs: one row of settings, lanes that stand still. Every change is one call of a function named
-- supervise_…, which also puts it on record: who may call it can do nothing else, and nothing without a trace.

CREATE TABLE control (
    is_only   boolean PRIMARY KEY DEFAULT true CHECK (is_only),  -- one row
    paused_at timestamptz,
    log_level text CHECK (log_level IN ('debug', 'info', 'warning', 'error'))  -- null: as configured
);
INSERT INTO control DEFAULT VALUES;

ALTER TABLE lanes ADD COLUMN paused_at timestamptz;

-- Writes a fact in the grammar of the audit log, whose parts are chosen here and by nobody else.
CREATE FUNCTION record_supervision(fact_id uuid, action text, outcome text, number bigint) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO audit_outbox (event_id, tail, created_at)
    VALUES (fact_id,
            'time=' || to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') || ' action=' || action
            || ' request=- subject=- outcome=' || coalesce(outcome, '-') || ' count=' || coalesce(number::text, '-')
            || ' commitments=-',
            now())
$$;

-- Pause or resume the service, or one of its message lanes; false when it was so already, and then nothing is recorded.
CREATE FUNCTION supervise_pause(fact_id uuid, wanted boolean, only_lane integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF only_lane IS NULL THEN
        UPDATE control SET paused_at = CASE WHEN wanted THEN now() END WHERE (paused_at IS NOT NULL) <> wanted;
    ELSIF only_lane NOT BETWEEN 0 AND 15 THEN
        RAISE invalid_parameter_value USING MESSAGE = 'message lanes are 0 to 15';
    ELSE
        -- Waits for the batch that holds the lane: once this has committed, nothing of the lane is being handled.
        UPDATE lanes SET paused_at = CASE WHEN wanted THEN now() END WHERE lane = only_lane AND (paused_at IS NOT NULL) <> wanted;
    END IF;
    IF FOUND THEN
        PERFORM record_supervision(fact_id, CASE WHEN only_lane IS NULL THEN 'service.' ELSE 'lane.' END
                                        || CASE WHEN wanted THEN 'paused' ELSE 'resumed' END, NULL, only_lane);
        RETURN true;
    END IF;
    RETURN false;
END $$;

-- Log from this level on, or as configured again when it is null; false when it was so already.
CREATE FUNCTION supervise_log_level(fact_id uuid, wanted text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE control SET log_level = wanted WHERE log_level IS DISTINCT FROM wanted;
    IF FOUND THEN
        PERFORM record_supervision(fact_id, CASE WHEN wanted IS NULL THEN 'log_level.reset' ELSE 'log_level.set' END, wanted, NULL);
        RETURN true;
    END IF;
    RETURN false;
END $$;

-- Where the role was made before; deploy/postgres/roles.sql grants the same where it is made after.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'habeas_supervisor') THEN
        GRANT EXECUTE ON FUNCTION supervise_pause(uuid, boolean, integer), supervise_log_level(uuid, text) TO habeas_supervisor;
    END IF;
END $$;
