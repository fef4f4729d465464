-- What a service cannot do at Kafka, by topic, for operators: written when it fails and while it goes on failing, deleted when it succeeds.
-- A row that was not written again for long says nothing any more: its writer is gone.

CREATE TABLE troubles (
    work    text        NOT NULL CHECK (work IN ('publish', 'trim')),
    topic   text        NOT NULL,
    reason  text        NOT NULL,
    bytes   integer,                       -- of the message that a topic does not take
    since   timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (work, topic)
);

-- Which request a message of outsiders is about, where it says so: its key is an account, kept as a fingerprint.
ALTER TABLE inbox ADD COLUMN request_id uuid;
CREATE INDEX inbox_request ON inbox (request_id) WHERE request_id IS NOT NULL;
