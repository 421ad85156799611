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
#include "repository/creator_table.h"
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
    uint32_t creator; /* number in the reader's table (map_reader_creator), or in the builder's
                         (MapSources); 0 for a builder without one: itself */
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

/*
 * Where a map draws on others; everything borrowed as long as the builder.
 *
 * creators  what the creator numbers of runs mean; 0 is the builder's own backup
 * refs      counts the packs that the map refers to; may be NULL
 * find_node a node of the parent's tree at this level (0: the leaves) with this first key, if the
 *           map may refer to it; asked with ascending keys on each level; NULL: no parent
 */
typedef struct {
    const CreatorTable *creators;
    struct RefsBuilder *refs;
    bool (*find_node)(void *context, size_t level, const void *key, size_t key_size,
                      MapNodeRef *ref_out, bool *found_out, CairnError *err);
    void *context;
} MapSources;

/* Before anything is added. */
void map_builder_draw_on(MapBuilder *builder, const MapSources *sources);
/* How large a map pack gets, where that is not PACK_TARGET_SIZE: the storage may hold it in memory.
   Before anything is added. */
void map_builder_limit_packs(MapBuilder *builder, uint64_t pack_size);

/* The regions of a file that were encoded so far. Start with {0}; free with map_draft_free. */
typedef struct {
    ByteWriter regions;
    uint64_t region_count;
    uint64_t units;
} MapDraft;

void map_draft_free(MapDraft *draft);
/* The next region of a file: REGION_UNITS, or fewer in the last one. parent (may be NULL): node
   that holds the same region of the parent's file, referred to again when it is equal. */
bool map_builder_region(MapBuilder *builder, MapDraft *draft, const MapRun *runs, size_t count,
                        const MapNodeRef *parent, CairnError *err) MUST_CHECK;
/* One file or directory, whose regions are all in the draft. */
bool map_builder_add_draft(MapBuilder *builder, const MapEntry *entry, const MapDraft *draft,
                           CairnError *err) MUST_CHECK;
/* The same in one step: all runs in unit order; run_count is 0 for directories and empty files. */
bool map_builder_add(MapBuilder *builder, const MapEntry *entry, const MapRun *runs,
                     size_t run_count, CairnError *err) MUST_CHECK;
/* Copy of a finished data pack's frame table (the bytes as they stand in its index). */
bool map_builder_add_frame_table(MapBuilder *builder, uint32_t pack, const void *table, size_t size,
                                 CairnError *err) MUST_CHECK;

typedef struct {
    MapNodeRef root;
    uint32_t map_pack_count;
    uint64_t map_bytes;    /* stored, containers included */
    uint64_t shared_nodes; /* of the parent's, referred to again */
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
 * For walks over several maps, also at the same time. cache and packs (borrowed, may be NULL):
 * nodes that were proven before are not read again, packs that are open not opened. watch (may be
 * NULL) is called with each node's reference before it is read; false with err ends the walk.
 */
struct MapCache;
struct MapPacks;
typedef bool MapNodeWatch(void *context, const MapNodeRef *ref, CairnError *err);
typedef struct {
    struct MapCache *cache;
    struct MapPacks *packs;
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
/* The same without following a reference to a region's own node. */
typedef struct {
    uint64_t first_unit, units;
    bool is_node;
    MapNodeRef node;    /* when it is one ... */
    const MapRun *runs; /* ... else its runs, borrowed until the next call */
    size_t count;
} MapRegion;
bool map_reader_region_raw(MapReader *reader, MapRegion *region_out, bool *found_out,
                           CairnError *err) MUST_CHECK;
/* Runs of a region's node, checked as above, wherever the walk stands. Borrowed until the next
   call. */
bool map_reader_region_node(MapReader *reader, const MapNodeRef *ref, uint64_t first_unit,
                            uint64_t units, const MapRun **runs_out, size_t *count_out,
                            CairnError *err) MUST_CHECK;
/* Calls back for every node of the tree, leaves at level 0, as the walk comes to it: on each level
   in key order. key: the first one of the node; NULL for the top. */
typedef struct {
    size_t level;
    const uint8_t *key;
    size_t key_size;
    const MapNodeRef *ref;
} MapNodeSeenAt;
typedef bool MapNodeSeen(void *context, const MapNodeSeenAt *at, CairnError *err);
void map_reader_on_node(MapReader *reader, MapNodeSeen *on_node, void *context);
/* BID behind a run's creator number; valid as long as the reader. */
const BackupId *map_reader_creator(const MapReader *reader, uint32_t creator);
/* A pack's frame table from the map, for a pack whose tail is lost. malloc'ed; NOT_FOUND. Own packs
 * only. */
uint8_t *map_reader_frame_table(MapReader *reader, uint32_t pack, size_t *size_out,
                                CairnError *err) MUST_CHECK;
SCOPED_TYPE(MapReader, map_reader_free);

#endif
