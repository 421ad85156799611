#include "storage/storage.h"

#include <string.h>

static bool
component_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

bool
storage_name_valid(const char *name)
{
    size_t length = 0;
    bool at_start = true; /* of a component */
    for (; name[length] != '\0'; length++) {
        if (length >= STORAGE_NAME_LIMIT)
            return false;
        const char c = name[length];
        if (c == '/') {
            if (at_start)
                return false;
            at_start = true;
            continue;
        }
        if (!component_char(c) || (at_start && c == '.'))
            return false;
        at_start = false;
    }
    return length > 0 && !at_start;
}

static bool
check_name(const char *name, CairnError *err)
{
    if (!storage_name_valid(name))
        return cairn_error(err, CAIRN_USAGE, "'%.200s' is not a valid object name", name);
    return true;
}

static bool
check_prefix(const char *prefix, CairnError *err)
{
    return prefix[0] == '\0' || check_name(prefix, err);
}

void
storage_close(Storage *storage)
{
    if (storage != NULL)
        storage->ops->close(storage);
}

StorageWriter *
storage_create(Storage *storage, const char *name, CairnError *err)
{
    if (!check_name(name, err))
        return NULL;
    StorageWriter *writer = storage->ops->create(storage, name, err);
    CAIRN_ASSERT(writer == NULL || (writer->size_bytes == 0 && !writer->finished));
    return writer;
}

bool
storage_write(StorageWriter *writer, const void *data, size_t size, CairnError *err)
{
    if (writer->finished)
        return cairn_error(err, CAIRN_INTERNAL, "a finished object is written to");
    if (size == 0)
        return true;
    if (!writer->ops->write(writer, data, size, err)) {
        writer->finished = true; /* what is on disk is unknown: never to be committed */
        return false;
    }
    writer->size_bytes += size;
    return true;
}

bool
storage_commit(StorageWriter *writer, CairnError *err)
{
    if (writer->finished)
        return cairn_error(err, CAIRN_INTERNAL, "a finished object is committed");
    writer->finished = true;
    return writer->ops->commit(writer, err);
}

void
storage_writer_free(StorageWriter *writer)
{
    if (writer != NULL)
        writer->ops->free(writer);
}

bool
storage_put(Storage *storage, const char *name, const void *data, size_t size, CairnError *err)
{
    SCOPED(StorageWriter) writer = storage_create(storage, name, err);
    return writer != NULL && storage_write(writer, data, size, err) && storage_commit(writer, err);
}

StorageReader *
storage_open(Storage *storage, const char *name, CairnError *err)
{
    if (!check_name(name, err))
        return NULL;
    return storage->ops->open(storage, name, err);
}

bool
storage_pread(StorageReader *reader, void *data, size_t size, uint64_t offset, CairnError *err)
{
    if (offset > reader->size_bytes || size > reader->size_bytes - offset)
        return cairn_error(err, CAIRN_CORRUPT, "object is shorter than expected: %llu bytes",
                           (unsigned long long)reader->size_bytes);
    if (size == 0)
        return true;
    return reader->ops->pread(reader, data, size, offset, err);
}

void
storage_reader_free(StorageReader *reader)
{
    if (reader != NULL)
        reader->ops->free(reader);
}

