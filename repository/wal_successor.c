/* What the presence of later WAL proves: that something absent is a hole, and no end. */
#include "postgres/timeline.h"
#include "repository/wal_object.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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
    const uint64_t per_log = wal_segments_per_log(store->incarnation->wal_segment_size);
    SCOPED_MEMORY uint32_t *logs = NULL;
    size_t count = 0;

    *search = (LaterSearch){.store = store, .timeline = timeline, .after = after};
    if (!wal_store_logs(store, timeline, &logs, &count, err))
        return false;
    while (count > 0 && !search->found && logs[count - 1] >= after / per_log) {
        count--;
        if (!wal_store_list_log(store, timeline, logs[count], match_later, search, err))
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
