-- What supervisors set while a service runs: one row of settings, lanes that stand still. Every change is one call of a function named
-- supervise_…, which also puts it on record: who may call it can do nothing else, and nothing without a trace.

CREATE TABLE control (
    is_only   boolean PRIMARY KEY DEFAULT true CHECK (is_only),  -- one row
    paused_at timestamptz,
    log_level text CHECK (log_level IN ('debug', 'info', 'warning', 'error'))  -- null: as configured
);
INSERT INTO control DEFAULT VALUES;

ALTER TABLE lanes ADD COLUMN paused_at timestamptz;

-- A fact in the grammar of the audit log, whose parts are chosen here and by nobody else.
CREATE FUNCTION supervision_fact(action text, outcome text, number bigint) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT 'time=' || to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') || ' action=' || action
           || ' request=- subject=- outcome=' || coalesce(outcome, '-') || ' count=' || coalesce(number::text, '-') || ' commitments=-'
$$;

CREATE FUNCTION record_supervision(fact_id uuid, action text, outcome text, number bigint) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO audit_outbox (event_id, tail, created_at) VALUES (fact_id, supervision_fact(action, outcome, number), now())
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

-- What became of a parked message by a person's word; the audit log has the same without naming the message.
CREATE TABLE parked_decisions (
    decision_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    inbox_id    bigint      NOT NULL,
    event_id    uuid        NOT NULL,
    decision    text        NOT NULL CHECK (decision IN ('retried', 'resolved')),
    because     text CHECK (because IN ('sent_again', 'done_by_hand', 'duplicate', 'superseded', 'forged', 'unreadable')),
    decided_at  timestamptz NOT NULL,
    CHECK ((because IS NOT NULL) = (decision = 'resolved'))
);

CREATE FUNCTION record_decisions(decided jsonb, done text, why text) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO parked_decisions (inbox_id, event_id, decision, because, decided_at)
    SELECT inbox_id, event_id, done, why, now() FROM jsonb_to_recordset(decided) AS d (inbox_id bigint, event_id uuid);
    INSERT INTO audit_outbox (event_id, tail, created_at)
    SELECT fact_id, supervision_fact('message.' || done, why, NULL), now() FROM jsonb_to_recordset(decided) AS d (fact_id uuid);
$$;

-- Handle parked messages once more, as if they had come just now but in their old place: what waits behind one of them goes on waiting.
-- Gives each message that there is with 'retried', or with why it was not: its state, or that trying again could never help.
CREATE FUNCTION supervise_retry(ids bigint[], fact_ids uuid[]) RETURNS TABLE (message_id bigint, verdict text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    judged jsonb;
BEGIN
    SELECT coalesce(jsonb_agg(to_jsonb(l) || jsonb_build_object('verdict',
               CASE WHEN l.state <> 'parked' THEN l.state
                    WHEN l.type = 'unreadable' THEN 'unreadable'     -- its headers are not kept; there is nothing that could be read
                    WHEN l.reason = 'id_conflict' THEN 'id_conflict'  -- the message that came first stands
                    ELSE 'retried' END)), '[]')
      INTO judged
      FROM (SELECT i.inbox_id, i.event_id, i.state, i.type, i.reason, w.fact_id
              FROM inbox AS i JOIN unnest(ids, fact_ids) AS w (inbox_id, fact_id) USING (inbox_id)
             ORDER BY i.inbox_id FOR UPDATE OF i) AS l;
    UPDATE inbox AS i
       SET state = 'pending', attempts = 0, next_attempt_at = now(), received_at = now(), handled_at = NULL, reason = NULL, field = NULL
      FROM jsonb_to_recordset(judged) AS j (inbox_id bigint, verdict text)
     WHERE i.inbox_id = j.inbox_id AND j.verdict = 'retried';
    PERFORM record_decisions(jsonb_path_query_array(judged, '$[*] ? (@.verdict == "retried")'), 'retried', NULL);
    RETURN QUERY SELECT j.inbox_id, j.verdict FROM jsonb_to_recordset(judged) AS j (inbox_id bigint, verdict text);
END $$;

-- Let parked messages never take effect, and what waits behind them go on. Gives each message that there is with 'now_resolved', or with
-- the state for which it was not.
CREATE FUNCTION supervise_resolve(ids bigint[], fact_ids uuid[], because text) RETURNS TABLE (message_id bigint, verdict text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    judged jsonb;
BEGIN
    SELECT coalesce(jsonb_agg(to_jsonb(l) || jsonb_build_object('verdict', CASE WHEN l.state = 'parked' THEN 'now_resolved' ELSE l.state END)), '[]')
      INTO judged
      FROM (SELECT i.inbox_id, i.event_id, i.state, w.fact_id
              FROM inbox AS i JOIN unnest(ids, fact_ids) AS w (inbox_id, fact_id) USING (inbox_id)
             ORDER BY i.inbox_id FOR UPDATE OF i) AS l;
    UPDATE inbox AS i
       SET state = 'resolved', handled_at = now(), blocks = false, value = NULL
      FROM jsonb_to_recordset(judged) AS j (inbox_id bigint, verdict text)
     WHERE i.inbox_id = j.inbox_id AND j.verdict = 'now_resolved';
    PERFORM record_decisions(jsonb_path_query_array(judged, '$[*] ? (@.verdict == "now_resolved")'), 'resolved', because);
    RETURN QUERY SELECT j.inbox_id, j.verdict FROM jsonb_to_recordset(judged) AS j (inbox_id bigint, verdict text);
END $$;

-- Where the role was made before; deploy/postgres/roles.sql grants the same where it is made after.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'habeas_supervisor') THEN
        GRANT EXECUTE ON FUNCTION supervise_pause(uuid, boolean, integer), supervise_log_level(uuid, text),
            supervise_retry(bigint[], uuid[]), supervise_resolve(bigint[], uuid[], text) TO habeas_supervisor;
    END IF;
END $$;
