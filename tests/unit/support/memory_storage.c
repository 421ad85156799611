#include "tests/unit/support/memory_storage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char *name;
    uint8_t *data;
    size_t size;
} MemoryObject;

/* Sorted by name, so that what lies below a prefix stands together. */
typedef struct {
    Storage base; /* first */
    MemoryObject *objects;
    size_t count, capacity;
} MemoryStorage;

typedef struct {
    StorageWriter base; /* first */
    MemoryStorage *storage;
    char *name;
    uint8_t *data;
    size_t size, capacity;
} MemoryWriter;

/* Reads a copy, so that an object may be replaced while it is open. */
typedef struct {
    StorageReader base; /* first */
    uint8_t *data;
} MemoryReader;

static void *
need(void *memory)
{
    CAIRN_ASSERT(memory != NULL);
    return memory;
}

static uint8_t *
copy_of(const void *data, size_t size)
{
    uint8_t *copy = need(malloc(size + 1));
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

/* Where name is, or belongs. */
static size_t
place_of(const MemoryStorage *storage, const char *name, bool *found_out)
{
    size_t low = 0, high = storage->count;
    *found_out = false;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = strcmp(storage->objects[middle].name, name);
        if (order == 0) {
            *found_out = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static MemoryObject *
find(const Storage *base, const char *name)
{
    const MemoryStorage *storage = (const MemoryStorage *)base;
    bool found;
    const size_t place = place_of(storage, name, &found);
    return found ? &storage->objects[place] : NULL;
}

/* data is taken. */
static void
insert(MemoryStorage *storage, const char *name, uint8_t *data, size_t size)
{
    bool found;
    const size_t place = place_of(storage, name, &found);
    if (found) {
        free(storage->objects[place].data);
        storage->objects[place].data = data;
        storage->objects[place].size = size;
        return;
    }
    if (storage->count == storage->capacity) {
        storage->capacity = storage->capacity == 0 ? 64 : 2 * storage->capacity;
        storage->objects =
            need(realloc(storage->objects, storage->capacity * sizeof *storage->objects));
    }
    memmove(storage->objects + place + 1, storage->objects + place,
            (storage->count - place) * sizeof *storage->objects);
    storage->objects[place] = (MemoryObject){need(strdup(name)), data, size};
    storage->count++;
}

static void
memory_close(Storage *base)
{
    MemoryStorage *storage = (MemoryStorage *)base;
    for (size_t i = 0; i < storage->count; i++) {
        free(storage->objects[i].name);
        free(storage->objects[i].data);
    }
    free(storage->objects);
    free(storage);
}

static bool
writer_write(StorageWriter *base, const void *data, size_t size, CairnError *err)
{
    MemoryWriter *writer = (MemoryWriter *)base;
    (void)err;
    while (writer->capacity - writer->size < size) {
        writer->capacity = writer->capacity == 0 ? 4096 : 2 * writer->capacity;
        writer->data = need(realloc(writer->data, writer->capacity));
    }
    memcpy(writer->data + writer->size, data, size);
    writer->size += size;
    return true;
}

static bool
writer_commit(StorageWriter *base, CairnError *err)
{
    MemoryWriter *writer = (MemoryWriter *)base;
    if (find(&writer->storage->base, writer->name) != NULL)
        return cairn_error(err, CAIRN_CONFLICT, "object '%s' exists already", writer->name);
    insert(writer->storage, writer->name, copy_of(writer->data, writer->size), writer->size);
    return true;
}

static void
writer_free(StorageWriter *base)
{
    MemoryWriter *writer = (MemoryWriter *)base;
    free(writer->name);
    free(writer->data);
    free(writer);
}

static const StorageWriterOps WRITER_OPS = {writer_write, writer_commit, writer_free};

static StorageWriter *
memory_create(Storage *base, const char *name, CairnError *err)
{
    (void)err;
    MemoryWriter *writer = need(calloc(1, sizeof *writer));
    writer->base.ops = &WRITER_OPS;
    writer->storage = (MemoryStorage *)base;
    writer->name = need(strdup(name));
    return &writer->base;
}

static bool
reader_pread(StorageReader *base, void *data, size_t size, uint64_t offset, CairnError *err)
{
    (void)err;
    memcpy(data, ((MemoryReader *)base)->data + offset, size);
    return true;
}

static void
reader_free(StorageReader *base)
{
    MemoryReader *reader = (MemoryReader *)base;
    free(reader->data);
    free(reader);
}

static const StorageReaderOps READER_OPS = {reader_pread, reader_free};

static StorageReader *
memory_open(Storage *base, const char *name, CairnError *err)
{
    const MemoryObject *object = find(base, name);
    if (object == NULL) {
        cairn_error(err, CAIRN_NOT_FOUND, "there is no object '%s'", name);
        return NULL;
    }
    MemoryReader *reader = need(calloc(1, sizeof *reader));
    reader->base.ops = &READER_OPS;
    reader->base.size_bytes = object->size;
    reader->data = copy_of(object->data, object->size);
    return &reader->base;
}

/* Where the names below a prefix begin: they stand together. */
static size_t
first_below(const MemoryStorage *storage, const char *prefix)
{
    char low[STORAGE_NAME_LIMIT + 2];
    bool found;
    if (prefix[0] == '\0')
        return 0;
    snprintf(low, sizeof low, "%s/", prefix);
    return place_of(storage, low, &found);
}

/* Names below the prefix, collected first: callbacks may remove what they are told of. */
static bool
memory_list(Storage *base, const char *prefix, StorageListCallback *callback, void *context,
            CairnError *err)
{
    const MemoryStorage *storage = (const MemoryStorage *)base;
    const size_t prefix_size = prefix[0] == '\0' ? 0 : strlen(prefix) + 1;
    char(*names)[STORAGE_NAME_LIMIT] = NULL;
    StorageEntry *entries = NULL;
    size_t count = 0, capacity = 0;
    for (size_t i = first_below(storage, prefix); i < storage->count; i++) {
        const char *name = storage->objects[i].name;
        if (prefix_size > 0 &&
            (strncmp(name, prefix, prefix_size - 1) != 0 || name[prefix_size - 1] != '/'))
            break;
        const char *rest = name + prefix_size;
        const size_t size = strcspn(rest, "/");
        if (count > 0 && strlen(names[count - 1]) == size &&
            memcmp(names[count - 1], rest, size) == 0)
            continue; /* another object below the same component */
        if (count == capacity) {
            capacity = capacity == 0 ? 16 : 2 * capacity;
            names = need(realloc(names, capacity * sizeof *names));
            entries = need(realloc(entries, capacity * sizeof *entries));
        }
        snprintf(names[count], sizeof *names, "%.*s", (int)size, rest);
        entries[count] = (StorageEntry){.is_directory = rest[size] == '/'};
        if (!entries[count].is_directory)
            entries[count].size_bytes = storage->objects[i].size;
        count++;
    }
    StorageListNext next = STORAGE_LIST_GO_ON;
    for (size_t i = 0; i < count && next == STORAGE_LIST_GO_ON; i++) {
        entries[i].name = names[i];
        next = callback(context, &entries[i], err);
    }
    free(names);
    free(entries);
    return next != STORAGE_LIST_FAILED;
}

static bool
memory_exists(Storage *base, const char *name, uint64_t *size_out, CairnError *err)
{
    const MemoryObject *object = find(base, name);
    if (object == NULL)
        return cairn_error(err, CAIRN_NOT_FOUND, "there is no object '%s'", name);
    *size_out = object->size;
    return true;
}

static bool
memory_make_durable(Storage *base, const char *name, CairnError *err)
{
    uint64_t size;
    return memory_exists(base, name, &size, err);
}

static bool
memory_remove(Storage *base, const char *name, CairnError *err)
{
    (void)err;
    MemoryStorage *storage = (MemoryStorage *)base;
    bool found;
    const size_t place = place_of(storage, name, &found);
    if (!found)
        return true;
    free(storage->objects[place].name);
    free(storage->objects[place].data);
    storage->count--;
    memmove(storage->objects + place, storage->objects + place + 1,
            (storage->count - place) * sizeof *storage->objects);
    return true;
}

static bool
memory_free_space(Storage *base, uint64_t *bytes_out, CairnError *err)
{
    (void)base;
    (void)err;
    *bytes_out = UINT64_MAX;
    return true;
}

/* Writers keep their bytes to themselves until commit: there is nothing to sweep. */
static bool
memory_sweep(Storage *base, const char *prefix, int64_t older_than_us, CairnError *err)
{
    (void)base;
    (void)prefix;
    (void)older_than_us;
    (void)err;
    return true;
}

static const StorageOps MEMORY_OPS = {
    .close = memory_close,
    .create = memory_create,
    .open = memory_open,
    .list = memory_list,
    .exists = memory_exists,
    .make_durable = memory_make_durable,
    .remove = memory_remove,
    .free_space = memory_free_space,
    .sweep = memory_sweep,
};

Storage *
memory_storage_new(void)
{
    MemoryStorage *storage = need(calloc(1, sizeof *storage));
    storage->base.ops = &MEMORY_OPS;
    return &storage->base;
}

uint8_t *
memory_storage_bytes(Storage *storage, const char *name, size_t *size_out)
{
    MemoryObject *object = find(storage, name);
    *size_out = object != NULL ? object->size : 0;
    return object != NULL ? object->data : NULL;
}

void
memory_storage_replace(Storage *storage, const char *name, const void *data, size_t size)
{
    insert((MemoryStorage *)storage, name, copy_of(data, size), size);
}

size_t
memory_storage_count(const Storage *storage)
{
    return ((const MemoryStorage *)storage)->count;
}
