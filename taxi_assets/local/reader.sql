-- The role of sql_query: only SELECT, on tables that the loader creates.
-- Run as a superuser in the taxi database, with names for {reader}, {loader} and {database}. It can be run repeatedly.
-- Then: ALTER ROLE {reader} PASSWORD '...'. Statements end with an empty line, for postgres --single -j.

DO $$ BEGIN
    IF to_regrole('{reader}') IS NULL THEN CREATE ROLE {reader}; END IF;
END $$;

ALTER ROLE {reader} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;

ALTER ROLE {reader} SET default_transaction_read_only = on;

-- A sort of a large join must not fill the disk. Needs a superuser.
ALTER ROLE {reader} SET temp_file_limit = '5GB';

REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;

GRANT CONNECT ON DATABASE {database} TO {reader};

-- Future tables of the loader, and existing ones.
ALTER DEFAULT PRIVILEGES FOR ROLE {loader} GRANT USAGE ON SCHEMAS TO {reader};

ALTER DEFAULT PRIVILEGES FOR ROLE {loader} GRANT SELECT ON TABLES TO {reader};

DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT quote_ident(nspname) FROM pg_namespace
        WHERE nspowner = to_regrole('{loader}') AND nspname !~ '^(pg_|information_schema)'
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO {reader}', name);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %s TO {reader}', name);
    END LOOP;
END $$;

-- Large objects and advisory locks are everybody's by default. Needs a superuser; without it a query
-- may hold an advisory lock as long as it runs, which no load waits for.
DO $$ DECLARE name regprocedure; BEGIN
    FOR name IN SELECT oid FROM pg_proc WHERE pronamespace = to_regnamespace('pg_catalog')
        AND proname ~ '^(lo_|lowrite|pg_(try_)?advisory)'
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', name);
    END LOOP;
END $$;

