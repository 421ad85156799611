/*
 * Fuzzes the WAL reader. The input is a run of pages from a segment start on; two bytes in front
 * choose the major version and where reading starts. Page headers are repaired (not always), and
 * CRCs are computed anew for records within one page, so that mutations get past the checks to the
 * code behind them.
 */
#include "common/bytes.h"
#include "common/digest.h"
#include "postgres/wal_name.h"
#include "postgres/wal_page.h"
#include "postgres/wal_reader.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEGMENT_SIZE = 1 << 20, REPAIR = 0x80, SEEK = 0x40 };

static const uint64_t base = UINT64_C(0x300000000);
static const uint64_t system_id = UINT64_C(7301234567890123456);

typedef struct {
    const uint8_t *data;
    size_t size;
    int major;
    bool repair;
} Input;

static void
repair_header(const Input *input, uint64_t lsn, uint8_t *page)
{
    const bool is_long = lsn % SEGMENT_SIZE == 0;
    const uint16_t flags = get_u16(page + 2) & (WAL_PAGE_CONTINUES | WAL_PAGE_OVERWRITE);

    put_u16(page, wal_magic_of_major(input->major));
    put_u16(page + 2, (uint16_t)(flags | (is_long ? WAL_PAGE_LONG : 0)));
    put_u32(page + 4, 1);
    put_u64(page + 8, lsn);
    if (is_long) {
        put_u64(page + 24, system_id);
        put_u32(page + 32, SEGMENT_SIZE);
        put_u32(page + 36, WAL_PAGE_SIZE);
    }
}

/* Seals and links the records that follow each other within the page, from its data on. */
static void
repair_records(uint64_t lsn, uint8_t *page)
{
    size_t at = lsn % SEGMENT_SIZE == 0 ? WAL_LONG_HEADER_SIZE : WAL_SHORT_HEADER_SIZE;
    uint64_t previous_lsn = lsn - 64;

    if (get_u16(page + 2) & WAL_PAGE_CONTINUES)
        return;
    while (at + 24 <= WAL_PAGE_SIZE) {
        const uint32_t total = get_u32(page + at);
        if (total < 24 || total > WAL_PAGE_SIZE - at)
            return;
        if (lsn == base)
            put_u64(page + at + 8, previous_lsn);
        put_u32(page + at + 20, crc32c(crc32c(0, page + at + 24, total - 24), page + at, 20));
        previous_lsn = lsn + at;
        at = (at + total + 7) & ~(size_t)7;
    }
}

static bool
input_page(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out, CairnError *err)
{
    const Input *input = context;
    const uint64_t offset = lsn - base;

    (void)err;
    *present_out = lsn >= base && offset < input->size;
    if (!*present_out)
        return true;
    const size_t left = input->size - (size_t)offset;
    memset(page, 0, WAL_PAGE_SIZE);
    memcpy(page, input->data + offset, left < WAL_PAGE_SIZE ? left : WAL_PAGE_SIZE);
    if (input->repair) {
        repair_header(input, lsn, page);
        repair_records(lsn, page);
    }
    return true;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    Input input = {
        .data = data + 2,
        .size = size - 2,
        .major = POSTGRES_MAJOR_MIN + data[0] % 4,
        .repair = (data[0] & REPAIR) != 0,
    };
    const bool seek = (data[0] & SEEK) != 0;
    CairnError err = {0};
    WalRecord record;
    bool found = true;
    uint64_t end_lsn = base;

    SCOPED(WalReader)
    reader = wal_reader_new(input_page, &input, input.major, SEGMENT_SIZE, system_id,
                            base + (seek ? data[1] * UINT64_C(40) : 0), seek, &err);
    CAIRN_ASSERT(reader != NULL);
    while (found) {
        CAIRN_ASSERT(wal_reader_next(reader, &record, &found, &err));
        if (!found)
            break;
        CAIRN_ASSERT(record.start_lsn >= end_lsn);
        CAIRN_ASSERT(record.end_lsn >= record.start_lsn + record.total_size);
        CAIRN_ASSERT(record.end_lsn == wal_reader_end_lsn(reader));
        CAIRN_ASSERT(memchr(record.restore_point, 0, sizeof record.restore_point) != NULL);
        end_lsn = record.end_lsn;
    }
    CAIRN_ASSERT(wal_reader_end_reason(reader)[0] != '\0');
    return 0;
}
