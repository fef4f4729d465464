-- Replicas keep house at the same time: one after the other, so that the later one sees what the earlier one made.
-- Rows that lie in the default partition, since their day had none, are kept as long as everything else and no longer.

CREATE OR REPLACE FUNCTION outbox_make_partitions(first_on date, days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    made integer := 0;
    day_on date;
    name text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.outbox', 0));
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

CREATE OR REPLACE FUNCTION outbox_drop_partitions(before_on date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    dropped integer := 0;
    part record;
    unpublished boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.outbox', 0));
    FOR part IN SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'outbox'::regclass AND c.relname ~ '^outbox_[0-9]{8}$'
                   AND to_date(right(c.relname, 8), 'YYYYMMDD') < before_on
                 ORDER BY c.relname LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE published_at IS NULL)', part.relname) INTO unpublished;
        CONTINUE WHEN unpublished;
        EXECUTE format('DROP TABLE %I', part.relname);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM outbox_default
     WHERE (created_on, outbox_id) IN (SELECT created_on, outbox_id FROM outbox_default
                                        WHERE created_on < before_on AND published_at IS NOT NULL LIMIT 10000);
    RETURN dropped;
END $$;
