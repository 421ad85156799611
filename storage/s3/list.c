/* Names in a bucket: what lies directly below a prefix, and uploads that nobody completed. */
#include "storage/s3/s3_intern.h"

#include <stdio.h>
#include <string.h>

enum { LIST_BODY_LIMIT = 6 << 20, UPLOADS_BODY_LIMIT = 4 << 20, SWEEP_BATCH = 256 };

typedef struct {
    StorageListCallback *callback;
    void *context;
    const char *prefix; /* of the keys */
    size_t prefix_size;
    bool stop;
    char last_key[S3_KEY_LIMIT + 1];    /* of an object */
    char last_prefix[S3_KEY_LIMIT + 1]; /* of what looks like a directory */
} ListVisit;

/* A store, or what stands in front of it, that passes over the prefix lists what is not ours. */
static bool
check_inside(const char *key, const char *prefix, size_t prefix_size, CairnError *err)
{
    return strncmp(key, prefix, prefix_size) == 0 ||
           cairn_error(err, CAIRN_CORRUPT, "the store's list of '%s' has the foreign key '%.100s'",
                       prefix, key);
}

/* One key of a page: to the caller by its last component. */
static bool
visit_key(void *context, const S3ListEntry *listed, CairnError *err)
{
    ListVisit *visit = context;
    char name[S3_KEY_LIMIT + 1];
    if (visit->stop)
        return true;
    if (!check_inside(listed->key, visit->prefix, visit->prefix_size, err))
        return false;
    /* Some stores begin a page with what the one before ended with; who counts must not count it
       twice. */
    char *last = listed->is_prefix ? visit->last_prefix : visit->last_key;
    if (strcmp(last, listed->key) == 0)
        return true;
    snprintf(last, S3_KEY_LIMIT + 1, "%s", listed->key);
    snprintf(name, sizeof name, "%s", listed->key + visit->prefix_size);
    const size_t size = strlen(name);
    if (listed->is_prefix && size > 0 && name[size - 1] == '/')
        name[size - 1] = '\0';
    /* Without a word of the directories in between, all in them would seem to be gone. */
    if (strchr(name, '/') != NULL)
        return cairn_error(err, CAIRN_CORRUPT,
                           "the store's list of '%s' passes over the delimiter: it has '%.100s'",
                           visit->prefix, listed->key);
    if (!storage_name_valid(name))
        return true; /* not ours: somebody else's objects in the bucket */
    const StorageEntry entry = {.name = name,
                                .is_directory = listed->is_prefix,
                                .size_bytes = listed->is_prefix ? 0 : listed->size_bytes,
                                .modified_us = listed->is_prefix ? 0 : listed->modified_us};
    switch (visit->callback(visit->context, &entry, err)) {
    case STORAGE_LIST_GO_ON:
        return true;
    case STORAGE_LIST_STOP:
        visit->stop = true;
        return true;
    case STORAGE_LIST_FAILED:
        break;
    }
    CAIRN_ASSERT(err->kind != CAIRN_OK);
    return false;
}

/* token: of this page, "" for the first; the next one's in page_out. */
static bool
list_page(S3Storage *storage, const char *prefix, const char *token, ListVisit *visit,
          S3ListPage *page_out, CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    const S3Pair query[] = {{"list-type", "2"},
                            {"delimiter", "/"},
                            {"encoding-type", "url"},
                            {"prefix", prefix},
                            {token[0] != '\0' ? "continuation-token" : NULL, token},
                            {0}};
    if (!s3_call(storage->client,
                 &(S3Request){.method = "GET",
                              .operation = "ListObjectsV2",
                              .query = query,
                              .whole_root = "ListBucketResult",
                              .body_limit = LIST_BODY_LIMIT},
                 &answer, err))
        return false;
    return s3_list_parse(answer.http.body, answer.http.body_size, visit_key, visit, page_out,
                         err) ||
           cairn_error_wrap(err, "list of '%s' in bucket '%s'", prefix,
                            s3_client_address(storage->client)->bucket);
}

/* The key prefix of what lies directly below `prefix`. */
static bool
directory_key(const S3Storage *storage, const char *prefix, char key[S3_KEY_LIMIT + 1],
              CairnError *err)
{
    char directory[STORAGE_NAME_LIMIT + 2];
    snprintf(directory, sizeof directory, "%s%s", prefix, prefix[0] != '\0' ? "/" : "");
    return s3_key(s3_client_address(storage->client), directory, key, err);
}

/* A store that leads in a circle must not keep us for ever: a token that comes again is found,
   however long the circle is. */
static bool
check_progress(const char *token, char **milestone, uint64_t pages, CairnError *err)
{
    if (*milestone != NULL && strcmp(token, *milestone) == 0)
        return cairn_error(err, CAIRN_CORRUPT, "the store's pages come again and do not end");
    if ((pages & (pages - 1)) != 0)
        return true;
    free(*milestone);
    *milestone = strdup(token);
    return *milestone != NULL || cairn_error(err, CAIRN_INTERNAL, "out of memory");
}

