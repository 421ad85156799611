/*
 * What the files of the map's builder share. Inside repository/ only.
 *
 * map_builder.c      entries and their regions, frame tables, the root
 * map_tree.c         sorted entries become a tree of nodes, level by level
 * map_pack_writer.c  nodes become packs
 */
#ifndef PGCAIRN_REPOSITORY_MAP_BUILDER_INTERN_H
#define PGCAIRN_REPOSITORY_MAP_BUILDER_INTERN_H

#include "repository/map_node.h"
#include "repository/map_pack_writer.h"
#include "repository/map_sort.h"

/* A node that the map refers to: newly written, or the parent's. */
typedef struct {
    MapNodeRef ref;
    uint32_t creator; /* number of ref.creator */
} NodePlace;

/* One level of the tree while it grows: level 0 collects entries, the others references. */
typedef struct {
    ByteWriter body;
    NodeCreators creators; /* those that the body names */
    uint64_t count;
    uint8_t first_key[MAP_KEY_LIMIT + 1];
    size_t first_key_size;
    uint8_t last_key[MAP_KEY_LIMIT + 1];
    size_t last_key_size;
    uint64_t nodes_made;
    NodePlace last_made;
} Level;

struct MapBuilder {
    BackupId bid;
    MapSort *sort;
    MapPackWriter *packs;
    KeyedDigest *digest;
    CreatorTable *own_creators; /* where nobody gave us a table: our own backup alone */
    MapSources sources;
    uint64_t shared_nodes;
    ByteWriter node; /* the node being written out */
    ByteWriter payload;
    ByteWriter region;            /* one region's runs ... */
    NodeCreators region_creators; /* ... and whom they name */

    Level levels[MAP_DEPTH_LIMIT + 1]; /* map_tree.c's */
    ByteWriter pack_list;              /* current 'P' node's entries */
    uint32_t pack_list_count;
    MapNodeRef *pack_lists; /* finished 'P' nodes */
    uint32_t pack_lists_count;
    uint64_t file_count, directory_count, size_bytes;
};

/*
 * Makes the raw node in builder->node part of the map: the parent's own node where that holds the
 * same bytes (by keyed digest and length) and its backup is one we may draw on, else a new one.
 */
bool map_builder_place_node(MapBuilder *builder, const MapNodeRef *parent, NodePlace *place_out,
                            CairnError *err) MUST_CHECK;

/* All entries out of the sort; the tree's top node, and how many levels lie below it. */
bool map_tree_write(MapBuilder *builder, NodePlace *top_out, size_t *depth_out,
                    CairnError *err) MUST_CHECK;
void map_tree_free(MapBuilder *builder);

#endif
