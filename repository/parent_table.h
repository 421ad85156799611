/*
 * What a backup's parent holds, for look-ups while the stream passes: files by path in any order,
 * the regions of a file in ascending order, and the nodes of the tree in key order.
 *
 * The parent's map is walked once, before the stream, and put on local scratch; regions that are
 * nodes of their own are read when they are asked for. Creators that the parent's reference summary
 * does not name are not handed out: no collector would keep their packs for us.
 *
 * Memory: buffers, one file's record (at most 4 MiB, of a file of many TiB) and one region's runs
 * (512 KiB). Scratch: about 100 bytes a file. Errors: those of the map; of the object's kind
 * (error_is_of_object) when it is damaged, and the backup can do without a parent.
 * Threads: one thread.
 */
#ifndef PGCAIRN_REPOSITORY_PARENT_TABLE_H
#define PGCAIRN_REPOSITORY_PARENT_TABLE_H

#include "repository/creator_table.h"
#include "repository/map.h"
#include "repository/refs.h"

typedef struct {
    Repository *repository;
    const char *cluster;
    const MapNodeRef *map_root;
    const Refs *refs;             /* the parent's ... */
    const CreatorTable *creators; /* ... and numbers for whom it names; borrowed like all else */
    const char *scratch_directory;
    uint64_t hash_mask; /* UINT64_MAX, see path_table.h */
} ParentTableOptions;

/* A creator that must not be drawn on. */
#define PARENT_CREATOR_UNKNOWN UINT32_MAX

typedef struct {
    uint64_t first_unit, units;
    const MapRun *runs; /* creators by number in the table, or PARENT_CREATOR_UNKNOWN; borrowed
                           until the next call */
    size_t count;       /* 0: nothing is known of this region */
    bool has_node;
    MapNodeRef node; /* that the backup may refer to again */
} ParentRegion;

typedef struct ParentTable ParentTable;
ParentTable *parent_table_new(const ParentTableOptions *options, CairnError *err) MUST_CHECK;
void parent_table_free(ParentTable *table);
/* Makes a file of the parent the current one. *found_out false: it has none of this path. */
bool parent_table_file(ParentTable *table, MapClass class, const char *path, uint64_t *size_out,
                       bool *found_out, CairnError *err) MUST_CHECK;
/* A region of the current file, ascending. A node of it that cannot be read counts as unknown. */
bool parent_table_region(ParentTable *table, uint64_t region, ParentRegion *region_out,
                         CairnError *err) MUST_CHECK;
/* MapSources.find_node; context is the table. */
bool parent_table_node(void *context, size_t level, const void *key, size_t key_size,
                       MapNodeRef *ref_out, bool *found_out, CairnError *err) MUST_CHECK;
/* Regions whose node could not be read. */
uint64_t parent_table_lost_regions(const ParentTable *table);
uint64_t parent_table_size_bytes(const ParentTable *table); /* of the parent's files, as it says */
SCOPED_TYPE(ParentTable, parent_table_free);

#endif
