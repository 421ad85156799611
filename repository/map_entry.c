/* One entry of a map, taken apart as if an enemy had written it: key, regions, runs. */
#include "repository/map_reader_intern.h"

#include "postgres/tar.h"

#include <string.h>

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
    return map_key_compare(key, key_size, parent->key, parent->key_size) == 0;
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
    if (map_key_compare(suffix, suffix_size, reader->key + shared, reader->key_size - shared) <= 0)
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

bool
map_reader_parse_entry(MapReader *reader, CairnError *err)
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
map_reader_region_node(MapReader *reader, const MapNodeRef *ref, uint64_t first_unit,
                       uint64_t units, const MapRun **runs_out, size_t *count_out, CairnError *err)
{
    CAIRN_ASSERT(units >= 1 && units <= REGION_UNITS);
    SCOPED_MEMORY uint8_t *raw = map_node_store_read(reader->nodes, ref, err);
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
