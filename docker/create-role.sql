-- The role that backs up: it streams, reads settings, and switches WAL; it cannot read tables.
\getenv password PGCAIRN_PASSWORD
CREATE ROLE pgcairn LOGIN REPLICATION PASSWORD :'password';
GRANT pg_read_all_settings, pg_monitor TO pgcairn;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal(), pg_catalog.pg_create_restore_point(text) TO pgcairn;
