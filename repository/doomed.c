/* Points of no return: `doomed.<run>` below a dead backup. See condemned.h. */
#include "repository/condemned.h"

#include "common/bytes.h"
#include "repository/host.h"
#include "repository/json.h"

#include <stdio.h>
#include <string.h>

static void
doomed_name(char *name, const char *cluster, const BackupId *bid, const char *run)
{
    snprintf(name, STORAGE_NAME_LIMIT, "c/%s/b/%s/doomed.%s", cluster, bid->text, run);
}

bool
doomed_put(Repository *repository, const char *cluster, const BackupId *bid, const char *run,
           CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    const World *world = repository_world(repository);
    doomed_name(name, cluster, bid, run);
    SCOPED_JSON json_t *json = json_pack("{s:s, s:o, s:s}", "run", run, "at",
                                         json_time(world->clock->wall_us(world->clock)), "program",
                                         "pgcairn " PGCAIRN_VERSION);
    if (json == NULL || !host_put(json))
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return json_put(repository, name, OBJECT_DOOMED, backup_id_sequence(bid), json, NULL, err);
}

/* Runs whose doomed objects a listing showed. */
typedef struct {
    char (*runs)[17];
    size_t count;
} Runs;

static StorageListNext
list_doomed(void *context, const StorageEntry *entry, CairnError *err)
{
    Runs *runs = context;
    uint8_t bytes[8];
    const char *run = entry->name + strlen("doomed.");
    if (strncmp(entry->name, "doomed.", strlen("doomed.")) != 0 || strlen(run) != 16 ||
        !hex_decode(bytes, sizeof bytes, run))
        return STORAGE_LIST_GO_ON;
    char(*grown)[17] = reallocarray(runs->runs, runs->count + 1, sizeof *grown);
    if (grown == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return STORAGE_LIST_FAILED;
    }
    runs->runs = grown;
    memcpy(runs->runs[runs->count++], run, 17);
    return STORAGE_LIST_GO_ON;
}

/* runs is malloc'ed (returned owned); NULL when there are none. */
static bool
list_runs(Repository *repository, const char *cluster, const BackupId *bid, Runs *runs_out,
          CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    Runs runs = {0};
    snprintf(prefix, sizeof prefix, "c/%s/b/%s", cluster, bid->text);
    if (!storage_list(repository_storage(repository), prefix, list_doomed, &runs, err)) {
        free(runs.runs);
        return false;
    }
    *runs_out = runs;
    return true;
}

bool
doomed_any(Repository *repository, const char *cluster, const BackupId *bid, bool *any_out,
           CairnError *err)
{
    Runs runs;
    if (!list_runs(repository, cluster, bid, &runs, err))
        return false;
    *any_out = runs.count > 0;
    free(runs.runs);
    return true;
}

bool
doomed_remove(Repository *repository, const char *cluster, const BackupId *bid, const char *run,
              CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    doomed_name(name, cluster, bid, run);
    return storage_remove(repository_storage(repository), name, err);
}

bool
doomed_remove_all(Repository *repository, const char *cluster, const BackupId *bid, CairnError *err)
{
    Runs runs;
    if (!list_runs(repository, cluster, bid, &runs, err))
        return false;
    bool removed = true;
    for (size_t i = 0; removed && i < runs.count; i++)
        removed = doomed_remove(repository, cluster, bid, runs.runs[i], err);
    free(runs.runs);
    return removed;
}

/* One that cannot be read may be anybody's. */
static bool
is_of_dead_process(Repository *repository, const char *cluster, const BackupId *bid,
                   const char *run)
{
    char name[STORAGE_NAME_LIMIT];
    CairnError ignored = {0};
    doomed_name(name, cluster, bid, run);
    SCOPED_JSON json_t *json = json_get(repository, name, OBJECT_DOOMED, NULL, &ignored);
    if (json == NULL)
        return false;
    JsonReader fields = json_reader(json, name, &ignored);
    Host host;
    host_read(&fields, &host);
    return !fields.failed && host_is_dead(&host);
}

bool
doomed_remove_dead(Repository *repository, const char *cluster, const BackupId *bid, bool *left_out,
                   CairnError *err)
{
    Runs runs;
    bool left = false, done = true;
    if (!list_runs(repository, cluster, bid, &runs, err))
        return false;
    for (size_t i = 0; done && i < runs.count; i++) {
        if (is_of_dead_process(repository, cluster, bid, runs.runs[i]))
            done = doomed_remove(repository, cluster, bid, runs.runs[i], err);
        else
            left = true;
    }
    free(runs.runs);
    *left_out = left;
    return done;
}
