/*
 * Commits and aborts near a time. The ledger's spans say which segments to read; those are read
 * record by record.
 */
#include "restore/targets_intern.h"

#include "common/cancel.h"
#include "common/log.h"

#include <stdlib.h>

enum {
    RECORDS_PER_CHECK = 65536,
    XID_SLOTS = 1 << 16,
    XID_SLOTS_USED = XID_SLOTS / 4 * 3,
    COUNT_LIMIT = 200,
};

/* Spans of one segment, as far as choosing needs them. */
typedef struct {
    uint64_t start_lsn;
    uint64_t end_count; /* transactions that ended in it */
    int64_t min_us, max_us;
} Span;

typedef struct {
    Span *spans;
    size_t count;
    size_t capacity;
} SpanList;

static void
span_list_free(SpanList *list)
{
    free(list->spans);
}

static void
widen(Span *span, const WalTransactionSpan *ends)
{
    if (ends->count == 0)
        return;
    if (span->end_count == 0 || ends->min_time_us < span->min_us)
        span->min_us = ends->min_time_us;
    if (span->end_count == 0 || ends->max_time_us > span->max_us)
        span->max_us = ends->max_time_us;
    span->end_count += ends->count;
}

static bool
add_span(void *context, const WalLedgerSegment *segment, bool *stop_io, CairnError *err)
{
    SpanList *list = context;
    (void)stop_io;
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity == 0 ? 1024 : list->capacity * 2;
        Span *spans = reallocarray(list->spans, capacity, sizeof *spans);
        if (spans == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        list->spans = spans;
        list->capacity = capacity;
    }
    Span *span = &list->spans[list->count++];
    *span = (Span){.start_lsn = segment->facts->start_lsn};
    widen(span, &segment->facts->commits);
    widen(span, &segment->facts->aborts);
    return true;
}

/*
 * Segments from *first_out up to *end_out hold `count` ends on either side of the time. Times rise
 * but for the moments between taking one and writing it, so the segments around the change of side
 * have them.
 */
static void
choose_segments(const SpanList *list, int64_t time_us, size_t count, size_t *first_out,
                size_t *end_out)
{
    size_t first = list->count;
    size_t end = 0;
    for (size_t i = 0; i < list->count; i++) {
        const Span *span = &list->spans[i];
        if (span->end_count > 0 && span->max_us >= time_us && first == list->count)
            first = i;
        if (span->end_count > 0 && span->min_us < time_us)
            end = i + 1;
    }
    /* All ends before `first` are earlier than the time, all from `end` on are not. */
    uint64_t before = 0;
    uint64_t after = 0;
    while (first > 0 && before < count)
        before += list->spans[--first].end_count;
    while (end < list->count && after < count)
        after += list->spans[end++].end_count;
    *first_out = first;
    *end_out = end;
}

/* What each transaction wrote, as far as it was read: the mass update stands out. */
typedef struct {
    uint32_t xid;
    uint64_t records, bytes;
} XidWork;

typedef struct {
    XidWork *slots; /* open addressing; xid 0: free */
    size_t used;
} XidTable;

static void
xid_table_free(XidTable *table)
{
    free(table->slots);
}

static XidWork *
xid_slot(const XidTable *table, uint32_t xid)
{
    size_t at = (xid * UINT32_C(2654435761)) % XID_SLOTS;
    while (table->slots[at].xid != 0 && table->slots[at].xid != xid)
        at = (at + 1) % XID_SLOTS;
    return &table->slots[at];
}

static void
count_work(XidTable *table, const WalRecord *record)
{
    if (record->xid == 0)
        return;
    XidWork *work = xid_slot(table, record->xid);
    if (work->xid == 0) {
        if (table->used == XID_SLOTS_USED)
            return; /* later ones are not counted: it is a hint only */
        table->used++;
        work->xid = record->xid;
    }
    work->records++;
    work->bytes += record->total_size;
}

typedef struct {
    TargetsSearch *search;
    int64_t time_us;
    size_t count;
    Moment *before; /* ring of the last ones */
    size_t before_total;
    Moment *after;
    size_t after_count;
    XidTable work;
} Around;

