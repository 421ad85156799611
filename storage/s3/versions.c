/*
 * Versions of objects in a bucket that keeps them: listing all, reading one, and bringing one back.
 *
 * A delete on such a bucket puts a marker in front, an overwrite a version; what was there before
 * stays, and nothing here removes anything. Bringing back is a copy on top of the object's own
 * name, which the store makes by itself: it works where newer versions are locked, and is created
 * with the lock, storage class and encryption that every object here is created with. One copy
 * holds at most 5 GiB (S3's rule); no object of ours is so large.
 */
#include "common/bytes.h"
#include "common/cancel.h"
#include "storage/s3/s3_intern.h"
#include "storage/s3/uri.h"
#include "storage/s3/version_answers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { VERSIONS_BODY_LIMIT = 6 << 20, COPY_SILENCE_MS = 180000 };

/* Google has versions too, under other names (generations), with which none of this works. */
static bool
check_store(const S3Storage *storage, CairnError *err)
{
    if (s3_client_scheme(storage->client) != S3_SIGN_GOOG4)
        return true;
    cairn_error(err, CAIRN_UNSUPPORTED, "versions of this store are not known here");
    return cairn_error_hint(err, "Google's own tools list and copy generations: `gcloud storage ls "
                                 "--all-versions`, `gcloud storage cp`");
}

/* -- listing */

typedef struct {
    StorageVersionCallback *callback;
    void *context;
    const char *prefix; /* of all keys */
    size_t prefix_size;
    bool began_here; /* the last key's versions, on this page */
    char last_key[S3_KEY_LIMIT + 1];
    char last_version[STORAGE_VERSION_LIMIT + 1];
} Visit;

static bool
out_of_order(const Visit *visit, const S3VersionEntry *entry, CairnError *err)
{
    return cairn_error(err, CAIRN_CORRUPT,
                       "the store's list of versions is not in order: '%.100s' comes behind "
                       "'%.100s'",
                       entry->key, visit->last_key);
}

/*
 * Whoever takes a version for the newest, because others of its name come elsewhere in the list,
 * would bring back what is there. So names ascend, and only the first of a name is the latest. (Of
 * a name that began on the page before, Swift 2.30 calls the first deletion here the latest.)
 */
static bool
check_order(const Visit *visit, const S3VersionEntry *entry, CairnError *err)
{
    if (strncmp(entry->key, visit->prefix, visit->prefix_size) != 0)
        return cairn_error(err, CAIRN_CORRUPT,
                           "the store's list of versions of '%s' has the foreign key '%.100s'",
                           visit->prefix, entry->key);
    const int order = strcmp(entry->key, visit->last_key);
    if (order < 0 || (order == 0 && entry->is_latest && visit->began_here))
        return out_of_order(visit, entry, err);
    return true;
}

static bool
visit_version(void *context, const S3VersionEntry *entry, CairnError *err)
{
    Visit *visit = context;
    /* Some stores begin a page with what the one before ended with. */
    if (strcmp(entry->key, visit->last_key) == 0 &&
        strcmp(entry->version, visit->last_version) == 0)
        return true;
    if (!check_order(visit, entry, err))
        return false;
    visit->began_here = visit->began_here || strcmp(entry->key, visit->last_key) != 0;
    snprintf(visit->last_key, sizeof visit->last_key, "%s", entry->key);
    snprintf(visit->last_version, sizeof visit->last_version, "%s", entry->version);
    const char *name = entry->key + visit->prefix_size;
    if (!storage_name_valid(name))
        return true; /* not ours: somebody else's objects in the bucket */
    const StorageVersion version = {.name = name,
                                    .version = entry->version,
                                    .digest = s3_etag_is_digest(entry->etag) ? entry->etag : "",
                                    .is_deletion = entry->is_marker,
                                    .size_bytes = entry->size_bytes,
                                    .created_us = entry->modified_us};
    return visit->callback(visit->context, &version, err);
}

/* page: where this one begins, "" for the first; then where the next one does. */
static bool
list_page(S3Storage *storage, Visit *visit, S3VersionPage *page, CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    const S3VersionPage before = *page;
    const S3Pair query[] = {
        {"versions", NULL},
        {"encoding-type", "url"},
        {"prefix", visit->prefix},
        {before.next_key[0] != '\0' ? "key-marker" : NULL, before.next_key},
        {before.next_version[0] != '\0' ? "version-id-marker" : NULL, before.next_version},
        {0}};
    visit->began_here = false;
    if (!s3_call(storage->client,
                 &(S3Request){.method = "GET",
                              .operation = "ListObjectVersions",
                              .query = query,
                              .whole_root = "ListVersionsResult",
                              .body_limit = VERSIONS_BODY_LIMIT},
                 &answer, err)) {
        if (err->kind == CAIRN_DENIED)
            cairn_error_hint(err, "listing versions needs the right s3:ListBucketVersions");
        return false;
    }
    return s3_versions_parse(answer.http.body, answer.http.body_size, visit_version, visit, page,
                             err) ||
           cairn_error_wrap(err, "list of versions of '%s' in bucket '%s'", visit->prefix,
                            s3_client_address(storage->client)->bucket);
}

/* Swift 2.30 calls every next version `null`, and goes on behind all versions of that name. */
static void
mend_marker(const Visit *visit, S3VersionPage *page)
{
    if (strcmp(page->next_key, visit->last_key) == 0 && strcmp(page->next_version, "null") == 0)
        snprintf(page->next_version, sizeof page->next_version, "%s", visit->last_version);
}

