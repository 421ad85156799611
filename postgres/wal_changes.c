/*
 * Two open hash tables with linear probing over arrays that only grow: forks by their names, chunks
 * by fork and number. Slots hold index + 1, 0 is free; tables are never more than half full.
 *
 * Invariants:
 * 1. A chunk that was used up stays in its table with bits of zero; only giving up a fork frees
 * any.
 * 2. A fork with all_blocks has no chunks.
 */
#include "postgres/wal_changes.h"

#include "postgres/wal_record_parts.h"

#include <stdlib.h>
#include <string.h>

enum { FORK_SLOTS = 2 * WAL_FACTS_FORK_LIMIT, CHUNK_SLOTS = 2 * WAL_FACTS_CHUNK_LIMIT };
enum { RECENT_FORKS = 64 };
/* Chunks that cuts may look at in one segment: about a third of a second. A server's own WAL stays
   far below; one that is made of cuts could keep push busy for minutes. */
enum { CUT_WORK_LIMIT = 1 << 26 };
enum { FORK_SLOT_BITS = 12, CHUNK_SLOT_BITS = 13, CHUNK_WORDS = WAL_CHUNK_BLOCKS / 64 };

_Static_assert((int)FORK_SLOTS == 1 << FORK_SLOT_BITS, "a hash gives a slot");
_Static_assert((int)CHUNK_SLOTS == 1 << CHUNK_SLOT_BITS, "a hash gives a slot");

/* More than any block number. */
static const int64_t no_limit = WAL_NO_LIMIT;

typedef struct {
    WalRelation relation;
    uint8_t fork;
    bool all_blocks;
    uint32_t chunk_count;
    uint32_t recent_chunk; /* number + 1 of the one asked for last; 0: none */
    int64_t limit_block;
} Fork;

typedef struct {
    uint32_t fork; /* index */
    WalChunk chunk;
} Chunk;

struct WalChanges {
    bool lost;
    uint32_t cut_work;
    uint32_t fork_count;
    uint32_t chunk_count;
    uint16_t recent_forks[RECENT_FORKS]; /* by their low bits: a load has few relations */
    uint16_t fork_slots[FORK_SLOTS];
    uint16_t chunk_slots[CHUNK_SLOTS];
    Fork forks[WAL_FACTS_FORK_LIMIT];
    Chunk chunks[WAL_FACTS_CHUNK_LIMIT];
};

WalChanges *
wal_changes_new(CairnError *err)
{
    WalChanges *changes = calloc(1, sizeof *changes);

    if (changes == NULL)
        cairn_error(err, CAIRN_INTERNAL, "out of memory for a segment's changes");
    return changes;
}

void
wal_changes_free(WalChanges *changes)
{
    free(changes);
}

/* Fibonacci hashing: the high bits of the product are well mixed. */
static inline uint32_t
hash(uint64_t key, int bits)
{
    return (uint32_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> (64 - bits));
}

static inline bool
is_fork(const Fork *entry, const WalRelation *relation, uint8_t fork)
{
    return entry->relation.relfilenode == relation->relfilenode && entry->fork == fork &&
           entry->relation.database == relation->database &&
           entry->relation.tablespace == relation->tablespace;
}

static uint32_t
fork_slot(const WalChanges *changes, const WalRelation *relation, uint8_t fork)
{
    const uint64_t key = (uint64_t)relation->database << 32 ^ (uint64_t)relation->tablespace << 40 ^
                         relation->relfilenode ^ (uint64_t)fork << 62;
    uint32_t slot = hash(key, FORK_SLOT_BITS);

    while (changes->fork_slots[slot] != 0 &&
           !is_fork(&changes->forks[changes->fork_slots[slot] - 1], relation, fork))
        slot = (slot + 1) % FORK_SLOTS;
    return slot;
}

/* NULL when it is not listed. */
static Fork *
find_fork(WalChanges *changes, const WalRelation *relation, uint8_t fork)
{
    const uint16_t number = changes->fork_slots[fork_slot(changes, relation, fork)];

    return number != 0 ? &changes->forks[number - 1] : NULL;
}

/* NULL when there is no room for one more. */
static inline Fork *
get_fork(WalChanges *changes, const WalRelation *relation, uint8_t fork)
{
    uint16_t *recent =
        &changes->recent_forks[(relation->relfilenode ^ (uint32_t)fork << 4) % RECENT_FORKS];
    Fork *entry = &changes->forks[*recent];

    if (is_fork(entry, relation, fork) && changes->fork_count > 0)
        return entry;
    const uint32_t slot = fork_slot(changes, relation, fork);
    if (changes->fork_slots[slot] == 0) {
        if (changes->fork_count == WAL_FACTS_FORK_LIMIT) {
            changes->lost = true;
            return NULL;
        }
        changes->forks[changes->fork_count++] =
            (Fork){.relation = *relation, .fork = fork, .limit_block = no_limit};
        changes->fork_slots[slot] = (uint16_t)changes->fork_count;
    }
    *recent = (uint16_t)(changes->fork_slots[slot] - 1);
    return &changes->forks[*recent];
}

