-- Ticks, what each of them asks of every store, and how far each rule has come.

-- One row per tick and store: the store's own plan says which rules it has, so it is read before there can be sweeps.
CREATE TABLE retention_sweeper.ticks (
    tick_id         uuid        NOT NULL,
    store           text        NOT NULL,
    as_of           timestamptz NOT NULL,
    scope           text        NOT NULL,          -- a retention class, or `all`
    state           text        NOT NULL CHECK (state IN ('ready', 'sweeping', 'stuck', 'completed')),
    stuck_reason    text,
    attempts        integer     NOT NULL DEFAULT 0, -- that failed, one after another
    next_attempt_at timestamptz NOT NULL,
    traceparent     text,
    version         bigint      NOT NULL DEFAULT 1,
    PRIMARY KEY (tick_id, store)
);
CREATE INDEX ticks_open ON retention_sweeper.ticks (next_attempt_at) WHERE state <> 'completed';

-- One row per tick and rule; `position` is the rule's place in the store's plan, children before parents.
CREATE TABLE retention_sweeper.sweeps (
    tick_id            uuid        NOT NULL,
    store              text        NOT NULL,
    table_name         text        NOT NULL,
    retention          text        NOT NULL,
    position           integer     NOT NULL,
    as_of              timestamptz NOT NULL,
    state              text        NOT NULL CHECK (state IN ('ready', 'sweeping', 'stuck', 'completed')),
    cutoff_at          timestamptz,                -- rows before it go; known from the first attempt on
    rows               bigint      NOT NULL DEFAULT 0,
    partitions_dropped integer     NOT NULL DEFAULT 0,
    oldest_left_at     timestamptz,                -- read after the last row went
    stuck_reason       text,
    attempts           integer     NOT NULL DEFAULT 0, -- that failed, one after another
    next_attempt_at    timestamptz NOT NULL,
    completed_at       timestamptz,
    traceparent        text,
    version            bigint      NOT NULL DEFAULT 1,
    PRIMARY KEY (tick_id, store, table_name, retention),
    FOREIGN KEY (tick_id, store) REFERENCES retention_sweeper.ticks,
    CHECK (state <> 'completed' OR (cutoff_at IS NOT NULL AND completed_at IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX sweeps_open ON retention_sweeper.sweeps (tick_id, store, position) WHERE state <> 'completed';

-- How far a rule has come: a tick that is older asks for what was done already.
CREATE TABLE retention_sweeper.rules (
    store          text        NOT NULL,
    table_name     text        NOT NULL,
    retention      text        NOT NULL,
    reached_at     timestamptz NOT NULL,           -- the latest as_of that a completed sweep was for
    oldest_left_at timestamptz,                    -- as that sweep read it
    PRIMARY KEY (store, table_name, retention)
);
