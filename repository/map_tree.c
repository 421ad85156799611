/* Sorted entries as a tree of nodes: leaves first, each level a list of the nodes below it. */
#include "repository/map_builder_intern.h"

#include <string.h>

enum {
    NODE_SOFT_SIZE = 8 << 10,  /* content may end a node from here on */
    NODE_HARD_SIZE = 64 << 10, /* ends it in any case */
    BOUNDARY_LEAF = 64,        /* one key in so many is a boundary */
    BOUNDARY_INNER = 16,
};

static bool level_add_node(MapBuilder *builder, size_t depth, const uint8_t *key, size_t key_size,
                           const NodePlace *node, CairnError *err);

/* The parent's node in the same place of the tree, if there is one; NULL in *ref_out otherwise. */
static bool
find_parent_node(MapBuilder *builder, size_t depth, MapNodeRef *storage, const MapNodeRef **ref_out,
                 CairnError *err)
{
    const Level *level = &builder->levels[depth];
    bool found = false;
    *ref_out = NULL;
    if (builder->sources.find_node != NULL &&
        !builder->sources.find_node(builder->sources.context, depth, level->first_key,
                                    level->first_key_size, storage, &found, err))
        return false;
    if (found)
        *ref_out = storage;
    return true;
}

/* Makes a node of what a level has collected, and adds the reference one level up. */
static bool
flush_level(MapBuilder *builder, size_t depth, CairnError *err)
{
    Level *level = &builder->levels[depth];
    node_begin(&builder->node, depth == 0 ? NODE_LEAF : NODE_INNER, builder->sources.creators,
               &level->creators);
    byte_writer_varint(&builder->node, level->count);
    byte_writer_bytes(&builder->node, level->body.data, level->body.size);
    MapNodeRef storage;
    const MapNodeRef *parent;
    if (!byte_writer_check(&level->body, err) ||
        !find_parent_node(builder, depth, &storage, &parent, err) ||
        !map_builder_place_node(builder, parent, &level->last_made, err))
        return false;
    level->nodes_made++;
    level->count = 0;
    byte_writer_reset(&level->body);
    node_creators_reset(&level->creators);
    if (depth == MAP_DEPTH_LIMIT)
        return cairn_error(err, CAIRN_UNSUPPORTED, "the cluster has too many files");
    return level_add_node(builder, depth + 1, level->first_key, level->first_key_size,
                          &level->last_made, err);
}

static size_t
shared_prefix(const Level *level, const uint8_t *key, size_t key_size)
{
    size_t limit = level->last_key_size < key_size ? level->last_key_size : key_size;
    size_t shared = 0;
    while (shared < limit && level->last_key[shared] == key[shared])
        shared++;
    return shared;
}

/* Nodes end where the content says so (a hash of the key), so that an insertion moves no later
 * boundary. */
static bool
is_boundary(const Level *level, size_t depth, const uint8_t *key, size_t key_size)
{
    if (level->body.size >= NODE_HARD_SIZE)
        return true;
    uint32_t hash = crc32c((uint32_t)depth, key, key_size);
    return level->body.size >= NODE_SOFT_SIZE &&
           hash % (depth == 0 ? BOUNDARY_LEAF : BOUNDARY_INNER) == 0;
}

/* Before an entry of this size: one large entry must not push a node past the limit. */
static bool
level_begin_entry(MapBuilder *builder, size_t depth, const uint8_t *key, size_t key_size,
                  size_t payload_size, CairnError *err)
{
    Level *level = &builder->levels[depth];
    if (level->count > 0 && level->body.size + key_size + payload_size > MAP_NODE_LIMIT / 2 &&
        !flush_level(builder, depth, err))
        return false;
    if (level->count == 0) {
        memcpy(level->first_key, key, key_size);
        level->first_key_size = key_size;
        level->last_key_size = 0;
    }
    return true;
}

static bool
level_end_entry(MapBuilder *builder, size_t depth, const uint8_t *key, size_t key_size,
                CairnError *err)
{
    Level *level = &builder->levels[depth];
    level->count++;
    return !is_boundary(level, depth, key, key_size) || flush_level(builder, depth, err);
}

static bool
level_add_node(MapBuilder *builder, size_t depth, const uint8_t *key, size_t key_size,
               const NodePlace *node, CairnError *err)
{
    Level *level = &builder->levels[depth];
    if (!level_begin_entry(builder, depth, key, key_size, 0, err))
        return false;
    byte_writer_varint(&level->body, key_size);
    byte_writer_bytes(&level->body, key, key_size);
    node_ref_append(&level->body, &node->ref, node_creator(&level->creators, node->creator));
    return level_end_entry(builder, depth, key, key_size, err);
}

