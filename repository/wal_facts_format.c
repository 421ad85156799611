#include "repository/wal_facts_format.h"

#include "postgres/wal_record_parts.h"

#include <stdlib.h>
#include <string.h>

enum { LAYOUT = 1 };

/* An event's byte of bits. */
enum { EVENT_COMMITTED = 1 << 0, EVENT_ABORTED = 1 << 1, EVENT_TIMED = 1 << 2, EVENT_BITS = 7 };

/* A fork's byte: its number and this. */
enum { FORK_MASK = 3, FORK_ALL_BLOCKS = 1 << 2, FORK_BITS = 7 };

/* A chunk's byte: one less than the number of blocks that follow as bytes, or this: as bits. */
enum { CHUNK_AS_BITS = 255, CHUNK_BLOCKS_LISTED = WAL_CHUNK_BLOCKS / 8 - 1 };

enum {
    EVENT_LIMIT = WAL_FACTS_MARKER_LIMIT + WAL_FACTS_DESTRUCTION_LIMIT + WAL_FACTS_CREATION_LIMIT,
};

/* LSNs are written as distances from the segment's start. */
static void
write_lsn(ByteWriter *bytes, const WalFacts *facts, uint64_t lsn)
{
    byte_writer_varint(bytes, lsn > facts->start_lsn ? lsn - facts->start_lsn : 0);
}

static void
write_edge(ByteWriter *bytes, const WalEdge *edge)
{
    byte_writer_varint(bytes, edge->total_size);
    byte_writer_varint(bytes, edge->segment_size);
    byte_writer_varint(bytes, edge->size);
    if (edge->size > 0)
        byte_writer_bytes(bytes, edge->data, edge->size);
}

static void
write_span(ByteWriter *bytes, const WalTransactionSpan *span)
{
    byte_writer_varint(bytes, span->count);
    if (span->count == 0)
        return;
    byte_writer_u64(bytes, (uint64_t)span->min_time_us);
    byte_writer_u64(bytes, (uint64_t)span->max_time_us);
    byte_writer_varint(bytes, span->min_xid);
    byte_writer_varint(bytes, span->max_xid - span->min_xid);
}

static void
write_relation(ByteWriter *bytes, const WalRelation *relation)
{
    byte_writer_varint(bytes, relation->tablespace);
    byte_writer_varint(bytes, relation->database);
    byte_writer_varint(bytes, relation->relfilenode);
}

static void
write_event(ByteWriter *bytes, const WalFacts *facts, const WalEvent *event)
{
    byte_writer_u8(bytes, (uint8_t)event->kind);
    byte_writer_u8(bytes, (uint8_t)((event->committed ? EVENT_COMMITTED : 0) |
                                    (event->aborted ? EVENT_ABORTED : 0) |
                                    (event->time_us != 0 ? EVENT_TIMED : 0)));
    write_lsn(bytes, facts, event->lsn);
    byte_writer_varint(bytes, event->xid);
    if (event->time_us != 0)
        byte_writer_u64(bytes, (uint64_t)event->time_us);
    if (event->kind == WAL_EVENT_RESTORE_POINT) {
        const size_t size = strnlen(event->name, sizeof event->name - 1);
        byte_writer_varint(bytes, size);
        byte_writer_bytes(bytes, event->name, size);
    } else if (event->kind < WAL_EVENT_RELATION_DROPPED) {
        byte_writer_varint(bytes, event->redo_lsn);
        byte_writer_varint(bytes, event->timeline);
        byte_writer_varint(bytes, event->previous_timeline);
        byte_writer_u8(bytes, event->shutdown ? 1 : 0);
        byte_writer_u8(bytes, event->wal_level);
    } else {
        write_relation(bytes, &event->relation);
        byte_writer_varint(bytes, event->table_oid);
        byte_writer_varint(bytes, event->block);
        byte_writer_varint(bytes, event->new_relfilenode);
    }
}

/* Few blocks one byte each, many as bits. */
static void
write_chunk(ByteWriter *bytes, const WalChunk *chunk)
{
    uint8_t blocks[CHUNK_BLOCKS_LISTED];
    size_t count = 0;

    for (unsigned block = 0; block < WAL_CHUNK_BLOCKS; block++) {
        if ((chunk->bits[block / 64] >> block % 64 & 1) == 0)
            continue;
        if (count < CHUNK_BLOCKS_LISTED)
            blocks[count] = (uint8_t)block;
        count++;
    }
    if (count > 0 && count <= CHUNK_BLOCKS_LISTED) {
        byte_writer_u8(bytes, (uint8_t)(count - 1));
        byte_writer_bytes(bytes, blocks, count);
        return;
    }
    byte_writer_u8(bytes, CHUNK_AS_BITS);
    for (size_t word = 0; word < WAL_CHUNK_BLOCKS / 64; word++)
        byte_writer_u64(bytes, chunk->bits[word]);
}

