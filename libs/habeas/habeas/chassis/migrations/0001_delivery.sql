-- What every service has: inbox, outbox, audit outbox, lanes. Names are unqualified: the migration runs with search_path = the service's schema.

CREATE TABLE inbox (
    inbox_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id        uuid        NOT NULL UNIQUE,
    topic           text        NOT NULL,
    partition       integer     NOT NULL,
    record_offset   bigint      NOT NULL,
    type            text        NOT NULL,
    key             bytea       NOT NULL,        -- the record key, or its fingerprint on sensitive topics
    lane            smallint    NOT NULL,
    event_at        timestamptz NOT NULL,
    traceparent     text,
    value           bytea,                       -- sealed on sensitive topics; null once handled
    digest          bytea       NOT NULL,        -- SHA-256 of the value, or its fingerprint on sensitive topics
    received_at     timestamptz NOT NULL,
    state           text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'handled', 'parked', 'resolved')),
    blocks          boolean     NOT NULL DEFAULT false,  -- later messages of this key wait
    attempts        integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    reason          text,
    field           text,
    handled_at      timestamptz
) WITH (fillfactor = 80);
CREATE INDEX inbox_pending ON inbox (inbox_id) WHERE state = 'pending';
CREATE INDEX inbox_blocking ON inbox (key, inbox_id) WHERE blocks;
CREATE INDEX inbox_parked ON inbox (inbox_id) WHERE state = 'parked';
CREATE INDEX inbox_handled ON inbox (handled_at) WHERE state IN ('handled', 'resolved');
ALTER TABLE inbox SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);

CREATE TABLE outbox (
    outbox_id    bigint GENERATED ALWAYS AS IDENTITY,
    created_on   date        NOT NULL,
    event_id     uuid        NOT NULL,
    lane         smallint    NOT NULL,
    topic        text        NOT NULL,
    key          text        NOT NULL,
    type         text        NOT NULL,
    subject      text        NOT NULL,
    traceparent  text,
    value        bytea       NOT NULL,
    created_at   timestamptz NOT NULL,
    published_at timestamptz,
    PRIMARY KEY (created_on, outbox_id)
) PARTITION BY RANGE (created_on);
CREATE INDEX outbox_unpublished ON outbox (outbox_id) WHERE published_at IS NULL;
CREATE TABLE outbox_default PARTITION OF outbox DEFAULT;
ALTER TABLE outbox_default SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);

-- Services have no right to make or drop tables; these two functions are all they may do about partitions.
CREATE FUNCTION outbox_make_partitions(first_on date, days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    made integer := 0;
    day_on date;
    name text;
BEGIN
    FOR day_on IN SELECT first_on + n FROM generate_series(0, days - 1) AS n LOOP
        name := 'outbox_' || to_char(day_on, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(name) IS NOT NULL;
        -- Rows of that day that came before their partition stay in the default one; their day gets no partition.
        CONTINUE WHEN EXISTS (SELECT FROM outbox_default WHERE created_on = day_on);
        EXECUTE format('CREATE TABLE %I PARTITION OF outbox FOR VALUES FROM (%L) TO (%L)
                        WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1)',
                       name, day_on, day_on + 1);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

CREATE FUNCTION outbox_drop_partitions(before_on date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    dropped integer := 0;
    part record;
    unpublished boolean;
BEGIN
    FOR part IN SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'outbox'::regclass AND c.relname ~ '^outbox_[0-9]{8}$'
                   AND to_date(right(c.relname, 8), 'YYYYMMDD') < before_on
                 ORDER BY c.relname LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE published_at IS NULL)', part.relname) INTO unpublished;
        CONTINUE WHEN unpublished;
        EXECUTE format('DROP TABLE %I', part.relname);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END $$;

CREATE TABLE audit_outbox (
    audit_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id     uuid        NOT NULL,
    tail         text        NOT NULL,           -- everything of the line but sequence and link
    created_at   timestamptz NOT NULL,
    seq          bigint UNIQUE,                  -- given by the relay, without gaps
    line         bytea,                          -- made once, never rendered again
    published_at timestamptz
);
CREATE INDEX audit_outbox_unsequenced ON audit_outbox (audit_id) WHERE seq IS NULL;
CREATE INDEX audit_outbox_unpublished ON audit_outbox (seq) WHERE published_at IS NULL;

CREATE TABLE audit_head (
    epoch integer PRIMARY KEY,
    seq   bigint NOT NULL,
    hash  text   NOT NULL CHECK (hash ~ '^[0-9a-f]{64}$')
);
INSERT INTO audit_head VALUES (1, 0, repeat('0', 64));

CREATE TABLE lanes (
    lane       smallint PRIMARY KEY,
    holder     uuid,
    token      bigint      NOT NULL DEFAULT 0,   -- grows with every change of holder: the fence
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);
INSERT INTO lanes (lane) SELECT generate_series(0, 16);  -- 0-15 by key, 16 for the audit log

CREATE TABLE replicas (
    holder     uuid PRIMARY KEY,
    instance   integer     NOT NULL,
    expires_at timestamptz NOT NULL
);
