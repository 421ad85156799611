#include "repository/wal_object.h"

#include "common/cancel.h"
#include "common/timestamp.h"
#include "repository/object_scan.h"
#include "repository/wal_facts_format.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#ifndef PGCAIRN_VERSION
#define PGCAIRN_VERSION "unversioned"
#endif

#define PROGRAM "pgcairn " PGCAIRN_VERSION

enum { INDEX_LAYOUT = 1, DIGEST_ALGORITHM = 1 };
enum { SECTION_FACTS = 1, SECTION_PUSHER = 2, SECTION_LIMIT = 64 };
enum { PUSHER_JSON_LIMIT = 4096 };

/* The format's numbers of file kinds are WalFileKind's. */
_Static_assert(WAL_FILE_SEGMENT == 0 && WAL_FILE_PARTIAL == 1 && WAL_FILE_BACKUP_HISTORY == 2 &&
                   WAL_FILE_HISTORY == 3 && WAL_FILE_PIECE == 4,
               "stored numbers never change");

bool
wal_digest_finish(KeyedDigest *digest, uint64_t size, uint8_t digest_out[KEYED_DIGEST_SIZE],
                  CairnError *err)
{
    uint8_t size_bytes[8];

    put_u64(size_bytes, size);
    return keyed_digest_update(digest, size_bytes, sizeof size_bytes, err) &&
           keyed_digest_finish(digest, digest_out, err);
}

void
wal_index_pusher(WalIndex *index, const World *world)
{
    if (gethostname(index->host, sizeof index->host - 1) != 0)
        snprintf(index->host, sizeof index->host, "an unknown host");
    _Static_assert((int)WAL_PUSHER_TEXT_SIZE >= (int)TIMESTAMP_TEXT_SIZE, "a time fits");
    timestamp_format(index->at, world->clock->wall_us(world->clock));
}

static bool
format_facts(const WalFacts *facts, ByteWriter *bytes, CairnError *err)
{
    SCOPED_BYTES ByteWriter section = {0};

    wal_facts_format(facts, &section);
    if (!byte_writer_check(&section, err))
        return false;
    byte_writer_varint(bytes, SECTION_FACTS);
    byte_writer_varint(bytes, section.size);
    byte_writer_bytes(bytes, section.data, section.size);
    return true;
}

static bool
format_pusher(const WalIndex *index, ByteWriter *bytes, CairnError *err)
{
    json_t *pusher =
        json_pack("{s:s, s:s, s:s}", "host", index->host, "at", index->at, "program", PROGRAM);
    SCOPED_MEMORY char *text = pusher != NULL ? json_dumps(pusher, JSON_COMPACT) : NULL;

    json_decref(pusher);
    if (text == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "unable to describe who pushes");
    byte_writer_varint(bytes, SECTION_PUSHER);
    byte_writer_varint(bytes, strlen(text));
    byte_writer_bytes(bytes, text, strlen(text));
    return true;
}

bool
wal_index_format(const WalIndex *index, ByteWriter *bytes, CairnError *err)
{
    byte_writer_u16(bytes, INDEX_LAYOUT);
    byte_writer_u8(bytes, (uint8_t)index->kind);
    byte_writer_u8(bytes, DIGEST_ALGORITHM);
    byte_writer_u64(bytes, index->size);
    byte_writer_u64(bytes, index->data_size);
    byte_writer_bytes(bytes, index->digest, sizeof index->digest);
    byte_writer_u32(bytes, index->timeline);
    byte_writer_u64(bytes, index->start_lsn);
    byte_writer_varint(bytes, index->frame_count);
    for (size_t i = 0; i < index->frame_count; i++) {
        const ObjectFrame *frame = &index->frames[i];
        byte_writer_u8(bytes, (uint8_t)frame->codec);
        byte_writer_varint(bytes, frame->raw_size);
        byte_writer_varint(bytes, frame->stored_size);
        byte_writer_u32(bytes, frame->crc);
    }
    byte_writer_varint(bytes, index->facts != NULL ? 2 : 1);
    if (index->facts != NULL && !format_facts(index->facts, bytes, err))
        return false;
    return format_pusher(index, bytes, err) && byte_writer_check(bytes, err);
}

/* One frame of the table; the last may be shorter than the others. */
static bool
read_frame(WalIndex *index, size_t number, uint64_t *raw_left, uint64_t *offset, ByteReader *bytes)
{
    ObjectFrame *frame = &index->frames[number];

    frame->codec = (CodecId)byte_reader_u8(bytes);
    frame->raw_size = (uint32_t)byte_reader_varint_max(bytes, WAL_FRAME_SIZE);
    frame->stored_size = (uint32_t)byte_reader_varint_max(bytes, WAL_STORED_LIMIT);
    frame->crc = byte_reader_u32(bytes);
    frame->offset = *offset;
    if (number == 0)
        index->frame_size = frame->raw_size;
    const uint64_t expected = *raw_left < index->frame_size ? *raw_left : index->frame_size;
    if (bytes->failed || frame->raw_size == 0 || frame->raw_size != expected)
        return false;
    *offset += frame->stored_size;
    *raw_left -= frame->raw_size;
    return true;
}