static uint32_t
chunk_slot(const WalChanges *changes, uint32_t fork, uint32_t number)
{
    uint32_t slot = hash((uint64_t)fork << 32 ^ number, CHUNK_SLOT_BITS);

    while (changes->chunk_slots[slot] != 0) {
        const Chunk *chunk = &changes->chunks[changes->chunk_slots[slot] - 1];
        if (chunk->chunk.number == number && chunk->fork == fork)
            break;
        slot = (slot + 1) % CHUNK_SLOTS;
    }
    return slot;
}

/* Makes room: the fork with the most chunks counts as changed everywhere from now on. */
static void
give_up_largest(WalChanges *changes)
{
    uint32_t largest = 0;
    uint32_t kept = 0;

    for (uint32_t i = 1; i < changes->fork_count; i++) {
        if (changes->forks[i].chunk_count > changes->forks[largest].chunk_count)
            largest = i;
    }
    changes->forks[largest].all_blocks = true;
    changes->forks[largest].chunk_count = 0;

    for (uint32_t i = 0; i < changes->fork_count; i++)
        changes->forks[i].recent_chunk = 0; /* chunks move */
    memset(changes->chunk_slots, 0, sizeof changes->chunk_slots);
    for (uint32_t i = 0; i < changes->chunk_count; i++) {
        const Chunk chunk = changes->chunks[i];
        if (chunk.fork == largest)
            continue;
        const uint32_t slot = chunk_slot(changes, chunk.fork, chunk.chunk.number);
        changes->chunks[kept++] = chunk;
        changes->chunk_slots[slot] = (uint16_t)kept;
    }
    changes->chunk_count = kept;
}

/* NULL when the fork gave its chunks up. */
static inline WalChunk *
get_chunk(WalChanges *changes, Fork *entry, uint32_t number)
{
    const uint32_t fork = (uint32_t)(entry - changes->forks);
    uint32_t slot;

    if (entry->all_blocks)
        return NULL;
    if (entry->recent_chunk != 0 && changes->chunks[entry->recent_chunk - 1].chunk.number == number)
        return &changes->chunks[entry->recent_chunk - 1].chunk;
    slot = chunk_slot(changes, fork, number);
    if (changes->chunk_slots[slot] != 0) {
        entry->recent_chunk = changes->chunk_slots[slot];
        return &changes->chunks[entry->recent_chunk - 1].chunk;
    }
    if (changes->chunk_count == WAL_FACTS_CHUNK_LIMIT) {
        give_up_largest(changes);
        if (entry->all_blocks)
            return NULL;
        slot = chunk_slot(changes, fork, number);
    }
    entry->chunk_count++;
    changes->chunks[changes->chunk_count++] = (Chunk){.fork = fork, .chunk = {.number = number}};
    changes->chunk_slots[slot] = (uint16_t)changes->chunk_count;
    entry->recent_chunk = changes->chunk_count;
    return &changes->chunks[changes->chunk_count - 1].chunk;
}

void
wal_changes_mark(WalChanges *changes, const WalRelation *relation, uint8_t fork, uint32_t block)
{
    if (fork == WAL_FORK_FSM)
        return;
    Fork *entry = get_fork(changes, relation, fork);
    if (entry == NULL)
        return;
    WalChunk *chunk = get_chunk(changes, entry, block / WAL_CHUNK_BLOCKS);
    if (chunk != NULL)
        chunk->bits[block % WAL_CHUNK_BLOCKS / 64] |= UINT64_C(1) << block % 64;
}

/* Clears the bits of blocks at and beyond limit. */
static void
cut_chunk(WalChunk *chunk, uint32_t limit)
{
    const uint64_t first = (uint64_t)chunk->number * WAL_CHUNK_BLOCKS;

    for (uint64_t word = 0; word < CHUNK_WORDS; word++) {
        const uint64_t start = first + word * 64;
        if (limit <= start)
            chunk->bits[word] = 0;
        else if (limit < start + 64)
            chunk->bits[word] &= (UINT64_C(1) << (limit - start)) - 1;
    }
}

static void
cut_fork(WalChanges *changes, Fork *entry, uint32_t limit)
{
    const uint32_t fork = (uint32_t)(entry - changes->forks);

    if (entry->limit_block == no_limit || limit < entry->limit_block)
        entry->limit_block = limit;
    for (uint32_t i = 0, seen = 0; seen < entry->chunk_count; i++) {
        if (changes->cut_work == CUT_WORK_LIMIT) {
            changes->lost = true;
            return;
        }
        changes->cut_work++;
        if (changes->chunks[i].fork == fork) {
            cut_chunk(&changes->chunks[i].chunk, limit);
            seen++;
        }
    }
}

