#include "postgres/wal_facts.h"

#include "common/bytes.h"
#include "common/cancel.h"
#include "postgres/wal_changes.h"
#include "postgres/wal_facts_builder.h"
#include "postgres/wal_record.h"

#include <stdlib.h>
#include <string.h>

/* Records over this are not looked into: a commit of so many bytes drops 80000 relations. */
enum { RECORD_LIMIT = 1 << 20 };

/* The pages of one segment on their way to the reader. */
typedef struct {
    WalPageSource *source;
    void *context;
    uint64_t start_lsn;
    uint64_t end_lsn;
    bool asked_beyond; /* valid WAL goes on in the next segment */
    WalFacts *facts;   /* whose head is filled on the way */
} Pages;

void
wal_facts_free(WalFacts *facts)
{
    if (facts == NULL)
        return;
    free(facts->head.data);
    free(facts->tail.data);
    free(facts->events);
    free(facts->forks);
    free(facts->chunks);
    free(facts);
}

static bool
edge_keep(WalEdge *edge, const uint8_t *data, size_t size, CairnError *err)
{
    const size_t room = WAL_FACTS_EDGE_LIMIT - edge->size;

    if (size > room)
        size = room;
    if (size == 0)
        return true;
    uint8_t *grown = realloc(edge->data, edge->size + size);
    if (grown == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory for a record's part");
    memcpy(grown + edge->size, data, size);
    edge->data = grown;
    edge->size += (uint32_t)size;
    return true;
}

/* Keeps what a page holds of the record that began in an earlier segment. */
static bool
keep_head(Pages *pages, uint64_t lsn, const uint8_t *page, CairnError *err)
{
    WalEdge *head = &pages->facts->head;
    const bool first = lsn == pages->start_lsn;
    const uint32_t header_size = first ? WAL_LONG_HEADER_SIZE : WAL_SHORT_HEADER_SIZE;
    const uint32_t room = WAL_PAGE_SIZE - header_size;

    if (first && (get_u16(page + 2) & WAL_PAGE_CONTINUES) != 0)
        head->total_size = get_u32(page + 16);
    if (first && (get_u16(page + 2) & WAL_PAGE_OVERWRITE) != 0)
        pages->facts->flags |= WAL_FACTS_HEAD_VOID;
    if (head->segment_size == head->total_size)
        return true;
    const uint32_t left = head->total_size - head->segment_size;
    const uint32_t size = left < room ? left : room;
    head->segment_size += size;
    return edge_keep(head, page + header_size, size, err);
}

static bool
segment_page(void *context, uint64_t lsn, uint8_t page[8192], bool *present_out, CairnError *err)
{
    Pages *pages = context;

    *present_out = lsn >= pages->start_lsn && lsn < pages->end_lsn;
    if (!*present_out) {
        pages->asked_beyond = true;
        return true;
    }
    if (!pages->source(pages->context, lsn, page, present_out, err))
        return false;
    return !*present_out || keep_head(pages, lsn, page, err);
}

/* What is here of a record that ends in the next segment. */
static bool
keep_tail(const WalReader *reader, WalFacts *facts, CairnError *err)
{
    WalPartialRecord partial;

    if (!wal_reader_partial(reader, &partial))
        return true;
    const uint32_t header_size = partial.seen_size < WAL_RECORD_HEADER_SIZE
                                     ? partial.seen_size
                                     : (uint32_t)WAL_RECORD_HEADER_SIZE;
    facts->tail_lsn = partial.start_lsn;
    facts->tail.total_size = partial.total_size;
    facts->tail.segment_size = partial.seen_size;
    return edge_keep(&facts->tail, partial.header, header_size, err) &&
           edge_keep(&facts->tail, partial.body, partial.body_size, err);
}

enum { CANCEL_RECORDS = 4096 };

static bool
collect(WalReader *reader, Pages *pages, WalFactsBuilder *builder, CairnError *err)
{
    WalFacts *facts = pages->facts;
    const WalRecord *record;
    bool switched = false;

    for (uint32_t count = 1;; count++) {
        if (count % CANCEL_RECORDS == 0 && !cancel_check(err))
            return false;
        if (!wal_reader_advance(reader, &record, err))
            return false;
        if (record == NULL)
            break;
        size_t size;
        const uint8_t *body = wal_reader_body(reader, &size);
        switched = record->kind == WAL_RECORD_SWITCH;
        /* What it cannot tell is told by flags. */
        (void)wal_facts_builder_add(builder, record, body, size);
    }
    facts->end_lsn = wal_reader_end_lsn(reader);
    if (!pages->asked_beyond && !switched)
        facts->flags |= WAL_FACTS_ENDED_EARLY;
    if (pages->asked_beyond && !switched && !keep_tail(reader, facts, err))
        return false;
    return wal_facts_builder_finish(builder, facts, err);
}

WalFacts *
wal_facts_collect(WalPageSource *source, void *context, const WalIdentity *segment, CairnError *err)
{
    SCOPED(WalFacts) facts = calloc(1, sizeof *facts);
    SCOPED(WalFactsBuilder) builder = wal_facts_builder_new(segment->major, err);

    if (builder == NULL)
        return NULL;
    if (facts == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory for a segment's facts");
        return NULL;
    }
    facts->major = segment->major;
    facts->segment_size = segment->segment_size;
    facts->start_lsn = segment->lsn;

    Pages pages = {
        .source = source,
        .context = context,
        .start_lsn = segment->lsn,
        .end_lsn = segment->lsn + segment->segment_size,
        .facts = facts,
    };
    SCOPED(WalReader)
    reader = wal_reader_new(segment_page, &pages, segment->major, segment->segment_size,
                            segment->system_id, segment->lsn, true, err);
    if (reader == NULL)
        return NULL;
    wal_reader_limit(reader, RECORD_LIMIT);
    return collect(reader, &pages, builder, err) ? take(&facts) : NULL;
}

const WalForkChange *
wal_facts_fork(const WalFacts *facts, const WalRelation *relation, uint8_t fork)
{
    size_t low = 0;
    size_t high = facts->fork_count;

    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = wal_fork_compare(&facts->forks[middle], relation, fork);
        if (order == 0)
            return &facts->forks[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
