/* Which WAL is stored: listings, coverage, and what the presence of later WAL proves. */
#include "postgres/timeline.h"
#include "repository/wal_object.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { GROUP_DIGITS = 8 };

bool
wal_store_list(const WalStore *store, const char *below, StorageListCallback *callback,
               void *context, CairnError *err)
{
    char prefix[STORAGE_NAME_LIMIT + 1];

    snprintf(prefix, sizeof prefix, "%.400s%s", store->prefix, below);
    return storage_list(repository_storage(store->repository), prefix, callback, context, err);
}

/* Exactly eight upper-case hex digits. */
static bool
parse_group_name(const char *name, uint32_t *value_out)
{
    uint32_t value = 0;

    for (size_t i = 0; i < GROUP_DIGITS; i++) {
        const char c = name[i];
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint32_t)(c - '0');
        else if (c >= 'A' && c <= 'F')
            value = value << 4 | (uint32_t)(c - 'A' + 10);
        else
            return false;
    }
    *value_out = value;
    return name[GROUP_DIGITS] == '\0';
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

    if (!entry->is_directory || !parse_group_name(entry->name, &value))
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

bool
wal_store_groups(const WalStore *store, const char *below, uint32_t **values_out, size_t *count_out,
                 CairnError *err)
{
    GroupList list = {.values = malloc(sizeof *list.values), .capacity = 1};

    if (list.values == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!wal_store_list(store, below, collect_group, &list, err)) {
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
    return wal_store_groups(store, "", timelines_out, count_out, err);
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
    const uint64_t per_log = (UINT64_C(1) << 32) / segment_size;
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
    const uint64_t per_log = (UINT64_C(1) << 32) / store->incarnation->wal_segment_size;
    char below[WAL_PREFIX_SIZE];

    snprintf(below, sizeof below, "/%08" PRIX32 "/%08" PRIX32, segments->timeline, segments->log);
    memset(segments->sizes, 0, sizeof segments->sizes);
    segments->newest_us = 0;
    if (!wal_store_list(store, below, collect_segment, segments, err))
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
    char below[WAL_PREFIX_SIZE];

    snprintf(below, sizeof below, "/%08" PRIX32, timeline);
    bool done = segments != NULL && list.runs != NULL
                    ? wal_store_groups(store, below, &logs, &log_count, err)
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

/* Looks among the names of one log for what lies after a segment. */
typedef struct {
    const WalStore *store;
    uint32_t timeline;
    uint64_t after;
    bool found;
    char name[WAL_FILE_NAME_LIMIT];
} LaterSearch;

/* A .partial or a piece proves as much as a segment: its timeline got that far. */
static StorageListNext
match_later(void *context, const StorageEntry *entry, CairnError *err)
{
    LaterSearch *search = context;
    const uint32_t segment_size = search->store->incarnation->wal_segment_size;
    char segment[WAL_NAME_SIZE];
    uint32_t timeline;
    uint64_t number;

    (void)err;
    snprintf(segment, sizeof segment, "%s", entry->name);
    const char *rest = entry->name + strlen(segment);
    if (entry->is_directory || !wal_segment_parse(segment, segment_size, &timeline, &number) ||
        timeline != search->timeline || number <= search->after ||
        (*rest != '\0' && strncmp(rest, ".partial.", strlen(".partial.")) != 0 &&
         strncmp(rest, ".tail.", strlen(".tail.")) != 0))
        return STORAGE_LIST_GO_ON;
    search->found = true;
    snprintf(search->name, sizeof search->name, "%s", entry->name);
    return STORAGE_LIST_STOP;
}

/* Is anything stored on the timeline after segment number `after`? Newest log first: that is where
 * it is. */
static bool
find_later_segment(WalStore *store, uint32_t timeline, uint64_t after, LaterSearch *search,
                   CairnError *err)
{
    const uint64_t per_log = (UINT64_C(1) << 32) / store->incarnation->wal_segment_size;
    SCOPED_MEMORY uint32_t *logs = NULL;
    size_t count = 0;
    char below[WAL_PREFIX_SIZE];

    *search = (LaterSearch){.store = store, .timeline = timeline, .after = after};
    snprintf(below, sizeof below, "/%08" PRIX32, timeline);
    if (!wal_store_groups(store, below, &logs, &count, err))
        return false;
    while (count > 0 && !search->found && logs[count - 1] >= after / per_log) {
        count--;
        snprintf(below, sizeof below, "/%08" PRIX32 "/%08" PRIX32, timeline, logs[count]);
        if (!wal_store_list(store, below, match_later, search, err))
            return false;
    }
    return true;
}

/* *history_out: NULL when it is not stored, else malloc'ed. */
static bool
read_history(WalStore *store, uint32_t timeline, TimelineHistory **history_out, CairnError *err)
{
    size_t size = 0;
    SCOPED_MEMORY char *text = wal_store_history(store, timeline, &size, err);

    if (text == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        *history_out = NULL;
        return true;
    }
    SCOPED_MEMORY TimelineHistory *history = malloc(sizeof *history);
    if (history == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!timeline_history_parse(timeline, text, size, history, err))
        return false;
    *history_out = take(&history);
    return true;
}

/* The stretch of `timeline` on another one's path, or NULL. */
static const TimelineStretch *
ancestor_stretch(const TimelineHistory *history, uint32_t timeline)
{
    for (size_t i = 0; i + 1 < history->stretch_count; i++) {
        if (history->stretches[i].timeline == timeline)
            return &history->stretches[i];
    }
    return NULL;
}

/*
 * Does a stored history say that a timeline left `timeline` in a segment after `after`? With
 * `after` UINT64_MAX: that it left it at all.
 */
static bool
find_descendant(WalStore *store, uint32_t timeline, uint64_t after, const uint32_t *timelines,
                size_t count, WalSuccessor *successor, CairnError *err)
{
    for (size_t i = 0; i < count; i++) {
        SCOPED_MEMORY TimelineHistory *history = NULL;

        if (timelines[i] <= timeline)
            continue;
        if (!read_history(store, timelines[i], &history, err))
            return false;
        const TimelineStretch *stretch =
            history != NULL ? ancestor_stretch(history, timeline) : NULL;
        if (stretch == NULL)
            continue;
        if (after == UINT64_MAX ||
            wal_segment_of(stretch->end_lsn, store->incarnation->wal_segment_size) > after) {
            successor->found = true;
            snprintf(successor->name, sizeof successor->name, "%08" PRIX32 ".history",
                     timelines[i]);
            return true;
        }
    }
    return true;
}

bool
wal_store_forked(WalStore *store, uint32_t timeline, uint64_t segment, bool *forked_out,
                 CairnError *err)
{
    SCOPED_MEMORY uint32_t *timelines = NULL;
    size_t count = 0;
    WalSuccessor successor = {0};
    /* At all, then, for segment 0. */
    const uint64_t after = segment - 1;

    if (!wal_store_timelines(store, &timelines, &count, err) ||
        !find_descendant(store, timeline, after, timelines, count, &successor, err))
        return false;
    *forked_out = successor.found;
    return true;
}

/*
 * A timeline that is the oldest here may have begun before this repository did, and then its
 * history was never stored: PostgreSQL does without. Any other one left its history behind when it
 * began.
 */
static bool
find_history_successor(WalStore *store, uint32_t timeline, const uint32_t *timelines, size_t count,
                       WalSuccessor *successor, CairnError *err)
{
    LaterSearch search;

    if (timeline == 1 || count == 0 || timelines[0] >= timeline)
        return true;
    if (!find_later_segment(store, timeline, 0, &search, err))
        return false;
    if (search.found) {
        successor->found = true;
        snprintf(successor->name, sizeof successor->name, "%s", search.name);
        return true;
    }
    return find_descendant(store, timeline, UINT64_MAX, timelines, count, successor, err);
}

bool
wal_store_successor(WalStore *store, const char *file_name, WalSuccessor *successor_out,
                    CairnError *err)
{
    SCOPED_MEMORY uint32_t *timelines = NULL;
    size_t count = 0;
    WalFileName file;
    WalSuccessor successor = {0};
    LaterSearch search;
    uint32_t timeline;
    uint64_t number;

    if (!wal_file_name_parse(file_name, &file, err) ||
        !wal_store_timelines(store, &timelines, &count, err))
        return false;
    if (file.kind == WAL_FILE_HISTORY) {
        if (!find_history_successor(store, file.timeline, timelines, count, &successor, err))
            return false;
    } else if (file.kind == WAL_FILE_SEGMENT) {
        if (!wal_segment_parse(file_name, store->incarnation->wal_segment_size, &timeline,
                               &number)) {
            return cairn_error(err, CAIRN_MISMATCH,
                               "no segment '%s' can exist where segments have %" PRIu32 " bytes",
                               file_name, store->incarnation->wal_segment_size);
        }
        if (!find_later_segment(store, timeline, number, &search, err))
            return false;
        successor.found = search.found;
        snprintf(successor.name, sizeof successor.name, "%s", search.name);
        if (!search.found &&
            !find_descendant(store, timeline, number, timelines, count, &successor, err))
            return false;
    }
    *successor_out = successor;
    return true;
}
