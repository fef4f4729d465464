"""How the demo looks at the platform's tables: plain SQL, written by hand for this schema, not taken from the data map.

Every query gives, for each row: its id, the person it belongs to (null when it belongs to nobody any more), when its
retention ends (null: not yet known), a digest of what nobody may change, and a digest of what names the person in a kept
row. Logs, contents and closed accounts are kept 90 days of 24 hours; books until ten years after the end of their year in
Berlin.
"""

from typing import Final

LOOKS: Final[dict[str, str]] = {
    "accounts": """
        SELECT id, id AS person, closed_at + interval '2160 hours' AS ends, md5(t::text) AS content, NULL AS naming
          FROM accounts AS t
    """,
    "sessions": """
        SELECT t.id::text, t.account_id, a.closed_at + interval '2160 hours', md5(t::text), NULL
          FROM sessions AS t LEFT JOIN accounts AS a ON a.id = t.account_id
    """,
    "api_keys": """
        SELECT t.id::text, t.account_id, a.closed_at + interval '2160 hours', md5(t::text), NULL
          FROM api_keys AS t LEFT JOIN accounts AS a ON a.id = t.account_id
    """,
    "provider_keys": """
        SELECT t.id::text, t.account_id, a.closed_at + interval '2160 hours', md5(t::text), NULL
          FROM provider_keys AS t LEFT JOIN accounts AS a ON a.id = t.account_id
    """,
    "tasks": """
        SELECT t.id::text, t.account_id, t.finished_at + interval '2160 hours', md5(t::text), NULL
          FROM tasks AS t
    """,
    "task_steps": """
        SELECT t.id::text, k.account_id, t.finished_at + interval '2160 hours', md5(t::text), NULL
          FROM task_steps AS t LEFT JOIN tasks AS k ON k.id = t.task_id
    """,
    "task_contents": """
        SELECT t.id::text, k.account_id, t.created_at + interval '2160 hours', md5(t::text), NULL
          FROM task_contents AS t LEFT JOIN task_steps AS s ON s.id = t.step_id LEFT JOIN tasks AS k ON k.id = s.task_id
    """,
    "execution_logs": """
        SELECT t.id::text, t.account_id, t.logged_at + interval '2160 hours', md5(t::text), NULL
          FROM execution_logs AS t
    """,
    "credit_ledger": """
        SELECT t.id::text, t.account_id, make_timestamptz(extract(year FROM t.booked_on)::integer + 11, 1, 1, 0, 0, 0, 'Europe/Berlin'),
               md5(ROW (t.id, t.kind, t.credits, t.booked_on, t.created_at)::text), NULL
          FROM credit_ledger AS t
    """,
    "invoices": """
        SELECT t.id::text, t.account_id, make_timestamptz(extract(year FROM t.issued_on)::integer + 11, 1, 1, 0, 0, 0, 'Europe/Berlin'),
               md5(ROW (t.id, t.number, t.country, t.net, t.vat_rate, t.gross, t.currency, t.payment_reference, t.issued_on,
                        t.paid_at)::text),
               md5(coalesce(t.billing_name, t.billing_address)) || md5(coalesce(t.billing_address, t.billing_name))
          FROM invoices AS t
    """,
    "support_tickets": """
        SELECT t.id::text, t.account_id, a.closed_at + interval '2160 hours', md5(t::text), NULL
          FROM support_tickets AS t LEFT JOIN accounts AS a ON a.id = t.account_id
    """,
    "ticket_messages": """
        SELECT t.id::text, k.account_id, a.closed_at + interval '2160 hours', md5(t::text), NULL
          FROM ticket_messages AS t LEFT JOIN support_tickets AS k ON k.id = t.ticket_id
          LEFT JOIN accounts AS a ON a.id = k.account_id
    """,
    "cookie_consents": """
        SELECT t.id::text, t.account_id, a.closed_at + interval '2160 hours', md5(t::text), NULL
          FROM cookie_consents AS t LEFT JOIN accounts AS a ON a.id = t.account_id
    """,
    "quality_scores": """
        SELECT t.id::text, t.account_id, a.closed_at + interval '2160 hours', md5(t::text), NULL
          FROM quality_scores AS t LEFT JOIN accounts AS a ON a.id = t.account_id
    """,
}
"""One query for each table of persons, parents first."""

