#include "repository/map.h"

#include "repository/map_node.h"
#include "repository/map_sort.h"
#include "repository/object.h"
#include "repository/pack.h"

#include <string.h>

enum {
    NODE_SOFT_SIZE = 8 << 10,  /* content may end a node from here on */
    NODE_HARD_SIZE = 64 << 10, /* ends it in any case */
    BOUNDARY_LEAF = 64,        /* one key in so many is a boundary */
    BOUNDARY_INNER = 16,
    NODE_PREFIX_SIZE = 64, /* type, version and BID table of one */
};

/* One level of the tree while it grows: level 0 collects entries, the others references. */
typedef struct {
    ByteWriter body;
    uint64_t count;
    uint8_t first_key[MAP_KEY_LIMIT + 1];
    size_t first_key_size;
    uint8_t last_key[MAP_KEY_LIMIT + 1];
    size_t last_key_size;
    uint64_t nodes_written;
} Level;

struct MapBuilder {
    Repository *repository;
    char cluster[CLUSTER_NAME_LIMIT + 1];
    BackupId bid;
    MapSort *sort;
    CodecContext *codec;
    KeyedDigest *digest;
    ByteWriter node;   /* the node being written out */
    ByteWriter stored; /* its compressed form */
    ByteWriter payload;

    ObjectWriter *pack; /* open map pack, or NULL */
    uint32_t pack_count;
    ByteWriter pack_index;
    uint32_t pack_frames;
    uint64_t map_bytes;
    uint8_t (*digests)[SHA256_SIZE]; /* of finished map packs, until finish hands them on */

