-- Who may do what in the fleet's database: the one source for embedded servers, Compose and clusters.
-- Run by an administrator while connected to the fleet's database; running it again changes nothing. Needs PostgreSQL 15.
--
--   habeas_owner      runs migrations, owns every schema and table; no service logs in as it
--   a role per service, named like its schema: reads and writes rows of its own schema, and of nothing else
--   habeas_operator   reads everything but keys, writes nothing: consoles, `habeas up`, `habeas status`
--   habeas_supervisor reads the same and may call the functions named supervise_…, each of which puts into the audit log what it
--                     does: `habeas pause`, `resume`, `log-level`, `parked retry`, `parked resolve`, `audit resume`
--
-- Roles are made without passwords and so cannot log in until whoever provisions sets them.

-- Roles belong to the whole server: two databases may be provisioned at once, so "is there already" is not asked but caught.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['habeas_owner', 'habeas_operator', 'habeas_supervisor', 'request_intake', 'erasure_executor',
                                'export_builder', 'retention_sweeper', 'notification_mailer', 'audit_ledger'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = role);
        BEGIN
            EXECUTE format('CREATE ROLE %I LOGIN NOCREATEDB NOCREATEROLE', role);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
    -- An administrator that is no superuser can only make things for the owner as its member.
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND NOT pg_has_role('habeas_owner', 'SET') THEN
        EXECUTE format('GRANT habeas_owner TO %I', current_user);
    END IF;
END
$$;

-- Nobody gets anything for merely being there.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT, CREATE ON DATABASE %I TO habeas_owner', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO habeas_operator, habeas_supervisor, request_intake, erasure_executor, '
                   'export_builder, retention_sweeper, notification_mailer, audit_ledger', current_database());
END
$$;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE habeas_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- One schema per service. Tables come later, by migrations, so what a role may do is said as the owner's defaults, and only
-- so: granting on tables that are there would give back what a migration has taken away.
DO $$
DECLARE
    service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['request_intake', 'erasure_executor', 'export_builder', 'retention_sweeper',
                                   'notification_mailer', 'audit_ledger'] LOOP
        EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION habeas_owner', service);
        EXECUTE format('GRANT USAGE ON SCHEMA %1$I TO %1$I, habeas_operator', service);
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE habeas_owner IN SCHEMA %1$I '
                       'GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO %1$I', service);
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE habeas_owner IN SCHEMA %I '
                       'GRANT SELECT ON TABLES TO habeas_operator', service);
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE habeas_owner IN SCHEMA %1$I '
                       'GRANT USAGE ON SEQUENCES TO %1$I', service);
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE habeas_owner IN SCHEMA %1$I '
                       'GRANT EXECUTE ON FUNCTIONS TO %1$I', service);
    END LOOP;
END
$$;

-- A supervisor sees what an operator sees. Migrations grant it the functions that they make; those that are there already are granted here.
GRANT habeas_operator TO habeas_supervisor;
DO $$
DECLARE
    operation regprocedure;
BEGIN
    FOR operation IN
        SELECT p.oid FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
         WHERE n.nspname IN ('request_intake', 'erasure_executor', 'export_builder', 'retention_sweeper', 'notification_mailer',
                             'audit_ledger')
           AND starts_with(p.proname, 'supervise_') AND p.prosecdef
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO habeas_supervisor', operation);
    END LOOP;
END
$$;

-- Wrapped keys of persons. Every service makes and reads them, erasure_executor alone destroys them, nobody changes them and
-- operators never see them: the migration that makes the table grants exactly that, so there are no defaults here.
CREATE SCHEMA IF NOT EXISTS sealing AUTHORIZATION habeas_owner;
GRANT USAGE ON SCHEMA sealing TO request_intake, erasure_executor, export_builder, retention_sweeper, notification_mailer, audit_ledger;
