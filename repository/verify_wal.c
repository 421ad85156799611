#include "repository/verify_intern.h"

#include "common/cancel.h"
#include "repository/wal_store.h"

#include <stdio.h>
#include <string.h>

/* One incarnation's WAL, walked by name: everything that is stored, whatever it is. */
typedef struct {
    Verify *verify;
    WalStore *store;
    char prefix[STORAGE_NAME_LIMIT];
    uint32_t timeline;
} WalWalk;

static bool
check_file(Verify *verify, WalStore *store, const char *object, const char *file, const char *backups,
           CairnError *err)
{
    verify->report->wal_file_count++;
    if (verify->options->scope != VERIFY_FULL) {
        bool ok;
        return verify_object(verify, object, OBJECT_WAL, backups, &ok, err);
    }
    verify->report->object_count++;
    if (!wal_store_verify(store, file, err))
        return verify_note(verify, object, backups, "", err);
    return true;
}

static StorageListNext
walk_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    WalWalk *walk = context;
    char name[STORAGE_NAME_LIMIT];
    if (!cancel_check(err))
        return STORAGE_LIST_FAILED;
    int size = snprintf(name, sizeof name, "%s/%s", walk->prefix, entry->name);
    if (size < 0 || (size_t)size >= sizeof name)
        return STORAGE_LIST_GO_ON;
    if (entry->is_directory) {
        WalWalk below = {.verify = walk->verify, .store = walk->store, .timeline = walk->timeline};
        snprintf(below.prefix, sizeof below.prefix, "%s", name);
        unsigned timeline;
        if (walk->timeline == 0 && sscanf(entry->name, "%8X", &timeline) == 1)
            below.timeline = timeline;
        return storage_list(repository_storage(walk->verify->repository), below.prefix, walk_entry, &below,
                            err)
                   ? STORAGE_LIST_GO_ON
                   : STORAGE_LIST_FAILED;
    }
    char file[STORAGE_NAME_LIMIT];
    if (strcmp(entry->name, "history") == 0)
        snprintf(file, sizeof file, "%08X.history", walk->timeline);
    else
        snprintf(file, sizeof file, "%s", entry->name);
    walk->verify->report->byte_count += entry->size_bytes;
    progress_add(walk->verify->options->progress, entry->size_bytes);
    progress_draw(walk->verify->options->progress);
    return check_file(walk->verify, walk->store, name, file, "", err) ? STORAGE_LIST_GO_ON
                                                                      : STORAGE_LIST_FAILED;
}

bool
verify_all_wal(Verify *verify, CairnError *err)
{
    Incarnation incarnations[INCARNATION_LIMIT];
    size_t count;
    CairnError ignored = {0}; /* verify_run has filed a finding for incarnations that cannot be read */
    if (!incarnation_list(verify->repository, verify->options->cluster, incarnations, &count, &ignored))
        return true;
    for (size_t i = 0; i < count; i++) {
        SCOPED(WalStore) store =
            wal_store_open(verify->repository, verify->options->cluster, &incarnations[i], err);
        if (store == NULL)
            return false;
        WalWalk walk = {.verify = verify, .store = store};
        char name[INCARNATION_NAME_SIZE];
        incarnation_name(name, incarnations[i].system_id, incarnations[i].major);
        snprintf(walk.prefix, sizeof walk.prefix, "c/%s/w/%s", verify->options->cluster, name);
        if (!storage_list(repository_storage(verify->repository), walk.prefix, walk_entry, &walk, err))
            return false;
    }
    return true;
}

bool
verify_backup_wal(Verify *verify, const Fate *fate, CairnError *err)
{
    Incarnation incarnation;
    if (!incarnation_get(verify->repository, verify->options->cluster, fate->system_id, fate->major,
                         &incarnation, err))
        return verify_note(verify, "incarnation", fate->label, "", err);
    SCOPED(WalStore) store = wal_store_open(verify->repository, verify->options->cluster, &incarnation, err);
    if (store == NULL)
        return false;
    uint64_t last = wal_segment_before(fate->stop_lsn, fate->wal_segment_size);
    for (uint64_t segment = wal_segment_of(fate->start_lsn, fate->wal_segment_size); segment <= last;
         segment++) {
        char file[WAL_NAME_SIZE];
        wal_segment_name(file, fate->stop_timeline, segment, fate->wal_segment_size);
        verify->report->wal_file_count++;
        verify->report->object_count++;
        if (!wal_store_verify(store, file, err) && !verify_note(verify, file, fate->label, "", err))
            return false;
    }
    return true;
}
