#include "agent/name_capture.h"

#include "agent/backup_stream.h"
#include "common/log.h"
#include "postgres/name_snapshot.h"
#include "postgres/wal_name.h"
#include "repository/json.h"

#include <stdio.h>

enum { LISTED_SIZE = 400 };

typedef struct {
    BackupWriter *writer;
    size_t unreadable_count;
    char listed[LISTED_SIZE]; /* names of the first ones */
    char why[512];            /* of the first one */
} NameCapture;

static bool
begin_list(void *context, const char *entry, CairnError *err)
{
    const NameCapture *capture = context;
    return backup_writer_file_begin(capture->writer, MAP_CLASS_OURS, entry, 0600, err);
}

static bool
store_rows(void *context, const void *data, size_t size, CairnError *err)
{
    const NameCapture *capture = context;
    return backup_writer_data(capture->writer, data, size, err);
}

static bool
end_list(void *context, CairnError *err)
{
    const NameCapture *capture = context;
    uint64_t size;
    uint32_t crc;
    return backup_writer_file_end(capture->writer, &size, &crc, err);
}

static void
note_unreadable(void *context, const char *database, const char *why)
{
    NameCapture *capture = context;
    log_debug("names of database '%s': %s", database, why);
    const size_t used = strlen(capture->listed);
    if (capture->unreadable_count++ == 0)
        snprintf(capture->why, sizeof capture->why, "%s", why);
    if (used + strlen(database) + 8 < sizeof capture->listed)
        snprintf(capture->listed + used, sizeof capture->listed - used, "%s'%s'",
                 used > 0 ? ", " : "", database);
}

static void
tell_unreadable(const NameCapture *capture, Fate *fate)
{
    char text[1280];
    snprintf(
        text, sizeof text,
        "names of tables are not kept for %zu database%s (%s): `pgcairn targets` will not know "
        "them by name; %s",
        capture->unreadable_count, capture->unreadable_count == 1 ? "" : "s", capture->listed,
        capture->why);
    log_info("%s", text);
    fate_add_warning(fate, text);
}

/* Where in WAL the names were true: a change after that position may have made others of them. */
static bool
store_index(Connection *server, NameCapture *capture, CairnError *err)
{
    static const char POSITION_SQL[] =
        "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()"
        " ELSE pg_catalog.pg_current_wal_insert_lsn() END";
    SCOPED_MEMORY char *position = connection_query_text(server, POSITION_SQL, NULL, err);
    if (position == NULL)
        return false;
    uint64_t lsn;
    if (!lsn_parse(position, &lsn))
        return cairn_error(err, CAIRN_UNSUPPORTED, "the server's WAL position is '%.40s'",
                           position);
    SCOPED_JSON json_t *index = json_pack("{s:o}", "lsn", json_lsn(lsn));
    SCOPED_MEMORY char *text = index != NULL ? json_dumps(index, JSON_COMPACT) : NULL;
    if (text == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return begin_list(capture, "names/index", err) &&
           backup_writer_data(capture->writer, text, strlen(text), err) && end_list(capture, err);
}

bool
name_capture(const char *conninfo, Connection *server, BackupWriter *writer, Fate *fate,
             CairnError *err)
{
    NameCapture capture = {.writer = writer};
    const NameSink sink = {
        .begin = begin_list,
        .data = store_rows,
        .end = end_list,
        .unreadable = note_unreadable,
        .context = &capture,
    };
    if (!store_index(server, &capture, err) ||
        !name_snapshot_read(conninfo, server, NULL, &sink, err))
        return false;
    if (capture.unreadable_count > 0)
        tell_unreadable(&capture, fate);
    return true;
}
