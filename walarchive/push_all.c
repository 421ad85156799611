#include "walarchive/push_all.h"

#include "common/cancel.h"
#include "walarchive/watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One repository's part. */
typedef struct {
    struct Shared *shared;
    WalPush push;
    bool owns_kept;
    bool finished; /* under the mutex; the rest is then the waiting thread's */
    WalPushedOne one;
} Part;

/* On the heap, since a thread that hangs may outlive the call. Then the last thread frees it. */
typedef struct Shared {
    const World *world;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool abandoned; /* under the mutex */
    Part parts[CONFIG_REPOSITORIES_LIMIT];
    size_t count;
    char *path;
} Shared;

static void
free_shared(Shared *shared)
{
    for (size_t i = 0; i < shared->count; i++) {
        if (shared->parts[i].owns_kept)
            push_kept_free(shared->parts[i].push.kept);
    }
    pthread_cond_destroy(&shared->ended);
    pthread_mutex_destroy(&shared->mutex);
    free(shared->path);
    free(shared);
}

/* Under the mutex. */
static bool
are_finished(const Shared *shared, bool required)
{
    for (size_t i = 0; i < shared->count; i++) {
        if (shared->parts[i].one.required == required && !shared->parts[i].finished)
            return false;
    }
    return true;
}

static void *
push_part(void *context)
{
    Part *part = context;
    Shared *shared = part->shared;

    part->one.done = wal_push(shared->world, &part->push, &part->one.pushed, &part->one.err);
    pthread_mutex_lock(&shared->mutex);
    part->finished = true;
    pthread_cond_signal(&shared->ended);
    const bool last =
        shared->abandoned && are_finished(shared, true) && are_finished(shared, false);
    pthread_mutex_unlock(&shared->mutex);
    if (last)
        free_shared(shared);
    return NULL;
}

/* Signals stay the first thread's (watchdog.h). What gets no thread is not pushed. */
static void
start_part(Part *part)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failure = pthread_attr_init(&attributes);
    if (failure == 0) {
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        failure = pthread_create(&thread, &attributes, push_part, part);
        pthread_attr_destroy(&attributes);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure != 0) {
        errno = failure;
        cairn_error_errno(&part->one.err, "unable to start a thread");
        part->finished = true;
    }
}

static void
add_ms(struct timespec *time, int64_t ms)
{
    time->tv_sec += ms / 1000;
    time->tv_nsec += ms % 1000 * 1000000;
    if (time->tv_nsec >= 1000000000) {
        time->tv_sec++;
        time->tv_nsec -= 1000000000;
    }
}

/* Required ones without a limit: the watchdog has one. */
static void
wait_for_parts(Shared *shared, int64_t patience_ms)
{
    struct timespec limit;
    int waited = 0;

    pthread_mutex_lock(&shared->mutex);
    while (!are_finished(shared, true))
        pthread_cond_wait(&shared->ended, &shared->mutex);
    clock_gettime(CLOCK_MONOTONIC, &limit);
    add_ms(&limit, patience_ms);
    while (waited == 0 && !are_finished(shared, false))
        waited = pthread_cond_timedwait(&shared->ended, &shared->mutex, &limit);
    pthread_mutex_unlock(&shared->mutex);
}

/* Where none is required, all are: an answer must rest on something. */
static void
mark_required(Shared *shared)
{
    bool any = false;

    for (size_t i = 0; i < shared->count; i++)
        any |= shared->parts[i].one.required =
            repository_is_required(shared->parts[i].push.repository);
    for (size_t i = 0; i < shared->count; i++) {
        shared->parts[i].one.required |= !any;
        shared->parts[i].push.is_optional = !shared->parts[i].one.required;
        if (!shared->parts[i].one.required)
            shared->parts[i].push.overflow_path = NULL;
    }
}

