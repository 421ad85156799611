#include "repository/parent_table.h"

#include "common/cancel.h"
#include "common/log.h"
#include "repository/fingerprints.h"
#include "repository/node_list.h"
#include "repository/path_table.h"

#include <string.h>

/* Regions in a file's record: a region that nothing is known of, its runs, or its node. */
enum { REGION_UNKNOWN = 0, REGION_RUNS = 1, REGION_NODE = 2, REGION_OWN_NODE = 3 };

struct ParentTable {
    ParentTableOptions options;
    MapReader *map;
    PathTable *files;
    NodeList *levels[MAP_DEPTH_LIMIT + 1];
    uint64_t size_bytes;

    uint32_t *numbers; /* by the map's creator: its number in the table + 1, 0: not looked up yet */
    size_t number_count;

    ByteWriter record; /* of the file being walked over */

    ByteReader current; /* record of the current file, at its next region */
    uint64_t next_region, regions, units;
    MapRun *runs;
    size_t run_capacity;
    uint64_t lost_regions;
};

void
parent_table_free(ParentTable *table)
{
    if (table == NULL)
        return;
    map_reader_free(table->map);
    path_table_free(table->files);
    for (size_t i = 0; i <= MAP_DEPTH_LIMIT; i++)
        node_list_free(table->levels[i]);
    byte_writer_free(&table->record);
    free(table->numbers);
    free(table->runs);
    free(table);
}

/* A node may be referred to again when its creator and map pack are among what the parent rests
 * on. */
static bool
may_refer_to(const ParentTable *table, const MapNodeRef *ref)
{
    uint32_t number;
    return creator_table_find(table->options.creators, &ref->creator, &number) &&
           refs_mention(table->options.refs, &ref->creator, true, ref->pack);
}

static bool
note_node(void *context, const MapNodeSeenAt *at, CairnError *err)
{
    ParentTable *table = context;
    /* The top has no key, and holds the whole tree: it is hardly ever the same. */
    if (at->key == NULL || !may_refer_to(table, at->ref))
        return true;
    NodeList **list = &table->levels[at->level];
    if (*list == NULL) {
        *list = node_list_new(repository_world(table->options.repository),
                              table->options.scratch_directory, err);
        if (*list == NULL)
            return false;
    }
    return node_list_add(*list, at->key, at->key_size, at->ref, err);
}

