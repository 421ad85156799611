#include "repository/wal_missing.h"

#include <stdlib.h>
#include <string.h>

uint64_t
wal_missing_stored_end(const WalArchive *archive, const TimelineHistory *path)
{
    const uint32_t segment_size = wal_archive_incarnation(archive)->wal_segment_size;
    uint64_t end_lsn = 0;

    for (size_t i = 0; i < path->stretch_count; i++) {
        const TimelineStretch *stretch = &path->stretches[i];
        const WalTimeline *timeline = wal_archive_find(archive, stretch->timeline);
        const uint64_t end = timeline != NULL ? wal_timeline_stored_end(timeline) : 0;
        if (end == 0)
            continue;
        const uint64_t last = end - 1;
        /* The segment that holds the fork is the next timeline's. */
        if (stretch->end_lsn != UINT64_MAX && last >= stretch->end_lsn / segment_size)
            continue;
        if ((last + 1) * segment_size > end_lsn)
            end_lsn = (last + 1) * segment_size;
    }
    return end_lsn;
}

/* What backups of a path need: [start of the oldest, stop of the newest). False: none is on it. */
static bool
backups_on(const WalArchive *archive, const Catalog *catalog, const TimelineHistory *path,
           uint64_t *start_lsn_out, uint64_t *stop_lsn_out)
{
    const Incarnation *incarnation = wal_archive_incarnation(archive);
    uint64_t start_lsn = UINT64_MAX, stop_lsn = 0;

    for (size_t i = 0; i < catalog->count; i++) {
        const Fate *fate = catalog->backups[i].fate;
        if (catalog->backups[i].presence != BACKUP_COMMITTED ||
            fate->system_id != incarnation->system_id || fate->major != incarnation->major ||
            !timeline_history_contains(path, fate->stop_timeline, fate->stop_lsn))
            continue;
        if (fate->start_lsn < start_lsn)
            start_lsn = fate->start_lsn;
        if (fate->stop_lsn > stop_lsn)
            stop_lsn = fate->stop_lsn;
    }
    *start_lsn_out = start_lsn;
    *stop_lsn_out = stop_lsn;
    return stop_lsn != 0;
}

static int
compare_missing(const void *a, const void *b)
{
    const WalMissing *left = a, *right = b;

    if (left->timeline != right->timeline)
        return left->timeline < right->timeline ? -1 : 1;
    return (left->segment > right->segment) - (left->segment < right->segment);
}

typedef struct {
    WalMissing *entries;
    size_t count;
    uint64_t more;
    char (*names)[WAL_NAME_SIZE]; /* WAL_MISSING_LIMIT of them */
} Gathering;

static bool
add_path(const WalArchive *archive, const Catalog *catalog, const TimelineHistory *path,
         Gathering *gathering)
{
    const uint32_t segment_size = wal_archive_incarnation(archive)->wal_segment_size;
    const uint64_t stored_end = wal_missing_stored_end(archive, path);
    uint64_t start_lsn, stop_lsn;

    if (!backups_on(archive, catalog, path, &start_lsn, &stop_lsn))
        return true;
    const uint64_t end_lsn = stored_end > stop_lsn ? stored_end : stop_lsn;
    const size_t room = WAL_MISSING_LIMIT - gathering->count;
    const size_t count =
        wal_archive_missing(archive, path, start_lsn, end_lsn, gathering->names, room);
    for (size_t i = 0; i < count && i < room; i++) {
        WalMissing *entry = &gathering->entries[gathering->count];
        if (!wal_segment_parse(gathering->names[i], segment_size, &entry->timeline,
                               &entry->segment))
            return false;
        entry->path = path;
        gathering->count++;
    }
    gathering->more += count > room ? count - room : 0;
    return true;
}

static void
keep_unique(Gathering *gathering)
{
    size_t kept = 0;

    if (gathering->count > 1)
        qsort(gathering->entries, gathering->count, sizeof *gathering->entries, compare_missing);
    for (size_t i = 0; i < gathering->count; i++) {
        if (kept == 0 ||
            compare_missing(&gathering->entries[kept - 1], &gathering->entries[i]) != 0)
            gathering->entries[kept++] = gathering->entries[i];
    }
    gathering->count = kept;
}

bool
wal_missing_find(const WalArchive *archive, const Catalog *catalog, WalMissing **missing_out,
                 size_t *count_out, uint64_t *more_out, CairnError *err)
{
    SCOPED_MEMORY WalMissing *entries = calloc(WAL_MISSING_LIMIT, sizeof *entries);
    SCOPED_MEMORY char(*names)[WAL_NAME_SIZE] = calloc(WAL_MISSING_LIMIT, sizeof *names);
    Gathering gathering = {.entries = entries, .names = names};

    if (entries == NULL || names == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (size_t i = wal_archive_timeline_count(archive); i-- > 0;) {
        const WalTimeline *leaf = wal_archive_timeline(archive, i);
        if (leaf->is_leaf && leaf->history != NULL) {
            const bool added = add_path(archive, catalog, leaf->history, &gathering);
            CAIRN_ASSERT(added); /* names that wal_archive made itself */
        }
    }
    keep_unique(&gathering);
    *missing_out = take(&entries);
    *count_out = gathering.count;
    *more_out = gathering.more;
    return true;
}
