-- The demo platform: a small AI execution platform, as its own engineers would have built it.
-- Habeas owns nothing here; it reads and changes these tables through the data map beside this file.
--
-- Three things are deliberate, because real platforms have them and a request has to survive them:
--   * content hangs two joins away from the person (task_contents -> task_steps -> tasks -> accounts);
--   * execution_logs is partitioned by day and has no foreign key: its path to a person is known to the data map alone;
--   * foreign keys do not cascade, so an erasure that forgets a table fails instead of looking finished.

CREATE TABLE plans (
    id            text PRIMARY KEY,
    name          text NOT NULL,
    monthly_price numeric(10, 2) NOT NULL,
    credits       integer NOT NULL
);

CREATE TABLE models (
    id           text PRIMARY KEY,
    provider     text NOT NULL,
    display_name text NOT NULL,
    credit_rate  numeric(10, 4) NOT NULL
);

CREATE TABLE accounts (
    id            text PRIMARY KEY CHECK (id ~ '^acc_[0-9A-Za-z]{4,32}$'),
    email         text NOT NULL UNIQUE,
    name          text NOT NULL,
    language      text NOT NULL DEFAULT 'en',
    country       text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    born_on       date,
    clerk_user_id text NOT NULL UNIQUE,              -- the identity provider's name for the same person
    plan_id       text NOT NULL REFERENCES plans (id),
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    closed_at     timestamptz,
    CHECK (closed_at IS NULL OR closed_at >= created_at)
);
CREATE INDEX accounts_closed_at ON accounts (closed_at) WHERE closed_at IS NOT NULL;

CREATE TABLE sessions (
    id           uuid PRIMARY KEY,
    account_id   text NOT NULL REFERENCES accounts (id),
    token_hash   bytea NOT NULL,
    ip           inet NOT NULL,
    user_agent   text NOT NULL,
    device       jsonb NOT NULL,
    started_at   timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL
);
CREATE INDEX sessions_account_id ON sessions (account_id);

CREATE TABLE api_keys (
    id           uuid PRIMARY KEY,
    account_id   text NOT NULL REFERENCES accounts (id),
    label        text NOT NULL,
    prefix       text NOT NULL,
    hash         bytea NOT NULL,
    created_at   timestamptz NOT NULL,
    last_used_at timestamptz
);
CREATE INDEX api_keys_account_id ON api_keys (account_id);

CREATE TABLE provider_keys (
    id         uuid PRIMARY KEY,
    account_id text NOT NULL REFERENCES accounts (id),
    provider   text NOT NULL,
    label      text NOT NULL,
    sealed     bytea NOT NULL,                       -- AES-256-GCM under the platform's own key; opened only while a task runs
    created_at timestamptz NOT NULL
);
CREATE INDEX provider_keys_account_id ON provider_keys (account_id);

-- A parent is never older than its children (finished_at of a task >= finished_at of its steps >= created_at of their
-- contents), so that retention by age removes children first and never trips over a foreign key.
CREATE TABLE tasks (
    id          uuid PRIMARY KEY,
    account_id  text NOT NULL REFERENCES accounts (id),
    title       text NOT NULL,
    intent      text NOT NULL,
    source      text NOT NULL CHECK (source IN ('api', 'cli', 'ide', 'web')),
    model_id    text NOT NULL REFERENCES models (id),
    state       text NOT NULL CHECK (state IN ('running', 'done', 'failed')),
    credits     numeric(12, 4) NOT NULL,
    created_at  timestamptz NOT NULL,
    finished_at timestamptz CHECK (finished_at >= created_at),
    CHECK ((state = 'running') = (finished_at IS NULL))
);
CREATE INDEX tasks_account_id ON tasks (account_id);
CREATE INDEX tasks_finished_at ON tasks (finished_at);

CREATE TABLE task_steps (
    id          uuid PRIMARY KEY,
    task_id     uuid NOT NULL REFERENCES tasks (id),
    ordinal     smallint NOT NULL,
    kind        text NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz CHECK (finished_at >= started_at),
    UNIQUE (task_id, ordinal)
);
CREATE INDEX task_steps_finished_at ON task_steps (finished_at);

CREATE TABLE task_contents (
    id         uuid PRIMARY KEY,
    step_id    uuid NOT NULL REFERENCES task_steps (id),
    direction  text NOT NULL CHECK (direction IN ('input', 'output')),
    body       text NOT NULL,
    attachment bytea,
    created_at timestamptz NOT NULL
);
CREATE INDEX task_contents_step_id ON task_contents (step_id);
CREATE INDEX task_contents_created_at ON task_contents (created_at);

-- One partition per UTC day, so that retention is a DROP TABLE of whole days. No foreign keys: a log of this size has none.
CREATE TABLE execution_logs (
    id         uuid NOT NULL,
    logged_at  timestamptz NOT NULL,
    account_id text NOT NULL,
    task_id    uuid,
    session_id uuid,
    model_id   text NOT NULL,
    status     text NOT NULL,
    latency_ms integer NOT NULL,
    tokens_in  integer NOT NULL,
    tokens_out integer NOT NULL,
    ip         inet NOT NULL,
    user_agent text NOT NULL,
    PRIMARY KEY (id, logged_at)
) PARTITION BY RANGE (logged_at);
CREATE INDEX execution_logs_account_id ON execution_logs (account_id);

