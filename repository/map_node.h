/*
 * Nodes of the map tree: how references and runs are encoded (docs/format.md, "Map pack").
 * Inside repository/ only: builder and reader share it.
 */
#ifndef PGCAIRN_REPOSITORY_MAP_NODE_H
#define PGCAIRN_REPOSITORY_MAP_NODE_H

#include "common/bytes.h"
#include "repository/creator_table.h"
#include "repository/map.h"

enum {
    MAP_LAYOUT = 1,
    NODE_VERSION = 1,
    NODE_BID_LIMIT = CREATOR_LIMIT,
    REGION_INLINE_LIMIT = 64,
    MAP_ENTRY_LIMIT = 512 << 10,
    PACKS_PER_LIST = 512,
    ENTRY_HAS_CRC = 1,
};

/* Kinds of runs. */
enum { RUN_ZERO = 0, RUN_DATA = 1, RUN_NEXT = 2, RUN_SOURCE = 3 };

typedef enum {
    NODE_ROOT = 'T',
    NODE_INNER = 'I',
    NODE_LEAF = 'L',
    NODE_REGION = 'R',
    NODE_PACK_LIST = 'P',
    NODE_FRAME_TABLE = 'F',
} NodeType;

/* creator is the index in the BID table of the node that is being written. */
void node_ref_append(ByteWriter *node, const MapNodeRef *ref, uint32_t creator);
/* Type, version and a BID table of one. */
void node_start(ByteWriter *node, NodeType type, const BackupId *bid);
/*
 * Creators of one node, numbered in the order of their first use, so that nodes of equal content
 * have equal bytes, whoever writes them. An allocation failure is sticky, as a ByteWriter's.
 */
typedef struct {
    uint32_t *local; /* by number in the CreatorTable: number in the node + 1, or 0 */
    size_t local_size;
    uint32_t *used; /* numbers in the CreatorTable, by number in the node */
    size_t used_count, used_capacity;
    bool failed;
} NodeCreators;

uint32_t node_creator(NodeCreators *creators, uint32_t creator);
void node_creators_reset(NodeCreators *creators);
void node_creators_free(NodeCreators *creators);
/* Type, version and the BID table of these creators. */
void node_begin(ByteWriter *node, NodeType type, const CreatorTable *table,
                const NodeCreators *creators);
/* Runs with their count; creators NULL: numbers as they stand. */
void node_runs_append(ByteWriter *node, const MapRun *runs, size_t count, NodeCreators *creators);

/* A raw node under its reader: BIDs are borrowed from the raw bytes. */
typedef struct {
    ByteReader body; /* after the BID table */
    const uint8_t *bids;
    uint32_t bid_count;
} NodeReader;

/* CORRUPT unless raw begins as a node of this type. */
bool node_open(NodeReader *node, const void *raw, size_t size, NodeType type,
               CairnError *err) MUST_CHECK;
/* A reference out of node->body; the creator is resolved through the node's table. */
bool node_ref_read(NodeReader *node, MapNodeRef *ref_out, CairnError *err) MUST_CHECK;
bool node_bid(const NodeReader *node, uint64_t index, BackupId *bid_out,
              CairnError *err) MUST_CHECK;

#endif
