#include "repository/object.h"

#include "repository/object_header.h"
#include "repository/object_scan.h"

#include <stdio.h>
#include <string.h>

#define TRAILER_MAGIC "CRNT"

enum {
    /* Trailer offsets (docs/format.md). */
    AT_INDEX_CODEC = 4,
    AT_INDEX_OFFSET = 8,
    AT_INDEX_STORED = 16,
    AT_INDEX_RAW = 20,
    AT_INDEX_CRC = 24,
    AT_FRAME_COUNT = 28,
    AT_DIGEST = 32,
};

/* "BODY", "INDX": the first four bytes of nonces. The other eight are the place in the object,
   which grows with every block, so that no two under one key are the same. */
#define SECTION_BODY UINT32_C(0x59444f42)
#define SECTION_INDEX UINT32_C(0x58444e49)

struct ObjectWriter {
    Repository *repository;
    StorageWriter *storage;
    Sha256 *sha;
    uint64_t size;
    uint32_t frame_count;
    bool encrypted;
    ObjectKeys keys;
    Aead *aead;        /* where encrypted */
    ByteWriter sealed; /* blocks that were just encrypted */
};

struct ObjectReader {
    StorageReader *storage;
    char name[STORAGE_NAME_LIMIT];
    bool encrypted;
    ObjectKeys keys;
    uint8_t *index;
    uint32_t index_size;
    uint64_t body_start;
    uint64_t body_end;
    uint32_t frame_count;
    int64_t created_us;
    uint8_t digest[SHA256_SIZE];
};

/* Everything but the trailer's digest goes through here, so that the digest covers it. */
static bool
append(ObjectWriter *writer, const void *data, size_t size, CairnError *err)
{
    if (!sha256_update(writer->sha, data, size, err) ||
        !storage_write(writer->storage, data, size, err))
        return false;
    writer->size += size;
    return true;
}

static ObjectWriter *
create(Repository *repository, const char *name, const ObjectHeaderFields *fields, CairnError *err)
{
    SCOPED(ObjectWriter) writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    writer->repository = repository;

    SCOPED_BYTES ByteWriter bytes = {0};
    ObjectHeader header;
    if (!object_header_make(repository, name, fields, &bytes, &header, err))
        return NULL;
    writer->encrypted = header.encrypted;
    writer->keys = header.keys;
    object_keys_wipe(&header.keys);
    writer->sha = sha256_new(err);
    if (writer->sha == NULL || (writer->encrypted && (writer->aead = aead_new(err)) == NULL))
        return NULL;
    writer->storage = storage_create(repository_storage(repository), name, err);
    if (writer->storage == NULL || !append(writer, bytes.data, bytes.size, err))
        return NULL;
    return take(&writer);
}

ObjectWriter *
object_create(Repository *repository, const char *name, ObjectKind kind, uint64_t creator_sequence,
              CairnError *err)
{
    const ObjectHeaderFields fields = {.kind = kind, .creator_sequence = creator_sequence};
    return create(repository, name, &fields, err);
}

ObjectWriter *
object_create_readable(Repository *repository, const char *name, ObjectKind kind, CairnError *err)
{
    const ObjectHeaderFields fields = {.kind = kind, .is_meta = true};
    return create(repository, name, &fields, err);
}

/* What is authenticated with a frame beside its place: how it is to be decompressed. */
enum { FRAME_ASSOCIATED_SIZE = 5 };

static void
frame_associated(uint8_t associated[FRAME_ASSOCIATED_SIZE], uint32_t raw_size, CodecId codec)
{
    put_u32(associated, raw_size);
    associated[4] = (uint8_t)codec;
}

/* Appends the block's encrypted form, `offset` of the object, to writer->sealed, which has room. */
static bool
seal_block(ObjectWriter *writer, const ObjectBlock *block, uint64_t offset, CairnError *err)
{
    uint8_t associated[FRAME_ASSOCIATED_SIZE];
    frame_associated(associated, block->raw_size, block->codec);
    const AeadSeal seal = {.key = writer->keys.body,
                           .section = SECTION_BODY,
                           .counter = offset,
                           .associated = associated,
                           .associated_size = sizeof associated};
    ByteWriter *sealed = &writer->sealed;
    if (!aead_seal(writer->aead, &seal, block->data, block->size, sealed->data + sealed->size, err))
        return false;
    sealed->size += block->size + AEAD_TAG_SIZE;
    return true;
}

