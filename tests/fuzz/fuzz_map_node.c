/*
 * Map nodes, with every digest right: the input is a row of nodes, each preceded by its length
 * (u16). In a node 0xfe <n> stands for a reference to node n before it, and 0xfd for the backup's
 * id, so that mutations grow trees. The last node is the root. What can be walked keeps the
 * reader's promises.
 */
#include "postgres/tar.h"
#include "tests/unit/support/map_fixture.h"
#include "tests/unit/support/repository_fixture.h"

#include <string.h>

enum { NODE_COUNT_LIMIT = 64, STEP_LIMIT = 100000, SEEKS = 3 };

static void
expand(ByteWriter *node, const uint8_t *data, size_t size, const BackupId *bid,
       const MapNodeRef *refs, size_t ref_count)
{
    for (size_t i = 0; i < size; i++) {
        if (data[i] == 0xfd) {
            byte_writer_bytes(node, bid->text, BACKUP_ID_LENGTH);
        } else if (data[i] == 0xfe && i + 1 < size && ref_count > 0) {
            node_ref_append(node, &refs[data[++i] % ref_count], 0);
        } else {
            byte_writer_u8(node, data[i]);
        }
    }
}

static void
check_regions(MapReader *reader, const MapEntry *entry)
{
    CairnError err = {0};
    uint64_t units = 0;
    for (int i = 0; i < STEP_LIMIT; i++) {
        const MapRun *runs;
        size_t count;
        uint64_t first_unit;
        if (!map_reader_region(reader, &runs, &count, &first_unit, &err))
            return;
        if (count == 0) {
            CAIRN_ASSERT(units == (entry->type == MAP_FILE ? units_of_size(entry->size_bytes) : 0));
            return;
        }
        CAIRN_ASSERT(first_unit == units);
        for (size_t k = 0; k < count; k++) {
            CAIRN_ASSERT(runs[k].units > 0);
            CAIRN_ASSERT(runs[k].is_zero || runs[k].slot + runs[k].units <= INT32_MAX);
            if (!runs[k].is_zero)
                CAIRN_ASSERT(map_reader_creator(reader, runs[k].creator)->text[10] == '-');
            units += runs[k].units;
        }
    }
}

static void
walk(MapReader *reader)
{
    char last[MAP_KEY_LIMIT + 1] = "";
    int last_class = 0;
    for (int i = 0; i < STEP_LIMIT; i++) {
        CairnError err = {0};
        MapEntry entry;
        bool found;
        if (!map_reader_next(reader, &entry, &found, &err) || !found)
            return;
        CAIRN_ASSERT(path_is_clean(entry.path, strlen(entry.path)));
        CAIRN_ASSERT((int)entry.class > last_class ||
                     ((int)entry.class == last_class && strcmp(entry.path, last) > 0));
        memcpy(last, entry.path, strlen(entry.path) + 1);
        last_class = (int)entry.class;
        check_regions(reader, &entry);
    }
}

static void
read_map(Repository *repository, const MapNodeRef *root)
{
    CairnError err = {0};
    SCOPED(MapReader) reader = map_reader_open(repository, "main", root, &err);
    if (reader == NULL)
        return;
    walk(reader);
    static const char *const seeks[SEEKS] = {"", "base/1", "zz"};
    for (int i = 0; i < SEEKS; i++) {
        CairnError failure = {0};
        if (map_reader_seek(reader, i % 2 == 0 ? MAP_CLASS_CLUSTER : MAP_CLASS_OURS, seeks[i],
                            &failure))
            walk(reader);
    }
    for (uint32_t pack = 0; pack < 3; pack++) {
        CairnError failure = {0};
        size_t size;
        SCOPED_MEMORY uint8_t *table = map_reader_frame_table(reader, pack, &size, &failure);
        CAIRN_ASSERT((table == NULL) == (failure.kind != CAIRN_OK));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    SCOPED(Repository) repository = memory_repository("none");
    const BackupId bid = test_backup_id(1);
    RawMap map;
    MapNodeRef refs[NODE_COUNT_LIMIT];
    size_t count = 0;
    raw_map_begin(&map, repository, &bid);
    ByteReader input = byte_reader(data, size);
    while (count < NODE_COUNT_LIMIT && byte_reader_left(&input) > 2) {
        size_t length = byte_reader_u16(&input);
        if (length > byte_reader_left(&input))
            length = byte_reader_left(&input);
        SCOPED_BYTES ByteWriter node = {0};
        expand(&node, byte_reader_bytes(&input, length), length, &bid, refs, count);
        if (node.size > MAP_NODE_LIMIT)
            break;
        refs[count++] = raw_map_node(&map, node.data, node.size);
    }
    raw_map_finish(&map);
    if (count > 0)
        read_map(repository, &refs[count - 1]);
    return 0;
}
