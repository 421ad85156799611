/*
 * Which timeline's file holds a segment of a path: the one of the stretch that the segment's last
 * byte lies on (or the range's last byte, when the range ends earlier). So a segment with a fork is
 * read under the newer timeline's name as soon as the path goes on, which is how PostgreSQL writes
 * and reads it.
 */
#include "repository/wal_archive.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct WalArchive {
    WalStore *store;
    WalTimeline *timelines; /* ascending */
    size_t count;
};

struct WalArchiveReader {
    WalArchive *archive;
    const TimelineHistory *path;
    WalReader *records;
    WalSegmentReader *segment;
    uint64_t segment_number; /* of segment; meaningless when it is NULL */
    uint64_t end_lsn;        /* nothing from here on is looked at */
};

static uint32_t
segment_size_of(const WalArchive *archive)
{
    return wal_store_incarnation(archive->store)->wal_segment_size;
}

/* *history_out stays NULL when the file is not stored and the timeline is not the oldest. */
static bool
load_history(WalStore *store, uint32_t timeline, bool oldest, TimelineHistory **history_out,
             CairnError *err)
{
    size_t size = 0;
    SCOPED_MEMORY char *text = NULL;
    SCOPED_MEMORY TimelineHistory *history = malloc(sizeof *history);

    if (history == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    text = wal_store_history(store, timeline, &size, err);
    if (text == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        if (!oldest && timeline != 1)
            return true;
        timeline_history_root(timeline, history);
    } else if (!timeline_history_parse(timeline, text, size, history, err)) {
        return false;
    }
    *history_out = take(&history);
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
        if (!load_history(archive->store, numbers[i], i == 0, &timeline->history, err) ||
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
    const uint32_t segment_size = segment_size_of(archive);
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
    const uint32_t segment_size = segment_size_of(archive);

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

/* The stretch that names the file of a segment, for a path that goes on past it. */
static const TimelineStretch *
stretch_of_segment(const TimelineHistory *path, uint64_t number, uint32_t segment_size)
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
            stretch_of_segment(path, timeline->unfinished_segment, segment_size_of(archive)) ==
                &path->stretches[i])
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
    const uint64_t end = segment * segment_size_of(archive) + timeline->unfinished_size;
    return end > end_lsn ? end : end_lsn;
}

uint64_t
wal_archive_unbroken_end(const WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn)
{
    const uint32_t segment_size = segment_size_of(archive);
    uint64_t number = wal_segment_of(start_lsn, segment_size);
    uint64_t end_lsn = start_lsn;

    for (;;) {
        const TimelineStretch *stretch = stretch_of_segment(path, number, segment_size);
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

uint32_t
wal_archive_reader_timeline(const WalArchiveReader *reader, uint64_t lsn)
{
    const uint32_t segment_size = segment_size_of(reader->archive);
    const TimelineStretch *stretch =
        stretch_of_segment(reader->path, wal_segment_of(lsn, segment_size), segment_size);

    return stretch != NULL ? stretch->timeline : 0;
}

/*
 * The whole segment, or what there is of an unfinished one. While its pieces are read it may have
 * become whole, and they went.
 */
static WalSegmentReader *
open_segment(WalArchiveReader *reader, uint32_t timeline, uint64_t number, CairnError *err)
{
    WalStore *store = reader->archive->store;
    uint32_t size;

    WalSegmentReader *segment = wal_store_read(store, timeline, number, err);
    const WalTimeline *known = wal_archive_find(reader->archive, timeline);
    if (segment != NULL || err->kind != CAIRN_NOT_FOUND || known == NULL ||
        known->unfinished_size == 0 || known->unfinished_segment != number)
        return segment;
    cairn_error_clear(err);
    segment = wal_store_read_pieces(store, timeline, number, &size, err);
    if (segment != NULL || err->kind != CAIRN_NOT_FOUND)
        return segment;
    cairn_error_clear(err);
    return wal_store_read(store, timeline, number, err);
}

/* WalPageSource over the segments of a path. */
static bool
archive_page(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out, CairnError *err)
{
    WalArchiveReader *reader = context;
    const uint32_t segment_size = segment_size_of(reader->archive);
    const uint64_t number = wal_segment_of(lsn, segment_size);

    if (lsn >= reader->end_lsn) {
        *present_out = false;
        return true;
    }
    if (reader->segment == NULL || reader->segment_number != number) {
        const uint32_t timeline = wal_archive_reader_timeline(reader, lsn);
        wal_segment_reader_free(take(&reader->segment));
        reader->segment = timeline != 0 ? open_segment(reader, timeline, number, err) : NULL;
        reader->segment_number = number;
    }
    if (reader->segment == NULL) {
        if (err->kind != CAIRN_OK && err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        *present_out = false;
        return true;
    }
    *present_out = true;
    if (wal_segment_reader_pread(reader->segment, page, 8192, lsn % segment_size, err))
        return true;
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    /* A piece went while we read: the segment is whole now, and says the same. */
    cairn_error_clear(err);
    wal_segment_reader_free(take(&reader->segment));
    reader->segment = open_segment(reader, wal_archive_reader_timeline(reader, lsn), number, err);
    return reader->segment != NULL &&
           wal_segment_reader_pread(reader->segment, page, 8192, lsn % segment_size, err);
}

WalArchiveReader *
wal_archive_read(WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn, bool seek,
                 CairnError *err)
{
    const Incarnation *incarnation = wal_store_incarnation(archive->store);
    SCOPED(WalArchiveReader) reader = calloc(1, sizeof *reader);

    if (reader == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    reader->archive = archive;
    reader->path = path;
    reader->end_lsn = UINT64_MAX;
    reader->records =
        wal_reader_new(archive_page, reader, incarnation->major, incarnation->wal_segment_size,
                       incarnation->system_id, start_lsn, seek, err);
    return reader->records != NULL ? take(&reader) : NULL;
}

void
wal_archive_reader_free(WalArchiveReader *reader)
{
    if (reader == NULL)
        return;
    wal_reader_free(reader->records);
    wal_segment_reader_free(reader->segment);
    free(reader);
}

WalReader *
wal_archive_reader_records(WalArchiveReader *reader)
{
    return reader->records;
}

typedef struct {
    WalRecord last;
    bool found;
    int64_t newest_time_us;
} Tail;

/* Only kinds that state a moment which has passed; others leave time_us at 0. */
static bool
states_time(const WalRecord *record)
{
    return record->kind == WAL_RECORD_COMMIT || record->kind == WAL_RECORD_ABORT ||
           record->kind == WAL_RECORD_RESTORE_POINT || record->kind == WAL_RECORD_CHECKPOINT;
}

static bool
read_tail(WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn, uint64_t end_lsn,
          Tail *tail, CairnError *err)
{
    SCOPED(WalArchiveReader) reader = wal_archive_read(archive, path, start_lsn, true, err);
    WalRecord record;
    bool found = true;

    if (reader == NULL)
        return false;
    reader->end_lsn = end_lsn; /* what lies behind it may be damaged */
    while (found) {
        if (!wal_reader_next(reader->records, &record, &found, err))
            return false;
        if (!found || record.start_lsn >= end_lsn)
            break;
        tail->found = true;
        tail->last = record;
        if (states_time(&record) && record.time_us > tail->newest_time_us)
            tail->newest_time_us = record.time_us;
    }
    return true;
}

/* Mostly the last segment has all that is wanted; idle ones before it are read in bigger steps. */
static bool
tail_before(WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn, uint64_t end_lsn,
            Tail *tail, CairnError *err)
{
    const uint64_t segment_size = segment_size_of(archive);
    uint64_t from = end_lsn;

    *tail = (Tail){0};
    for (uint64_t segments = 1; from > start_lsn && segments <= WAL_TAIL_SEGMENTS; segments *= 4) {
        const uint64_t back = segments * segment_size;
        from = end_lsn > back && end_lsn - back > start_lsn ? end_lsn - back : start_lsn;
        *tail = (Tail){0};
        if (!read_tail(archive, path, from, end_lsn, tail, err))
            return false;
        if (tail->found && tail->newest_time_us != 0)
            break;
    }
    return true;
}

bool
wal_archive_tail(WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn,
                 WalRecord *last_out, int64_t *newest_time_us_out, bool *found_out, CairnError *err)
{
    Tail tail;

    if (!tail_before(archive, path, start_lsn, wal_archive_unbroken_end(archive, path, start_lsn),
                     &tail, err))
        return false;
    if (tail.found) {
        *last_out = tail.last;
        *newest_time_us_out = tail.newest_time_us;
    }
    *found_out = tail.found;
    return true;
}

bool
wal_archive_time_before(WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn,
                        uint64_t end_lsn, int64_t *newest_time_us_out, CairnError *err)
{
    Tail tail;

    if (!tail_before(archive, path, start_lsn, end_lsn, &tail, err))
        return false;
    *newest_time_us_out = tail.newest_time_us;
    return true;
}