static bool
reserve_sealed(ObjectWriter *writer, size_t size, CairnError *err)
{
    byte_writer_reset(&writer->sealed);
    if (writer->sealed.capacity >= size)
        return true;
    uint8_t *data = realloc(writer->sealed.data, size);
    if (data == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    writer->sealed.data = data;
    writer->sealed.capacity = size;
    return true;
}

bool
object_append_blocks(ObjectWriter *writer, const ObjectBlock *blocks, uint32_t count,
                     ObjectFrame *frames_out, CairnError *err)
{
    /* An empty block may have no data, and nothing may be added to NULL, not even zero. */
    static const uint8_t NOTHING[1];
    const uint8_t *stored = blocks[0].data != NULL ? blocks[0].data : NOTHING;
    const size_t tag_size = writer->encrypted ? AEAD_TAG_SIZE : 0;
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        CAIRN_ASSERT(blocks[i].size + tag_size <= OBJECT_FRAME_LIMIT);
        CAIRN_ASSERT(i == 0 || blocks[i].data == (const uint8_t *)blocks[0].data + size);
        size += blocks[i].size;
    }
    if (writer->encrypted) {
        if (!reserve_sealed(writer, size + count * tag_size, err))
            return false;
        stored = writer->sealed.data;
    }
    size = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t offset = writer->size + size;
        if (writer->encrypted && !seal_block(writer, &blocks[i], offset, err))
            return false;
        const uint32_t stored_size = blocks[i].size + (uint32_t)tag_size;
        frames_out[i] = (ObjectFrame){.offset = offset,
                                      .stored_size = stored_size,
                                      .crc = crc32c(0, stored + size, stored_size),
                                      .raw_size = blocks[i].raw_size,
                                      .codec = blocks[i].codec};
        size += stored_size;
    }
    if (!append(writer, stored, size, err))
        return false;
    writer->frame_count += count;
    return true;
}

bool
object_append(ObjectWriter *writer, const ObjectBlock *block, ObjectFrame *frame_out,
              CairnError *err)
{
    return object_append_blocks(writer, block, 1, frame_out, err);
}

uint64_t
object_size_so_far(const ObjectWriter *writer)
{
    return writer->size;
}

/* The trailer without its digest and the index's checksum: what the index is authenticated with, so
   that no field of it can be changed unseen. */
static void
index_associated(uint8_t associated[AT_DIGEST], const uint8_t trailer[OBJECT_TRAILER_SIZE])
{
    memcpy(associated, trailer, AT_DIGEST);
    put_u32(associated + AT_INDEX_CRC, 0);
}

/* Appends the index as it is to be stored, and completes the trailer with its checksum. */
static bool
append_index(ObjectWriter *writer, const void *compressed, size_t size,
             uint8_t trailer[OBJECT_TRAILER_SIZE], CairnError *err)
{
    if (writer->encrypted) {
        uint8_t associated[AT_DIGEST];
        const AeadSeal seal = {.key = writer->keys.index,
                               .section = SECTION_INDEX,
                               .counter = writer->size,
                               .associated = associated,
                               .associated_size = sizeof associated};
        put_u32(trailer + AT_INDEX_STORED, (uint32_t)size + AEAD_TAG_SIZE);
        index_associated(associated, trailer);
        if (!reserve_sealed(writer, size + AEAD_TAG_SIZE, err) ||
            !aead_seal(writer->aead, &seal, compressed, size, writer->sealed.data, err))
            return false;
        compressed = writer->sealed.data;
        size += AEAD_TAG_SIZE;
    }
    put_u32(trailer + AT_INDEX_CRC, crc32c(0, compressed, size));
    return append(writer, compressed, size, err);
}

/* The index may be larger than one codec block; it is then kept as it is. */
static bool
write_index(ObjectWriter *writer, const void *index, size_t index_size,
            uint8_t trailer[OBJECT_TRAILER_SIZE], CairnError *err)
{
    CAIRN_ASSERT(index_size <= OBJECT_INDEX_LIMIT);
    SCOPED_MEMORY uint8_t *compressed = NULL;
    const void *stored = index;
    size_t stored_size = index_size;
    CodecId codec_id = CODEC_NONE;

    if (index_size >= 256 && index_size <= CODEC_RAW_LIMIT) {
        SCOPED(CodecContext) codec = repository_codec(writer->repository, err);
        if (codec == NULL)
            return false;
        size_t capacity = codec_bound(codec, index_size);
        compressed = malloc(capacity);
        if (compressed == NULL)
            return cairn_error(err, CAIRN_INTERNAL, "out of memory");
        if (!codec_compress(codec, index, index_size, compressed, capacity, &stored_size, &codec_id,
                            err))
            return false;
        stored = compressed;
    }

    memset(trailer, 0, OBJECT_TRAILER_SIZE);
    memcpy(trailer, TRAILER_MAGIC, 4);
    trailer[AT_INDEX_CODEC] = (uint8_t)codec_id;
    put_u64(trailer + AT_INDEX_OFFSET, writer->size);
    put_u32(trailer + AT_INDEX_STORED, (uint32_t)stored_size);
    put_u32(trailer + AT_INDEX_RAW, (uint32_t)index_size);
    put_u32(trailer + AT_FRAME_COUNT, writer->frame_count);
    return append_index(writer, stored, stored_size, trailer, err);
}

