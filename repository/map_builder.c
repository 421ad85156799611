#include "repository/map.h"

#include "repository/map_node.h"
#include "repository/map_sort.h"
#include "repository/object.h"
#include "repository/pack.h"
#include "repository/refs.h"

#include <string.h>

enum {
    NODE_SOFT_SIZE = 8 << 10,  /* content may end a node from here on */
    NODE_HARD_SIZE = 64 << 10, /* ends it in any case */
    BOUNDARY_LEAF = 64,        /* one key in so many is a boundary */
    BOUNDARY_INNER = 16,
    NODE_PREFIX_SIZE = 64, /* type, version and BID table of one */
};

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
    Repository *repository;
    char cluster[CLUSTER_NAME_LIMIT + 1];
    BackupId bid;
    MapSort *sort;
    CodecContext *codec;
    KeyedDigest *digest;
    CreatorTable *own_creators; /* where nobody gave us a table: our own backup alone */
    MapSources sources;
    uint64_t shared_nodes;
    ByteWriter node;   /* the node being written out */
    ByteWriter stored; /* its compressed form */
    ByteWriter payload;
    ByteWriter region;            /* one region's runs ... */
    NodeCreators region_creators; /* ... and whom they name */

    ObjectWriter *pack; /* open map pack, or NULL */
    uint32_t pack_count;
    ByteWriter pack_index;
    uint32_t pack_frames;
    uint64_t map_bytes;
    uint8_t (*digests)[SHA256_SIZE]; /* of finished map packs, until finish hands them on */

    Level levels[MAP_DEPTH_LIMIT + 1];
    ByteWriter pack_list; /* current 'P' node's entries */
    uint32_t pack_list_count;
    MapNodeRef *pack_lists; /* finished 'P' nodes */
    uint32_t pack_lists_count;
    uint64_t file_count, directory_count, size_bytes;
};

