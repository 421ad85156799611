#include "repository/map_cache.h"

#include <string.h>

enum { SLOTS = 4096 };

typedef struct {
    MapNodeRef ref;
    uint8_t *raw; /* owned; NULL: free */
} Slot;

struct MapCache {
    size_t limit, bytes;
    uint64_t hits;
    uint32_t hand; /* next slot that gives way */
    Slot slots[SLOTS];
};

MapCache *
map_cache_new(size_t limit_bytes, CairnError *err)
{
    MapCache *cache = calloc(1, sizeof *cache);
    if (cache == NULL)
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
    else
        cache->limit = limit_bytes;
    return cache;
}

static void
drop(MapCache *cache, Slot *slot)
{
    if (slot->raw == NULL)
        return;
    cache->bytes -= slot->ref.raw_size;
    free(slot->raw);
    slot->raw = NULL;
}

void
map_cache_free(MapCache *cache)
{
    if (cache == NULL)
        return;
    for (size_t i = 0; i < SLOTS; i++)
        drop(cache, &cache->slots[i]);
    free(cache);
}

/* Digests are as good as random: their first bytes choose. */
static Slot *
slot_of(MapCache *cache, const MapNodeRef *ref)
{
    return &cache->slots[get_u32(ref->digest) % SLOTS];
}

/* The whole reference: a node proven at one place says nothing of its copy at another. */
static bool
same_ref(const MapNodeRef *a, const MapNodeRef *b)
{
    return a->pack == b->pack && a->offset == b->offset && a->stored_size == b->stored_size &&
           a->raw_size == b->raw_size && a->codec == b->codec &&
           memcmp(a->digest, b->digest, sizeof a->digest) == 0 &&
           backup_id_equal(&a->creator, &b->creator);
}

const uint8_t *
map_cache_find(MapCache *cache, const MapNodeRef *ref)
{
    const Slot *slot = slot_of(cache, ref);
    if (slot->raw == NULL || !same_ref(&slot->ref, ref))
        return NULL;
    cache->hits++;
    return slot->raw;
}

void
map_cache_keep(MapCache *cache, const MapNodeRef *ref, const uint8_t *raw)
{
    Slot *slot = slot_of(cache, ref);
    drop(cache, slot);
    if (ref->raw_size > cache->limit)
        return;
    while (cache->bytes + ref->raw_size > cache->limit)
        drop(cache, &cache->slots[cache->hand++ % SLOTS]);
    slot->raw = malloc((size_t)ref->raw_size + 1);
    if (slot->raw == NULL)
        return;
    memcpy(slot->raw, raw, ref->raw_size);
    slot->ref = *ref;
    cache->bytes += ref->raw_size;
}

size_t
map_cache_bytes(const MapCache *cache)
{
    return cache->bytes;
}

uint64_t
map_cache_hits(const MapCache *cache)
{
    return cache->hits;
}
