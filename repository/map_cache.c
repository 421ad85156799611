#include "repository/map_cache.h"

#include <pthread.h>
#include <string.h>

/* Reading: at most so many nodes are waited for; a walk beyond them reads for itself. */
enum { SLOTS = 4096, READING_LIMIT = 64 };

typedef struct {
    MapNodeRef ref;
    uint8_t *raw; /* owned; NULL: free */
} Slot;

struct MapCache {
    size_t limit, bytes;
    uint64_t hits;
    uint32_t hand; /* next slot that gives way */
    Slot slots[SLOTS];
    pthread_mutex_t mutex;
    pthread_cond_t read; /* a node, or it could not be */
    MapNodeRef reading[READING_LIMIT];
    size_t reading_count;
};

MapCache *
map_cache_new(size_t limit_bytes, CairnError *err)
{
    MapCache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    cache->limit = limit_bytes;
    pthread_mutex_init(&cache->mutex, NULL);
    pthread_cond_init(&cache->read, NULL);
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
    pthread_mutex_destroy(&cache->mutex);
    pthread_cond_destroy(&cache->read);
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

/* Where it stands among those that are being read; reading_count: nowhere. */
static size_t
find_reading(const MapCache *cache, const MapNodeRef *ref)
{
    size_t i = 0;
    while (i < cache->reading_count && !same_ref(&cache->reading[i], ref))
        i++;
    return i;
}

uint8_t *
map_cache_get(MapCache *cache, const MapNodeRef *ref)
{
    const Slot *slot = slot_of(cache, ref);
    uint8_t *copy = NULL;
    if (ref->raw_size > cache->limit)
        return NULL; /* never kept: there is nothing to wait for */
    pthread_mutex_lock(&cache->mutex);
    while (find_reading(cache, ref) < cache->reading_count)
        pthread_cond_wait(&cache->read, &cache->mutex);
    if (slot->raw != NULL && same_ref(&slot->ref, ref)) {
        copy = malloc((size_t)ref->raw_size + 1);
        if (copy != NULL)
            memcpy(copy, slot->raw, ref->raw_size);
        cache->hits++;
    } else if (cache->reading_count < READING_LIMIT) {
        cache->reading[cache->reading_count++] = *ref;
    }
    pthread_mutex_unlock(&cache->mutex);
    return copy;
}

/* Whoever waits for it looks again. */
static void
end_reading(MapCache *cache, const MapNodeRef *ref)
{
    const size_t at = find_reading(cache, ref);
    if (at == cache->reading_count)
        return;
    cache->reading[at] = cache->reading[--cache->reading_count];
    pthread_cond_broadcast(&cache->read);
}

static void
keep(MapCache *cache, const MapNodeRef *ref, const uint8_t *raw)
{
    Slot *slot = slot_of(cache, ref);
    drop(cache, slot);
    while (cache->bytes + ref->raw_size > cache->limit)
        drop(cache, &cache->slots[cache->hand++ % SLOTS]);
    slot->raw = malloc((size_t)ref->raw_size + 1);
    if (slot->raw == NULL)
        return;
    memcpy(slot->raw, raw, ref->raw_size);
    slot->ref = *ref;
    cache->bytes += ref->raw_size;
}

void
map_cache_keep(MapCache *cache, const MapNodeRef *ref, const uint8_t *raw)
{
    if (ref->raw_size > cache->limit)
        return;
    pthread_mutex_lock(&cache->mutex);
    keep(cache, ref, raw);
    end_reading(cache, ref);
    pthread_mutex_unlock(&cache->mutex);
}

void
map_cache_give_up(MapCache *cache, const MapNodeRef *ref)
{
    pthread_mutex_lock(&cache->mutex);
    end_reading(cache, ref);
    pthread_mutex_unlock(&cache->mutex);
}

size_t
map_cache_bytes(MapCache *cache)
{
    pthread_mutex_lock(&cache->mutex);
    const size_t bytes = cache->bytes;
    pthread_mutex_unlock(&cache->mutex);
    return bytes;
}

uint64_t
map_cache_hits(MapCache *cache)
{
    pthread_mutex_lock(&cache->mutex);
    const uint64_t hits = cache->hits;
    pthread_mutex_unlock(&cache->mutex);
    return hits;
}
