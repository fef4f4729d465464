-- Exports and their artefacts, and the subjects for whom no export can be built any more.

CREATE TABLE export_builder.exports (
    export_id       uuid PRIMARY KEY,
    request_id      uuid        NOT NULL UNIQUE,
    subject_id      uuid        NOT NULL,
    dsr_right       text        NOT NULL CHECK (dsr_right IN ('access', 'portability')),
    state           text        NOT NULL CHECK (state IN ('ready', 'building', 'stuck', 'completed', 'withdrawing', 'deleted')),
    account         text,                   -- sealed under the data key
    artefact_key    text,                   -- sealed under the data key
    artefact_bytes  bigint      NOT NULL DEFAULT 0,
    artefact_sha256 text,
    exported        jsonb       NOT NULL DEFAULT '[]',
    due_on          date        NOT NULL,
    expires_on      date,
    stuck_reason    text,
    stuck_store     text,
    stuck_table     text,
    attempts        integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    traceparent     text,
    completed_at    timestamptz,
    version         bigint      NOT NULL DEFAULT 1
) WITH (fillfactor = 70);
CREATE INDEX exports_open ON export_builder.exports (next_attempt_at) WHERE state IN ('ready', 'building', 'stuck', 'withdrawing');
CREATE INDEX exports_expiring ON export_builder.exports (expires_on) WHERE state = 'completed';
CREATE INDEX exports_subject ON export_builder.exports (subject_id);

CREATE TABLE export_builder.erased_subjects (
    subject_id uuid PRIMARY KEY,
    erased_at  timestamptz NOT NULL
);
