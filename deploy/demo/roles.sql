-- What each Habeas service may do in the demo platform's database: a role per service, no role for the rest.
-- Run by the platform's owner after schema.sql; running it again changes nothing. Passwords are set by whoever provisions.

DO $$
DECLARE
    service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['habeas_intake', 'habeas_eraser', 'habeas_exporter', 'habeas_sweeper', 'habeas_mailer'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', service);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA public FROM %I', service);
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), service);
        EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', service);
    END LOOP;
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- request-intake finds the person and where to write to; nothing else.
GRANT SELECT (id, email, name, language, country, closed_at) ON accounts TO habeas_intake;

-- notification-mailer writes to everybody when the policy changes; it never sees more than the address.
GRANT SELECT (id, email, name, language, closed_at) ON accounts TO habeas_mailer;

-- export-builder reads what a person may see. Secrets are named, never read: their columns are not granted.
GRANT SELECT ON
    accounts, tasks, task_steps, task_contents, execution_logs, credit_ledger, invoices, support_tickets, ticket_messages,
    cookie_consents, quality_scores
TO habeas_exporter;
GRANT SELECT (id, account_id, ip, user_agent, device, started_at, last_seen_at) ON sessions TO habeas_exporter;
GRANT SELECT (id, account_id, label, prefix, created_at, last_used_at) ON api_keys TO habeas_exporter;
GRANT SELECT (id, account_id, provider, label, created_at) ON provider_keys TO habeas_exporter;

-- erasure-executor deletes a person's rows, and corrects or blanks exactly these columns.
GRANT SELECT, DELETE ON
    accounts, sessions, api_keys, provider_keys, tasks, task_steps, task_contents, execution_logs, support_tickets, ticket_messages,
    cookie_consents, quality_scores
TO habeas_eraser;
GRANT SELECT ON credit_ledger, invoices TO habeas_eraser;
GRANT UPDATE (account_id) ON credit_ledger TO habeas_eraser;
GRANT UPDATE (account_id, billing_name, billing_address) ON invoices TO habeas_eraser;
GRANT UPDATE (email, name, language, country, born_on, updated_at) ON accounts TO habeas_eraser;

-- retention-sweeper deletes by age and drops whole days of the log. It reads what tells age and ownership, never content.
GRANT DELETE ON
    accounts, sessions, api_keys, provider_keys, tasks, task_steps, task_contents, execution_logs, credit_ledger, invoices,
    support_tickets, ticket_messages, cookie_consents, quality_scores
TO habeas_sweeper;
GRANT SELECT (id, created_at, closed_at) ON accounts TO habeas_sweeper;
GRANT SELECT (id, account_id, started_at, last_seen_at) ON sessions TO habeas_sweeper;
GRANT SELECT (id, account_id, created_at) ON api_keys, provider_keys TO habeas_sweeper;
GRANT SELECT (id, account_id, created_at, finished_at) ON tasks TO habeas_sweeper;
GRANT SELECT (id, task_id, started_at, finished_at) ON task_steps TO habeas_sweeper;
GRANT SELECT (id, step_id, created_at) ON task_contents TO habeas_sweeper;
GRANT SELECT (id, account_id, logged_at) ON execution_logs TO habeas_sweeper;
GRANT SELECT (id, account_id, booked_on, created_at) ON credit_ledger TO habeas_sweeper;
GRANT SELECT (id, account_id, issued_on) ON invoices TO habeas_sweeper;
GRANT SELECT (id, account_id, opened_at, closed_at) ON support_tickets TO habeas_sweeper;
GRANT SELECT (id, ticket_id, sent_at) ON ticket_messages TO habeas_sweeper;
GRANT SELECT (id, account_id, decided_at) ON cookie_consents TO habeas_sweeper;
GRANT SELECT (id, account_id, computed_at) ON quality_scores TO habeas_sweeper;

-- A day of the log can only be dropped by its owner; owning days comes with membership, owning the whole log does not.
GRANT platform_log_days TO habeas_sweeper WITH INHERIT TRUE, SET FALSE;
