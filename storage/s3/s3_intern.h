/*
 * Shared by the files that together are the storage driver. Nobody else includes this.
 */
#ifndef PGCAIRN_STORAGE_S3_INTERN_H
#define PGCAIRN_STORAGE_S3_INTERN_H

#include "common/arena.h"
#include "storage/s3/read_cache.h"
#include "storage/s3/request.h"
#include "storage/storage.h"

#include <stdatomic.h>

/*
 * What a writer gathers before it sends: an object up to this size is one PutObject, whose
 * If-None-Match decides who created it; a larger one is a multipart upload in parts of this size. A
 * segment of 16 MiB fits at its worst; 10,000 parts are 195 GiB.
 */
enum { S3_PART_SIZE = 20 << 20, S3_PARTS_LIMIT = 10000 };

typedef struct {
    Storage base; /* first */
    const World *world;
    Arena *arena; /* of the configuration's copy */
    RepositoryConfig config;
    S3Client *client;
    S3ReadCache *cache;
    bool one_writer;        /* writers = one: no conditional create is asked for */
    atomic_bool one_by_one; /* DeleteObjects is not understood here */
} S3Storage;

/* -- reading (reader.c) */

StorageReader *s3_open(Storage *base, const char *name, CairnError *err);
StorageReader *s3_open_version(Storage *base, const char *name, const char *version,
                               CairnError *err);
bool s3_exists(Storage *base, const char *name, uint64_t *size_out, CairnError *err);

/* [offset, offset + size) of an object into data, exactly; *total_out is the object's size. At
   offset 0 it may be shorter: *size_out. NOT_FOUND is proven. */
bool s3_get_range(S3Storage *storage, const char *key, void *data, size_t size, uint64_t offset,
                  size_t *size_out, uint64_t *total_out, CairnError *err);

/* -- headers of what is created (headers.c) */

/* And where their values live. All zero to begin with. */
enum { S3_CREATE_HEADERS_LIMIT = 10, S3_LOCK_TIME_SIZE = 32 };
typedef struct {
    S3Pair pairs[S3_CREATE_HEADERS_LIMIT + 1]; /* the last one has no name */
    size_t count;
    char checksum[64];
    char retain_until[S3_LOCK_TIME_SIZE];
} S3CreateHeaders;

void s3_header_add(S3CreateHeaders *headers, const char *name, const char *value);
/* Storage class, encryption, lock: what PutObject and CreateMultipartUpload have in common. */
void s3_create_headers(const S3Storage *storage, S3CreateHeaders *headers);
/* Content-MD5 or x-amz-checksum-*, as configured. digest: SHA-256 of the data. for_part: of an
   upload. */
bool s3_checksum_header(const S3Storage *storage, const void *data, size_t size,
                        const uint8_t *digest, bool for_part, S3CreateHeaders *headers,
                        CairnError *err);
/* Content-MD5, whatever is configured: some requests need it everywhere. */
bool s3_md5_header(const void *data, size_t size, S3CreateHeaders *headers, CairnError *err);
/* If-None-Match, or what the store has for it; nothing where there is only one writer. */
void s3_condition_header(const S3Storage *storage, S3CreateHeaders *headers);

/* -- writing (writer.c, upload.c) */

StorageWriter *s3_create(Storage *base, const char *name, CairnError *err);

typedef struct S3Upload S3Upload;

S3Upload *s3_upload_begin(S3Storage *storage, const char *key, CairnError *err);
bool s3_upload_part(S3Upload *upload, const void *data, size_t size, const uint8_t *digest,
                    CairnError *err);
/* CONFLICT when the name is taken by other content. */
bool s3_upload_complete(S3Upload *upload, CairnError *err);
void s3_upload_free(S3Upload *upload); /* not complete: aborted */
SCOPED_TYPE(S3Upload, s3_upload_free);
/* Anybody's upload. Gone already is success. */
bool s3_upload_abort(S3Storage *storage, const char *key, const char *id, bool one_attempt,
                     CairnError *err);

/* -- object lock (lock.c) */

/* "2026-11-22T23:31:40Z", as headers and documents of locks have it. */
void s3_lock_time(int64_t time_us, char text[S3_LOCK_TIME_SIZE]);
/* "GOVERNANCE" or "COMPLIANCE", and when a lock that begins now ends; a mode is configured. */
const char *s3_lock_mode(const S3Storage *storage);
int64_t s3_lock_horizon_us(const S3Storage *storage);

StorageLockTerms s3_lock_terms(Storage *base);
bool s3_ensure_lock(Storage *base, const char *name, int64_t left_us, StorageLock *lock_out,
                    CairnError *err);

/* -- deleting (remove.c) */

bool s3_remove(Storage *base, const char *name, CairnError *err);
bool s3_remove_key(S3Storage *storage, const char *key, CairnError *err);
bool s3_remove_many(Storage *base, const char *const *names, size_t count, bool *gone_out,
                    CairnError *denied_out, CairnError *err);

/* -- names (list.c) */

bool s3_list(Storage *base, const char *prefix, StorageListCallback *callback, void *context,
             CairnError *err);
bool s3_sweep(Storage *base, const char *prefix, int64_t older_than_us, CairnError *err);

/* -- versions (versions.c) */

bool s3_list_versions(Storage *base, StorageVersionCallback *callback, void *context,
                      CairnError *err);
bool s3_put_back(Storage *base, const char *name, const char *version, uint64_t size_bytes,
                 CairnError *err);

/* -- what the store really does (probe.c) */

bool s3_probe(Storage *base, StorageProbe *probe_out, CairnError *err);

#endif
