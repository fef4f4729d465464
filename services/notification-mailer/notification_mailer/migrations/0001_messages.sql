-- Mails and policy-change campaigns. No address and no account id is held in clear, and no rendered mail at all.

CREATE TABLE notification_mailer.campaigns (
    campaign_id           uuid PRIMARY KEY,
    change_id             text        NOT NULL UNIQUE,
    state                 text        NOT NULL CHECK (state IN ('recorded', 'gathering', 'mailing', 'notified')),
    version               text        NOT NULL,
    summary               jsonb       NOT NULL,
    url                   text        NOT NULL,
    content_digest        bytea       NOT NULL CHECK (length(content_digest) = 32),
    effective_on          date        NOT NULL,
    earliest_effective_on date        NOT NULL,   -- the last accepted notice plus the promised period
    scheduled_at          timestamptz NOT NULL,
    kek_id                text,
    wrapped_key           bytea,                  -- seals the account ids of this campaign's mails; null once it has ended
    warned_on             date,                   -- the day on which the date was last said to be too early
    last_sent_at          timestamptz,
    sent                  bigint      NOT NULL DEFAULT 0,
    refused               bigint      NOT NULL DEFAULT 0,
    uncertain             bigint      NOT NULL DEFAULT 0,
    suppressed            bigint      NOT NULL DEFAULT 0,
    ended_at              timestamptz,
    traceparent           text,
    CHECK ((wrapped_key IS NULL) = (kek_id IS NULL)),
    CHECK ((wrapped_key IS NULL) = (state IN ('recorded', 'notified')))
) WITH (fillfactor = 50);

-- How far the account holders of a campaign were read. A row of its own: reading a page holds it for longer than mails may wait.
CREATE TABLE notification_mailer.readings (
    campaign_id uuid PRIMARY KEY REFERENCES notification_mailer.campaigns,
    store       text,                             -- the store that is being read; null before the first
    last_read   text                              -- the last account read of it, sealed under the campaign's key
);

-- Where to write to about a request; the row goes with the outcome mail.
CREATE TABLE notification_mailer.contacts (
    request_id uuid PRIMARY KEY,
    subject_id uuid        NOT NULL,
    contact    text,                              -- as it came, sealed under the case key; null when no store knows an address
    taken_at   timestamptz NOT NULL
);

CREATE TABLE notification_mailer.messages (
    mail_id             uuid PRIMARY KEY,         -- the Message-ID is made of it and so never changes
    kind                text        NOT NULL CHECK (kind IN ('acknowledgement', 'outcome', 'policy_change')),
    state               text        NOT NULL CHECK (state IN ('queued', 'sending', 'dot', 'sent', 'refused', 'uncertain', 'suppressed')),
    request_id          uuid,
    subject_id          uuid,
    campaign_id         uuid REFERENCES notification_mailer.campaigns,
    account             text,                     -- sealed under the campaign's key; null once there is nothing left to send
    account_fingerprint bytea CHECK (length(account_fingerprint) = 32),
    content             jsonb,                    -- what the mail says, the person's name apart
    attempt             integer     NOT NULL DEFAULT 0,
    next_attempt_at     timestamptz NOT NULL,
    holder              integer,                  -- the replica that sends it
    lease_until         timestamptz,              -- after that it is taken back from a replica that went silent
    digest              bytea CHECK (length(digest) = 32),   -- SHA-256 of what was rendered for the last attempt
    smtp_code           integer,
    queued_at           timestamptz NOT NULL,
    ended_at            timestamptz,
    traceparent         text,
    CHECK ((request_id IS NULL) <> (campaign_id IS NULL)),
    CHECK ((holder IS NULL) = (state NOT IN ('sending', 'dot')))
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX messages_request ON notification_mailer.messages (request_id, kind) WHERE request_id IS NOT NULL;
CREATE UNIQUE INDEX messages_account ON notification_mailer.messages (campaign_id, account_fingerprint) WHERE campaign_id IS NOT NULL;
CREATE INDEX messages_due ON notification_mailer.messages (next_attempt_at) WHERE state = 'queued' AND campaign_id IS NULL;
CREATE INDEX messages_due_campaign ON notification_mailer.messages (next_attempt_at) WHERE state = 'queued' AND campaign_id IS NOT NULL;
CREATE INDEX messages_held ON notification_mailer.messages (holder) WHERE state IN ('sending', 'dot');
CREATE INDEX messages_open ON notification_mailer.messages (campaign_id)
    WHERE campaign_id IS NOT NULL AND state IN ('queued', 'sending', 'dot');
