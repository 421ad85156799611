/*
 * Multipart uploads, for objects that are too large to be held whole: segments of a gigabyte.
 *
 * Not every store honours a condition when an upload is completed (Ceph 18 does not), so the name
 * is looked at before, too: two creators of one large name at the same instant are caught by the
 * condition where there is one, and by their content when it is read. Nothing that decides
 * (descriptor, fate, mark, pin) is ever so large.
 */
#include "common/bytes.h"
#include "common/digest.h"
#include "common/log.h"
#include "storage/s3/s3_intern.h"

#include <stdio.h>
#include <string.h>

enum { COMPLETE_SILENCE_MS = 180000, COMPARE_SIZE = 512 << 10 };

/* What we know of a part we sent. */
typedef struct {
    uint64_t size;
    uint8_t digest[SHA256_SIZE];
    char etag[S3_ETAG_SIZE];
} Part;

struct S3Upload {
    S3Storage *storage;
    Part *parts;
    size_t count;
    uint64_t size;
    bool open; /* there is something to abort */
    char id[S3_UPLOAD_ID_SIZE];
    char key[S3_KEY_LIMIT + 1];
};

S3Upload *
s3_upload_begin(S3Storage *storage, const char *key, CairnError *err)
{
    SCOPED(S3Upload) upload = calloc(1, sizeof *upload);
    if (upload == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    upload->storage = storage;
    snprintf(upload->key, sizeof upload->key, "%s", key);
    SCOPED_S3_ANSWER S3Answer answer = {0};
    S3CreateHeaders headers = {0};
    const S3Pair query[] = {{"uploads", NULL}, {0}};
    s3_create_headers(storage, &headers);
    if (!s3_call(storage->client,
                 &(S3Request){.method = "POST",
                              .operation = "CreateMultipartUpload",
                              .key = key,
                              .query = query,
                              .headers = headers.pairs},
                 &answer, err) ||
        !s3_upload_parse(answer.http.body, answer.http.body_size, upload->id, err))
        return NULL;
    upload->open = true;
    return take(&upload);
}

static bool
add_part(S3Upload *upload, size_t size, const uint8_t *digest, const char *etag, CairnError *err)
{
    Part *parts = realloc(upload->parts, (upload->count + 1) * sizeof *parts);
    if (parts == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    upload->parts = parts;
    Part *part = &parts[upload->count++];
    part->size = size;
    memcpy(part->digest, digest, sizeof part->digest);
    snprintf(part->etag, sizeof part->etag, "%s", etag);
    upload->size += size;
    return true;
}

bool
s3_upload_part(S3Upload *upload, const void *data, size_t size, const uint8_t *digest,
               CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    S3CreateHeaders headers = {0};
    char number[16], etag[S3_ETAG_SIZE];
    if (upload->count >= S3_PARTS_LIMIT)
        return cairn_error(err, CAIRN_UNSUPPORTED, "object '%s' has more than %d parts",
                           upload->key, S3_PARTS_LIMIT);
    snprintf(number, sizeof number, "%zu", upload->count + 1);
    const S3Pair query[] = {{"partNumber", number}, {"uploadId", upload->id}, {0}};
    if (!s3_checksum_header(upload->storage, data, size, digest, true, &headers, err) ||
        !s3_call(upload->storage->client,
                 &(S3Request){.method = "PUT",
                              .operation = "UploadPart",
                              .key = upload->key,
                              .query = query,
                              .headers = headers.pairs,
                              .body = data,
                              .body_size = size,
                              .body_digest = digest},
                 &answer, err))
        return false;
    if (!http_header(&answer.http, "etag", etag, sizeof etag) || strpbrk(etag, "<&>") != NULL)
        return cairn_error(err, CAIRN_CORRUPT, "the store took a part of '%s' and gave no ETag",
                           upload->key);
    return add_part(upload, size, digest, etag, err);
}

/* -- completing */

static bool
write_list(const S3Upload *upload, ByteWriter *list, CairnError *err)
{
    char line[S3_ETAG_SIZE + 128];
    static const char HEAD[] = "<CompleteMultipartUpload>", TAIL[] = "</CompleteMultipartUpload>";
    byte_writer_bytes(list, HEAD, sizeof HEAD - 1);
    for (size_t i = 0; i < upload->count; i++) {
        const int size =
            snprintf(line, sizeof line, "<Part><PartNumber>%zu</PartNumber><ETag>%s</ETag></Part>",
                     i + 1, upload->parts[i].etag);
        byte_writer_bytes(list, line, (size_t)size);
    }
    byte_writer_bytes(list, TAIL, sizeof TAIL - 1);
    return byte_writer_check(list, err);
}

static bool
complete(S3Upload *upload, S3Answer *answer, CairnError *err)
{
    S3CreateHeaders headers = {0};
    SCOPED_BYTES ByteWriter list = {0};
    const S3Pair query[] = {{"uploadId", upload->id}, {0}};
    s3_condition_header(upload->storage, &headers);
    return write_list(upload, &list, err) &&
           s3_call(upload->storage->client,
                   &(S3Request){.method = "POST",
                                .operation = "CompleteMultipartUpload",
                                .key = upload->key,
                                .query = query,
                                .headers = headers.pairs,
                                .body = list.data,
                                .body_size = list.size,
                                .slow_ms = COMPLETE_SILENCE_MS,
                                .expect_404 = true,
                                .expect_412 = true},
                   answer, err);
}

/* *there_out: 0 for no object of that name. */
static bool
size_there(const S3Upload *upload, uint64_t *there_out, CairnError *err)
{
    uint8_t byte;
    size_t got;
    if (s3_get_range(upload->storage, upload->key, &byte, 1, 0, &got, there_out, err))
        return true;
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    *there_out = 0;
    return true;
}

/* Does the object hold this part at this place? */
static bool
part_is_there(const S3Upload *upload, const Part *part, uint64_t start, uint8_t *buffer,
              bool *same_out, CairnError *err)
{
    SCOPED(Sha256) sha = sha256_new(err);
    uint8_t digest[SHA256_SIZE];
    if (sha == NULL)
        return false;
    for (uint64_t at = 0; at < part->size;) {
        const size_t size =
            part->size - at < COMPARE_SIZE ? (size_t)(part->size - at) : COMPARE_SIZE;
        size_t got;
        uint64_t total;
        if (!s3_get_range(upload->storage, upload->key, buffer, size, start + at, &got, &total,
                          err) ||
            !sha256_update(sha, buffer, got, err))
            return false;
        if (total != upload->size || got != size) {
            *same_out = false;
            return true;
        }
        at += size;
    }
    if (!sha256_finish(sha, digest, err))
        return false;
    *same_out = memcmp(digest, part->digest, sizeof digest) == 0;
    return true;
}

/* The first part holds the random salt of a header: a foreign object is known by it. */
static bool
is_ours(const S3Upload *upload, bool *ours_out, CairnError *err)
{
    SCOPED_MEMORY uint8_t *buffer = malloc(COMPARE_SIZE);
    uint64_t start = 0, there;
    if (buffer == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (!size_there(upload, &there, err))
        return false;
    *ours_out = there == upload->size;
    for (size_t i = 0; i < upload->count && *ours_out; i++) {
        if (!part_is_there(upload, &upload->parts[i], start, buffer, ours_out, err))
            return false;
        start += upload->parts[i].size;
    }
    return true;
}

static bool
taken(const S3Upload *upload, CairnError *err)
{
    return cairn_error(err, CAIRN_CONFLICT, "object '%s' exists already", upload->key);
}

/* The store refused, or knows nothing of our upload: was it our own earlier success? */
static bool
decide(S3Upload *upload, int status, CairnError *err)
{
    bool ours = false;
    uint64_t there;
    if (!is_ours(upload, &ours, err))
        return cairn_error_wrap(err, "unable to learn whose object '%s' is", upload->key);
    if (ours) {
        upload->open = false;
        return true;
    }
    if (status == 412)
        return taken(upload, err);
    if (!size_there(upload, &there, err))
        return false;
    if (there > 0)
        return taken(upload, err);
    return cairn_error(err, CAIRN_UNAVAILABLE, "the upload of '%s' is gone before it was completed",
                       upload->key);
}

bool
s3_upload_complete(S3Upload *upload, CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    uint64_t there;
    if (!size_there(upload, &there, err))
        return false;
    if (there > 0)
        return taken(upload, err);
    if (!complete(upload, &answer, err))
        return false;
    if (answer.http.status == 412 || answer.http.status == 404)
        return decide(upload, answer.http.status, err);
    upload->open = false;
    if (!size_there(upload, &there, err))
        return false;
    if (there != upload->size)
        return cairn_error(err, CAIRN_CORRUPT, "object '%s' has %llu bytes after an upload of %llu",
                           upload->key, (unsigned long long)there,
                           (unsigned long long)upload->size);
    return true;
}

bool
s3_upload_abort(S3Storage *storage, const char *key, const char *id, bool one_attempt,
                CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    const S3Pair query[] = {{"uploadId", id}, {0}};
    return s3_call(storage->client,
                   &(S3Request){.method = "DELETE",
                                .operation = "AbortMultipartUpload",
                                .key = key,
                                .query = query,
                                .one_attempt = one_attempt,
                                .expect_404 = true},
                   &answer, err);
}

void
s3_upload_free(S3Upload *upload)
{
    CairnError err = {0};
    if (upload == NULL)
        return;
    if (upload->open && !s3_upload_abort(upload->storage, upload->key, upload->id, true, &err))
        log_debug("%s; collect sweeps it later", err.message);
    free(upload->parts);
    free(upload);
}
