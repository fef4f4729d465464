-- What takes long is tried apart from the rest, so that nobody waits for it.

ALTER TABLE erasure_executor.erasures ADD COLUMN is_large boolean NOT NULL DEFAULT false;
CREATE INDEX erasures_large ON erasure_executor.erasures (next_attempt_at) WHERE state <> 'completed' AND is_large;
