/*
 * PostgreSQL's rules, as recoveryStopsBefore and recoveryStopsAfter apply them (facts 7.4):
 *
 *   lsn        the first record that starts at or after it: replayed when inclusive, else not
 *   time       before the first commit or abort with a later time (exclusive: the same or a later)
 *   xid        at the commit or abort of that transaction: after it, exclusive: before it
 *   name       after the first restore point record of that name
 *   immediate  where the backup becomes consistent
 *
 * A stop before the backup is consistent is FATAL; a target that never comes is FATAL too.
 */
#include "restore/plan_target.h"

#include "common/cancel.h"
#include "common/timestamp.h"
#include "postgres/wal_page.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A signal is asked for once in so many records. */
enum { RECORDS_PER_CHECK = 65536 };

static void answer(Reach *reach, ReachVerdict verdict, const char *format, ...) PRINTF_LIKE(3, 4);

static void
answer(Reach *reach, ReachVerdict verdict, const char *format, ...)
{
    va_list arguments;
    reach->verdict = verdict;
    va_start(arguments, format);
    vsnprintf(reach->why, sizeof reach->why, format, arguments);
    va_end(arguments);
}

static void
stop_at(Reach *reach, const WalRecord *record, bool before)
{
    reach->verdict = REACH_PROVEN;
    reach->stop.has_record = true;
    reach->stop.record = *record;
    reach->stop.before = before;
    reach->stop.end_lsn = before ? record->start_lsn : record->end_lsn;
}

/*
 * The whole unbroken WAL and no more: the last record, named by its start. PostgreSQL would end in
 * FATAL if the target itself were written, because no record comes that shows it was passed.
 */
static void
stop_at_last(Reach *reach, const WalRecord *last)
{
    stop_at(reach, last, false);
    reach->setting = "recovery_target_lsn";
    reach->inclusive = true;
    lsn_format(reach->value, last->start_lsn);
}

static bool
is_end_of_transaction(const WalRecord *record)
{
    return record->kind == WAL_RECORD_COMMIT || record->kind == WAL_RECORD_ABORT;
}

/* What a pass over the records finds. */
typedef struct {
    WalRecord match;
    size_t match_count;
    int64_t commit_before_match_us;
    WalRecord last;
    bool has_last;
    int64_t newest_us; /* newest time that any record states */
} Scan;

static bool
record_matches(const Target *target, const WalRecord *record)
{
    switch (target->type) {
    case TARGET_TIME:
        return is_end_of_transaction(record) &&
               (target->exclusive ? record->time_us >= target->time_us
                                  : record->time_us > target->time_us);
    case TARGET_XID:
        return is_end_of_transaction(record) && record->transaction_xid == (uint32_t)target->xid;
    case TARGET_NAME:
        return record->kind == WAL_RECORD_RESTORE_POINT &&
               strncmp(record->restore_point, target->name, sizeof record->restore_point) == 0;
    default:
        return false;
    }
}

/* Reads from the backup's start; up to the first match, for names to the end of the WAL. */
static bool
scan_records(const ReachQuery *query, Scan *scan, CairnError *err)
{
    SCOPED(WalArchiveReader)
    reader = wal_archive_read(query->archive, query->path, query->backup->start_lsn, true, err);
    if (reader == NULL)
        return false;

    const bool count_all = query->target->type == TARGET_NAME && !query->first_of_name;
    int64_t commit_us = 0;
    for (size_t n = 1;; n++) {
        WalRecord record;
        bool found;
        if (!wal_reader_next(wal_archive_reader_records(reader), &record, &found, err) ||
            (n % RECORDS_PER_CHECK == 0 && !cancel_check(err))) {
            return false;
        }
        if (!found || record.start_lsn >= query->until_lsn)
            return true;

        if (record_matches(query->target, &record)) {
            if (scan->match_count++ == 0) {
                scan->match = record;
                scan->commit_before_match_us = commit_us;
            }
            if (!count_all)
                return true;
        }
        scan->last = record;
        scan->has_last = true;
        if (is_end_of_transaction(&record) && record.time_us > commit_us)
            commit_us = record.time_us;
        if (record.time_us > scan->newest_us)
            scan->newest_us = record.time_us;
    }
}

/* A target time at which no transaction ended any more, yet the archive goes on. */
static void
reach_time_after_last(const ReachQuery *query, const Scan *scan, Reach *reach)
{
    char asked[TIMESTAMP_TEXT_SIZE];
    char newest[TIMESTAMP_TEXT_SIZE];

    if (!scan->has_last || scan->last.end_lsn < query->backup->stop_lsn) {
        answer(reach, REACH_INCOMPLETE, "its WAL cannot be read up to the backup's end");
    } else if (query->until_lsn == UINT64_MAX && query->target->time_us <= scan->newest_us) {
        stop_at_last(reach, &scan->last);
        reach->stop.last_commit_us = scan->newest_us;
    } else {
        timestamp_format(asked, query->target->time_us);
        timestamp_format(newest, scan->newest_us);
        answer(reach, REACH_ABSENT, "%s is later than the newest time that the archive states (%s)",
               asked, newest);
    }
}

