#include "repository/wal_expire.h"

#include "common/cancel.h"
#include "repository/wal_object.h"
#include "repository/wal_piece.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* "<segment>", "<segment>.partial.<8 hex>", "<segment>.<8 hex>.backup" or a piece of a segment. */
static bool
parse_entry(const WalStore *store, const char *name, uint32_t *timeline_out, uint64_t *segment_out)
{
    char segment[WAL_NAME_SIZE];
    const size_t size = strlen(name);
    WalPieceName piece;
    if (wal_piece_name_parse(name, store->incarnation->wal_segment_size, &piece)) {
        *timeline_out = piece.timeline;
        *segment_out = piece.segment;
        return true;
    }
    if (size < WAL_NAME_SIZE - 1 || size >= WAL_FILE_NAME_LIMIT)
        return false;
    snprintf(segment, sizeof segment, "%.24s", name);
    const char *rest = name + WAL_NAME_SIZE - 1;
    if (*rest != '\0' && strncmp(rest, ".partial.", strlen(".partial.")) != 0 &&
        (strlen(rest) != strlen(".00000028.backup") || strcmp(rest + 9, ".backup") != 0))
        return false;
    return wal_segment_parse(segment, store->incarnation->wal_segment_size, timeline_out,
                             segment_out);
}

typedef struct {
    const WalStore *store;
    uint32_t timeline;
    bool found;
    uint64_t last_segment;
} LastSearch;

static StorageListNext
match_last(void *context, const StorageEntry *entry, CairnError *err)
{
    LastSearch *search = context;
    uint32_t timeline;
    uint64_t segment;
    (void)err;
    if (!entry->is_directory && parse_entry(search->store, entry->name, &timeline, &segment) &&
        timeline == search->timeline && (!search->found || segment > search->last_segment)) {
        search->found = true;
        search->last_segment = segment;
    }
    return STORAGE_LIST_GO_ON;
}

/* Newest log first: that is where it is. */
static bool
find_last(WalStore *store, uint32_t timeline, LastSearch *search, CairnError *err)
{
    SCOPED_MEMORY uint32_t *logs = NULL;
    size_t count = 0;
    *search = (LastSearch){.store = store, .timeline = timeline};
    if (!wal_store_logs(store, timeline, &logs, &count, err))
        return false;
    while (count > 0 && !search->found) {
        count--;
        if (!wal_store_list_log(store, timeline, logs[count], match_last, search, err))
            return false;
    }
    return true;
}

bool
wal_expire_reach(WalStore *store, WalReach **reach_out, size_t *count_out, CairnError *err)
{
    SCOPED_MEMORY uint32_t *timelines = NULL;
    size_t timeline_count = 0, count = 0;
    if (!wal_store_timelines(store, &timelines, &timeline_count, err))
        return false;
    SCOPED_MEMORY WalReach *reach = calloc(timeline_count + 1, sizeof *reach);
    if (reach == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = 0; i < timeline_count; i++) {
        LastSearch search;
        if (!find_last(store, timelines[i], &search, err))
            return false;
        if (search.found)
            reach[count++] =
                (WalReach){.timeline = timelines[i], .last_segment = search.last_segment};
    }
    *reach_out = take(&reach);
    *count_out = count;
    return true;
}

/* Names of one log that are to go. */
typedef struct {
    const WalStore *store;
    const WalExpiry *expiry;
    const WalReach *reach;
    char (*names)[WAL_FILE_NAME_LIMIT];
    uint64_t *sizes;
    size_t count, capacity;
    bool others; /* something stays in this log */
} Doomed;

static bool
may_go(const Doomed *doomed, uint64_t segment)
{
    const WalExpiry *expiry = doomed->expiry;
    const uint64_t size = doomed->store->incarnation->wal_segment_size;
    const uint64_t start = segment * size, end = start + size;
    if (end > expiry->floor_lsn || segment > doomed->reach->last_segment)
        return false;
    for (size_t i = 0; i < expiry->kept_count; i++) {
        /* The segment with the byte at end_lsn is kept too: one segment too many hurts nobody. */
        if (start <= expiry->kept[i].end_lsn && end > expiry->kept[i].start_lsn)
            return false;
    }
    return true;
}