static void
write_fork(ByteWriter *bytes, const WalFacts *facts, const WalForkChange *fork)
{
    uint32_t next = 0;

    byte_writer_u8(bytes, (uint8_t)(fork->fork | (fork->all_blocks ? FORK_ALL_BLOCKS : 0)));
    write_relation(bytes, &fork->relation);
    byte_writer_varint(bytes, (uint64_t)(fork->limit_block - WAL_NO_LIMIT));
    byte_writer_varint(bytes, fork->chunk_count);
    for (uint32_t i = 0; i < fork->chunk_count; i++) {
        const WalChunk *chunk = &facts->chunks[fork->first_chunk + i];
        byte_writer_varint(bytes, chunk->number - next);
        next = chunk->number + 1;
        write_chunk(bytes, chunk);
    }
}

void
wal_facts_format(const WalFacts *facts, ByteWriter *bytes)
{
    byte_writer_u8(bytes, LAYOUT);
    byte_writer_varint(bytes, facts->flags);
    byte_writer_varint(bytes, facts->record_count);
    write_lsn(bytes, facts, facts->first_record_lsn);
    write_lsn(bytes, facts, facts->last_record_lsn);
    write_lsn(bytes, facts, facts->end_lsn);
    write_lsn(bytes, facts, facts->tail_lsn);
    write_edge(bytes, &facts->head);
    write_edge(bytes, &facts->tail);
    write_span(bytes, &facts->commits);
    write_span(bytes, &facts->aborts);
    byte_writer_varint(bytes, facts->event_count);
    for (size_t i = 0; i < facts->event_count; i++)
        write_event(bytes, facts, &facts->events[i]);
    byte_writer_varint(bytes, facts->fork_count);
    byte_writer_varint(bytes, facts->chunk_count);
    for (size_t i = 0; i < facts->fork_count; i++)
        write_fork(bytes, facts, &facts->forks[i]);
}

/* 0 stands for none: no record begins at a segment's very start. */
static uint64_t
read_lsn(ByteReader *bytes, const WalFacts *facts, uint64_t limit)
{
    const uint64_t offset = byte_reader_varint_max(bytes, limit);

    return offset > 0 ? facts->start_lsn + offset : 0;
}

static uint32_t
read_u32(ByteReader *bytes)
{
    return (uint32_t)byte_reader_varint_max(bytes, UINT32_MAX);
}

static bool
read_edge(ByteReader *bytes, const WalFacts *facts, WalEdge *edge)
{
    edge->total_size = read_u32(bytes);
    edge->segment_size = (uint32_t)byte_reader_varint_max(
        bytes, edge->total_size < facts->segment_size ? edge->total_size : facts->segment_size);
    const uint32_t size = (uint32_t)byte_reader_varint_max(
        bytes,
        edge->segment_size < WAL_FACTS_EDGE_LIMIT ? edge->segment_size : WAL_FACTS_EDGE_LIMIT);
    const uint8_t *data = byte_reader_bytes(bytes, size);

    if (data == NULL || bytes->failed)
        return false;
    edge->data = malloc(size + 1);
    if (edge->data == NULL)
        return false;
    memcpy(edge->data, data, size);
    edge->size = size;
    return true;
}

static void
read_span(ByteReader *bytes, WalTransactionSpan *span)
{
    span->count = byte_reader_varint(bytes);
    if (span->count == 0)
        return;
    span->min_time_us = (int64_t)byte_reader_u64(bytes);
    span->max_time_us = (int64_t)byte_reader_u64(bytes);
    span->min_xid = read_u32(bytes);
    span->max_xid =
        span->min_xid + (uint32_t)byte_reader_varint_max(bytes, UINT32_MAX - span->min_xid);
    if (span->max_time_us < span->min_time_us)
        bytes->failed = true;
}

static WalRelation
read_relation(ByteReader *bytes)
{
    WalRelation relation;

    relation.tablespace = read_u32(bytes);
    relation.database = read_u32(bytes);
    relation.relfilenode = read_u32(bytes);
    return relation;
}

static bool
kind_is_known(unsigned kind)
{
    return (kind >= WAL_EVENT_RESTORE_POINT && kind <= WAL_EVENT_OVERWRITE) ||
           (kind >= WAL_EVENT_RELATION_DROPPED && kind <= WAL_EVENT_RELMAP_UPDATED) ||
           kind == WAL_EVENT_RELATION_CREATED;
}

