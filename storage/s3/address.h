/*
 * Where a bucket is: from the [repository] section to URL, Host header and key.
 *
 * Pure. The section was checked by storage_config_check (storage/s3_config.h). Threads: any.
 */
#ifndef PGCAIRN_STORAGE_S3_ADDRESS_H
#define PGCAIRN_STORAGE_S3_ADDRESS_H

#include "common/config.h"
#include "common/error.h"
#include "storage/s3/answers.h"

enum { S3_HOST_SIZE = 512, S3_BASE_SIZE = 640, S3_PATH_SIZE = S3_KEY_LIMIT + 512 };

typedef struct {
    char host[S3_HOST_SIZE];   /* for the Host header: with the bucket in front of it in virtual
                                  style, with the port when it is not the scheme's own */
    char base[S3_BASE_SIZE];   /* "https://" and that */
    char bucket[256];          /* "" in the paths of virtual style */
    bool in_path;              /* path style */
    char prefix[S3_KEY_LIMIT]; /* of all keys: "" or "some/where/" */
} S3Address;

bool s3_address(const S3Config *config, S3Address *address_out, CairnError *err) MUST_CHECK;

/* The key of an object, or of a prefix when it ends in '/'; USAGE when too long. key holds
 * S3_KEY_LIMIT + 1 bytes. */
bool s3_key(const S3Address *address, const char *name, char *key, CairnError *err) MUST_CHECK;
/* Not encoded: "/bucket/key" or "/key". key NULL: the bucket itself. path holds S3_PATH_SIZE. */
void s3_path(const S3Address *address, const char *key, char *path);

#endif
