/*
 * What S3 and STS answer in XML, as structs. Bodies come whole (they are bounded by xml.h).
 *
 * Every function refuses (CORRUPT) another document than the one it is named for, and one that
 * lacks what must be there; when the document is an <Error>, the failure has the kind of
 * s3_error_kind and its code and message (a 200 may carry one: CompleteMultipartUpload does).
 * Texts from the store are untrusted: in messages of ours they are cut and have no control
 * characters. Source of the formats: the S3 and STS API references. Threads: any.
 */
#ifndef PGCAIRN_STORAGE_S3_ANSWERS_H
#define PGCAIRN_STORAGE_S3_ANSWERS_H

#include "common/error.h"
#include "storage/s3/credentials.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    char code[64];     /* "NoSuchKey"; "" when the body was no <Error> */
    char message[384]; /* printable */
    char region[64];   /* where the bucket is, when the store says so */
    char request_id[128];
} S3Error;

/* False, and empty texts, when the body is no <Error> document. Never fails: it is the failure. */
bool s3_error_parse(const void *data, size_t size, S3Error *error_out);

/* The kind for a refused request: what the caller may do. code may be "". 404 is NOT_FOUND only
   for NoSuchKey, NotFound or no code at all: NoSuchBucket is USAGE. */
CairnErrorKind s3_error_kind(int status, const char *code);
/* Worth asking again, the same way: 500, 502, 503, 504, 429, 408, SlowDown, ... */
bool s3_error_is_transient(int status, const char *code);
/* The clock of this host is off (adopt the store's Date), or temporary credentials ran out. */
bool s3_error_is_clock(const char *code);
bool s3_error_is_expired(const char *code);
/* Refused for the credentials themselves: others may have taken their place. */
bool s3_error_is_about_keys(const char *code);

enum { S3_KEY_LIMIT = 1024 }; /* bytes of a key, by S3's own rule */

typedef struct {
    const char *key; /* decoded; of a common prefix: with its last '/' */
    bool is_prefix;
    uint64_t size_bytes; /* of an object */
    int64_t modified_us; /* of an object */
} S3ListEntry;

typedef bool S3ListCallback(void *context, const S3ListEntry *entry, CairnError *err);

typedef struct {
    bool truncated;
    char *next_token; /* malloc'ed, returned owned; not NULL when truncated */
} S3ListPage;

/* ListObjectsV2. Keys are decoded when the answer says EncodingType url. */
bool s3_list_parse(const void *data, size_t size, S3ListCallback *callback, void *context,
                   S3ListPage *page_out, CairnError *err) MUST_CHECK;

/* DeleteObjects, asked quietly or not: the callback sees what was not deleted. */
typedef bool S3DeleteCallback(void *context, const char *key, const S3Error *error,
                              CairnError *err);
bool s3_delete_parse(const void *data, size_t size, S3DeleteCallback *callback, void *context,
                     CairnError *err) MUST_CHECK;

enum { S3_UPLOAD_ID_SIZE = 2048, S3_ETAG_SIZE = 256 };

/* CreateMultipartUpload and CompleteMultipartUpload. */
bool s3_upload_parse(const void *data, size_t size, char upload_id_out[S3_UPLOAD_ID_SIZE],
                     CairnError *err) MUST_CHECK;
bool s3_complete_parse(const void *data, size_t size, char etag_out[S3_ETAG_SIZE],
                       CairnError *err) MUST_CHECK;

typedef struct {
    const char *key;
    const char *upload_id;
    int64_t initiated_us;
} S3UploadEntry;

typedef bool S3UploadCallback(void *context, const S3UploadEntry *entry, CairnError *err);

/* ListMultipartUploads: one page; next markers "" when it is the last. */
typedef struct {
    bool truncated;
    char next_key[S3_KEY_LIMIT + 1];
    char next_upload_id[S3_UPLOAD_ID_SIZE];
} S3UploadPage;

bool s3_uploads_parse(const void *data, size_t size, S3UploadCallback *callback, void *context,
                      S3UploadPage *page_out, CairnError *err) MUST_CHECK;

/* GetObjectRetention. */
typedef struct {
    bool is_compliance; /* else governance */
    int64_t until_us;
} S3Retention;

bool s3_retention_parse(const void *data, size_t size, S3Retention *retention_out,
                        CairnError *err) MUST_CHECK;

/* STS AssumeRoleWithWebIdentity. */
bool sts_credentials_parse(const void *data, size_t size, S3Credentials *credentials_out,
                           CairnError *err) MUST_CHECK;

/* "2026-11-22T23:31:40.000Z", as S3, STS and the metadata service write times. */
bool s3_time_parse(const char *text, int64_t *time_us_out) MUST_CHECK;

#endif
