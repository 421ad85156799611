#include "repository/map_reader_intern.h"

#include <string.h>

static bool
parse_root(MapReader *reader, const uint8_t *raw, size_t size, CairnError *err)
{
    NodeReader node;
    if (!node_open(&node, raw, size, NODE_ROOT, err))
        return false;
    reader->depth = byte_reader_varint_max(&node.body, MAP_DEPTH_LIMIT);
    if (!node_ref_read(&node, &reader->top, err))
        return false;
    uint64_t lists = byte_reader_varint_max(&node.body, MAP_NODE_LIMIT / 20);
    reader->pack_lists = calloc(lists + 1, sizeof *reader->pack_lists);
    if (reader->pack_lists == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    for (uint64_t i = 0; i < lists; i++) {
        if (!node_ref_read(&node, &reader->pack_lists[i], err))
            return false;
    }
    reader->pack_list_count = lists;
    reader->files = byte_reader_varint(&node.body);
    reader->directories = byte_reader_varint(&node.body);
    reader->size_bytes = byte_reader_varint(&node.body);
    if (!byte_reader_done(&node.body))
        return cairn_error(err, CAIRN_CORRUPT, "map root is damaged");
    return true;
}

MapReader *
map_reader_open(Repository *repository, const char *cluster, const MapNodeRef *root,
                CairnError *err)
{
    return map_reader_open_walk(repository, cluster, root, &(MapWalkOptions){0}, err);
}

MapReader *
map_reader_open_walk(Repository *repository, const char *cluster, const MapNodeRef *root,
                     const MapWalkOptions *options, CairnError *err)
{
    SCOPED(MapReader) reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    reader->nodes = map_node_store_new(repository, cluster, options, err);
    if (reader->nodes == NULL || (reader->creators = creator_table_new(err)) == NULL)
        return NULL;
    SCOPED_MEMORY uint8_t *raw = map_node_store_read(reader->nodes, root, err);
    if (raw == NULL || !parse_root(reader, raw, root->raw_size, err))
        return NULL;
    return take(&reader);
}

void
map_reader_free(MapReader *reader)
{
    if (reader == NULL)
        return;
    map_node_store_free(reader->nodes);
    for (size_t i = 0; i <= MAP_DEPTH_LIMIT; i++)
        free(reader->steps[i].raw);
    creator_table_free(reader->creators);
    free(reader->pack_lists);
    free(reader->runs);
    free(reader->sources);
    free(reader);
}

void
map_reader_totals(const MapReader *reader, uint64_t *files_out, uint64_t *directories_out,
                  uint64_t *size_out)
{
    *files_out = reader->files;
    *directories_out = reader->directories;
    *size_out = reader->size_bytes;
}

const BackupId *
map_reader_creator(const MapReader *reader, uint32_t creator)
{
    return creator_table_get(reader->creators, creator);
}

void
map_reader_on_node(MapReader *reader, MapNodeSeen *on_node, void *context)
{
    reader->on_node = on_node;
    reader->on_node_context = context;
}

int
map_key_compare(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order != 0 ? order : (a_size > b_size) - (a_size < b_size);
}

/* Reads the node of a step and the count that begins it. */
static bool
load_step(MapReader *reader, size_t depth, const MapNodeRef *ref, CairnError *err)
{
    SCOPED_MEMORY uint8_t *raw = map_node_store_read(reader->nodes, ref, err);
    NodeType type = depth == reader->depth ? NODE_LEAF : NODE_INNER;
    NodeReader node;
    if (raw == NULL || !node_open(&node, raw, ref->raw_size, type, err))
        return false;
    uint64_t count = byte_reader_varint_max(&node.body, MAP_NODE_LIMIT);
    if (node.body.failed || (count == 0 && reader->depth > 0))
        return cairn_error(err, CAIRN_CORRUPT, "map node is empty");
    Step *step = &reader->steps[depth];
    free(step->raw);
    *step = (Step){.raw = take(&raw), .node = node, .left = count};
    return true;
}

/* The next child of an inner node: its first key (in the step) and reference. */
static bool
next_child(Step *step, MapNodeRef *ref_out, CairnError *err)
{
    CAIRN_ASSERT(step->left > 0);
    step->left--;
    size_t key_size = byte_reader_varint_max(&step->node.body, MAP_KEY_LIMIT);
    const uint8_t *key = byte_reader_bytes(&step->node.body, key_size);
    if (key == NULL)
        return cairn_error(err, CAIRN_CORRUPT, "map node is cut off");
    if (step->key != NULL && map_key_compare(key, key_size, step->key, step->key_size) <= 0)
        return cairn_error(err, CAIRN_CORRUPT, "keys of a map node do not ascend");
    step->key = key;
    step->key_size = key_size;
    return node_ref_read(&step->node, ref_out, err);
}

/* Tells who asked about a node that the walk came to; key: as the node above names it. */
static bool
tell_node(MapReader *reader, size_t depth, const Step *parent, const MapNodeRef *ref,
          CairnError *err)
{
    if (reader->on_node == NULL)
        return true;
    const MapNodeSeenAt at = {.level = reader->depth - depth,
                              .key = parent != NULL ? parent->key : NULL,
                              .key_size = parent != NULL ? parent->key_size : 0,
                              .ref = ref};
    return reader->on_node(reader->on_node_context, &at, err);
}

/* Descends from step `depth`, always into the next child, down to a leaf. */
static bool
descend(MapReader *reader, size_t depth, CairnError *err)
{
    for (; depth < reader->depth; depth++) {
        MapNodeRef ref;
        Step *step = &reader->steps[depth];
        if (!next_child(step, &ref, err))
            return false;
        if (!load_step(reader, depth + 1, &ref, err))
            return cairn_error_wrap(err, "files from '%.*s' on",
                                    step->key_size > 0 ? (int)step->key_size - 1 : 0,
                                    (const char *)step->key + 1);
        if (!tell_node(reader, depth + 1, step, &ref, err))
            return false;
    }
    reader->at_leaf_start = true;
    return true;
}

/* Makes the leaf step hold at least one unread entry; false in *found_out at the end of the tree.
 */
static bool
next_leaf(MapReader *reader, bool *found_out, CairnError *err)
{
    if (!reader->positioned) {
        reader->positioned = true;
        if (!load_step(reader, 0, &reader->top, err) ||
            !tell_node(reader, 0, NULL, &reader->top, err) || !descend(reader, 0, err))
            return false;
    }
    while (reader->steps[reader->depth].left == 0) {
        size_t depth = reader->depth;
        while (depth > 0 && reader->steps[depth - 1].left == 0)
            depth--;
        if (depth == 0) {
            *found_out = false;
            return true;
        }
        if (!descend(reader, depth - 1, err))
            return false;
    }
    *found_out = true;
    return true;
}

bool
map_reader_next(MapReader *reader, MapEntry *entry_out, bool *found_out, CairnError *err)
{
    if (!reader->have_entry) {
        if (!next_leaf(reader, found_out, err))
            return false;
        if (!*found_out)
            return true;
        if (!map_reader_parse_entry(reader, err))
            return false;
    }
    reader->have_entry = false;
    *found_out = true;
    *entry_out = reader->entry;
    return true;
}

/* In an inner node, the last child whose first key is not after the wanted one. */
static bool
choose_child(Step *step, const uint8_t *key, size_t key_size, MapNodeRef *ref_out, CairnError *err)
{
    bool first = true;
    while (step->left > 0) {
        Step before = *step;
        MapNodeRef ref;
        if (!next_child(step, &ref, err))
            return false;
        if (!first && map_key_compare(step->key, step->key_size, key, key_size) > 0) {
            *step = before;
            return true;
        }
        *ref_out = ref;
        first = false;
    }
    return true; /* a node has a child at least */
}

bool
map_reader_seek(MapReader *reader, MapClass class, const char *path, CairnError *err)
{
    uint8_t key[MAP_KEY_LIMIT + 1];
    size_t path_size = strlen(path);
    if (path_size >= MAP_KEY_LIMIT)
        return cairn_error(err, CAIRN_USAGE, "path is too long");
    key[0] = (uint8_t) class;
    memcpy(key + 1, path, path_size);

    reader->positioned = true;
    reader->have_entry = false;
    reader->key_size = 0;
    reader->at_leaf_start = true;
    if (!load_step(reader, 0, &reader->top, err))
        return false;
    for (size_t depth = 0; depth < reader->depth; depth++) {
        MapNodeRef ref = {0};
        if (!choose_child(&reader->steps[depth], key, path_size + 1, &ref, err) ||
            !load_step(reader, depth + 1, &ref, err))
            return false;
    }
    for (;;) {
        bool found;
        if (!next_leaf(reader, &found, err))
            return false;
        if (!found)
            return true;
        if (!map_reader_parse_entry(reader, err))
            return false;
        if (map_key_compare(reader->key, reader->key_size, key, path_size + 1) >= 0) {
            reader->have_entry = true;
            return true;
        }
    }
}

uint8_t *
map_reader_frame_table(MapReader *reader, uint32_t pack, size_t *size_out, CairnError *err)
{
    for (size_t i = 0; i < reader->pack_list_count; i++) {
        SCOPED_MEMORY uint8_t *raw =
            map_node_store_read(reader->nodes, &reader->pack_lists[i], err);
        NodeReader list;
        if (raw == NULL ||
            !node_open(&list, raw, reader->pack_lists[i].raw_size, NODE_PACK_LIST, err))
            return NULL;
        uint64_t count = byte_reader_varint_max(&list.body, PACKS_PER_LIST);
        for (uint64_t k = 0; k < count; k++) {
            uint64_t number = byte_reader_varint(&list.body);
            MapNodeRef ref;
            if (!node_ref_read(&list, &ref, err))
                return NULL;
            if (number != pack)
                continue;
            SCOPED_MEMORY uint8_t *table = map_node_store_read(reader->nodes, &ref, err);
            NodeReader node;
            if (table == NULL || !node_open(&node, table, ref.raw_size, NODE_FRAME_TABLE, err))
                return NULL;
            *size_out = byte_reader_left(&node.body);
            memmove(table, node.body.data + node.body.at, *size_out);
            return (uint8_t *)take(&table);
        }
    }
    cairn_error(err, CAIRN_NOT_FOUND, "the map has no frame table of pack %u", pack);
    return NULL;
}