static bool
reach_by_scan(const ReachQuery *query, Reach *reach, CairnError *err)
{
    const Target *target = query->target;
    Scan scan = {0};

    /*
     * The backup holds all that was committed before its end. Only for times at or after that can
     * it be the state of that time, even where no record in between says otherwise.
     */
    if (target->type == TARGET_TIME && target->time_us < query->backup->stopped_us) {
        answer(reach, REACH_OLDER_BACKUP, "the backup ended later than that");
        return true;
    }
    if (!scan_records(query, &scan, err))
        return false;

    if (scan.match_count == 0) {
        if (target->type == TARGET_TIME)
            reach_time_after_last(query, &scan, reach);
        else
            answer(reach, REACH_ABSENT, "no such %s in the WAL after this backup",
                   target->type == TARGET_XID ? "transaction ends" : "restore point");
        return true;
    }
    const bool before = target->type == TARGET_TIME || target->exclusive;
    const uint64_t reached_lsn = before ? scan.match.start_lsn : scan.match.end_lsn;
    if (reached_lsn < query->backup->stop_lsn) {
        answer(reach, REACH_OLDER_BACKUP, "it lies before the end of the backup");
        return true;
    }
    if (scan.match_count > 1) {
        answer(reach, REACH_AMBIGUOUS, "%zu restore points of that name follow the backup",
               scan.match_count);
        return true;
    }
    stop_at(reach, &scan.match, before);
    reach->stop.last_commit_us = scan.commit_before_match_us;
    reach->inclusive = !target->exclusive;
    if (target->type == TARGET_TIME) {
        reach->setting = "recovery_target_time";
        timestamp_format(reach->value, target->time_us);
    } else if (target->type == TARGET_XID) {
        reach->setting = "recovery_target_xid";
        snprintf(reach->value, sizeof reach->value, "%" PRIu64, target->xid);
        if (!before)
            reach->stop.last_commit_us = scan.match.time_us;
    } else {
        reach->setting = "recovery_target_name";
        snprintf(reach->value, sizeof reach->value, "%s", target->name);
    }
    return true;
}

/* The last record of the unbroken WAL; the backup's own end must be before it. */
static bool
find_tail(const ReachQuery *query, Reach *reach, WalRecord *last_out, int64_t *newest_us_out,
          bool *found_out, CairnError *err)
{
    if (!wal_archive_tail(query->archive, query->path, query->backup->start_lsn, last_out,
                          newest_us_out, found_out, err)) {
        return false;
    }
    if (*found_out && last_out->end_lsn < query->backup->stop_lsn)
        *found_out = false;
    if (!*found_out)
        answer(reach, REACH_INCOMPLETE, "its WAL cannot be read up to the backup's end");
    return true;
}

/* Where the server says it stands once WAL up to lsn is written: behind the header of a new page.
 */
static uint64_t
next_insert_position(uint64_t lsn, uint32_t segment_size)
{
    if (lsn % WAL_PAGE_SIZE != 0)
        return lsn;
    return lsn + (lsn % segment_size == 0 ? WAL_LONG_HEADER_SIZE : WAL_SHORT_HEADER_SIZE);
}

static bool
reach_lsn(const ReachQuery *query, Reach *reach, CairnError *err)
{
    const uint64_t lsn = query->target->lsn;
    const uint64_t unbroken_end =
        wal_archive_unbroken_end(query->archive, query->path, query->backup->start_lsn);
    WalRecord record;
    bool found = false;

    if (lsn < query->backup->stop_lsn) {
        answer(reach, REACH_OLDER_BACKUP, "it lies before the end of the backup");
        return true;
    }
    if (lsn < unbroken_end) {
        SCOPED(WalArchiveReader)
        reader = wal_archive_read(query->archive, query->path, lsn, true, err);
        if (reader == NULL ||
            !wal_reader_next(wal_archive_reader_records(reader), &record, &found, err)) {
            return false;
        }
    }
    if (found && record.start_lsn < unbroken_end) {
        stop_at(reach, &record, query->target->exclusive);
        reach->setting = "recovery_target_lsn";
        reach->inclusive = !query->target->exclusive;
        lsn_format(reach->value, lsn);
        return true;
    }

    /* Nothing starts at or after it. Where the archive's last record ends there, that is all of it.
     */
    int64_t newest_us;
    char end[LSN_TEXT_SIZE];
    if (!find_tail(query, reach, &record, &newest_us, &found, err))
        return false;
    if (found && lsn <= next_insert_position(record.end_lsn, query->backup->wal_segment_size)) {
        stop_at_last(reach, &record);
        reach->stop.last_commit_us = newest_us;
    } else if (found) {
        lsn_format(end, record.end_lsn);
        answer(reach, REACH_ABSENT, "the unbroken WAL from this backup on ends at %s", end);
    }
    return true;
}

