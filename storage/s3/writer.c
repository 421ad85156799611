/*
 * Creating an object: gathered in memory, then one PutObject, or parts of an upload.
 *
 * A name decides races: `If-None-Match: *` makes exactly one creator win. After an answer that was
 * lost, the 412 of the next attempt may be our own success, so what is there is compared with what
 * we have.
 */
#include "common/digest.h"
#include "storage/s3/s3_intern.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { BUFFER_FIRST = 64 << 10, COMPARE_FIRST = 4 << 10, COMPARE_SIZE = 512 << 10 };

typedef struct {
    StorageWriter base; /* first */
    S3Storage *storage;
    uint8_t *buffer; /* mapped: growing copies nothing, and freeing gives it all back */
    size_t capacity;
    size_t used;
    Sha256 *sha;      /* of the buffer */
    S3Upload *upload; /* NULL: so far it may become one PutObject */
    char key[S3_KEY_LIMIT + 1];
} S3Writer;

static const StorageWriterOps S3_WRITER_OPS;

/* -- gathering */

static void
writer_free(StorageWriter *base)
{
    S3Writer *writer = (S3Writer *)base;
    s3_upload_free(writer->upload);
    sha256_free(writer->sha);
    if (writer->buffer != NULL)
        munmap(writer->buffer, writer->capacity);
    free(writer);
}

static bool
begin_buffer(S3Writer *writer, CairnError *err)
{
    writer->used = 0;
    sha256_free(writer->sha);
    writer->sha = sha256_new(err);
    return writer->sha != NULL;
}

StorageWriter *
s3_create(Storage *base, const char *name, CairnError *err)
{
    SCOPED(StorageWriter) result = NULL;
    S3Writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    writer->base.ops = &S3_WRITER_OPS;
    writer->storage = (S3Storage *)base;
    result = &writer->base;
    if (!s3_key(s3_client_address(writer->storage->client), name, writer->key, err) ||
        !begin_buffer(writer, err))
        return NULL;
    return take(&result);
}

static bool
make_room(S3Writer *writer, size_t size, CairnError *err)
{
    size_t capacity = writer->capacity == 0 ? BUFFER_FIRST : writer->capacity;
    while (capacity < writer->used + size)
        capacity *= 2;
    if (capacity > S3_PART_SIZE)
        capacity = S3_PART_SIZE;
    if (capacity == writer->capacity)
        return true;
    void *buffer =
        writer->buffer == NULL
            ? mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            : mremap(writer->buffer, writer->capacity, capacity, MREMAP_MAYMOVE);
    if (buffer == MAP_FAILED)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    writer->buffer = buffer;
    writer->capacity = capacity;
    return true;
}

/* The full buffer becomes a part. Only called when more follows, so the last part is never empty.
 */
static bool
send_part(S3Writer *writer, CairnError *err)
{
    uint8_t digest[SHA256_SIZE];
    if (writer->upload == NULL) {
        writer->upload = s3_upload_begin(writer->storage, writer->key, err);
        if (writer->upload == NULL)
            return false;
    }
    return sha256_finish(writer->sha, digest, err) &&
           s3_upload_part(writer->upload, writer->buffer, writer->used, digest, err) &&
           begin_buffer(writer, err);
}

static bool
writer_write(StorageWriter *base, const void *data, size_t size, CairnError *err)
{
    S3Writer *writer = (S3Writer *)base;
    const uint8_t *at = data;
    while (size > 0) {
        if (writer->used == S3_PART_SIZE && !send_part(writer, err))
            return false;
        const size_t room = S3_PART_SIZE - writer->used;
        const size_t piece = size < room ? size : room;
        if (!make_room(writer, piece, err) || !sha256_update(writer->sha, at, piece, err))
            return false;
        memcpy(writer->buffer + writer->used, at, piece);
        writer->used += piece;
        at += piece;
        size -= piece;
    }
    return true;
}

/* -- publishing */

/* Is the object that has the name the one in our buffer? Its first bytes hold a random salt, so a
 * foreign one is known by them. */