-- Whoever is a member may drop days of the log, and only those: the partitioned table itself belongs to the platform.
-- (roles.sql makes retention-sweeper's role a member.)
DO $$
BEGIN
    CREATE ROLE platform_log_days NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;                                            -- roles belong to the whole server; another database made it first
END
$$;

CREATE FUNCTION ensure_execution_log_days(first_day date, last_day date) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    log_day   date;
    partition text;
    made      integer := 0;
BEGIN
    FOR log_day IN SELECT generate_series(first_day, last_day, interval '1 day')::date LOOP
        partition := 'execution_logs_' || to_char(log_day, 'YYYY_MM_DD');
        CONTINUE WHEN to_regclass(quote_ident(partition)) IS NOT NULL;
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF execution_logs FOR VALUES FROM (%L) TO (%L)',
            partition,
            log_day::text || ' 00:00:00+00',
            (log_day + 1)::text || ' 00:00:00+00'
        );
        EXECUTE format('ALTER TABLE %I OWNER TO platform_log_days', partition);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
REVOKE ALL ON FUNCTION ensure_execution_log_days (date, date) FROM PUBLIC;

-- Kept by tax law when the person is erased: the amounts stay, the person leaves (account_id and billing_* become null).
CREATE TABLE credit_ledger (
    id         uuid PRIMARY KEY,
    account_id text REFERENCES accounts (id) ON DELETE SET NULL,
    kind       text NOT NULL CHECK (kind IN ('purchase', 'spend', 'grant', 'refund')),
    credits    numeric(12, 4) NOT NULL,
    booked_on  date NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX credit_ledger_account_id ON credit_ledger (account_id);
CREATE INDEX credit_ledger_booked_on ON credit_ledger (booked_on);

CREATE TABLE invoices (
    id                uuid PRIMARY KEY,
    number            text NOT NULL UNIQUE,
    account_id        text REFERENCES accounts (id) ON DELETE SET NULL,
    billing_name      text,
    billing_address   text,
    country           text NOT NULL,
    net               numeric(10, 2) NOT NULL,
    vat_rate          numeric(4, 2) NOT NULL,
    gross             numeric(10, 2) NOT NULL,
    currency          text NOT NULL,
    payment_reference text NOT NULL,                 -- the payment provider's id; card details never reach the platform
    issued_on         date NOT NULL,
    paid_at           timestamptz
);
CREATE INDEX invoices_account_id ON invoices (account_id);
CREATE INDEX invoices_issued_on ON invoices (issued_on);

CREATE TABLE support_tickets (
    id         uuid PRIMARY KEY,
    account_id text NOT NULL REFERENCES accounts (id),
    subject    text NOT NULL,
    state      text NOT NULL CHECK (state IN ('open', 'solved')),
    opened_at  timestamptz NOT NULL,
    closed_at  timestamptz
);
CREATE INDEX support_tickets_account_id ON support_tickets (account_id);

CREATE TABLE ticket_messages (
    id        uuid PRIMARY KEY,
    ticket_id uuid NOT NULL REFERENCES support_tickets (id),
    author    text NOT NULL CHECK (author IN ('customer', 'agent')),
    body      text NOT NULL,
    sent_at   timestamptz NOT NULL
);
CREATE INDEX ticket_messages_ticket_id ON ticket_messages (ticket_id);

CREATE TABLE cookie_consents (
    id             uuid PRIMARY KEY,
    account_id     text NOT NULL REFERENCES accounts (id),
    purpose        text NOT NULL,
    granted        boolean NOT NULL,
    global_privacy_control boolean NOT NULL,         -- what the browser's signal said at that moment
    banner_version text NOT NULL,
    decided_at     timestamptz NOT NULL
);
CREATE INDEX cookie_consents_account_id ON cookie_consents (account_id);

CREATE TABLE quality_scores (
    id          uuid PRIMARY KEY,
    account_id  text NOT NULL REFERENCES accounts (id),
    metric      text NOT NULL,
    score       numeric(5, 4) NOT NULL,
    inputs      jsonb NOT NULL,
    computed_at timestamptz NOT NULL
);
CREATE INDEX quality_scores_account_id ON quality_scores (account_id);

-- Aggregates of at least five people a group; nobody can be found in them, so they may be kept for ever.
CREATE TABLE usage_daily (
    day       date NOT NULL,
    model_id  text NOT NULL REFERENCES models (id),
    people    integer NOT NULL CHECK (people >= 5),
    calls     bigint NOT NULL,
    tokens    bigint NOT NULL,
    latency_ms_mean numeric(10, 1) NOT NULL,
    PRIMARY KEY (day, model_id)
);
