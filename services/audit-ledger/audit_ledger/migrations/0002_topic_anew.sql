-- Kafka may be lost and filled again: offsets then begin anew, and say nothing about which record of which topic is meant.

ALTER TABLE audit_ledger.head ADD COLUMN taken_ms bigint;   -- Kafka's time of the record before the position: it tells one topic from another

ALTER TABLE audit_ledger.refused DROP CONSTRAINT refused_pkey;
ALTER TABLE audit_ledger.refused ADD COLUMN refused_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;
CREATE INDEX refused_offset ON audit_ledger.refused (topic_offset);
