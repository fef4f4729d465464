-- The log: entries in their order, the tree over them, and what was signed. Leaves, tiles, checkpoints and refused records are only
-- ever added; the rows that change are the head, the producers' places and what was published last.

CREATE TABLE audit_ledger.leaves (
    index     bigint PRIMARY KEY CHECK (index >= 0),
    producer  text   NOT NULL,
    epoch     bigint NOT NULL,
    seq       bigint NOT NULL,
    line      bytea  NOT NULL,
    leaf_hash bytea  NOT NULL CHECK (octet_length(leaf_hash) = 32)  -- RFC 6962 §2.1: SHA-256(0x00 || line)
);
CREATE UNIQUE INDEX leaves_place ON audit_ledger.leaves (producer, epoch, seq);

-- Full tiles of 256 hashes (C2SP tlog-tiles), so that each is written once; partial ones follow from leaves and from the tiles below.
CREATE TABLE audit_ledger.tiles (
    level      smallint NOT NULL,
    tile_index bigint   NOT NULL CHECK (tile_index >= 0),
    hashes     bytea    NOT NULL CHECK (octet_length(hashes) = 8192),
    PRIMARY KEY (level, tile_index)
);
ALTER TABLE audit_ledger.tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;  -- hashes cannot be compressed

CREATE TABLE audit_ledger.producers (
    producer        text   PRIMARY KEY,
    state           text   NOT NULL CHECK (state IN ('following', 'halted')),
    epoch           bigint NOT NULL,
    seq             bigint NOT NULL,
    hash            text   NOT NULL CHECK (hash ~ '^[0-9a-f]{64}$'),  -- of its last entry in the log
    halted_offset   bigint,                  -- of the first record that was not taken
    halted_reason   text CHECK (halted_reason IN ('gap', 'equivocation', 'broken_link', 'bad_grammar')),
    expected_seq    bigint,
    found_seq       bigint,
    halted_at       timestamptz,
    resume_asked_at timestamptz,             -- an operator has looked
    resume_told_at  timestamptz,             -- the log was told; the producer goes on when the entry arrives
    CHECK ((state = 'halted') = (halted_offset IS NOT NULL)),
    CHECK (num_nulls(halted_offset, halted_reason, expected_seq, found_seq, halted_at) IN (0, 5))
);

CREATE TABLE audit_ledger.head (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    size     bigint  NOT NULL,
    root     bytea   NOT NULL CHECK (octet_length(root) = 32),
    position bigint  NOT NULL                -- offset of the topic to read next
);
INSERT INTO audit_ledger.head (size, root, position) VALUES (0, sha256(''), 0);

-- The lock store: a checkpoint is here before anybody sees it, and each size is signed once.
CREATE TABLE audit_ledger.checkpoints (
    size      bigint PRIMARY KEY CHECK (size >= 0),
    root      bytea       NOT NULL CHECK (octet_length(root) = 32),
    note      bytea       NOT NULL,
    signed_at timestamptz NOT NULL
);

CREATE TABLE audit_ledger.publication (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    size         bigint NOT NULL,            -- of the last checkpoint that everybody was told about; -1: none yet
    published_at timestamptz
);
INSERT INTO audit_ledger.publication (size) VALUES (-1);

-- Records that did not go into the log, as they came, with the reason; without a reason: it came while its producer was halted.
CREATE TABLE audit_ledger.refused (
    topic_offset bigint PRIMARY KEY,
    producer     text,
    epoch        bigint,
    seq          bigint,
    reason       text CHECK (reason IN ('gap', 'equivocation', 'broken_link', 'bad_grammar')),
    value        bytea       NOT NULL,
    refused_at   timestamptz NOT NULL
);
CREATE INDEX refused_place ON audit_ledger.refused (producer, epoch, seq);

-- What was written stays: the service has no right to change it, and the owner would have to take the guard away first.
CREATE FUNCTION audit_ledger.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RAISE EXCEPTION '% is only ever added to', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['leaves', 'tiles', 'checkpoints', 'refused'] LOOP
        EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON audit_ledger.%I FROM audit_ledger', name);
        EXECUTE format('CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_ledger.%I
                        FOR EACH STATEMENT EXECUTE FUNCTION audit_ledger.refuse_change()', name);
    END LOOP;
    REVOKE INSERT, DELETE, TRUNCATE ON audit_ledger.head, audit_ledger.publication FROM audit_ledger;
    REVOKE DELETE, TRUNCATE ON audit_ledger.producers FROM audit_ledger;
END $$;
