#include "repository/salvage_table.h"

#include "common/cancel.h"
#include "common/log.h"
#include "repository/fingerprints.h"
#include "repository/map_sort.h"
#include "repository/pack.h"
#include "repository/path_table.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

/*
 * Stretches are sorted by path and first unit: the key of a record in the sort is the map key, a
 * zero byte, the first unit and the place, big-endian, so that keys are unique.
 */
enum { PLACE_KEY_SIZE = 1 + 8 + 12, RUN_SIZE = 28 };

struct SalvageTable {
    SalvageTableOptions options;
    PathTable *files;
    const uint8_t *record; /* of the current file: runs of RUN_SIZE bytes */
    size_t record_size, at;
};

/* Gathers the runs of packs, one stretch behind: what continues it is added to it. */
typedef struct {
    SalvageTable *table;
    MapSort *sort;
    uint32_t creator, pack;
    uint8_t key[MAP_KEY_LIMIT + 1];
    size_t key_size; /* 0: no stretch */
    SalvageRun run;
} Gathering;

static void
put_big_u64(uint8_t *data, uint64_t value)
{
    value = htobe64(value);
    memcpy(data, &value, sizeof value);
}

static void
put_big_u32(uint8_t *data, uint32_t value)
{
    value = htobe32(value);
    memcpy(data, &value, sizeof value);
}

static bool
add_stretch(Gathering *gathering, const SalvageRun *run, CairnError *err)
{
    uint8_t key[MAP_KEY_LIMIT + 1 + PLACE_KEY_SIZE], payload[8];
    memcpy(key, gathering->key, gathering->key_size);
    uint8_t *place = key + gathering->key_size;
    *place++ = 0;
    put_big_u64(place, run->first_unit);
    put_big_u32(place + 8, run->creator);
    put_big_u32(place + 12, run->pack);
    put_big_u32(place + 16, run->slot);
    put_u32(payload, run->units);
    put_u32(payload + 4, run->tail_bytes);
    return map_sort_add(gathering->sort, key, gathering->key_size + PLACE_KEY_SIZE, payload,
                        sizeof payload, err);
}

/* Cut at the ends of regions, because they are looked up region by region. */
static bool
end_stretch(Gathering *gathering, CairnError *err)
{
    SalvageRun left = gathering->run;
    while (gathering->key_size > 0 && left.units > 0) {
        SalvageRun piece = left;
        uint64_t room = REGION_UNITS - left.first_unit % REGION_UNITS;
        if (piece.units > room) {
            piece.units = (uint32_t)room;
            piece.tail_bytes = 0;
        }
        if (!add_stretch(gathering, &piece, err))
            return false;
        left.first_unit += piece.units;
        left.slot += piece.units;
        left.units -= piece.units;
    }
    gathering->key_size = 0;
    return true;
}

static bool
gather_run(void *context, const PackRun *run, CairnError *err)
{
    Gathering *gathering = context;
    SalvageRun *stretch = &gathering->run;
    size_t path_size = strlen(run->path);
    bool continues =
        gathering->key_size == path_size + 1 && gathering->key[0] == (uint8_t)run->class &&
        memcmp(gathering->key + 1, run->path, path_size) == 0 && stretch->tail_bytes == 0 &&
        stretch->first_unit + stretch->units == run->first_unit &&
        stretch->slot + stretch->units == run->first_slot;
    if (continues) {
        stretch->units += run->units;
        stretch->tail_bytes = run->tail_bytes;
        return true;
    }
    if (!end_stretch(gathering, err))
        return false;
    gathering->key[0] = (uint8_t)run->class;
    memcpy(gathering->key + 1, run->path, path_size);
    gathering->key_size = path_size + 1;
    *stretch = (SalvageRun){.first_unit = run->first_unit,
                            .units = run->units,
                            .tail_bytes = run->tail_bytes,
                            .creator = gathering->creator,
                            .pack = gathering->pack,
                            .slot = run->first_slot};
    return true;
}

static bool
gather_pack(Gathering *gathering, CairnError *err)
{
    const SalvageTableOptions *options = &gathering->table->options;
    const BackupId *bid = creator_table_get(options->creators, gathering->creator);
    SCOPED(PackReader)
    pack = pack_open(options->repository, options->cluster, bid, gathering->pack, err);
    if (pack != NULL && pack_runs(pack, gather_run, gathering, err) && end_stretch(gathering, err))
        return true;
    gathering->key_size = 0;
    if (!error_is_of_object(err))
        return false;
    log_debug("nothing is salvaged of pack %u: %s", gathering->pack, err->message);
    cairn_error_clear(err);
    return true;
}

/* Packs of one attempt: below p/ lie directories of 1024 each. */
typedef struct {
    uint32_t *packs;
    size_t count, capacity;
    Repository *repository;
    char prefix[STORAGE_NAME_LIMIT];
} PackList;

static StorageListNext
list_pack(void *context, const StorageEntry *entry, CairnError *err)
{
    PackList *list = context;
    uint32_t pack;
    char end, canonical[16];
    if (entry->is_directory || sscanf(entry->name, "%8x%c", &pack, &end) != 1)
        return STORAGE_LIST_GO_ON;
    snprintf(canonical, sizeof canonical, "%08x", pack);
    if (strcmp(canonical, entry->name) != 0 || pack > INT32_MAX)
        return STORAGE_LIST_GO_ON;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        uint32_t *packs = realloc(list->packs, capacity * sizeof *packs);
        if (packs == NULL) {
            cairn_error(err, CAIRN_INTERNAL, "out of memory");
            return STORAGE_LIST_FAILED;
        }
        list->packs = packs;
        list->capacity = capacity;
    }
    list->packs[list->count++] = pack;
    return STORAGE_LIST_GO_ON;
}

