#include "repository/object_locks.h"

#include "common/cancel.h"
#include "common/queue.h"
#include "repository/pack.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Below a prefix of ours nothing lies deeper; a listing is in memory at each level. */
enum { QUEUE_CAPACITY = 256, LEVELS_LIMIT = 4 };

typedef struct {
    bool listed; /* and not named by anything that needs it */
    char name[];
} Item;

struct ObjectLocks {
    Storage *storage;
    ObjectLocksOptions options;
    Queue *queue;
    pthread_t threads[OBJECT_LOCKS_JOBS_LIMIT];
    int thread_count;
    pthread_mutex_t mutex; /* guards the rest */
    ObjectLockCounts counts;
    uint64_t denied;   /* of counts.failed */
    bool given_up;     /* nobody asks for what is still in the queue */
    CairnError failed; /* ends the run */
};

/* -- one object */

/* Under the mutex. */
static void
note_lock(ObjectLocks *locks, const char *name, const StorageLock *lock)
{
    ObjectLockCounts *counts = &locks->counts;
    const bool would =
        locks->options.only_ask && lock->until_us < lock->now_us + locks->options.left_us;
    if (counts->asked == 0 || lock->until_us < counts->earliest_us) {
        counts->earliest_us = lock->until_us;
        snprintf(counts->earliest, sizeof counts->earliest, "%s", name);
    }
    counts->asked++;
    counts->renewed += lock->renewed || would ? 1 : 0;
}

/* Under the mutex. Refusals of everything, and a store in trouble, are not worth as many requests
   as there are objects. */
static void
note_failure(ObjectLocks *locks, const Item *item, const CairnError *err)
{
    ObjectLockCounts *counts = &locks->counts;
    if (err->kind == CAIRN_NOT_FOUND) {
        /* What was listed a moment ago, somebody has deleted meanwhile: a collector takes WAL. */
        if (!item->listed && counts->missing++ == 0)
            snprintf(counts->first_missing, sizeof counts->first_missing, "%s", item->name);
        return;
    }
    if (counts->failed++ == 0)
        counts->failure = *err;
    locks->denied += err->kind == CAIRN_DENIED ? 1 : 0;
    if (err->kind == CAIRN_UNAVAILABLE ||
        (locks->denied >= OBJECT_LOCKS_DENIED_LIMIT && counts->renewed == 0))
        locks->given_up = true;
}

static bool
is_fatal(const CairnError *err)
{
    return err->kind == CAIRN_CANCELLED || err->kind == CAIRN_INTERNAL;
}

/* False: the run ends. */
static bool
look_at(ObjectLocks *locks, const Item *item)
{
    const int64_t left_us = locks->options.only_ask ? 0 : locks->options.left_us;
    StorageLock lock;
    CairnError err = {0};
    pthread_mutex_lock(&locks->mutex);
    const bool given_up = locks->given_up;
    locks->counts.unasked += given_up ? 1 : 0;
    pthread_mutex_unlock(&locks->mutex);
    if (given_up)
        return true;
    const bool done = storage_ensure_lock(locks->storage, item->name, left_us, &lock, &err);
    pthread_mutex_lock(&locks->mutex);
    const bool fatal = !done && is_fatal(&err);
    if (done)
        note_lock(locks, item->name, &lock);
    else if (!fatal)
        note_failure(locks, item, &err);
    else if (locks->failed.kind == CAIRN_OK)
        locks->failed = err;
    pthread_mutex_unlock(&locks->mutex);
    return !fatal;
}

static void *
work(void *context)
{
    ObjectLocks *locks = context;
    for (;;) {
        SCOPED_MEMORY Item *item = queue_pop(locks->queue);
        if (item == NULL)
            return NULL;
        if (look_at(locks, item))
            continue;
        queue_cancel(locks->queue);
        return NULL;
    }
}

/* -- many */

