/*
 * Nodes of the map tree: how references and runs are encoded (docs/format.md, "Map pack").
 * Inside repository/ only: builder and reader share it.
 */
#ifndef PGCAIRN_REPOSITORY_MAP_NODE_H
#define PGCAIRN_REPOSITORY_MAP_NODE_H

#include "common/bytes.h"
#include "repository/map.h"

enum {
    MAP_LAYOUT = 1,
    NODE_VERSION = 1,
    NODE_BID_LIMIT = 65536,
    REGION_INLINE_LIMIT = 64,
    MAP_ENTRY_LIMIT = 512 << 10,
    PACKS_PER_LIST = 512,
    ENTRY_HAS_CRC = 1,
};

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
/* Runs with their count; creator indexes as they stand. */
void node_runs_append(ByteWriter *node, const MapRun *runs, size_t count);

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