bool
s3_list(Storage *base, const char *prefix, StorageListCallback *callback, void *context,
        CairnError *err)
{
    S3Storage *storage = (S3Storage *)base;
    char key[S3_KEY_LIMIT + 1];
    if (!directory_key(storage, prefix, key, err))
        return false;
    ListVisit visit = {
        .callback = callback, .context = context, .prefix = key, .prefix_size = strlen(key)};
    SCOPED_MEMORY char *token = NULL;
    SCOPED_MEMORY char *milestone = NULL; /* a token that was seen, a power of two pages ago */
    uint64_t pages = 0;
    for (;;) {
        S3ListPage page = {0};
        const bool good = list_page(storage, key, token != NULL ? token : "", &visit, &page, err);
        free(token);
        token = page.next_token;
        if (!good)
            return false;
        if (visit.stop || !page.truncated)
            return true;
        if (!check_progress(token, &milestone, ++pages, err))
            return cairn_error_wrap(err, "list of '%s'", key);
    }
}

/* -- uploads */

typedef struct {
    char *key;
    char *upload_id;
} StaleUpload;

typedef struct {
    int64_t older_than_us;
    const char *prefix;
    size_t prefix_size;
    StaleUpload stale[SWEEP_BATCH];
    size_t count;
} Sweep;

static bool
visit_upload(void *context, const S3UploadEntry *upload, CairnError *err)
{
    Sweep *sweep = context;
    /* What is not below the prefix is somebody else's, whatever the store was asked for. */
    if (strncmp(upload->key, sweep->prefix, sweep->prefix_size) != 0 ||
        strlen(upload->key) <= sweep->prefix_size ||
        strchr(upload->key + sweep->prefix_size, '/') != NULL ||
        upload->initiated_us >= sweep->older_than_us || sweep->count == SWEEP_BATCH)
        return true;
    StaleUpload *stale = &sweep->stale[sweep->count];
    *stale = (StaleUpload){strdup(upload->key), strdup(upload->upload_id)};
    sweep->count++;
    return (stale->key != NULL && stale->upload_id != NULL) ||
           cairn_error(err, CAIRN_INTERNAL, "out of memory");
}

/* page: the one before, whose markers this one goes on from. */
static bool
sweep_page(S3Storage *storage, const char *prefix, Sweep *sweep, S3UploadPage *page,
           CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    const S3UploadPage before = *page;
    const S3Pair query[] = {{"uploads", NULL},
                            {"delimiter", "/"},
                            {"prefix", prefix},
                            {before.next_key[0] != '\0' ? "key-marker" : NULL, before.next_key},
                            {"upload-id-marker", before.next_upload_id},
                            {0}};
    const S3Request request = {.method = "GET",
                               .operation = "ListMultipartUploads",
                               .query = query,
                               .whole_root = "ListMultipartUploadsResult",
                               .body_limit = UPLOADS_BODY_LIMIT};
    *page = (S3UploadPage){.truncated = false};
    return s3_call(storage->client, &request, &answer, err) &&
           s3_uploads_parse(answer.http.body, answer.http.body_size, visit_upload, sweep, page,
                            err);
}

static void
sweep_free(Sweep *sweep)
{
    for (size_t i = 0; i < sweep->count; i++) {
        free(sweep->stale[i].key);
        free(sweep->stale[i].upload_id);
    }
    free(sweep);
}

/* Leftovers here are uploads whose writer died. Those beyond one batch wait for the next sweep. */
bool
s3_sweep(Storage *base, const char *prefix, int64_t older_than_us, CairnError *err)
{
    S3Storage *storage = (S3Storage *)base;
    char key[S3_KEY_LIMIT + 1];
    SCOPED_MEMORY char *milestone = NULL;
    uint64_t pages = 0;
    S3UploadPage *page = calloc(1, sizeof *page);
    Sweep *sweep = calloc(1, sizeof *sweep);
    bool good = page != NULL && sweep != NULL ? directory_key(storage, prefix, key, err)
                                              : cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (good) {
        sweep->older_than_us = older_than_us;
        sweep->prefix = key;
        sweep->prefix_size = strlen(key);
        bool more;
        do {
            char marker[sizeof page->next_key + sizeof page->next_upload_id];
            good = sweep_page(storage, key, sweep, page, err);
            more =
                good && page->truncated && page->next_key[0] != '\0' && sweep->count < SWEEP_BATCH;
            snprintf(marker, sizeof marker, "%s %s", page->next_key, page->next_upload_id);
            good = good && (!more || check_progress(marker, &milestone, ++pages, err));
        } while (good && more);
    }
    for (size_t i = 0; good && i < sweep->count; i++)
        good = s3_upload_abort(storage, sweep->stale[i].key, sweep->stale[i].upload_id, false, err);
    if (sweep != NULL)
        sweep_free(sweep);
    free(page);
    if (!good && err->kind == CAIRN_UNSUPPORTED) { /* a store without uploads has no stale ones */
        cairn_error_clear(err);
        return true;
    }
    return good;
}
