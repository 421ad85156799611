#include "repository/object.h"

#include <stdio.h>
#include <string.h>

#define HEADER_MAGIC "PGCAIRN\n"
#define TRAILER_MAGIC "CRNT"

enum {
    FORMAT_MAJOR = 1,
    FORMAT_MINOR = 0,
    OBJECT_ID_SIZE = 16,
    SALT_SIZE = 32,
    SCRUB_BUFFER_SIZE = 256 << 10,

    /* Header offsets (docs/format.md). */
    AT_KIND = 8,
    AT_MAJOR = 10,
    AT_MINOR = 12,
    AT_HEADER_LENGTH = 16,
    AT_INCOMPATIBLE = 20,
    AT_AEAD = 28,
    AT_KEY_MODE = 29,
    AT_REPOSITORY_ID = 32,
    AT_OBJECT_ID = 48,
    AT_CREATOR = 64,
    AT_CREATED = 72,
    AT_SALT = 80,
    AT_HEADER_CRC = 188,

    /* Trailer offsets. */
    AT_INDEX_CODEC = 4,
    AT_INDEX_OFFSET = 8,
    AT_INDEX_STORED = 16,
    AT_INDEX_RAW = 20,
    AT_INDEX_CRC = 24,
    AT_FRAME_COUNT = 28,
    AT_DIGEST = 32,
};

struct ObjectWriter {
    Repository *repository;
    StorageWriter *storage;
    Sha256 *sha;
    uint64_t size;
    uint32_t frame_count;
};

struct ObjectReader {
    StorageReader *storage;
    char name[STORAGE_NAME_LIMIT];
    uint8_t *index;
    uint32_t index_size;
    uint64_t body_start;
    uint64_t body_end;
    uint32_t frame_count;
    int64_t created_us;
    uint8_t digest[SHA256_SIZE];
};

static bool
object_id_of(const char *name, uint8_t id[OBJECT_ID_SIZE], CairnError *err)
{
    uint8_t digest[SHA256_SIZE];
    if (!sha256_of(name, strlen(name), digest, err))
        return false;
    memcpy(id, digest, OBJECT_ID_SIZE);
    return true;
}

static bool
fill_header(uint8_t header[OBJECT_HEADER_SIZE], const Repository *repository, const char *name,
            ObjectKind kind, uint64_t creator_sequence, CairnError *err)
{
    const World *world = repository_world(repository);
    memset(header, 0, OBJECT_HEADER_SIZE);
    memcpy(header, HEADER_MAGIC, 8);
    put_u16(header + AT_KIND, (uint16_t)kind);
    put_u16(header + AT_MAJOR, FORMAT_MAJOR);
    put_u16(header + AT_MINOR, FORMAT_MINOR);
    put_u32(header + AT_HEADER_LENGTH, OBJECT_HEADER_SIZE);
    memcpy(header + AT_REPOSITORY_ID, repository_id(repository), REPOSITORY_ID_SIZE);
    put_u64(header + AT_CREATOR, creator_sequence);
    put_u64(header + AT_CREATED, (uint64_t)world->clock->wall_us(world->clock));
    if (world->random->fill(world->random, header + AT_SALT, SALT_SIZE) != 0)
        return cairn_error_errno(err, "unable to draw random bytes");
    if (!object_id_of(name, header + AT_OBJECT_ID, err))
        return false;
    put_u32(header + AT_HEADER_CRC, crc32c(0, header, AT_HEADER_CRC));
    return true;
}

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

ObjectWriter *
object_create(Repository *repository, const char *name, ObjectKind kind, uint64_t creator_sequence,
              CairnError *err)
{
    SCOPED(ObjectWriter) writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    writer->repository = repository;

    uint8_t header[OBJECT_HEADER_SIZE];
    if (!fill_header(header, repository, name, kind, creator_sequence, err))
        return NULL;
    writer->sha = sha256_new(err);
    if (writer->sha == NULL)
        return NULL;
    writer->storage = storage_create(repository_storage(repository), name, err);
    if (writer->storage == NULL || !append(writer, header, sizeof header, err))
        return NULL;
    return take(&writer);
}

bool
object_append_frames(ObjectWriter *writer, const void *stored, size_t stored_size,
                     uint32_t frame_count, uint64_t *offset_out, CairnError *err)
{
    CAIRN_ASSERT(stored_size <= (size_t)frame_count * OBJECT_FRAME_LIMIT);
    uint64_t offset = writer->size;
    if (!append(writer, stored, stored_size, err))
        return false;
    writer->frame_count += frame_count;
    *offset_out = offset;
    return true;
}

