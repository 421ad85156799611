#include "storage/s3/s3.h"

#include "storage/s3/s3_intern.h"

#include <string.h>

static const StorageOps S3_OPS;

static void
s3_close(Storage *base)
{
    S3Storage *storage = (S3Storage *)base;
    s3_read_cache_free(storage->cache);
    s3_client_free(storage->client);
    arena_free(storage->arena);
    free(storage);
}

Storage *
s3_storage_open(const World *world, const RepositoryConfig *config, CairnError *err)
{
    SCOPED(Storage) result = NULL;
    S3Storage *storage = calloc(1, sizeof *storage);
    if (storage == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    storage->base.ops = &S3_OPS;
    storage->world = world;
    storage->arena = arena_new();
    storage->config = repository_config_copy(storage->arena, config);
    result = &storage->base;

    const char *writers = storage->config.s3.writers;
    storage->one_writer = writers != NULL && strcmp(writers, "one") == 0;
    storage->cache = s3_read_cache_new(err);
    if (storage->cache == NULL)
        return NULL;
    storage->client = s3_client_new(world, &storage->config.s3, err);
    return storage->client == NULL ? NULL : take(&result);
}

/* What has an answer is durable. */
static bool
s3_make_durable(Storage *base, const char *name, CairnError *err)
{
    uint64_t size;
    return s3_exists(base, name, &size, err);
}

/* Nobody can say. */
static bool
s3_free_space(Storage *base, uint64_t *bytes_out, CairnError *err)
{
    (void)base, (void)err;
    *bytes_out = UINT64_MAX;
    return true;
}

static bool
s3_creates_exclusively(Storage *base)
{
    return !((S3Storage *)base)->one_writer;
}

static StorageMemory
s3_memory(Storage *base)
{
    (void)base;
    return (StorageMemory){.writer_bytes = S3_PART_SIZE, .reader_bytes = S3_CACHE_BYTES};
}

static void
s3_set_patience(Storage *base, int64_t patience_ms)
{
    s3_client_set_patience(((S3Storage *)base)->client, patience_ms);
}

/* Of the 64 that the client allows; a single host's stores are busy with less. */
static int
s3_requests_at_once(Storage *base)
{
    (void)base;
    return 8;
}

static const StorageOps S3_OPS = {
    .close = s3_close,
    .create = s3_create,
    .open = s3_open,
    .list = s3_list,
    .exists = s3_exists,
    .make_durable = s3_make_durable,
    .remove = s3_remove,
    .remove_many = s3_remove_many,
    .free_space = s3_free_space,
    .sweep = s3_sweep,
    .probe = s3_probe,
    .creates_exclusively = s3_creates_exclusively,
    .memory = s3_memory,
    .set_patience = s3_set_patience,
    .requests_at_once = s3_requests_at_once,
    .list_versions = s3_list_versions,
    .open_version = s3_open_version,
    .put_back = s3_put_back,
    .lock_terms = s3_lock_terms,
    .ensure_lock = s3_ensure_lock,
};