bool
object_finish(ObjectWriter *writer, const void *index, size_t index_size, uint8_t *digest_out,
              CairnError *err)
{
    uint8_t trailer[OBJECT_TRAILER_SIZE];
    if (!write_index(writer, index, index_size, trailer, err) ||
        !append(writer, trailer, AT_DIGEST, err) ||
        !sha256_finish(writer->sha, trailer + AT_DIGEST, err) ||
        !storage_write(writer->storage, trailer + AT_DIGEST, SHA256_SIZE, err) ||
        !storage_commit(writer->storage, err))
        return false;
    if (digest_out != NULL)
        memcpy(digest_out, trailer + AT_DIGEST, SHA256_SIZE);
    return true;
}

void
object_writer_free(ObjectWriter *writer)
{
    if (writer == NULL)
        return;
    if (writer->storage != NULL)
        storage_writer_free(writer->storage);
    sha256_free(writer->sha);
    aead_free(writer->aead);
    byte_writer_free(&writer->sealed);
    object_keys_wipe(&writer->keys);
    free(writer);
}

/* The stored length that the raw one allows: nothing is taken from storage that cannot be an index
   of that length. */
static bool
index_length_fits(const ObjectReader *reader, CodecId codec, uint32_t stored, uint32_t raw)
{
    const uint32_t tag_size = reader->encrypted ? AEAD_TAG_SIZE : 0;
    return codec == CODEC_NONE ? stored == raw + tag_size
                               : raw <= CODEC_RAW_LIMIT && stored <= CODEC_RAW_LIMIT + 4096;
}

/* Trailer fields against the object's size, so that later reads cannot leave it. */
static bool
check_trailer(ObjectReader *reader, const uint8_t trailer[OBJECT_TRAILER_SIZE],
              uint32_t index_limit, CairnError *err)
{
    uint64_t offset = get_u64(trailer + AT_INDEX_OFFSET);
    uint32_t stored = get_u32(trailer + AT_INDEX_STORED);
    uint32_t raw = get_u32(trailer + AT_INDEX_RAW);
    uint64_t end = reader->storage->size_bytes - OBJECT_TRAILER_SIZE;
    if (memcmp(trailer, TRAILER_MAGIC, 4) != 0 || offset < reader->body_start || offset > end ||
        stored != end - offset || raw > OBJECT_INDEX_LIMIT)
        return cairn_error(err, CAIRN_CORRUPT,
                           "object '%s': trailer is damaged or the end is missing", reader->name);
    if (!index_length_fits(reader, (CodecId)trailer[AT_INDEX_CODEC], stored, raw))
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': index length is wrong", reader->name);
    if (raw > index_limit)
        return cairn_error(err, CAIRN_CORRUPT,
                           "object '%s': its index would have %u bytes, more than %u", reader->name,
                           raw, index_limit);
    reader->body_end = offset;
    reader->index_size = raw;
    reader->frame_count = get_u32(trailer + AT_FRAME_COUNT);
    memcpy(reader->digest, trailer + AT_DIGEST, SHA256_SIZE);
    return true;
}

/* Decrypts the index where it is; *size becomes that of the plain bytes. */
static bool
open_index(const ObjectReader *reader, const uint8_t trailer[OBJECT_TRAILER_SIZE], uint8_t *stored,
           uint32_t *size, CodecContext *codec, CairnError *err)
{
    uint8_t associated[AT_DIGEST];
    if (!reader->encrypted)
        return true;
    const AeadSeal seal = {.key = reader->keys.index,
                           .section = SECTION_INDEX,
                           .counter = reader->body_end,
                           .associated = associated,
                           .associated_size = sizeof associated};
    index_associated(associated, trailer);
    Aead *aead = codec_aead(codec, err);
    if (aead == NULL)
        return false;
    if (!aead_open(aead, &seal, stored, *size, stored, err))
        return cairn_error_wrap(err, "object '%s': index", reader->name);
    *size -= AEAD_TAG_SIZE;
    return true;
}

