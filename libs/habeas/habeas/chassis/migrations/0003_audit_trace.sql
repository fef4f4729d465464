-- A fact goes into the log as part of what caused it; the trace parent travels in the record's header and never in the entry.

ALTER TABLE audit_outbox ADD COLUMN traceparent text;
