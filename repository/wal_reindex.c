/* Making the recovery index: part of wal_ledger.h. */
#include "repository/wal_ledger.h"
#include "repository/wal_log_index.h"

typedef struct {
    WalArchive *archive;
    const WalTimeline *timeline;
    WalReindexReport *report;
    WalLogName log; /* of builder */
    WalLogIndexBuilder *builder;
} Reindex;

/* The timeline's last log grows as long as its server lives. */
static bool
is_growing(const Reindex *reindex)
{
    const WalTimeline *timeline = reindex->timeline;
    const uint32_t segment_size = wal_archive_incarnation(reindex->archive)->wal_segment_size;
    const WalLogName last = wal_log_of(
        timeline->timeline, timeline->runs[timeline->run_count - 1].last_segment, segment_size);
    return timeline->is_leaf && reindex->log.log == last.log;
}

static bool
store_log(Reindex *reindex, CairnError *err)
{
    bool written;
    SCOPED(WalLogIndexBuilder) builder = take(&reindex->builder);
    if (builder == NULL || is_growing(reindex))
        return true;
    if (!wal_log_index_store(builder, &written, err))
        return false;
    reindex->report->log_count++;
    reindex->report->written_count += written ? 1 : 0;
    return true;
}

/* Does any timeline leave this one in a segment? */
static bool
is_left_in(const Reindex *reindex, uint64_t number)
{
    const uint32_t segment_size = wal_archive_incarnation(reindex->archive)->wal_segment_size;

    for (size_t i = 0; i < wal_archive_timeline_count(reindex->archive); i++) {
        const TimelineHistory *history = wal_archive_timeline(reindex->archive, i)->history;
        for (size_t k = 0; history != NULL && k + 1 < history->stretch_count; k++) {
            if (history->stretches[k].timeline == reindex->timeline->timeline &&
                wal_segment_of(history->stretches[k].end_lsn, segment_size) == number)
                return true;
        }
    }
    return false;
}

/*
 * A record that crosses into a segment in which a timeline forks may have ended on one side only:
 * the other declares it void. An index has one entry for both, so that each looks for itself.
 */
static bool
may_end_differently(const Reindex *reindex, const WalLedgerSegment *segment)
{
    return segment->facts->tail_lsn != 0 && is_left_in(reindex, segment->number + 1);
}

static bool
add_segment(void *context, const WalLedgerSegment *segment, bool *stop_io, CairnError *err)
{
    Reindex *reindex = context;
    const uint32_t segment_size = wal_archive_incarnation(reindex->archive)->wal_segment_size;
    const WalLogName log = wal_log_of(segment->timeline, segment->number, segment_size);
    (void)stop_io;
    if (segment->timeline != reindex->timeline->timeline)
        return true;
    if (reindex->builder == NULL || log.log != reindex->log.log) {
        if (!store_log(reindex, err))
            return false;
        reindex->log = log;
        reindex->builder = wal_log_index_begin(wal_archive_store(reindex->archive), &log, err);
        if (reindex->builder == NULL)
            return false;
    }
    wal_log_index_add(reindex->builder, segment->number, segment->facts,
                      segment->complete && !may_end_differently(reindex, segment));
    return true;
}

static void
add_counts(WalLedgerCounts *sum, const WalLedgerCounts *counts)
{
    sum->indexed += counts->indexed;
    sum->stored += counts->stored;
    sum->decoded += counts->decoded;
    sum->unreadable += counts->unreadable;
    sum->incomplete += counts->incomplete;
}

static bool
reindex_timeline(WalArchive *archive, const WalTimeline *timeline, WalReindexReport *report,
                 CairnError *err)
{
    const TimelineStretch *own =
        &timeline->history->stretches[timeline->history->stretch_count - 1];
    const WalLedgerRange range = {
        .path = timeline->history, .from_lsn = own->start_lsn, .to_lsn = UINT64_MAX};
    Reindex reindex = {.archive = archive, .timeline = timeline, .report = report};
    SCOPED(WalLedger) ledger = wal_ledger_open(archive, true, err);
    const bool walked = ledger != NULL &&
                        wal_ledger_walk(ledger, &range, add_segment, &reindex, err) &&
                        store_log(&reindex, err);
    wal_log_index_builder_free(reindex.builder);
    if (walked)
        add_counts(&report->segments, wal_ledger_counts(ledger));
    return walked;
}

bool
wal_ledger_reindex(WalArchive *archive, WalReindexReport *report_io, CairnError *err)
{
    for (size_t i = 0; i < wal_archive_timeline_count(archive); i++) {
        const WalTimeline *timeline = wal_archive_timeline(archive, i);
        /* Whose WAL it is nobody knows without its history. */
        if (timeline->history != NULL && timeline->run_count > 0 &&
            !reindex_timeline(archive, timeline, report_io, err))
            return false;
    }
    return true;
}
