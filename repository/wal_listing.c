/* Which WAL is stored, and where: listings, coverage. */
#include "repository/wal_object.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { GROUP_DIGITS = 8 };

void
wal_store_log_prefix(const WalStore *store, uint32_t timeline, uint32_t log,
                     char prefix[STORAGE_NAME_LIMIT + 1])
{
    snprintf(prefix, STORAGE_NAME_LIMIT + 1, "%.400s/%08" PRIX32 "/%08" PRIX32, store->prefix,
             timeline, log);
}

void
wal_store_name(const WalStore *store, uint32_t timeline, uint32_t log, const char *name,
               char text[STORAGE_NAME_LIMIT + 1])
{
    snprintf(text, STORAGE_NAME_LIMIT + 1, "%.400s/%08" PRIX32 "/%08" PRIX32 "/%.64s",
             store->prefix, timeline, log, name);
}

bool
wal_store_list_log(const WalStore *store, uint32_t timeline, uint32_t log,
                   StorageListCallback *callback, void *context, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT + 1];

    wal_store_log_prefix(store, timeline, log, prefix);
    return storage_list(repository_storage(store->repository), prefix, callback, context, err);
}

/* A growing list of directory names that are eight hex digits: timelines, logs. */
typedef struct {
    uint32_t *values;
    size_t count;
    size_t capacity;
} GroupList;

static StorageListNext
collect_group(void *context, const StorageEntry *entry, CairnError *err)
{
    GroupList *list = context;
    uint32_t value;

    if (!entry->is_directory || !wal_digits_parse(entry->name, &value) ||
        entry->name[GROUP_DIGITS] != '\0')
        return STORAGE_LIST_GO_ON;
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        uint32_t *values = reallocarray(list->values, capacity, sizeof *values);
        if (values == NULL) {
            cairn_error(err, CAIRN_INTERNAL, "out of memory");
            return STORAGE_LIST_FAILED;
        }
        list->values = values;
        list->capacity = capacity;
    }
    list->values[list->count++] = value;
    return STORAGE_LIST_GO_ON;
}

static int
compare_u32(const void *left, const void *right)
{
    const uint32_t a = *(const uint32_t *)left;
    const uint32_t b = *(const uint32_t *)right;

    return (a > b) - (a < b);
}

static bool
list_groups(const WalStore *store, const char *prefix, uint32_t **values_out, size_t *count_out,
            CairnError *err)
{
    GroupList list = {.values = malloc(sizeof *list.values), .capacity = 1};

    if (list.values == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!storage_list(repository_storage(store->repository), prefix, collect_group, &list, err)) {
        free(list.values);
        return false;
    }
    qsort(list.values, list.count, sizeof *list.values, compare_u32);
    *values_out = list.values;
    *count_out = list.count;
    return true;
}

bool
wal_store_timelines(WalStore *store, uint32_t **timelines_out, size_t *count_out, CairnError *err)
{
    return list_groups(store, store->prefix, timelines_out, count_out, err);
}

bool
wal_store_logs(const WalStore *store, uint32_t timeline, uint32_t **logs_out, size_t *count_out,
               CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT + 1];

    snprintf(prefix, sizeof prefix, "%.400s/%08" PRIX32, store->prefix, timeline);
    return list_groups(store, prefix, logs_out, count_out, err);
}

/* Segments of one log, as a bitmap: a constant amount of memory, whatever is stored. */
enum { LOG_SEGMENT_LIMIT = 4096 }; /* 4 GiB in segments of 1 MiB */

typedef struct {
    const WalStore *store;
    uint32_t timeline;
    uint32_t log;
    uint64_t sizes[LOG_SEGMENT_LIMIT]; /* of objects; 0: absent */
    int64_t newest_us;
} LogSegments;

static StorageListNext
collect_segment(void *context, const StorageEntry *entry, CairnError *err)
{
    LogSegments *segments = context;
    const uint32_t segment_size = segments->store->incarnation->wal_segment_size;
    uint32_t timeline;
    uint64_t number;

    (void)err;
    if (entry->is_directory || entry->size_bytes == 0 ||
        !wal_segment_parse(entry->name, segment_size, &timeline, &number))
        return STORAGE_LIST_GO_ON;
    const uint64_t per_log = wal_segments_per_log(segment_size);
    if (timeline == segments->timeline && number / per_log == segments->log) {
        segments->sizes[number % per_log] = entry->size_bytes;
        if (entry->modified_us > segments->newest_us)
            segments->newest_us = entry->modified_us;
    }
    return STORAGE_LIST_GO_ON;
}

typedef struct {
    WalRun *runs;
    size_t count;
    size_t capacity;
} RunList;

static bool
add_segment(RunList *list, uint64_t segment_number, const LogSegments *segments,
            uint64_t stored_bytes, CairnError *err)
{
    WalRun *last = list->count > 0 ? &list->runs[list->count - 1] : NULL;

    if (last != NULL && last->last_segment + 1 == segment_number) {
        last->last_segment = segment_number;
        last->stored_bytes += stored_bytes;
        if (segments->newest_us > last->newest_us)
            last->newest_us = segments->newest_us;
        return true;
    }
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 8 : 2 * list->capacity;
        WalRun *runs = reallocarray(list->runs, capacity, sizeof *runs);
        if (runs == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        list->runs = runs;
        list->capacity = capacity;
    }
    list->runs[list->count++] = (WalRun){.first_segment = segment_number,
                                         .last_segment = segment_number,
                                         .stored_bytes = stored_bytes,
                                         .newest_us = segments->newest_us};
    return true;
}

static bool
add_log(WalStore *store, LogSegments *segments, RunList *list, CairnError *err)
{
    const uint64_t per_log = wal_segments_per_log(store->incarnation->wal_segment_size);

    memset(segments->sizes, 0, sizeof segments->sizes);
    segments->newest_us = 0;
    if (!wal_store_list_log(store, segments->timeline, segments->log, collect_segment, segments,
                            err))
        return false;
    for (uint64_t i = 0; i < per_log; i++) {
        if (segments->sizes[i] != 0 &&
            !add_segment(list, segments->log * per_log + i, segments, segments->sizes[i], err))
            return false;
    }
    return true;
}

bool
wal_store_coverage(WalStore *store, uint32_t timeline, WalRun **runs_out, size_t *count_out,
                   CairnError *err)
{
    SCOPED_MEMORY uint32_t *logs = NULL;
    SCOPED_MEMORY LogSegments *segments = malloc(sizeof *segments);
    RunList list = {.runs = malloc(sizeof *list.runs), .capacity = 1};
    size_t log_count = 0;

    bool done = segments != NULL && list.runs != NULL
                    ? wal_store_logs(store, timeline, &logs, &log_count, err)
                    : cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = 0; done && i < log_count; i++) {
        segments->store = store;
        segments->timeline = timeline;
        segments->log = logs[i];
        done = add_log(store, segments, &list, err);
    }
    if (!done) {
        free(list.runs);
        return cairn_error_wrap(err, "unable to list WAL of timeline %" PRIu32, timeline);
    }
    *runs_out = list.runs;
    *count_out = list.count;
    return true;
}
