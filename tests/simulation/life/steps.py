"""A record of every step that a row of a service took, and of every key: written by triggers, out of the services' reach."""

from typing import Final

import asyncpg

from habeas_embedded.provision import Access
from tests.simulation.life.shop import open_shop

LIVES: Final = {
    "request-intake": ("request_intake.requests", "request_id"),
    "erasure-executor": ("erasure_executor.erasures", "request_id"),
    "export-builder": ("export_builder.exports", "request_id"),
    "notification-mailer": ("notification_mailer.messages", "mail_id"),
}
"""The table of each service whose rows have a life, and what names a row."""

_MAKE: Final = """
    CREATE TABLE simulated.steps (
        position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, service text NOT NULL, id uuid NOT NULL, was text, became text NOT NULL,
        work xid8 NOT NULL);
    CREATE TABLE simulated.keys (
        position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, subject_id uuid NOT NULL, kind text NOT NULL, is_made boolean NOT NULL,
        work xid8 NOT NULL);
    CREATE FUNCTION simulated.note_key() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO simulated.keys (subject_id, kind, is_made, work) VALUES (NEW.subject_id, NEW.kind, true, pg_current_xact_id());
        ELSE
            INSERT INTO simulated.keys (subject_id, kind, is_made, work) VALUES (OLD.subject_id, OLD.kind, false, pg_current_xact_id());
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER simulated_key AFTER INSERT OR DELETE ON sealing.subject_keys FOR EACH ROW EXECUTE FUNCTION simulated.note_key();
"""

_WATCH: Final = """
    CREATE FUNCTION simulated.note_{schema}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO simulated.steps (service, id, was, became, work)
        VALUES ('{service}', NEW.{id}, CASE TG_OP WHEN 'UPDATE' THEN OLD.state END, NEW.state, pg_current_xact_id());
        RETURN NULL;
    END $$;
    CREATE TRIGGER simulated_step AFTER INSERT OR UPDATE OF state ON {table}
        FOR EACH ROW EXECUTE FUNCTION simulated.note_{schema}();
"""


async def lay(access: Access) -> None:
    """Make the platform's tables, and watch the services'."""
    admin = await asyncpg.connect(access.admin_dsn)
    try:
        await open_shop(admin)
        await admin.execute(_MAKE)
        for service, (table, key) in LIVES.items():
            await admin.execute(_WATCH.format(schema=service.replace("-", "_"), service=service, id=key, table=table))
    finally:
        await admin.close()
