/*
 * External sort of (key, payload) records by key: a buffer in memory, sorted runs on local scratch,
 * one merge. Crash: scratch files have no name any more once they are open. Memory: memory_size
 * while adding; 64 KiB a run (or its largest record) while merging.
 */
#ifndef PGCAIRN_REPOSITORY_MAP_SORT_H
#define PGCAIRN_REPOSITORY_MAP_SORT_H

#include "common/error.h"
#include "common/scoped.h"
#include "common/world.h"

#include <stddef.h>
#include <stdint.h>

enum { MAP_SORT_MEMORY = 6 << 20 };

typedef struct MapSort MapSort;
/* memory_size: MAP_SORT_MEMORY, or anything that holds the largest record and 8 bytes. */
MapSort *map_sort_new(const World *world, const char *scratch_directory, size_t memory_size,
                      CairnError *err) MUST_CHECK;
void map_sort_free(MapSort *sort);
bool map_sort_add(MapSort *sort, const void *key, size_t key_size, const void *payload,
                  size_t payload_size, CairnError *err) MUST_CHECK;
/* After the last add: records in key order, each borrowed until the next call. Equal keys: CORRUPT.
 */
bool map_sort_next(MapSort *sort, const uint8_t **key_out, size_t *key_size_out,
                   const uint8_t **payload_out, size_t *payload_size_out, bool *found_out,
                   CairnError *err) MUST_CHECK;
SCOPED_TYPE(MapSort, map_sort_free);

#endif
