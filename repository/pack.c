#include "repository/pack.h"

#include "postgres/tar.h"
#include "repository/object.h"

#include <stdio.h>
#include <string.h>

enum { PACK_LAYOUT = 1, PATH_SLOTS_INITIAL = 256 };

/* What a pack's frame table says of one frame. */
typedef struct {
    uint64_t offset;
    uint32_t stored_size;
    uint32_t crc;
    uint32_t first_slot;
    uint8_t codec;
    uint8_t slot_count;
} FrameInfo;

struct PackWriter {
    ObjectWriter *object;
    uint32_t frame_count;
    uint32_t slot_count;
    ByteWriter frames; /* encoded frame table without its count */
    ByteWriter runs;   /* encoded runs without their count */
    ByteWriter fingerprints;
    uint32_t run_count;
    uint32_t file_count;
    char last_key[MAP_KEY_LIMIT + 1]; /* of the file named last: runs come file by file */
    size_t last_key_size;
};

struct PackReader {
    ObjectReader *object;
    char name[STORAGE_NAME_LIMIT];
    FrameInfo *frames;
    uint32_t frame_count;
    uint32_t slot_count;
    ByteReader runs; /* at the run count */
    const uint8_t *fingerprints;
};

void
pack_name(char *name, const char *cluster, const BackupId *bid, uint32_t pack)
{
    snprintf(name, STORAGE_NAME_LIMIT, "c/%s/b/%s/p/%03x/%08x", cluster, bid->text, pack / 1024,
             pack);
}

void
map_pack_name(char *name, const char *cluster, const BackupId *bid, uint32_t pack)
{
    snprintf(name, STORAGE_NAME_LIMIT, "c/%s/b/%s/m/%08x", cluster, bid->text, pack);
}

PackWriter *
pack_create(Repository *repository, const char *cluster, const BackupId *bid, uint32_t pack,
            CairnError *err)
{
    SCOPED(PackWriter) writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    char name[STORAGE_NAME_LIMIT];
    pack_name(name, cluster, bid, pack);
    writer->object = object_create(repository, name, OBJECT_PACK, backup_id_sequence(bid), err);
    if (writer->object == NULL)
        return NULL;
    return take(&writer);
}

/* Adds a frame, stored already, to the frame table and its fingerprints to the directory. */
static void
note_frame(PackWriter *writer, const PackFrame *frame, const ObjectFrame *stored)
{
    byte_writer_u8(&writer->frames, frame->codec);
    byte_writer_u8(&writer->frames, frame->slot_count);
    byte_writer_varint(&writer->frames, stored->stored_size);
    byte_writer_u32(&writer->frames, stored->crc);
    byte_writer_bytes(&writer->fingerprints, frame->fingerprints,
                      (size_t)frame->slot_count * FINGERPRINT_SIZE);
    writer->slot_count += frame->slot_count;
    writer->frame_count++;
}

bool
pack_append_frames(PackWriter *writer, const PackFrame *frames, uint32_t count,
                   uint32_t *first_slot_out, CairnError *err)
{
    ObjectBlock blocks[PACK_FRAMES_AT_ONCE] = {0};
    ObjectFrame stored[PACK_FRAMES_AT_ONCE];
    CAIRN_ASSERT(count > 0 && count <= PACK_FRAMES_AT_ONCE);
    *first_slot_out = writer->slot_count;
    for (uint32_t i = 0; i < count; i++) {
        CAIRN_ASSERT(frames[i].slot_count >= 1 && frames[i].slot_count <= FRAME_SLOTS);
        blocks[i] = (ObjectBlock){.data = frames[i].stored,
                                  .size = frames[i].stored_size,
                                  .raw_size = (uint32_t)frames[i].slot_count * UNIT_SIZE,
                                  .codec = (CodecId)frames[i].codec};
    }
    if (!object_append_blocks(writer->object, blocks, count, stored, err))
        return false;
    for (uint32_t i = 0; i < count; i++)
        note_frame(writer, &frames[i], &stored[i]);
    return byte_writer_check(&writer->frames, err) && byte_writer_check(&writer->fingerprints, err);
}

bool
pack_append(PackWriter *writer, const PackFrame *frame, uint32_t *first_slot_out, CairnError *err)
{
    return pack_append_frames(writer, frame, 1, first_slot_out, err);
}

