-- How far each partition was stored, written with the inbox rows: a database that was restored to an earlier moment knows that it has to
-- read again what Kafka believes to be done. The row of the audit topic says up to where it was found to hold nothing that we do not know.

CREATE TABLE positions (
    topic       text    NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint  NOT NULL CHECK (next_offset >= 0),
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
