/*
 * Facts from both ends: any bytes as the facts of a stored segment, and facts collected from any
 * bytes as a segment's pages. What was read or collected can be written and reads the same again,
 * and joining two of any content stays within their bounds.
 */
#include "common/bytes.h"
#include "common/digest.h"
#include "postgres/wal_facts.h"
#include "postgres/wal_name.h"
#include "repository/wal_facts_format.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Stored facts are those of segments of 16 MiB, as the corpus has them; pages make small ones. */
enum { SEGMENT_SIZE = 1 << 20, STORED_SEGMENT_SIZE = 16 << 20, COLLECT = 0x80 };

static const uint64_t base = UINT64_C(0x300000000);
static const uint64_t system_id = UINT64_C(7301234567890123456);

typedef struct {
    const uint8_t *data;
    size_t size;
    int major;
} Input;

/* Headers and CRCs of records within a page are made right, so that what lies behind is reached. */
static void
repair(const Input *input, uint64_t lsn, uint8_t *page)
{
    const bool first = lsn % SEGMENT_SIZE == 0;
    const uint16_t kept = WAL_PAGE_CONTINUES | WAL_PAGE_OVERWRITE;
    uint64_t previous_lsn = base - 64;
    size_t at = first ? WAL_LONG_HEADER_SIZE : WAL_SHORT_HEADER_SIZE;

    put_u16(page, wal_magic_of_major(input->major));
    put_u16(page + 2, (uint16_t)((get_u16(page + 2) & kept) | (first ? WAL_PAGE_LONG : 0)));
    put_u32(page + 4, 1);
    put_u64(page + 8, lsn);
    if (first) {
        put_u64(page + 24, system_id);
        put_u32(page + 32, SEGMENT_SIZE);
        put_u32(page + 36, WAL_PAGE_SIZE);
    }
    if (get_u16(page + 2) & WAL_PAGE_CONTINUES)
        at += (get_u32(page + 16) + 7) & ~UINT32_C(7);
    while (at + 24 <= WAL_PAGE_SIZE) {
        const uint32_t total = get_u32(page + at);
        if (total < 24 || total > WAL_PAGE_SIZE - at)
            return;
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
    const size_t offset = (size_t)(lsn % SEGMENT_SIZE);

    (void)err;
    memset(page, 0, WAL_PAGE_SIZE);
    *present_out = true;
    if (offset >= input->size)
        return true;
    const size_t left = input->size - offset;
    memcpy(page, input->data + offset, left < WAL_PAGE_SIZE ? left : WAL_PAGE_SIZE);
    repair(input, lsn, page);
    return true;
}

static void
check(const WalFacts *facts)
{
    uint64_t previous_lsn = 0;

    CAIRN_ASSERT(facts->fork_count <= WAL_FACTS_FORK_LIMIT);
    CAIRN_ASSERT(facts->chunk_count <= WAL_FACTS_CHUNK_LIMIT);
    CAIRN_ASSERT(facts->head.size <= WAL_FACTS_EDGE_LIMIT);
    CAIRN_ASSERT(facts->tail.size <= WAL_FACTS_EDGE_LIMIT);
    CAIRN_ASSERT(facts->head.size <= facts->head.total_size);
    for (size_t i = 0; i < facts->event_count; i++) {
        const WalEvent *event = &facts->events[i];
        CAIRN_ASSERT(event->lsn >= previous_lsn && event->lsn > facts->start_lsn);
        CAIRN_ASSERT(event->lsn < facts->start_lsn + facts->segment_size);
        CAIRN_ASSERT(event->kind != WAL_EVENT_RESTORE_POINT ||
                     memchr(event->name, 0, sizeof event->name) != NULL);
        previous_lsn = event->lsn;
    }
    for (size_t i = 0; i < facts->fork_count; i++) {
        const WalForkChange *fork = &facts->forks[i];
        CAIRN_ASSERT((uint64_t)fork->first_chunk + fork->chunk_count <= facts->chunk_count);
        CAIRN_ASSERT(wal_facts_fork(facts, &fork->relation, fork->fork) == fork);
    }
}

/* Written, read and written again: the same bytes. */
static void
round_trip(const WalFacts *facts, const WalIdentity *identity)
{
    CairnError err = {0};
    SCOPED_BYTES ByteWriter first = {0};
    SCOPED_BYTES ByteWriter second = {0};

    check(facts);
    wal_facts_format(facts, &first);
    SCOPED(WalFacts) again = wal_facts_parse(first.data, first.size, identity, &err);
    CAIRN_ASSERT(again != NULL);
    check(again);
    wal_facts_format(again, &second);
    CAIRN_ASSERT(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
}

static WalFacts *
make_facts(const Input *input, bool collect, const WalIdentity *identity)
{
    CairnError err = {0};

    if (collect)
        return wal_facts_collect(input_page, (void *)(uintptr_t)input, identity, &err);
    WalFacts *facts = wal_facts_parse(input->data, input->size, identity, &err);
    CAIRN_ASSERT(facts != NULL || err.kind == CAIRN_CORRUPT || err.kind == CAIRN_UNSUPPORTED);
    return facts;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const size_t half = 2 + (size - 2) * data[1] / 255;
    const int major = POSTGRES_MAJOR_MIN + data[0] % 4;
    const Input inputs[] = {{.data = data + 2, .size = half - 2, .major = major},
                            {.data = data + half, .size = size - half, .major = major}};
    const bool collect = (data[0] & COLLECT) != 0;
    WalIdentity identity = {.major = major,
                            .system_id = system_id,
                            .lsn = base,
                            .segment_size = collect ? SEGMENT_SIZE : STORED_SEGMENT_SIZE};
    CairnError err = {0};
    bool joined;

    SCOPED(WalFacts) earlier = make_facts(&inputs[0], collect, &identity);
    if (earlier != NULL)
        round_trip(earlier, &identity);
    identity.lsn += identity.segment_size;
    SCOPED(WalFacts) later = make_facts(&inputs[1], collect, &identity);
    if (later != NULL)
        round_trip(later, &identity);
    if (earlier == NULL || later == NULL)
        return 0;
    CAIRN_ASSERT(wal_facts_join(earlier, later, &joined, &err));
    identity.lsn = base;
    round_trip(earlier, &identity);
    return 0;
}
