#include "agent/archiving.h"

#include "common/bytes.h"
#include "common/file.h"
#include "postgres/control.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the clock and of timestamps: microseconds since 1970, 0 for none. */
#define EPOCH_US(value) "COALESCE((EXTRACT(EPOCH FROM " value ") * 1000000)::pg_catalog.int8, 0)"

/* CASE looks at one side only: the other function fails on a standby. */
#define CURRENT_LSN                                                                                \
    "CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() "           \
    "ELSE pg_catalog.pg_current_wal_lsn() END"

static const char
    ARCHIVER_SQL
        [] =
            "SELECT s.system_identifier, i.setting,"
            " pg_catalog.current_setting('archive_mode') = 'always'"
            " OR (pg_catalog.current_setting('archive_mode') = 'on'"
            " AND NOT pg_catalog.pg_is_in_recovery()),"
            " " EPOCH_US(
                "pg_catalog.clock_timestamp()") ","
                                                " COALESCE(" CURRENT_LSN ", '0/0'),"
                                                " " EPOCH_US(
                                                    "a.last_archived_time") ", "
                                                                            "COALESCE(a.last_"
                                                                            "archived_wal, ''),"
                                                                            " " EPOCH_US(
                                                                                "a.last_failed_"
                                                                                "time") ", "
                                                                                        "COALESCE("
                                                                                        "a.last_"
                                                                                        "failed_"
                                                                                        "wal, ''), "
                                                                                        "a.failed_"
                                                                                        "count,"
                                                                                        " COALESCE("
                                                                                        "(w.wal_"
                                                                                        "bytes / "
                                                                                        "GREATEST("
                                                                                        "EXTRACT("
                                                                                        "EPOCH "
                                                                                        "FROM "
                                                                                        "pg_"
                                                                                        "catalog."
                                                                                        "clock_"
                                                                                        "timestamp("
                                                                                        ")"
                                                                                        " - "
                                                                                        "w.stats_"
                                                                                        "reset), "
                                                                                        "1))::pg_"
                                                                                        "catalog."
                                                                                        "int8, 0)"
                                                                                        " FROM "
                                                                                        "pg_"
                                                                                        "catalog."
                                                                                        "pg_"
                                                                                        "control_"
                                                                                        "system() "
                                                                                        "s, "
                                                                                        "pg_"
                                                                                        "catalog."
                                                                                        "pg_"
                                                                                        "settings "
                                                                                        "i,"
                                                                                        " pg_"
                                                                                        "catalog."
                                                                                        "pg_stat_"
                                                                                        "archiver "
                                                                                        "a, "
                                                                                        "pg_"
                                                                                        "catalog."
                                                                                        "pg_stat_"
                                                                                        "wal w "
                                                                                        "WHERE "
                                                                                        "i.name = "
                                                                                        "'wal_"
                                                                                        "segment_"
                                                                                        "size'";

static const char READY_SQL[] = "SELECT count(*), " EPOCH_US(
    "pg_catalog.min(modification)") ","
                                    " " EPOCH_US(
                                        "pg_catalog.max(modification)") ","
                                                                        " COALESCE((pg_catalog."
                                                                        "array_agg(name ORDER BY "
                                                                        "modification, name))[1], "
                                                                        "'')"
                                                                        " FROM "
                                                                        "pg_catalog.pg_ls_archive_"
                                                                        "statusdir() WHERE name "
                                                                        "LIKE '%.ready'";

static const char WAL_SQL[] = "SELECT COALESCE(pg_catalog.sum(size), 0)::pg_catalog.int8"
                              " FROM pg_catalog.pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'";

static const char SLOTS_SQL[] =
    "SELECT slot_name, active, COALESCE(wal_status, '') = 'lost',"
    " COALESCE(GREATEST(pg_catalog.pg_wal_lsn_diff(" CURRENT_LSN ", restart_lsn), 0)"
    "::pg_catalog.int8, 0) AS held FROM pg_catalog.pg_replication_slots"
    " ORDER BY held DESC, slot_name LIMIT 16";

static uint64_t
value_u64(const PGresult *result, int row, int column)
{
    return strtoull(PQgetvalue(result, row, column), NULL, 10);
}

static int64_t
value_i64(const PGresult *result, int row, int column)
{
    return strtoll(PQgetvalue(result, row, column), NULL, 10);
}

static bool
value_bool(const PGresult *result, int row, int column)
{
    return PQgetvalue(result, row, column)[0] == 't';
}

static bool
ask_archiver(Connection *connection, Archiving *archiving, CairnError *err)
{
    SCOPED_RESULT result =
        connection_query(connection, ARCHIVER_SQL, NULL,
                         (QueryShape){.columns = 11, .min_rows = 1, .max_rows = 1}, err);
    if (result == NULL)
        return false;
    archiving->system_id = value_u64(result, 0, 0);
    const uint64_t segment_size = value_u64(result, 0, 1);
    if (!wal_segment_size_valid(segment_size) ||
        !lsn_parse(PQgetvalue(result, 0, 4), &archiving->lsn))
        return cairn_error(err, CAIRN_UNSUPPORTED, "the server's answer is not understood");
    archiving->segment_size = (uint32_t)segment_size;
    archiving->archives = value_bool(result, 0, 2);
    archiving->now_us = value_i64(result, 0, 3);
    archiving->archived_us = value_i64(result, 0, 5);
    snprintf(archiving->archived, sizeof archiving->archived, "%s", PQgetvalue(result, 0, 6));
    archiving->failed_us = value_i64(result, 0, 7);
    snprintf(archiving->failed, sizeof archiving->failed, "%s", PQgetvalue(result, 0, 8));
    archiving->failed_count = value_u64(result, 0, 9);
    archiving->average_rate = (double)value_i64(result, 0, 10);
    return true;
}

