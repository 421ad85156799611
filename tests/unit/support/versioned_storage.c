#include "tests/unit/support/versioned_storage.h"

#include "tests/unit/support/memory_storage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    StorageWriter base; /* first */
    VersionedStorage *storage;
    StorageWriter *inner;
    char name[STORAGE_NAME_LIMIT + 1];
} VersionedWriter;

typedef struct {
    StorageReader base; /* first */
    uint8_t data[];
} VersionedReader;

static void *
need(void *memory)
{
    CAIRN_ASSERT(memory != NULL);
    return memory;
}

/* In front of the versions that the name has. data NULL: a deletion. */
static void
add_row(VersionedStorage *storage, const char *name, const void *data, size_t size)
{
    size_t place = 0;
    while (place < storage->count && strcmp(storage->rows[place].name, name) < 0)
        place++;
    if (storage->count == storage->capacity) {
        storage->capacity = 2 * storage->capacity + 64;
        storage->rows = need(reallocarray(storage->rows, storage->capacity, sizeof *storage->rows));
    }
    memmove(&storage->rows[place + 1], &storage->rows[place],
            (storage->count++ - place) * sizeof *storage->rows);
    VersionedRow *row = &storage->rows[place];
    *row = (VersionedRow){.at_us = *storage->now_us / 1000000 * 1000000, .size = size};
    snprintf(row->name, sizeof row->name, "%s", name);
    snprintf(row->version, sizeof row->version, "v%u", ++storage->number);
    if (data == NULL)
        return;
    row->data = need(malloc(size + 1));
    memcpy(row->data, data, size);
}

static const VersionedRow *
find_row(const VersionedStorage *storage, const char *name, const char *version)
{
    for (size_t i = 0; i < storage->count; i++) {
        const VersionedRow *row = &storage->rows[i];
        if (strcmp(row->name, name) == 0 && strcmp(row->version, version) == 0)
            return row;
    }
    return NULL;
}

static void
lock(VersionedStorage *storage)
{
    pthread_mutex_lock(&storage->mutex);
}

static void
unlock(VersionedStorage *storage)
{
    pthread_mutex_unlock(&storage->mutex);
}

void
versioned_storage_put(VersionedStorage *storage, const char *name, const void *data, size_t size)
{
    lock(storage);
    memory_storage_replace(storage->inner, name, data, size);
    add_row(storage, name, data, size);
    unlock(storage);
}

static bool
versioned_remove(Storage *base, const char *name, CairnError *err)
{
    VersionedStorage *storage = (VersionedStorage *)base;
    lock(storage);
    const bool removed = storage_remove(storage->inner, name, err);
    if (removed)
        add_row(storage, name, NULL, 0);
    unlock(storage);
    return removed;
}

void
versioned_storage_remove(VersionedStorage *storage, const char *name)
{
    CairnError err = {0};
    CAIRN_ASSERT(versioned_remove(&storage->base, name, &err));
}

void
versioned_storage_forget(VersionedStorage *storage, const char *name)
{
    size_t kept = 0;
    for (size_t i = 0; i < storage->count; i++) {
        VersionedRow *row = &storage->rows[i];
        if (strcmp(row->name, name) == 0 && row->data != NULL)
            free(row->data);
        else
            storage->rows[kept++] = *row;
    }
    storage->count = kept;
}

/* -- creating */

static bool
writer_write(StorageWriter *base, const void *data, size_t size, CairnError *err)
{
    return storage_write(((VersionedWriter *)base)->inner, data, size, err);
}

static bool
writer_commit(StorageWriter *base, CairnError *err)
{
    VersionedWriter *writer = (VersionedWriter *)base;
    VersionedStorage *storage = writer->storage;
    size_t size = 0;
    lock(storage);
    const bool done = storage_commit(writer->inner, err);
    if (done) {
        const uint8_t *data = memory_storage_bytes(storage->inner, writer->name, &size);
        add_row(storage, writer->name, need((void *)data), size);
    }
    unlock(storage);
    return done;
}

static void
writer_free(StorageWriter *base)
{
    storage_writer_free(((VersionedWriter *)base)->inner);
    free(base);
}

static StorageWriter *
versioned_create(Storage *base, const char *name, CairnError *err)
{
    static const StorageWriterOps OPS = {writer_write, writer_commit, writer_free};
    VersionedStorage *storage = (VersionedStorage *)base;
    StorageWriter *inner = storage_create(storage->inner, name, err);
    if (inner == NULL)
        return NULL;
    VersionedWriter *writer = need(calloc(1, sizeof *writer));
    *writer = (VersionedWriter){.base.ops = &OPS, .storage = storage, .inner = inner};
    snprintf(writer->name, sizeof writer->name, "%s", name);
    return &writer->base;
}

/* -- versions */

static bool
reader_pread(StorageReader *base, void *data, size_t size, uint64_t offset, CairnError *err)
{
    (void)err;
    memcpy(data, ((VersionedReader *)base)->data + offset, size);
    return true;
}

static void
reader_free(StorageReader *base)
{
    free(base);
}

