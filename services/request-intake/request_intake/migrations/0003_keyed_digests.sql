-- What is kept of a submission is keyed now, by a key that goes with the case, and has 33 bytes. A SHA-256 of old has 32, and is keyed by the
-- sweep `rekey_digests`: the key is nowhere in this database.
CREATE INDEX requests_bare_digest ON request_intake.requests (request_id) WHERE octet_length(submission_digest) = 32;
