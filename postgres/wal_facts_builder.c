#include "postgres/wal_facts_builder.h"

#include "postgres/wal_changes.h"
#include "postgres/wal_record.h"
#include "postgres/wal_record_parts.h"

#include <stdlib.h>
#include <string.h>

enum {
    EVENT_LIMIT = WAL_FACTS_MARKER_LIMIT + WAL_FACTS_DESTRUCTION_LIMIT + WAL_FACTS_CREATION_LIMIT,
    /* Events that wait for their transaction's commit; the oldest is given up for one more. */
    PENDING_LIMIT = 256,
};

struct WalFactsBuilder {
    int major;
    uint32_t flags;
    uint64_t record_count;
    uint64_t first_record_lsn;
    uint64_t last_record_lsn;
    WalTransactionSpan commits;
    WalTransactionSpan aborts;

    WalChanges *changes;
    size_t marker_count;
    size_t destruction_count;
    size_t creation_count;
    size_t event_count;
    WalEvent *events; /* EVENT_LIMIT */
    uint64_t settle_work;
    uint32_t pending[PENDING_LIMIT]; /* numbers of events, ascending */
    size_t pending_count;
};

WalFactsBuilder *
wal_facts_builder_new(int major, CairnError *err)
{
    SCOPED(WalFactsBuilder) builder = calloc(1, sizeof *builder);

    if (builder == NULL || (builder->events = calloc(EVENT_LIMIT, sizeof(WalEvent))) == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory for a segment's facts");
        return NULL;
    }
    builder->major = major;
    builder->changes = wal_changes_new(err);
    return builder->changes != NULL ? take(&builder) : NULL;
}

void
wal_facts_builder_free(WalFactsBuilder *builder)
{
    if (builder == NULL)
        return;
    wal_changes_free(builder->changes);
    free(builder->events);
    free(builder);
}

static void
add_pending(WalFactsBuilder *builder, uint32_t event)
{
    if (builder->pending_count == PENDING_LIMIT) {
        memmove(builder->pending, builder->pending + 1,
                (PENDING_LIMIT - 1) * sizeof builder->pending[0]);
        builder->pending_count--;
    }
    builder->pending[builder->pending_count++] = event;
}

/* One more of its class, or NULL and a flag. */
static WalEvent *
add_event(WalFactsBuilder *builder, WalEventKind kind, const WalRecord *record)
{
    size_t *count = &builder->marker_count;
    size_t limit = WAL_FACTS_MARKER_LIMIT;
    uint32_t lost = WAL_FACTS_MARKERS_LOST;

    if (kind == WAL_EVENT_RELATION_CREATED) {
        count = &builder->creation_count;
        limit = WAL_FACTS_CREATION_LIMIT;
        lost = WAL_FACTS_CREATIONS_LOST;
    } else if (wal_event_is_destruction(kind)) {
        count = &builder->destruction_count;
        limit = WAL_FACTS_DESTRUCTION_LIMIT;
        lost = WAL_FACTS_DESTRUCTIONS_LOST;
    }
    if (*count >= limit || builder->event_count == EVENT_LIMIT) {
        builder->flags |= lost;
        return NULL;
    }
    ++*count;
    WalEvent *event = &builder->events[builder->event_count++];
    *event = (WalEvent){.kind = kind, .lsn = record->start_lsn, .xid = record->xid};
    return event;
}

static void
add_marker(WalFactsBuilder *builder, WalEventKind kind, const WalRecord *record)
{
    WalEvent *event = add_event(builder, kind, record);

    if (event == NULL)
        return;
    event->time_us = record->time_us;
    if (kind == WAL_EVENT_RESTORE_POINT) {
        memcpy(event->name, record->restore_point, sizeof event->name);
        return;
    }
    event->redo_lsn =
        record->kind == WAL_RECORD_BACKUP_END ? record->backup_start_lsn : record->redo_lsn;
    event->timeline = record->timeline;
    event->previous_timeline = record->previous_timeline;
    event->shutdown = record->shutdown;
    event->wal_level = record->wal_level;
}