/* As it is stored, or decompressed into memory of its own. */
static bool
unpack_index(ObjectReader *reader, CodecId codec_id, uint8_t **stored, uint32_t stored_size,
             CodecContext *codec, CairnError *err)
{
    if (codec_id == CODEC_NONE) {
        reader->index = take(stored);
        return true;
    }
    reader->index = malloc((size_t)reader->index_size + 1);
    if (reader->index == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    return codec_decompress(codec, codec_id, *stored, stored_size, reader->index,
                            reader->index_size, err) ||
           cairn_error_wrap(err, "object '%s'", reader->name);
}

static bool
read_index(ObjectReader *reader, const uint8_t trailer[OBJECT_TRAILER_SIZE], CairnError *err)
{
    uint32_t stored_size = get_u32(trailer + AT_INDEX_STORED);
    SCOPED_MEMORY uint8_t *stored = malloc((size_t)stored_size + 1);
    if (stored == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!storage_pread(reader->storage, stored, stored_size, reader->body_end, err))
        return false;
    if (crc32c(0, stored, stored_size) != get_u32(trailer + AT_INDEX_CRC))
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': index is damaged", reader->name);

    SCOPED(CodecContext) codec = codec_open(CODEC_NONE, 0, err);
    if (codec == NULL || !open_index(reader, trailer, stored, &stored_size, codec, err) ||
        !unpack_index(reader, (CodecId)trailer[AT_INDEX_CODEC], &stored, stored_size, codec, err))
        return false;
    reader->index[reader->index_size] = '\0';
    return true;
}

ObjectReader *
object_open(Repository *repository, const char *name, ObjectKind kind, CairnError *err)
{
    return object_open_within(repository, name, kind, OBJECT_INDEX_LIMIT, err);
}

ObjectReader *
object_open_within(Repository *repository, const char *name, ObjectKind kind, uint32_t index_limit,
                   CairnError *err)
{
    SCOPED(ObjectReader) reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    snprintf(reader->name, sizeof reader->name, "%s", name);
    reader->storage = storage_open(repository_storage(repository), name, err);
    if (reader->storage == NULL)
        return NULL;
    if (reader->storage->size_bytes < OBJECT_HEADER_SIZE + OBJECT_TRAILER_SIZE) {
        cairn_error(err, CAIRN_CORRUPT, "object '%s' has only %llu bytes", name,
                    (unsigned long long)reader->storage->size_bytes);
        return NULL;
    }

    ObjectHeader header;
    if (!object_header_read(repository, reader->storage, name, kind, &header, err))
        return NULL;
    reader->body_start = header.length;
    reader->created_us = header.created_us;
    reader->encrypted = header.encrypted;
    reader->keys = header.keys;
    object_keys_wipe(&header.keys);
    uint8_t trailer[OBJECT_TRAILER_SIZE];
    if (!storage_pread(reader->storage, trailer, sizeof trailer,
                       reader->storage->size_bytes - sizeof trailer, err) ||
        !check_trailer(reader, trailer, index_limit, err) || !read_index(reader, trailer, err))
        return NULL;
    return take(&reader);
}

void
object_reader_free(ObjectReader *reader)
{
    if (reader == NULL)
        return;
    if (reader->storage != NULL)
        storage_reader_free(reader->storage);
    free(reader->index);
    object_keys_wipe(&reader->keys);
    free(reader);
}

ByteReader
object_index(const ObjectReader *reader)
{
    return byte_reader(reader->index, reader->index_size);
}

void
object_drop_index(ObjectReader *reader)
{
    free(reader->index);
    reader->index = NULL;
    reader->index_size = 0;
}

uint32_t
object_frame_count(const ObjectReader *reader)
{
    return reader->frame_count;
}

uint64_t
object_body_start(const ObjectReader *reader)
{
    return reader->body_start;
}

uint64_t
object_body_end(const ObjectReader *reader)
{
    return reader->body_end;
}

uint64_t
object_stored_size(const ObjectReader *reader)
{
    return reader->storage->size_bytes;
}

int64_t
object_created_us(const ObjectReader *reader)
{
    return reader->created_us;
}

const uint8_t *
object_digest(const ObjectReader *reader)
{
    return reader->digest;
}

bool
object_pread(const ObjectReader *reader, void *data, size_t size, uint64_t offset, CairnError *err)
{
    if (offset < reader->body_start || offset > reader->body_end ||
        size > reader->body_end - offset)
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': a frame lies outside its body",
                           reader->name);
    return storage_pread(reader->storage, data, size, offset, err);
}