bool
pack_add_run(PackWriter *writer, MapClass class, const char *path, uint64_t first_unit,
             uint32_t units, uint32_t tail_bytes, CairnError *err)
{
    char key[MAP_KEY_LIMIT + 1];
    size_t path_size = strlen(path);
    CAIRN_ASSERT(path_size < MAP_KEY_LIMIT);
    key[0] = (char)class;
    memcpy(key + 1, path, path_size);

    if (writer->file_count > 0 && writer->last_key_size == path_size + 1 &&
        memcmp(writer->last_key, key, path_size + 1) == 0) {
        byte_writer_varint(&writer->runs, writer->file_count);
    } else {
        byte_writer_varint(&writer->runs, 0);
        byte_writer_varint(&writer->runs, path_size + 1);
        byte_writer_bytes(&writer->runs, key, path_size + 1);
        memcpy(writer->last_key, key, path_size + 1);
        writer->last_key_size = path_size + 1;
        writer->file_count++;
    }
    byte_writer_varint(&writer->runs, first_unit);
    byte_writer_varint(&writer->runs, units);
    byte_writer_varint(&writer->runs, tail_bytes);
    writer->run_count++;
    return byte_writer_check(&writer->runs, err);
}

uint64_t
pack_size_so_far(const PackWriter *writer)
{
    return object_size_so_far(writer->object);
}

size_t
pack_directory_size_so_far(const PackWriter *writer)
{
    return writer->frames.size + writer->runs.size + writer->fingerprints.size;
}

bool
pack_finish(PackWriter *writer, uint8_t digest_out[SHA256_SIZE], uint64_t *live_units_out,
            uint64_t *stored_size_out, ByteWriter *frame_table, CairnError *err)
{
    CAIRN_ASSERT(frame_table->size == 0);
    byte_writer_varint(frame_table, writer->frame_count);
    byte_writer_bytes(frame_table, writer->frames.data, writer->frames.size);

    SCOPED_BYTES ByteWriter index = {0};
    byte_writer_u16(&index, PACK_LAYOUT);
    byte_writer_u8(&index, FINGERPRINT_ALGORITHM_GMAC_AES);
    byte_writer_u8(&index, 0);
    byte_writer_bytes(&index, frame_table->data, frame_table->size);
    byte_writer_varint(&index, writer->run_count);
    byte_writer_bytes(&index, writer->runs.data, writer->runs.size);
    byte_writer_bytes(&index, writer->fingerprints.data, writer->fingerprints.size);
    CAIRN_ASSERT(writer->slot_count <= PACK_SLOT_LIMIT && index.size <= PACK_INDEX_LIMIT);
    if (!byte_writer_check(frame_table, err) || !byte_writer_check(&index, err) ||
        !object_finish(writer->object, index.data, index.size, digest_out, err))
        return false;
    *live_units_out = writer->slot_count;
    *stored_size_out = object_size_so_far(writer->object) + SHA256_SIZE;
    return true;
}

void
pack_writer_free(PackWriter *writer)
{
    if (writer == NULL)
        return;
    if (writer->object != NULL)
        object_writer_free(writer->object);
    byte_writer_free(&writer->frames);
    byte_writer_free(&writer->runs);
    byte_writer_free(&writer->fingerprints);
    free(writer);
}

static bool
damaged(const PackReader *reader, const char *what, CairnError *err)
{
    return cairn_error(err, CAIRN_CORRUPT, "pack '%s': %s", reader->name, what);
}