/* Something that counts when its transaction commits; outside of one it counts at once. */
static WalEvent *
add_deed(WalFactsBuilder *builder, WalEventKind kind, const WalRecord *record)
{
    WalEvent *event = add_event(builder, kind, record);

    if (event == NULL)
        return NULL;
    event->relation = record->relation;
    event->committed = record->xid == 0;
    if (!event->committed)
        add_pending(builder, (uint32_t)(event - builder->events));
    return event;
}

static bool
is_of_transaction(const WalEvent *event, uint32_t xid, const WalItems *subtransactions)
{
    if (event->xid == xid)
        return true;
    for (uint32_t i = 0; i < subtransactions->count; i++) {
        if (wal_items_u32(subtransactions, i) == event->xid)
            return true;
    }
    return false;
}

/* What is known of relations that the ending transaction made. */
typedef struct {
    size_t count;
    WalRelation last;
} Made;

/* Takes the transaction's events off the pending ones and tells them how and when it ended. */
static void
settle_pending(WalFactsBuilder *builder, const WalRecord *record,
               const WalTransactionParts *transaction, Made *made)
{
    size_t kept = 0;

    for (size_t i = 0; i < builder->pending_count; i++) {
        WalEvent *event = &builder->events[builder->pending[i]];
        if (!is_of_transaction(event, record->transaction_xid, &transaction->subtransactions)) {
            builder->pending[kept++] = builder->pending[i];
            continue;
        }
        event->committed = record->kind == WAL_RECORD_COMMIT;
        event->aborted = !event->committed;
        event->time_us = record->time_us;
        event->xid = record->transaction_xid;
        if (event->kind == WAL_EVENT_RELATION_CREATED && event->committed) {
            made->count++;
            made->last = event->relation;
        }
    }
    builder->pending_count = kept;
}

static void
add_dropped(WalFactsBuilder *builder, const WalRecord *record, const WalRelation *relation,
            const Made *made)
{
    WalEvent *event = add_event(
        builder, made->count > 0 ? WAL_EVENT_RELATION_REWRITTEN : WAL_EVENT_RELATION_DROPPED,
        record);

    if (event == NULL)
        return;
    event->committed = true;
    event->time_us = record->time_us;
    event->xid = record->transaction_xid;
    event->relation = *relation;
    if (made->count == 1)
        event->new_relfilenode = made->last.relfilenode;
}

static void
widen_span(WalTransactionSpan *span, const WalRecord *record)
{
    const uint32_t xid = record->transaction_xid;

    if (span->count == 0 || record->time_us < span->min_time_us)
        span->min_time_us = record->time_us;
    if (span->count == 0 || record->time_us > span->max_time_us)
        span->max_time_us = record->time_us;
    if (span->count == 0 || xid < span->min_xid)
        span->min_xid = xid;
    if (span->count == 0 || xid > span->max_xid)
        span->max_xid = xid;
    span->count++;
}

/* Comparisons in one segment: a second or two. */
static const uint64_t settle_work_limit = UINT64_C(1) << 31;

/* Millions of subtransactions against what is pending, again and again, are no server's WAL. */
static bool
may_settle(WalFactsBuilder *builder, const WalTransactionParts *transaction)
{
    builder->settle_work +=
        builder->pending_count * (UINT64_C(1) + transaction->subtransactions.count);
    return builder->settle_work <= settle_work_limit;
}

static bool
add_transaction(WalFactsBuilder *builder, const WalRecord *record, const WalRecordParts *parts)
{
    const bool commit = record->kind == WAL_RECORD_COMMIT;
    WalTransactionParts transaction = {0};
    Made made = {0};

    widen_span(commit ? &builder->commits : &builder->aborts, record);
    if ((record->info & WAL_TRANSACTION_HAS_PARTS) != 0 &&
        !wal_transaction_split(builder->major, record, parts, &transaction)) {
        wal_changes_lose(builder->changes);
        builder->flags |= WAL_FACTS_RECORD_LOST;
        return false;
    }
    if (builder->pending_count > 0 && !may_settle(builder, &transaction)) {
        wal_changes_lose(builder->changes);
        builder->flags |= WAL_FACTS_RECORD_LOST;
        return false;
    }
    if (builder->pending_count > 0)
        settle_pending(builder, record, &transaction, &made);
    for (uint32_t i = 0; i < transaction.relations.count; i++) {
        const WalRelation relation = wal_items_relation(&transaction.relations, i);
        wal_changes_cut(builder->changes, &relation, WAL_FORK_MAIN, 0);
        if (commit)
            add_dropped(builder, record, &relation, &made);
    }
    return true;
}