bool
object_append(ObjectWriter *writer, const void *stored, size_t stored_size, uint64_t *offset_out,
              CairnError *err)
{
    return object_append_frames(writer, stored, stored_size, 1, offset_out, err);
}

uint64_t
object_size_so_far(const ObjectWriter *writer)
{
    return writer->size;
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
    put_u32(trailer + AT_INDEX_CRC, crc32c(0, stored, stored_size));
    put_u32(trailer + AT_FRAME_COUNT, writer->frame_count);
    return append(writer, stored, stored_size, err);
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
    free(writer);
}

/* The part of the header that needs no expectation. *length_out: where the body begins. */
static bool
check_header(const uint8_t header[OBJECT_HEADER_SIZE], const char *name, uint32_t *length_out,
             CairnError *err)
{
    if (memcmp(header, HEADER_MAGIC, 8) != 0 ||
        get_u32(header + AT_HEADER_CRC) != crc32c(0, header, AT_HEADER_CRC))
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': header is damaged", name);
    if (get_u16(header + AT_MAJOR) != FORMAT_MAJOR || get_u32(header + AT_INCOMPATIBLE) != 0) {
        cairn_error(err, CAIRN_UNSUPPORTED,
                    "object '%s' has format %u with flags 0x%x, this version knows format %d", name,
                    get_u16(header + AT_MAJOR), get_u32(header + AT_INCOMPATIBLE), FORMAT_MAJOR);
        return cairn_error_hint(err, "use the pgcairn that made it, or a newer one");
    }
    if (header[AT_AEAD] != 0 || header[AT_KEY_MODE] != 0) {
        return cairn_error(err, CAIRN_UNSUPPORTED,
                           "object '%s' is encrypted, which this version cannot read", name);
    }
    uint32_t length = get_u32(header + AT_HEADER_LENGTH);
    if (length < OBJECT_HEADER_SIZE || length > OBJECT_HEADER_LIMIT)
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': header length %u", name, length);
    *length_out = length;
    return true;
}

static bool
check_identity(const uint8_t header[OBJECT_HEADER_SIZE], const Repository *repository,
               const char *name, ObjectKind kind, CairnError *err)
{
    if (memcmp(header + AT_REPOSITORY_ID, repository_id(repository), REPOSITORY_ID_SIZE) != 0)
        return cairn_error(err, CAIRN_MISMATCH, "object '%s' belongs to another repository", name);
    uint8_t id[OBJECT_ID_SIZE];
    if (!object_id_of(name, id, err))
        return false;
    if (memcmp(header + AT_OBJECT_ID, id, sizeof id) != 0 || get_u16(header + AT_KIND) != kind)
        return cairn_error(err, CAIRN_MISMATCH, "object '%s' holds another object's content", name);
    return true;
}

/* Trailer fields against the object's size, so that later reads cannot leave it. */
static bool
check_trailer(ObjectReader *reader, const uint8_t trailer[OBJECT_TRAILER_SIZE], CairnError *err)
{
    uint64_t offset = get_u64(trailer + AT_INDEX_OFFSET);
    uint32_t stored = get_u32(trailer + AT_INDEX_STORED);
    uint32_t raw = get_u32(trailer + AT_INDEX_RAW);
    uint64_t end = reader->storage->size_bytes - OBJECT_TRAILER_SIZE;
    if (memcmp(trailer, TRAILER_MAGIC, 4) != 0 || offset < reader->body_start || offset > end ||
        stored != end - offset || raw > OBJECT_INDEX_LIMIT || stored > OBJECT_INDEX_LIMIT + 4096)
        return cairn_error(err, CAIRN_CORRUPT,
                           "object '%s': trailer is damaged or the end is missing", reader->name);
    reader->body_end = offset;
    reader->index_size = raw;
    reader->frame_count = get_u32(trailer + AT_FRAME_COUNT);
    memcpy(reader->digest, trailer + AT_DIGEST, SHA256_SIZE);
    return true;
}

