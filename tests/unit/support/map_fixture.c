#include "tests/unit/support/map_fixture.h"

#include "tests/unit/support/repository_fixture.h"

#include "repository/pack.h"

void
raw_map_begin(RawMap *map, Repository *repository, const BackupId *bid)
{
    CairnError err = {0};
    char name[STORAGE_NAME_LIMIT];
    *map = (RawMap){.bid = *bid};
    map_pack_name(name, "main", bid, 0);
    map->object = object_create(repository, name, OBJECT_MAP, backup_id_sequence(bid), &err);
    map->digest = repository_digest(repository, DIGEST_MAP, &err);
    CAIRN_ASSERT(map->object != NULL && map->digest != NULL);
}

MapNodeRef
raw_map_node(RawMap *map, const void *raw, size_t size)
{
    CairnError err = {0};
    MapNodeRef ref = {
        .creator = map->bid, .stored_size = (uint32_t)size, .raw_size = (uint32_t)size};
    const bool made = keyed_digest_of(map->digest, raw, size, ref.digest, &err);
    CAIRN_ASSERT(made);
    const ObjectFrame frame = test_append(map->object, raw, size);
    ref.offset = frame.offset;
    ref.stored_size = frame.stored_size;
    byte_writer_u8(&map->index, CODEC_NONE);
    byte_writer_varint(&map->index, size);
    byte_writer_varint(&map->index, frame.stored_size);
    byte_writer_u32(&map->index, frame.crc);
    map->count++;
    return ref;
}

void
raw_map_finish(RawMap *map)
{
    CairnError err = {0};
    SCOPED_BYTES ByteWriter index = {0};
    byte_writer_u16(&index, MAP_LAYOUT);
    byte_writer_u16(&index, 0);
    byte_writer_varint(&index, map->count);
    byte_writer_bytes(&index, map->index.data, map->index.size);
    const bool finished = object_finish(map->object, index.data, index.size, NULL, &err);
    CAIRN_ASSERT(finished);
    object_writer_free(map->object);
    keyed_digest_free(map->digest);
    byte_writer_free(&map->index);
}

MapNodeRef
raw_map_root(RawMap *map, uint64_t depth, const MapNodeRef *top)
{
    SCOPED_BYTES ByteWriter root = {0};
    node_start(&root, NODE_ROOT, &map->bid);
    byte_writer_varint(&root, depth);
    node_ref_append(&root, top, 0);
    for (int i = 0; i < 4; i++)
        byte_writer_varint(&root, 0); /* pack lists, files, directories, bytes */
    return raw_map_node(map, root.data, root.size);
}

CairnErrorKind
map_fixture_walk(Repository *repository, const MapNodeRef *root, uint64_t *entries_out)
{
    CairnError err = {0};
    *entries_out = 0;
    SCOPED(MapReader) reader = map_reader_open(repository, "main", root, &err);
    if (reader == NULL)
        return err.kind;
    for (;;) {
        MapEntry entry;
        bool found;
        if (!map_reader_next(reader, &entry, &found, &err))
            return err.kind;
        if (!found)
            return CAIRN_OK;
        ++*entries_out;
        for (size_t count = 1; count > 0;) {
            const MapRun *runs;
            uint64_t first_unit;
            if (!map_reader_region(reader, &runs, &count, &first_unit, &err))
                return err.kind;
        }
    }
}
