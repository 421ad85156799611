/* Recovery windows: what cannot be reached any more when WAL is missing or damaged. */
#include "repository/verify_intern.h"

#include "common/cancel.h"
#include "repository/wal_missing.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Looking up a moment reads WAL; where very much is damaged, only the first are dated. */
enum { MOMENTS_DATED = 32 };

static bool
path_reads(const TimelineHistory *path, uint32_t timeline, uint64_t segment, uint32_t segment_size)
{
    return timeline_history_at(path, (segment + 1) * segment_size - 1) == timeline;
}

const TimelineHistory *
verify_path_of(const WalCheck *check, uint32_t timeline, uint64_t segment)
{
    const uint32_t segment_size = check->incarnation->wal_segment_size;
    if (check->archive == NULL)
        return NULL;
    for (size_t i = wal_archive_timeline_count(check->archive); i-- > 0;) {
        const WalTimeline *leaf = wal_archive_timeline(check->archive, i);
        if (leaf->is_leaf && leaf->history != NULL &&
            path_reads(leaf->history, timeline, segment, segment_size))
            return leaf->history;
    }
    return NULL;
}

static bool
lies_on(const WalCheck *check, const TimelineHistory *path, uint32_t index)
{
    const CatalogBackup *backup = &check->verify->catalog->backups[index];
    const Fate *fate = backup->fate;
    return backup->presence == BACKUP_COMMITTED && !check->verify->checks[index].gone &&
           fate->system_id == check->incarnation->system_id &&
           fate->major == check->incarnation->major &&
           timeline_history_contains(path, fate->stop_timeline, fate->stop_lsn);
}

size_t
verify_backups_before(const WalCheck *check, const TimelineHistory *path, uint64_t end_lsn,
                      uint32_t *indexes)
{
    size_t count = 0;
    for (uint32_t i = 0; i < check->verify->catalog->count; i++) {
        if (lies_on(check, path, i) && check->verify->catalog->backups[i].fate->start_lsn < end_lsn)
            indexes[count++] = i;
    }
    return count;
}

/* The first backup that begins after a hole; NULL when there is none. */
static const Fate *
next_backup(const WalCheck *check, const TimelineHistory *path, uint64_t lsn)
{
    const Fate *next = NULL;
    for (uint32_t i = 0; i < check->verify->catalog->count; i++) {
        const Fate *fate = check->verify->catalog->backups[i].fate;
        if (lies_on(check, path, i) && fate->start_lsn >= lsn &&
            (next == NULL || fate->stop_lsn < next->stop_lsn))
            next = fate;
    }
    return next;
}

/*
 * The newest moment before lsn: what a record in the WAL before it states, or the end of a backup.
 * What cannot be read there has a finding of its own, and leaves the moment unknown.
 */
static bool
newest_moment(const WalCheck *check, const TimelineHistory *path, const BackupSet *backups,
              uint64_t lsn, int64_t *time_us_out, CairnError *err)
{
    uint64_t start_lsn = 0;
    int64_t stopped_us = 0;
    *time_us_out = 0;
    for (size_t i = 0; i < backups->count; i++) {
        const Fate *fate = check->verify->catalog->backups[backups->indexes[i]].fate;
        if (fate->stop_lsn <= lsn && fate->stop_lsn > start_lsn) {
            start_lsn = fate->start_lsn;
            stopped_us = fate->stopped_us;
        }
    }
    if (start_lsn == 0)
        return true; /* no backup was whole before it: there is no moment at all */
    if (!wal_archive_time_before(check->archive, path, start_lsn, lsn, time_us_out, err)) {
        if (err->kind == CAIRN_CANCELLED || err->kind == CAIRN_INTERNAL)
            return false;
        cairn_error_clear(err);
        *time_us_out = 0;
    }
    if (*time_us_out < stopped_us)
        *time_us_out = stopped_us;
    return true;
}