static bool
grow(Doomed *doomed, CairnError *err)
{
    if (doomed->count < doomed->capacity)
        return true;
    const size_t capacity = doomed->capacity == 0 ? 256 : 2 * doomed->capacity;
    char(*names)[WAL_FILE_NAME_LIMIT] = reallocarray(doomed->names, capacity, sizeof *names);
    if (names == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    doomed->names = names;
    uint64_t *sizes = reallocarray(doomed->sizes, capacity, sizeof *sizes);
    if (sizes == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    doomed->sizes = sizes;
    doomed->capacity = capacity;
    return true;
}

static StorageListNext
note_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    Doomed *doomed = context;
    uint32_t timeline;
    uint64_t segment;
    if (entry->is_directory || !parse_entry(doomed->store, entry->name, &timeline, &segment) ||
        timeline != doomed->reach->timeline || !may_go(doomed, segment)) {
        doomed->others = true;
        return STORAGE_LIST_GO_ON;
    }
    if (!grow(doomed, err))
        return STORAGE_LIST_FAILED;
    snprintf(doomed->names[doomed->count], sizeof *doomed->names, "%s", entry->name);
    doomed->sizes[doomed->count++] = entry->size_bytes;
    return STORAGE_LIST_GO_ON;
}

/* Some of a log's doomed files, from `first` on. */
static bool
remove_some(Doomed *doomed, Storage *storage, const char *prefix, size_t first, size_t count,
            bool *gone, CairnError *err)
{
    const char *pointers[REMOVALS_BATCH];
    SCOPED_MEMORY char(*names)[STORAGE_NAME_LIMIT + 64] = calloc(count, sizeof *names);
    if (names == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = 0; i < count; i++) {
        snprintf(names[i], sizeof *names, "%.430s/%.130s", prefix, doomed->names[first + i]);
        pointers[i] = names[i];
    }
    return cancel_check(err) &&
           removals_try_many(doomed->expiry->removals, storage, pointers, count, gone, err);
}

static bool
remove_log(WalStore *store, Doomed *doomed, uint32_t log, uint64_t *files, uint64_t *bytes,
           CairnError *err)
{
    Storage *storage = repository_storage(store->repository);
    char prefix[STORAGE_NAME_LIMIT + 1];
    doomed->count = 0;
    doomed->others = false;
    if (!wal_store_list_log(store, doomed->reach->timeline, log, note_entry, doomed, err))
        return false;
    wal_store_log_prefix(store, doomed->reach->timeline, log, prefix);
    for (size_t first = 0; first < doomed->count; first += REMOVALS_BATCH) {
        const size_t left = doomed->count - first;
        const size_t count = left < REMOVALS_BATCH ? left : REMOVALS_BATCH;
        bool gone[REMOVALS_BATCH];
        memset(gone, true, sizeof gone);
        if (!doomed->expiry->dry_run &&
            !remove_some(doomed, storage, prefix, first, count, gone, err))
            return false;
        for (size_t i = 0; i < count; i++) {
            *files += gone[i];
            *bytes += gone[i] ? doomed->sizes[first + i] : 0;
            doomed->others = doomed->others || !gone[i];
        }
    }
    return doomed->others || doomed->expiry->dry_run || storage_prune(storage, prefix, err);
}

static bool
expire_timeline(WalStore *store, Doomed *doomed, uint64_t *files, uint64_t *bytes, CairnError *err)
{
    SCOPED_MEMORY uint32_t *logs = NULL;
    size_t count = 0;
    if (!wal_store_logs(store, doomed->reach->timeline, &logs, &count, err))
        return false;
    for (size_t i = 0; i < count && (uint64_t)logs[i] << 32 < doomed->expiry->floor_lsn; i++) {
        if (!remove_log(store, doomed, logs[i], files, bytes, err))
            return false;
    }
    return true;
}

bool
wal_expire(WalStore *store, const WalExpiry *expiry, uint64_t *files, uint64_t *bytes,
           CairnError *err)
{
    Doomed doomed = {.store = store, .expiry = expiry};
    bool done = true;
    for (size_t i = 0; done && i < expiry->reach_count; i++) {
        doomed.reach = &expiry->reach[i];
        done = expire_timeline(store, &doomed, files, bytes, err);
    }
    free(doomed.names);
    free(doomed.sizes);
    return done || cairn_error_wrap(err, "unable to delete WAL that no backup needs");
}
