/*
 * Maps whose nodes an enemy wrote: any bytes as nodes of a map pack, with references and digests
 * made right, so that only what the reader checks of the content stands in the way. Failures abort.
 *
 *     raw_map_begin(&map, repository, &bid);
 *     leaf = raw_map_node(&map, bytes, size);          a reference to put into the next node
 *     root = raw_map_node(&map, ...);
 *     raw_map_finish(&map);
 */
#ifndef PGCAIRN_TESTS_MAP_FIXTURE_H
#define PGCAIRN_TESTS_MAP_FIXTURE_H

#include "common/bytes.h"
#include "repository/map.h"
#include "repository/map_node.h"
#include "repository/object.h"

typedef struct {
    BackupId bid;
    ObjectWriter *object;
    KeyedDigest *digest;
    ByteWriter index;
    uint32_t count;
} RawMap;

/* Begins map pack 0 of the backup in cluster "main". */
void raw_map_begin(RawMap *map, Repository *repository, const BackupId *bid);
MapNodeRef raw_map_node(RawMap *map, const void *raw, size_t size);
void raw_map_finish(RawMap *map);

/* A root over a top node, with no pack lists. */
MapNodeRef raw_map_root(RawMap *map, uint64_t depth, const MapNodeRef *top);

/* Walks over every entry and region; CAIRN_OK at the end, or the failure's kind. */
CairnErrorKind map_fixture_walk(Repository *repository, const MapNodeRef *root,
                                uint64_t *entries_out);

#endif
