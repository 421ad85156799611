/*
 * The storage driver for a bucket of an S3 object store.
 *
 * An object is one key: prefix + "/" + name. Created once: `If-None-Match: *` (Google: generation
 * 0), or with writers = one by looking first, which only holds while one host writes. Success means
 * that the store said so and, where an answer was lost, that what is there is what we sent. Nothing
 * is durable half: an upload that was not completed is invisible, and swept later.
 *
 * Requests: create 1 (an object beyond 20 MiB: 4 and 1 for each 20 MiB); open 1; a read of what was
 * not fetched ahead 1; exists, remove 1; list 1 for each thousand names.
 * Memory: a writer holds its object up to 20 MiB (S3_PART_SIZE), all readers together 6 MiB
 * (S3_CACHE_BYTES). Errors: NOT_FOUND is the store's own NoSuchKey, never a bare 404. Threads: as
 * storage.h says; at most 64 requests at once.
 */
#ifndef PGCAIRN_STORAGE_S3_S3_H
#define PGCAIRN_STORAGE_S3_S3_H

#include "common/config.h"
#include "storage/storage.h"

/* config was checked by storage_config_check; it is copied. Asks nothing of the store. */
Storage *s3_storage_open(const World *world, const RepositoryConfig *config,
                         CairnError *err) MUST_CHECK;

#endif
