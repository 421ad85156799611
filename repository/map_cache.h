/*
 * Raw map nodes that were read and proven, kept within a bound, for walks over several maps: those
 * share most of their nodes, and a shared one is then read once, by whichever walk comes to it
 * first.
 *
 * A node is known by its reference, digest included. When room is short, nodes go in no order:
 * walks pass over all nodes alike, and whoever dropped the oldest would drop each one just before
 * it is asked for again. Memory: the limit and a fixed table. Threads: any.
 *
 *     raw = map_cache_get(cache, ref), and where that is NULL: read it, then map_cache_keep, or
 *     map_cache_give_up when it could not be read
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

/* ref->raw_size bytes and one more, a copy (returned owned). NULL when it is not here: the caller
 * reads it, and others who ask for it wait for what becomes of that. */
uint8_t *map_cache_get(MapCache *cache, const MapNodeRef *ref) MUST_CHECK;
/* A proven node; copied. Where memory is short it is not kept, which is no error. */
void map_cache_keep(MapCache *cache, const MapNodeRef *ref, const uint8_t *raw);
void map_cache_give_up(MapCache *cache, const MapNodeRef *ref);

/* For tests and figures. */
size_t map_cache_bytes(MapCache *cache);
uint64_t map_cache_hits(MapCache *cache);

#endif
