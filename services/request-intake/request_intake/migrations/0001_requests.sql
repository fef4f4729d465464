-- Requests and the people who make them. An account is known by a keyed fingerprint; its id is held only sealed, per request.

CREATE TABLE request_intake.subjects (
    subject_id          uuid PRIMARY KEY,
    account_fingerprint bytea       NOT NULL CHECK (length(account_fingerprint) = 32),
    created_at          timestamptz NOT NULL,
    closed_at           timestamptz             -- the erasure of this subject was completed; a later request makes a new subject
);
CREATE UNIQUE INDEX subjects_open ON request_intake.subjects (account_fingerprint) WHERE closed_at IS NULL;

CREATE TABLE request_intake.requests (
    request_id          uuid PRIMARY KEY,
    subject_id          uuid        NOT NULL REFERENCES request_intake.subjects,
    dsr_right           text        NOT NULL CHECK (dsr_right IN ('access', 'portability', 'rectification', 'erasure', 'restriction',
                                                                  'objection', 'consent_withdrawal')),
    state               text        NOT NULL CHECK (state IN ('received', 'awaiting_identity', 'awaiting_decision', 'in_progress',
                                                              'answering', 'completed')),
    stuck_reason        text,                   -- why nothing moves; the deadline keeps running
    outcome             text CHECK (outcome IN ('done', 'partly_kept', 'nothing_held')),
    outcomes            jsonb       NOT NULL DEFAULT '[]',
    regime              text        NOT NULL,
    law_version         text        NOT NULL,
    channel             text        NOT NULL,
    language            text,
    received_at         timestamptz NOT NULL,
    due_on              date        NOT NULL,
    legal_limit_on      date        NOT NULL,
    is_verified         boolean     NOT NULL,
    account             text        NOT NULL,   -- sealed under the data key
    details             text,                   -- sealed under the data key
    categories          text[],
    contact             text,                   -- sealed under the case key; dropped when the person has been answered
    subject_ref         text        NOT NULL,
    submission_digest   bytea       NOT NULL,
    export_id           uuid,
    traceparent         text,
    accepted_at         timestamptz,
    closed_at           timestamptz,
    version             bigint      NOT NULL DEFAULT 1
) WITH (fillfactor = 70);
CREATE INDEX requests_received ON request_intake.requests (request_id) WHERE state = 'received';
CREATE INDEX requests_open ON request_intake.requests (due_on) WHERE state <> 'completed';
CREATE INDEX requests_subject ON request_intake.requests (subject_id);
