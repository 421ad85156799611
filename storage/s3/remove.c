/* Deleting objects: one, or hundreds in a request. */
#include "common/bytes.h"
#include "storage/s3/s3_intern.h"

#include <stdio.h>
#include <string.h>

enum { ANSWER_LIMIT = 2 << 20 };

bool
s3_remove_key(S3Storage *storage, const char *key, CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    return s3_call(
        storage->client,
        &(S3Request){
            .method = "DELETE", .operation = "DeleteObject", .key = key, .expect_404 = true},
        &answer, err);
}

bool
s3_remove(Storage *base, const char *name, CairnError *err)
{
    S3Storage *storage = (S3Storage *)base;
    char key[S3_KEY_LIMIT + 1];
    return s3_key(s3_client_address(storage->client), name, key, err) &&
           s3_remove_key(storage, key, err);
}

/* Names and prefixes are made of characters that XML has no other use for. */
static bool
write_list(const S3Storage *storage, const char *const *names, size_t count, ByteWriter *list,
           CairnError *err)
{
    static const char HEAD[] = "<Delete><Quiet>true</Quiet>", TAIL[] = "</Delete>";
    char key[S3_KEY_LIMIT + 1], line[S3_KEY_LIMIT + 64];
    byte_writer_bytes(list, HEAD, sizeof HEAD - 1);
    for (size_t i = 0; i < count; i++) {
        if (!s3_key(s3_client_address(storage->client), names[i], key, err))
            return false;
        const int size = snprintf(line, sizeof line, "<Object><Key>%s</Key></Object>", key);
        byte_writer_bytes(list, line, (size_t)size);
    }
    byte_writer_bytes(list, TAIL, sizeof TAIL - 1);
    return byte_writer_check(list, err);
}

typedef struct {
    const S3Storage *storage;
    const char *const *names;
    size_t count;
    bool *gone;
} Deleting;

/* What was not deleted is asked for on its own, which tells why, or succeeds. */
static bool
note_failure(void *context, const char *key, const S3Error *error, CairnError *err)
{
    const Deleting *deleting = context;
    const S3Address *address = s3_client_address(deleting->storage->client);
    const size_t prefix_size = strlen(address->prefix);
    if (strcmp(error->code, "NoSuchKey") == 0)
        return true;
    for (size_t i = 0; i < deleting->count && strlen(key) >= prefix_size; i++) {
        if (strcmp(key + prefix_size, deleting->names[i]) == 0) {
            deleting->gone[i] = false;
            return true;
        }
    }
    return cairn_error(err, CAIRN_CORRUPT,
                       "the store's answer is about '%.100s', which nobody "
                       "wanted deleted",
                       key);
}

static bool
delete_objects(S3Storage *storage, const ByteWriter *list, Deleting *deleting, CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    S3CreateHeaders headers = {0};
    const S3Pair query[] = {{"delete", NULL}, {0}};
    /* Every store takes this digest, and some take no other. */
    return s3_md5_header(list->data, list->size, &headers, err) &&
           s3_call(storage->client,
                   &(S3Request){.method = "POST",
                                .operation = "DeleteObjects",
                                .query = query,
                                .headers = headers.pairs,
                                .body = list->data,
                                .body_size = list->size,
                                .body_limit = ANSWER_LIMIT},
                   &answer, err) &&
           s3_delete_parse(answer.http.body, answer.http.body_size, note_failure, deleting, err);
}

bool
s3_remove_many(Storage *base, const char *const *names, size_t count, bool *gone_out,
               CairnError *denied_out, CairnError *err)
{
    S3Storage *storage = (S3Storage *)base;
    SCOPED_BYTES ByteWriter list = {0};
    Deleting deleting = {storage, names, count, gone_out};
    bool all = !atomic_load(&storage->one_by_one);
    if (!write_list(storage, names, count, &list, err))
        return false;
    for (size_t i = 0; i < count; i++)
        gone_out[i] = all;
    if (all && !delete_objects(storage, &list, &deleting, err)) {
        /* Refused as a whole, or not understood: each on its own is, or tells why not. */
        if (err->kind == CAIRN_UNAVAILABLE || err->kind == CAIRN_CANCELLED)
            return false;
        atomic_store(&storage->one_by_one, true);
        cairn_error_clear(err);
        for (size_t i = 0; i < count; i++)
            gone_out[i] = false;
    }
    for (size_t i = 0; i < count; i++) {
        if (gone_out[i])
            continue;
        gone_out[i] = s3_remove(base, names[i], err);
        if (gone_out[i])
            continue;
        if (err->kind != CAIRN_DENIED)
            return false;
        if (denied_out->kind == CAIRN_OK)
            *denied_out = *err;
        cairn_error_clear(err);
    }
    return true;
}