/* Each has something kept: what waits in overflow-path is shipped when all have their answer. */
static Shared *
new_shared(const World *world, const WalPushAll *all, CairnError *err)
{
    pthread_condattr_t attributes;
    Shared *shared = calloc(1, sizeof *shared);
    char *path = strdup(all->pushes[0].path);

    if (shared == NULL || path == NULL || pthread_condattr_init(&attributes) != 0) {
        free(shared);
        free(path);
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&shared->ended, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&shared->mutex, NULL);
    shared->world = world;
    shared->path = path;
    for (size_t i = 0; i < all->count; i++) {
        Part *part = &shared->parts[shared->count++];
        *part = (Part){.shared = shared, .push = all->pushes[i]};
        part->push.path = path;
        part->push.ship_later = true;
        part->one.repository = part->push.repository->name;
        part->owns_kept = part->push.kept == NULL;
        if (part->owns_kept && (part->push.kept = push_kept_new(err)) == NULL) {
            free_shared(shared);
            return NULL;
        }
    }
    mark_required(shared);
    return shared;
}

/* Trouble with shipping is told beside what the push itself had to tell. */
static void
ship(Shared *shared, const WalPushAll *all)
{
    for (size_t i = 0; i < shared->count; i++) {
        Part *part = &shared->parts[i];
        WalPushed shipped;

        if (all->pushes[i].ship_later || !part->one.done || part->one.pushed.trouble[0] != '\0')
            continue;
        wal_push_ship(shared->world, &part->push, &shipped);
        part->one.pushed.shipped = shipped.shipped;
        memcpy(part->one.pushed.trouble, shipped.trouble, sizeof shipped.trouble);
    }
}

static void
give_results(Shared *shared, WalPushedAll *pushed_out)
{
    pthread_mutex_lock(&shared->mutex);
    pushed_out->count = shared->count;
    for (size_t i = 0; i < shared->count; i++) {
        const Part *part = &shared->parts[i];
        WalPushedOne *one = &pushed_out->ones[i];

        if (part->finished) {
            *one = part->one;
            continue;
        }
        *one = (WalPushedOne){.repository = part->one.repository, .left_behind = true};
        cairn_error(&one->err, CAIRN_UNAVAILABLE,
                    "it still gave no answer when the required ones had been waiting for it");
        pushed_out->left_behind = shared->abandoned = true;
    }
    pthread_mutex_unlock(&shared->mutex);
}

/* Those that hang: the next calls need not wait for them. */
static void
note_left_behind(const World *world, const WalPushAll *all, const WalPushedAll *pushed)
{
    for (size_t i = 0; i < pushed->count; i++) {
        if (pushed->ones[i].left_behind)
            wal_push_note_absence(world, &all->pushes[i], &pushed->ones[i].err);
    }
}

static bool
judge(const WalPushedAll *pushed, CairnError *err)
{
    for (size_t i = 0; i < pushed->count; i++) {
        const WalPushedOne *one = &pushed->ones[i];

        if (one->done || !one->required)
            continue;
        *err = one->err;
        return cairn_error_wrap(err, "repository '%s'", one->repository);
    }
    return true;
}

static bool
push_single(const World *world, const WalPush *push, WalPushedAll *pushed_out, CairnError *err)
{
    WalPushedOne *one = &pushed_out->ones[0];

    pushed_out->count = 1;
    one->repository = push->repository->name;
    one->required = true; /* the only one: there is no other to have it */
    one->done = wal_push(world, push, &one->pushed, err);
    if (!one->done)
        one->err = *err;
    return one->done;
}

bool
wal_push_all(const World *world, const WalPushAll *all, WalPushedAll *pushed_out, CairnError *err)
{
    CAIRN_ASSERT(all->count > 0 && all->count <= CONFIG_REPOSITORIES_LIMIT);
    *pushed_out = (WalPushedAll){0};
    if (all->count == 1)
        return push_single(world, &all->pushes[0], pushed_out, err);
    Shared *shared = new_shared(world, all, err);
    if (shared == NULL)
        return false;
    for (size_t i = 0; i < shared->count; i++)
        start_part(&shared->parts[i]);
    wait_for_parts(shared, all->patience_ms > 0 ? all->patience_ms : PUSH_OPTIONAL_PATIENCE_MS);
    give_results(shared, pushed_out);
    const bool done = judge(pushed_out, err);
    if (pushed_out->left_behind) {
        note_left_behind(world, all, pushed_out);
        return done; /* a thread still uses what is shared */
    }
    if (done && !all->pushes[0].ship_later) {
        /* A call of its own: a hung overflow-path must not take the file's answer with it. */
        watchdog_answer(0);
        ship(shared, all);
        give_results(shared, pushed_out);
    }
    free_shared(shared);
    return done;
}