uint64_t
plan_stored_end(const WalArchive *archive, const TimelineHistory *path, uint32_t segment_size)
{
    uint64_t end_lsn = 0;
    for (size_t i = 0; i < path->stretch_count; i++) {
        const TimelineStretch *stretch = &path->stretches[i];
        const WalTimeline *timeline = wal_archive_find(archive, stretch->timeline);
        if (timeline == NULL)
            continue;
        /* The segment with the fork is the next timeline's. */
        const uint64_t fork = wal_segment_of(stretch->end_lsn, segment_size);
        const uint64_t end = wal_timeline_stored_end(timeline);
        uint64_t lsn = (end < fork ? end : fork) * segment_size;
        /* What cannot be read was there all the same. */
        if (timeline->unfinished_broken && timeline->unfinished_segment < fork)
            lsn = timeline->unfinished_segment * segment_size + timeline->unfinished_size + 1;
        if (lsn > end_lsn)
            end_lsn = lsn;
    }
    return end_lsn;
}

/* The unbroken WAL ends in an unfinished segment of which more was stored. */
static bool
is_broken_end(const ReachQuery *query, uint64_t end_lsn)
{
    const uint32_t segment_size = query->backup->wal_segment_size;
    const WalTimeline *timeline =
        wal_archive_find(query->archive, timeline_history_at(query->path, end_lsn));

    return timeline != NULL && timeline->unfinished_broken &&
           timeline->unfinished_segment == wal_segment_of(end_lsn, segment_size);
}

/* All of the timeline, as far as it is there. A hole with more behind it is no end. */
static bool
reach_end(const ReachQuery *query, Reach *reach, CairnError *err)
{
    WalRecord last;
    int64_t newest_us;
    bool found;

    if (!find_tail(query, reach, &last, &newest_us, &found, err))
        return false;
    if (!found)
        return true;

    const uint64_t end_lsn =
        wal_archive_unbroken_end(query->archive, query->path, query->backup->start_lsn);
    const uint32_t segment_size = query->backup->wal_segment_size;
    if (plan_stored_end(query->archive, query->path, segment_size) > end_lsn) {
        char name[WAL_NAME_SIZE];
        char start[LSN_TEXT_SIZE];
        wal_segment_name(name, timeline_history_at(query->path, end_lsn),
                         wal_segment_of(end_lsn, segment_size), segment_size);
        lsn_format(start, last.start_lsn);
        answer(reach, REACH_ABSENT,
               is_broken_end(query, end_lsn)
                   ? "what was received of segment %s is damaged; --lsn=%s goes up to the damage"
                   : "segment %s is missing and later ones are there; --lsn=%s goes up to the gap",
               name, start);
        return true;
    }
    stop_at(reach, &last, false);
    reach->stop.last_commit_us = newest_us;
    return true;
}

static void
reach_consistency(const ReachQuery *query, Reach *reach)
{
    reach->verdict = REACH_PROVEN;
    reach->stop.end_lsn = query->backup->stop_lsn;
    reach->stop.last_commit_us = 0;
    if (query->target->type == TARGET_IMMEDIATE) {
        reach->setting = "recovery_target";
        snprintf(reach->value, sizeof reach->value, "immediate");
    }
}

/* Names of the first missing segments, for people. */
static bool
backup_wal_is_there(const ReachQuery *query, Reach *reach)
{
    enum { NAMED = 3 };
    char names[NAMED][WAL_NAME_SIZE];
    const Fate *backup = query->backup;
    const size_t missing = wal_archive_missing(query->archive, query->path, backup->start_lsn,
                                               backup->stop_lsn, names, NAMED);
    if (missing == 0)
        return true;
    answer(reach, REACH_INCOMPLETE, "WAL that the backup itself needs is missing: %s%s", names[0],
           missing > 1 ? " and more" : "");
    return false;
}

bool
plan_reach(const ReachQuery *query, Reach *reach_out, CairnError *err)
{
    *reach_out = (Reach){0};
    if (!backup_wal_is_there(query, reach_out))
        return true;
    switch (query->target->type) {
    case TARGET_TIME:
    case TARGET_XID:
    case TARGET_NAME:
        return reach_by_scan(query, reach_out, err);
    case TARGET_LSN:
        return reach_lsn(query, reach_out, err);
    case TARGET_DEFAULT:
        return reach_end(query, reach_out, err);
    default:
        reach_consistency(query, reach_out);
        return true;
    }
}
