#include "common/bytes.h"
#include "postgres/page.h"
#include "postgres/wal_name.h"
#include "postgres/wal_reader_intern.h"

#include <stdarg.h>
#include <stdio.h>

enum { PAGE_ALL_FLAGS = 0x000F };

ReadOutcome
wal_reader_end_at(WalReader *reader, uint64_t lsn, const char *format, ...)
{
    char where[LSN_TEXT_SIZE];
    char what[160];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    lsn_format(where, lsn);
    snprintf(reader->end_reason, sizeof reader->end_reason, "at %s: %s", where, what);
    reader->ended = true;
    return READ_END;
}

static ReadOutcome
check_long_header(WalReader *reader, uint64_t lsn)
{
    const uint8_t *page = reader->page;

    if (get_u64(page + 24) != reader->system_id)
        return wal_reader_end_at(reader, lsn,
                                 "WAL page of another cluster (system identifier differs)");
    if (get_u32(page + 32) != reader->segment_size || get_u32(page + 36) != WAL_PAGE_SIZE) {
        return wal_reader_end_at(reader, lsn,
                                 "WAL page with another segment size (%u) or block size (%u)",
                                 get_u32(page + 32), get_u32(page + 36));
    }
    return READ_GOOD;
}

static ReadOutcome
check_page(WalReader *reader, uint64_t lsn)
{
    const uint8_t *page = reader->page;
    const uint16_t magic = get_u16(page);
    const bool first_of_segment = lsn % reader->segment_size == 0;
    const uint32_t timeline = get_u32(page + 4);

    if (magic == 0 && bytes_are_zero(page, WAL_PAGE_SIZE))
        return wal_reader_end_at(reader, lsn, "empty WAL page");
    if (magic != reader->magic)
        return wal_reader_end_at(reader, lsn, "WAL page magic is %04X, expected %04X", magic,
                                 reader->magic);
    if ((page_flags(reader) & ~PAGE_ALL_FLAGS) != 0 ||
        ((page_flags(reader) & WAL_PAGE_LONG) != 0) != first_of_segment) {
        return wal_reader_end_at(reader, lsn, "wrong WAL page flags %04X", page_flags(reader));
    }
    if (get_u64(page + 8) != lsn) {
        char address[LSN_TEXT_SIZE];
        lsn_format(address, get_u64(page + 8));
        return wal_reader_end_at(reader, lsn, "WAL page has address %s", address);
    }
    if (first_of_segment) {
        ReadOutcome outcome = check_long_header(reader, lsn);
        if (outcome != READ_GOOD)
            return outcome;
    }
    if (timeline == 0 || (lsn > reader->highest_page_lsn && timeline < reader->highest_timeline)) {
        return wal_reader_end_at(reader, lsn, "WAL page has timeline %u after timeline %u",
                                 timeline, reader->highest_timeline);
    }
    return READ_GOOD;
}

ReadOutcome
wal_reader_fetch_page(WalReader *reader, uint64_t lsn, CairnError *err)
{
    bool present = false;

    reader->page_lsn = NO_PAGE;
    if (!reader->source(reader->context, lsn, reader->page, &present, err))
        return READ_FAILED;
    if (!present)
        return wal_reader_end_at(reader, lsn, "no WAL there");
    ReadOutcome outcome = check_page(reader, lsn);
    if (outcome != READ_GOOD)
        return outcome;

    reader->page_lsn = lsn;
    if (lsn >= reader->highest_page_lsn) {
        reader->highest_page_lsn = lsn;
        reader->highest_timeline = get_u32(reader->page + 4);
    }
    return READ_GOOD;
}
