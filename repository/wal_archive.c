/* The tree of timelines: what is stored of each, and where it came from. */
#include "repository/wal_archive_intern.h"

#include "repository/wal_history.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool
load_history(WalStore *store, WalTimeline *timeline, bool oldest, CairnError *err)
{
    timeline->history = wal_history_read(store, timeline->timeline, err);
    if (timeline->history != NULL)
        return true;
    if (wal_history_is_unreadable(err->kind)) {
        timeline->history_problem = strdup(err->message);
        if (timeline->history_problem == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        cairn_error_clear(err);
        return true;
    }
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    if (!oldest)
        return true;
    timeline->history = malloc(sizeof *timeline->history);
    if (timeline->history == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    timeline_history_root(timeline->timeline, timeline->history);
    return true;
}

/* The last switch away from `timeline` that any history names; false when there is none. */
static bool
last_fork(const WalArchive *archive, uint32_t timeline, uint64_t *fork_lsn_out)
{
    bool found = false;

    for (size_t i = 0; i < archive->count; i++) {
        const TimelineHistory *history = archive->timelines[i].history;
        for (size_t k = 0; history != NULL && k + 1 < history->stretch_count; k++) {
            const TimelineStretch *stretch = &history->stretches[k];
            if (stretch->timeline != timeline)
                continue;
            if (!found || stretch->end_lsn > *fork_lsn_out)
                *fork_lsn_out = stretch->end_lsn;
            found = true;
        }
    }
    return found;
}

/* A whole segment at the fork or after it was finished on this timeline: it went its own way. */
static bool
has_wal_from(const WalTimeline *timeline, uint64_t lsn, uint32_t segment_size)
{
    return timeline->run_count > 0 && timeline->runs[timeline->run_count - 1].last_segment >=
                                          wal_segment_of(lsn, segment_size);
}

static bool
find_unfinished(WalStore *store, WalTimeline *timeline, CairnError *err)
{
    WalUnfinished unfinished;
    const uint64_t next = timeline->run_count > 0
                              ? timeline->runs[timeline->run_count - 1].last_segment + 1
                              : UINT64_MAX;

    if (!wal_store_unfinished(store, timeline->timeline, next, &unfinished, err))
        return false;
    timeline->has_unfinished = unfinished.found;
    timeline->unfinished_segment = unfinished.segment;
    timeline->unfinished_size = unfinished.size;
    timeline->unfinished_broken = unfinished.broken;
    return true;
}

/* Runs and what lies behind them, told again where they show a hole: segments may have been stored
   between the two looks. */
static bool
load_wal(WalStore *store, WalTimeline *timeline, CairnError *err)
{
    enum { LOOKS = 2 };
    bool hole = true;

    for (int looks = 0; looks < LOOKS && hole; looks++) {
        free(timeline->runs);
        timeline->runs = NULL;
        timeline->run_count = 0;
        if (!wal_store_coverage(store, timeline->timeline, &timeline->runs, &timeline->run_count,
                                err) ||
            !find_unfinished(store, timeline, err))
            return false;
        hole =
            timeline->has_unfinished && timeline->run_count > 0 &&
            timeline->unfinished_segment > timeline->runs[timeline->run_count - 1].last_segment + 1;
    }
    return true;
}

uint64_t
wal_timeline_stored_end(const WalTimeline *timeline)
{
    const uint64_t end =
        timeline->run_count > 0 ? timeline->runs[timeline->run_count - 1].last_segment + 1 : 0;

    return timeline->has_unfinished && timeline->unfinished_segment > end
               ? timeline->unfinished_segment
               : end;
}

WalArchive *
wal_archive_load(Repository *repository, const char *cluster, const Incarnation *incarnation,
                 CairnError *err)
{
    SCOPED_MEMORY uint32_t *numbers = NULL;
    size_t count = 0;
    SCOPED(WalArchive) archive = calloc(1, sizeof *archive);

    if (archive == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    archive->store = wal_store_open(repository, cluster, incarnation, err);
    if (archive->store == NULL || !wal_store_timelines(archive->store, &numbers, &count, err))
        return NULL;
    archive->timelines = calloc(count + 1, sizeof *archive->timelines);
    if (archive->timelines == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        WalTimeline *timeline = &archive->timelines[archive->count++];
        timeline->timeline = numbers[i];
        if (!load_history(archive->store, timeline, i == 0, err) ||
            !load_wal(archive->store, timeline, err))
            return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        WalTimeline *timeline = &archive->timelines[i];
        uint64_t fork_lsn = 0;
        timeline->is_leaf = !last_fork(archive, timeline->timeline, &fork_lsn) ||
                            has_wal_from(timeline, fork_lsn, incarnation->wal_segment_size);
    }
    return take(&archive);
}

void
wal_archive_free(WalArchive *archive)
{
    if (archive == NULL)
        return;
    for (size_t i = 0; i < archive->count; i++) {
        free(archive->timelines[i].history);
        free(archive->timelines[i].history_problem);
        free(archive->timelines[i].runs);
    }
    free(archive->timelines);
    wal_store_close(archive->store);
    free(archive);
}

size_t
wal_archive_timeline_count(const WalArchive *archive)
{
    return archive->count;
}

const WalTimeline *
wal_archive_timeline(const WalArchive *archive, size_t index)
{
    CAIRN_ASSERT(index < archive->count);
    return &archive->timelines[index];
}

const WalTimeline *
wal_archive_find(const WalArchive *archive, uint32_t timeline)
{
    for (size_t i = 0; i < archive->count; i++) {
        if (archive->timelines[i].timeline == timeline)
            return &archive->timelines[i];
    }
    return NULL;
}

const Incarnation *
wal_archive_incarnation(const WalArchive *archive)
{
    return wal_store_incarnation(archive->store);
}

WalStore *
wal_archive_store(WalArchive *archive)
{
    return archive->store;
}

const WalTimeline *
wal_archive_unreadable_history(const WalArchive *archive, uint32_t above)
{
    for (size_t i = 0; i < archive->count; i++) {
        const WalTimeline *timeline = &archive->timelines[i];
        if (timeline->timeline > above && timeline->history_problem != NULL)
            return timeline;
    }
    return NULL;
}