/* Runs of the payload into the leaf, creators renumbered. */
static void
renumber_runs(ByteReader *payload, Level *leaf)
{
    uint64_t count = byte_reader_varint(payload);
    byte_writer_varint(&leaf->body, count);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t head = byte_reader_varint(payload);
        byte_writer_varint(&leaf->body, head);
        switch (head % 4) {
        case RUN_ZERO:
            break;
        case RUN_DATA:
            byte_writer_varint(
                &leaf->body, node_creator(&leaf->creators, (uint32_t)byte_reader_varint(payload)));
            byte_writer_varint(&leaf->body, byte_reader_varint(payload));
            byte_writer_varint(&leaf->body, byte_reader_varint(payload));
            break;
        case RUN_SOURCE:
            byte_writer_varint(&leaf->body, byte_reader_varint(payload));
            byte_writer_varint(&leaf->body, byte_reader_varint(payload));
            break;
        default:
            byte_writer_varint(&leaf->body, byte_reader_varint(payload));
            break;
        }
    }
}

static void
renumber_ref(ByteReader *payload, Level *leaf)
{
    uint32_t creator = (uint32_t)byte_reader_varint(payload);
    byte_writer_varint(&leaf->body, node_creator(&leaf->creators, creator));
    for (int i = 0; i < 4; i++) /* pack, offset, stored and raw size */
        byte_writer_varint(&leaf->body, byte_reader_varint(payload));
    byte_writer_u8(&leaf->body, byte_reader_u8(payload));
    byte_writer_bytes(&leaf->body, byte_reader_bytes(payload, KEYED_DIGEST_SIZE),
                      KEYED_DIGEST_SIZE);
}

/* An entry as map_builder_add_draft put it into the sort, creators renumbered for this leaf. */
static void
renumber_entry(ByteReader payload, Level *leaf)
{
    uint8_t type = byte_reader_u8(&payload);
    byte_writer_u8(&leaf->body, type);
    byte_writer_varint(&leaf->body, byte_reader_varint(&payload)); /* mode */
    if (type == MAP_FILE) {
        byte_writer_varint(&leaf->body, byte_reader_varint(&payload)); /* size */
        uint8_t flags = byte_reader_u8(&payload);
        byte_writer_u8(&leaf->body, flags);
        if ((flags & ENTRY_HAS_CRC) != 0)
            byte_writer_u32(&leaf->body, byte_reader_u32(&payload));
        uint64_t regions = byte_reader_varint(&payload);
        byte_writer_varint(&leaf->body, regions);
        for (uint64_t i = 0; i < regions; i++) {
            uint8_t kind = byte_reader_u8(&payload);
            byte_writer_u8(&leaf->body, kind);
            if (kind == 0)
                renumber_runs(&payload, leaf);
            else
                renumber_ref(&payload, leaf);
        }
    }
    CAIRN_ASSERT(byte_reader_done(&payload)); /* our own bytes, back from our own scratch */
    leaf->body.failed |= leaf->creators.failed;
}

static bool
leaf_add(MapBuilder *builder, const uint8_t *key, size_t key_size, const void *payload,
         size_t payload_size, CairnError *err)
{
    Level *level = &builder->levels[0];
    if (!level_begin_entry(builder, 0, key, key_size, payload_size, err))
        return false;
    size_t shared = shared_prefix(level, key, key_size);
    byte_writer_varint(&level->body, shared);
    byte_writer_varint(&level->body, key_size - shared);
    byte_writer_bytes(&level->body, key + shared, key_size - shared);
    memcpy(level->last_key, key, key_size);
    level->last_key_size = key_size;
    renumber_entry(byte_reader(payload, payload_size), level);
    return level_end_entry(builder, 0, key, key_size, err);
}

static bool
write_entries(MapBuilder *builder, CairnError *err)
{
    for (;;) {
        const uint8_t *key, *payload;
        size_t key_size, payload_size;
        bool found;
        if (!map_sort_next(builder->sort, &key, &key_size, &payload, &payload_size, &found, err))
            return false;
        if (!found)
            return true;
        if (!leaf_add(builder, key, key_size, payload, payload_size, err))
            return false;
    }
}

/* Closes the levels from below; the first one that made a single node, with nothing above it, is
 * the top. */
static bool
finish_tree(MapBuilder *builder, NodePlace *top_out, size_t *depth_out, CairnError *err)
{
    for (size_t depth = 0; depth <= MAP_DEPTH_LIMIT; depth++) {
        Level *level = &builder->levels[depth];
        if ((level->count > 0 || (depth == 0 && level->nodes_made == 0)) &&
            !flush_level(builder, depth, err))
            return false;
        if (level->nodes_made == 1) {
            *top_out = level->last_made;
            *depth_out = depth;
            return true;
        }
    }
    return cairn_error(err, CAIRN_UNSUPPORTED, "the cluster has too many files");
}

bool
map_tree_write(MapBuilder *builder, NodePlace *top_out, size_t *depth_out, CairnError *err)
{
    return write_entries(builder, err) && finish_tree(builder, top_out, depth_out, err);
}

void
map_tree_free(MapBuilder *builder)
{
    for (size_t i = 0; i <= MAP_DEPTH_LIMIT; i++) {
        byte_writer_free(&builder->levels[i].body);
        node_creators_free(&builder->levels[i].creators);
    }
}
