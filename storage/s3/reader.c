/* Objects as ranged GETs. */
#include "common/log.h"
#include "storage/s3/read_plan.h"
#include "storage/s3/s3_intern.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    StorageReader base; /* first */
    S3Storage *storage;
    pthread_mutex_t mutex; /* of the state: readers of packs are shared */
    S3ReadState state;
    char key[S3_KEY_LIMIT + 1];
    char version[STORAGE_VERSION_LIMIT + 1]; /* "": the one that is there */
} S3Reader;

static const StorageReaderOps S3_READER_OPS;

/* Other bytes than those that were asked for are a lie of the way, of which the object knows
 * nothing.
 */
enum { ODD_ANSWERS_LIMIT = 5, ODD_ANSWER_WAIT_MS = 200 };

static bool
odd_answer(const char *key, const char *what, CairnError *err)
{
    return cairn_error(err, CAIRN_CORRUPT, "the store's answer to a read of '%s' %s", key, what);
}

/* In the place of data: a store or a proxy that fails after it said 200. No object of ours begins
 * so.
 */
static bool
is_error_document(const void *data, size_t size)
{
    enum { ROOT_WITHIN = 256 };
    return memmem(data, size < ROOT_WITHIN ? size : ROOT_WITHIN, "<Error", 6) != NULL;
}

/* What came is what was asked for: not another range, not less. */
static bool
check_range(const S3Answer *answer, const char *key, const void *data, uint64_t offset, size_t size,
            size_t *size_out, uint64_t *total_out, CairnError *err)
{
    const size_t got = answer->http.into_size;
    char text[128];
    uint64_t first, last, total;
    if (answer->http.status == 200) { /* the range was ignored: all of it */
        if (offset != 0)
            return odd_answer(key, "is not the range that was asked for", err);
        if (is_error_document(data, got))
            return odd_answer(key, "is an error that calls itself a success", err);
        *size_out = got;
        *total_out = got;
        return true;
    }
    if (!http_header(&answer->http, "content-range", text, sizeof text) ||
        !s3_content_range_parse(text, &first, &last, &total))
        return odd_answer(key, "does not say which range it is", err);
    const uint64_t expected = total - offset < size ? total - offset : size;
    if (first != offset || offset > total || last - first + 1 != expected || got != expected)
        return odd_answer(key, "is not the range that was asked for", err);
    *size_out = got;
    *total_out = total;
    return true;
}

/* CORRUPT: an odd answer. version: "" for the one that is there. */
static bool
get_range_once(S3Storage *storage, const char *key, const char *version, void *data, size_t size,
               uint64_t offset, size_t *size_out, uint64_t *total_out, CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    char range[64];
    snprintf(range, sizeof range, "bytes=%" PRIu64 "-%" PRIu64, offset, offset + size - 1);
    const S3Pair headers[] = {{"range", range}, {0}};
    const S3Pair query[] = {{version[0] != '\0' ? "versionId" : NULL, version}, {0}};
    if (!s3_call(storage->client,
                 &(S3Request){.method = "GET",
                              .operation = "GetObject",
                              .key = key,
                              .query = query,
                              .headers = headers,
                              .into = data,
                              .into_size = size,
                              .expect_404 = true,
                              .expect_416 = true},
                 &answer, err))
        return false;
    if (answer.http.status == 404)
        return cairn_error(err, CAIRN_NOT_FOUND, "object '%s' does not exist", key);
    if (answer.http.status == 416) { /* of an empty object no range can be had */
        if (offset != 0)
            return odd_answer(key, "is that it has become shorter", err);
        *size_out = 0;
        *total_out = 0;
        return true;
    }
    return check_range(&answer, key, data, offset, size, size_out, total_out, err);
}

static bool
get_range(S3Storage *storage, const char *key, const char *version, void *data, size_t size,
          uint64_t offset, size_t *size_out, uint64_t *total_out, CairnError *err)
{
    const Clock *clock = storage->world->clock;
    CAIRN_ASSERT(size > 0);
    for (int answers = 1;; answers++) {
        CairnError failure = {0};
        if (get_range_once(storage, key, version, data, size, offset, size_out, total_out,
                           &failure))
            return true;
        if (failure.kind != CAIRN_CORRUPT) {
            *err = failure;
            return false;
        }
        if (answers == ODD_ANSWERS_LIMIT)
            return cairn_error(err, CAIRN_UNAVAILABLE, "%s, %d times", failure.message, answers);
        log_info("%s; asking again", failure.message);
        clock->sleep_ms(clock, ODD_ANSWER_WAIT_MS * answers);
    }
}