static bool
is_ours(S3Writer *writer, bool *ours_out, CairnError *err)
{
    SCOPED_MEMORY uint8_t *there = malloc(COMPARE_SIZE);
    if (there == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    *ours_out = false;
    if (writer->used == 0) /* nothing in it could tell */
        return true;
    size_t size = COMPARE_FIRST;
    for (size_t at = 0; at < writer->used;) {
        size_t got;
        uint64_t total;
        if (size > writer->used - at)
            size = writer->used - at;
        if (!s3_get_range(writer->storage, writer->key, there, size, at, &got, &total, err))
            return false;
        if (total != writer->used || got != size || memcmp(there, writer->buffer + at, size) != 0)
            return true;
        at += size;
        size = COMPARE_SIZE;
    }
    *ours_out = true;
    return true;
}

static bool
taken(const S3Writer *writer, CairnError *err)
{
    return cairn_error(err, CAIRN_CONFLICT, "object '%s' exists already", writer->key);
}

/* Where nothing else guards the name (writers = one): is it free? */
static bool
check_free(const S3Writer *writer, CairnError *err)
{
    uint8_t byte;
    size_t got;
    uint64_t total;
    if (s3_get_range(writer->storage, writer->key, &byte, 1, 0, &got, &total, err))
        return taken(writer, err);
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    return true;
}

/* Every store gives what it stored an ETag. A 200 without one is somebody else's. */
static bool
has_etag(const S3Writer *writer, const S3Answer *answer, CairnError *err)
{
    char etag[S3_ETAG_SIZE];
    if (http_header(&answer->http, "etag", etag, sizeof etag))
        return true;
    return cairn_error(err, CAIRN_UNAVAILABLE,
                       "'%s' is not stored for sure: the answer has no ETag, as an object store's "
                       "would",
                       writer->key);
}

static bool
put(S3Writer *writer, S3Answer *answer, CairnError *err)
{
    uint8_t digest[SHA256_SIZE];
    S3CreateHeaders headers = {0};
    if (!sha256_finish(writer->sha, digest, err))
        return false;
    s3_condition_header(writer->storage, &headers);
    s3_create_headers(writer->storage, &headers);
    if (!s3_checksum_header(writer->storage, writer->buffer, writer->used, digest, false, &headers,
                            err))
        return false;
    if (s3_call(writer->storage->client,
                &(S3Request){.method = "PUT",
                             .operation = "PutObject",
                             .key = writer->key,
                             .headers = headers.pairs,
                             .body = writer->buffer,
                             .body_size = writer->used,
                             .body_digest = digest,
                             .expect_412 = true},
                answer, err))
        return answer->http.status == 412 || has_etag(writer, answer, err);
    if (err->kind == CAIRN_UNSUPPORTED && !writer->storage->one_writer)
        cairn_error_hint(err, "a store that cannot create an object only where there is none needs "
                              "writers = one: a single host that writes; see "
                              "docs/object-stores.md");
    return false;
}

static bool
commit_single(S3Writer *writer, CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    bool ours = false;
    if (writer->storage->one_writer && !check_free(writer, err))
        return false;
    if (!put(writer, &answer, err))
        return false;
    if (answer.http.status != 412)
        return true;
    /* Also when no earlier answer was lost that we know of: curl and proxies repeat too. */
    if (!is_ours(writer, &ours, err))
        return cairn_error_wrap(err, "unable to learn whose object '%s' is", writer->key);
    return ours || taken(writer, err);
}

static bool
writer_commit(StorageWriter *base, CairnError *err)
{
    S3Writer *writer = (S3Writer *)base;
    uint8_t digest[SHA256_SIZE];
    if (writer->upload == NULL)
        return commit_single(writer, err);
    CAIRN_ASSERT(writer->used > 0);
    return sha256_finish(writer->sha, digest, err) &&
           s3_upload_part(writer->upload, writer->buffer, writer->used, digest, err) &&
           s3_upload_complete(writer->upload, err);
}

static const StorageWriterOps S3_WRITER_OPS = {writer_write, writer_commit, writer_free};
