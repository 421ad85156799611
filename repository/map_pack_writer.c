#include "repository/map_pack_writer.h"

#include "repository/map_node.h"
#include "repository/object.h"
#include "repository/pack.h"

#include <string.h>

struct MapPackWriter {
    Repository *repository;
    char cluster[CLUSTER_NAME_LIMIT + 1];
    BackupId bid;
    CodecContext *codec;
    ByteWriter stored; /* the compressed form of a node */

    uint64_t pack_size; /* a pack that has reached it is full */
    ObjectWriter *pack; /* the open one, or NULL */
    ByteWriter index;   /* of it */
    uint32_t frames;    /* in it */
    uint32_t count;
    uint64_t bytes;
    uint8_t (*digests)[SHA256_SIZE]; /* of finished packs */
};

MapPackWriter *
map_pack_writer_new(Repository *repository, const char *cluster, const BackupId *bid,
                    CairnError *err)
{
    MapPackWriter *writer = calloc(1, sizeof *writer);

    if (writer == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    writer->repository = repository;
    memcpy(writer->cluster, cluster, strnlen(cluster, CLUSTER_NAME_LIMIT));
    writer->bid = *bid;
    writer->pack_size = PACK_TARGET_SIZE;
    writer->codec = repository_codec(repository, err);
    if (writer->codec == NULL) {
        free(writer);
        return NULL;
    }
    return writer;
}

void
map_pack_writer_free(MapPackWriter *writer)
{
    if (writer == NULL)
        return;
    codec_close(writer->codec);
    if (writer->pack != NULL)
        object_writer_free(writer->pack);
    byte_writer_free(&writer->stored);
    byte_writer_free(&writer->index);
    free(writer->digests);
    free(writer);
}

void
map_pack_writer_limit(MapPackWriter *writer, uint64_t pack_size)
{
    writer->pack_size = pack_size;
}

bool
map_pack_writer_finish(MapPackWriter *writer, CairnError *err)
{
    if (writer->pack == NULL)
        return true;
    SCOPED_BYTES ByteWriter index = {0};
    byte_writer_u16(&index, MAP_LAYOUT);
    byte_writer_u16(&index, 0);
    byte_writer_varint(&index, writer->frames);
    byte_writer_bytes(&index, writer->index.data, writer->index.size);

    void *digests = realloc(writer->digests, writer->count * sizeof *writer->digests);
    if (digests == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    writer->digests = digests;
    if (!byte_writer_check(&index, err) || !object_finish(writer->pack, index.data, index.size,
                                                          writer->digests[writer->count - 1], err))
        return false;
    writer->bytes += object_size_so_far(writer->pack) + SHA256_SIZE;
    object_writer_free(writer->pack);
    writer->pack = NULL;
    writer->frames = 0;
    byte_writer_reset(&writer->index);
    return true;
}

static bool
ensure_pack(MapPackWriter *writer, CairnError *err)
{
    if (writer->pack != NULL && object_size_so_far(writer->pack) >= writer->pack_size &&
        !map_pack_writer_finish(writer, err))
        return false;
    if (writer->pack != NULL)
        return true;
    char name[STORAGE_NAME_LIMIT];
    map_pack_name(name, writer->cluster, &writer->bid, writer->count);
    writer->pack =
        object_create(writer->repository, name, OBJECT_MAP, backup_id_sequence(&writer->bid), err);
    if (writer->pack == NULL)
        return false;
    writer->count++;
    return true;
}

static bool
reserve_stored(MapPackWriter *writer, size_t capacity, CairnError *err)
{
    if (writer->stored.capacity >= capacity)
        return true;
    uint8_t *data = realloc(writer->stored.data, capacity);
    if (data == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    writer->stored.data = data;
    writer->stored.capacity = capacity;
    return true;
}

bool
map_pack_writer_append(MapPackWriter *writer, const ByteWriter *node, MapNodeRef *ref,
                       CairnError *err)
{
    size_t capacity = codec_bound(writer->codec, node->size);
    size_t stored_size;
    ObjectBlock block = {.raw_size = (uint32_t)node->size};
    ObjectFrame frame;
    if (!ensure_pack(writer, err) || !reserve_stored(writer, capacity, err) ||
        !codec_compress(writer->codec, node->data, node->size, writer->stored.data, capacity,
                        &stored_size, &block.codec, err))
        return false;
    block.data = writer->stored.data;
    block.size = (uint32_t)stored_size;
    if (!object_append(writer->pack, &block, &frame, err))
        return false;
    ref->creator = writer->bid;
    ref->pack = writer->count - 1;
    ref->offset = frame.offset;
    ref->stored_size = frame.stored_size;
    ref->codec = (uint8_t)frame.codec;
    byte_writer_u8(&writer->index, ref->codec);
    byte_writer_varint(&writer->index, ref->raw_size);
    byte_writer_varint(&writer->index, ref->stored_size);
    byte_writer_u32(&writer->index, frame.crc);
    writer->frames++;
    return byte_writer_check(&writer->index, err);
}

uint32_t
map_pack_writer_count(const MapPackWriter *writer)
{
    return writer->count;
}

uint64_t
map_pack_writer_bytes(const MapPackWriter *writer)
{
    return writer->bytes;
}

const uint8_t *
map_pack_writer_digest(const MapPackWriter *writer, uint32_t pack)
{
    return writer->digests[pack];
}
