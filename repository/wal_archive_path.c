/*
 * Which timeline's file holds a segment of a path: the one of the stretch that the segment's last
 * byte lies on (or the range's last byte, when the range ends earlier). So a segment with a fork is
 * read under the newer timeline's name as soon as the path goes on, which is how PostgreSQL writes
 * and reads it.
 */
#include "repository/wal_archive_intern.h"

/* Names of missing segments: counts them all, keeps the first ones. */
typedef struct {
    uint32_t segment_size;
    char (*names)[WAL_NAME_SIZE];
    size_t capacity;
    size_t count;
} MissingList;

static void
add_missing(MissingList *list, uint32_t timeline, uint64_t first, uint64_t last)
{
    for (uint64_t number = first; number <= last && list->count < list->capacity; number++) {
        wal_segment_name(list->names[list->count++], timeline, number, list->segment_size);
        first++;
    }
    if (first <= last)
        list->count += (size_t)(last - first + 1);
}

/* What of [first, last] no run of the timeline covers. */
static void
add_missing_of(const WalArchive *archive, uint32_t number, uint64_t first, uint64_t last,
               MissingList *list)
{
    const WalTimeline *timeline = wal_archive_find(archive, number);

    for (size_t i = 0; timeline != NULL && i < timeline->run_count && first <= last; i++) {
        const WalRun *run = &timeline->runs[i];
        if (run->last_segment < first)
            continue;
        if (run->first_segment > last)
            break;
        if (run->first_segment > first)
            add_missing(list, number, first, run->first_segment - 1);
        first = run->last_segment + 1;
    }
    if (first <= last)
        add_missing(list, number, first, last);
}

size_t
wal_archive_missing(const WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn,
                    uint64_t end_lsn, char (*names_out)[WAL_NAME_SIZE], size_t capacity)
{
    const uint32_t segment_size = wal_archive_segment_size(archive);
    MissingList list = {.segment_size = segment_size, .names = names_out, .capacity = capacity};

    if (start_lsn >= end_lsn)
        return 0;
    const uint64_t last_byte = end_lsn - 1;
    uint64_t first = wal_segment_of(start_lsn, segment_size);
    for (size_t i = 0; i < path->stretch_count; i++) {
        const TimelineStretch *stretch = &path->stretches[i];

        if (stretch->end_lsn <= start_lsn || stretch->start_lsn > last_byte)
            continue;
        uint64_t end = wal_segment_of(last_byte, segment_size) + 1; /* segments, half-open */
        if (stretch->end_lsn <= last_byte)
            end = wal_segment_of(stretch->end_lsn, segment_size);
        /* A stretch inside one segment has no file of its own here: the next one's holds it. */
        if (first < end) {
            add_missing_of(archive, stretch->timeline, first, end - 1, &list);
            first = end;
        }
    }
    return list.count;
}

bool
wal_archive_next_segment(const WalArchive *archive, const TimelineHistory *path, uint64_t from,
                         uint64_t *number_out, uint32_t *timeline_out)
{
    const uint32_t segment_size = wal_archive_segment_size(archive);

    for (size_t i = 0; i < path->stretch_count; i++) {
        const TimelineStretch *stretch = &path->stretches[i];
        const WalTimeline *timeline = wal_archive_find(archive, stretch->timeline);
        /* The segment with this stretch's end belongs to the next timeline. */
        const uint64_t end = stretch->end_lsn == UINT64_MAX
                                 ? UINT64_MAX
                                 : wal_segment_of(stretch->end_lsn, segment_size);
        uint64_t first = wal_segment_of(stretch->start_lsn, segment_size);
        first = from > first ? from : first;
        for (size_t k = 0; timeline != NULL && k < timeline->run_count; k++) {
            const WalRun *run = &timeline->runs[k];
            const uint64_t number = run->first_segment > first ? run->first_segment : first;
            if (run->last_segment < number)
                continue;
            if (number >= end)
                break;
            *number_out = number;
            *timeline_out = stretch->timeline;
            return true;
        }
    }
    return false;
}

/* The last segment of the run that holds segment `number`; false when none does. */
static bool
find_run_end(const WalArchive *archive, uint32_t timeline, uint64_t number, uint64_t *last_out)
{
    const WalTimeline *found = wal_archive_find(archive, timeline);

    for (size_t i = 0; found != NULL && i < found->run_count; i++) {
        if (number >= found->runs[i].first_segment && number <= found->runs[i].last_segment) {
            *last_out = found->runs[i].last_segment;
            return true;
        }
    }
    return false;
}

const TimelineStretch *
wal_archive_stretch(const TimelineHistory *path, uint64_t number, uint32_t segment_size)
{
    const uint64_t last_byte = number * segment_size + segment_size - 1;

    for (size_t i = path->stretch_count; i-- > 0;) {
        if (path->stretches[i].start_lsn <= last_byte && last_byte < path->stretches[i].end_lsn)
            return &path->stretches[i];
    }
    return NULL;
}

const WalTimeline *
wal_archive_unfinished(const WalArchive *archive, const TimelineHistory *path)
{
    for (size_t i = path->stretch_count; i-- > 0;) {
        const WalTimeline *timeline = wal_archive_find(archive, path->stretches[i].timeline);
        if (timeline != NULL && timeline->has_unfinished &&
            wal_archive_stretch(path, timeline->unfinished_segment,
                                wal_archive_segment_size(archive)) == &path->stretches[i])
            return timeline;
    }
    return NULL;
}

/* The end of what is there of a segment that is not whole, if that is more than end_lsn. */
static uint64_t
unfinished_end(const WalArchive *archive, uint32_t number, uint64_t segment, uint64_t end_lsn)
{
    const WalTimeline *timeline = wal_archive_find(archive, number);

    if (timeline == NULL || timeline->unfinished_size == 0 ||
        timeline->unfinished_segment != segment)
        return end_lsn;
    const uint64_t end = segment * wal_archive_segment_size(archive) + timeline->unfinished_size;
    return end > end_lsn ? end : end_lsn;
}

uint64_t
wal_archive_unbroken_end(const WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn)
{
    const uint32_t segment_size = wal_archive_segment_size(archive);
    uint64_t number = wal_segment_of(start_lsn, segment_size);
    uint64_t end_lsn = start_lsn;

    for (;;) {
        const TimelineStretch *stretch = wal_archive_stretch(path, number, segment_size);
        uint64_t last;

        if (stretch == NULL)
            return end_lsn;
        if (!find_run_end(archive, stretch->timeline, number, &last))
            return unfinished_end(archive, stretch->timeline, number, end_lsn);
        /* The segment with this stretch's end belongs to the next timeline. */
        if (stretch->end_lsn != UINT64_MAX &&
            last >= wal_segment_of(stretch->end_lsn, segment_size))
            last = wal_segment_of(stretch->end_lsn, segment_size) - 1;
        number = last + 1;
        end_lsn = number * segment_size;
    }
}
