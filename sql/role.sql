-- The role that pgcairn connects with: what a backup needs, and nothing more.
--
-- For PostgreSQL 15 to 18.  Run it as a superuser, in the database that pgcairn connects to ("postgres" unless
-- conninfo says another), since rights on functions belong to a database:
--
--     psql -d postgres -f role.sql
--     psql -d postgres -v role=backup -f role.sql      # under another name
--
-- It may be run again at any time.  It sets no password: peer authentication, a certificate or
-- `\password pgcairn` are yours to choose.
--
-- REPLICATION can read every byte of the cluster, password hashes included.  Guard this role, and the repository,
-- as you guard a superuser.

\set ON_ERROR_STOP on
\if :{?role}
\else
    \set role pgcairn
\endif

BEGIN;
SET LOCAL client_min_messages = warning; -- not a word about what is granted already

-- LOGIN and REPLICATION: BASE_BACKUP, streaming WAL.
SELECT pg_catalog.format('CREATE ROLE %I LOGIN REPLICATION', :'role')
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = :'role')
\gexec
ALTER ROLE :"role" LOGIN REPLICATION;

-- data_directory and the places of configuration files, which plain roles do not see.
GRANT pg_read_all_settings TO :"role";

-- `pgcairn check` switches a segment and watches it arrive; `pgcairn backup` ends the last segment sooner.  The restore
-- point puts something into the segment, so that there is something to switch.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO :"role";
GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO :"role";

-- `pgcairn check` and `info` say when archiving falls behind, since when, and how much WAL waits.  Names, sizes and
-- times of files in pg_wal, nothing of what is in them.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_archive_statusdir() TO :"role";
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO :"role";

-- Optional: keep configuration that lies outside the data directory (/etc/postgresql on Debian) with each backup.
-- The price: with these the role reads every file that the server's account can read, on the whole host, private
-- keys included.  Leave it out where /etc is backed up by other means.
--
-- GRANT pg_read_server_files TO :"role";
-- GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO :"role";
-- GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO :"role";

COMMIT;