/* Frames must fill the body without a gap and add up to the file. */
static bool
read_frames(WalObject *object, ByteReader *bytes)
{
    WalIndex *index = &object->index;
    /* Seven bytes a frame at least, so that a lie about their number allocates little. */
    const uint64_t count = byte_reader_varint_max(bytes, byte_reader_left(bytes) / 7);
    uint64_t offset = object_body_start(object->object);
    uint64_t raw_left = index->data_size;

    if (bytes->failed || count != object_frame_count(object->object))
        return false;
    index->frames = calloc(count + 1, sizeof *index->frames);
    if (index->frames == NULL)
        return false;
    index->frame_count = count;
    index->frame_size = WAL_FRAME_SIZE;
    for (size_t i = 0; i < count; i++) {
        if (!read_frame(index, i, &raw_left, &offset, bytes))
            return false;
    }
    return raw_left == 0 && offset == object_body_end(object->object) &&
           (count < 2 || index->frame_size % WAL_FRAME_UNIT == 0);
}

static void
copy_json_text(const json_t *json, const char *field, char text[WAL_PUSHER_TEXT_SIZE])
{
    const char *value = json_string_value(json_object_get(json, field));

    snprintf(text, WAL_PUSHER_TEXT_SIZE, "%s", value != NULL ? value : "");
}

/* A broken description of the pusher is no reason to refuse the WAL itself. */
static void
read_pusher(WalIndex *index, const uint8_t *data, size_t size)
{
    json_t *json = size <= PUSHER_JSON_LIMIT ? json_loadb((const char *)data, size, 0, NULL) : NULL;

    copy_json_text(json, "host", index->host);
    copy_json_text(json, "at", index->at);
    json_decref(json);
}

static bool
read_sections(WalIndex *index, ByteReader *bytes)
{
    const uint64_t count = byte_reader_varint_max(bytes, SECTION_LIMIT);

    for (uint64_t i = 0; i < count && !bytes->failed; i++) {
        const uint64_t tag = byte_reader_varint(bytes);
        const size_t size = (size_t)byte_reader_varint_max(bytes, OBJECT_INDEX_LIMIT);
        const uint8_t *data = byte_reader_bytes(bytes, size);

        if (data != NULL && tag == SECTION_PUSHER)
            read_pusher(index, data, size);
        if (data != NULL && tag == SECTION_FACTS) {
            index->facts_data = data;
            index->facts_size = size;
        }
    }
    return byte_reader_done(bytes);
}

/* What a name promises of the file. */
typedef struct {
    WalFileKind kind;
    uint32_t timeline;
    uint64_t start_lsn;
} Promise;

static bool
possible_size(const WalObject *object, const Promise *promise)
{
    const WalIndex *index = &object->index;
    const uint32_t segment_size = object->store->incarnation->wal_segment_size;

    if (index->data_size > index->size)
        return false;
    if (promise->kind == WAL_FILE_PIECE)
        return index->size > 0 && index->size <= segment_size - index->start_lsn % segment_size;
    /* No segment is all zeros: its first page says whose it is. */
    if (promise->kind == WAL_FILE_SEGMENT || promise->kind == WAL_FILE_PARTIAL)
        return index->data_size > 0 && index->size == segment_size;
    return index->size <= WAL_SMALL_FILE_LIMIT;
}

/* What the index says of the file must be what its name promises. */
static bool
check_against_name(const WalObject *object, const Promise *promise, CairnError *err)
{
    const WalIndex *index = &object->index;

    if (index->kind != promise->kind || index->timeline != promise->timeline ||
        index->start_lsn != promise->start_lsn) {
        return cairn_error(err, CAIRN_MISMATCH, "object '%s' holds another WAL file", object->name);
    }
    if (!possible_size(object, promise)) {
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': impossible file size %llu",
                           object->name, (unsigned long long)index->size);
    }
    return true;
}

static bool
read_index(WalObject *object, const Promise *promise, CairnError *err)
{
    WalIndex *index = &object->index;
    ByteReader bytes = object_index(object->object);
    const uint16_t layout = byte_reader_u16(&bytes);

    index->kind = (WalFileKind)byte_reader_u8(&bytes);
    const uint8_t algorithm = byte_reader_u8(&bytes);
    index->size = byte_reader_u64(&bytes);
    index->data_size = byte_reader_u64(&bytes);
    const uint8_t *digest = byte_reader_bytes(&bytes, KEYED_DIGEST_SIZE);
    index->timeline = byte_reader_u32(&bytes);
    index->start_lsn = byte_reader_u64(&bytes);

    if (bytes.failed)
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': index is too short", object->name);
    if (layout != INDEX_LAYOUT || algorithm != DIGEST_ALGORITHM) {
        return cairn_error(err, CAIRN_UNSUPPORTED,
                           "object '%s' has index layout %u and digest algorithm %u", object->name,
                           layout, algorithm);
    }
    memcpy(index->digest, digest, KEYED_DIGEST_SIZE);
    if (!check_against_name(object, promise, err))
        return false;
    if (!read_frames(object, &bytes) || !read_sections(index, &bytes))
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': index contradicts itself",
                           object->name);
    return true;
}