bool
s3_get_range(S3Storage *storage, const char *key, void *data, size_t size, uint64_t offset,
             size_t *size_out, uint64_t *total_out, CairnError *err)
{
    return get_range(storage, key, "", data, size, offset, size_out, total_out, err);
}

/* A GET, not a HEAD: its 404 has a body, in which the store itself says that it means the object.
 */
bool
s3_exists(Storage *base, const char *name, uint64_t *size_out, CairnError *err)
{
    S3Storage *storage = (S3Storage *)base;
    char key[S3_KEY_LIMIT + 1];
    uint8_t byte;
    size_t got;
    return s3_key(s3_client_address(storage->client), name, key, err) &&
           s3_get_range(storage, key, &byte, 1, 0, &got, size_out, err);
}

static void
reader_free(StorageReader *base)
{
    S3Reader *reader = (S3Reader *)base;
    s3_read_cache_drop(reader->storage->cache, reader);
    pthread_mutex_destroy(&reader->mutex);
    free(reader);
}

/* The first bytes, and how many there are in all. */
static bool
read_first(S3Reader *reader, CairnError *err)
{
    SCOPED_MEMORY uint8_t *data = malloc(S3_FIRST_READ);
    size_t got;
    if (data == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!get_range(reader->storage, reader->key, reader->version, data, S3_FIRST_READ, 0, &got,
                   &reader->base.size_bytes, err))
        return false;
    reader->state.object_size = reader->base.size_bytes;
    if (got > 0)
        s3_read_cache_put(reader->storage->cache, reader, take(&data), got, 0);
    return true;
}

StorageReader *
s3_open(Storage *base, const char *name, CairnError *err)
{
    return s3_open_version(base, name, "", err);
}

StorageReader *
s3_open_version(Storage *base, const char *name, const char *version, CairnError *err)
{
    S3Reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    reader->base.ops = &S3_READER_OPS;
    reader->storage = (S3Storage *)base;
    CAIRN_ASSERT(strlen(version) <= STORAGE_VERSION_LIMIT);
    snprintf(reader->version, sizeof reader->version, "%s", version);
    CAIRN_ASSERT(pthread_mutex_init(&reader->mutex, NULL) == 0);
    if (!s3_key(s3_client_address(reader->storage->client), name, reader->key, err) ||
        !read_first(reader, err)) {
        reader_free(&reader->base);
        return NULL;
    }
    return &reader->base;
}

static S3ReadPlan
plan(S3Reader *reader, uint64_t offset, size_t size)
{
    pthread_mutex_lock(&reader->mutex);
    const S3ReadPlan next = s3_read_plan(&reader->state, offset, size);
    reader->state.ahead = offset == reader->state.next_offset ? next.size : 0;
    pthread_mutex_unlock(&reader->mutex);
    return next;
}

static bool
fetch(S3Reader *reader, void *data, size_t size, uint64_t offset, CairnError *err)
{
    uint64_t total;
    size_t got;
    if (!get_range(reader->storage, reader->key, reader->version, data, size, offset, &got, &total,
                   err))
        return false;
    if (got != size || total != reader->base.size_bytes)
        return odd_answer(reader->key, "is of another object than before", err);
    return true;
}

static bool
fetch_window(S3Reader *reader, const S3ReadPlan *window, void *data, size_t size, uint64_t offset,
             CairnError *err)
{
    SCOPED_MEMORY uint8_t *bytes = malloc(window->size);
    if (bytes == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!fetch(reader, bytes, window->size, window->offset, err))
        return false;
    /* A read may begin before the window's end and go on behind it: windows hold all of it. */
    CAIRN_ASSERT(offset >= window->offset && offset + size <= window->offset + window->size);
    memcpy(data, bytes + (offset - window->offset), size);
    s3_read_cache_put(reader->storage->cache, reader, take(&bytes), window->size, window->offset);
    return true;
}

static bool
reader_pread(StorageReader *base, void *data, size_t size, uint64_t offset, CairnError *err)
{
    S3Reader *reader = (S3Reader *)base;
    bool good = s3_read_cache_get(reader->storage->cache, reader, data, size, offset);
    if (!good) {
        const S3ReadPlan next = plan(reader, offset, size);
        good = next.direct ? fetch(reader, data, size, offset, err)
                           : fetch_window(reader, &next, data, size, offset, err);
    }
    pthread_mutex_lock(&reader->mutex);
    reader->state.next_offset = offset + size;
    pthread_mutex_unlock(&reader->mutex);
    return good;
}

static const StorageReaderOps S3_READER_OPS = {reader_pread, reader_free};