MapBuilder *
map_builder_new(Repository *repository, const char *cluster, const BackupId *bid,
                const char *scratch_directory, CairnError *err)
{
    SCOPED(MapBuilder) builder = calloc(1, sizeof *builder);
    if (builder == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    builder->repository = repository;
    memcpy(builder->cluster, cluster, strnlen(cluster, CLUSTER_NAME_LIMIT));
    builder->bid = *bid;
    builder->sort =
        map_sort_new(repository_world(repository), scratch_directory, MAP_SORT_MEMORY, err);
    if (builder->sort == NULL)
        return NULL;
    builder->codec = repository_codec(repository, err);
    if (builder->codec == NULL)
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
map_builder_free(MapBuilder *builder)
{
    if (builder == NULL)
        return;
    map_sort_free(builder->sort);
    if (builder->codec != NULL)
        codec_close(builder->codec);
    keyed_digest_free(builder->digest);
    if (builder->pack != NULL)
        object_writer_free(builder->pack);
    byte_writer_free(&builder->node);
    byte_writer_free(&builder->stored);
    byte_writer_free(&builder->payload);
    byte_writer_free(&builder->region);
    node_creators_free(&builder->region_creators);
    creator_table_free(builder->own_creators);
    byte_writer_free(&builder->pack_index);
    byte_writer_free(&builder->pack_list);
    free(builder->pack_lists);
    for (size_t i = 0; i <= MAP_DEPTH_LIMIT; i++) {
        byte_writer_free(&builder->levels[i].body);
        node_creators_free(&builder->levels[i].creators);
    }
    free(builder->digests);
    free(builder);
}

static bool
finish_pack(MapBuilder *builder, CairnError *err)
{
    if (builder->pack == NULL)
        return true;
    SCOPED_BYTES ByteWriter index = {0};
    byte_writer_u16(&index, MAP_LAYOUT);
    byte_writer_u16(&index, 0);
    byte_writer_varint(&index, builder->pack_frames);
    byte_writer_bytes(&index, builder->pack_index.data, builder->pack_index.size);

    void *digests = realloc(builder->digests, builder->pack_count * sizeof *builder->digests);
    if (digests == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    builder->digests = digests;
    if (!byte_writer_check(&index, err) ||
        !object_finish(builder->pack, index.data, index.size,
                       builder->digests[builder->pack_count - 1], err))
        return false;
    builder->map_bytes += object_size_so_far(builder->pack) + SHA256_SIZE;
    object_writer_free(builder->pack);
    builder->pack = NULL;
    builder->pack_frames = 0;
    byte_writer_reset(&builder->pack_index);
    return true;
}

static bool
ensure_pack(MapBuilder *builder, CairnError *err)
{
    if (builder->pack != NULL && object_size_so_far(builder->pack) >= PACK_TARGET_SIZE &&
        !finish_pack(builder, err))
        return false;
    if (builder->pack != NULL)
        return true;
    char name[STORAGE_NAME_LIMIT];
    map_pack_name(name, builder->cluster, &builder->bid, builder->pack_count);
    builder->pack = object_create(builder->repository, name, OBJECT_MAP,
                                  backup_id_sequence(&builder->bid), err);
    if (builder->pack == NULL)
        return false;
    builder->pack_count++;
    return true;
}

/* Room for the compressed form of builder->node. */
static bool
reserve_stored(MapBuilder *builder, size_t capacity, CairnError *err)
{
    if (builder->stored.capacity >= capacity)
        return true;
    uint8_t *data = realloc(builder->stored.data, capacity);
    if (data == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    builder->stored.data = data;
    builder->stored.capacity = capacity;
    return true;
}

/* Writes the raw node in builder->node, whose digest ref holds, as a frame of the open map pack. */
static bool
write_node(MapBuilder *builder, MapNodeRef *ref, CairnError *err)
{
    const ByteWriter *node = &builder->node;
    size_t capacity = codec_bound(builder->codec, node->size);
    size_t stored_size;
    CodecId codec_id;
    if (!ensure_pack(builder, err) || !reserve_stored(builder, capacity, err) ||
        !codec_compress(builder->codec, node->data, node->size, builder->stored.data, capacity,
                        &stored_size, &codec_id, err) ||
        !object_append(builder->pack, builder->stored.data, stored_size, &ref->offset, err))
        return false;
    ref->creator = builder->bid;
    ref->pack = builder->pack_count - 1;
    ref->stored_size = (uint32_t)stored_size;
    ref->codec = (uint8_t)codec_id;
    byte_writer_u8(&builder->pack_index, ref->codec);
    byte_writer_varint(&builder->pack_index, ref->raw_size);
    byte_writer_varint(&builder->pack_index, ref->stored_size);
    byte_writer_u32(&builder->pack_index, crc32c(0, builder->stored.data, stored_size));
    builder->pack_frames++;
    return byte_writer_check(&builder->pack_index, err);
}

/*
 * Makes the raw node in builder->node part of the map: the parent's own node where that holds the
 * same bytes (by keyed digest and length) and its backup is one we may draw on, else a new one.
 */
static bool
place_node(MapBuilder *builder, const MapNodeRef *parent, NodePlace *place_out, CairnError *err)
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
    } else if (!write_node(builder, &place.ref, err)) {
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
    if (!place_node(builder, NULL, &place, err))
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
    if (!place_node(builder, parent, &place, err))
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
        !place_node(builder, parent, &level->last_made, err))
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
    if (!write_entries(builder, err) || !finish_tree(builder, &top, &depth, err) ||
        !finish_pack_list(builder, err) || !write_root(builder, &top, depth, &root, err) ||
        !finish_pack(builder, err))
        return false;
    for (uint32_t i = 0; i < builder->pack_count; i++) {
        if (!each_digest(context, builder->digests[i], err))
            return false;
    }
    *result_out = (MapResult){
        .root = root,
        .map_pack_count = builder->pack_count,
        .map_bytes = builder->map_bytes,
        .shared_nodes = builder->shared_nodes,
        .file_count = builder->file_count,
        .directory_count = builder->directory_count,
        .size_bytes = builder->size_bytes,
    };
    return true;
}