/* Offsets follow from the lengths: frames lie one after another. */
static bool
parse_frames(PackReader *reader, ByteReader *index, CairnError *err)
{
    uint64_t count = byte_reader_varint(index);
    /* Seven bytes a frame at least: a count beyond the index's length is a lie, and allocates
     * nothing. */
    if (count > byte_reader_left(index) / 7 || count > PACK_SLOT_LIMIT ||
        count != object_frame_count(reader->object))
        return damaged(reader, "number of frames is wrong", err);
    reader->frames = calloc(count + 1, sizeof *reader->frames);
    if (reader->frames == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");

    uint64_t offset = object_body_start(reader->object);
    for (uint64_t i = 0; i < count; i++) {
        FrameInfo *frame = &reader->frames[i];
        frame->codec = byte_reader_u8(index);
        frame->slot_count = byte_reader_u8(index);
        frame->stored_size = (uint32_t)byte_reader_varint_max(index, OBJECT_FRAME_LIMIT);
        frame->crc = byte_reader_u32(index);
        frame->offset = offset;
        frame->first_slot = reader->slot_count;
        if (index->failed || frame->slot_count < 1 || frame->slot_count > FRAME_SLOTS ||
            frame->stored_size < 1 || frame->stored_size > FRAME_SIZE + 4096 ||
            reader->slot_count + frame->slot_count > PACK_SLOT_LIMIT)
            return damaged(reader, "frame table is wrong", err);
        offset += frame->stored_size;
        reader->slot_count += frame->slot_count;
    }
    if (offset != object_body_end(reader->object))
        return damaged(reader, "frames do not fill the body", err);
    reader->frame_count = (uint32_t)count;
    return true;
}

static bool
parse_index(PackReader *reader, CairnError *err)
{
    ByteReader index = object_index(reader->object);
    uint16_t layout = byte_reader_u16(&index);
    uint8_t algorithm = byte_reader_u8(&index);
    byte_reader_u8(&index);
    if (!index.failed && (layout != PACK_LAYOUT || algorithm != FINGERPRINT_ALGORITHM_GMAC_AES)) {
        return cairn_error(err, CAIRN_UNSUPPORTED, "pack '%s' has layout %u, algorithm %u",
                           reader->name, layout, algorithm);
    }
    if (!parse_frames(reader, &index, err))
        return false;

    size_t fingerprints_size = (size_t)reader->slot_count * FINGERPRINT_SIZE;
    if (byte_reader_left(&index) < fingerprints_size)
        return damaged(reader, "fingerprints are missing", err);
    reader->runs = index;
    reader->runs.size -= fingerprints_size;
    reader->fingerprints = index.data + reader->runs.size;
    return true;
}

PackReader *
pack_open(Repository *repository, const char *cluster, const BackupId *bid, uint32_t pack,
          CairnError *err)
{
    SCOPED(PackReader) reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    pack_name(reader->name, cluster, bid, pack);
    reader->object =
        object_open_within(repository, reader->name, OBJECT_PACK, PACK_INDEX_LIMIT, err);
    if (reader->object == NULL || !parse_index(reader, err))
        return NULL;
    return take(&reader);
}

void
pack_reader_free(PackReader *reader)
{
    if (reader == NULL)
        return;
    if (reader->object != NULL)
        object_reader_free(reader->object);
    free(reader->frames);
    free(reader);
}

void
pack_drop_directory(PackReader *reader)
{
    object_drop_index(reader->object);
    reader->runs = (ByteReader){0};
    reader->fingerprints = NULL;
}

size_t
pack_memory_bytes(const PackReader *reader)
{
    return sizeof *reader + (reader->frame_count + 1) * sizeof *reader->frames +
           object_index(reader->object).size;
}

uint32_t
pack_slot_count(const PackReader *reader)
{
    return reader->slot_count;
}

uint32_t
pack_frame_count(const PackReader *reader)
{
    return reader->frame_count;
}

bool
pack_find(const PackReader *reader, uint32_t slot, uint32_t *frame_out, uint32_t *first_slot_out,
          uint32_t *slot_count_out, CairnError *err)
{
    if (slot >= reader->slot_count) {
        return cairn_error(err, CAIRN_CORRUPT, "pack '%s' has %u slots, the map asks for slot %u",
                           reader->name, reader->slot_count, slot);
    }
    uint32_t low = 0, high = reader->frame_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (reader->frames[middle].first_slot <= slot)
            low = middle;
        else
            high = middle;
    }
    *frame_out = low;
    *first_slot_out = reader->frames[low].first_slot;
    *slot_count_out = reader->frames[low].slot_count;
    return true;
}

void
pack_frame_extent(const PackReader *reader, uint32_t frame, uint64_t *offset_out,
                  uint32_t *stored_size_out, uint32_t *raw_size_out)
{
    CAIRN_ASSERT(frame < reader->frame_count);
    const FrameInfo *info = &reader->frames[frame];
    *offset_out = info->offset;
    *stored_size_out = info->stored_size;
    *raw_size_out = (uint32_t)info->slot_count * UNIT_SIZE;
}

bool
pack_pread(const PackReader *reader, void *data, size_t size, uint64_t offset, CairnError *err)
{
    return object_pread(reader->object, data, size, offset, err);
}

bool
pack_decode_frame(const PackReader *reader, uint32_t frame, CodecContext *codec, const void *stored,
                  void *raw, CairnError *err)
{
    CAIRN_ASSERT(frame < reader->frame_count);
    const FrameInfo *info = &reader->frames[frame];
    if (crc32c(0, stored, info->stored_size) != info->crc) {
        return cairn_error(err, CAIRN_CORRUPT, "pack '%s': frame %u (at byte %llu) is damaged",
                           reader->name, frame, (unsigned long long)info->offset);
    }
    const ObjectFrame place = {.offset = info->offset,
                               .stored_size = info->stored_size,
                               .raw_size = (uint32_t)info->slot_count * UNIT_SIZE,
                               .codec = (CodecId)info->codec};
    if (!object_decode(reader->object, &place, codec, stored, raw, err))
        return cairn_error_wrap(err, "pack '%s', frame %u", reader->name, frame);
    return true;
}

