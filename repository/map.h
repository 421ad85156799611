/*
 * The map of a backup: for every file, which stored slots hold its units (docs/format.md, "Map
 * pack").
 *
 * Building: entries come in any order from one thread, are sorted in runs on local scratch, and are
 * written as a tree of nodes into map packs. Reading: a walk in key order, or a look-up of one key.
 * Memory: MAP_SORT_MEMORY plus one node a level; scratch holds all entries of one backup (about 60
 * bytes a file).
 * Threads: one builder or reader, one thread.
 */
#ifndef PGCAIRN_REPOSITORY_MAP_H
#define PGCAIRN_REPOSITORY_MAP_H

#include "common/bytes.h"
#include "repository/backup_id.h"
#include "repository/repository.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    UNIT_SIZE = 8192,
    REGION_UNITS = 16384,
    MAP_KEY_LIMIT = 1025, /* class byte and path */
    MAP_NODE_LIMIT = 1 << 20,
    MAP_DEPTH_LIMIT = 8,
};

typedef enum { MAP_CLASS_CLUSTER = 0, MAP_CLASS_OURS = 1 } MapClass;
typedef enum { MAP_FILE = 0, MAP_DIRECTORY = 1 } MapEntryType;

/* Where a node lies. creator: whose map pack. */
typedef struct {
    BackupId creator;
    uint32_t pack;
    uint64_t offset;
    uint32_t stored_size;
    uint32_t raw_size;
    uint8_t codec;
    uint8_t digest[KEYED_DIGEST_SIZE];
} MapNodeRef;

/* units consecutive units of a file: zeros, or the slots slot..slot+units-1 of a pack. */
typedef struct {
    bool is_zero;
    uint64_t units;
    uint32_t creator; /* index into the reader's BID table (map_reader_creator); 0 for a builder:
                         itself */
    uint32_t pack;
    uint32_t slot;
} MapRun;

typedef struct {
    MapClass class;
    const char *path; /* borrowed until the next step */
    MapEntryType type;
    uint32_t mode;
    uint64_t size_bytes;
    bool has_crc32c;
    uint32_t crc32c;
} MapEntry;

static inline uint64_t
units_of_size(uint64_t size_bytes)
{
    return (size_bytes + UNIT_SIZE - 1) / UNIT_SIZE;
}

typedef struct MapBuilder MapBuilder;

/* scratch_directory: local, for the sort runs; bid: whose map packs (borrowed). */
MapBuilder *map_builder_new(Repository *repository, const char *cluster, const BackupId *bid,
                            const char *scratch_directory, CairnError *err) MUST_CHECK;
void map_builder_free(MapBuilder *builder);
/* One file or directory with all its runs in unit order; run_count is 0 for directories and empty
 * files. */
bool map_builder_add(MapBuilder *builder, const MapEntry *entry, const MapRun *runs,
                     size_t run_count, CairnError *err) MUST_CHECK;
/* Copy of a finished data pack's frame table (the bytes as they stand in its index). */
bool map_builder_add_frame_table(MapBuilder *builder, uint32_t pack, const void *table, size_t size,
                                 CairnError *err) MUST_CHECK;

typedef struct {
    MapNodeRef root;
    uint32_t map_pack_count;
    uint64_t map_bytes; /* stored, containers included */
    uint64_t file_count;
    uint64_t directory_count;
    uint64_t size_bytes; /* of the cluster's files */
} MapResult;

/* Everything durable. each_digest is called with each map pack's trailer digest, in order. */
typedef bool MapPackDigest(void *context, const uint8_t digest[SHA256_SIZE], CairnError *err);
bool map_builder_finish(MapBuilder *builder, MapPackDigest *each_digest, void *context,
                        MapResult *result_out, CairnError *err) MUST_CHECK;
SCOPED_TYPE(MapBuilder, map_builder_free);

typedef struct MapReader MapReader;
MapReader *map_reader_open(Repository *repository, const char *cluster, const MapNodeRef *root,
                           CairnError *err) MUST_CHECK;
/*
 * For walks over several maps. cache (borrowed, may be NULL): nodes that were proven before are not
 * read again. watch (may be NULL) is called with each node's reference before it is read; false
 * with err ends the walk.
 */
struct MapCache;
typedef bool MapNodeWatch(void *context, const MapNodeRef *ref, CairnError *err);
typedef struct {
    struct MapCache *cache;
    MapNodeWatch *watch;
    void *context;
} MapWalkOptions;
MapReader *map_reader_open_walk(Repository *repository, const char *cluster, const MapNodeRef *root,
                                const MapWalkOptions *options, CairnError *err) MUST_CHECK;
void map_reader_free(MapReader *reader);
void map_reader_totals(const MapReader *reader, uint64_t *files_out, uint64_t *directories_out,
                       uint64_t *size_out);
/* Next entry in key order; *found_out false at the end. */
bool map_reader_next(MapReader *reader, MapEntry *entry_out, bool *found_out,
                     CairnError *err) MUST_CHECK;
/* Start the walk at the first entry of this class and path or after it. */
bool map_reader_seek(MapReader *reader, MapClass class, const char *path,
                     CairnError *err) MUST_CHECK;
/*
 * Runs of the current entry, region by region: the next region's runs (borrowed until the next
 * call), first_unit_out its first unit; *count_out 0 after the last region. Checked: counts add up,
 * slots in range.
 */
bool map_reader_region(MapReader *reader, const MapRun **runs_out, size_t *count_out,
                       uint64_t *first_unit_out, CairnError *err) MUST_CHECK;
/* BID behind a run's creator index; valid as long as the reader. */
const BackupId *map_reader_creator(const MapReader *reader, uint32_t creator);
/* A pack's frame table from the map, for a pack whose tail is lost. malloc'ed; NOT_FOUND. Own packs
 * only. */
uint8_t *map_reader_frame_table(MapReader *reader, uint32_t pack, size_t *size_out,
                                CairnError *err) MUST_CHECK;
SCOPED_TYPE(MapReader, map_reader_free);

#endif
