#include "repository/map.h"

#include "postgres/tar.h"
#include "repository/map_cache.h"
#include "repository/map_node.h"
#include "repository/object.h"
#include "repository/pack.h"

#include <stdio.h>
#include <string.h>

/*
 * Invariants, whoever wrote the map
 * 1. The walk ends: the tree has a fixed depth, no node below a root of depth > 0 is empty, and
 * keys ascend strictly through the whole tree, so that a node can be reached in one place only.
 * 2. Every path handed out is clean (path_is_clean) and stands once.
 * 3. Runs handed out add up to the file's size, and slots stay below 2^31.
 */

enum { OPEN_MAP_PACKS = 8 };

/* A node on the way from the root to the current entry. */
typedef struct {
    uint8_t *raw; /* owned */
    NodeReader node;
    uint64_t left;      /* children or entries not read yet */
    const uint8_t *key; /* of the child read last, borrowed from raw; NULL before the first */
    size_t key_size;
} Step;

typedef struct {
    BackupId creator;
    uint32_t pack;
    ObjectReader *object; /* owned */
    uint64_t used;        /* for least-recently-used */
} OpenPack;

/* A source of a list of runs: where its last run so far ended. */
typedef struct {
    uint32_t creator, pack;
    uint64_t end;
} RunSource;