static StorageListNext
list_directory(void *context, const StorageEntry *entry, CairnError *err)
{
    PackList *list = context;
    char name[STORAGE_NAME_LIMIT];
    int size = snprintf(name, sizeof name, "%s/%s", list->prefix, entry->name);
    if (!entry->is_directory || size < 0 || (size_t)size >= sizeof name)
        return STORAGE_LIST_GO_ON;
    return storage_list(repository_storage(list->repository), name, list_pack, list, err)
               ? STORAGE_LIST_GO_ON
               : STORAGE_LIST_FAILED;
}

static bool
gather_attempt(Gathering *gathering, CairnError *err)
{
    const SalvageTableOptions *options = &gathering->table->options;
    PackList list = {.repository = options->repository};
    snprintf(list.prefix, sizeof list.prefix, "c/%s/b/%s/p", options->cluster,
             creator_table_get(options->creators, gathering->creator)->text);
    bool good = storage_list(repository_storage(options->repository), list.prefix, list_directory,
                             &list, err);
    for (size_t i = 0; good && i < list.count; i++) {
        gathering->pack = list.packs[i];
        good = cancel_check(err) && gather_pack(gathering, err);
    }
    free(list.packs);
    return good;
}

static uint64_t
get_big_u64(const uint8_t *data)
{
    return be64toh(get_u64(data));
}

/* Puts one file's runs, sorted, into its record. */
static void
append_run(ByteWriter *record, const uint8_t *place, const uint8_t *payload)
{
    byte_writer_u64(record, get_big_u64(place));
    byte_writer_bytes(record, payload, 8);
    for (int i = 0; i < 3; i++)
        byte_writer_u32(record, be32toh(get_u32(place + 8 + 4 * i)));
}

static bool
write_records(SalvageTable *table, MapSort *sort, ByteWriter *record, CairnError *err)
{
    uint8_t key[MAP_KEY_LIMIT + 1];
    size_t key_size = 0;
    for (;;) {
        const uint8_t *found_key, *payload;
        size_t found_size = 0, payload_size;
        bool found;
        if (!map_sort_next(sort, &found_key, &found_size, &payload, &payload_size, &found, err))
            return false;
        size_t size = found ? found_size - PLACE_KEY_SIZE : 0;
        if (key_size > 0 && (!found || size != key_size || memcmp(key, found_key, size) != 0)) {
            if (!byte_writer_check(record, err) ||
                !path_table_add(table->files, key, key_size, record->data, record->size, err))
                return false;
            byte_writer_reset(record);
        }
        if (!found)
            return true;
        memcpy(key, found_key, size);
        key_size = size;
        if (record->size + RUN_SIZE <= PATH_RECORD_LIMIT)
            append_run(record, found_key + size + 1, payload);
    }
}

SalvageTable *
salvage_table_new(const SalvageTableOptions *options, CairnError *err)
{
    SCOPED(SalvageTable) table = calloc(1, sizeof *table);
    if (table == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    table->options = *options;
    table->files = path_table_new(options->repository, options->scratch_directory, UINT64_MAX, err);
    if (table->files == NULL)
        return NULL;
    SCOPED(MapSort)
    sort = map_sort_new(repository_world(options->repository), options->scratch_directory,
                        MAP_SORT_MEMORY, err);
    if (sort == NULL)
        return NULL;
    Gathering gathering = {.table = table, .sort = sort, .creator = options->first_salvage};
    for (; gathering.creator < creator_table_count(options->creators); gathering.creator++) {
        if (!gather_attempt(&gathering, err))
            return NULL;
    }
    SCOPED_BYTES ByteWriter record = {0};
    if (!write_records(table, sort, &record, err))
        return NULL;
    return take(&table);
}

void
salvage_table_free(SalvageTable *table)
{
    if (table == NULL)
        return;
    path_table_free(table->files);
    free(table);
}

bool
salvage_table_file(SalvageTable *table, MapClass class, const char *path, bool *found_out,
                   CairnError *err)
{
    uint8_t key[MAP_KEY_LIMIT + 1];
    size_t path_size = strlen(path);
    CAIRN_ASSERT(path_size < MAP_KEY_LIMIT);
    key[0] = (uint8_t) class;
    memcpy(key + 1, path, path_size);
    table->at = 0;
    if (!path_table_find(table->files, key, path_size + 1, &table->record, &table->record_size,
                         err))
        return false;
    *found_out = table->record != NULL;
    return true;
}

bool
salvage_table_next(SalvageTable *table, uint64_t end_unit, SalvageRun *run_out)
{
    if (table->record_size - table->at < RUN_SIZE)
        return false;
    const uint8_t *run = table->record + table->at;
    if (get_u64(run) >= end_unit)
        return false;
    table->at += RUN_SIZE;
    *run_out = (SalvageRun){.first_unit = get_u64(run),
                            .units = get_u32(run + 8),
                            .tail_bytes = get_u32(run + 12),
                            .creator = get_u32(run + 16),
                            .pack = get_u32(run + 20),
                            .slot = get_u32(run + 24)};
    return true;
}