KEPT: Final = frozenset({"credit_ledger", "invoices"})
"""Tables whose rows tax law keeps when the person goes; the person's name goes all the same."""

PERSONLESS: Final[dict[str, str]] = {
    "plans": "SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM plans AS t",
    "models": "SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM models AS t",
    "usage_daily": "SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM usage_daily AS t",
}
"""Tables without persons: a digest of all of it."""

MAKE_NOTES: Final = """
    CREATE TEMP TABLE {name} (
        table_name text NOT NULL, id text NOT NULL, person text, wanted text NOT NULL, content text NOT NULL, naming text
    )
"""

# The promise: never early, never more than a day late. In the day between, a row may be there or not.
NOTE: Final = """
    INSERT INTO {name}
    SELECT '{table}', look.id, look.person,
           CASE WHEN look.ends <= $1::timestamptz - interval '1 day' THEN 'gone'
                WHEN look.ends <= $1::timestamptz THEN 'free'
                ELSE 'there' END,
           look.content, look.naming
      FROM ({look}) AS look (id, person, ends, content, naming)
"""

COMPARE: Final = """
    WITH gone (person) AS (SELECT unnest($1::text[])),
         closed (person) AS (SELECT id FROM before_rows WHERE table_name = 'accounts' AND wanted <> 'there'),
         seen AS (
             SELECT b.table_name, b.wanted, b.table_name = ANY ($2::text[]) AS kept, g.person IS NOT NULL AS erased,
                    a.id IS NOT NULL AS there,
                    a.id IS NOT NULL AND a.content = b.content AS same,
                    a.person IS NULL AND a.naming IS NULL AS nameless,
                    a.naming IS NOT DISTINCT FROM b.naming
                        AND (a.person IS NOT DISTINCT FROM b.person OR a.person IS NULL AND c.person IS NOT NULL) AS named_alike
               FROM before_rows AS b
               LEFT JOIN after_rows AS a ON a.table_name = b.table_name AND a.id = b.id
               LEFT JOIN gone AS g ON g.person = b.person
               LEFT JOIN closed AS c ON c.person = b.person
         )
    SELECT table_name,
           count(*) FILTER (WHERE erased AND NOT kept) AS erasable,
           count(*) FILTER (WHERE erased AND NOT kept AND there) AS not_erased,
           count(*) FILTER (WHERE erased AND kept AND wanted = 'there') AS keepable,
           count(*) FILTER (WHERE erased AND kept AND (there OR wanted = 'there') AND NOT (same AND nameless)) AS not_kept,
           count(*) FILTER (WHERE wanted = 'gone') AS purgeable,
           count(*) FILTER (WHERE wanted = 'gone' AND there) AS not_purged,
           count(*) FILTER (WHERE NOT erased AND wanted = 'there') AS others,
           count(*) FILTER (WHERE NOT erased AND (there OR wanted = 'there') AND NOT (same AND named_alike)) AS others_touched
      FROM seen
     GROUP BY table_name
"""

FIND_STRANGERS: Final = """
    SELECT a.table_name,
           count(*) FILTER (WHERE a.person = ANY ($1::text[])) AS of_erased,
           count(*) FILTER (WHERE b.id IS NULL) AS new
      FROM after_rows AS a LEFT JOIN before_rows AS b ON b.table_name = a.table_name AND b.id = a.id
     GROUP BY a.table_name
"""

COUNT_ROWS: Final = """
    SELECT person, table_name, count(*) AS held, count(*) FILTER (WHERE wanted = 'there') AS staying
      FROM before_rows
     WHERE person = ANY ($1::text[])
     GROUP BY person, table_name
"""

LIST_LOG_DAYS: Final = """
    SELECT c.relname AS name
      FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'execution_logs'::regclass
"""
