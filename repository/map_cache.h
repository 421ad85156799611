/*
 * Raw map nodes that were read and proven, kept within a bound, for walks over several maps: those
 * share most of their nodes, and a shared one is then read once.
 *
 * A node is known by its reference, digest included. When room is short, nodes go in no order:
 * walks pass over all nodes alike, and whoever dropped the oldest would drop each one just before
 * it is asked for again. Memory: the limit and a fixed table. Threads: one cache, one thread.
 */
#ifndef PGCAIRN_REPOSITORY_MAP_CACHE_H
#define PGCAIRN_REPOSITORY_MAP_CACHE_H

#include "common/scoped.h"
#include "repository/map.h"

#include <stddef.h>
#include <stdint.h>

typedef struct MapCache MapCache;

MapCache *map_cache_new(size_t limit_bytes, CairnError *err) MUST_CHECK;
void map_cache_free(MapCache *cache);
SCOPED_TYPE(MapCache, map_cache_free);

/* ref->raw_size bytes, borrowed until the next call; NULL when it is not here. */
const uint8_t *map_cache_find(MapCache *cache, const MapNodeRef *ref);
/* A proven node; copied. Where memory is short it is not kept, which is no error. */
void map_cache_keep(MapCache *cache, const MapNodeRef *ref, const uint8_t *raw);

/* For tests and figures. */
size_t map_cache_bytes(const MapCache *cache);
uint64_t map_cache_hits(const MapCache *cache);

#endif
