/*
 * DROP DATABASE. Its files go before it commits, so the moment before it is not before the commit.
 * First of all, though, it marks the database as invalid (a change of its row in pg_database that
 * cannot be undone, from 15.4 on): what is restored between the two has the files and lets nobody
 * in. So the moment is before the first thing that DROP DATABASE wrote.
 */
#include "restore/targets_intern.h"

#include "common/cancel.h"
#include "common/log.h"
#include "postgres/wal_page.h"

enum {
    RMGR_HEAP = 10,
    HEAP_MASK = 0x70,
    HEAP_INPLACE = 0x70,
    TABLESPACE_GLOBAL = 1664,
    RECORD_HEADER_SIZE = 24,
    BLOCK_HEADER_LIMIT = 23, /* id, flags, length, the largest image header, relation, block */
    BLOCK_HAS_IMAGE = 0x10,
    IMAGE_HAS_HOLE = 0x01,
    IMAGE_COMPRESSED = 0x04 | 0x08 | 0x10,
    BACK_SEGMENTS_LIMIT = 64,
};

/* Whether the first block that a record changes is of a shared relation. One whose header is cut by
 * a page's end is taken for such: the moment is a little earlier then, and right. */
static bool
changes_shared(TargetsSearch *search, const WalRecord *record, bool *shared_out, CairnError *err)
{
    const uint32_t segment_size = search->result->incarnation.wal_segment_size;
    const uint64_t at = record->start_lsn + RECORD_HEADER_SIZE;
    uint8_t header[BLOCK_HEADER_LIMIT];
    uint64_t number;
    uint32_t timeline;

    *shared_out = true;
    if (record->start_lsn % WAL_PAGE_SIZE + RECORD_HEADER_SIZE + sizeof header > WAL_PAGE_SIZE ||
        !wal_archive_next_segment(search->archive, search->path,
                                  wal_segment_of(record->start_lsn, segment_size), &number,
                                  &timeline))
        return true;
    SCOPED(WalSegmentReader)
    segment = wal_store_read(wal_archive_store(search->archive), timeline, number, err);
    if (segment == NULL ||
        !wal_segment_reader_pread(segment, header, sizeof header, at % segment_size, err))
        return false;
    size_t relation = 4;
    if (header[1] & BLOCK_HAS_IMAGE) {
        const uint8_t info = header[8];
        relation += (info & IMAGE_COMPRESSED) && (info & IMAGE_HAS_HOLE) ? 7 : 5;
    }
    *shared_out = get_u32(header + relation) == TABLESPACE_GLOBAL;
    return true;
}

typedef struct {
    uint64_t first_lsn; /* of the transaction's records; 0: none */
    uint64_t mark_lsn;  /* of the last change in place of a shared catalogue; 0: none */
} DropTraces;

static bool
find_traces(TargetsSearch *search, uint64_t from_lsn, uint64_t lsn, uint32_t xid,
            DropTraces *traces, CairnError *err)
{
    SCOPED(WalArchiveReader)
    reader = wal_archive_read(search->archive, search->path, from_lsn, true, err);
    if (reader == NULL)
        return false;
    for (;;) {
        WalRecord record;
        bool found;
        if (!wal_reader_next(wal_archive_reader_records(reader), &record, &found, err))
            return false;
        if (!found || record.start_lsn >= lsn)
            return true;
        if (record.xid == xid && xid != 0 && traces->first_lsn == 0)
            traces->first_lsn = record.start_lsn;
        if (record.resource_manager == RMGR_HEAP && (record.info & HEAP_MASK) == HEAP_INPLACE &&
            (record.xid == 0 || record.xid == xid)) {
            bool shared;
            if (!changes_shared(search, &record, &shared, err))
                return false;
            if (shared)
                traces->mark_lsn = record.start_lsn;
        }
    }
}