/* The blocks of the visibility map that so many blocks need; it is not cut by whole blocks. */
static uint32_t
vm_blocks(uint32_t heap_blocks)
{
    enum { HEAP_BLOCKS_PER_VM_BLOCK = (8192 - 24) * 4 };

    return heap_blocks / HEAP_BLOCKS_PER_VM_BLOCK + (heap_blocks % HEAP_BLOCKS_PER_VM_BLOCK != 0);
}

static void
add_relation_truncate(WalFactsBuilder *builder, const WalRecord *record)
{
    WalEvent *event;

    if (record->cuts_main)
        wal_changes_cut(builder->changes, &record->relation, WAL_FORK_MAIN, record->block);
    if (record->cuts_vm) {
        wal_changes_cut(builder->changes, &record->relation, WAL_FORK_VM, vm_blocks(record->block));
        /* Bits of the last block are cleared without a reference to it. */
        if (vm_blocks(record->block) > 0)
            wal_changes_mark(builder->changes, &record->relation, WAL_FORK_VM,
                             vm_blocks(record->block) - 1);
    }
    if (record->cuts_main) {
        event = add_deed(builder, WAL_EVENT_RELATION_TRUNCATED, record);
        if (event != NULL)
            event->block = record->block;
    }
}

/* A database's relations in one tablespace, all of them. */
static void
add_database(WalFactsBuilder *builder, WalEventKind kind, const WalRecord *record,
             uint32_t tablespace)
{
    const WalRelation all = {.tablespace = tablespace, .database = record->relation.database};
    WalEvent *event = add_deed(builder, kind, record);

    wal_changes_cut(builder->changes, &all, WAL_FORK_MAIN, 0);
    if (event != NULL)
        event->relation = all;
}

/* Events whose number is in the record: tables of a TRUNCATE, tablespaces of a dropped database. */
static bool
add_listed(WalFactsBuilder *builder, const WalRecord *record, const WalRecordParts *parts)
{
    WalItems oids;

    if (!wal_oids_split(record, parts, &oids)) {
        wal_changes_lose(builder->changes);
        builder->flags |= WAL_FACTS_RECORD_LOST;
        return false;
    }
    for (uint32_t i = 0; i < oids.count; i++) {
        const uint32_t oid = wal_items_u32(&oids, i);
        if (record->kind == WAL_RECORD_DATABASE_DROP) {
            add_database(builder, WAL_EVENT_DATABASE_DROPPED, record, oid);
            continue;
        }
        WalEvent *event = add_deed(builder, WAL_EVENT_TABLE_TRUNCATED, record);
        if (event != NULL)
            event->table_oid = oid;
    }
    return true;
}

