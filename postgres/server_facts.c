#include "postgres/server_facts.h"

#include "common/bytes.h"
#include "postgres/wal_name.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    FACT_SYSTEM_ID,
    FACT_SEGMENT_SIZE,
    FACT_BLOCK_SIZE,
    FACT_DATA_CHECKSUMS,
    FACT_IN_RECOVERY,
    FACT_TIMELINE,
    FACT_REDO_LSN,
    FACT_ARCHIVE_MODE,
    FACT_ARCHIVE_COMMAND,
    FACT_ARCHIVE_LIBRARY,
    FACT_MODULE_COMMAND,
    FACT_MODULE_CONFIG,
    FACT_MODULE_CLUSTER,
    FACT_WAL_LEVEL,
    FACT_FULL_PAGE_WRITES,
    FACT_DATA_DIRECTORY,
    FACT_TIMEZONE,
    FACT_MAX_WAL_SENDERS,
    FACT_USER,
    FACT_SUPERUSER,
    FACT_REPLICATION,
    FACT_MAY_SWITCH_WAL,
    FACT_MAY_READ_SETTINGS,
    FACT_MAY_READ_FILES,
    FACT_IN_PLACE_TABLESPACES,
    FACT_COUNT,
};

/*
 * One statement, so that the facts are of one moment. What a plain role may not see comes from
 * pg_settings, where it is no row instead of an error. An in-place tablespace has no location on 15
 * and a relative one later.
 */
static const char FACTS_SQL[] =
    "SELECT s.system_identifier, i.bytes_per_wal_segment,"
    " pg_catalog.current_setting('block_size'), pg_catalog.current_setting('data_checksums'),"
    " pg_catalog.pg_is_in_recovery(),"
    " CASE WHEN pg_catalog.pg_is_in_recovery() THEN c.timeline_id ELSE ('x' || pg_catalog.substr("
    "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END"
    " AS timeline, c.redo_lsn,"
    " pg_catalog.current_setting('archive_mode'),"
    " pg_catalog.current_setting('archive_command'),"
    " pg_catalog.current_setting('archive_library', true),"
    " pg_catalog.current_setting('pgcairn_archive.command', true),"
    " pg_catalog.current_setting('pgcairn_archive.config', true),"
    " pg_catalog.current_setting('pgcairn_archive.cluster', true),"
    " pg_catalog.current_setting('wal_level'),"
    " pg_catalog.current_setting('full_page_writes'),"
    " (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory'),"
    " pg_catalog.current_setting('TimeZone'),"
    " pg_catalog.current_setting('max_wal_senders'),"
    " r.rolname, r.rolsuper, r.rolreplication,"
    " pg_catalog.has_function_privilege('pg_catalog.pg_switch_wal()', 'EXECUTE'),"
    " pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE'),"
    " r.rolsuper OR (pg_catalog.pg_has_role('pg_read_server_files', 'USAGE')"
    "  AND pg_catalog.has_function_privilege("
    "   'pg_catalog.pg_read_binary_file(text,bigint,bigint,boolean)', 'EXECUTE')),"
    " (SELECT pg_catalog.string_agg(spcname, ',' ORDER BY spcname) FROM pg_catalog.pg_tablespace"
    "  WHERE spcname NOT IN ('pg_default', 'pg_global')"
    "  AND pg_catalog.pg_tablespace_location(oid) !~ '^/')"
    " FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_init() i,"
    " pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_roles r"
    " WHERE r.rolname = current_user";

static const char *
fact(const PGresult *result, int column)
{
    return PQgetvalue(result, 0, column);
}

/* NULL for NULL. */
static const char *
fact_or_null(Arena *arena, const PGresult *result, int column)
{
    return PQgetisnull(result, 0, column) ? NULL : arena_strdup(arena, fact(result, column));
}

static bool
fact_is(const PGresult *result, int column, const char *value)
{
    return strcmp(fact(result, column), value) == 0;
}

/* Plain decimal, also of a signed 64-bit column that holds an unsigned value (system_identifier).
 */
static bool
fact_number(const PGresult *result, int column, uint64_t maximum, uint64_t *value_out,
            CairnError *err)
{
    const char *text = fact(result, column);
    char *end = NULL;
    errno = 0;
    const uint64_t value =
        text[0] == '-' ? (uint64_t)strtoll(text, &end, 10) : strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value > maximum)
        return cairn_error(err, CAIRN_UNSUPPORTED, "server facts: %s is '%s'",
                           PQfname(result, column), text);
    *value_out = value;
    return true;
}