struct MapReader {
    Repository *repository;
    char cluster[CLUSTER_NAME_LIMIT + 1];
    CodecContext *codec;
    KeyedDigest *digest;
    MapWalkOptions walk;
    OpenPack open[OPEN_MAP_PACKS];
    uint64_t clock;

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

static ObjectReader *
open_map_pack(MapReader *reader, const MapNodeRef *ref, CairnError *err)
{
    OpenPack *oldest = &reader->open[0];
    for (size_t i = 0; i < OPEN_MAP_PACKS; i++) {
        OpenPack *open = &reader->open[i];
        if (open->object != NULL && open->pack == ref->pack &&
            backup_id_equal(&open->creator, &ref->creator)) {
            open->used = ++reader->clock;
            return open->object;
        }
        if (open->used < oldest->used)
            oldest = open;
    }

    char name[STORAGE_NAME_LIMIT];
    map_pack_name(name, reader->cluster, &ref->creator, ref->pack);
    ObjectReader *object = object_open(reader->repository, name, OBJECT_MAP, err);
    if (object == NULL)
        return NULL;
    if (oldest->object != NULL)
        object_reader_free(oldest->object);
    *oldest = (OpenPack){
        .creator = ref->creator, .pack = ref->pack, .object = object, .used = ++reader->clock};
    return object;
}

/* What the cache has of it, as a copy of its own; NULL: nothing. */
static uint8_t *
cached_node(MapReader *reader, const MapNodeRef *ref)
{
    const uint8_t *raw =
        reader->walk.cache != NULL ? map_cache_find(reader->walk.cache, ref) : NULL;
    uint8_t *copy = raw != NULL ? malloc((size_t)ref->raw_size + 1) : NULL;
    if (copy != NULL)
        memcpy(copy, raw, ref->raw_size);
    return copy;
}

/* Raw node behind a reference, checked against its keyed digest. Returned owned. */
static uint8_t *
read_node(MapReader *reader, const MapNodeRef *ref, CairnError *err)
{
    if (reader->walk.watch != NULL && !reader->walk.watch(reader->walk.context, ref, err))
        return NULL;
    uint8_t *cached = cached_node(reader, ref);
    if (cached != NULL)
        return cached;
    ObjectReader *object = open_map_pack(reader, ref, err);
    if (object == NULL)
        return NULL;
    SCOPED_MEMORY uint8_t *stored = malloc((size_t)ref->stored_size + 1);
    SCOPED_MEMORY uint8_t *raw = malloc((size_t)ref->raw_size + 1);
    if (stored == NULL || raw == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    uint8_t digest[KEYED_DIGEST_SIZE];
    if (!object_pread(object, stored, ref->stored_size, ref->offset, err) ||
        !codec_decompress(reader->codec, (CodecId)ref->codec, stored, ref->stored_size, raw,
                          ref->raw_size, err) ||
        !keyed_digest_of(reader->digest, raw, ref->raw_size, digest, err)) {
        cairn_error_wrap(err, "map pack %u of backup %s", ref->pack, ref->creator.text);
        return NULL;
    }
    if (memcmp(digest, ref->digest, sizeof digest) != 0) {
        cairn_error(err, CAIRN_CORRUPT, "map pack %u of backup %s: node at byte %llu is damaged",
                    ref->pack, ref->creator.text, (unsigned long long)ref->offset);
        return NULL;
    }
    if (reader->walk.cache != NULL)
        map_cache_keep(reader->walk.cache, ref, raw);
    return (uint8_t *)take(&raw);
}

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
    reader->repository = repository;
    reader->walk = *options;
    snprintf(reader->cluster, sizeof reader->cluster, "%s", cluster);
    reader->codec = repository_codec(repository, err);
    if (reader->codec == NULL)
        return NULL;
    reader->digest = repository_digest(repository, DIGEST_MAP, err);
    if (reader->digest == NULL || (reader->creators = creator_table_new(err)) == NULL)
        return NULL;
    SCOPED_MEMORY uint8_t *raw = read_node(reader, root, err);
    if (raw == NULL || !parse_root(reader, raw, root->raw_size, err))
        return NULL;
    return take(&reader);
}

void
map_reader_free(MapReader *reader)
{
    if (reader == NULL)
        return;
    for (size_t i = 0; i < OPEN_MAP_PACKS; i++) {
        if (reader->open[i].object != NULL)
            object_reader_free(reader->open[i].object);
    }
    for (size_t i = 0; i <= MAP_DEPTH_LIMIT; i++)
        free(reader->steps[i].raw);
    if (reader->codec != NULL)
        codec_close(reader->codec);
    keyed_digest_free(reader->digest);
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

/* Reads the node of a step and the count that begins it. */
static bool
load_step(MapReader *reader, size_t depth, const MapNodeRef *ref, CairnError *err)
{
    SCOPED_MEMORY uint8_t *raw = read_node(reader, ref, err);
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

static int
compare_keys(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order != 0 ? order : (a_size > b_size) - (a_size < b_size);
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
    if (step->key != NULL && compare_keys(key, key_size, step->key, step->key_size) <= 0)
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

static bool
damaged(const MapReader *reader, const char *what, CairnError *err)
{
    return cairn_error(err, CAIRN_CORRUPT, "map entry after '%.*s': %s",
                       reader->key_size > 0 ? (int)reader->key_size - 1 : 0,
                       (const char *)reader->key + 1, what);
}

/* The node above a leaf names the leaf's first key; that every leaf's key is new keeps inner nodes
 * unique too. */
static bool
is_key_of_parent(const MapReader *reader, const uint8_t *key, size_t key_size)
{
    if (reader->depth == 0)
        return true;
    const Step *parent = &reader->steps[reader->depth - 1];
    return compare_keys(key, key_size, parent->key, parent->key_size) == 0;
}

/* Key of the next entry: what it shares with the one before, then its own. Keys must ascend. */
static bool
parse_key(MapReader *reader, ByteReader *body, CairnError *err)
{
    uint64_t shared = byte_reader_varint_max(body, reader->at_leaf_start ? 0 : reader->key_size);
    uint64_t suffix_size = byte_reader_varint_max(body, MAP_KEY_LIMIT - shared);
    const uint8_t *suffix = byte_reader_bytes(body, suffix_size);
    if (suffix == NULL || suffix_size == 0 || shared + suffix_size < 2)
        return damaged(reader, "its key is damaged", err);
    if (compare_keys(suffix, suffix_size, reader->key + shared, reader->key_size - shared) <= 0)
        return damaged(reader, "keys do not ascend", err);
    if (reader->at_leaf_start && !is_key_of_parent(reader, suffix, suffix_size))
        return damaged(reader, "its node belongs elsewhere", err);
    reader->at_leaf_start = false;
    memcpy(reader->key + shared, suffix, suffix_size);
    reader->key_size = shared + suffix_size;
    reader->key[reader->key_size] = '\0';
    /* A restore writes where this path says: whoever made the map, it stays below the target. */
    if (!path_is_clean((const char *)reader->key + 1, reader->key_size - 1) ||
        reader->key[0] > MAP_CLASS_OURS)
        return damaged(reader, "its key is damaged", err);
    return true;
}

/* A run of kind RUN_DATA begins a source. */
static bool
begin_source(MapReader *reader, NodeReader *node, ByteReader *body, MapRun *run, uint64_t *slot_out,
             CairnError *err)
{
    uint64_t creator = byte_reader_varint_max(body, NODE_BID_LIMIT);
    BackupId bid;
    if (!node_bid(node, creator, &bid, err))
        return false;
    if (!creator_table_add(reader->creators, &bid, &run->creator, err))
        return cairn_error_wrap(err, "map");
    run->pack = (uint32_t)byte_reader_varint_max(body, INT32_MAX);
    *slot_out = byte_reader_varint_max(body, INT32_MAX);
    if (reader->source_count == reader->source_capacity) {
        size_t capacity = reader->source_capacity == 0 ? 16 : 2 * reader->source_capacity;
        RunSource *sources = realloc(reader->sources, capacity * sizeof *sources);
        if (sources == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        reader->sources = sources;
        reader->source_capacity = capacity;
    }
    reader->sources[reader->source_count++] =
        (RunSource){.creator = run->creator, .pack = run->pack};
    return true;
}

/* Creator, pack and slot of a data run; *last is the source of the one before (count: none yet). */
static bool
parse_place(MapReader *reader, NodeReader *node, ByteReader *body, unsigned kind, MapRun *run,
            size_t *last, CairnError *err)
{
    uint64_t slot = 0;
    if (kind == RUN_DATA) {
        if (!begin_source(reader, node, body, run, &slot, err))
            return false;
        *last = reader->source_count - 1;
    } else {
        if (kind == RUN_SOURCE)
            *last = byte_reader_varint_max(body, REGION_UNITS);
        if (*last >= reader->source_count)
            return damaged(reader, "a run goes on from nowhere", err);
        const RunSource *source = &reader->sources[*last];
        run->creator = source->creator;
        run->pack = source->pack;
        slot = source->end + byte_reader_varint_max(body, INT32_MAX);
    }
    if (body->failed || slot + run->units > INT32_MAX)
        return damaged(reader, "a run is damaged", err);
    run->slot = (uint32_t)slot;
    reader->sources[*last].end = slot + run->units;
    return true;
}

/* Decodes a list of runs (of the node whose BID table is `node`), or only checks and passes it. */
static bool
parse_runs(MapReader *reader, NodeReader *node, ByteReader *body, uint64_t units, size_t *count_out,
           CairnError *err)
{
    uint64_t count = byte_reader_varint_max(body, REGION_UNITS);
    if (count > reader->run_capacity) {
        MapRun *runs = realloc(reader->runs, count * sizeof *runs);
        if (runs == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        reader->runs = runs;
        reader->run_capacity = count;
    }
    uint64_t total = 0;
    size_t last = SIZE_MAX;
    reader->source_count = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t head = byte_reader_varint_max(body, (uint64_t)REGION_UNITS * 4 + 3);
        MapRun *run = &reader->runs[i];
        *run = (MapRun){.units = head / 4, .is_zero = head % 4 == RUN_ZERO};
        total += run->units;
        if (!run->is_zero &&
            !parse_place(reader, node, body, (unsigned)(head % 4), run, &last, err))
            return false;
        if (body->failed || run->units == 0 || total > units)
            return damaged(reader, "a run is damaged", err);
    }
    if (body->failed || total != units)
        return damaged(reader, "its runs do not add up to its size", err);
    *count_out = count;
    return true;
}

static uint64_t
region_units(uint64_t units_left)
{
    return units_left < REGION_UNITS ? units_left : REGION_UNITS;
}

/* Passes over the regions of the entry, to find where the next entry begins. */
static bool
skip_regions(MapReader *reader, ByteReader *body, CairnError *err)
{
    Step *leaf = &reader->steps[reader->depth];
    uint64_t left = reader->units_left;
    for (uint64_t i = 0; i < reader->region_count; i++) {
        size_t count;
        MapNodeRef ref;
        uint8_t kind = byte_reader_u8(body);
        if (kind == 0) {
            if (!parse_runs(reader, &leaf->node, body, region_units(left), &count, err))
                return false;
        } else if (kind == 1) {
            if (!node_ref_read(&leaf->node, &ref, err))
                return false;
        } else {
            return damaged(reader, "a region is of unknown kind", err);
        }
        left -= region_units(left);
    }
    return true;
}

static bool
parse_entry(MapReader *reader, CairnError *err)
{
    Step *leaf = &reader->steps[reader->depth];
    ByteReader *body = &leaf->node.body;
    if (!parse_key(reader, body, err))
        return false;
    leaf->left--;

    MapEntry entry = {.class = (MapClass)reader->key[0], .path = (const char *)reader->key + 1};
    entry.type = (MapEntryType)byte_reader_u8(body);
    entry.mode = (uint32_t)byte_reader_varint_max(body, 07777);
    reader->region_count = reader->region_next = reader->units_left = 0;
    if (entry.type == MAP_FILE) {
        entry.size_bytes = byte_reader_varint_max(body, INT64_MAX);
        uint8_t flags = byte_reader_u8(body);
        entry.has_crc32c = (flags & ENTRY_HAS_CRC) != 0;
        entry.crc32c = entry.has_crc32c ? byte_reader_u32(body) : 0;
        reader->region_count = byte_reader_varint(body);
        reader->units_left = units_of_size(entry.size_bytes);
        if (body->failed || (flags & ~ENTRY_HAS_CRC) != 0 ||
            reader->region_count != (reader->units_left + REGION_UNITS - 1) / REGION_UNITS)
            return damaged(reader, "it is damaged", err);
    } else if (entry.type != MAP_DIRECTORY) {
        return damaged(reader, "it is of unknown type", err);
    }
    reader->regions = *body;
    if (!skip_regions(reader, body, err))
        return false;
    if (body->failed || (leaf->left == 0 && !byte_reader_done(body)))
        return damaged(reader, "its node is damaged", err);
    reader->entry = entry;
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
        if (!parse_entry(reader, err))
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
        if (!first && compare_keys(step->key, step->key_size, key, key_size) > 0) {
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
        if (!parse_entry(reader, err))
            return false;
        if (compare_keys(reader->key, reader->key_size, key, path_size + 1) >= 0) {
            reader->have_entry = true;
            return true;
        }
    }
}

bool
map_reader_region_node(MapReader *reader, const MapNodeRef *ref, uint64_t first_unit,
                       uint64_t units, const MapRun **runs_out, size_t *count_out, CairnError *err)
{
    CAIRN_ASSERT(units >= 1 && units <= REGION_UNITS);
    SCOPED_MEMORY uint8_t *raw = read_node(reader, ref, err);
    NodeReader region;
    if (raw == NULL || !node_open(&region, raw, ref->raw_size, NODE_REGION, err))
        return false;
    if (byte_reader_varint(&region.body) != first_unit)
        return damaged(reader, "a region is another's", err);
    if (!parse_runs(reader, &region, &region.body, units, count_out, err))
        return false;
    if (!byte_reader_done(&region.body))
        return damaged(reader, "a region is damaged", err);
    *runs_out = reader->runs;
    return true;
}

bool
map_reader_region_raw(MapReader *reader, MapRegion *region_out, bool *found_out, CairnError *err)
{
    *found_out = reader->region_next < reader->region_count;
    if (!*found_out)
        return true;

    /* The leaf's own reader has moved on to the next entry: work on a copy that stands at our
     * region. */
    NodeReader node = reader->steps[reader->depth].node;
    node.body = reader->regions;
    MapRegion region = {.first_unit = reader->region_next * REGION_UNITS,
                        .units = region_units(reader->units_left)};
    region.is_node = byte_reader_u8(&node.body) != 0;
    if (region.is_node ? !node_ref_read(&node, &region.node, err)
                       : !parse_runs(reader, &node, &node.body, region.units, &region.count, err))
        return false;
    region.runs = reader->runs;
    reader->regions = node.body;
    reader->units_left -= region.units;
    reader->region_next++;
    *region_out = region;
    return true;
}

bool
map_reader_region(MapReader *reader, const MapRun **runs_out, size_t *count_out,
                  uint64_t *first_unit_out, CairnError *err)
{
    MapRegion region = {.runs = reader->runs, .first_unit = reader->region_next * REGION_UNITS};
    bool found;
    if (!map_reader_region_raw(reader, &region, &found, err))
        return false;
    if (found && region.is_node &&
        !map_reader_region_node(reader, &region.node, region.first_unit, region.units, &region.runs,
                                &region.count, err))
        return false;
    *runs_out = region.runs;
    *count_out = region.count;
    *first_unit_out = region.first_unit;
    return true;
}

uint8_t *
map_reader_frame_table(MapReader *reader, uint32_t pack, size_t *size_out, CairnError *err)
{
    for (size_t i = 0; i < reader->pack_list_count; i++) {
        SCOPED_MEMORY uint8_t *raw = read_node(reader, &reader->pack_lists[i], err);
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
            SCOPED_MEMORY uint8_t *table = read_node(reader, &ref, err);
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