static bool
check_progress(const S3VersionPage *before, const S3VersionPage *page, CairnError *err)
{
    const int order = strcmp(page->next_key, before->next_key);
    return order > 0 || (order == 0 && strcmp(page->next_version, before->next_version) != 0) ||
           cairn_error(err, CAIRN_CORRUPT, "the store's pages come again and do not end");
}

typedef struct {
    Visit visit;
    S3VersionPage page, before, milestone;
} Walk;

/* Names only ascend; within one, a page that was seen a power of two pages ago is a circle. Pages
   without a name of ours call nobody who would notice a signal. */
static bool
walk_pages(S3Storage *storage, Walk *walk, CairnError *err)
{
    for (uint64_t pages = 1;; pages++) {
        walk->before = walk->page;
        if (!cancel_check(err) || !list_page(storage, &walk->visit, &walk->page, err))
            return false;
        if (!walk->page.truncated)
            return true;
        mend_marker(&walk->visit, &walk->page);
        if (!check_progress(&walk->before, &walk->page, err) ||
            !check_progress(&walk->milestone, &walk->page, err))
            return cairn_error_wrap(err, "list of versions of '%s'", walk->visit.prefix);
        if ((pages & (pages - 1)) == 0)
            walk->milestone = walk->page;
    }
}

bool
s3_list_versions(Storage *base, StorageVersionCallback *callback, void *context, CairnError *err)
{
    S3Storage *storage = (S3Storage *)base;
    if (!check_store(storage, err))
        return false;
    SCOPED_MEMORY Walk *walk = calloc(1, sizeof *walk);
    if (walk == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    walk->visit.callback = callback;
    walk->visit.context = context;
    walk->visit.prefix = s3_client_address(storage->client)->prefix;
    walk->visit.prefix_size = strlen(walk->visit.prefix);
    return walk_pages(storage, walk, err);
}

/* -- bringing one back */

/* "/bucket/key?versionId=id", encoded. */
static bool
write_source(const S3Storage *storage, const char *key, const char *version, ByteWriter *source,
             CairnError *err)
{
    static const char QUERY[] = "?versionId=";
    byte_writer_u8(source, '/');
    uri_encode_path(source, s3_client_address(storage->client)->bucket);
    byte_writer_u8(source, '/');
    uri_encode_path(source, key);
    byte_writer_bytes(source, QUERY, sizeof QUERY - 1);
    uri_encode_value(source, version);
    byte_writer_u8(source, '\0');
    return byte_writer_check(source, err);
}

/* There is no body whose checksum could be sent: the store is asked to make one. */
static void
checksum_algorithm(const S3Storage *storage, S3CreateHeaders *headers)
{
    const char *checksum = storage->config.s3.checksum;
    if (checksum == NULL || strcmp(checksum, "sha256") == 0)
        s3_header_add(headers, "x-amz-checksum-algorithm", "SHA256");
    else if (strcmp(checksum, "crc32c") == 0)
        s3_header_add(headers, "x-amz-checksum-algorithm", "CRC32C");
}

static bool
explain_copy(const S3Storage *storage, const S3Answer *answer, CairnError *err)
{
    if (err->kind != CAIRN_DENIED)
        return false;
    if (strcmp(answer->error.code, "InvalidObjectState") == 0)
        return cairn_error_hint(err, "a lifecycle rule has moved old versions to an archive class: "
                                     "have the store restore them from there, then heal again");
    return cairn_error_hint(err,
                            "a version is brought back with the rights s3:GetObjectVersion and "
                            "s3:PutObject%s",
                            storage->config.s3.lock_mode != NULL ? ", and s3:PutObjectRetention "
                                                                   "for its lock"
                                                                 : "");
}

static bool
copy_version(S3Storage *storage, const char *key, const char *version, CairnError *err)
{
    SCOPED_S3_ANSWER S3Answer answer = {0};
    SCOPED_BYTES ByteWriter source = {0};
    S3CreateHeaders headers = {0};
    char etag[S3_ETAG_SIZE];
    if (!write_source(storage, key, version, &source, err))
        return false;
    s3_header_add(&headers, "x-amz-copy-source", (const char *)source.data);
    s3_create_headers(storage, &headers);
    checksum_algorithm(storage, &headers);
    if (!s3_call(storage->client,
                 &(S3Request){.method = "PUT",
                              .operation = "CopyObject",
                              .key = key,
                              .headers = headers.pairs,
                              .slow_ms = COPY_SILENCE_MS,
                              .whole_root = "CopyObjectResult"},
                 &answer, err))
        return explain_copy(storage, &answer, err);
    return s3_copy_parse(answer.http.body, answer.http.body_size, etag, err);
}

bool
s3_put_back(Storage *base, const char *name, const char *version, uint64_t size_bytes,
            CairnError *err)
{
    S3Storage *storage = (S3Storage *)base;
    char key[S3_KEY_LIMIT + 1];
    uint8_t byte;
    size_t got;
    uint64_t there;
    if (!check_store(storage, err) || !s3_key(s3_client_address(storage->client), name, key, err) ||
        !copy_version(storage, key, version, err) ||
        !s3_get_range(storage, key, &byte, 1, 0, &got, &there, err))
        return false;
    return there == size_bytes ||
           cairn_error(err, CAIRN_CORRUPT,
                       "object '%s' has %" PRIu64 " bytes after a version of %" PRIu64
                       " was copied on top of it",
                       key, there, size_bytes);
}
