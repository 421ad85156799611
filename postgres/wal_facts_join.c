/* The record that begins in one segment and ends in the next. */
#include "common/bytes.h"
#include "common/digest.h"
#include "postgres/wal_facts.h"
#include "postgres/wal_facts_builder.h"
#include "postgres/wal_record.h"

#include <stdlib.h>
#include <string.h>

enum { CRC_OFFSET = 20 };

/* Its first bytes, as many as are kept of it in a row. */
typedef struct {
    uint8_t *data; /* NULL: the two segments do not fit together */
    size_t size;
    size_t total_size;
} Crossing;

static bool
assemble(const WalFacts *earlier, const WalFacts *later, Crossing *crossing_out, CairnError *err)
{
    const WalEdge *tail = &earlier->tail;
    const WalEdge *head = &later->head;
    const bool in_a_row = tail->size == tail->segment_size;
    const size_t size = (size_t)tail->size + (in_a_row ? head->size : 0);

    *crossing_out = (Crossing){0};
    if (tail->size > tail->segment_size || head->size > head->segment_size ||
        (uint64_t)tail->segment_size + head->total_size != tail->total_size)
        return true;
    uint8_t *data = malloc(size + 1);
    if (data == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory for a WAL record");
    memcpy(data, tail->data, tail->size);
    if (in_a_row && head->size > 0)
        memcpy(data + tail->size, head->data, head->size);
    *crossing_out = (Crossing){.data = data, .size = size, .total_size = tail->total_size};
    return true;
}

/* Of a record that is not all here the CRC cannot be known; that its rest fits must do. */
static bool
decode(const WalFacts *earlier, const Crossing *crossing, WalRecord *record_out)
{
    const uint8_t *data = crossing->data;
    const uint8_t *body = data + WAL_RECORD_HEADER_SIZE;

    if (crossing->size < WAL_RECORD_HEADER_SIZE || get_u32(data) != crossing->total_size)
        return false;
    const size_t body_size = crossing->size - WAL_RECORD_HEADER_SIZE;
    const bool whole = crossing->size == crossing->total_size;
    if (whole && crc32c(crc32c(0, body, body_size), data, CRC_OFFSET) != get_u32(data + CRC_OFFSET))
        return false;

    *record_out = (WalRecord){
        .start_lsn = earlier->tail_lsn,
        .previous_lsn = get_u64(data + 8),
        .total_size = (uint32_t)crossing->total_size,
        .xid = get_u32(data + 4),
        .resource_manager = data[17],
        .info = data[16],
    };
    if (!wal_record_is_wanted(record_out->resource_manager, record_out->info))
        return true;
    return whole && wal_record_decode(earlier->major, body, body_size, record_out);
}

/* Where the record ends in the later segment, as wal_reader tells it. */
static uint64_t
end_of_head(const WalFacts *later)
{
    const uint64_t first_room = WAL_PAGE_SIZE - WAL_LONG_HEADER_SIZE;
    const uint64_t room = WAL_PAGE_SIZE - WAL_SHORT_HEADER_SIZE;
    const uint64_t size = later->head.total_size;
    uint64_t offset = WAL_LONG_HEADER_SIZE + size;

    if (size > first_room) {
        const uint64_t pages = (size - first_room + room - 1) / room;
        offset += pages * WAL_SHORT_HEADER_SIZE;
    }
    return later->start_lsn + ((offset + 7) & ~UINT64_C(7));
}

/* Makes facts anew of what `earlier` lists and one record more. */
static bool
add_record(WalFacts *earlier, const WalFacts *later, const Crossing *crossing, bool *added_out,
           CairnError *err)
{
    WalRecord record;

    if (!decode(earlier, crossing, &record))
        return true;
    SCOPED(WalFactsBuilder) builder = wal_facts_builder_new(earlier->major, err);
    if (builder == NULL)
        return false;
    record.end_lsn = end_of_head(later);
    if (record.kind == WAL_RECORD_SWITCH) /* as wal_reader: the rest of the segment is empty */
        record.end_lsn = later->start_lsn + later->segment_size;
    wal_facts_builder_resume(builder, earlier);
    if (!wal_facts_builder_add(builder, &record, crossing->data + WAL_RECORD_HEADER_SIZE,
                               crossing->size - WAL_RECORD_HEADER_SIZE))
        return true;

    SCOPED(WalFacts) grown = calloc(1, sizeof *grown);
    if (grown == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory for a segment's facts");
    *grown = (WalFacts){
        .major = earlier->major,
        .segment_size = earlier->segment_size,
        .start_lsn = earlier->start_lsn,
        .flags = earlier->flags,
        .end_lsn = record.end_lsn,
        .tail_lsn = earlier->tail_lsn,
        .tail = earlier->tail,
        .head = earlier->head,
    };
    /* The edges change hands with the rest. */
    earlier->head.data = NULL;
    earlier->tail.data = NULL;
    const bool finished = wal_facts_builder_finish(builder, grown, err);
    const WalFacts old = *earlier;
    *earlier = *grown;
    *grown = old;
    *added_out = finished;
    return finished;
}

bool
wal_facts_join(WalFacts *earlier, const WalFacts *later, bool *joined_out, CairnError *err)
{
    Crossing crossing;
    bool added = false;

    *joined_out = false;
    if (later->start_lsn != earlier->start_lsn + earlier->segment_size ||
        (earlier->flags & WAL_FACTS_ENDED_EARLY) != 0)
        return true;
    if (earlier->tail_lsn == 0 || (earlier->flags & WAL_FACTS_JOINED) != 0 ||
        (later->flags & WAL_FACTS_HEAD_VOID) != 0) {
        earlier->flags |= WAL_FACTS_JOINED;
        *joined_out = true;
        return true;
    }
    if (!assemble(earlier, later, &crossing, err))
        return false;
    const bool fine = crossing.data == NULL || add_record(earlier, later, &crossing, &added, err);
    free(crossing.data);
    if (added)
        earlier->flags |= WAL_FACTS_JOINED;
    *joined_out = added;
    return fine;
}
