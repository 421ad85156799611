/*
 * Bytes of open objects that were fetched ahead: windows, the ones used longest ago are dropped.
 *
 * Memory: S3_CACHE_BYTES, whatever the number of open objects. Threads: any.
 */
#ifndef PGCAIRN_STORAGE_S3_READ_CACHE_H
#define PGCAIRN_STORAGE_S3_READ_CACHE_H

#include "common/error.h"
#include "common/scoped.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { S3_CACHE_BYTES = 6 << 20, S3_CACHE_WINDOWS = 128 };

typedef struct S3ReadCache S3ReadCache;
S3ReadCache *s3_read_cache_new(CairnError *err) MUST_CHECK;
void s3_read_cache_free(S3ReadCache *cache);
SCOPED_TYPE(S3ReadCache, s3_read_cache_free);

/* True when one window of `owner` holds all of it: copied. */
bool s3_read_cache_get(S3ReadCache *cache, const void *owner, void *data, size_t size,
                       uint64_t offset);
/* data is malloc'ed, and taken. */
void s3_read_cache_put(S3ReadCache *cache, const void *owner, uint8_t *data, size_t size,
                       uint64_t offset);
/* The owner is closed. */
void s3_read_cache_drop(S3ReadCache *cache, const void *owner);

#endif