static void
read_name(ByteReader *bytes, WalEvent *event)
{
    const size_t size = (size_t)byte_reader_varint_max(bytes, sizeof event->name - 1);
    const uint8_t *name = byte_reader_bytes(bytes, size);

    memset(event->name, 0, sizeof event->name);
    if (name != NULL && memchr(name, '\0', size) == NULL)
        memcpy(event->name, name, size);
    else
        bytes->failed = true;
}

static bool
read_event(ByteReader *bytes, const WalFacts *facts, uint64_t previous_lsn, WalEvent *event)
{
    const unsigned kind = byte_reader_u8(bytes);
    const unsigned bits = byte_reader_u8(bytes);

    *event = (WalEvent){.kind = (WalEventKind)kind};
    event->lsn = read_lsn(bytes, facts, facts->segment_size - 1);
    event->xid = read_u32(bytes);
    event->committed = (bits & EVENT_COMMITTED) != 0;
    event->aborted = (bits & EVENT_ABORTED) != 0;
    if ((bits & EVENT_TIMED) != 0)
        event->time_us = (int64_t)byte_reader_u64(bytes);
    if (!kind_is_known(kind) || bits > EVENT_BITS || event->lsn < previous_lsn || event->lsn == 0)
        return false;
    if (kind == WAL_EVENT_RESTORE_POINT) {
        read_name(bytes, event);
    } else if (kind < WAL_EVENT_RELATION_DROPPED) {
        event->redo_lsn = byte_reader_varint(bytes);
        event->timeline = read_u32(bytes);
        event->previous_timeline = read_u32(bytes);
        event->shutdown = byte_reader_u8(bytes) != 0;
        event->wal_level = byte_reader_u8(bytes);
    } else {
        event->relation = read_relation(bytes);
        event->table_oid = read_u32(bytes);
        event->block = read_u32(bytes);
        event->new_relfilenode = read_u32(bytes);
    }
    return !bytes->failed;
}

static bool
read_events(ByteReader *bytes, WalFacts *facts)
{
    /* Eight bytes an event at least, so that a lie about their number allocates little. */
    const uint64_t most = byte_reader_left(bytes) / 8;
    const uint64_t count = byte_reader_varint_max(bytes, most < EVENT_LIMIT ? most : EVENT_LIMIT);
    uint64_t previous_lsn = 0;

    if (bytes->failed)
        return false;
    facts->events = calloc((size_t)count + 1, sizeof *facts->events);
    if (facts->events == NULL)
        return false;
    for (; facts->event_count < count; facts->event_count++) {
        WalEvent *event = &facts->events[facts->event_count];
        if (!read_event(bytes, facts, previous_lsn, event))
            return false;
        previous_lsn = event->lsn;
    }
    /* What crosses the end comes last. */
    return facts->tail_lsn == 0 ||
           (facts->tail_lsn >= previous_lsn && facts->tail_lsn >= facts->last_record_lsn);
}

static bool
read_chunk(ByteReader *bytes, WalChunk *chunk)
{
    const unsigned head = byte_reader_u8(bytes);

    if (head == CHUNK_AS_BITS) {
        for (size_t word = 0; word < WAL_CHUNK_BLOCKS / 64; word++)
            chunk->bits[word] = byte_reader_u64(bytes);
        return !bytes->failed;
    }
    const uint8_t *blocks = byte_reader_bytes(bytes, head + 1);
    if (head >= CHUNK_BLOCKS_LISTED || blocks == NULL)
        return false;
    for (unsigned i = 0; i <= head; i++)
        chunk->bits[blocks[i] / 64] |= UINT64_C(1) << blocks[i] % 64;
    return true;
}

/* room: chunks that may still come. */
static bool
read_chunks(ByteReader *bytes, WalFacts *facts, WalForkChange *fork, uint64_t room)
{
    const uint32_t number_limit = UINT32_MAX / WAL_CHUNK_BLOCKS;
    const uint64_t count = byte_reader_varint_max(bytes, room);
    uint64_t next = 0;

    fork->first_chunk = (uint32_t)facts->chunk_count;
    for (; fork->chunk_count < count && !bytes->failed; fork->chunk_count++) {
        WalChunk *chunk = &facts->chunks[facts->chunk_count++];
        next += byte_reader_varint_max(bytes, number_limit);
        if (next > number_limit || !read_chunk(bytes, chunk))
            return false;
        chunk->number = (uint32_t)next++;
    }
    return !bytes->failed;
}

