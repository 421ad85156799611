#include "repository/verify_intern.h"

#include "common/cancel.h"
#include "postgres/timeline.h"
#include "repository/wal_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One incarnation's WAL, walked by name: everything that is stored, whatever it is. */
typedef struct {
    Verify *verify;
    WalStore *store;
    char prefix[STORAGE_NAME_LIMIT];
    uint32_t timeline;
} WalWalk;

static bool
check_file(Verify *verify, WalStore *store, const char *object, const char *file,
           const char *backups, CairnError *err)
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
        return storage_list(repository_storage(walk->verify->repository), below.prefix, walk_entry,
                            &below, err)
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

/* Without its history file nobody knows where a timeline comes from; only the oldest one has none.
 */
static bool
verify_histories(Verify *verify, WalStore *store, CairnError *err)
{
    SCOPED_MEMORY uint32_t *timelines = NULL;
    size_t count;
    if (!wal_store_timelines(store, &timelines, &count, err))
        return false;
    for (size_t i = 1; i < count; i++) {
        char file[WAL_NAME_SIZE];
        bool present;
        snprintf(file, sizeof file, "%08X.history", timelines[i]);
        if (!wal_store_has(store, file, &present, err))
            return false;
        if (present)
            continue;
        cairn_error(err, CAIRN_NOT_FOUND, "'%s' is missing; nothing on timeline %u can be restored",
                    file, timelines[i]);
        if (!verify_note(verify, file, "", "", err))
            return false;
    }
    return true;
}

static bool
verify_incarnation_wal(Verify *verify, const Incarnation *incarnation, CairnError *err)
{
    SCOPED(WalStore)
    store = wal_store_open(verify->repository, verify->options->cluster, incarnation, err);
    if (store == NULL)
        return false;
    WalWalk walk = {.verify = verify, .store = store};
    char name[INCARNATION_NAME_SIZE];
    incarnation_name(name, incarnation->system_id, incarnation->major);
    snprintf(walk.prefix, sizeof walk.prefix, "c/%s/w/%s", verify->options->cluster, name);
    return storage_list(repository_storage(verify->repository), walk.prefix, walk_entry, &walk,
                        err) &&
           verify_histories(verify, store, err);
}

/* An incarnation, and its WAL unless what is needed to read it is damaged. */
static StorageListNext
verify_incarnation(void *context, const StorageEntry *entry, CairnError *err)
{
    Verify *verify = context;
    Incarnation incarnation;
    uint64_t system_id;
    int major;
    char expected[INCARNATION_NAME_SIZE];
    if (sscanf(entry->name, "%16" SCNx64 "-%d", &system_id, &major) != 2)
        return STORAGE_LIST_GO_ON;
    incarnation_name(expected, system_id, major);
    if (strcmp(expected, entry->name) != 0)
        return STORAGE_LIST_GO_ON;

    verify->report->object_count++;
    if (!incarnation_get(verify->repository, verify->options->cluster, system_id, major,
                         &incarnation, err)) {
        char object[STORAGE_NAME_LIMIT];
        snprintf(object, sizeof object, "c/%s/i/%s", verify->options->cluster, expected);
        return verify_note(verify, object, "", "", err) ? STORAGE_LIST_GO_ON : STORAGE_LIST_FAILED;
    }
    return verify_incarnation_wal(verify, &incarnation, err) ? STORAGE_LIST_GO_ON
                                                             : STORAGE_LIST_FAILED;
}

bool
verify_all_wal(Verify *verify, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT];
    snprintf(prefix, sizeof prefix, "c/%s/i", verify->options->cluster);
    return storage_list(repository_storage(verify->repository), prefix, verify_incarnation, verify,
                        err);
}

/* A segment that a backup needs: read, unless a quick look has to do. */
static bool
verify_needed_segment(Verify *verify, WalStore *store, const char *file, const Fate *fate,
                      bool *good, CairnError *err)
{
    const bool alone =
        verify->options->selector != NULL; /* else verify_all_wal counts what is there */
    bool present = true;
    verify->report->wal_file_count += alone;
    verify->report->object_count += alone;
    const bool known = alone || verify->options->scope == VERIFY_FULL
                           ? wal_store_verify(store, file, err)
                           : wal_store_has(store, file, &present, err);
    if (known && present)
        return true;
    *good = false;
    if (err->kind == CAIRN_CANCELLED)
        return false;
    if (known || err->kind == CAIRN_NOT_FOUND) {
        cairn_error_clear(err);
        cairn_error(err, CAIRN_NOT_FOUND,
                    "WAL segment '%s' is missing; without it the backup is of no use", file);
    }
    return verify_note(verify, file, fate->label, "", err);
}

/* The path on which the backup's segments lie: a standby's may begin on one timeline and end on the
 * next. */
static bool
find_path(WalStore *store, const Fate *fate, TimelineHistory *path, CairnError *err)
{
    timeline_history_root(fate->stop_timeline, path);
    if (fate->start_timeline == fate->stop_timeline)
        return true;
    size_t size;
    SCOPED_MEMORY char *text = wal_store_history(store, fate->stop_timeline, &size, err);
    return text != NULL && timeline_history_parse(fate->stop_timeline, text, size, path, err);
}

bool
verify_backup_wal(Verify *verify, const Fate *fate, bool *good_out, CairnError *err)
{
    Incarnation incarnation;
    *good_out = false;
    if (!incarnation_get(verify->repository, verify->options->cluster, fate->system_id, fate->major,
                         &incarnation, err)) {
        char name[INCARNATION_NAME_SIZE];
        char object[STORAGE_NAME_LIMIT];
        if (verify->options->selector == NULL && err->kind != CAIRN_NOT_FOUND) {
            cairn_error_clear(err); /* verify_all_wal names it */
            return true;
        }
        incarnation_name(name, fate->system_id, fate->major);
        snprintf(object, sizeof object, "c/%s/i/%s", verify->options->cluster, name);
        return verify_note(verify, object, fate->label, "", err);
    }
    SCOPED(WalStore)
    store = wal_store_open(verify->repository, verify->options->cluster, &incarnation, err);
    if (store == NULL)
        return false;
    SCOPED_MEMORY TimelineHistory *path = malloc(sizeof *path);
    if (path == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!find_path(store, fate, path, err)) {
        char file[WAL_FILE_NAME_LIMIT];
        snprintf(file, sizeof file, "%08X.history", fate->stop_timeline);
        return verify_note(verify, file, fate->label, "", err);
    }
    *good_out = true;
    const uint32_t segment_size = fate->wal_segment_size;
    const uint64_t last = wal_segment_before(fate->stop_lsn, segment_size);
    for (uint64_t segment = wal_segment_of(fate->start_lsn, segment_size); segment <= last;
         segment++) {
        const uint64_t end = (segment + 1) * segment_size;
        const uint64_t last_lsn = (end < fate->stop_lsn ? end : fate->stop_lsn) - 1;
        char file[WAL_NAME_SIZE];
        wal_segment_name(file, timeline_history_at(path, last_lsn), segment, segment_size);
        if (!verify_needed_segment(verify, store, file, fate, good_out, err))
            return false;
    }
    return true;
}