static void
take_end(Around *around, const WalRecord *record)
{
    const XidWork *work = xid_slot(&around->work, record->transaction_xid);
    const Moment moment = {
        .kind = record->kind == WAL_RECORD_COMMIT ? MOMENT_COMMIT : MOMENT_ABORT,
        .lsn = record->start_lsn,
        .time_us = record->time_us,
        .xid = record->transaction_xid,
        .what = "",
        .why_not = "",
        .record_count = work->records,
        .record_bytes = work->bytes,
    };
    if (record->time_us < around->time_us)
        around->before[around->before_total++ % around->count] = moment;
    else if (around->after_count < around->count)
        around->after[around->after_count++] = moment;
}

static bool
read_ends(Around *around, uint64_t from_lsn, uint64_t to_lsn, CairnError *err)
{
    TargetsSearch *search = around->search;
    SCOPED(WalArchiveReader)
    reader = wal_archive_read(search->archive, search->path, from_lsn, true, err);
    if (reader == NULL)
        return false;
    for (size_t n = 1;; n++) {
        WalRecord record;
        bool found;
        if (!wal_reader_next(wal_archive_reader_records(reader), &record, &found, err) ||
            (n % RECORDS_PER_CHECK == 0 && !cancel_check(err)))
            return false;
        if (!found || record.start_lsn >= to_lsn)
            return true;
        count_work(&around->work, &record);
        if (record.kind == WAL_RECORD_COMMIT || record.kind == WAL_RECORD_ABORT)
            take_end(around, &record);
    }
}

static bool
read_segments(Around *around, const SpanList *list, CairnError *err)
{
    TargetsSearch *search = around->search;
    Targets *result = search->result;
    const uint32_t segment_size = result->incarnation.wal_segment_size;
    size_t first;
    size_t end;

    choose_segments(list, around->time_us, around->count, &first, &end);
    if (first >= end)
        return true;
    result->from_lsn = list->spans[first].start_lsn;
    result->to_lsn = list->spans[end - 1].start_lsn + segment_size;
    /* A reader stops where a segment is missing: begin again behind each hole. */
    for (size_t i = first; i < end;) {
        const uint64_t from_lsn = list->spans[i].start_lsn;
        uint64_t to_lsn = from_lsn + segment_size;
        while (++i < end && list->spans[i].start_lsn == to_lsn)
            to_lsn += segment_size;
        if (!read_ends(around, from_lsn, to_lsn, err)) {
            if (err->kind != CAIRN_CORRUPT)
                return false;
            log_warn("some transactions are not shown: %s", err->message);
            cairn_error_clear(err);
        }
    }
    const size_t before =
        around->before_total < around->count ? around->before_total : around->count;
    for (size_t i = 0; i < before + around->after_count; i++) {
        Moment *moment = targets_add(search);
        CAIRN_ASSERT(moment != NULL);
        *moment = i < before ? around->before[i] : around->after[i - before];
    }
    targets_sort(result);
    return true;
}

bool
targets_search_around(TargetsSearch *search, CairnError *err)
{
    Targets *result = search->result;
    __attribute__((cleanup(span_list_free))) SpanList list = {0};
    const uint64_t from_lsn =
        search->candidates.backups[search->candidates.count - 1]->fate->start_lsn;
    const WalLedgerRange range = {
        .path = search->path, .from_lsn = from_lsn, .to_lsn = UINT64_MAX, .with_unfinished = true};
    if (!wal_ledger_walk(search->ledger, &range, add_span, &list, err))
        return false;

    const size_t count =
        search->options->count < COUNT_LIMIT ? search->options->count : COUNT_LIMIT;
    Around around = {.search = search, .time_us = search->options->time_us, .count = count};
    around.before = arena_alloc(result->arena, (count + 1) * sizeof *around.before);
    around.after = arena_alloc(result->arena, (count + 1) * sizeof *around.after);
    __attribute__((cleanup(xid_table_free)))
    XidTable table = {.slots = calloc(XID_SLOTS, sizeof *table.slots)};
    if (table.slots == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    around.work = table;
    if (!read_segments(&around, &list, err))
        return false;
    if (result->count == 0) {
        cairn_error(err, CAIRN_NOT_FOUND, "no transaction ended in the WAL that is stored");
        return cairn_error_hint(err, "`pgcairn targets` shows what can be reached");
    }
    return true;
}