bool
targets_before_database_drop(TargetsSearch *search, uint64_t lsn, uint32_t xid,
                             uint64_t *before_out, CairnError *err)
{
    const uint32_t segment_size = search->result->incarnation.wal_segment_size;
    const uint64_t segment = wal_segment_of(lsn, segment_size);
    DropTraces traces = {0};

    /* Between the mark and the removal lies a checkpoint: a moment, or many segments. */
    for (uint64_t back = 1; traces.mark_lsn == 0 && back <= BACK_SEGMENTS_LIMIT; back *= 4) {
        const uint64_t first = segment > back ? segment - back : 1;
        uint64_t number;
        uint32_t timeline;
        if (!cancel_check(err))
            return false;
        if (!wal_archive_next_segment(search->archive, search->path, first, &number, &timeline))
            break;
        traces = (DropTraces){0};
        if (!find_traces(search, number * segment_size, lsn, xid, &traces, err)) {
            if (err->kind != CAIRN_CORRUPT)
                return false;
            log_warn("where DROP DATABASE began is not known: %s", err->message);
            cairn_error_clear(err);
            break;
        }
    }
    *before_out = lsn;
    if (traces.first_lsn != 0 && traces.first_lsn < *before_out)
        *before_out = traces.first_lsn;
    if (traces.mark_lsn != 0 && traces.mark_lsn < *before_out)
        *before_out = traces.mark_lsn;
    return true;
}

typedef struct {
    TargetsSearch *search;
    uint32_t oid;
    uint32_t last_xid;
} DropSearch;

static bool
see_segment(void *context, const WalLedgerSegment *segment, bool *stop_io, CairnError *err)
{
    DropSearch *drop = context;
    (void)stop_io;
    (void)err;
    for (size_t i = 0; i < segment->facts->event_count; i++) {
        const WalEvent *event = &segment->facts->events[i];
        /* One for each of its tablespaces: the first counts. */
        if (event->kind != WAL_EVENT_DATABASE_DROPPED || event->relation.database != drop->oid ||
            (drop->last_xid == event->xid && event->xid != 0))
            continue;
        drop->last_xid = event->xid;
        Moment *moment = targets_add(drop->search);
        if (moment == NULL)
            continue;
        moment->kind = MOMENT_DATABASE_DROPPED;
        moment->lsn = event->lsn;
        moment->time_us = event->time_us;
        moment->xid = event->xid;
        moment->database = drop->oid;
    }
    return true;
}

static bool
search_oid(TargetsSearch *search, uint32_t oid, uint64_t from_lsn, CairnError *err)
{
    DropSearch drop = {.search = search, .oid = oid};
    const WalLedgerRange range = {
        .path = search->path, .from_lsn = from_lsn, .to_lsn = UINT64_MAX, .with_unfinished = true};
    search->result->from_lsn = from_lsn;
    return wal_ledger_walk(search->ledger, &range, see_segment, &drop, err);
}

/* Newest names first; ids are not used again, so each is looked for once. */
static bool
search_name(TargetsSearch *search, bool *known_out, CairnError *err)
{
    uint32_t last = 0;
    for (size_t i = 0; i < search->candidates.count && search->result->count == 0; i++) {
        const Fate *backup = search->candidates.backups[i]->fate;
        uint32_t oid = 0;
        if (!timeline_history_contains(search->path, backup->stop_timeline, backup->stop_lsn))
            continue;
        SCOPED(Names)
        names = names_open(search->repository, search->options->cluster, backup, err);
        if (names == NULL && err->kind != CAIRN_OK)
            return false;
        if (names == NULL)
            continue;
        if (!names_database(names, search->options->database, &oid, err))
            return false;
        *known_out |= oid != 0;
        if (oid != 0 && oid != last && !search_oid(search, oid, names_lsn(names), err))
            return false;
        last = oid;
    }
    return true;
}

bool
targets_search_database(TargetsSearch *search, CairnError *err)
{
    Targets *result = search->result;
    bool known = false;

    if (!search_name(search, &known, err))
        return false;
    for (size_t i = 0; i < result->count; i++) {
        Moment *moment = &result->moments[i];
        moment->what = arena_strdup(result->arena, search->options->database);
        if (!targets_before_database_drop(search, moment->lsn, moment->xid, &moment->lsn, err))
            return false;
    }
    if (result->count > 0)
        return true;
    char searched[TARGETS_SEARCHED_SIZE];
    targets_searched(search, searched);
    if (known)
        cairn_error(err, CAIRN_NOT_FOUND, "database '%.80s' was not dropped in the WAL %s",
                    search->options->database, searched);
    else
        cairn_error(err, CAIRN_NOT_FOUND, "no backup on this timeline knows a database '%.80s'",
                    search->options->database);
    return cairn_error_hint(err, "`pgcairn targets` shows what can be reached");
}
