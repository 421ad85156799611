#include "cli/live_names.h"

#include "common/log.h"
#include "postgres/name_snapshot.h"

#include <stdlib.h>
#include <string.h>

enum { DATABASES_LIMIT = 10000 };

/* The lists of a name snapshot as they come: databases first, then one for each. */
typedef struct {
    NameReader reader;
    NameFilter filter;
    DatabaseName *databases; /* names are in texts */
    char (*texts)[NAME_SIZE];
    size_t database_count;
    bool unreadable;
} LiveNames;

static bool
keep_database(void *context, const DatabaseName *database, CairnError *err)
{
    LiveNames *live = context;
    (void)err;
    if (live->database_count == DATABASES_LIMIT)
        return false;
    live->databases[live->database_count] = *database;
    snprintf(live->texts[live->database_count++], NAME_SIZE, "%s", database->name);
    return true;
}

static bool
begin_list(void *context, const char *entry, CairnError *err)
{
    LiveNames *live = context;
    NameCallbacks callbacks = {.database = keep_database, .context = live};
    (void)err;
    if (strcmp(entry, NAME_DATABASES_ENTRY) != 0) {
        callbacks = (NameCallbacks){.relation = name_filter_relation, .context = &live->filter};
        const uint32_t oid = (uint32_t)strtoul(strchr(entry, '/') + 1, NULL, 10);
        const char *name = "";
        for (size_t i = 0; i < live->database_count; i++) {
            if (live->databases[i].oid == oid)
                name = live->texts[i];
        }
        name_filter_begin(&live->filter, oid, name);
    }
    name_reader_begin(&live->reader, &callbacks);
    return true;
}

static bool
feed_list(void *context, const void *data, size_t size, CairnError *err)
{
    LiveNames *live = context;
    return name_reader_feed(&live->reader, data, size, err);
}

static bool
end_list(void *context, CairnError *err)
{
    LiveNames *live = context;
    bool whole;
    return name_reader_finish(&live->reader, &whole, err);
}

static void
note_unreadable(void *context, const char *database, const char *why)
{
    LiveNames *live = context;
    live->unreadable = true;
    log_info("the running server's database '%s' was not asked: %s", database, why);
}

static bool
ask(const char *conninfo, LiveNames *live, uint64_t *system_id_out, CairnError *err)
{
    const NameSink sink = {.begin = begin_list,
                           .data = feed_list,
                           .end = end_list,
                           .unreadable = note_unreadable,
                           .context = live};
    const char *only = live->filter.wish->database;
    SCOPED(Connection)
    server = connection_open(conninfo, CONNECTION_SQL, "pgcairn targets", err);
    if (server == NULL)
        return false;
    SCOPED_MEMORY char *system_id = connection_query_text(
        server, "SELECT system_identifier FROM pg_catalog.pg_control_system()", NULL, err);
    if (system_id == NULL)
        return false;
    *system_id_out = strtoull(system_id, NULL, 10);
    return name_snapshot_read(conninfo, server, only[0] != '\0' ? only : NULL, &sink, err);
}

bool
live_names_find(const char *conninfo, const NameWish *wish, NamedFiles *files_out,
                uint64_t *system_id_out, bool *known_out, CairnError *err)
{
    LiveNames live = {.filter = {.wish = wish, .files = files_out}};
    SCOPED_MEMORY DatabaseName *databases = calloc(DATABASES_LIMIT, sizeof *databases);
    SCOPED_MEMORY char(*texts)[NAME_SIZE] = calloc(DATABASES_LIMIT, sizeof *texts);
    if (databases == NULL || texts == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    live.databases = databases;
    live.texts = texts;
    *known_out = ask(conninfo, &live, system_id_out, err) && !live.unreadable;
    if (err->kind == CAIRN_OK || err->kind == CAIRN_CANCELLED)
        return err->kind == CAIRN_OK;
    log_info("the running server was not asked: %s", err->message);
    cairn_error_clear(err);
    return true;
}
