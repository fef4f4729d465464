-- What supervisors do wakes the service's processes at once: they listen on the channel that is named like their schema. Nothing depends on
-- it; processes also look now and then.

CREATE OR REPLACE FUNCTION record_supervision(fact_id uuid, action text, outcome text, number bigint) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO audit_outbox (event_id, tail, created_at) VALUES (fact_id, supervision_fact(action, outcome, number), now());
    SELECT pg_notify(current_schema(), 'supervised');
$$;

CREATE OR REPLACE FUNCTION record_decisions(decided jsonb, done text, why text) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO parked_decisions (inbox_id, event_id, decision, because, decided_at)
    SELECT inbox_id, event_id, done, why, now() FROM jsonb_to_recordset(decided) AS d (inbox_id bigint, event_id uuid);
    INSERT INTO audit_outbox (event_id, tail, created_at)
    SELECT fact_id, supervision_fact('message.' || done, why, NULL), now() FROM jsonb_to_recordset(decided) AS d (fact_id uuid);
    SELECT pg_notify(current_schema(), 'supervised');
$$;

-- When the next message is to be tried again is asked whenever a worker has nothing to do.
CREATE INDEX inbox_retried ON inbox (next_attempt_at) WHERE state = 'pending' AND attempts > 0;
