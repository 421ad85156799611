#include "restore/windows.h"

#include "repository/wal_ack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    WalArchive *archive;
    const PlanCandidates *candidates;
    WindowTree *tree;
} WindowReader;

static uint32_t
segment_size_of(const WindowReader *reader)
{
    return wal_archive_incarnation(reader->archive)->wal_segment_size;
}

static const TimelineStretch *
stretch_of(const TimelineHistory *path, uint32_t timeline)
{
    for (size_t i = 0; i < path->stretch_count; i++) {
        if (path->stretches[i].timeline == timeline)
            return &path->stretches[i];
    }
    return NULL;
}

/*
 * The path on which a timeline's own stretch is looked at. Where it ended in a fork, that is a
 * descendant's: the segment with the fork is stored under the descendant's name.
 */
static const TimelineHistory *
path_through(const WindowReader *reader, const WalTimeline *timeline)
{
    if (timeline->is_leaf)
        return timeline->history;
    for (size_t i = wal_archive_timeline_count(reader->archive); i-- > 0;) {
        const WalTimeline *leaf = wal_archive_timeline(reader->archive, i);
        if (leaf->is_leaf && leaf->history != NULL &&
            stretch_of(leaf->history, timeline->timeline) != NULL)
            return leaf->history;
    }
    return timeline->history;
}

/* 0 where damage hides it. */
static bool
time_before(const WindowReader *reader, const TimelineHistory *path, uint64_t start_lsn,
            uint64_t end_lsn, int64_t *time_us_out, CairnError *err)
{
    *time_us_out = 0;
    if (wal_archive_time_before(reader->archive, path, start_lsn, end_lsn, time_us_out, err))
        return true;
    if (err->kind != CAIRN_CORRUPT)
        return false;
    cairn_error_clear(err);
    return true;
}

/* Where the unbroken WAL from a backup on ends, cut to the stretch. */
static bool
find_end(const WindowReader *reader, const TimelineHistory *path, const TimelineStretch *stretch,
         const Fate *first, Window *window, CairnError *err)
{
    WalRecord last;
    bool found;

    if (!wal_archive_tail(reader->archive, path, first->start_lsn, &last, &window->to_us, &found,
                          err)) {
        if (err->kind != CAIRN_CORRUPT)
            return false;
        window->problem = arena_strdup(reader->tree->arena, err->message);
        window->to_lsn = first->stop_lsn;
        window->to_us = first->stopped_us;
        cairn_error_clear(err);
        return true;
    }
    window->to_lsn = found ? last.end_lsn : 0;
    if (window->to_lsn <= stretch->end_lsn)
        return true;
    window->to_lsn = stretch->end_lsn;
    return time_before(reader, path, first->start_lsn, stretch->end_lsn, &window->to_us, err);
}

static bool
add_window(const WindowReader *reader, const TimelineHistory *path, const TimelineStretch *stretch,
           const CatalogBackup *backup, WindowTimeline *timeline, CairnError *err)
{
    const Fate *first = backup->fate;
    Window window = {.backup = backup, .backup_count = 1};

    if (!find_end(reader, path, stretch, first, &window, err))
        return false;
    window.from_lsn = first->stop_lsn;
    window.from_us = first->stopped_us;
    if (window.from_lsn < stretch->start_lsn) {
        window.inherited = true;
        window.from_lsn = stretch->start_lsn;
        if (!time_before(reader, path, first->start_lsn, stretch->start_lsn, &window.from_us, err))
            return false;
    }
    /* The backup's own state is a moment, even where nothing follows. */
    if (window.to_lsn < window.from_lsn)
        return true;
    if (window.to_us < window.from_us)
        window.to_us = window.from_us;
    timeline->windows[timeline->window_count++] = window;
    return true;
}

static bool
read_windows(const WindowReader *reader, const TimelineHistory *path,
             const TimelineStretch *stretch, WindowTimeline *timeline, CairnError *err)
{
    const PlanCandidates *candidates = reader->candidates;
    uint64_t covered_end = 0;

    timeline->windows =
        arena_alloc(reader->tree->arena, (candidates->count + 1) * sizeof *timeline->windows);
    for (size_t i = candidates->count; i-- > 0;) {
        const Fate *backup = candidates->backups[i]->fate;
        if (!timeline_history_contains(path, backup->stop_timeline, backup->stop_lsn) ||
            backup->stop_lsn > stretch->end_lsn ||
            wal_archive_missing(reader->archive, path, backup->start_lsn, backup->stop_lsn, NULL,
                                0) > 0)
            continue;
        if (backup->start_lsn < covered_end) {
            if (timeline->window_count > 0 && backup->stop_lsn >= stretch->start_lsn)
                timeline->windows[timeline->window_count - 1].backup_count++;
            continue;
        }
        covered_end = wal_archive_unbroken_end(reader->archive, path, backup->start_lsn);
        if (covered_end > stretch->start_lsn &&
            !add_window(reader, path, stretch, candidates->backups[i], timeline, err))
            return false;
    }
    return true;
}