static StorageReader *
versioned_open_version(Storage *base, const char *name, const char *version, CairnError *err)
{
    static const StorageReaderOps OPS = {reader_pread, reader_free};
    VersionedStorage *storage = (VersionedStorage *)base;
    VersionedReader *reader = NULL;
    lock(storage);
    const VersionedRow *row = find_row(storage, name, version);
    if (row != NULL && row->data != NULL) {
        reader = need(malloc(sizeof *reader + row->size));
        reader->base = (StorageReader){.ops = &OPS, .size_bytes = row->size};
        memcpy(reader->data, row->data, row->size);
    }
    unlock(storage);
    if (reader != NULL)
        return &reader->base;
    cairn_error(err, CAIRN_NOT_FOUND, "'%s' has no version '%s'", name, version);
    return NULL;
}

/* What is brought back meanwhile belongs to a later listing; nothing is removed meanwhile. */
static bool
versioned_list_versions(Storage *base, StorageVersionCallback *callback, void *context,
                        CairnError *err)
{
    VersionedStorage *storage = (VersionedStorage *)base;
    lock(storage);
    const size_t count = storage->count;
    VersionedRow *rows = need(calloc(count + 1, sizeof *rows));
    if (count > 0)
        memcpy(rows, storage->rows, count * sizeof *rows);
    unlock(storage);
    bool good = true;
    for (size_t i = 0; good && i < count; i++) {
        const StorageVersion version = {.name = rows[i].name,
                                        .version = rows[i].version,
                                        .digest = "",
                                        .is_deletion = rows[i].data == NULL,
                                        .size_bytes = rows[i].size,
                                        .created_us = rows[i].at_us};
        good = callback(context, &version, err);
    }
    free(rows);
    return good &&
           (!storage->list_fails || cairn_error(err, CAIRN_UNAVAILABLE, "the list broke off"));
}

static bool
versioned_put_back(Storage *base, const char *name, const char *version, uint64_t size_bytes,
                   CairnError *err)
{
    VersionedStorage *storage = (VersionedStorage *)base;
    if (storage->denied != NULL && strncmp(name, storage->denied, strlen(storage->denied)) == 0)
        return cairn_error(err, storage->denied_as, "'%s' cannot be brought back", name);
    lock(storage);
    const VersionedRow row = *(const VersionedRow *)need((void *)find_row(storage, name, version));
    CAIRN_ASSERT(row.data != NULL && row.size == size_bytes);
    memory_storage_replace(storage->inner, name, row.data, row.size);
    add_row(storage, name, row.data, row.size);
    unlock(storage);
    return true;
}

/* -- what is there */

static StorageReader *
versioned_open(Storage *base, const char *name, CairnError *err)
{
    VersionedStorage *storage = (VersionedStorage *)base;
    lock(storage);
    StorageReader *reader = storage_open(storage->inner, name, err);
    unlock(storage);
    return reader;
}

static bool
versioned_list(Storage *base, const char *prefix, StorageListCallback *callback, void *context,
               CairnError *err)
{
    return storage_list(((VersionedStorage *)base)->inner, prefix, callback, context, err);
}

static bool
versioned_exists(Storage *base, const char *name, uint64_t *size_out, CairnError *err)
{
    return storage_exists(((VersionedStorage *)base)->inner, name, size_out, err);
}

static bool
versioned_make_durable(Storage *base, const char *name, CairnError *err)
{
    return storage_make_durable(((VersionedStorage *)base)->inner, name, err);
}

static bool
versioned_free_space(Storage *base, uint64_t *bytes_out, CairnError *err)
{
    return storage_free_space(((VersionedStorage *)base)->inner, bytes_out, err);
}

static bool
versioned_sweep(Storage *base, const char *prefix, int64_t older_than_us, CairnError *err)
{
    return storage_sweep(((VersionedStorage *)base)->inner, prefix, older_than_us, err);
}

/* Nothing of its listings is ever old. */
static bool
versioned_is_local(Storage *base)
{
    (void)base;
    return true;
}

static void
versioned_close(Storage *base)
{
    VersionedStorage *storage = (VersionedStorage *)base;
    for (size_t i = 0; i < storage->count; i++)
        free(storage->rows[i].data);
    free(storage->rows);
    storage_close(storage->inner);
    pthread_mutex_destroy(&storage->mutex);
    free(storage);
}

VersionedStorage *
versioned_storage_new(const int64_t *now_us)
{
    static const StorageOps OPS = {.close = versioned_close,
                                   .create = versioned_create,
                                   .open = versioned_open,
                                   .list = versioned_list,
                                   .exists = versioned_exists,
                                   .make_durable = versioned_make_durable,
                                   .remove = versioned_remove,
                                   .free_space = versioned_free_space,
                                   .sweep = versioned_sweep,
                                   .is_local = versioned_is_local,
                                   .list_versions = versioned_list_versions,
                                   .open_version = versioned_open_version,
                                   .put_back = versioned_put_back};
    VersionedStorage *storage = need(calloc(1, sizeof *storage));
    storage->base.ops = &OPS;
    storage->inner = memory_storage_new();
    storage->now_us = now_us;
    pthread_mutex_init(&storage->mutex, NULL);
    return storage;
}
