#include "repository/map_builder_intern.h"

#include "repository/refs.h"

#include <string.h>

enum { NODE_PREFIX_SIZE = 64 }; /* type, version and BID table of one */

MapBuilder *
map_builder_new(Repository *repository, const char *cluster, const BackupId *bid,
                const char *scratch_directory, CairnError *err)
{
    SCOPED(MapBuilder) builder = calloc(1, sizeof *builder);
    if (builder == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    builder->bid = *bid;
    builder->sort =
        map_sort_new(repository_world(repository), scratch_directory, MAP_SORT_MEMORY, err);
    if (builder->sort == NULL)
        return NULL;
    builder->packs = map_pack_writer_new(repository, cluster, bid, err);
    if (builder->packs == NULL)
        return NULL;
    builder->digest = repository_digest(repository, DIGEST_MAP, err);
    if (builder->digest == NULL || (builder->own_creators = creator_table_new(err)) == NULL)
        return NULL;
    uint32_t self;
    if (!creator_table_add(builder->own_creators, bid, &self, err))
        return NULL;
    builder->sources.creators = builder->own_creators;
    return take(&builder);
}

void
map_builder_draw_on(MapBuilder *builder, const MapSources *sources)
{
    CAIRN_ASSERT(backup_id_equal(creator_table_get(sources->creators, 0), &builder->bid));
    builder->sources = *sources;
}

void
map_builder_limit_packs(MapBuilder *builder, uint64_t pack_size)
{
    map_pack_writer_limit(builder->packs, pack_size);
}

void
map_builder_free(MapBuilder *builder)
{
    if (builder == NULL)
        return;
    map_sort_free(builder->sort);
    map_pack_writer_free(builder->packs);
    keyed_digest_free(builder->digest);
    byte_writer_free(&builder->node);
    byte_writer_free(&builder->payload);
    byte_writer_free(&builder->region);
    node_creators_free(&builder->region_creators);
    creator_table_free(builder->own_creators);
    byte_writer_free(&builder->pack_list);
    free(builder->pack_lists);
    map_tree_free(builder);
    free(builder);
}

bool
map_builder_place_node(MapBuilder *builder, const MapNodeRef *parent, NodePlace *place_out,
                       CairnError *err)
{
    const ByteWriter *node = &builder->node;
    if (!byte_writer_check(node, err))
        return false;
    if (node->size > MAP_NODE_LIMIT)
        return cairn_error(err, CAIRN_UNSUPPORTED,
                           "the map draws on too many backups: take a full one");
    NodePlace place = {.ref = {.raw_size = (uint32_t)node->size}};
    if (!keyed_digest_of(builder->digest, node->data, node->size, place.ref.digest, err))
        return false;
    bool shared = parent != NULL && parent->raw_size == place.ref.raw_size &&
                  memcmp(parent->digest, place.ref.digest, sizeof place.ref.digest) == 0 &&
                  creator_table_find(builder->sources.creators, &parent->creator, &place.creator);
    if (shared) {
        place.ref = *parent;
        builder->shared_nodes++;
    } else if (!map_pack_writer_append(builder->packs, node, &place.ref, err)) {
        return false;
    }
    *place_out = place;
    return builder->sources.refs == NULL ||
           refs_builder_node(builder->sources.refs, place.creator, place.ref.pack, err);
}

/* A node of our own that nobody else could have: its BID table names us alone. */
static bool
place_own_node(MapBuilder *builder, MapNodeRef *ref_out, CairnError *err)
{
    NodePlace place;
    if (!map_builder_place_node(builder, NULL, &place, err))
        return false;
    *ref_out = place.ref;
    return true;
}

static bool
count_units(MapBuilder *builder, const MapRun *runs, size_t count, uint64_t *units_out,
            CairnError *err)
{
    *units_out = 0;
    for (size_t i = 0; i < count; i++) {
        *units_out += runs[i].units;
        if (!runs[i].is_zero && builder->sources.refs != NULL &&
            !refs_builder_units(builder->sources.refs, runs[i].creator, runs[i].pack, runs[i].units,
                                err))
            return false;
    }
    return true;
}

void
map_draft_free(MapDraft *draft)
{
    byte_writer_free(&draft->regions);
}

/*
 * Inline when it is short, else as a node of its own. What is short is judged by the region alone,
 * so that the same runs are always kept in the same way. In the draft creators stand by their
 * number in the table: the leaf's are known when it is written.
 */
bool
map_builder_region(MapBuilder *builder, MapDraft *draft, const MapRun *runs, size_t count,
                   const MapNodeRef *parent, CairnError *err)
{
    CAIRN_ASSERT(draft->units % REGION_UNITS == 0);
    const uint64_t first_unit = draft->units;
    uint64_t units;
    if (!count_units(builder, runs, count, &units, err))
        return false;
    CAIRN_ASSERT(units >= 1 && units <= REGION_UNITS);
    draft->units += units;
    draft->region_count++;

    byte_writer_reset(&builder->region);
    node_creators_reset(&builder->region_creators);
    node_runs_append(&builder->region, runs, count, &builder->region_creators);
    if (!byte_writer_check(&builder->region, err))
        return false;
    if (builder->region.size <= REGION_INLINE_LIMIT) {
        byte_writer_u8(&draft->regions, 0);
        node_runs_append(&draft->regions, runs, count, NULL);
        return byte_writer_check(&draft->regions, err);
    }
    NodePlace place;
    node_begin(&builder->node, NODE_REGION, builder->sources.creators, &builder->region_creators);
    byte_writer_varint(&builder->node, first_unit);
    byte_writer_bytes(&builder->node, builder->region.data, builder->region.size);
    if (!map_builder_place_node(builder, parent, &place, err))
        return false;
    byte_writer_u8(&draft->regions, 1);
    node_ref_append(&draft->regions, &place.ref, place.creator);
    return byte_writer_check(&draft->regions, err);
}

bool
map_builder_add_draft(MapBuilder *builder, const MapEntry *entry, const MapDraft *draft,
                      CairnError *err)
{
    uint8_t key[MAP_KEY_LIMIT + 1];
    size_t path_size = strlen(entry->path);
    CAIRN_ASSERT(path_size < MAP_KEY_LIMIT);
    key[0] = (uint8_t)entry->class;
    memcpy(key + 1, entry->path, path_size);

    ByteWriter *payload = &builder->payload;
    byte_writer_reset(payload);
    byte_writer_u8(payload, (uint8_t)entry->type);
    byte_writer_varint(payload, entry->mode);
    if (entry->type == MAP_FILE) {
        CAIRN_ASSERT(draft->units == units_of_size(entry->size_bytes));
        byte_writer_varint(payload, entry->size_bytes);
        byte_writer_u8(payload, entry->has_crc32c ? ENTRY_HAS_CRC : 0);
        if (entry->has_crc32c)
            byte_writer_u32(payload, entry->crc32c);
        byte_writer_varint(payload, draft->region_count);
        byte_writer_bytes(payload, draft->regions.data, draft->regions.size);
    }
    if (!byte_writer_check(payload, err))
        return false;
    if (payload->size > MAP_ENTRY_LIMIT)
        return cairn_error(err, CAIRN_UNSUPPORTED, "file '%s' is too large for one map entry",
                           entry->path);

    if (entry->class == MAP_CLASS_CLUSTER) {
        builder->file_count += entry->type == MAP_FILE;
        builder->directory_count += entry->type == MAP_DIRECTORY;
        builder->size_bytes += entry->type == MAP_FILE ? entry->size_bytes : 0;
    }
    return map_sort_add(builder->sort, key, path_size + 1, payload->data, payload->size, err);
}

/* Cuts the runs of a file at region boundaries. */
static bool
append_regions(MapBuilder *builder, MapDraft *draft, uint64_t units, const MapRun *runs,
               size_t run_count, CairnError *err)
{
    SCOPED_MEMORY MapRun *region = malloc((run_count + 1) * sizeof *region);
    if (region == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");

    size_t next = 0;
    uint64_t taken = 0; /* of runs[next] */
    while (draft->units < units) {
        uint64_t left = units - draft->units;
        if (left > REGION_UNITS)
            left = REGION_UNITS;
        size_t count = 0;
        while (left > 0) {
            CAIRN_ASSERT(next < run_count);
            MapRun run = runs[next];
            run.slot += run.is_zero ? 0 : (uint32_t)taken;
            run.units -= taken;
            if (run.units > left)
                run.units = left;
            left -= run.units;
            taken += run.units;
            if (taken == runs[next].units) {
                next++;
                taken = 0;
            }
            region[count++] = run;
        }
        if (!map_builder_region(builder, draft, region, count, NULL, err))
            return false;
    }
    CAIRN_ASSERT(next == run_count);
    return true;
}

bool
map_builder_add(MapBuilder *builder, const MapEntry *entry, const MapRun *runs, size_t run_count,
                CairnError *err)
{
    MapDraft draft = {0};
    bool added =
        (entry->type != MAP_FILE ||
         append_regions(builder, &draft, units_of_size(entry->size_bytes), runs, run_count, err)) &&
        map_builder_add_draft(builder, entry, &draft, err);
    map_draft_free(&draft);
    return added;
}

static bool
finish_pack_list(MapBuilder *builder, CairnError *err)
{
    if (builder->pack_list_count == 0)
        return true;
    MapNodeRef *lists =
        realloc(builder->pack_lists, (builder->pack_lists_count + 1) * sizeof *lists);
    if (lists == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    builder->pack_lists = lists;
    node_start(&builder->node, NODE_PACK_LIST, &builder->bid);
    byte_writer_varint(&builder->node, builder->pack_list_count);
    byte_writer_bytes(&builder->node, builder->pack_list.data, builder->pack_list.size);
    if (!byte_writer_check(&builder->pack_list, err) ||
        !place_own_node(builder, &lists[builder->pack_lists_count], err))
        return false;
    builder->pack_lists_count++;
    byte_writer_reset(&builder->pack_list);
    builder->pack_list_count = 0;
    return true;
}

bool
map_builder_add_frame_table(MapBuilder *builder, uint32_t pack, const void *table, size_t size,
                            CairnError *err)
{
    if (size > MAP_NODE_LIMIT - NODE_PREFIX_SIZE)
        return true; /* only a pack of absurdly many frames; its own index still has the table */
    MapNodeRef ref;
    node_start(&builder->node, NODE_FRAME_TABLE, &builder->bid);
    byte_writer_bytes(&builder->node, table, size);
    if (!place_own_node(builder, &ref, err))
        return false;
    byte_writer_varint(&builder->pack_list, pack);
    node_ref_append(&builder->pack_list, &ref, 0);
    builder->pack_list_count++;
    return builder->pack_list_count < PACKS_PER_LIST || finish_pack_list(builder, err);
}

/* The reference to the tree is the only one that may be another's. */
static bool
write_root(MapBuilder *builder, const NodePlace *top, size_t depth, MapNodeRef *root_out,
           CairnError *err)
{
    SCOPED_BYTES ByteWriter lists = {0};
    NodeCreators *creators = &builder->region_creators;
    node_creators_reset(creators);
    uint32_t top_creator = node_creator(creators, top->creator);
    for (uint32_t i = 0; i < builder->pack_lists_count; i++)
        node_ref_append(&lists, &builder->pack_lists[i], node_creator(creators, 0));
    if (!byte_writer_check(&lists, err))
        return false;
    node_begin(&builder->node, NODE_ROOT, builder->sources.creators, creators);
    byte_writer_varint(&builder->node, depth);
    node_ref_append(&builder->node, &top->ref, top_creator);
    byte_writer_varint(&builder->node, builder->pack_lists_count);
    byte_writer_bytes(&builder->node, lists.data, lists.size);
    byte_writer_varint(&builder->node, builder->file_count);
    byte_writer_varint(&builder->node, builder->directory_count);
    byte_writer_varint(&builder->node, builder->size_bytes);
    return place_own_node(builder, root_out, err);
}

bool
map_builder_finish(MapBuilder *builder, MapPackDigest *each_digest, void *context,
                   MapResult *result_out, CairnError *err)
{
    NodePlace top;
    MapNodeRef root;
    size_t depth = 0;
    if (!map_tree_write(builder, &top, &depth, err) || !finish_pack_list(builder, err) ||
        !write_root(builder, &top, depth, &root, err) ||
        !map_pack_writer_finish(builder->packs, err))
        return false;
    const uint32_t pack_count = map_pack_writer_count(builder->packs);
    for (uint32_t i = 0; i < pack_count; i++) {
        if (!each_digest(context, map_pack_writer_digest(builder->packs, i), err))
            return false;
    }
    *result_out = (MapResult){
        .root = root,
        .map_pack_count = pack_count,
        .map_bytes = map_pack_writer_bytes(builder->packs),
        .shared_nodes = builder->shared_nodes,
        .file_count = builder->file_count,
        .directory_count = builder->directory_count,
        .size_bytes = builder->size_bytes,
    };
    return true;
}