static bool
read_numbers(const PGresult *result, ServerFacts *facts, CairnError *err)
{
    uint64_t segment_size = 0;
    uint64_t block_size = 0;
    uint64_t timeline = 0;
    uint64_t senders = 0;
    if (!fact_number(result, FACT_SYSTEM_ID, UINT64_MAX, &facts->system_id, err) ||
        !fact_number(result, FACT_SEGMENT_SIZE, UINT32_MAX, &segment_size, err) ||
        !fact_number(result, FACT_BLOCK_SIZE, UINT32_MAX, &block_size, err) ||
        !fact_number(result, FACT_TIMELINE, UINT32_MAX, &timeline, err) ||
        !fact_number(result, FACT_MAX_WAL_SENDERS, INT32_MAX, &senders, err)) {
        return false;
    }
    if (block_size != 8192) {
        return cairn_error(err, CAIRN_UNSUPPORTED,
                           "block size %" PRIu64 " (only 8192 is supported)", block_size);
    }
    if (!wal_segment_size_valid(segment_size))
        return cairn_error(err, CAIRN_UNSUPPORTED, "WAL segment size %" PRIu64, segment_size);
    if (!lsn_parse(fact(result, FACT_REDO_LSN), &facts->redo_lsn))
        return cairn_error(err, CAIRN_UNSUPPORTED, "server facts: redo_lsn is no LSN");
    facts->wal_segment_size = (uint32_t)segment_size;
    facts->block_size = (uint32_t)block_size;
    facts->timeline = (uint32_t)timeline;
    facts->max_wal_senders = (int)senders;
    return true;
}

bool
server_facts_read(Connection *connection, Arena *arena, ServerFacts *facts_out, CairnError *err)
{
    const int major = connection_major(connection);
    if (major < POSTGRES_MAJOR_MIN || major > POSTGRES_MAJOR_MAX) {
        return cairn_error(err, CAIRN_UNSUPPORTED, "PostgreSQL %d (supported: %d to %d)", major,
                           POSTGRES_MAJOR_MIN, POSTGRES_MAJOR_MAX);
    }
    SCOPED_RESULT result =
        connection_query(connection, FACTS_SQL, NULL,
                         (QueryShape){.columns = FACT_COUNT, .min_rows = 1, .max_rows = 1}, err);
    if (result == NULL)
        return cairn_error_wrap(err, "server facts");

    ServerFacts facts = {.major = major};
    if (!read_numbers(result, &facts, err))
        return false;
    facts.server_version = arena_strdup(arena, connection_server_version(connection));
    facts.data_checksums = fact_is(result, FACT_DATA_CHECKSUMS, "on");
    facts.in_recovery = fact_is(result, FACT_IN_RECOVERY, "t");
    facts.archive_mode = arena_strdup(arena, fact(result, FACT_ARCHIVE_MODE));
    /* The server shows "(disabled)" for a command that archive_mode = off makes idle. */
    facts.archive_command = fact_is(result, FACT_ARCHIVE_COMMAND, "(disabled)")
                                ? ""
                                : arena_strdup(arena, fact(result, FACT_ARCHIVE_COMMAND));
    facts.archive_library = arena_strdup(arena, fact(result, FACT_ARCHIVE_LIBRARY));
    facts.module_command = fact_or_null(arena, result, FACT_MODULE_COMMAND);
    facts.module_config = fact_or_null(arena, result, FACT_MODULE_CONFIG);
    facts.module_cluster = fact_or_null(arena, result, FACT_MODULE_CLUSTER);
    facts.wal_level = arena_strdup(arena, fact(result, FACT_WAL_LEVEL));
    facts.full_page_writes = arena_strdup(arena, fact(result, FACT_FULL_PAGE_WRITES));
    facts.data_directory = fact_or_null(arena, result, FACT_DATA_DIRECTORY);
    facts.timezone = arena_strdup(arena, fact(result, FACT_TIMEZONE));
    facts.user = arena_strdup(arena, fact(result, FACT_USER));
    facts.is_superuser = fact_is(result, FACT_SUPERUSER, "t");
    facts.has_replication = facts.is_superuser || fact_is(result, FACT_REPLICATION, "t");
    facts.may_switch_wal = fact_is(result, FACT_MAY_SWITCH_WAL, "t");
    facts.may_read_settings = fact_is(result, FACT_MAY_READ_SETTINGS, "t");
    facts.may_read_files = fact_is(result, FACT_MAY_READ_FILES, "t");
    facts.in_place_tablespaces = arena_strdup(arena, fact(result, FACT_IN_PLACE_TABLESPACES));
    *facts_out = facts;
    return true;
}
