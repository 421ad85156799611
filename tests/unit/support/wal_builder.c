#include "tests/unit/support/wal_builder.h"

#include "common/bytes.h"
#include "common/digest.h"
#include "common/timestamp.h"
#include "postgres/wal_name.h"
#include "postgres/wal_page.h"

#include <stdlib.h>
#include <string.h>

enum { RECORD_HEADER = 24, RMGR_HEAP = 10 };

void
wal_builder_init(WalBuilder *builder, int major, uint32_t segment_size, uint64_t base_lsn)
{
    *builder = (WalBuilder){
        .major = major,
        .segment_size = segment_size,
        .system_id = UINT64_C(7301234567890123456),
        .timeline = 1,
        .base_lsn = base_lsn,
        .next_lsn = base_lsn,
        .previous_lsn = base_lsn - 64,
    };
    CAIRN_ASSERT(base_lsn % segment_size == 0);
}

void
wal_builder_free(WalBuilder *builder)
{
    free(builder->data);
    builder->data = NULL;
}

uint8_t *
wal_builder_at(WalBuilder *builder, uint64_t lsn)
{
    CAIRN_ASSERT(lsn >= builder->base_lsn && lsn - builder->base_lsn < builder->size);
    return builder->data + (lsn - builder->base_lsn);
}

/* Makes room up to the end of the page that holds lsn. */
static void
reach(WalBuilder *builder, uint64_t lsn)
{
    const size_t needed = (size_t)((lsn - builder->base_lsn) / WAL_PAGE_SIZE + 1) * WAL_PAGE_SIZE;

    if (needed <= builder->size)
        return;
    if (needed > builder->capacity) {
        builder->capacity = needed * 2;
        builder->data = realloc(builder->data, builder->capacity);
        CAIRN_ASSERT(builder->data != NULL);
    }
    memset(builder->data + builder->size, 0, needed - builder->size);
    builder->size = needed;
}

/* Writes the header of the page that begins at next_lsn. */
static void
begin_page(WalBuilder *builder, uint16_t flags, uint32_t remaining)
{
    const bool is_long = builder->next_lsn % builder->segment_size == 0;

    reach(builder, builder->next_lsn);
    uint8_t *page = wal_builder_at(builder, builder->next_lsn);
    put_u16(page, wal_magic_of_major(builder->major));
    put_u16(page + 2, (uint16_t)(flags | (is_long ? WAL_PAGE_LONG : 0)));
    put_u32(page + 4, builder->timeline);
    put_u64(page + 8, builder->next_lsn);
    put_u32(page + 16, remaining);
    if (is_long) {
        put_u64(page + 24, builder->system_id);
        put_u32(page + 32, builder->segment_size);
        put_u32(page + 36, WAL_PAGE_SIZE);
    }
    builder->next_lsn += is_long ? WAL_LONG_HEADER_SIZE : WAL_SHORT_HEADER_SIZE;
}

/* Places the record's bytes, with page headers between, and moves to where the next may begin. */
static void
emit(WalBuilder *builder, const uint8_t *record, size_t size)
{
    for (size_t done = 0; done < size;) {
        if (builder->next_lsn % WAL_PAGE_SIZE == 0)
            begin_page(builder, WAL_PAGE_CONTINUES, (uint32_t)(size - done));
        const size_t room = WAL_PAGE_SIZE - builder->next_lsn % WAL_PAGE_SIZE;
        const size_t piece = size - done < room ? size - done : room;

        memcpy(wal_builder_at(builder, builder->next_lsn), record + done, piece);
        done += piece;
        builder->next_lsn += piece;
    }
    builder->next_lsn = (builder->next_lsn + 7) & ~UINT64_C(7);
}

static uint32_t
record_crc(const uint8_t *record, size_t size)
{
    return crc32c(crc32c(0, record + RECORD_HEADER, size - RECORD_HEADER), record, 20);
}

uint64_t
wal_builder_raw(WalBuilder *builder, uint8_t resource_manager, uint8_t info, uint32_t xid,
                const void *body, size_t size)
{
    const size_t total = RECORD_HEADER + size;
    uint8_t *record = calloc(1, total);

    CAIRN_ASSERT(record != NULL);
    put_u32(record, (uint32_t)total);
    put_u32(record + 4, xid);
    put_u64(record + 8, builder->previous_lsn);
    record[16] = info;
    record[17] = resource_manager;
    if (size > 0)
        memcpy(record + RECORD_HEADER, body, size);
    put_u32(record + 20, record_crc(record, total));

    if (builder->next_lsn % WAL_PAGE_SIZE == 0)
        begin_page(builder, 0, 0);
    const uint64_t start_lsn = builder->next_lsn;
    emit(builder, record, total);
    free(record);
    builder->previous_lsn = start_lsn;
    return start_lsn;
}

