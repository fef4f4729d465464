"""The query by which a database tells of every schema that is not its own, and the cheaper one that says whether it needs to.

The fingerprint is asked before every erasure, so it is made of what is cheapest to read: the names of tables, and for all other rows of
the catalogue the transaction that wrote them (`xmin`), which is another one after every change. Rows of `pg_class` are read by name,
since TRUNCATE, REFRESH and CLUSTER write them too. Partitions count with their table; a new one changes nothing unless it brings rules of
its own.
"""

from typing import Final

_SEEN: Final = """
    WITH tables AS MATERIALIZED (
        SELECT c.oid, n.nspname, c.relname, c.relkind,
               c.relrowsecurity AND pg_catalog.row_security_active(c.oid) AS is_secured
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v') AND NOT c.relispartition AND c.relpersistence <> 't' AND c.oid >= 16384
    ), seen AS MATERIALIZED (
        SELECT md5(concat_ws(E'\\n',
            (SELECT string_agg(concat_ws(' ', t.oid, t.relkind, t.is_secured, quote_ident(t.nspname), quote_ident(t.relname),
                       (SELECT array_agg(a.xmin ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
                         WHERE a.attrelid = t.oid AND a.attnum > 0),
                       (SELECT array_agg(i.xmin ORDER BY i.indexrelid) FROM pg_catalog.pg_index AS i
                         WHERE i.indrelid = t.oid AND i.indisunique),
                       CASE WHEN t.relkind IN ('r', 'f') THEN
                           (SELECT array_agg(i.inhparent ORDER BY i.inhseqno) FROM pg_catalog.pg_inherits AS i
                             WHERE i.inhrelid = t.oid) END,
                       CASE WHEN t.relkind = 'p' THEN
                           (SELECT p.xmin FROM pg_catalog.pg_partitioned_table AS p WHERE p.partrelid = t.oid) END),
                    E'\\n' ORDER BY t.oid) FROM tables AS t),
            (SELECT concat_ws(E'\\n', array_agg(k.xmin ORDER BY k.oid)::text,
                        array_agg((SELECT ROW(g.xmin, p.xmin)
                                     FROM pg_catalog.pg_trigger AS g
                                     JOIN pg_catalog.pg_proc AS p ON p.oid = g.tgfoid
                                    WHERE g.tgconstraint = k.oid LIMIT 1) ORDER BY k.oid) FILTER (WHERE k.contype = 't')::text)
               FROM pg_catalog.pg_constraint AS k
              WHERE k.contype IN ('f', 'c', 't') AND k.conislocal AND k.conparentid = 0 OR k.contypid <> 0),
            (SELECT array_agg(ROW(g.xmin, (SELECT p.xmin FROM pg_catalog.pg_proc AS p WHERE p.oid = g.tgfoid)) ORDER BY g.oid)::text
               FROM pg_catalog.pg_trigger AS g
              WHERE g.tgconstraint = 0
                AND (g.tgparentid = 0
                     OR g.tgenabled <> (SELECT h.tgenabled FROM pg_catalog.pg_trigger AS h WHERE h.oid = g.tgparentid))),
            (SELECT array_agg(r.xmin ORDER BY r.oid)::text FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class >= 16384),
            (SELECT array_agg(y.xmin ORDER BY y.oid)::text FROM pg_catalog.pg_type AS y
              WHERE y.typtype IN ('d', 'e') AND y.oid >= 16384),
            (SELECT array_agg(e.xmin ORDER BY e.oid)::text FROM pg_catalog.pg_enum AS e),
            (SELECT array_agg(b.xmin ORDER BY b.oid)::text FROM pg_catalog.pg_publication AS b),
            (SELECT array_agg(b.xmin ORDER BY b.oid)::text FROM pg_catalog.pg_publication_rel AS b))) AS fingerprint
    )
"""