static bool
read_index(ObjectReader *reader, const uint8_t trailer[OBJECT_TRAILER_SIZE], CairnError *err)
{
    uint32_t stored_size = get_u32(trailer + AT_INDEX_STORED);
    SCOPED_MEMORY uint8_t *stored = malloc((size_t)stored_size + 1);
    reader->index = malloc((size_t)reader->index_size + 1);
    if (stored == NULL || reader->index == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!storage_pread(reader->storage, stored, stored_size, reader->body_end, err))
        return false;
    if (crc32c(0, stored, stored_size) != get_u32(trailer + AT_INDEX_CRC))
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': index is damaged", reader->name);

    SCOPED(CodecContext) codec = codec_open(CODEC_NONE, 0, err);
    if (codec == NULL)
        return false;
    if (trailer[AT_INDEX_CODEC] == CODEC_NONE) {
        if (stored_size != reader->index_size)
            return cairn_error(err, CAIRN_CORRUPT, "object '%s': index length is wrong",
                               reader->name);
        memcpy(reader->index, stored, stored_size);
    } else if (reader->index_size > CODEC_RAW_LIMIT ||
               !codec_decompress(codec, (CodecId)trailer[AT_INDEX_CODEC], stored, stored_size,
                                 reader->index, reader->index_size, err)) {
        if (err->kind == CAIRN_OK)
            cairn_error(err, CAIRN_CORRUPT, "index length is wrong");
        return cairn_error_wrap(err, "object '%s'", reader->name);
    }
    reader->index[reader->index_size] = '\0';
    return true;
}

ObjectReader *
object_open(Repository *repository, const char *name, ObjectKind kind, CairnError *err)
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

    uint8_t header[OBJECT_HEADER_SIZE], trailer[OBJECT_TRAILER_SIZE];
    uint32_t header_length;
    if (!storage_pread(reader->storage, header, sizeof header, 0, err) ||
        !check_header(header, name, &header_length, err) ||
        !check_identity(header, repository, name, kind, err))
        return NULL;
    reader->body_start = header_length;
    reader->created_us = (int64_t)get_u64(header + AT_CREATED);
    if (!storage_pread(reader->storage, trailer, sizeof trailer,
                       reader->storage->size_bytes - sizeof trailer, err) ||
        !check_trailer(reader, trailer, err) || !read_index(reader, trailer, err))
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
object_pread(ObjectReader *reader, void *data, size_t size, uint64_t offset, CairnError *err)
{
    if (offset < reader->body_start || offset > reader->body_end ||
        size > reader->body_end - offset)
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': a frame lies outside its body",
                           reader->name);
    return storage_pread(reader->storage, data, size, offset, err);
}

bool
object_scrub(ObjectReader *reader, CairnError *err)
{
    SCOPED_MEMORY uint8_t *buffer = malloc(SCRUB_BUFFER_SIZE);
    SCOPED(Sha256) sha = sha256_new(err);
    if (sha == NULL)
        return false;
    if (buffer == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");

    uint64_t end = reader->storage->size_bytes - SHA256_SIZE;
    for (uint64_t at = 0; at < end;) {
        size_t size = end - at < SCRUB_BUFFER_SIZE ? (size_t)(end - at) : SCRUB_BUFFER_SIZE;
        if (!storage_pread(reader->storage, buffer, size, at, err) ||
            !sha256_update(sha, buffer, size, err))
            return false;
        at += size;
    }
    uint8_t digest[SHA256_SIZE];
    if (!sha256_finish(sha, digest, err))
        return false;
    if (memcmp(digest, reader->digest, sizeof digest) != 0)
        return cairn_error(err, CAIRN_CORRUPT, "object '%s': SHA-256 does not match", reader->name);
    return true;
}

bool
object_read_repository_id(Repository *repository, const char *name, uint8_t *id_out,
                          CairnError *err)
{
    SCOPED(StorageReader) reader = storage_open(repository_storage(repository), name, err);
    if (reader == NULL)
        return false;
    uint8_t header[OBJECT_HEADER_SIZE];
    uint32_t length;
    if (!storage_pread(reader, header, sizeof header, 0, err) ||
        !check_header(header, name, &length, err))
        return false;
    memcpy(id_out, header + AT_REPOSITORY_ID, REPOSITORY_ID_SIZE);
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
    SCOPED(ObjectReader) reader = object_open(repository, name, kind, err);
    if (reader == NULL)
        return NULL;
    if (reader->body_end != reader->body_start || reader->index_size > OBJECT_SMALL_LIMIT) {
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