uint8_t *
storage_get(Storage *storage, const char *name, size_t limit, size_t *size_out, CairnError *err)
{
    SCOPED(StorageReader) reader = storage_open(storage, name, err);
    if (reader == NULL)
        return NULL;
    if (reader->size_bytes > limit) {
        cairn_error(err, CAIRN_CORRUPT, "object '%s' is larger than its limit of %zu bytes", name,
                    limit);
        return NULL;
    }
    const size_t size = (size_t)reader->size_bytes;
    SCOPED_MEMORY uint8_t *data = malloc(size > 0 ? size : 1);
    if (data == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    if (!storage_pread(reader, data, size, 0, err))
        return NULL;
    *size_out = size;
    return take(&data);
}

bool
storage_list_with_gone(Storage *storage, const char *prefix, StorageListCallback *callback,
                       void *context, CairnError *err)
{
    return check_prefix(prefix, err) && storage->ops->list(storage, prefix, callback, context, err);
}

typedef struct {
    StorageListCallback *callback;
    void *context;
} ListThere;

static StorageListNext
list_there(void *context, const StorageEntry *entry, CairnError *err)
{
    const ListThere *list = context;
    return entry->is_gone ? STORAGE_LIST_GO_ON : list->callback(list->context, entry, err);
}

bool
storage_list(Storage *storage, const char *prefix, StorageListCallback *callback, void *context,
             CairnError *err)
{
    ListThere list = {callback, context};
    return storage_list_with_gone(storage, prefix, list_there, &list, err);
}

bool
storage_exists(Storage *storage, const char *name, uint64_t *size_out, CairnError *err)
{
    return check_name(name, err) && storage->ops->exists(storage, name, size_out, err);
}

bool
storage_make_durable(Storage *storage, const char *name, CairnError *err)
{
    return check_name(name, err) && storage->ops->make_durable(storage, name, err);
}

bool
storage_remove(Storage *storage, const char *name, CairnError *err)
{
    return check_name(name, err) && storage->ops->remove(storage, name, err);
}

static bool
remove_each(Storage *storage, const char *const *names, size_t count, bool *gone_out,
            CairnError *denied_out, CairnError *err)
{
    for (size_t i = 0; i < count; i++) {
        gone_out[i] = storage->ops->remove(storage, names[i], err);
        if (gone_out[i])
            continue;
        if (err->kind != CAIRN_DENIED)
            return false;
        if (denied_out->kind == CAIRN_OK)
            *denied_out = *err;
        cairn_error_clear(err);
    }
    return true;
}

bool
storage_remove_many(Storage *storage, const char *const *names, size_t count, bool *gone_out,
                    CairnError *denied_out, CairnError *err)
{
    CAIRN_ASSERT(count <= STORAGE_REMOVE_LIMIT && denied_out->kind == CAIRN_OK);
    for (size_t i = 0; i < count; i++) {
        if (!check_name(names[i], err))
            return false;
    }
    return count < 2 || storage->ops->remove_many == NULL
               ? remove_each(storage, names, count, gone_out, denied_out, err)
               : storage->ops->remove_many(storage, names, count, gone_out, denied_out, err);
}

bool
storage_free_space(Storage *storage, uint64_t *bytes_out, CairnError *err)
{
    return storage->ops->free_space(storage, bytes_out, err);
}

bool
storage_sweep(Storage *storage, const char *prefix, int64_t older_than_us, CairnError *err)
{
    return check_prefix(prefix, err) && storage->ops->sweep(storage, prefix, older_than_us, err);
}

bool
storage_prune(Storage *storage, const char *prefix, CairnError *err)
{
    return check_name(prefix, err) &&
           (storage->ops->prune == NULL || storage->ops->prune(storage, prefix, err));
}

int
storage_requests_at_once(Storage *storage)
{
    return storage->ops->requests_at_once != NULL ? storage->ops->requests_at_once(storage) : 1;
}

bool
storage_is_local(Storage *storage)
{
    return storage->ops->is_local != NULL && storage->ops->is_local(storage);
}

bool
storage_needs_probe(Storage *storage)
{
    return storage->ops->probe != NULL;
}

bool
storage_probe(Storage *storage, StorageProbe *probe_out, CairnError *err)
{
    CAIRN_ASSERT(storage->ops->probe != NULL);
    return storage->ops->probe(storage, probe_out, err);
}

bool
storage_creates_exclusively(Storage *storage)
{
    return storage->ops->creates_exclusively == NULL || storage->ops->creates_exclusively(storage);
}

bool
storage_is_create_only(Storage *storage)
{
    return storage->ops->is_create_only != NULL && storage->ops->is_create_only(storage);
}

StorageMemory
storage_memory(Storage *storage)
{
    return storage->ops->memory != NULL ? storage->ops->memory(storage) : (StorageMemory){0};
}

void
storage_set_patience(Storage *storage, int64_t patience_ms)
{
    if (storage->ops->set_patience != NULL)
        storage->ops->set_patience(storage, patience_ms);
}

static bool
keeps_versions(const Storage *storage, CairnError *err)
{
    return storage->ops->list_versions != NULL ||
           cairn_error(err, CAIRN_UNSUPPORTED, "this storage keeps no versions of its objects");
}

bool
storage_list_versions(Storage *storage, StorageVersionCallback *callback, void *context,
                      CairnError *err)
{
    return keeps_versions(storage, err) &&
           storage->ops->list_versions(storage, callback, context, err);
}

StorageReader *
storage_open_version(Storage *storage, const char *name, const char *version, CairnError *err)
{
    if (!check_name(name, err) || !keeps_versions(storage, err))
        return NULL;
    return storage->ops->open_version(storage, name, version, err);
}

bool
storage_put_back(Storage *storage, const char *name, const char *version, uint64_t size_bytes,
                 CairnError *err)
{
    return check_name(name, err) && keeps_versions(storage, err) &&
           storage->ops->put_back(storage, name, version, size_bytes, err);
}

StorageLockTerms
storage_lock_terms(Storage *storage)
{
    return storage->ops->lock_terms != NULL ? storage->ops->lock_terms(storage)
                                            : (StorageLockTerms){0};
}

bool
storage_ensure_lock(Storage *storage, const char *name, int64_t left_us, StorageLock *lock_out,
                    CairnError *err)
{
    CAIRN_ASSERT(storage->ops->ensure_lock != NULL && storage_lock_terms(storage).mode != NULL);
    return check_name(name, err) &&
           storage->ops->ensure_lock(storage, name, left_us, lock_out, err);
}