_TOLD: Final = """
    , refs AS (
        SELECT k.oid, k.conname, tn.nspname, t.relname, k.conrelid, k.conkey, un.nspname AS to_nspname, u.relname AS to_relname,
               k.confrelid, k.confkey, k.confupdtype, k.condeferrable, k.condeferred,
               CASE WHEN to_jsonb(k) -> 'conenforced' = 'false' THEN 'a' ELSE k.confdeltype END AS confdeltype,
               to_jsonb(k) -> 'confdelsetcols' AS set_columns,
               CASE WHEN c.relispartition THEN json_build_array(cn.nspname, c.relname) END AS enforced_on,
               CASE WHEN p.relispartition THEN json_build_array(pn.nspname, p.relname) END AS to_partition
          FROM pg_catalog.pg_constraint AS k
          JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
          JOIN pg_catalog.pg_namespace AS cn ON cn.oid = c.relnamespace
          JOIN pg_catalog.pg_class AS t ON t.oid = CASE WHEN c.relispartition THEN pg_catalog.pg_partition_root(c.oid) ELSE c.oid END
          JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.relnamespace
          JOIN pg_catalog.pg_class AS p ON p.oid = k.confrelid
          JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
          JOIN pg_catalog.pg_class AS u ON u.oid = CASE WHEN p.relispartition THEN pg_catalog.pg_partition_root(p.oid) ELSE p.oid END
          JOIN pg_catalog.pg_namespace AS un ON un.oid = u.relnamespace
         WHERE k.contype = 'f' AND k.conparentid = 0 AND t.relpersistence <> 't'
    ), acting AS (
        SELECT DISTINCT ON (n.nspname, c.relname, g.tgname, g.tgfoid)
               n.nspname, c.relname, g.tgname, g.tgtype, fn.nspname AS function_schema, f.proname, l.lanname, f.prosrc, f.proconfig,
               g.tgdeferrable, g.tgrelid, g.tgnargs, g.tgargs, g.tgattr::smallint[] AS tgattr,
               bool_or(g.tgenabled IN ('O', 'A')) OVER (PARTITION BY n.nspname, c.relname, g.tgname, g.tgfoid) AS is_enabled
          FROM pg_catalog.pg_trigger AS g
          JOIN pg_catalog.pg_class AS o ON o.oid = g.tgrelid
          JOIN pg_catalog.pg_class AS c ON c.oid = CASE WHEN o.relispartition THEN pg_catalog.pg_partition_root(o.oid) ELSE o.oid END
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_proc AS f ON f.oid = g.tgfoid
          JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.pronamespace
          JOIN pg_catalog.pg_language AS l ON l.oid = f.prolang
         WHERE NOT g.tgisinternal
         ORDER BY n.nspname, c.relname, g.tgname, g.tgfoid, g.tgparentid, g.oid
    )
    SELECT fingerprint, (
        SELECT json_build_object(
            'tables', (SELECT json_agg(json_build_array(t.nspname, t.relname, t.relkind, t.is_secured,
                                  (SELECT json_agg(r.rulename ORDER BY r.rulename) FROM pg_catalog.pg_rewrite AS r
                                    WHERE r.ev_class = t.oid AND r.rulename <> '_RETURN' AND r.ev_enabled <> 'D'),
                                  CASE WHEN t.relkind = 'p' THEN
                                      (SELECT count(*) FROM pg_catalog.pg_partition_tree(t.oid) AS l WHERE l.isleaf) ELSE 0 END,
                                  (SELECT json_agg(json_build_array(n.nspname, p.relname) ORDER BY i.inhseqno)
                                     FROM pg_catalog.pg_inherits AS i
                                     JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent
                                     JOIN pg_catalog.pg_namespace AS n ON n.oid = p.relnamespace
                                    WHERE i.inhrelid = t.oid),
                                  (SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, NULL), a.attnotnull,
                                                                    coalesce(b.array_of_labels, format_type(b.oid, NULL)),
                                                                    CASE WHEN b.oid IN (1042, 1043) AND b.typmod >= 4
                                                                         THEN b.typmod - 4 END,
                                                                    a.attgenerated <> '', a.attidentity = 'a',
                                                                    a.atthasdef AND a.attgenerated = '',
                                                                    coalesce((SELECT json_agg(pg_get_constraintdef(k.oid)
                                                                                              ORDER BY k.conname)
                                                                                FROM pg_catalog.pg_constraint AS k
                                                                               WHERE k.conrelid = t.oid AND k.contype = 'c'
                                                                                 AND a.attnum = ANY(k.conkey)), '[]'),
                                                                    coalesce((SELECT json_agg(e.enumlabel ORDER BY e.enumsortorder)
                                                                                FROM pg_catalog.pg_enum AS e
                                                                               WHERE e.enumtypid = b.oid), '[]'),
                                                                    CASE WHEN b.typcategory = 'A' AND b.typelem <> 0
                                                                         THEN format_type(b.typelem, NULL) ELSE '' END)
                                                   ORDER BY a.attnum)
                                     FROM pg_catalog.pg_attribute AS a
                                    CROSS JOIN LATERAL (
                                          WITH RECURSIVE below AS (
                                              SELECT y.oid, y.typtype, y.typbasetype, y.typcategory, y.typelem, y.typtypmod,
                                                     a.atttypmod AS typmod
                                                FROM pg_catalog.pg_type AS y WHERE y.oid = a.atttypid
                                              UNION ALL
                                              SELECT y.oid, y.typtype, y.typbasetype, y.typcategory, y.typelem, y.typtypmod,
                                                     below.typtypmod
                                                FROM below
                                                JOIN pg_catalog.pg_type AS y ON y.oid = below.typbasetype AND below.typtype = 'd')
                                          SELECT below.oid, below.typcategory, below.typelem, below.typmod,
                                                 (SELECT 'anyenum[]' FROM pg_catalog.pg_type AS e
                                                   WHERE e.oid = below.typelem AND below.typcategory = 'A' AND e.typtype = 'e')
                                                     AS array_of_labels
                                            FROM below WHERE below.typtype <> 'd') AS b
                                    WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped))
                               ORDER BY t.nspname, t.relname) FROM tables AS t),
            'foreign_keys', (SELECT json_agg(json_build_array(r.conname, json_build_array(r.nspname, r.relname),
                                  (SELECT json_agg(a.attname ORDER BY x.ord) FROM unnest(r.conkey) WITH ORDINALITY AS x (num, ord)
                                     JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.conrelid AND a.attnum = x.num),
                                  json_build_array(r.to_nspname, r.to_relname),
                                  (SELECT json_agg(a.attname ORDER BY x.ord) FROM unnest(r.confkey) WITH ORDINALITY AS x (num, ord)
                                     JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.confrelid AND a.attnum = x.num),
                                  r.confdeltype, r.confupdtype,
                                  (SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
                                    WHERE a.attrelid = r.conrelid AND r.set_columns @> to_jsonb(a.attnum)),
                                  r.condeferrable, r.condeferred, r.enforced_on, r.to_partition)
                               ORDER BY r.nspname, r.relname, r.enforced_on IS NOT NULL, r.to_partition IS NOT NULL, r.conname,
                                        r.enforced_on::text, r.to_partition::text) FROM refs AS r),
            'uniques', (SELECT json_agg(json_build_array(u.nspname, u.relname, u.indisprimary, u.whole, u.list)
                                        ORDER BY u.nspname, u.relname, u.indisprimary, u.whole, u.list::text)
                          FROM (SELECT t.nspname, t.relname, i.indisprimary,
                                       i.indisvalid AND i.indexprs IS NULL AND i.indpred IS NULL AS whole,
                                       (SELECT json_agg(a.attname ORDER BY array_position(i.indkey::smallint[], a.attnum), a.attnum)
                                          FROM pg_catalog.pg_attribute AS a
                                         WHERE a.attrelid = i.indrelid
                                           AND (a.attnum = ANY(i.indkey[0:i.indnkeyatts - 1])
                                                OR a.attnum IN (SELECT d.refobjsubid FROM pg_catalog.pg_depend AS d
                                                                 WHERE d.classid = 'pg_catalog.pg_class'::regclass
                                                                   AND d.objid = i.indexrelid
                                                                   AND d.refclassid = 'pg_catalog.pg_class'::regclass
                                                                   AND d.refobjid = i.indrelid
                                                                   AND d.refobjsubid <> ALL(i.indkey)))) AS list
                                  FROM tables AS t
                                  JOIN pg_catalog.pg_index AS i ON i.indrelid = t.oid AND i.indisunique) AS u),
            'caseless', (SELECT json_agg(json_build_array(t.nspname, t.relname, a.attname)
                                         ORDER BY t.nspname, t.relname, a.attname)
                           FROM tables AS t
                           JOIN pg_catalog.pg_index AS i
                             ON i.indrelid = t.oid AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL
                            AND i.indexprs IS NOT NULL
                           JOIN pg_catalog.pg_attribute AS a
                             ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
                            AND pg_get_indexdef(i.indexrelid, 1, FALSE)
                                IN (format('lower(%I)', a.attname), format('lower((%I)::text)', a.attname))),
            'partitions', (SELECT json_agg(json_build_array(t.nspname, t.relname, p.partstrat,
                                  (SELECT json_agg(a.attname ORDER BY x.ord)
                                     FROM unnest(p.partattrs) WITH ORDINALITY AS x (num, ord)
                                     JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = x.num))
                               ORDER BY t.nspname, t.relname)
                             FROM tables AS t JOIN pg_catalog.pg_partitioned_table AS p ON p.partrelid = t.oid),
            'triggers', (SELECT json_agg(json_build_array(g.nspname, g.relname, g.tgname, g.tgtype,
                                  format('%s.%s', g.function_schema, g.proname), g.is_enabled, g.tgdeferrable,
                                  coalesce((SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
                                             WHERE a.attrelid = g.tgrelid AND a.attnum = ANY(g.tgattr)), '[]'),
                                  g.lanname, g.prosrc,
                                  (string_to_array(encode(g.tgargs, 'escape'), '\\000'))[1:g.tgnargs],
                                  (SELECT substr(s.set, 13) FROM unnest(g.proconfig) AS s (set) WHERE starts_with(s.set, 'search_path=')))
                               ORDER BY g.nspname, g.relname, g.tgname, g.function_schema, g.proname) FROM acting AS g),
            'reads', (WITH RECURSIVE reading AS (
                          SELECT DISTINCT r.ev_class AS of, d.refobjid AS read
                            FROM pg_catalog.pg_rewrite AS r
                            JOIN pg_catalog.pg_depend AS d
                              ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
                             AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class
                           WHERE r.ev_class >= 16384 AND r.rulename = '_RETURN'
                      ), reached AS (
                          SELECT of, read FROM reading
                           UNION
                          SELECT reached.of, reading.read FROM reached JOIN reading ON reading.of = reached.read
                      )
                      SELECT json_agg(DISTINCT jsonb_build_array(t.nspname, t.relname, n.nspname, c.relname))
                        FROM tables AS t
                        JOIN reached ON reached.of = t.oid
                        JOIN pg_catalog.pg_class AS o ON o.oid = reached.read
                        JOIN pg_catalog.pg_class AS c
                          ON c.oid = CASE WHEN o.relispartition THEN pg_catalog.pg_partition_root(o.oid) ELSE o.oid END
                        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                       WHERE c.relkind IN ('r', 'p', 'f', 'm')),
            'publications', (SELECT json_agg(DISTINCT jsonb_build_array(n.nspname, c.relname, b.pubname))
                               FROM pg_catalog.pg_publication_tables AS b
                               JOIN pg_catalog.pg_namespace AS bn ON bn.nspname = b.schemaname
                               JOIN pg_catalog.pg_class AS o ON o.relnamespace = bn.oid AND o.relname = b.tablename
                               JOIN pg_catalog.pg_class AS c
                                 ON c.oid = CASE WHEN o.relispartition THEN pg_catalog.pg_partition_root(o.oid) ELSE o.oid END
                               JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace),
            'slots', (SELECT json_agg(s.slot_name ORDER BY s.slot_name) FROM pg_catalog.pg_replication_slots AS s
                       WHERE s.slot_type = 'logical' AND s.database = pg_catalog.current_database())
        )::text) AS told
      FROM seen
"""

FINGERPRINT: Final = " ".join(f"{_SEEN} SELECT fingerprint FROM seen".split())  # noqa: S608 - constant texts
"""A fingerprint of everything that the check looks at."""

CATALOGUE: Final = " ".join(f"{_SEEN} {_TOLD}".split())
"""One row: the same fingerprint, and everything as JSON.

Both without their indentation, since asyncpg would prepare longer texts anew each time (`max_cacheable_statement_size`, 15 KiB)."""
