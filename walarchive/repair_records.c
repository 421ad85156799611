#include "walarchive/repair_records.h"

#include "common/file.h"

#include <inttypes.h>

enum { PAGE_SIZE_BYTES = 8192 };

typedef struct {
    const World *world;
    WalStore *store;
    const WalMissing *missing;
    int fd;
    uint32_t segment_size;
    WalSegmentReader *neighbour;
    uint64_t neighbour_number;
    bool asked_inside;  /* pages of the candidate were read */
    bool asked_behind;  /* so all of it was */
    bool behind_stored; /* and the segment after it is there */
} Candidate;

static bool
neighbour_page(Candidate *candidate, uint64_t number, uint64_t offset, uint8_t page[8192],
               bool *present_out, CairnError *err)
{
    const uint64_t last_byte = (number + 1) * candidate->segment_size - 1;

    if (candidate->neighbour == NULL || candidate->neighbour_number != number) {
        wal_segment_reader_free(take(&candidate->neighbour));
        candidate->neighbour =
            wal_store_read(candidate->store,
                           timeline_history_at(candidate->missing->path, last_byte), number, err);
        candidate->neighbour_number = number;
    }
    *present_out = candidate->neighbour != NULL;
    if (candidate->neighbour == NULL) {
        if (err->kind != CAIRN_NOT_FOUND)
            return false;
        cairn_error_clear(err);
        return true;
    }
    return wal_segment_reader_pread(candidate->neighbour, page, PAGE_SIZE_BYTES, offset, err);
}

/* WalPageSource over the candidate and the segments beside it. */
static bool
candidate_page(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out, CairnError *err)
{
    Candidate *candidate = context;
    const uint64_t number = lsn / candidate->segment_size;
    const uint64_t offset = lsn % candidate->segment_size;

    if (number == candidate->missing->segment) {
        candidate->asked_inside = true;
        *present_out = true;
        return file_pread(candidate->world, candidate->fd, page, PAGE_SIZE_BYTES, offset,
                          "the segment", err);
    }
    if (!neighbour_page(candidate, number, offset, page, present_out, err))
        return false;
    if (number > candidate->missing->segment) {
        candidate->asked_behind = true;
        candidate->behind_stored = *present_out;
    }
    return true;
}

/* Reads from start_lsn on until a record begins behind the candidate, or WAL ends. */
static bool
read_through(Candidate *candidate, uint64_t start_lsn, bool *passed_out, CairnError *reason,
             CairnError *err)
{
    const Incarnation *incarnation = wal_store_incarnation(candidate->store);
    const uint64_t end_lsn = (candidate->missing->segment + 1) * candidate->segment_size;
    WalRecord record;
    bool found = true;

    SCOPED(WalReader)
    reader =
        wal_reader_new(candidate_page, candidate, incarnation->major, incarnation->wal_segment_size,
                       incarnation->system_id, start_lsn, true, err);
    if (reader == NULL)
        return false;
    while (found) {
        if (!wal_reader_next(reader, &record, &found, err))
            return false;
        if (found && record.start_lsn >= end_lsn)
            break;
    }
    *passed_out = found;
    if (!found) {
        char lsn[LSN_TEXT_SIZE];
        lsn_format(lsn, wal_reader_end_lsn(reader));
        cairn_error(reason, CAIRN_CORRUPT, "its records end at %s: %s", lsn,
                    wal_reader_end_reason(reader));
    }
    return true;
}

static bool
judge(Candidate *candidate, bool passed, const CairnError *reason, CairnError *err)
{
    /* Where nothing is stored behind it, reading on past its end is all that can be asked. */
    if (passed || (candidate->asked_behind && !candidate->behind_stored))
        return true;
    *err = *reason;
    return false;
}

static bool
check_candidate(Candidate *candidate, CairnError *err)
{
    const uint64_t start_lsn = candidate->missing->segment * candidate->segment_size;
    CairnError reason = {0};
    bool passed = false;

    /* From the segment before, so that a record that crosses over is proven too. */
    if (candidate->missing->segment > 1) {
        CairnError before = {0};
        if (!read_through(candidate, start_lsn - candidate->segment_size, &passed, &reason,
                          &before) &&
            candidate->asked_inside) {
            *err = before;
            return false;
        }
        if (candidate->asked_inside)
            return judge(candidate, passed, &reason, err);
    }
    /* Nothing is stored there, or it is damaged itself. */
    cairn_error_clear(&reason);
    return read_through(candidate, start_lsn, &passed, &reason, err) &&
           judge(candidate, passed, &reason, err);
}

bool
repair_records_check(const World *world, WalStore *store, const WalMissing *missing, int fd,
                     CairnError *err)
{
    Candidate candidate = {.world = world,
                           .store = store,
                           .missing = missing,
                           .fd = fd,
                           .segment_size = wal_store_incarnation(store)->wal_segment_size};
    const bool good = check_candidate(&candidate, err);

    wal_segment_reader_free(candidate.neighbour);
    return good;
}