    Level levels[MAP_DEPTH_LIMIT + 1];
    ByteWriter pack_list; /* current 'P' node's entries */
    uint32_t pack_list_count;
    ByteWriter pack_lists; /* references of finished 'P' nodes */
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
    if (builder->digest == NULL)
        return NULL;
    return take(&builder);
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
    byte_writer_free(&builder->pack_index);
    byte_writer_free(&builder->pack_list);
    byte_writer_free(&builder->pack_lists);
    for (size_t i = 0; i <= MAP_DEPTH_LIMIT; i++)
        byte_writer_free(&builder->levels[i].body);
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

/* Writes the raw node in builder->node as a frame of the open map pack. */
static bool
write_node(MapBuilder *builder, MapNodeRef *ref_out, CairnError *err)
{
    ByteWriter *node = &builder->node;
    if (!byte_writer_check(node, err) || !ensure_pack(builder, err))
        return false;
    CAIRN_ASSERT(node->size <= MAP_NODE_LIMIT);

    size_t capacity = codec_bound(builder->codec, node->size);
    if (builder->stored.capacity < capacity) {
        uint8_t *data = realloc(builder->stored.data, capacity);
        if (data == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        builder->stored.data = data;
        builder->stored.capacity = capacity;
    }
    size_t stored_size;
    CodecId codec_id;
    MapNodeRef ref = {.creator = builder->bid, .pack = builder->pack_count - 1};
    if (!codec_compress(builder->codec, node->data, node->size, builder->stored.data, capacity,
                        &stored_size, &codec_id, err) ||
        !keyed_digest_of(builder->digest, node->data, node->size, ref.digest, err) ||
        !object_append(builder->pack, builder->stored.data, stored_size, &ref.offset, err))
        return false;
    ref.stored_size = (uint32_t)stored_size;
    ref.raw_size = (uint32_t)node->size;
    ref.codec = (uint8_t)codec_id;
    byte_writer_u8(&builder->pack_index, ref.codec);
    byte_writer_varint(&builder->pack_index, ref.raw_size);
    byte_writer_varint(&builder->pack_index, ref.stored_size);
    byte_writer_u32(&builder->pack_index, crc32c(0, builder->stored.data, stored_size));
    builder->pack_frames++;
    *ref_out = ref;
    return byte_writer_check(&builder->pack_index, err);
}

/* Appends one region to the payload: inline when it is short, else as a node of its own. */
static bool
append_region(MapBuilder *builder, uint64_t first_unit, const MapRun *runs, size_t count,
              CairnError *err)
{
    SCOPED_BYTES ByteWriter encoded = {0};
    node_runs_append(&encoded, runs, count);
    if (!byte_writer_check(&encoded, err))
        return false;
    if (encoded.size <= REGION_INLINE_LIMIT) {
        byte_writer_u8(&builder->payload, 0);
        byte_writer_bytes(&builder->payload, encoded.data, encoded.size);
        return true;
    }
    MapNodeRef ref;
    node_start(&builder->node, NODE_REGION, &builder->bid);
    byte_writer_varint(&builder->node, first_unit);
    byte_writer_bytes(&builder->node, encoded.data, encoded.size);
    if (!write_node(builder, &ref, err))
        return false;
    byte_writer_u8(&builder->payload, 1);
    node_ref_append(&builder->payload, &ref, 0);
    return true;
}

/* Cuts the runs of a file at region boundaries. */
static bool
append_regions(MapBuilder *builder, uint64_t units, const MapRun *runs, size_t run_count,
               CairnError *err)
{
    uint64_t regions = (units + REGION_UNITS - 1) / REGION_UNITS;
    byte_writer_varint(&builder->payload, regions);
    SCOPED_MEMORY MapRun *region = malloc((run_count + 1) * sizeof *region);
    if (region == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");

    size_t next = 0;
    uint64_t taken = 0; /* of runs[next] */
    for (uint64_t r = 0; r < regions; r++) {
        uint64_t left = units - r * REGION_UNITS;
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
        if (!append_region(builder, r * REGION_UNITS, region, count, err))
            return false;
    }
    CAIRN_ASSERT(next == run_count);
    return true;
}

bool
map_builder_add(MapBuilder *builder, const MapEntry *entry, const MapRun *runs, size_t run_count,
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
        byte_writer_varint(payload, entry->size_bytes);
        byte_writer_u8(payload, entry->has_crc32c ? ENTRY_HAS_CRC : 0);
        if (entry->has_crc32c)
            byte_writer_u32(payload, entry->crc32c);
        if (!append_regions(builder, units_of_size(entry->size_bytes), runs, run_count, err))
            return false;
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

static bool
finish_pack_list(MapBuilder *builder, CairnError *err)
{
    if (builder->pack_list_count == 0)
        return true;
    MapNodeRef ref;
    node_start(&builder->node, NODE_PACK_LIST, &builder->bid);
    byte_writer_varint(&builder->node, builder->pack_list_count);
    byte_writer_bytes(&builder->node, builder->pack_list.data, builder->pack_list.size);
    if (!byte_writer_check(&builder->pack_list, err) || !write_node(builder, &ref, err))
        return false;
    node_ref_append(&builder->pack_lists, &ref, 0);
    builder->pack_lists_count++;
    byte_writer_reset(&builder->pack_list);
    builder->pack_list_count = 0;
    return byte_writer_check(&builder->pack_lists, err);
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
    if (!write_node(builder, &ref, err))
        return false;
    byte_writer_varint(&builder->pack_list, pack);
    node_ref_append(&builder->pack_list, &ref, 0);
    builder->pack_list_count++;
    return builder->pack_list_count < PACKS_PER_LIST || finish_pack_list(builder, err);
}

static bool level_add(MapBuilder *builder, size_t depth, const uint8_t *key, size_t key_size,
                      const void *payload, size_t payload_size, CairnError *err);

/* Writes what a level has collected as a node, and the reference one level up. */
static bool
flush_level(MapBuilder *builder, size_t depth, MapNodeRef *ref_out, CairnError *err)
{
    Level *level = &builder->levels[depth];
    node_start(&builder->node, depth == 0 ? NODE_LEAF : NODE_INNER, &builder->bid);
    byte_writer_varint(&builder->node, level->count);
    byte_writer_bytes(&builder->node, level->body.data, level->body.size);
    if (!byte_writer_check(&level->body, err) || !write_node(builder, ref_out, err))
        return false;
    level->nodes_written++;
    level->count = 0;
    byte_writer_reset(&level->body);

    SCOPED_BYTES ByteWriter reference = {0};
    node_ref_append(&reference, ref_out, 0);
    if (!byte_writer_check(&reference, err))
        return false;
    if (depth == MAP_DEPTH_LIMIT)
        return cairn_error(err, CAIRN_UNSUPPORTED, "the cluster has too many files");
    return level_add(builder, depth + 1, level->first_key, level->first_key_size, reference.data,
                     reference.size, err);
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

static bool
level_add(MapBuilder *builder, size_t depth, const uint8_t *key, size_t key_size,
          const void *payload, size_t payload_size, CairnError *err)
{
    Level *level = &builder->levels[depth];
    MapNodeRef ref;
    /* One large entry must not push a node past the limit. */
    if (level->count > 0 && level->body.size + key_size + payload_size > MAP_NODE_LIMIT / 2 &&
        !flush_level(builder, depth, &ref, err))
        return false;
    if (level->count == 0) {
        memcpy(level->first_key, key, key_size);
        level->first_key_size = key_size;
        level->last_key_size = 0;
    }
    if (depth == 0) {
        size_t shared = shared_prefix(level, key, key_size);
        byte_writer_varint(&level->body, shared);
        byte_writer_varint(&level->body, key_size - shared);
        byte_writer_bytes(&level->body, key + shared, key_size - shared);
        memcpy(level->last_key, key, key_size);
        level->last_key_size = key_size;
    } else {
        byte_writer_varint(&level->body, key_size);
        byte_writer_bytes(&level->body, key, key_size);
    }
    byte_writer_bytes(&level->body, payload, payload_size);
    level->count++;
    return !is_boundary(level, depth, key, key_size) || flush_level(builder, depth, &ref, err);
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
        if (!level_add(builder, 0, key, key_size, payload, payload_size, err))
            return false;
    }
}

/* Closes the levels from below; the first one that made a single node, with nothing above it, is
 * the top. */
static bool
finish_tree(MapBuilder *builder, MapNodeRef *top_out, size_t *depth_out, CairnError *err)
{
    for (size_t depth = 0; depth <= MAP_DEPTH_LIMIT; depth++) {
        Level *level = &builder->levels[depth];
        if (level->count > 0 || (depth == 0 && level->nodes_written == 0)) {
            if (!flush_level(builder, depth, top_out, err))
                return false;
        }
        if (level->nodes_written == 1) {
            /* When its only node went out by a boundary, the reference waits one level up. */
            Level *above = &builder->levels[depth + 1];
            ByteReader reference = byte_reader(above->body.data, above->body.size);
            byte_reader_bytes(&reference, byte_reader_varint(&reference));
            MapNodeRef ref = {.creator = builder->bid};
            byte_reader_varint(&reference);
            ref.pack = (uint32_t)byte_reader_varint(&reference);
            ref.offset = byte_reader_varint(&reference);
            ref.stored_size = (uint32_t)byte_reader_varint(&reference);
            ref.raw_size = (uint32_t)byte_reader_varint(&reference);
            ref.codec = byte_reader_u8(&reference);
            memcpy(ref.digest, byte_reader_bytes(&reference, sizeof ref.digest), sizeof ref.digest);
            CAIRN_ASSERT(byte_reader_done(&reference));
            *top_out = ref;
            *depth_out = depth;
            return true;
        }
    }
    return cairn_error(err, CAIRN_UNSUPPORTED, "the cluster has too many files");
}

bool
map_builder_finish(MapBuilder *builder, MapPackDigest *each_digest, void *context,
                   MapResult *result_out, CairnError *err)
{
    MapNodeRef top, root;
    size_t depth = 0;
    if (!write_entries(builder, err) || !finish_tree(builder, &top, &depth, err) ||
        !finish_pack_list(builder, err))
        return false;

    node_start(&builder->node, NODE_ROOT, &builder->bid);
    byte_writer_varint(&builder->node, depth);
    node_ref_append(&builder->node, &top, 0);
    byte_writer_varint(&builder->node, builder->pack_lists_count);
    byte_writer_bytes(&builder->node, builder->pack_lists.data, builder->pack_lists.size);
    byte_writer_varint(&builder->node, builder->file_count);
    byte_writer_varint(&builder->node, builder->directory_count);
    byte_writer_varint(&builder->node, builder->size_bytes);
    if (!write_node(builder, &root, err) || !finish_pack(builder, err))
        return false;

    for (uint32_t i = 0; i < builder->pack_count; i++) {
        if (!each_digest(context, builder->digests[i], err))
            return false;
    }
    *result_out = (MapResult){
        .root = root,
        .map_pack_count = builder->pack_count,
        .map_bytes = builder->map_bytes,
        .file_count = builder->file_count,
        .directory_count = builder->directory_count,
        .size_bytes = builder->size_bytes,
    };
    return true;
}
