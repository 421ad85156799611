/*
 * What S3 answers about versions, as structs: ListObjectVersions and CopyObject. As answers.h:
 * CORRUPT for another document or one that lacks what must be there; an <Error> has its own kind.
 * Threads: any.
 */
#ifndef PGCAIRN_STORAGE_S3_VERSION_ANSWERS_H
#define PGCAIRN_STORAGE_S3_VERSION_ANSWERS_H

#include "storage/s3/answers.h"
#include "storage/storage.h"

typedef struct {
    const char *key;     /* decoded */
    const char *version; /* at most STORAGE_VERSION_LIMIT bytes */
    const char *etag;    /* without quotes; "" for none */
    bool is_marker;      /* a DeleteMarker: no etag, no size */
    bool is_latest;
    uint64_t size_bytes;
    int64_t modified_us;
} S3VersionEntry;

typedef bool S3VersionCallback(void *context, const S3VersionEntry *entry, CairnError *err);

/* Where the next page begins. */
typedef struct {
    bool truncated;
    char next_key[S3_KEY_LIMIT + 1]; /* decoded; not "" when truncated */
    char next_version[STORAGE_VERSION_LIMIT + 1];
} S3VersionPage;

/* Versions and delete markers in the order of the document. */
bool s3_versions_parse(const void *data, size_t size, S3VersionCallback *callback, void *context,
                       S3VersionPage *page_out, CairnError *err) MUST_CHECK;

/* The new version's ETag. */
bool s3_copy_parse(const void *data, size_t size, char etag_out[S3_ETAG_SIZE],
                   CairnError *err) MUST_CHECK;

/* Equal ones are of equal content: MD5 of an object, or that of its parts' MD5s, as every store
   writes it. */
bool s3_etag_is_digest(const char *etag);

#endif