ObjectLocks *
object_locks_begin(Storage *storage, const ObjectLocksOptions *options, CairnError *err)
{
    int jobs = options->jobs > 0 ? options->jobs : OBJECT_LOCKS_JOBS_DEFAULT;
    if (jobs > OBJECT_LOCKS_JOBS_LIMIT)
        jobs = OBJECT_LOCKS_JOBS_LIMIT;
    ObjectLocks *locks = calloc(1, sizeof *locks);
    if (locks == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    locks->storage = storage;
    locks->options = *options;
    CAIRN_ASSERT(pthread_mutex_init(&locks->mutex, NULL) == 0);
    locks->queue = queue_new(QUEUE_CAPACITY, free, err);
    int error = 0;
    while (locks->queue != NULL && locks->thread_count < jobs && error == 0) {
        error = pthread_create(&locks->threads[locks->thread_count], NULL, work, locks);
        locks->thread_count += error == 0 ? 1 : 0;
    }
    if (locks->thread_count > 0) /* fewer are slower, no more */
        return locks;
    if (err->kind == CAIRN_OK) {
        errno = error;
        cairn_error_errno(err, "unable to start a thread");
    }
    object_locks_free(locks);
    return NULL;
}

static void
join(ObjectLocks *locks)
{
    for (int i = 0; i < locks->thread_count; i++)
        pthread_join(locks->threads[i], NULL);
    locks->thread_count = 0;
}

/* After the queue was cancelled. */
static bool
explain(ObjectLocks *locks, CairnError *err)
{
    pthread_mutex_lock(&locks->mutex);
    const CairnError failed = locks->failed;
    pthread_mutex_unlock(&locks->mutex);
    if (failed.kind == CAIRN_OK)
        return cairn_error(err, CAIRN_INTERNAL, "a queue was closed too early");
    *err = failed;
    return false;
}

static bool
add(ObjectLocks *locks, const char *name, bool listed, CairnError *err)
{
    const size_t size = strlen(name) + 1;
    if (!cancel_check(err))
        return false;
    SCOPED_MEMORY Item *item = malloc(sizeof *item + size);
    if (item == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    item->listed = listed;
    memcpy(item->name, name, size);
    if (!queue_push(locks->queue, item))
        return explain(locks, err);
    item = NULL; /* taken */
    return true;
}

bool
object_locks_add(ObjectLocks *locks, const char *name, CairnError *err)
{
    return add(locks, name, false, err);
}

bool
object_locks_add_packs(ObjectLocks *locks, const char *cluster, const PackSet *packs,
                       CairnError *err)
{
    char name[STORAGE_NAME_LIMIT];
    for (size_t i = 0; i < packs->count; i++) {
        const PackRange *range = &packs->ranges[i];
        for (uint32_t n = 0; n < range->pack_count; n++) {
            (range->is_map ? map_pack_name : pack_name)(name, cluster, &range->creator,
                                                        range->first_pack + n);
            if (!object_locks_add(locks, name, err))
                return false;
        }
    }
    return true;
}

typedef struct {
    ObjectLocks *locks;
    const char *prefix;
    int levels; /* of directories to go down */
} Below;

static bool add_below(ObjectLocks *locks, const char *prefix, int levels, CairnError *err);

static StorageListNext
add_entry(void *context, const StorageEntry *entry, CairnError *err)
{
    const Below *below = context;
    char name[STORAGE_NAME_LIMIT];
    const int size = snprintf(name, sizeof name, "%s/%s", below->prefix, entry->name);
    if (size < 0 || (size_t)size >= sizeof name)
        return STORAGE_LIST_GO_ON; /* no name of ours is so long */
    if (entry->is_directory && below->levels == 0)
        return STORAGE_LIST_GO_ON;
    const bool added = entry->is_directory ? add_below(below->locks, name, below->levels - 1, err)
                                           : add(below->locks, name, true, err);
    return added ? STORAGE_LIST_GO_ON : STORAGE_LIST_FAILED;
}

static bool
add_below(ObjectLocks *locks, const char *prefix, int levels, CairnError *err)
{
    Below below = {.locks = locks, .prefix = prefix, .levels = levels};
    return storage_list(locks->storage, prefix, add_entry, &below, err);
}

bool
object_locks_add_below(ObjectLocks *locks, const char *prefix, bool deep, CairnError *err)
{
    return add_below(locks, prefix, deep ? LEVELS_LIMIT : 0, err);
}

bool
object_locks_finish(ObjectLocks *locks, ObjectLockCounts *counts_out, CairnError *err)
{
    queue_close(locks->queue);
    join(locks);
    if (locks->failed.kind != CAIRN_OK) {
        *err = locks->failed;
        return false;
    }
    *counts_out = locks->counts;
    return true;
}

void
object_locks_free(ObjectLocks *locks)
{
    if (locks == NULL)
        return;
    if (locks->queue != NULL)
        queue_cancel(locks->queue);
    join(locks);
    queue_free(locks->queue);
    pthread_mutex_destroy(&locks->mutex);
    free(locks);
}

void
object_locks_join(ObjectLockCounts *counts, const ObjectLockCounts *more)
{
    if (more->asked > 0 && (counts->asked == 0 || more->earliest_us < counts->earliest_us)) {
        counts->earliest_us = more->earliest_us;
        memcpy(counts->earliest, more->earliest, sizeof counts->earliest);
    }
    if (counts->failed == 0)
        counts->failure = more->failure;
    if (counts->missing == 0)
        memcpy(counts->first_missing, more->first_missing, sizeof counts->first_missing);
    counts->asked += more->asked;
    counts->renewed += more->renewed;
    counts->failed += more->failed;
    counts->unasked += more->unasked;
    counts->missing += more->missing;
}

uint64_t
object_locks_unproven(const ObjectLockCounts *counts)
{
    return counts->failed + counts->unasked + counts->missing;
}

uint64_t
object_locks_all(const ObjectLockCounts *counts)
{
    return counts->asked + object_locks_unproven(counts);
}