static WalObject *
open_object(WalStore *store, const char *name, ObjectKind kind, const Promise *promise,
            CairnError *err)
{
    if (!wal_store_prepare(store, err))
        return NULL;
    SCOPED(WalObject) object = calloc(1, sizeof *object);
    if (object == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    object->store = store;
    snprintf(object->name, sizeof object->name, "%s", name);
    object->object = object_open(store->repository, name, kind, err);
    if (object->object == NULL || !read_index(object, promise, err))
        return NULL;
    return take(&object);
}

WalObject *
wal_object_open(WalStore *store, const char *name, const WalFileName *file, CairnError *err)
{
    const Promise promise = {.kind = file->kind,
                             .timeline = file->timeline,
                             .start_lsn =
                                 wal_file_start_lsn(file, store->incarnation->wal_segment_size)};

    return open_object(store, name, OBJECT_WAL, &promise, err);
}

WalObject *
wal_object_open_piece(WalStore *store, const char *name, uint32_t timeline, uint64_t start_lsn,
                      CairnError *err)
{
    const Promise promise = {.kind = WAL_FILE_PIECE, .timeline = timeline, .start_lsn = start_lsn};

    return open_object(store, name, OBJECT_WAL_TAIL, &promise, err);
}

void
wal_object_free(WalObject *object)
{
    if (object == NULL)
        return;
    object_reader_free(object->object);
    free(object->index.frames);
    free(object);
}

static bool
decode_frame(WalObject *object, size_t number, const uint8_t *stored, uint8_t *raw, CairnError *err)
{
    const ObjectFrame *frame = &object->index.frames[number];

    if (crc32c(0, stored, frame->stored_size) != frame->crc) {
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': frame %zu is damaged", object->name,
                           number);
    }
    if (!object_decode(object->object, frame, object->store->codec, stored, raw, err))
        return cairn_error_wrap(err, "object '%s': frame %zu", object->name, number);
    return true;
}

bool
wal_object_frame(WalObject *object, size_t number, uint8_t *raw, CairnError *err)
{
    const ObjectFrame *frame = &object->index.frames[number];
    uint8_t *stored = object->store->stored;

    CAIRN_ASSERT(number < object->index.frame_count);
    return object_pread(object->object, stored, frame->stored_size, frame->offset, err) &&
           decode_frame(object, number, stored, raw, err);
}

/* The same of an object that is read once, in order. */
static bool
scan_frame(WalObject *object, ObjectScan *scan, size_t number, uint8_t *raw, CairnError *err)
{
    const ObjectFrame *frame = &object->index.frames[number];
    const uint8_t *stored;

    return object_scan_frame(scan, frame->offset, frame->stored_size, &stored, err) &&
           decode_frame(object, number, stored, raw, err);
}

/* scan NULL: frames are read one by one. */
static bool
stream(WalObject *object, ObjectScan *scan, WalSink *sink, void *context, CairnError *err)
{
    WalStore *store = object->store;
    const WalIndex *index = &object->index;
    uint8_t digest[KEYED_DIGEST_SIZE];
    uint64_t offset = 0;

    if (!keyed_digest_begin(store->digest, err))
        return false;
    for (size_t i = 0; i < index->frame_count; i++) {
        const size_t size = index->frames[i].raw_size;

        if (!cancel_check(err) ||
            !(scan != NULL ? scan_frame(object, scan, i, store->raw, err)
                           : wal_object_frame(object, i, store->raw, err)) ||
            !keyed_digest_update(store->digest, store->raw, size, err) ||
            !sink(context, store->raw, size, offset, err))
            return false;
        offset += size;
    }
    if (!wal_digest_finish(store->digest, index->size, digest, err))
        return false;
    if (memcmp(digest, index->digest, sizeof digest) != 0) {
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': its content's digest does not match",
                           object->name);
    }
    return true;
}

bool
wal_object_stream(WalObject *object, WalSink *sink, void *context, CairnError *err)
{
    return stream(object, NULL, sink, context, err);
}

static bool
ignore_bytes(void *context, const void *data, size_t size, uint64_t offset, CairnError *err)
{
    (void)context, (void)data, (void)size, (void)offset, (void)err;
    return true;
}

bool
wal_object_verify(WalObject *object, CairnError *err)
{
    SCOPED(ObjectScan) scan = object_scan_new(object->object, err);

    return scan != NULL &&
           (!object_is_readable(object->object) || stream(object, scan, ignore_bytes, NULL, err)) &&
           object_scan_finish(scan, err);
}