bool
pack_read_frame(const PackReader *reader, uint32_t frame, CodecContext *codec, void *scratch,
                void *raw, CairnError *err)
{
    CAIRN_ASSERT(frame < reader->frame_count);
    const FrameInfo *info = &reader->frames[frame];
    return pack_pread(reader, scratch, info->stored_size, info->offset, err) &&
           pack_decode_frame(reader, frame, codec, scratch, raw, err);
}

const uint8_t *
pack_fingerprint(const PackReader *reader, uint32_t slot)
{
    CAIRN_ASSERT(slot < reader->slot_count && reader->fingerprints != NULL);
    return reader->fingerprints + (size_t)slot * FINGERPRINT_SIZE;
}

ObjectScan *
pack_scan(const PackReader *reader, CairnError *err)
{
    return object_scan_new(reader->object, err);
}

bool
pack_scrub(PackReader *reader, CairnError *err)
{
    return object_scrub(reader->object, err);
}

uint64_t
pack_stored_size(const PackReader *reader)
{
    return object_stored_size(reader->object);
}

const uint8_t *
pack_digest(const PackReader *reader)
{
    return object_digest(reader->object);
}

/* Places of the keys named so far in the index, so that a run can point back at one. */
typedef struct {
    const uint8_t **keys;
    uint32_t *sizes;
    size_t count, capacity;
} KeyTable;

static void
key_table_free(KeyTable *table)
{
    free(table->keys);
    free(table->sizes);
}

static bool
key_table_add(KeyTable *table, const uint8_t *key, uint32_t size, CairnError *err)
{
    if (table->count == table->capacity) {
        size_t capacity = table->capacity == 0 ? PATH_SLOTS_INITIAL : 2 * table->capacity;
        const uint8_t **keys = realloc(table->keys, capacity * sizeof *keys);
        if (keys != NULL)
            table->keys = keys;
        uint32_t *sizes = realloc(table->sizes, capacity * sizeof *sizes);
        if (sizes != NULL)
            table->sizes = sizes;
        if (keys == NULL || sizes == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        table->capacity = capacity;
    }
    table->keys[table->count] = key;
    table->sizes[table->count++] = size;
    return true;
}

/* One run off the index; key_out is NUL-terminated. */
static bool
parse_run(ByteReader *reader, KeyTable *table, char *key_out, PackRun *run, CairnError *err)
{
    uint64_t file = byte_reader_varint(reader);
    if (file == 0) {
        uint64_t size = byte_reader_varint_max(reader, MAP_KEY_LIMIT);
        const uint8_t *key = byte_reader_bytes(reader, size);
        if (key == NULL || size < 2)
            return cairn_error(err, CAIRN_CORRUPT, "directory names no file");
        if (!key_table_add(table, key, (uint32_t)size, err))
            return false;
        file = table->count;
    }
    if (file > table->count)
        return cairn_error(err, CAIRN_CORRUPT, "directory points at a file that it does not name");
    memcpy(key_out, table->keys[file - 1], table->sizes[file - 1]);
    key_out[table->sizes[file - 1]] = '\0';
    run->class = (MapClass)(unsigned char)key_out[0];
    run->path = key_out + 1;
    if (run->class > MAP_CLASS_OURS || !path_is_clean(run->path, table->sizes[file - 1] - 1))
        return cairn_error(err, CAIRN_CORRUPT, "directory holds an impossible path");
    run->first_unit = byte_reader_varint_max(reader, INT64_MAX / UNIT_SIZE);
    run->units = (uint32_t)byte_reader_varint_max(reader, INT32_MAX);
    run->tail_bytes = (uint32_t)byte_reader_varint_max(reader, UNIT_SIZE - 1);
    return true;
}

bool
pack_runs(const PackReader *reader, PackRunCallback *callback, void *context, CairnError *err)
{
    __attribute__((cleanup(key_table_free))) KeyTable table = {0};
    ByteReader runs = reader->runs;
    uint64_t count = byte_reader_varint(&runs);
    uint64_t slot = 0;
    for (uint64_t i = 0; i < count && !runs.failed; i++) {
        char key[MAP_KEY_LIMIT + 1];
        PackRun run;
        if (!parse_run(&runs, &table, key, &run, err))
            return cairn_error_wrap(err, "pack '%s'", reader->name);
        run.first_slot = (uint32_t)slot;
        slot += run.units;
        if (runs.failed || run.units == 0 || slot > reader->slot_count)
            break;
        if (!callback(context, &run, err))
            return false;
    }
    if (!byte_reader_done(&runs) || slot != reader->slot_count)
        return damaged(reader, "directory is wrong", err);
    return true;
}