void
wal_changes_cut(WalChanges *changes, const WalRelation *relation, uint8_t fork, uint32_t limit)
{
    if (fork == WAL_FORK_FSM)
        return;
    Fork *entry = get_fork(changes, relation, fork);
    if (entry != NULL)
        cut_fork(changes, entry, limit);
    if (fork != WAL_FORK_MAIN || limit > 0)
        return;
    for (int other = WAL_FORK_VM; other <= WAL_FORK_INIT; other++) {
        entry = find_fork(changes, relation, (uint8_t)other);
        if (entry != NULL)
            cut_fork(changes, entry, 0);
    }
}

void
wal_changes_lose(WalChanges *changes)
{
    changes->lost = true;
}

void
wal_changes_load(WalChanges *changes, const WalFacts *facts)
{
    changes->lost = changes->lost || (facts->flags & WAL_FACTS_CHANGES_LOST) != 0;
    for (size_t i = 0; i < facts->fork_count; i++) {
        const WalForkChange *fork = &facts->forks[i];
        Fork *entry = get_fork(changes, &fork->relation, fork->fork);
        if (entry == NULL)
            continue;
        entry->limit_block = fork->limit_block;
        entry->all_blocks = entry->all_blocks || fork->all_blocks;
        for (uint32_t j = 0; j < fork->chunk_count; j++) {
            const WalChunk *from = &facts->chunks[fork->first_chunk + j];
            WalChunk *chunk = get_chunk(changes, entry, from->number);
            for (int word = 0; chunk != NULL && word < CHUNK_WORDS; word++)
                chunk->bits[word] |= from->bits[word];
        }
    }
}

static int
compare_u32(uint32_t a, uint32_t b)
{
    return (a > b) - (a < b);
}

int
wal_fork_compare(const WalForkChange *a, const WalRelation *relation, uint8_t fork)
{
    int order = compare_u32(a->relation.tablespace, relation->tablespace);

    if (order == 0)
        order = compare_u32(a->relation.database, relation->database);
    if (order == 0)
        order = compare_u32(a->relation.relfilenode, relation->relfilenode);
    return order != 0 ? order : compare_u32(a->fork, fork);
}

static int
compare_forks(const void *a, const void *b)
{
    const WalForkChange *second = b;

    return wal_fork_compare(a, &second->relation, second->fork);
}

static int
compare_chunks(const void *a, const void *b)
{
    const WalChunk *first = a;
    const WalChunk *second = b;

    return compare_u32(first->number, second->number);
}

static bool
chunk_is_empty(const WalChunk *chunk)
{
    uint64_t any = 0;

    for (int word = 0; word < CHUNK_WORDS; word++)
        any |= chunk->bits[word];
    return any == 0;
}

/* Each fork's chunks side by side and in order, without those that were emptied; their number. */
static size_t
store_chunks(const WalChanges *changes, WalForkChange *forks, WalChunk *chunks)
{
    uint32_t first = 0;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < changes->fork_count; i++) {
        forks[i].first_chunk = first;
        first += changes->forks[i].chunk_count;
    }
    for (uint32_t i = 0; i < changes->chunk_count; i++) {
        const Chunk *chunk = &changes->chunks[i];
        WalForkChange *fork = &forks[chunk->fork];
        if (!chunk_is_empty(&chunk->chunk))
            chunks[fork->first_chunk + fork->chunk_count++] = chunk->chunk;
    }
    for (uint32_t i = 0; i < changes->fork_count; i++) {
        WalChunk *own = chunks + forks[i].first_chunk;
        qsort(own, forks[i].chunk_count, sizeof *chunks, compare_chunks);
        memmove(chunks + kept, own, forks[i].chunk_count * sizeof *chunks);
        forks[i].first_chunk = kept;
        kept += forks[i].chunk_count;
    }
    return kept;
}

bool
wal_changes_store(const WalChanges *changes, WalFacts *facts, CairnError *err)
{
    if (changes->lost)
        facts->flags |= WAL_FACTS_CHANGES_LOST;
    facts->forks = calloc((size_t)changes->fork_count + 1, sizeof *facts->forks);
    facts->chunks = calloc((size_t)changes->chunk_count + 1, sizeof *facts->chunks);
    if (facts->forks == NULL || facts->chunks == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory for a segment's changes");

    facts->fork_count = changes->fork_count;
    for (uint32_t i = 0; i < changes->fork_count; i++) {
        const Fork *entry = &changes->forks[i];
        facts->forks[i] = (WalForkChange){.relation = entry->relation,
                                          .fork = entry->fork,
                                          .all_blocks = entry->all_blocks,
                                          .limit_block = entry->limit_block};
    }
    facts->chunk_count = store_chunks(changes, facts->forks, facts->chunks);
    qsort(facts->forks, facts->fork_count, sizeof *facts->forks, compare_forks);
    return true;
}
