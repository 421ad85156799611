#include "tests/unit/support/hooked_storage.h"

#include <stdlib.h>

typedef struct {
    StorageWriter base; /* first */
    HookedStorage *storage;
    StorageWriter *inner;
} HookedWriter;

/* What is to happen with the call at hand. */
typedef enum { GO_ON, FAIL_BEFORE, FAIL_AFTER } Verdict;

static Verdict
count_call(HookedStorage *storage)
{
    if (storage->hooking)
        return GO_ON;
    storage->calls++;
    if (storage->hook != NULL) {
        storage->hooking = true;
        storage->hook(storage->context, storage->calls);
        storage->hooking = false;
    }
    if (storage->fail_at == 0 || storage->calls < storage->fail_at)
        return GO_ON;
    if (storage->calls == storage->fail_at)
        return storage->fail_after ? FAIL_AFTER : FAIL_BEFORE;
    return storage->fail_on ? FAIL_BEFORE : GO_ON;
}

static bool
fail(const HookedStorage *storage, CairnError *err)
{
    cairn_error_clear(err);
    return cairn_error(err, storage->fail_kind, "call %u fails", storage->calls);
}

#define WITH_HOOK(base, err, call)                                                                 \
    do {                                                                                           \
        HookedStorage *hooked = (HookedStorage *)(base);                                           \
        const Verdict verdict = count_call(hooked);                                                \
        if (verdict == FAIL_BEFORE)                                                                \
            return fail(hooked, err);                                                              \
        const bool done = call;                                                                    \
        return verdict == FAIL_AFTER ? fail(hooked, err) : done;                                   \
    } while (0)

static void
hooked_close(Storage *base)
{
    HookedStorage *storage = (HookedStorage *)base;
    storage_close(storage->inner);
    free(storage);
}

static uint64_t
blocks(uint64_t size)
{
    return (size + 4095) / 4096 * 4096;
}

static bool
writer_write(StorageWriter *base, const void *data, size_t size, CairnError *err)
{
    HookedWriter *writer = (HookedWriter *)base;
    if (writer->storage->is_limited && blocks(base->size_bytes + size) > writer->storage->room)
        return cairn_error(err, CAIRN_NO_SPACE, "the disk is full");
    return storage_write(writer->inner, data, size, err);
}

static bool
commit_inner(HookedWriter *writer, CairnError *err)
{
    if (!storage_commit(writer->inner, err))
        return false;
    if (writer->storage->is_limited)
        writer->storage->room -= blocks(writer->base.size_bytes);
    return true;
}

static bool
writer_commit(StorageWriter *base, CairnError *err)
{
    HookedWriter *writer = (HookedWriter *)base;
    WITH_HOOK(writer->storage, err, commit_inner(writer, err));
}

static void
writer_free(StorageWriter *base)
{
    HookedWriter *writer = (HookedWriter *)base;
    storage_writer_free(writer->inner);
    free(writer);
}

static const StorageWriterOps WRITER_OPS = {writer_write, writer_commit, writer_free};

static StorageWriter *
hooked_create(Storage *base, const char *name, CairnError *err)
{
    HookedStorage *storage = (HookedStorage *)base;
    if (count_call(storage) != GO_ON) {
        fail(storage, err);
        return NULL;
    }
    HookedWriter *writer = calloc(1, sizeof *writer);
    CAIRN_ASSERT(writer != NULL);
    writer->base.ops = &WRITER_OPS;
    writer->storage = storage;
    writer->inner = storage_create(storage->inner, name, err);
    if (writer->inner == NULL) {
        free(writer);
        return NULL;
    }
    return &writer->base;
}

static StorageReader *
hooked_open(Storage *base, const char *name, CairnError *err)
{
    HookedStorage *storage = (HookedStorage *)base;
    if (count_call(storage) != GO_ON) {
        fail(storage, err);
        return NULL;
    }
    return storage_open(storage->inner, name, err);
}

static bool
hooked_list(Storage *base, const char *prefix, StorageListCallback *callback, void *context,
            CairnError *err)
{
    WITH_HOOK(base, err,
              storage_list(((HookedStorage *)base)->inner, prefix, callback, context, err));
}

static bool
hooked_exists(Storage *base, const char *name, uint64_t *size_out, CairnError *err)
{
    WITH_HOOK(base, err, storage_exists(((HookedStorage *)base)->inner, name, size_out, err));
}

static bool
hooked_make_durable(Storage *base, const char *name, CairnError *err)
{
    WITH_HOOK(base, err, storage_make_durable(((HookedStorage *)base)->inner, name, err));
}

static bool
remove_inner(HookedStorage *storage, const char *name, CairnError *err)
{
    uint64_t size = 0;
    CairnError ignored = {0};
    const bool there = storage_exists(storage->inner, name, &size, &ignored);
    if (!storage_remove(storage->inner, name, err))
        return false;
    if (there)
        storage->room += blocks(size);
    return true;
}

static bool
hooked_remove(Storage *base, const char *name, CairnError *err)
{
    WITH_HOOK(base, err, remove_inner((HookedStorage *)base, name, err));
}

static bool
hooked_free_space(Storage *base, uint64_t *bytes_out, CairnError *err)
{
    return storage_free_space(((HookedStorage *)base)->inner, bytes_out, err);
}

static bool
hooked_sweep(Storage *base, const char *prefix, int64_t older_than_us, CairnError *err)
{
    return storage_sweep(((HookedStorage *)base)->inner, prefix, older_than_us, err);
}

static const StorageOps HOOKED_OPS = {
    .close = hooked_close,
    .create = hooked_create,
    .open = hooked_open,
    .list = hooked_list,
    .exists = hooked_exists,
    .make_durable = hooked_make_durable,
    .remove = hooked_remove,
    .free_space = hooked_free_space,
    .sweep = hooked_sweep,
};

HookedStorage *
hooked_storage_new(Storage *inner)
{
    HookedStorage *storage = calloc(1, sizeof *storage);
    CAIRN_ASSERT(storage != NULL);
    storage->base.ops = &HOOKED_OPS;
    storage->inner = inner;
    return storage;
}

void
hooked_storage_reset(HookedStorage *storage)
{
    const HookedStorage fresh = {.base = storage->base, .inner = storage->inner};
    *storage = fresh;
}

void
hooked_storage_limit(HookedStorage *storage, uint64_t room)
{
    storage->is_limited = true;
    storage->room = room;
}
