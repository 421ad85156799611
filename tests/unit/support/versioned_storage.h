/*
 * A Storage in memory that keeps versions, as a bucket does: what is removed or overwritten stays
 * behind what is there, and can be listed, read and brought back. Removing leaves a deletion, also
 * of what was not there.
 *
 * Ownership: storage_close frees everything. Threads: reading, removing and bringing back may be
 * done by several.
 */
#ifndef PGCAIRN_TESTS_VERSIONED_STORAGE_H
#define PGCAIRN_TESTS_VERSIONED_STORAGE_H

#include "storage/storage.h"

#include <pthread.h>

typedef struct {
    char name[STORAGE_NAME_LIMIT + 1];
    char version[16];
    int64_t at_us;
    uint8_t *data; /* owned; NULL: a deletion */
    size_t size;
} VersionedRow;

typedef struct {
    Storage base;          /* first */
    Storage *inner;        /* what is there now */
    const int64_t *now_us; /* borrowed: the clock of what happens from now on */
    pthread_mutex_t mutex;
    VersionedRow *rows; /* as a listing has them */
    size_t count, capacity;
    unsigned number;
    const char *denied; /* names that begin so cannot be brought back; NULL: none */
    CairnErrorKind denied_as;
    bool list_fails; /* at its end */
} VersionedStorage;

VersionedStorage *versioned_storage_new(const int64_t *now_us);
/* Puts an object in place of what may be there, as anybody may who has the right to write. */
void versioned_storage_put(VersionedStorage *storage, const char *name, const void *data,
                           size_t size);
void versioned_storage_remove(VersionedStorage *storage, const char *name);
/* Its versions before this moment are removed for good. */
void versioned_storage_forget(VersionedStorage *storage, const char *name);

#endif
