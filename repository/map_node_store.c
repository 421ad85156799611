#include "repository/map_node_store.h"

#include "repository/map_cache.h"
#include "repository/map_packs.h"
#include "repository/object.h"
#include "repository/pack.h"

#include <stdio.h>
#include <string.h>

enum { OPEN_MAP_PACKS = 8 };

typedef struct {
    BackupId creator;
    uint32_t pack;
    ObjectReader *object; /* owned */
    uint64_t used;        /* for least-recently-used */
} OpenPack;

struct MapNodeStore {
    Repository *repository;
    char cluster[CLUSTER_NAME_LIMIT + 1];
    MapWalkOptions options;
    CodecContext *codec;
    KeyedDigest *digest;
    OpenPack open[OPEN_MAP_PACKS];
    uint64_t clock;
};

MapNodeStore *
map_node_store_new(Repository *repository, const char *cluster, const MapWalkOptions *options,
                   CairnError *err)
{
    SCOPED(MapNodeStore) store = calloc(1, sizeof *store);
    if (store == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    store->repository = repository;
    store->options = *options;
    snprintf(store->cluster, sizeof store->cluster, "%s", cluster);
    store->codec = repository_codec(repository, err);
    if (store->codec == NULL)
        return NULL;
    store->digest = repository_digest(repository, DIGEST_MAP, err);
    if (store->digest == NULL)
        return NULL;
    return take(&store);
}

void
map_node_store_free(MapNodeStore *store)
{
    if (store == NULL)
        return;
    for (size_t i = 0; i < OPEN_MAP_PACKS; i++) {
        if (store->open[i].object != NULL)
            object_reader_free(store->open[i].object);
    }
    if (store->codec != NULL)
        codec_close(store->codec);
    keyed_digest_free(store->digest);
    free(store);
}

static ObjectReader *
open_map_pack(MapNodeStore *store, const MapNodeRef *ref, CairnError *err)
{
    OpenPack *oldest = &store->open[0];
    for (size_t i = 0; i < OPEN_MAP_PACKS; i++) {
        OpenPack *open = &store->open[i];
        if (open->object != NULL && open->pack == ref->pack &&
            backup_id_equal(&open->creator, &ref->creator)) {
            open->used = ++store->clock;
            return open->object;
        }
        if (open->used < oldest->used)
            oldest = open;
    }

    char name[STORAGE_NAME_LIMIT];
    map_pack_name(name, store->cluster, &ref->creator, ref->pack);
    ObjectReader *object = object_open(store->repository, name, OBJECT_MAP, err);
    if (object == NULL)
        return NULL;
    if (oldest->object != NULL)
        object_reader_free(oldest->object);
    *oldest = (OpenPack){
        .creator = ref->creator, .pack = ref->pack, .object = object, .used = ++store->clock};
    return object;
}

/* The node's bytes, checked against its keyed digest, into raw. */
static bool
decode_node(MapNodeStore *store, const MapNodeRef *ref, const ObjectReader *object, uint8_t *raw,
            CairnError *err)
{
    uint8_t digest[KEYED_DIGEST_SIZE];
    const ObjectFrame frame = {.offset = ref->offset,
                               .stored_size = ref->stored_size,
                               .raw_size = ref->raw_size,
                               .codec = (CodecId)ref->codec};
    SCOPED_MEMORY uint8_t *stored = malloc((size_t)ref->stored_size + 1);
    if (stored == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!object_pread(object, stored, ref->stored_size, ref->offset, err) ||
        !object_decode(object, &frame, store->codec, stored, raw, err) ||
        !keyed_digest_of(store->digest, raw, ref->raw_size, digest, err))
        return cairn_error_wrap(err, "map pack %u of backup %s", ref->pack, ref->creator.text);
    return memcmp(digest, ref->digest, sizeof digest) == 0 ||
           cairn_error(err, CAIRN_CORRUPT, "map pack %u of backup %s: node at byte %llu is damaged",
                       ref->pack, ref->creator.text, (unsigned long long)ref->offset);
}

static bool
read_from_pack(MapNodeStore *store, const MapNodeRef *ref, uint8_t *raw, CairnError *err)
{
    MapPacks *packs = store->options.packs;
    if (packs == NULL) {
        const ObjectReader *own = open_map_pack(store, ref, err);
        return own != NULL && decode_node(store, ref, own, raw, err);
    }
    const ObjectReader *shared = map_packs_get(packs, &ref->creator, ref->pack, err);
    if (shared == NULL)
        return false;
    const bool done = decode_node(store, ref, shared, raw, err);
    map_packs_give_back(packs, shared);
    return done;
}

uint8_t *
map_node_store_read(MapNodeStore *store, const MapNodeRef *ref, CairnError *err)
{
    MapCache *cache = store->options.cache;
    if (store->options.watch != NULL && !store->options.watch(store->options.context, ref, err))
        return NULL;
    uint8_t *cached = cache != NULL ? map_cache_get(cache, ref) : NULL;
    if (cached != NULL)
        return cached;
    SCOPED_MEMORY uint8_t *raw = malloc((size_t)ref->raw_size + 1);
    const bool done = raw != NULL ? read_from_pack(store, ref, raw, err)
                                  : cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (cache != NULL && done)
        map_cache_keep(cache, ref, raw);
    else if (cache != NULL)
        map_cache_give_up(cache, ref);
    return done ? (uint8_t *)take(&raw) : NULL;
}
