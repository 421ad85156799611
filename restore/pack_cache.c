/*
 * Invariants:
 * 1. An entry with users > 0 keeps its pack open; only unused ones are closed.
 * 2. Unused packs take cache_bytes at most, and are PACKS_KEPT_LIMIT at most.
 * 3. There are entries for all users and all that is kept: one is always free.
 */
#include "restore/pack_cache.h"

#include <pthread.h>
#include <stdlib.h>

enum { ENTRY_COUNT = PACKS_KEPT_LIMIT + READERS_LIMIT };

struct OpenPack {
    BackupId bid;
    uint32_t number;
    unsigned users;   /* 0 and no pack: free */
    PackReader *pack; /* NULL with users: being opened */
    size_t bytes;
    uint64_t last_use;
};

struct PackCache {
    Repository *repository;
    const char *cluster;
    size_t cache_bytes;
    pthread_mutex_t lock;
    pthread_cond_t opened; /* or failed to */
    size_t unused_bytes;
    size_t unused_count;
    uint64_t uses;
    OpenPack entries[ENTRY_COUNT];
};

PackCache *
pack_cache_new(Repository *repository, const char *cluster, size_t cache_bytes, CairnError *err)
{
    PackCache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    cache->repository = repository;
    cache->cluster = cluster;
    cache->cache_bytes = cache_bytes;
    CAIRN_ASSERT(pthread_mutex_init(&cache->lock, NULL) == 0);
    CAIRN_ASSERT(pthread_cond_init(&cache->opened, NULL) == 0);
    return cache;
}

void
pack_cache_free(PackCache *cache)
{
    if (cache == NULL)
        return;
    for (size_t i = 0; i < ENTRY_COUNT; i++) {
        CAIRN_ASSERT(cache->entries[i].users == 0);
        pack_reader_free(cache->entries[i].pack);
    }
    pthread_cond_destroy(&cache->opened);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

const PackReader *
open_pack_reader(const OpenPack *open)
{
    return open->pack;
}

bool
open_pack_is(const OpenPack *open, const BackupId *bid, uint32_t number)
{
    return (open->pack != NULL || open->users > 0) && open->number == number &&
           backup_id_equal(&open->bid, bid);
}

static OpenPack *
find(PackCache *cache, const BackupId *bid, uint32_t number)
{
    for (size_t i = 0; i < ENTRY_COUNT; i++) {
        if (open_pack_is(&cache->entries[i], bid, number))
            return &cache->entries[i];
    }
    return NULL;
}

static OpenPack *
find_free(PackCache *cache)
{
    size_t i = 0;

    while (i < ENTRY_COUNT && (cache->entries[i].pack != NULL || cache->entries[i].users > 0))
        i++;
    CAIRN_ASSERT(i < ENTRY_COUNT); /* 3 */
    return &cache->entries[i];
}

/* Leaves the lock while it reads. The entry is marked as in use, so that nobody takes it. */
static OpenPack *
open_new(PackCache *cache, const BackupId *bid, uint32_t number, CairnError *err)
{
    OpenPack *open = find_free(cache);
    *open = (OpenPack){.bid = *bid, .number = number, .users = 1};

    pthread_mutex_unlock(&cache->lock);
    PackReader *pack = pack_open(cache->repository, cache->cluster, bid, number, err);
    if (pack != NULL)
        pack_drop_directory(pack);
    pthread_mutex_lock(&cache->lock);

    open->pack = pack;
    open->users = pack == NULL ? 0 : 1;
    open->bytes = pack == NULL ? 0 : pack_memory_bytes(pack);
    pthread_cond_broadcast(&cache->opened);
    return pack == NULL ? NULL : open;
}

OpenPack *
pack_cache_use(PackCache *cache, const BackupId *bid, uint32_t number, CairnError *err)
{
    pthread_mutex_lock(&cache->lock);
    OpenPack *open = find(cache, bid, number);
    while (open != NULL && open->pack == NULL) {
        pthread_cond_wait(&cache->opened, &cache->lock);
        open = find(cache, bid, number);
    }
    if (open == NULL) {
        open = open_new(cache, bid, number, err);
    } else {
        if (open->users == 0) {
            cache->unused_bytes -= open->bytes;
            cache->unused_count--;
        }
        open->users++;
    }
    pthread_mutex_unlock(&cache->lock);
    return open;
}

/* Closes the one that was used the longest time ago. */
static void
close_oldest(PackCache *cache)
{
    OpenPack *oldest = NULL;
    for (size_t i = 0; i < ENTRY_COUNT; i++) {
        OpenPack *open = &cache->entries[i];
        if (open->pack != NULL && open->users == 0 &&
            (oldest == NULL || open->last_use < oldest->last_use))
            oldest = open;
    }
    CAIRN_ASSERT(oldest != NULL);
    pack_reader_free(oldest->pack);
    oldest->pack = NULL;
    cache->unused_bytes -= oldest->bytes;
    cache->unused_count--;
}

void
pack_cache_give_back(PackCache *cache, OpenPack *open)
{
    pthread_mutex_lock(&cache->lock);
    open->last_use = ++cache->uses;
    if (--open->users == 0) {
        cache->unused_bytes += open->bytes;
        cache->unused_count++;
        while (cache->unused_bytes > cache->cache_bytes || cache->unused_count > PACKS_KEPT_LIMIT)
            close_oldest(cache); /* 2 */
    }
    pthread_mutex_unlock(&cache->lock);
}
