/*
 * What the files of the map's reader share. Inside repository/ only.
 *
 * map_reader.c      the root, and the walk: which entry comes next, or stands at a key
 * map_entry.c       one entry taken apart: its key, its regions, their runs
 * map_node_store.c  nodes by their references
 *
 * Invariants, whoever wrote the map
 * 1. The walk ends: the tree has a fixed depth, no node below a root of depth > 0 is empty, and
 * keys ascend strictly through the whole tree, so that a node can be reached in one place only.
 * 2. Every path handed out is clean (path_is_clean) and stands once.
 * 3. Runs handed out add up to the file's size, and slots stay below 2^31.
 */
#ifndef PGCAIRN_REPOSITORY_MAP_READER_INTERN_H
#define PGCAIRN_REPOSITORY_MAP_READER_INTERN_H

#include "repository/map_node.h"
#include "repository/map_node_store.h"

/* A node on the way from the root to the current entry. */
typedef struct {
    uint8_t *raw; /* owned */
    NodeReader node;
    uint64_t left;      /* children or entries not read yet */
    const uint8_t *key; /* of the child read last, borrowed from raw; NULL before the first */
    size_t key_size;
} Step;

/* A source of a list of runs: where its last run so far ended. */
typedef struct {
    uint32_t creator, pack;
    uint64_t end;
} RunSource;

struct MapReader {
    MapNodeStore *nodes;
    CreatorTable *creators; /* every BID seen so far: what run indexes mean to our caller */

    MapNodeRef top;
    MapNodeRef *pack_lists;
    size_t pack_list_count;
    uint64_t files, directories, size_bytes;
    size_t depth;

    Step steps[MAP_DEPTH_LIMIT + 1]; /* 0 is the top, depth the leaf */
    bool positioned;
    bool at_leaf_start; /* the next entry is its leaf's first, whose key stands whole */
    uint8_t key[MAP_KEY_LIMIT + 1];
    size_t key_size; /* 0 before the first entry */
    bool have_entry; /* an entry is parsed and not handed out yet (after a seek) */
    MapEntry entry;

    ByteReader regions; /* of the current entry, at its next region */
    uint64_t region_count, region_next, units_left;
    MapRun *runs;
    size_t run_capacity;
    RunSource *sources; /* of the list of runs being decoded, by number */
    size_t source_count, source_capacity;

    MapNodeSeen *on_node; /* may be NULL */
    void *on_node_context;
};

int map_key_compare(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size);

/* The leaf's next entry into reader->entry, all of it checked, its regions still to be read. */
bool map_reader_parse_entry(MapReader *reader, CairnError *err) MUST_CHECK;

#endif