/* A failed query of this kind leaves a part unknown; the connection must be usable still. */
static bool
may_stay_unknown(CairnError *err)
{
    if (err->kind == CAIRN_UNAVAILABLE || err->kind == CAIRN_CANCELLED)
        return false;
    cairn_error_clear(err);
    return true;
}

static bool
ask_ready(Connection *connection, Archiving *archiving, CairnError *err)
{
    SCOPED_RESULT result = connection_query(
        connection, READY_SQL, NULL, (QueryShape){.columns = 4, .min_rows = 1, .max_rows = 1}, err);
    if (result == NULL)
        return may_stay_unknown(err);
    archiving->ready_known = true;
    archiving->ready_count = value_u64(result, 0, 0);
    archiving->ready_oldest_us = value_i64(result, 0, 1);
    archiving->ready_newest_us = value_i64(result, 0, 2);
    snprintf(archiving->ready_oldest, sizeof archiving->ready_oldest, "%.*s",
             (int)strcspn(PQgetvalue(result, 0, 3), "."), PQgetvalue(result, 0, 3));
    return true;
}

static bool
ask_wal(Connection *connection, Archiving *archiving, CairnError *err)
{
    SCOPED_RESULT result = connection_query(
        connection, WAL_SQL, NULL, (QueryShape){.columns = 1, .min_rows = 1, .max_rows = 1}, err);
    if (result == NULL)
        return may_stay_unknown(err);
    archiving->wal_known = true;
    archiving->wal_bytes = value_u64(result, 0, 0);
    return true;
}

static bool
ask_slots(Connection *connection, Archiving *archiving, CairnError *err)
{
    SCOPED_RESULT result = connection_query(
        connection, SLOTS_SQL, NULL, (QueryShape){.columns = 4, .max_rows = ARCHIVING_SLOTS}, err);
    if (result == NULL)
        return may_stay_unknown(err);
    for (int i = 0; i < PQntuples(result); i++) {
        ArchivingSlot *slot = &archiving->slots[archiving->slot_count++];
        snprintf(slot->name, sizeof slot->name, "%s", PQgetvalue(result, i, 0));
        slot->active = value_bool(result, i, 1);
        slot->lost = value_bool(result, i, 2);
        slot->held_bytes = value_u64(result, i, 3);
    }
    return true;
}

/* This host's, and of this very server: anything else says nothing of its disk. */
static bool
is_directory_of(const World *world, int fd, uint64_t system_id)
{
    CairnError ignored = {0};
    ControlFile control;
    size_t size;
    SCOPED_MEMORY char *data = file_read_all(world, fd, "global/pg_control",
                                             2 * (size_t)CONTROL_FILE_SIZE, &size, &ignored);

    return data != NULL && control_parse(data, size, &control, &ignored) &&
           control.system_id == system_id;
}

static void
look_at_disk(const World *world, const char *pgdata, Archiving *archiving)
{
    const Disk *disk = world->disk;
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    struct statvfs space;

    SCOPED_FD fd = disk->openat(disk, AT_FDCWD, pgdata, flags, 0);
    if (fd < 0 || !is_directory_of(world, fd, archiving->system_id))
        return;
    SCOPED_FD wal_fd = disk->openat(disk, fd, "pg_wal", flags, 0); /* often a symbolic link */
    if (wal_fd < 0 || disk->fstatvfs(disk, wal_fd, &space) != 0)
        return;
    archiving->free_known = true;
    archiving->free_bytes = (uint64_t)space.f_bavail * space.f_frsize;
}

static void
ask_disk(Connection *connection, const World *world, const ClusterConfig *cluster,
         Archiving *archiving)
{
    CairnError ignored = {0};
    const char *host = PQhost(connection_libpq(connection));

    if (cluster->pgdata != NULL)
        look_at_disk(world, cluster->pgdata, archiving);
    if (archiving->free_known || host == NULL || host[0] != '/')
        return;
    SCOPED_MEMORY char *pgdata = connection_query_text(
        connection, "SELECT pg_catalog.current_setting('data_directory')", NULL, &ignored);
    if (pgdata != NULL)
        look_at_disk(world, pgdata, archiving);
}

bool
archiving_ask(Connection *connection, const World *world, const ClusterConfig *cluster,
              Archiving *archiving_out, CairnError *err)
{
    Archiving archiving = {0};

    if (!ask_archiver(connection, &archiving, err) || !ask_ready(connection, &archiving, err) ||
        !ask_wal(connection, &archiving, err) || !ask_slots(connection, &archiving, err))
        return cairn_error_wrap(err, "unable to ask how archiving is doing");
    ask_disk(connection, world, cluster, &archiving);
    *archiving_out = archiving;
    return true;
}