const VerifyMoments *
verify_moments(const WalCheck *check, const TimelineHistory *path, uint64_t from_lsn,
               uint64_t to_lsn, CairnError *err)
{
    Verify *verify = check->verify;
    SCOPED_MEMORY uint32_t *indexes = calloc(verify->catalog->count + 1, sizeof *indexes);
    if (indexes == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    const BackupSet before = {indexes, verify_backups_before(check, path, to_lsn, indexes)};
    if (before.count == 0 || verify->report->listed == VERIFY_FINDINGS_LISTED)
        return NULL;
    VerifyMoments *moments = arena_alloc(verify->report->arena, sizeof *moments);
    moments->timeline = timeline_history_at(path, to_lsn - 1);
    moments->from_lsn = from_lsn;
    moments->backups = verify_labels(verify, &before);
    const Fate *next = next_backup(check, path, to_lsn);
    if (next != NULL) {
        moments->reachable_again = true;
        moments->to_lsn = next->stop_lsn;
        moments->to_us = next->stopped_us;
        moments->next = arena_strdup(verify->report->arena, next->label);
    }
    if (verify->report->listed < MOMENTS_DATED &&
        !newest_moment(check, path, &before, from_lsn, &moments->from_us, err))
        return NULL;
    return moments;
}

/* A run of segments on a path that are not there. */
typedef struct {
    uint64_t start_lsn, end_lsn; /* whole segments */
    uint32_t timeline;           /* of the first */
} Hole;

static bool
add_hole(WalCheck *check, const WalHole *hole, CairnError *err)
{
    if (check->hole_count == check->hole_capacity) {
        const size_t capacity = check->hole_capacity == 0 ? 16 : 2 * check->hole_capacity;
        WalHole *holes = reallocarray(check->holes, capacity, sizeof *holes);
        if (holes == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        check->holes = holes;
        check->hole_capacity = capacity;
    }
    check->holes[check->hole_count++] = *hole;
    return true;
}

static bool
is_known(const WalCheck *check, const WalHole *hole)
{
    for (size_t i = 0; i < check->hole_count; i++) {
        const WalHole *known = &check->holes[i];
        if (known->timeline == hole->timeline && hole->first >= known->first &&
            hole->last <= known->last)
            return true;
    }
    return false;
}

/* A listing is no snapshot: a segment may have come after its place in it, and the next one before.
 * Takes off what is there now. */
static bool
shrink_hole(const WalCheck *check, WalHole *hole, CairnError *err)
{
    while (hole->first <= hole->last) {
        char file[WAL_NAME_SIZE];
        bool present;
        wal_segment_name(file, hole->timeline, hole->first, check->incarnation->wal_segment_size);
        if (!wal_store_has(check->store, file, &present, err))
            return false;
        if (!present)
            break;
        hole->first++;
    }
    return true;
}

/* Backups that need any segment of the hole, each once. */
static BackupSet
needed_by_hole(const WalCheck *check, const WalHole *hole)
{
    size_t count = 0;
    for (size_t i = 0; i < check->need_count; i++) {
        const WalNeed *need = &check->needs[i];
        if (need->timeline == hole->timeline && need->first <= hole->last &&
            need->last >= hole->first && (count == 0 || check->indexes[count - 1] != need->backup))
            check->indexes[count++] = need->backup;
    }
    return (BackupSet){check->indexes, count};
}

static bool
note_hole(WalCheck *check, const TimelineHistory *path, const WalHole *hole, CairnError *err)
{
    const uint32_t size = check->incarnation->wal_segment_size;
    char first[WAL_NAME_SIZE], last[WAL_NAME_SIZE];
    wal_segment_name(first, hole->timeline, hole->first, size);
    wal_segment_name(last, hole->timeline, hole->last, size);
    VerifySubject subject = {.object = first, .is_wal = true};
    subject.moments = verify_moments(check, path, hole->first * size, (hole->last + 1) * size, err);
    if (err->kind != CAIRN_OK)
        return false;
    subject.needed_by = needed_by_hole(check, hole);
    const uint64_t count = hole->last - hole->first + 1;
    if (count == 1)
        cairn_error(err, CAIRN_NOT_FOUND,
                    "WAL segment '%s' is missing, although WAL after it is stored", first);
    else
        cairn_error(err, CAIRN_NOT_FOUND,
                    "%" PRIu64 " WAL segments are missing, '%s' to '%s', although WAL after them "
                    "is stored",
                    count, first, last);
    return verify_note(check->verify, &subject, err) && add_hole(check, hole, err);
}

/* One hole of a path, timeline by timeline: each part has names of its own. */
static bool
report_hole(WalCheck *check, const TimelineHistory *path, uint64_t start_lsn, uint64_t end_lsn,
            CairnError *err)
{
    const uint32_t size = check->incarnation->wal_segment_size;
    for (uint64_t segment = start_lsn / size; segment < end_lsn / size;) {
        const uint32_t timeline = timeline_history_at(path, (segment + 1) * size - 1);
        WalHole hole = {timeline, segment, segment};
        while (hole.last + 1 < end_lsn / size && path_reads(path, timeline, hole.last + 1, size))
            hole.last++;
        segment = hole.last + 1;
        if (!shrink_hole(check, &hole, err))
            return false;
        if (hole.first <= hole.last && !is_known(check, &hole) &&
            !note_hole(check, path, &hole, err))
            return false;
    }
    return true;
}

/* From the oldest backup that can still go this way: what lies before it nobody can use. */
static bool
oldest_on(const WalCheck *check, const TimelineHistory *path, uint64_t *start_lsn_out)
{
    bool found = false;
    for (uint32_t i = 0; i < check->verify->catalog->count; i++) {
        const Fate *fate = check->verify->catalog->backups[i].fate;
        if (lies_on(check, path, i) && (!found || fate->start_lsn < *start_lsn_out)) {
            *start_lsn_out = fate->start_lsn;
            found = true;
        }
    }
    return found;
}

static bool
verify_path(WalCheck *check, const TimelineHistory *path, CairnError *err)
{
    const uint32_t size = check->incarnation->wal_segment_size;
    const uint64_t end_lsn = wal_missing_stored_end(check->archive, path);
    uint64_t lsn = 0;
    if (!oldest_on(check, path, &lsn))
        return true;
    lsn -= lsn % size;
    while (lsn < end_lsn) {
        const uint64_t start_lsn = lsn;
        if (!cancel_check(err))
            return false;
        lsn = wal_archive_unbroken_end(check->archive, path, lsn);
        if (lsn > start_lsn)
            continue;
        do
            lsn += size;
        while (lsn < end_lsn && wal_archive_unbroken_end(check->archive, path, lsn) == lsn);
        if (!report_hole(check, path, start_lsn, lsn, err))
            return false;
    }
    return true;
}

bool
verify_holes(WalCheck *check, CairnError *err)
{
    /* The archive was listed before; whoever expired since has been marked before its WAL went. */
    if (check->archive == NULL)
        return true;
    if (!verify_look_who_is_left(check->verify, err))
        return false;
    for (size_t i = wal_archive_timeline_count(check->archive); i-- > 0;) {
        const WalTimeline *leaf = wal_archive_timeline(check->archive, i);
        if (leaf->is_leaf && leaf->history != NULL && !verify_path(check, leaf->history, err))
            return false;
    }
    return true;
}
