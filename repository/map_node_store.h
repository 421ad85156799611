/*
 * Nodes of maps as they are read: out of map packs, decoded, and proven by the keyed digest that
 * their reference gives. Inside repository/ only: the lower end of the map's reader.
 *
 * Memory: a few open packs; each node is the caller's. Errors: NOT_FOUND and CORRUPT name the map
 * pack and its backup. Threads: one.
 */
#ifndef PGCAIRN_REPOSITORY_MAP_NODE_STORE_H
#define PGCAIRN_REPOSITORY_MAP_NODE_STORE_H

#include "common/scoped.h"
#include "repository/map.h"

typedef struct MapNodeStore MapNodeStore;

/* options: what to ask before a node is read, and where to look for it first; copied. */
MapNodeStore *map_node_store_new(Repository *repository, const char *cluster,
                                 const MapWalkOptions *options, CairnError *err) MUST_CHECK;
void map_node_store_free(MapNodeStore *store);
SCOPED_TYPE(MapNodeStore, map_node_store_free);

/* The raw node behind a reference, ref->raw_size bytes. Returned owned. */
uint8_t *map_node_store_read(MapNodeStore *store, const MapNodeRef *ref,
                             CairnError *err) MUST_CHECK;

#endif