static void
fill_holes(const WindowReader *reader, const WalTimeline *stored, WindowTimeline *timeline)
{
    const uint32_t segment_size = segment_size_of(reader);
    timeline->holes =
        arena_alloc(reader->tree->arena, (stored->run_count + 1) * sizeof *timeline->holes);
    for (size_t i = 1; i <= stored->run_count; i++) {
        /* Behind the last run an unfinished segment may lie. */
        const uint64_t first = stored->runs[i - 1].last_segment + 1;
        const uint64_t next =
            i < stored->run_count ? stored->runs[i].first_segment : wal_timeline_stored_end(stored);
        if (next == first)
            continue;
        const uint64_t last = next - 1;
        WindowHole *hole = &timeline->holes[timeline->hole_count++];
        hole->start_lsn = first * segment_size;
        hole->end_lsn = (last + 1) * segment_size;
        hole->segment_count = last - first + 1;
        wal_segment_name(hole->first_segment, stored->timeline, first, segment_size);
        wal_segment_name(hole->last_segment, stored->timeline, last, segment_size);
    }
}

static bool
mark_acknowledged(const WindowReader *reader, WindowTimeline *timeline, CairnError *err)
{
    for (size_t i = 0; i < timeline->hole_count; i++) {
        WindowHole *hole = &timeline->holes[i];
        SCOPED_MEMORY WalAck *acks = NULL;
        size_t count = 0;
        if (!wal_ack_find(wal_archive_store(reader->archive), timeline->timeline, hole->start_lsn,
                          hole->end_lsn, &acks, &count, err))
            return false;
        hole->acknowledged = wal_ack_covering(acks, count, hole->start_lsn, hole->end_lsn) != NULL;
    }
    return true;
}

static bool
read_timeline(const WindowReader *reader, const WalTimeline *stored, WindowTimeline *timeline,
              CairnError *err)
{
    timeline->timeline = stored->timeline;
    timeline->is_leaf = stored->is_leaf;
    timeline->history_missing = stored->history == NULL && stored->history_problem == NULL;
    if (stored->history_problem != NULL)
        timeline->history_problem = arena_strdup(reader->tree->arena, stored->history_problem);
    fill_holes(reader, stored, timeline);
    if (!mark_acknowledged(reader, timeline, err))
        return false;
    if (stored->history == NULL)
        return true;
    if (stored->history->stretch_count > 1) {
        const TimelineStretch *parent =
            &stored->history->stretches[stored->history->stretch_count - 2];
        timeline->parent = parent->timeline;
        timeline->fork_lsn = parent->end_lsn;
    }
    const TimelineHistory *path = path_through(reader, stored);
    const TimelineStretch *stretch = stretch_of(path, stored->timeline);
    CAIRN_ASSERT(stretch != NULL);
    return read_windows(reader, path, stretch, timeline, err);
}

WindowTree *
windows_read(WalArchive *archive, const PlanCandidates *candidates, CairnError *err)
{
    SCOPED(WindowTree) tree = calloc(1, sizeof *tree);
    if (tree == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    tree->arena = arena_new();
    const WindowReader reader = {.archive = archive, .candidates = candidates, .tree = tree};
    const size_t count = wal_archive_timeline_count(archive);
    tree->timelines = arena_alloc(tree->arena, (count + 1) * sizeof *tree->timelines);
    for (size_t i = 0; i < count; i++) {
        WindowTimeline *timeline = &tree->timelines[tree->count++];
        *timeline = (WindowTimeline){0};
        if (!read_timeline(&reader, wal_archive_timeline(archive, i), timeline, err))
            return NULL;
    }
    return take(&tree);
}

void
windows_free(WindowTree *tree)
{
    if (tree == NULL)
        return;
    arena_free(tree->arena);
    free(tree);
}
