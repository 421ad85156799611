/* The last records of a path, and the newest moment that they state. */
#include "repository/wal_archive_intern.h"

#include "repository/wal_object.h"

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

/* A segment's part of the tail as its facts tell it. Where only its first part counts, when the
   transactions in that ended is not known. */
static void
add_facts(const WalFacts *facts, uint64_t end_lsn, Tail *tail)
{
    const bool whole = facts->end_lsn <= end_lsn;
    if (whole && facts->last_record_lsn != 0) {
        tail->found = true;
        tail->last = (WalRecord){.start_lsn = facts->last_record_lsn, .end_lsn = facts->end_lsn};
    }
    if (whole && facts->commits.count > 0 && facts->commits.max_time_us > tail->newest_time_us)
        tail->newest_time_us = facts->commits.max_time_us;
    if (whole && facts->aborts.count > 0 && facts->aborts.max_time_us > tail->newest_time_us)
        tail->newest_time_us = facts->aborts.max_time_us;
    for (size_t i = 0; i < facts->event_count; i++) {
        const WalEvent *event = &facts->events[i];
        if (event->lsn < end_lsn && event->kind == WAL_EVENT_RESTORE_POINT &&
            event->time_us > tail->newest_time_us)
            tail->newest_time_us = event->time_us;
    }
}

/* The same from what is told of each segment: for a host that stores WAL and cannot read it. What
   there is of an unfinished segment is not seen. */
static bool
read_tail_facts(WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn,
                uint64_t end_lsn, Tail *tail, CairnError *err)
{
    const uint64_t segment_size = wal_archive_segment_size(archive);
    uint64_t number = start_lsn / segment_size;
    uint32_t timeline;

    for (; wal_archive_next_segment(archive, path, number, &number, &timeline) &&
           number * segment_size < end_lsn;
         number++) {
        bool stored;
        SCOPED(WalFacts) facts = wal_store_facts(archive->store, timeline, number, &stored, err);
        if (facts != NULL)
            add_facts(facts, end_lsn, tail);
        else if (err->kind != CAIRN_SEALED)
            return false;
        cairn_error_clear(err); /* stored without facts, and read it we can't */
    }
    return true;
}

static bool
read_tail(WalArchive *archive, const TimelineHistory *path, uint64_t start_lsn, uint64_t end_lsn,
          Tail *tail, CairnError *err)
{
    if (!repository_reads_data(archive->store->repository))
        return read_tail_facts(archive, path, start_lsn, end_lsn, tail, err);
    SCOPED(WalArchiveReader) reader = wal_archive_read(archive, path, start_lsn, true, err);
    WalRecord record;
    bool found = true;

    if (reader == NULL)
        return false;
    wal_archive_reader_end_at(reader, end_lsn); /* what lies behind it may be damaged */
    while (found) {
        if (!wal_reader_next(wal_archive_reader_records(reader), &record, &found, err))
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
    const uint64_t segment_size = wal_archive_segment_size(archive);
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
