#include "repository/map_node.h"

enum { RUN_ZERO = 0, RUN_DATA = 1, RUN_NEXT = 2 };

void
node_ref_append(ByteWriter *node, const MapNodeRef *ref, uint32_t creator)
{
    byte_writer_varint(node, creator);
    byte_writer_varint(node, ref->pack);
    byte_writer_varint(node, ref->offset);
    byte_writer_varint(node, ref->stored_size);
    byte_writer_varint(node, ref->raw_size);
    byte_writer_u8(node, ref->codec);
    byte_writer_bytes(node, ref->digest, sizeof ref->digest);
}

void
node_start(ByteWriter *node, NodeType type, const BackupId *bid)
{
    byte_writer_reset(node);
    byte_writer_u8(node, (uint8_t)type);
    byte_writer_u8(node, NODE_VERSION);
    byte_writer_varint(node, 1);
    byte_writer_bytes(node, bid->text, BACKUP_ID_LENGTH);
}

void
node_runs_append(ByteWriter *node, const MapRun *runs, size_t count)
{
    const MapRun *last = NULL; /* data run before */
    byte_writer_varint(node, count);
    for (size_t i = 0; i < count; i++) {
        const MapRun *run = &runs[i];
        if (run->is_zero) {
            byte_writer_varint(node, run->units * 4 + RUN_ZERO);
            continue;
        }
        uint64_t last_end = last != NULL ? last->slot + last->units : 0;
        if (last != NULL && last->creator == run->creator && last->pack == run->pack &&
            run->slot >= last_end) {
            byte_writer_varint(node, run->units * 4 + RUN_NEXT);
            byte_writer_varint(node, run->slot - last_end);
        } else {
            byte_writer_varint(node, run->units * 4 + RUN_DATA);
            byte_writer_varint(node, run->creator);
            byte_writer_varint(node, run->pack);
            byte_writer_varint(node, run->slot);
        }
        last = run;
    }
}

bool
node_open(NodeReader *node, const void *raw, size_t size, NodeType type, CairnError *err)
{
    ByteReader body = byte_reader(raw, size);
    uint8_t actual = byte_reader_u8(&body);
    uint8_t version = byte_reader_u8(&body);
    uint64_t bid_count = byte_reader_varint_max(&body, NODE_BID_LIMIT);
    const uint8_t *bids = byte_reader_bytes(&body, bid_count * BACKUP_ID_LENGTH);
    if (bids == NULL || actual != type || version != NODE_VERSION) {
        return cairn_error(err, CAIRN_CORRUPT, "map node is no '%c' node of version %d", type,
                           NODE_VERSION);
    }
    *node = (NodeReader){.body = body, .bids = bids, .bid_count = (uint32_t)bid_count};
    return true;
}

bool
node_bid(const NodeReader *node, uint64_t index, BackupId *bid_out, CairnError *err)
{
    char text[BACKUP_ID_LENGTH + 1];
    if (index >= node->bid_count)
        return cairn_error(err, CAIRN_CORRUPT, "map node points at a backup that it does not name");
    memcpy(text, node->bids + index * BACKUP_ID_LENGTH, BACKUP_ID_LENGTH);
    text[BACKUP_ID_LENGTH] = '\0';
    if (!backup_id_parse(text, bid_out))
        return cairn_error(err, CAIRN_CORRUPT, "map node holds an impossible backup id");
    return true;
}

bool
node_ref_read(NodeReader *node, MapNodeRef *ref_out, CairnError *err)
{
    ByteReader *body = &node->body;
    MapNodeRef ref = {0};
    uint64_t creator = byte_reader_varint(body);
    ref.pack = (uint32_t)byte_reader_varint_max(body, INT32_MAX);
    ref.offset = byte_reader_varint(body);
    ref.stored_size = (uint32_t)byte_reader_varint_max(body, MAP_NODE_LIMIT + 4096);
    ref.raw_size = (uint32_t)byte_reader_varint_max(body, MAP_NODE_LIMIT);
    ref.codec = byte_reader_u8(body);
    const uint8_t *digest = byte_reader_bytes(body, sizeof ref.digest);
    if (digest == NULL)
        return cairn_error(err, CAIRN_CORRUPT, "map node is cut off");
    memcpy(ref.digest, digest, sizeof ref.digest);
    if (!node_bid(node, creator, &ref.creator, err))
        return false;
    *ref_out = ref;
    return true;
}
