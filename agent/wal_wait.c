#include "agent/wal_wait.h"

#include "common/cancel.h"
#include "common/log.h"
#include "postgres/timeline.h"
#include "repository/wal_store.h"

#include <stdio.h>
#include <stdlib.h>

enum { POLL_FIRST_MS = 2, POLL_LAST_MS = 200 };

/* What a backup needs. path is NULL while the history that names its segments is not there. */
typedef struct {
    const Fate *fate;
    bool history; /* the timeline's own history file, too */
    TimelineHistory *path;
} Need;

static void
need_free(Need *need)
{
    free(need->path);
}

/*
 * A timeline that is the oldest one here may have begun before this repository did; then no
 * recovery asks for its history. A standby's backup can begin on one timeline and end on the next
 * one.
 */
static bool
need_history(WalStore *store, Need *need, CairnError *err)
{
    const uint32_t timeline = need->fate->stop_timeline;
    SCOPED_MEMORY uint32_t *timelines = NULL;
    size_t count;
    if (timeline == 1)
        return true;
    if (!wal_store_timelines(store, &timelines, &count, err))
        return false;
    need->history =
        need->fate->start_timeline != timeline || (count > 0 && timelines[0] < timeline);
    return true;
}

/* The path on which the segments lie, as soon as it is known. */
static bool
find_path(WalStore *store, Need *need, CairnError *err)
{
    const uint32_t timeline = need->fate->stop_timeline;
    size_t size = 0;
    if (need->path != NULL)
        return true;
    SCOPED_MEMORY TimelineHistory *path = malloc(sizeof *path);
    if (path == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    timeline_history_root(timeline, path);
    if (need->fate->start_timeline != timeline) {
        SCOPED_MEMORY char *text = wal_store_history(store, timeline, &size, err);
        if (text == NULL && err->kind == CAIRN_NOT_FOUND) {
            cairn_error_clear(err);
            return true;
        }
        if (text == NULL || !timeline_history_parse(timeline, text, size, path, err))
            return false;
    }
    need->path = take(&path);
    return true;
}

/* Name of the k-th file needed: the timeline's history first, then the segments. */
static bool
needed_name(const Need *need, uint64_t k, char name[64])
{
    const Fate *fate = need->fate;
    if (need->history && k == 0) {
        snprintf(name, 64, "%08X.history", fate->stop_timeline);
        return true;
    }
    const uint32_t segment_size = fate->wal_segment_size;
    uint64_t segment = wal_segment_of(fate->start_lsn, segment_size) + k - (need->history ? 1 : 0);
    if (need->path == NULL || segment > wal_segment_before(fate->stop_lsn, segment_size))
        return false;
    /* A segment in which the timeline changed lies under the newer one's name. */
    const uint64_t end = (segment + 1) * segment_size;
    const uint64_t last_lsn = (end < fate->stop_lsn ? end : fate->stop_lsn) - 1;
    char segment_name[WAL_NAME_SIZE];
    wal_segment_name(segment_name, timeline_history_at(need->path, last_lsn), segment,
                     segment_size);
    snprintf(name, 64, "%s", segment_name);
    return true;
}

/* Everything from *first on; what is there at the front is not asked for again. */
static bool
look(WalStore *store, Need *need, uint64_t *first, BackupReport *report, CairnError *err)
{
    char name[64];
    report->missing_wal_count = 0;
    if (!find_path(store, need, err))
        return false;
    for (uint64_t k = *first; needed_name(need, k, name); k++) {
        bool present;
        if (!wal_store_has(store, name, &present, err))
            return false;
        if (present && report->missing_wal_count == 0)
            *first = k + 1;
        if (present)
            continue;
        if (report->missing_wal_count < BACKUP_MISSING_WAL_LISTED)
            snprintf(report->missing_wal[report->missing_wal_count], sizeof report->missing_wal[0],
                     "%s", name);
        report->missing_wal_count++;
    }
    return true;
}

bool
wal_wait(Repository *repository, const char *cluster, const Incarnation *incarnation,
         const Fate *fate, int timeout_s, BackupReport *report, CairnError *err)
{
    SCOPED(WalStore) store = wal_store_open(repository, cluster, incarnation, err);
    if (store == NULL)
        return false;
    const Clock *clock = repository_world(repository)->clock;
    int64_t deadline_ns = clock->monotonic_ns(clock) + (int64_t)timeout_s * 1000000000;
    int64_t pause_ms = POLL_FIRST_MS;
    bool told = false;
    __attribute__((cleanup(need_free))) Need need = {.fate = fate};
    bool asked = need_history(store, &need, err);
    for (uint64_t first = 0;;) {
        if (!asked || !look(store, &need, &first, report, err))
            return cairn_error_wrap(
                err, "backup %s is committed, but its WAL could not be looked up", fate->label);
        if (report->missing_wal_count == 0 || clock->monotonic_ns(clock) >= deadline_ns ||
            cancel_requested())
            return true;
        if (!told && pause_ms == POLL_LAST_MS) {
            log_info("waiting for WAL %s to be archived", report->missing_wal[0]);
            told = true;
        }
        clock->sleep_ms(clock, pause_ms);
        pause_ms = pause_ms * 2 < POLL_LAST_MS ? pause_ms * 2 : POLL_LAST_MS;
    }
}
