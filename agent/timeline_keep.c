#include "agent/timeline_keep.h"

#include "common/file.h"
#include "common/log.h"
#include "common/scratch_file.h"
#include "postgres/basebackup.h"

#include <inttypes.h>
#include <stdio.h>

/* Through a scratch file, for storing means reading twice. */
static bool
put(WalStore *store, const World *world, const char *name, const char *text, size_t size,
    CairnError *err)
{
    bool existed;
    bool tail_differs;
    SCOPED_FD fd = scratch_file_open(world, scratch_file_directory(), err);
    return fd >= 0 && file_write(world, fd, text, size, "scratch file", err) &&
           wal_store_put(store, name, fd, &existed, &tail_differs, err);
}

bool
timeline_keep(Repository *repository, const char *cluster, const Incarnation *incarnation,
              Connection *replication, uint32_t timeline, char lacking_out[TIMELINE_LACKING_SIZE],
              CairnError *err)
{
    char name[WAL_FILE_NAME_LIMIT];
    bool present;

    lacking_out[0] = '\0';
    if (timeline == 1)
        return true; /* has none */
    snprintf(name, sizeof name, "%08" PRIX32 ".history", timeline);
    SCOPED(WalStore) store = wal_store_open(repository, cluster, incarnation, err);
    if (store == NULL || !wal_store_has(store, name, &present, err))
        return false;
    if (present)
        return true;

    size_t size;
    SCOPED_MEMORY char *text = timeline_history_ask(replication, timeline, &size, err);
    if (text == NULL) {
        if (err->kind == CAIRN_UNAVAILABLE || err->kind == CAIRN_CANCELLED)
            return false;
        snprintf(lacking_out, TIMELINE_LACKING_SIZE, "%s is not in the repository: %.200s", name,
                 err->message);
        cairn_error_clear(err);
        return true;
    }
    if (!put(store, repository_world(repository), name, text, size, err))
        return cairn_error_wrap(err, "%s as the server sent it", name);
    log_info("%s was stored: the server had it from before it archived here", name);
    return true;
}