/* Number of the map's creator in our table. */
static bool
number_of(ParentTable *table, uint32_t creator, uint32_t *number_out, CairnError *err)
{
    if (creator >= table->number_count) {
        size_t count = (size_t)creator + 64;
        uint32_t *numbers = realloc(table->numbers, count * sizeof *numbers);
        if (numbers == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        memset(numbers + table->number_count, 0, (count - table->number_count) * sizeof *numbers);
        table->numbers = numbers;
        table->number_count = count;
    }
    uint32_t *known = &table->numbers[creator];
    if (*known == 0) {
        uint32_t number = PARENT_CREATOR_UNKNOWN - 1;
        creator_table_find(table->options.creators, map_reader_creator(table->map, creator),
                           &number);
        *known = number + 1;
    }
    *number_out = *known == PARENT_CREATOR_UNKNOWN ? PARENT_CREATOR_UNKNOWN : *known - 1;
    return true;
}

static bool
record_runs(ParentTable *table, const MapRegion *region, CairnError *err)
{
    ByteWriter *record = &table->record;
    byte_writer_u8(record, REGION_RUNS);
    byte_writer_varint(record, region->count);
    for (size_t i = 0; i < region->count; i++) {
        const MapRun *run = &region->runs[i];
        uint32_t number = 0;
        byte_writer_varint(record, run->units * 2 + run->is_zero);
        if (run->is_zero)
            continue;
        if (!number_of(table, run->creator, &number, err))
            return false;
        byte_writer_varint(record, number);
        byte_writer_varint(record, run->pack);
        byte_writer_varint(record, run->slot);
    }
    return true;
}

static bool
record_regions(ParentTable *table, const char *path, CairnError *err)
{
    ByteWriter *record = &table->record;
    for (;;) {
        MapRegion region;
        bool found;
        if (!map_reader_region_raw(table->map, &region, &found, err))
            return false;
        if (!found)
            return byte_writer_check(record, err);
        if (record->size > PATH_RECORD_LIMIT - MAP_NODE_LIMIT) {
            log_debug("'%s' is compared in its first %llu units only", path,
                      (unsigned long long)region.first_unit);
            byte_writer_u8(record, REGION_UNKNOWN);
        } else if (region.is_node) {
            byte_writer_u8(record,
                           may_refer_to(table, &region.node) ? REGION_OWN_NODE : REGION_NODE);
            byte_writer_bytes(record, &region.node, sizeof region.node);
        } else if (!record_runs(table, &region, err)) {
            return false;
        }
    }
}

static bool
walk(ParentTable *table, CairnError *err)
{
    for (;;) {
        MapEntry entry;
        bool found;
        if (!cancel_check(err) || !map_reader_next(table->map, &entry, &found, err))
            return false;
        if (!found)
            return true;
        if (entry.type != MAP_FILE || entry.size_bytes == 0)
            continue;
        byte_writer_reset(&table->record);
        byte_writer_u64(&table->record, entry.size_bytes);
        if (!record_regions(table, entry.path, err))
            return false;
        uint8_t key[MAP_KEY_LIMIT + 1];
        size_t path_size = strlen(entry.path);
        key[0] = (uint8_t)entry.class;
        memcpy(key + 1, entry.path, path_size);
        if (!path_table_add(table->files, key, path_size + 1, table->record.data,
                            table->record.size, err))
            return false;
    }
}

ParentTable *
parent_table_new(const ParentTableOptions *options, CairnError *err)
{
    SCOPED(ParentTable) table = calloc(1, sizeof *table);
    if (table == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    table->options = *options;
    table->files =
        path_table_new(options->repository, options->scratch_directory, options->hash_mask, err);
    if (table->files == NULL)
        return NULL;
    table->map = map_reader_open(options->repository, options->cluster, options->map_root, err);
    if (table->map == NULL)
        return NULL;
    uint64_t files, directories;
    map_reader_totals(table->map, &files, &directories, &table->size_bytes);
    map_reader_on_node(table->map, note_node, table);
    if (!walk(table, err))
        return NULL;
    return take(&table);
}

bool
parent_table_file(ParentTable *table, MapClass class, const char *path, uint64_t *size_out,
                  bool *found_out, CairnError *err)
{
    uint8_t key[MAP_KEY_LIMIT + 1];
    size_t path_size = strlen(path), size;
    const uint8_t *record;
    CAIRN_ASSERT(path_size < MAP_KEY_LIMIT);
    key[0] = (uint8_t) class;
    memcpy(key + 1, path, path_size);
    table->regions = table->next_region = table->units = 0;
    if (!path_table_find(table->files, key, path_size + 1, &record, &size, err))
        return false;
    *found_out = record != NULL;
    if (record == NULL)
        return true;
    table->current = byte_reader(record, size);
    *size_out = byte_reader_u64(&table->current);
    table->units = units_of_size(*size_out);
    table->regions = (table->units + REGION_UNITS - 1) / REGION_UNITS;
    return true;
}

static bool
reserve_runs(ParentTable *table, size_t count, CairnError *err)
{
    if (table->run_capacity >= count)
        return true;
    MapRun *runs = realloc(table->runs, count * sizeof *runs);
    if (runs == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    table->runs = runs;
    table->run_capacity = count;
    return true;
}

static bool
read_runs(ParentTable *table, ParentRegion *region, CairnError *err)
{
    ByteReader *record = &table->current;
    region->count = byte_reader_varint_max(record, REGION_UNITS);
    if (!reserve_runs(table, region->count, err))
        return false;
    for (size_t i = 0; i < region->count; i++) {
        uint64_t head = byte_reader_varint(record);
        MapRun *run = &table->runs[i];
        *run = (MapRun){.is_zero = head % 2 != 0, .units = head / 2};
        if (run->is_zero)
            continue;
        run->creator = (uint32_t)byte_reader_varint(record);
        run->pack = (uint32_t)byte_reader_varint(record);
        run->slot = (uint32_t)byte_reader_varint(record);
    }
    region->runs = table->runs;
    return true;
}

static bool
read_node(ParentTable *table, ParentRegion *region, CairnError *err)
{
    const MapRun *runs;
    size_t count;
    if (!map_reader_region_node(table->map, &region->node, region->first_unit, region->units, &runs,
                                &count, err)) {
        if (!error_is_of_object(err))
            return false;
        log_warn("what a part of the parent's map describes is stored anew: %s", err->message);
        cairn_error_clear(err);
        table->lost_regions++;
        region->has_node = false;
        return true;
    }
    if (!reserve_runs(table, count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        table->runs[i] = runs[i];
        if (!runs[i].is_zero && !number_of(table, runs[i].creator, &table->runs[i].creator, err))
            return false;
    }
    region->runs = table->runs;
    region->count = count;
    return true;
}

/* Reads the record's next region, or only passes it. */
static bool
next_region(ParentTable *table, bool wanted, ParentRegion *region, CairnError *err)
{
    ByteReader *record = &table->current;
    uint64_t first = table->next_region++ * REGION_UNITS, left = table->units - first;
    *region =
        (ParentRegion){.first_unit = first, .units = left < REGION_UNITS ? left : REGION_UNITS};
    uint8_t kind = byte_reader_u8(record);
    if (kind == REGION_RUNS)
        return read_runs(table, region, err);
    if (kind == REGION_NODE || kind == REGION_OWN_NODE) {
        const uint8_t *node = byte_reader_bytes(record, sizeof region->node);
        if (node != NULL)
            memcpy(&region->node, node, sizeof region->node);
        region->has_node = kind == REGION_OWN_NODE;
        return node == NULL || !wanted || read_node(table, region, err);
    }
    return true;
}

bool
parent_table_region(ParentTable *table, uint64_t region, ParentRegion *region_out, CairnError *err)
{
    *region_out = (ParentRegion){.first_unit = region * REGION_UNITS};
    while (table->next_region <= region && table->next_region < table->regions) {
        if (!next_region(table, table->next_region == region, region_out, err))
            return false;
    }
    if (table->current.failed)
        return cairn_error(err, CAIRN_CORRUPT, "scratch file holds an impossible record");
    if (region >= table->regions)
        *region_out = (ParentRegion){.first_unit = region * REGION_UNITS};
    return true;
}

bool
parent_table_node(void *context, size_t level, const void *key, size_t key_size,
                  MapNodeRef *ref_out, bool *found_out, CairnError *err)
{
    ParentTable *table = context;
    *found_out = false;
    return level > MAP_DEPTH_LIMIT || table->levels[level] == NULL ||
           node_list_find(table->levels[level], key, key_size, ref_out, found_out, err);
}

uint64_t
parent_table_lost_regions(const ParentTable *table)
{
    return table->lost_regions;
}

uint64_t
parent_table_size_bytes(const ParentTable *table)
{
    return table->size_bytes;
}
