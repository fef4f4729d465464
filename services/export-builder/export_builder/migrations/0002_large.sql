-- What takes long is built apart from the rest, so that nobody waits for it.

ALTER TABLE export_builder.exports ADD COLUMN is_large boolean NOT NULL DEFAULT false;
CREATE INDEX exports_large ON export_builder.exports (next_attempt_at) WHERE state IN ('ready', 'building', 'stuck') AND is_large;
