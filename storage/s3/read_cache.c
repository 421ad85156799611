#include "storage/s3/read_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const void *owner; /* NULL: free */
    uint64_t offset;
    size_t size;
    uint8_t *data;
    uint64_t used; /* the clock when it was last read */
} Window;

struct S3ReadCache {
    pthread_mutex_t mutex;
    size_t bytes;
    uint64_t clock;
    Window windows[S3_CACHE_WINDOWS];
};

S3ReadCache *
s3_read_cache_new(CairnError *err)
{
    S3ReadCache *cache = calloc(1, sizeof *cache);
    if (cache == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    CAIRN_ASSERT(pthread_mutex_init(&cache->mutex, NULL) == 0);
    return cache;
}

static void
drop(S3ReadCache *cache, Window *window)
{
    free(window->data);
    cache->bytes -= window->size;
    *window = (Window){0};
}

void
s3_read_cache_free(S3ReadCache *cache)
{
    if (cache == NULL)
        return;
    for (size_t i = 0; i < S3_CACHE_WINDOWS; i++)
        free(cache->windows[i].data);
    pthread_mutex_destroy(&cache->mutex);
    free(cache);
}

bool
s3_read_cache_get(S3ReadCache *cache, const void *owner, void *data, size_t size, uint64_t offset)
{
    bool found = false;
    pthread_mutex_lock(&cache->mutex);
    for (size_t i = 0; i < S3_CACHE_WINDOWS && !found; i++) {
        Window *window = &cache->windows[i];
        if (window->owner != owner || offset < window->offset ||
            offset - window->offset > window->size ||
            size > window->size - (size_t)(offset - window->offset))
            continue;
        memcpy(data, window->data + (offset - window->offset), size);
        window->used = ++cache->clock;
        found = true;
    }
    pthread_mutex_unlock(&cache->mutex);
    return found;
}

/* A free window, or the one used longest ago, made free. */
static Window *
oldest(S3ReadCache *cache, bool in_use)
{
    Window *found = NULL;
    for (size_t i = 0; i < S3_CACHE_WINDOWS; i++) {
        Window *window = &cache->windows[i];
        if (window->owner == NULL) {
            if (!in_use)
                return window;
        } else if (found == NULL || window->used < found->used) {
            found = window;
        }
    }
    if (found != NULL)
        drop(cache, found);
    return found;
}

void
s3_read_cache_put(S3ReadCache *cache, const void *owner, uint8_t *data, size_t size,
                  uint64_t offset)
{
    CAIRN_ASSERT(size <= S3_CACHE_BYTES);
    pthread_mutex_lock(&cache->mutex);
    while (cache->bytes + size > S3_CACHE_BYTES)
        oldest(cache, true);
    Window *window = oldest(cache, false);
    *window = (Window){owner, offset, size, data, ++cache->clock};
    cache->bytes += size;
    pthread_mutex_unlock(&cache->mutex);
}

void
s3_read_cache_drop(S3ReadCache *cache, const void *owner)
{
    pthread_mutex_lock(&cache->mutex);
    for (size_t i = 0; i < S3_CACHE_WINDOWS; i++) {
        if (cache->windows[i].owner == owner)
            drop(cache, &cache->windows[i]);
    }
    pthread_mutex_unlock(&cache->mutex);
}