static bool
add_kind(WalFactsBuilder *builder, const WalRecord *record, const WalRecordParts *parts)
{
    switch (record->kind) {
    case WAL_RECORD_COMMIT:
    case WAL_RECORD_ABORT:
        return add_transaction(builder, record, parts);
    case WAL_RECORD_RESTORE_POINT:
        add_marker(builder, WAL_EVENT_RESTORE_POINT, record);
        break;
    case WAL_RECORD_CHECKPOINT:
        add_marker(builder, WAL_EVENT_CHECKPOINT, record);
        break;
    case WAL_RECORD_BACKUP_END:
        add_marker(builder, WAL_EVENT_BACKUP_END, record);
        break;
    case WAL_RECORD_END_OF_RECOVERY:
        add_marker(builder, WAL_EVENT_END_OF_RECOVERY, record);
        break;
    case WAL_RECORD_SWITCH:
        add_marker(builder, WAL_EVENT_SWITCH, record);
        break;
    case WAL_RECORD_PARAMETER_CHANGE:
        add_marker(builder, WAL_EVENT_PARAMETER_CHANGE, record);
        break;
    case WAL_RECORD_OVERWRITE:
        add_marker(builder, WAL_EVENT_OVERWRITE, record);
        break;
    case WAL_RECORD_RELATION_CREATE:
        wal_changes_cut(builder->changes, &record->relation, record->fork, 0);
        if (record->fork == WAL_FORK_MAIN)
            (void)add_deed(builder, WAL_EVENT_RELATION_CREATED, record);
        break;
    case WAL_RECORD_RELATION_TRUNCATE:
        add_relation_truncate(builder, record);
        break;
    case WAL_RECORD_DATABASE_CREATE:
        add_database(builder, WAL_EVENT_DATABASE_CREATED, record, record->relation.tablespace);
        break;
    case WAL_RECORD_RELMAP_UPDATE:
        (void)add_deed(builder, WAL_EVENT_RELMAP_UPDATED, record);
        break;
    case WAL_RECORD_TABLE_TRUNCATE:
    case WAL_RECORD_DATABASE_DROP:
        return add_listed(builder, record, parts);
    case WAL_RECORD_OTHER:
        break;
    }
    return true;
}

bool
wal_facts_builder_add(WalFactsBuilder *builder, const WalRecord *record, const uint8_t *body,
                      size_t size)
{
    WalRecordParts parts;

    if (builder->record_count++ == 0)
        builder->first_record_lsn = record->start_lsn;
    builder->last_record_lsn = record->start_lsn;
    if (!wal_record_split(body, size, record->total_size - WAL_RECORD_HEADER_SIZE, &parts)) {
        wal_changes_lose(builder->changes);
        builder->flags |= WAL_FACTS_RECORD_LOST;
        return false;
    }
    for (size_t i = 0; i < parts.block_count; i++) {
        const WalBlock *block = &parts.blocks[i];
        wal_changes_mark(builder->changes, &block->relation, block->fork, block->block);
    }
    return record->kind == WAL_RECORD_OTHER || add_kind(builder, record, &parts);
}

void
wal_facts_builder_resume(WalFactsBuilder *builder, const WalFacts *facts)
{
    builder->flags = facts->flags;
    builder->record_count = facts->record_count;
    builder->first_record_lsn = facts->first_record_lsn;
    builder->last_record_lsn = facts->last_record_lsn;
    builder->commits = facts->commits;
    builder->aborts = facts->aborts;
    for (size_t i = 0; i < facts->event_count && i < EVENT_LIMIT; i++) {
        const WalEventKind kind = facts->events[i].kind;
        if (kind == WAL_EVENT_RELATION_CREATED)
            builder->creation_count++;
        else if (wal_event_is_destruction(kind))
            builder->destruction_count++;
        else
            builder->marker_count++;
        builder->events[builder->event_count++] = facts->events[i];
        if (kind >= WAL_EVENT_RELATION_DROPPED && !facts->events[i].committed &&
            !facts->events[i].aborted)
            add_pending(builder, (uint32_t)i);
    }
    wal_changes_load(builder->changes, facts);
}

bool
wal_facts_builder_finish(WalFactsBuilder *builder, WalFacts *facts, CairnError *err)
{
    facts->flags |= builder->flags;
    facts->record_count = builder->record_count;
    facts->first_record_lsn = builder->first_record_lsn;
    facts->last_record_lsn = builder->last_record_lsn;
    facts->commits = builder->commits;
    facts->aborts = builder->aborts;
    if (!wal_changes_store(builder->changes, facts, err))
        return false;
    facts->event_count = builder->event_count;
    facts->events = take(&builder->events);
    /* Smaller cannot fail in a way that matters: the larger one then stays. */
    WalEvent *fitting = realloc(facts->events, (facts->event_count + 1) * sizeof(WalEvent));
    if (fitting != NULL)
        facts->events = fitting;
    return true;
}