uint64_t
wal_builder_add(WalBuilder *builder, uint8_t resource_manager, uint8_t info, uint32_t xid,
                const void *main_data, size_t size)
{
    uint8_t *body = malloc(size + 5);
    size_t header_size = 0;

    CAIRN_ASSERT(body != NULL);
    if (size > 255) {
        body[0] = 254;
        put_u32(body + 1, (uint32_t)size);
        header_size = 5;
    } else if (size > 0) {
        body[0] = 255;
        body[1] = (uint8_t)size;
        header_size = 2;
    }
    if (size > 0)
        memcpy(body + header_size, main_data, size);
    const uint64_t lsn =
        wal_builder_raw(builder, resource_manager, info, xid, body, header_size + size);
    free(body);
    return lsn;
}

uint64_t
wal_builder_filler(WalBuilder *builder, uint32_t total_size)
{
    const size_t size = total_size - RECORD_HEADER;
    uint8_t *body = malloc(size + 1);

    CAIRN_ASSERT(body != NULL);
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(i * 31 + total_size);
    /* All of it is main data. */
    if (size >= 2 && size - 2 <= UINT8_MAX) {
        body[0] = 255;
        body[1] = (uint8_t)(size - 2);
    } else if (size > 2) {
        body[0] = 254;
        put_u32(body + 1, (uint32_t)(size - 5));
    }
    const uint64_t lsn = wal_builder_raw(builder, RMGR_HEAP, 0, 700, body, size);
    free(body);
    return lsn;
}

/* Free bytes of the page that the next record begins on. */
static uint32_t
page_room(const WalBuilder *builder)
{
    const uint64_t lsn = builder->next_lsn;

    if (lsn % WAL_PAGE_SIZE != 0)
        return WAL_PAGE_SIZE - (uint32_t)(lsn % WAL_PAGE_SIZE);
    return WAL_PAGE_SIZE -
           (lsn % builder->segment_size == 0 ? WAL_LONG_HEADER_SIZE : WAL_SHORT_HEADER_SIZE);
}

void
wal_builder_fill_page(WalBuilder *builder, uint32_t left)
{
    CAIRN_ASSERT(left % 8 == 0);
    if (page_room(builder) < left + 32)
        wal_builder_filler(builder, left + 64);
    wal_builder_filler(builder, page_room(builder) - left);
}

uint64_t
wal_builder_commit(WalBuilder *builder, uint32_t xid, int64_t time_us)
{
    uint8_t time[8];

    put_u64(time, (uint64_t)(time_us - POSTGRES_EPOCH_US));
    return wal_builder_add(builder, 1, 0x00, xid, time, sizeof time);
}

uint64_t
wal_builder_restore_point(WalBuilder *builder, int64_t time_us, const char *name)
{
    uint8_t data[72] = {0};

    put_u64(data, (uint64_t)(time_us - POSTGRES_EPOCH_US));
    memcpy(data + 8, name, strnlen(name, 64));
    return wal_builder_add(builder, 0, 0x70, 0, data, sizeof data);
}

uint64_t
wal_builder_switch(WalBuilder *builder)
{
    const uint64_t lsn = wal_builder_raw(builder, 0, 0x40, 0, NULL, 0);
    const uint64_t segment_size = builder->segment_size;

    builder->next_lsn = (builder->next_lsn + segment_size - 1) / segment_size * segment_size;
    reach(builder, builder->next_lsn - 1);
    return lsn;
}

uint64_t
wal_builder_interrupt(WalBuilder *builder)
{
    const uint64_t previous_lsn = builder->previous_lsn;

    wal_builder_fill_page(builder, 512);
    const uint64_t before_lsn = builder->previous_lsn;
    const uint64_t lsn = wal_builder_filler(builder, WAL_PAGE_SIZE);
    CAIRN_ASSERT(before_lsn != previous_lsn);

    /* The crash: the second page was never written, and recovery ended before the record. */
    builder->next_lsn -= builder->next_lsn % WAL_PAGE_SIZE;
    memset(wal_builder_at(builder, builder->next_lsn), 0, WAL_PAGE_SIZE);
    builder->previous_lsn = before_lsn;
    begin_page(builder, WAL_PAGE_OVERWRITE, 0);
    return lsn;
}

uint64_t
wal_builder_declare_void(WalBuilder *builder, uint64_t void_lsn)
{
    uint8_t data[16] = {0};

    put_u64(data, void_lsn);
    return wal_builder_add(builder, 0, 0xD0, 0, data, sizeof data);
}

void
wal_builder_seal(WalBuilder *builder, uint64_t lsn)
{
    uint8_t *record = wal_builder_at(builder, lsn);

    put_u32(record + 20, record_crc(record, get_u32(record)));
}

bool
wal_builder_source(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out,
                   CairnError *err)
{
    const WalBuilder *builder = context;

    (void)err;
    *present_out = lsn >= builder->base_lsn && lsn - builder->base_lsn < builder->size;
    if (*present_out)
        memcpy(page, builder->data + (lsn - builder->base_lsn), WAL_PAGE_SIZE);
    return true;
}
