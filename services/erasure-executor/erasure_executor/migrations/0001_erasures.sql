-- Erasures and the tombstones they leave.

CREATE TABLE erasure_executor.erasures (
    request_id          uuid PRIMARY KEY,
    subject_id          uuid        NOT NULL,
    state               text        NOT NULL CHECK (state IN ('ready', 'erasing', 'stuck', 'completed')),
    account             text,                   -- sealed under the data key; dropped with it
    account_fingerprint bytea,                  -- known once the account could be opened
    due_on              date        NOT NULL,
    planned             jsonb,                  -- what was held before the first attempt, per table
    outcomes            jsonb       NOT NULL DEFAULT '[]',
    stuck_reason        text,
    stuck_store         text,
    stuck_table         text,
    attempts            integer     NOT NULL DEFAULT 0,
    next_attempt_at     timestamptz NOT NULL,
    traceparent         text,
    erased_at           timestamptz,
    version             bigint      NOT NULL DEFAULT 1
) WITH (fillfactor = 70);
CREATE INDEX erasures_open ON erasure_executor.erasures (next_attempt_at) WHERE state <> 'completed';
CREATE INDEX erasures_subject ON erasure_executor.erasures (subject_id);

-- Who was erased, as a keyed fingerprint: whoever comes back by a late write or a restored backup is found by it.
CREATE TABLE erasure_executor.tombstones (
    account_fingerprint bytea PRIMARY KEY CHECK (length(account_fingerprint) = 32),
    subject_id          uuid        NOT NULL,
    request_id          uuid        NOT NULL,
    erased_at           timestamptz NOT NULL
);
CREATE INDEX tombstones_subject ON erasure_executor.tombstones (subject_id);