bool
object_pread_any(const ObjectReader *reader, void *data, size_t size, uint64_t offset,
                 CairnError *err)
{
    return storage_pread(reader->storage, data, size, offset, err);
}

bool
object_is_readable(const ObjectReader *reader)
{
    return !reader->encrypted || reader->keys.has_body;
}

/* Decrypts a frame into `plain`, whose size is stored_size - AEAD_TAG_SIZE. */
static bool
open_frame(const ObjectReader *reader, const ObjectFrame *frame, CodecContext *codec,
           const void *stored, void *plain, CairnError *err)
{
    uint8_t associated[FRAME_ASSOCIATED_SIZE];
    const AeadSeal seal = {.key = reader->keys.body,
                           .section = SECTION_BODY,
                           .counter = frame->offset,
                           .associated = associated,
                           .associated_size = sizeof associated};
    frame_associated(associated, frame->raw_size, frame->codec);
    Aead *aead = codec_aead(codec, err);
    return aead != NULL && aead_open(aead, &seal, stored, frame->stored_size, plain, err);
}

static bool
decode_encrypted(const ObjectReader *reader, const ObjectFrame *frame, CodecContext *codec,
                 const void *stored, void *raw, CairnError *err)
{
    if (!reader->keys.has_body) {
        cairn_error(err, CAIRN_SEALED,
                    "reading it needs the private key of one of its recipients, which is not here");
        return cairn_error_hint(err, "this host can only seal; run this where the private key is");
    }
    if (frame->codec == CODEC_NONE && frame->stored_size == frame->raw_size + AEAD_TAG_SIZE)
        return open_frame(reader, frame, codec, stored, raw, err);
    void *plain = codec_room(codec, frame->stored_size, err);
    return plain != NULL && open_frame(reader, frame, codec, stored, plain, err) &&
           codec_decompress(codec, frame->codec, plain, frame->stored_size - AEAD_TAG_SIZE, raw,
                            frame->raw_size, err);
}

bool
object_decode(const ObjectReader *reader, const ObjectFrame *frame, CodecContext *codec,
              const void *stored, void *raw, CairnError *err)
{
    if (reader->encrypted)
        return decode_encrypted(reader, frame, codec, stored, raw, err);
    return codec_decompress(codec, frame->codec, stored, frame->stored_size, raw, frame->raw_size,
                            err);
}

bool
object_check_digest(const ObjectReader *reader, const uint8_t *digest, CairnError *err)
{
    if (memcmp(digest, reader->digest, SHA256_SIZE) != 0)
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': SHA-256 does not match", reader->name);
    return true;
}

bool
object_put_small(Repository *repository, const char *name, ObjectKind kind,
                 uint64_t creator_sequence, const void *content, size_t size, uint8_t *digest_out,
                 CairnError *err)
{
    if (size > OBJECT_SMALL_LIMIT)
        return cairn_error(err, CAIRN_INTERNAL, "object '%s' would have %zu bytes", name, size);
    SCOPED(ObjectWriter) writer = object_create(repository, name, kind, creator_sequence, err);
    return writer != NULL && object_finish(writer, content, size, digest_out, err);
}

char *
object_get_small(Repository *repository, const char *name, ObjectKind kind, size_t *size_out,
                 uint8_t *digest_out, CairnError *err)
{
    SCOPED(ObjectReader)
    reader = object_open_within(repository, name, kind, OBJECT_SMALL_LIMIT, err);
    if (reader == NULL)
        return NULL;
    if (reader->body_end != reader->body_start) {
        cairn_error(err, CAIRN_CORRUPT, "object '%s' is no small object", name);
        return NULL;
    }
    if (!object_scrub(reader, err))
        return NULL;
    *size_out = reader->index_size;
    if (digest_out != NULL)
        memcpy(digest_out, reader->digest, SHA256_SIZE);
    return (char *)take(&reader->index);
}

bool
object_check_seal(const uint8_t *header, const uint8_t *trailer, const char *name,
                  const uint8_t *repository_id, ObjectSeal *seal_out, CairnError *err)
{
    if (!object_header_check_place(header, name, repository_id, seal_out->repository_id, err))
        return false;
    if (memcmp(trailer, TRAILER_MAGIC, 4) != 0)
        return cairn_error(err, CAIRN_CORRUPT,
                           "object '%s': trailer is damaged or the end is missing", name);
    memcpy(seal_out->sha256, trailer + AT_DIGEST, SHA256_SIZE);
    return true;
}
