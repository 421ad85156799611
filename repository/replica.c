#include "repository/replica.h"

#include "repository/copy_object.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    Storage base;
    Storage *inner;
} ReplicaStorage;

static Storage *
inner_of(Storage *storage)
{
    return ((ReplicaStorage *)storage)->inner;
}

static const char *
stored_name(const char *name)
{
    return strcmp(name, DESCRIPTOR_NAME) == 0 ? REPLICA_DESCRIPTOR : name;
}

static bool
refuse(const char *name, CairnError *err)
{
    cairn_error(err, CAIRN_REFUSED, "'%s' is not written: the repository is a read-only replica",
                name);
    return cairn_error_hint(err, "only `pgcairn repo copy` adds to a replica; when it is to take "
                                 "its original's place: `pgcairn repo promote`");
}

static void
replica_close(Storage *storage)
{
    storage_close(inner_of(storage));
    free(storage);
}

static StorageWriter *
replica_create(Storage *storage, const char *name, CairnError *err)
{
    (void)storage;
    const bool refused = !refuse(name, err);
    CAIRN_ASSERT(refused);
    return NULL;
}

static StorageReader *
replica_open(Storage *storage, const char *name, CairnError *err)
{
    return storage_open(inner_of(storage), stored_name(name), err);
}

static bool
replica_list(Storage *storage, const char *prefix, StorageListCallback *callback, void *context,
             CairnError *err)
{
    return storage_list(inner_of(storage), prefix, callback, context, err);
}

static bool
replica_exists(Storage *storage, const char *name, uint64_t *size_out, CairnError *err)
{
    return storage_exists(inner_of(storage), stored_name(name), size_out, err);
}

static bool
replica_make_durable(Storage *storage, const char *name, CairnError *err)
{
    return storage_make_durable(inner_of(storage), stored_name(name), err);
}

static bool
replica_remove(Storage *storage, const char *name, CairnError *err)
{
    (void)storage;
    return refuse(name, err);
}

static bool
replica_free_space(Storage *storage, uint64_t *bytes_out, CairnError *err)
{
    return storage_free_space(inner_of(storage), bytes_out, err);
}

static bool
replica_sweep(Storage *storage, const char *prefix, int64_t older_than_us, CairnError *err)
{
    (void)storage;
    (void)older_than_us;
    return refuse(prefix, err);
}

static bool
replica_prune(Storage *storage, const char *prefix, CairnError *err)
{
    (void)storage;
    return refuse(prefix, err);
}

static bool
replica_is_local(Storage *storage)
{
    return storage_is_local(inner_of(storage));
}

static StorageMemory
replica_memory(Storage *storage)
{
    return storage_memory(inner_of(storage));
}

static void
replica_set_patience(Storage *storage, int64_t patience_ms)
{
    storage_set_patience(inner_of(storage), patience_ms);
}

static StorageLockTerms
replica_lock_terms(Storage *storage)
{
    return storage_lock_terms(inner_of(storage));
}

/* Writes nothing: what is there stays for longer. */
static bool
replica_ensure_lock(Storage *storage, const char *name, int64_t left_us, StorageLock *lock_out,
                    CairnError *err)
{
    return storage_ensure_lock(inner_of(storage), stored_name(name), left_us, lock_out, err);
}

static int
replica_requests_at_once(Storage *storage)
{
    return storage_requests_at_once(inner_of(storage));
}

static const StorageOps OPS = {
    .close = replica_close,
    .create = replica_create,
    .open = replica_open,
    .list = replica_list,
    .exists = replica_exists,
    .make_durable = replica_make_durable,
    .remove = replica_remove,
    .free_space = replica_free_space,
    .sweep = replica_sweep,
    .prune = replica_prune,
    .is_local = replica_is_local,
    .memory = replica_memory,
    .set_patience = replica_set_patience,
    .lock_terms = replica_lock_terms,
    .ensure_lock = replica_ensure_lock,
    .requests_at_once = replica_requests_at_once,
};

Storage *
replica_storage(Storage *inner, CairnError *err)
{
    ReplicaStorage *storage = calloc(1, sizeof *storage);

    if (storage == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    *storage = (ReplicaStorage){.base = {.ops = &OPS}, .inner = inner};
    return &storage->base;
}

static bool
is_there(Storage *storage, const char *name, bool *there_out, CairnError *err)
{
    uint64_t size;

    *there_out = storage_exists(storage, name, &size, err);
    if (!*there_out && err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err);
    return true;
}

bool
replica_look(Storage *storage, PlaceKind *kind_out, CairnError *err)
{
    bool repository, replica = false;

    if (!is_there(storage, DESCRIPTOR_NAME, &repository, err) ||
        (!repository && !is_there(storage, REPLICA_DESCRIPTOR, &replica, err)))
        return false;
    *kind_out = repository ? PLACE_REPOSITORY : replica ? PLACE_REPLICA : PLACE_EMPTY;
    return true;
}

bool
replica_promote(Storage *storage, bool *existed_out, CairnError *err)
{
    bool replica;
    CopyObject copy = {.from = storage,
                       .to = storage,
                       .from_name = REPLICA_DESCRIPTOR,
                       .to_name = DESCRIPTOR_NAME,
                       .name = DESCRIPTOR_NAME};

    if (!is_there(storage, REPLICA_DESCRIPTOR, &replica, err))
        return false;
    if (!replica) {
        cairn_error(err, CAIRN_REFUSED, "there is no replica");
        return cairn_error_hint(err, "`pgcairn repo copy` makes one; a repository that is none "
                                     "needs no promotion");
    }
    if (!copy_object(&copy, err))
        return false;
    *existed_out = copy.existed;
    return true;
}
