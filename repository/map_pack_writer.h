/*
 * Map packs as they are written: nodes one behind the other, each compressed, in packs that end
 * when they are full (docs/format.md, "Map pack"). Inside repository/ only: the lower end of the
 * map's builder.
 *
 * Memory: one compressed node, the open pack's index, a digest for each pack. Errors: the
 * storage's. Threads: one.
 */
#ifndef PGCAIRN_REPOSITORY_MAP_PACK_WRITER_H
#define PGCAIRN_REPOSITORY_MAP_PACK_WRITER_H

#include "common/bytes.h"
#include "common/digest.h"
#include "repository/map.h"

typedef struct MapPackWriter MapPackWriter;

MapPackWriter *map_pack_writer_new(Repository *repository, const char *cluster, const BackupId *bid,
                                   CairnError *err) MUST_CHECK;
void map_pack_writer_free(MapPackWriter *writer); /* abandons the open pack */
/* A pack that has reached it is full. */
void map_pack_writer_limit(MapPackWriter *writer, uint64_t pack_size);

/* Appends a raw node. ref: raw_size and digest are there, the rest is filled in. */
bool map_pack_writer_append(MapPackWriter *writer, const ByteWriter *node, MapNodeRef *ref,
                            CairnError *err) MUST_CHECK;
/* The open pack is durable. */
bool map_pack_writer_finish(MapPackWriter *writer, CairnError *err) MUST_CHECK;

/* Of all packs, after finish. */
uint32_t map_pack_writer_count(const MapPackWriter *writer);
uint64_t map_pack_writer_bytes(const MapPackWriter *writer);
/* SHA256_SIZE bytes, borrowed. */
const uint8_t *map_pack_writer_digest(const MapPackWriter *writer, uint32_t pack);

#endif
