#include "agent/info_intern.h"

#include "storage/connect.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { INFO_WARNINGS_LIMIT = 64 };

void
info_warn(ClusterReader *reader, const char *format, ...)
{
    InfoCluster *cluster = reader->cluster;
    if (cluster->warning_count == INFO_WARNINGS_LIMIT)
        return;
    if (cluster->warning_count == INFO_WARNINGS_LIMIT - 1) {
        cluster->warnings[cluster->warning_count++] = "there are more warnings than are shown here";
        return;
    }
    char text[CAIRN_ERROR_MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    cluster->warnings[cluster->warning_count++] = arena_strdup(reader->info->arena, text);
}

static WalArchive *
archive_of(const ClusterReader *reader, const Fate *fate)
{
    for (size_t i = 0; i < reader->cluster->incarnation_count; i++) {
        const Incarnation *incarnation = &reader->cluster->incarnations[i].incarnation;
        if (incarnation->system_id == fate->system_id && incarnation->major == fate->major)
            return reader->cluster->archives[i];
    }
    return NULL;
}

/* The path on which a backup's start and stop lie. NULL when the history that tells is not stored:
 * then PostgreSQL refuses to recover on it, and so does restore. */
static const TimelineHistory *
path_of(ClusterReader *reader, const WalArchive *archive, const Fate *fate)
{
    const WalTimeline *timeline = wal_archive_find(archive, fate->stop_timeline);
    if (timeline != NULL)
        return timeline->history;
    if (fate->start_timeline != fate->stop_timeline)
        return NULL;
    /* Nothing of it is stored: what is missing can be named all the same. */
    TimelineHistory *alone = arena_alloc(reader->info->arena, sizeof *alone);
    timeline_history_root(fate->stop_timeline, alone);
    return alone;
}

/* The newest leaf that a backup leads to: where a server that lives on is writing. */
static const TimelineHistory *
newest_path(ClusterReader *reader, const WalArchive *archive, const Fate *fate)
{
    for (size_t i = wal_archive_timeline_count(archive); i > 0; i--) {
        const WalTimeline *timeline = wal_archive_timeline(archive, i - 1);
        if (timeline->is_leaf && timeline->history != NULL &&
            timeline_history_contains(timeline->history, fate->stop_timeline, fate->stop_lsn)) {
            return timeline->history;
        }
    }
    return path_of(reader, archive, fate);
}

static InfoState
state_of_committed(const CatalogBackup *backup, const InfoBackup *entry)
{
    if (backup->damaged || backup->fate->damaged)
        return INFO_DAMAGED;
    if (entry->missing_segments > 0)
        return INFO_COPIED;
    if (backup->drilled)
        return INFO_DRILLED;
    return backup->verified ? INFO_VERIFIED : INFO_WAL_COMPLETE;
}

static void
fill_committed(ClusterReader *reader, const CatalogBackup *backup, InfoBackup *entry)
{
    const Fate *fate = backup->fate;
    const WalArchive *archive = archive_of(reader, fate);
    const TimelineHistory *path = archive != NULL ? path_of(reader, archive, fate) : NULL;
    if (path != NULL) {
        char first[1][WAL_NAME_SIZE] = {""};
        entry->missing_segments =
            wal_archive_missing(archive, path, fate->start_lsn, fate->stop_lsn, first, 1);
        if (entry->missing_segments > 0)
            memcpy(entry->first_missing, first[0], WAL_NAME_SIZE);
        entry->reach_lsn =
            wal_archive_unbroken_end(archive, newest_path(reader, archive, fate), fate->start_lsn);
    } else {
        const WalTimeline *timeline =
            archive != NULL ? wal_archive_find(archive, fate->stop_timeline) : NULL;
        entry->path_unreadable = timeline != NULL && timeline->history_problem != NULL;
        entry->system_unknown = archive == NULL;
        entry->missing_segments = 1; /* not proven complete */
        if (archive != NULL)
            snprintf(entry->first_missing, sizeof entry->first_missing, "%08" PRIX32 ".history",
                     fate->stop_timeline);
    }
    entry->state = state_of_committed(backup, entry);
    if (entry->state == INFO_COPIED && entry->path_unreadable)
        info_warn(reader, "backup %s cannot be restored while %s is damaged", fate->label,
                  entry->first_missing);
    else if (entry->state == INFO_COPIED && entry->system_unknown)
        info_warn(reader,
                  "backup %s cannot be restored: the record of its system is missing or cannot be "
                  "read, so that whether its WAL is there is not known",
                  fate->label);
    else if (entry->state == INFO_COPIED)
        info_warn(reader, "backup %s lacks %zu WAL segment%s, first %s: it cannot be restored yet",
                  fate->label, entry->missing_segments, entry->missing_segments == 1 ? "" : "s",
                  entry->first_missing);
    if (entry->state == INFO_DAMAGED)
        info_warn(reader, "backup %s is damaged", fate->label);
    if (backup->failed)
        info_warn(reader, "a restore test of backup %s failed", fate->label);
}

static void
read_backups(ClusterReader *reader)
{
    InfoCluster *cluster = reader->cluster;
    const Catalog *catalog = cluster->catalog;
    cluster->backups = arena_alloc(reader->info->arena, (catalog->count + 1) * sizeof(InfoBackup));
    cluster->backup_count = catalog->count;
    for (size_t i = 0; i < catalog->count; i++) {
        const CatalogBackup *backup = &catalog->backups[i];
        InfoBackup *entry = &cluster->backups[i];
        entry->backup = backup;
        switch (backup->presence) {
        case BACKUP_COMMITTED:
            fill_committed(reader, backup, entry);
            break;
        case BACKUP_UNFINISHED:
            entry->state = INFO_UNFINISHED;
            break;
        case BACKUP_REVOKED:
            entry->state = INFO_REVOKED;
            break;
        case BACKUP_EXPIRED:
            entry->state = INFO_EXPIRED;
            break;
        case BACKUP_UNREADABLE:
            entry->state = INFO_UNREADABLE;
            info_warn(reader, "backup %s is not readable: %s", backup->bid.text,
                      backup->problem->message);
            break;
        }
    }
}

bool
info_is_usable(const InfoBackup *entry)
{
    return entry->state == INFO_WAL_COMPLETE || entry->state == INFO_VERIFIED ||
           entry->state == INFO_DRILLED;
}

static const Fate *
newest_usable(const InfoCluster *cluster)
{
    for (size_t i = cluster->backup_count; i > 0; i--) {
        if (info_is_usable(&cluster->backups[i - 1]))
            return cluster->backups[i - 1].backup->fate;
    }
    return NULL;
}

static uint64_t
last_stored_end(const WalArchive *archive, const TimelineHistory *path)
{
    uint64_t end_lsn = 0;
    const uint32_t segment_size = wal_archive_incarnation(archive)->wal_segment_size;
    for (size_t i = 0; i < path->stretch_count; i++) {
        const WalTimeline *timeline = wal_archive_find(archive, path->stretches[i].timeline);
        if (timeline == NULL)
            continue;
        uint64_t end = wal_timeline_stored_end(timeline) * segment_size;
        if (end > path->stretches[i].end_lsn)
            end = path->stretches[i].end_lsn;
        if (end > end_lsn)
            end_lsn = end;
    }
    return end_lsn;
}

/* Holes of a path between two LSNs: each unbroken stretch is followed by one, up to the next
 * segment there is. */
static void
count_gaps(const WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn,
           uint64_t end_lsn, InfoRecoverable *recoverable)
{
    const uint32_t segment_size = wal_archive_incarnation(archive)->wal_segment_size;
    recoverable->gap_count = 0;
    for (uint64_t lsn = start_lsn; lsn < end_lsn;) {
        const uint64_t unbroken = wal_archive_unbroken_end(archive, path, lsn);
        if (unbroken >= end_lsn)
            return;
        uint64_t number = wal_segment_of(unbroken, segment_size);
        uint32_t timeline;
        if (!wal_archive_next_segment(archive, path, number, &number, &timeline))
            number = wal_segment_of(end_lsn - 1, segment_size) + 1;
        lsn = number * segment_size;
        if (recoverable->gap_count++ == 0) {
            recoverable->gap_start_lsn = unbroken;
            recoverable->gap_end_lsn = lsn;
        }
    }
}

/*
 * The oldest usable backup of the path. One that retention keeps for its own moment alone counts
 * only while the WAL after it happens to be there.
 */
static void
fill_window_start(ClusterReader *reader, const Fate *newest, const WalArchive *archive,
                  const TimelineHistory *path)
{
    InfoCluster *cluster = reader->cluster;
    InfoRecoverable *recoverable = &cluster->recoverable;
    const uint64_t end_lsn = last_stored_end(archive, path);
    const Fate *oldest = newest;
    recoverable->older_count = 0;
    for (size_t i = 0; i < cluster->backup_count; i++) {
        const InfoBackup *entry = &cluster->backups[i];
        if (!info_is_usable(entry))
            continue;
        const Fate *fate = entry->backup->fate;
        const bool on_path = archive_of(reader, fate) == archive &&
                             timeline_history_contains(path, fate->stop_timeline, fate->stop_lsn);
        if (on_path && (!entry->own_moment_only || entry->reach_lsn >= end_lsn)) {
            oldest = fate;
            break;
        }
        recoverable->older_count += entry->own_moment_only ? 1 : 0;
    }
    recoverable->from_us = oldest->stopped_us;
    recoverable->from_lsn = oldest->stop_lsn;
    count_gaps(archive, path, oldest->start_lsn, end_lsn, recoverable);
    /* The window's start is a backup's own state, whatever the clock said of it. */
    if (recoverable->to_us < oldest->stopped_us)
        recoverable->to_us = oldest->stopped_us;
    recoverable->rpo_us = reader->info->now_us - recoverable->to_us;
    if (recoverable->rpo_us < 0)
        recoverable->rpo_us = 0;
}

static bool
fill_recoverable(ClusterReader *reader, CairnError *err)
{
    InfoCluster *cluster = reader->cluster;
    InfoRecoverable *recoverable = &cluster->recoverable;
    for (size_t i = 0; i < cluster->backup_count; i++) {
        const CatalogBackup *backup = cluster->backups[i].backup;
        if (backup->drilled_us > recoverable->last_proven_us) {
            recoverable->last_proven_us = backup->drilled_us;
            recoverable->last_rto_us = backup->drill_duration_us;
        }
    }
    const Fate *newest = newest_usable(cluster);
    if (newest == NULL)
        return true;
    WalArchive *archive = archive_of(reader, newest);
    const TimelineHistory *path = newest_path(reader, archive, newest);
    if (path == NULL)
        return true;

    WalRecord last;
    int64_t newest_time_us = 0;
    bool found = false;
    if (!wal_archive_tail(archive, path, newest->start_lsn, &last, &newest_time_us, &found, err)) {
        if (err->kind != CAIRN_CORRUPT)
            return cairn_error_wrap(err, "end of the WAL of cluster '%s'", cluster->name);
        info_warn(reader, "the end of the WAL is damaged: %s; `pgcairn verify` lists all damage",
                  err->message);
        cairn_error_clear(err);
        recoverable->unreadable = true;
        return true;
    }
    if (!found || last.end_lsn < newest->stop_lsn) {
        info_warn(reader,
                  "the WAL of backup %s cannot be read up to its end: `pgcairn verify` tells why",
                  newest->label);
        recoverable->unreadable = true;
        return true;
    }

    recoverable->possible = true;
    /* Only what a record states: restore refuses later times, for what committed by then it cannot
     * tell. */
    recoverable->to_us = newest_time_us;
    recoverable->to_lsn = last.end_lsn;
    recoverable->timeline = path->timeline;
    fill_window_start(reader, newest, archive, path);
    return true;
}

static bool
read_cluster(Repository *repository, Info *info, InfoCluster *cluster, CairnError *err)
{
    ClusterReader reader = {.info = info, .cluster = cluster};
    cluster->warnings = arena_alloc(info->arena, INFO_WARNINGS_LIMIT * sizeof *cluster->warnings);
    cluster->catalog = catalog_read(repository, cluster->name, err);
    if (cluster->catalog == NULL)
        return cairn_error_wrap(err, "cluster '%s'", cluster->name);

    if (!info_read_wal(&reader, repository, err))
        return false;
    read_backups(&reader);
    return fill_recoverable(&reader, err);
}

/* Of one incarnation: WAL before the oldest backup that keeps the WAL after it. */
static void
expect_holes(InfoCluster *cluster, InfoIncarnation *incarnation)
{
    uint64_t floor_lsn = UINT64_MAX;
    for (size_t i = 0; i < cluster->backup_count; i++) {
        const InfoBackup *entry = &cluster->backups[i];
        if (!info_is_usable(entry) || entry->own_moment_only ||
            entry->backup->fate->system_id != incarnation->incarnation.system_id ||
            entry->backup->fate->major != incarnation->incarnation.major)
            continue;
        if (entry->backup->fate->start_lsn < floor_lsn)
            floor_lsn = entry->backup->fate->start_lsn;
    }
    for (size_t i = 0; i < incarnation->timeline_count; i++) {
        InfoTimeline *timeline = &incarnation->timelines[i];
        for (size_t k = 0; k < timeline->window_count; k++) {
            InfoWindow *window = &timeline->windows[k];
            if (!window->is_hole || window->is_expected || window->end_lsn > floor_lsn)
                continue;
            window->is_expected = true;
            timeline->hole_count--;
        }
    }
}

void
info_apply_retention(Info *info, size_t cluster_index)
{
    CAIRN_ASSERT(cluster_index < info->cluster_count);
    InfoCluster *cluster = &info->clusters[cluster_index];
    ClusterReader reader = {.info = info, .cluster = cluster};
    bool any = false;
    for (size_t i = 0; i < cluster->backup_count; i++)
        any |= cluster->backups[i].own_moment_only;
    if (!any)
        return;
    for (size_t i = 0; i < cluster->incarnation_count; i++)
        expect_holes(cluster, &cluster->incarnations[i]);
    if (!cluster->recoverable.possible)
        return;
    const Fate *newest = newest_usable(cluster);
    WalArchive *archive = archive_of(&reader, newest);
    fill_window_start(&reader, newest, archive, newest_path(&reader, archive, newest));
}

void
info_set_archiving(Info *info, size_t cluster_index, const Archiving *archiving,
                   const char *problem)
{
    CAIRN_ASSERT(cluster_index < info->cluster_count);
    InfoCluster *cluster = &info->clusters[cluster_index];
    if (problem != NULL) {
        cluster->archiving_problem = arena_strdup(info->arena, problem);
        return;
    }
    for (size_t i = 0; i < cluster->incarnation_count; i++) {
        if (cluster->incarnations[i].incarnation.system_id == archiving->system_id)
            cluster->archiving_known = true;
    }
    if (!cluster->archiving_known)
        cluster->archiving_problem = "conninfo leads to a server of another system";
    cluster->archiving = *archiving;
    cluster->archiving_verdict = archiving_judge(archiving);
}

bool
info_hole_warning(const InfoTimeline *timeline, char *text, size_t size)
{
    char acknowledged[48] = "";
    if (timeline->acknowledged_count > 0)
        snprintf(acknowledged, sizeof acknowledged, " (%zu acknowledged)",
                 timeline->acknowledged_count);
    snprintf(text, size, "timeline %" PRIu32 " has %zu hole%s in its WAL%s", timeline->timeline,
             timeline->hole_count, timeline->hole_count == 1 ? "" : "s", acknowledged);
    return timeline->hole_count > 0;
}

static bool
choose_clusters(Repository *repository, Info *info, const char *wanted, CairnError *err)
{
    const char **names = NULL;
    size_t count = 0;
    if (!catalog_clusters(repository, info->arena, &names, &count, err))
        return false;
    info->clusters = arena_alloc(info->arena, (count + 1) * sizeof *info->clusters);
    for (size_t i = 0; i < count; i++) {
        if (wanted == NULL || strcmp(wanted, names[i]) == 0)
            info->clusters[info->cluster_count++].name = names[i];
    }
    if (wanted != NULL && info->cluster_count == 0) {
        cairn_error(err, CAIRN_NOT_FOUND, "the repository has nothing of cluster '%s'", wanted);
        return cairn_error_hint(err, "`pgcairn init` records a cluster");
    }
    return true;
}

Info *
info_read(Repository *repository, const char *cluster, CairnError *err)
{
    SCOPED(Info) info = calloc(1, sizeof *info);
    if (info == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    info->arena = arena_new();
    const RepositoryConfig *config = repository_config(repository);
    info->repository_name = arena_strdup(info->arena, config->name);
    char place[STORAGE_PLACE_TEXT_SIZE];
    storage_place_text(config, place);
    info->repository_path = arena_strdup(info->arena, place);
    hex_encode(info->repository_id, repository_id(repository), REPOSITORY_ID_SIZE);
    info->is_replica = repository_is_replica(repository);
    const Clock *clock = repository_world(repository)->clock;
    info->now_us = clock->wall_us(clock);

    if (!choose_clusters(repository, info, cluster, err))
        return NULL;
    for (size_t i = 0; i < info->cluster_count; i++) {
        if (!read_cluster(repository, info, &info->clusters[i], err))
            return NULL;
    }
    return take(&info);
}

void
info_free(Info *info)
{
    if (info == NULL)
        return;
    for (size_t i = 0; i < info->cluster_count; i++) {
        InfoCluster *cluster = &info->clusters[i];
        for (size_t k = 0; cluster->archives != NULL && k < cluster->incarnation_count; k++)
            wal_archive_free(cluster->archives[k]);
        catalog_free(cluster->catalog);
    }
    arena_free(info->arena);
    free(info);
}

void
info_set_retention(Info *info, size_t cluster_index, const char *policy)
{
    CAIRN_ASSERT(cluster_index < info->cluster_count);
    info->clusters[cluster_index].retention = arena_strdup(info->arena, policy);
}

const char *
info_state_name(InfoState state)
{
    static const char *const NAMES[] = {"copied",  "wal-complete", "verified",
                                        "drilled", "damaged",      "unfinished",
                                        "revoked", "expired",      "unreadable"};
    CAIRN_ASSERT((size_t)state < sizeof NAMES / sizeof NAMES[0]);
    return NAMES[state];
}