static bool
relation_ascends(const WalForkChange *before, const WalForkChange *fork)
{
    const uint32_t first[] = {before->relation.tablespace, before->relation.database,
                              before->relation.relfilenode, before->fork};
    const uint32_t second[] = {fork->relation.tablespace, fork->relation.database,
                               fork->relation.relfilenode, fork->fork};

    for (size_t i = 0; i < 4; i++) {
        if (first[i] != second[i])
            return first[i] < second[i];
    }
    return false;
}

static bool
read_fork(ByteReader *bytes, WalFacts *facts, uint64_t chunk_limit)
{
    WalForkChange *fork = &facts->forks[facts->fork_count];
    const unsigned head = byte_reader_u8(bytes);

    fork->fork = head & FORK_MASK;
    fork->all_blocks = (head & FORK_ALL_BLOCKS) != 0;
    fork->relation = read_relation(bytes);
    fork->limit_block = (int64_t)byte_reader_varint_max(bytes, UINT64_C(1) << 32) + WAL_NO_LIMIT;
    if (bytes->failed || head > FORK_BITS || fork->fork == WAL_FORK_FSM ||
        (facts->fork_count > 0 && !relation_ascends(fork - 1, fork)))
        return false;
    facts->fork_count++;
    return read_chunks(bytes, facts, fork, chunk_limit - facts->chunk_count);
}

static bool
read_changes(ByteReader *bytes, WalFacts *facts)
{
    /* A fork has six bytes at least, a chunk three. */
    const uint64_t most_forks = byte_reader_left(bytes) / 6;
    const uint64_t fork_count = byte_reader_varint_max(
        bytes, most_forks < WAL_FACTS_FORK_LIMIT ? most_forks : WAL_FACTS_FORK_LIMIT);
    const uint64_t most_chunks = byte_reader_left(bytes) / 3;
    const uint64_t chunk_count = byte_reader_varint_max(
        bytes, most_chunks < WAL_FACTS_CHUNK_LIMIT ? most_chunks : WAL_FACTS_CHUNK_LIMIT);

    if (bytes->failed)
        return false;
    facts->forks = calloc((size_t)fork_count + 1, sizeof *facts->forks);
    facts->chunks = calloc((size_t)chunk_count + 1, sizeof *facts->chunks);
    if (facts->forks == NULL || facts->chunks == NULL)
        return false;
    while (facts->fork_count < fork_count) {
        if (!read_fork(bytes, facts, chunk_count))
            return false;
    }
    return facts->chunk_count == chunk_count;
}

static bool
read_facts(ByteReader *bytes, WalFacts *facts)
{
    const uint64_t last = facts->segment_size - 1;

    facts->flags = (uint32_t)byte_reader_varint_max(bytes, WAL_FACTS_FLAGS_KNOWN);
    facts->record_count = byte_reader_varint(bytes);
    facts->first_record_lsn = read_lsn(bytes, facts, last);
    facts->last_record_lsn = read_lsn(bytes, facts, last);
    /* A record that was joined ends in the next segment. */
    facts->end_lsn =
        facts->start_lsn + byte_reader_varint_max(bytes, 2 * (uint64_t)facts->segment_size);
    facts->tail_lsn = read_lsn(bytes, facts, last);
    if (bytes->failed || facts->first_record_lsn > facts->last_record_lsn ||
        !read_edge(bytes, facts, &facts->head) || !read_edge(bytes, facts, &facts->tail))
        return false;
    read_span(bytes, &facts->commits);
    read_span(bytes, &facts->aborts);
    return read_events(bytes, facts) && read_changes(bytes, facts) && byte_reader_done(bytes);
}

WalFacts *
wal_facts_parse(const void *data, size_t size, const WalIdentity *segment, CairnError *err)
{
    SCOPED(WalFacts) facts = calloc(1, sizeof *facts);
    ByteReader bytes = byte_reader(data, size);
    const uint8_t layout = byte_reader_u8(&bytes);

    if (facts == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory for a segment's facts");
        return NULL;
    }
    if (!bytes.failed && layout != LAYOUT) {
        cairn_error(err, CAIRN_UNSUPPORTED, "a segment's facts have layout %u", layout);
        return NULL;
    }
    facts->major = segment->major;
    facts->segment_size = segment->segment_size;
    facts->start_lsn = segment->lsn;
    if (!read_facts(&bytes, facts)) {
        cairn_error(err, CAIRN_CORRUPT, "a segment's facts contradict themselves");
        return NULL;
    }
    return take(&facts);
}
