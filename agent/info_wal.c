/* The WAL that a repository holds of each system, as info shows it. */
#include "agent/info_intern.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void
fill_window(InfoWindow *window, uint32_t timeline, uint32_t segment_size, uint64_t first_segment,
            uint64_t last_segment)
{
    window->start_lsn = first_segment * segment_size;
    window->end_lsn = (last_segment + 1) * segment_size;
    window->segment_count = last_segment - first_segment + 1;
    wal_segment_name(window->first_segment, timeline, first_segment, segment_size);
    wal_segment_name(window->last_segment, timeline, last_segment, segment_size);
}

static void
fill_timeline(Arena *arena, const WalTimeline *stored, uint32_t segment_size,
              InfoTimeline *timeline)
{
    timeline->timeline = stored->timeline;
    timeline->is_leaf = stored->is_leaf;
    timeline->history_missing = stored->history == NULL && stored->history_problem == NULL;
    if (stored->history_problem != NULL)
        timeline->history_problem = arena_strdup(arena, stored->history_problem);
    if (stored->history != NULL && stored->history->stretch_count > 1) {
        const TimelineStretch *parent =
            &stored->history->stretches[stored->history->stretch_count - 2];
        timeline->parent = parent->timeline;
        timeline->fork_lsn = parent->end_lsn;
    }
    timeline->windows = arena_alloc(arena, (2 * stored->run_count + 1) * sizeof(InfoWindow));
    for (size_t i = 0; i < stored->run_count; i++) {
        const WalRun *run = &stored->runs[i];
        if (i > 0) {
            InfoWindow *hole = &timeline->windows[timeline->window_count++];
            hole->is_hole = true;
            fill_window(hole, stored->timeline, segment_size, stored->runs[i - 1].last_segment + 1,
                        run->first_segment - 1);
            timeline->hole_count++;
        }
        InfoWindow *window = &timeline->windows[timeline->window_count++];
        fill_window(window, stored->timeline, segment_size, run->first_segment, run->last_segment);
        window->stored_bytes = run->stored_bytes;
        if (run->newest_us > timeline->newest_us)
            timeline->newest_us = run->newest_us;
    }
    /* Behind the last run an unfinished segment may lie. */
    const uint64_t behind =
        stored->run_count > 0 ? stored->runs[stored->run_count - 1].last_segment + 1 : UINT64_MAX;
    if (wal_timeline_stored_end(stored) > behind) {
        InfoWindow *hole = &timeline->windows[timeline->window_count++];
        hole->is_hole = true;
        fill_window(hole, stored->timeline, segment_size, behind,
                    wal_timeline_stored_end(stored) - 1);
        timeline->hole_count++;
    }
}

static void
fill_incarnation(ClusterReader *reader, size_t index)
{
    const WalArchive *archive = reader->cluster->archives[index];
    InfoIncarnation *incarnation = &reader->cluster->incarnations[index];
    Arena *arena = reader->info->arena;
    const InfoTimeline *first = NULL; /* whose history is unreadable */
    size_t unreadable = 0;
    incarnation->timeline_count = wal_archive_timeline_count(archive);
    incarnation->timelines =
        arena_alloc(arena, (incarnation->timeline_count + 1) * sizeof(InfoTimeline));
    for (size_t i = 0; i < incarnation->timeline_count; i++) {
        InfoTimeline *timeline = &incarnation->timelines[i];
        fill_timeline(arena, wal_archive_timeline(archive, i),
                      incarnation->incarnation.wal_segment_size, timeline);
        if (timeline->history_missing)
            info_warn(reader,
                      "%08" PRIX32 ".history is not stored: where timeline %" PRIu32
                      " comes from is not known",
                      timeline->timeline, timeline->timeline);
        if (timeline->history_problem != NULL && unreadable++ == 0)
            first = timeline;
    }
    if (first == NULL)
        return;
    char more[64] = "";
    if (unreadable > 1)
        snprintf(more, sizeof more, ", and %zu more are", unreadable - 1);
    const char *text = arena_printf(
        arena,
        "%08" PRIX32 ".history is damaged (%s)%s: where timeline %" PRIu32
        " comes from is not known, nothing on it can be restored, and what it may need is kept; "
        "bring the object back from a copy, or remove it on the repository host and, if there "
        "ever was a server of that timeline, push its file again",
        first->timeline, first->history_problem, more, first->timeline);
    info_warn(reader, "%s", text);
    if (reader->cluster->history_warning == NULL)
        reader->cluster->history_warning = text;
}

static void
warn_of_unread(ClusterReader *reader)
{
    const IncarnationTrouble *trouble = &reader->cluster->unread_incarnations;
    if (trouble->left_out > 0)
        info_warn(reader,
                  "%zu records of systems are not shown, there is room for %d: those that backups "
                  "name come first, then those with WAL, then the oldest; remove on the repository "
                  "host what nobody here made, below c/%s/i",
                  trouble->left_out, INCARNATION_LIMIT, reader->cluster->name);
    if (trouble->count > trouble->left_out)
        info_warn(
            reader,
            "%zu records of systems cannot be read, the first is '%s': what WAL there is of these "
            "systems is not known, and it is kept; if nobody here made it, remove it on the "
            "repository host, else bring it back from a copy (%s)",
            trouble->count - trouble->left_out, trouble->object, trouble->problem.message);
}

bool
info_read_wal(ClusterReader *reader, Repository *repository, CairnError *err)
{
    InfoCluster *cluster = reader->cluster;
    SCOPED_MEMORY Incarnation *list = calloc(INCARNATION_LIMIT, sizeof *list);
    if (list == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    size_t count = 0;
    SCOPED_MEMORY IncarnationId *systems = calloc(INCARNATION_LIMIT, sizeof *systems);
    if (systems == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    const IncarnationWish wish = {.first = systems,
                                  .first_count = catalog_systems(cluster->catalog, systems)};
    if (!incarnation_list_first(repository, cluster->name, &wish, list, &count,
                                &cluster->unread_incarnations, err))
        return false;
    warn_of_unread(reader);
    cluster->incarnations =
        arena_alloc(reader->info->arena, (count + 1) * sizeof *cluster->incarnations);
    cluster->archives = arena_alloc(reader->info->arena, (count + 1) * sizeof *cluster->archives);
    for (size_t i = 0; i < count; i++) {
        InfoIncarnation *incarnation = &cluster->incarnations[i];
        incarnation->incarnation = list[i];
        cluster->incarnation_count = i + 1;
        reader->cluster->archives[i] =
            wal_archive_load(repository, cluster->name, &incarnation->incarnation, err);
        if (reader->cluster->archives[i] == NULL)
            return cairn_error_wrap(err, "WAL of cluster '%s'", cluster->name);
        fill_incarnation(reader, i);
        if (!info_fill_acks(reader->info->arena, cluster->archives[i], incarnation, err))
            return false;
    }
    return true;
}
