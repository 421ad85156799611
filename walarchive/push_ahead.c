/*
 * Pushing ahead: several threads take what is ready, in the server's order.
 *
 * Invariants
 * 1. Every file is pushed as push does it, the data directory's identity file read first.
 * 2. It is remembered only after it is durable, and while its name's lock is held.
 * 3. Nothing behind a .history file is begun before that is remembered.
 * 4. A file that cannot be stored is begun once. After a failure of the repository or of a history
 *    file nothing new is begun.
 */
#include "common/cancel.h"
#include "repository/identity.h"
#include "walarchive/data_directory.h"
#include "walarchive/push_intern.h"
#include "walarchive/ready_list.h"
#include "walarchive/spool_lock.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    IDLE_MS = 1000,
    RESCAN_MS = 20,
    FAILED_LIMIT = 16,
    STACK_SIZE = 256 << 10,
    SHIP_LIMIT = 16, /* files of overflow-path at a time: what becomes ready goes first */
};

static const int64_t LIFE_MS = INT64_C(300) * 1000;
/* What is remembered ahead of the server, in bytes of WAL. */
static const uint64_t AHEAD_BYTES_LIMIT = UINT64_C(2) << 30;

/* Shared by the threads. */
typedef struct {
    const World *world;
    const WalPush *push;
    int pgdata_fd;
    Repository *repository;
    Spool *spool;
    int64_t life_limit_ms;

    pthread_mutex_t mutex; /* guards the rest */
    ReadyList ready;
    size_t next; /* in ready */
    int64_t scanned_ms;
    char failed[FAILED_LIMIT][WAL_FILE_NAME_LIMIT]; /* each for a reason of its own */
    size_t failed_count;
    bool shipping; /* a thread is at overflow-path, or there is nothing to do there any more */
    bool stopped;
    CairnError failure; /* the first one that was about no single file */
} Ahead;

static int64_t
now_ms(const World *world)
{
    return world->clock->monotonic_ns(world->clock) / 1000000;
}

static bool
is_still_ready(void *context, const char *file_name)
{
    const Ahead *ahead = context;

    return ready_list_holds(ahead->world, ahead->pgdata_fd, file_name);
}

/* What the server has taken note of need not be remembered any longer. */
static bool
scan(Ahead *ahead, CairnError *err)
{
    ahead->scanned_ms = now_ms(ahead->world);
    ahead->next = 0;
    ahead->ready.count = 0;
    spool_sweep(ahead->spool, is_still_ready, ahead);
    return ready_list_read(ahead->world, ahead->pgdata_fd, &ahead->ready, err);
}

static bool
is_history(const char *name)
{
    return strchr(name, '.') != NULL && strcmp(strchr(name, '.'), ".history") == 0;
}

/* How far ahead of the server: names, but not more than a number of bytes. */
static size_t
window(const Ahead *ahead, uint64_t segment_size)
{
    const uint64_t by_size = AHEAD_BYTES_LIMIT / (segment_size > 0 ? segment_size : 1);

    return by_size < ahead->ready.count ? (size_t)by_size + 1 : ahead->ready.count;
}

static bool
has_failed(const Ahead *ahead, const char *name)
{
    for (size_t i = 0; i < ahead->failed_count; i++) {
        if (strcmp(ahead->failed[i], name) == 0)
            return true;
    }
    return false;
}

/* The next name that is neither remembered nor in anybody's hands, its lock taken. */
static bool
pick(Ahead *ahead, uint64_t segment_size, char name_out[WAL_FILE_NAME_LIMIT], SpoolLock *lock_out)
{
    CairnError err = {0};
    bool found = false;

    pthread_mutex_lock(&ahead->mutex);
    if (!ahead->stopped && ahead->next >= window(ahead, segment_size) &&
        now_ms(ahead->world) - ahead->scanned_ms >= RESCAN_MS && !scan(ahead, &err)) {
        ahead->stopped = true;
        ahead->failure = err;
    }
    while (!ahead->stopped && !found && ahead->next < window(ahead, segment_size)) {
        const char *name = ahead->ready.names[ahead->next];
        CairnError lock_error = {0};

        if (spool_has(ahead->spool, name) || has_failed(ahead, name)) {
            ahead->next++;
            continue;
        }
        found = spool_lock_try(ahead->spool, name, lock_out, &lock_error);
        if (found)
            snprintf(name_out, WAL_FILE_NAME_LIMIT, "%s", name);
        if (!found && is_history(name)) /* it stays next until it is durable */
            break;
        if (!found || !is_history(name))
            ahead->next++;
    }
    pthread_mutex_unlock(&ahead->mutex);
    return found;
}

static bool
push_file(Ahead *ahead, WalPlace *place, const char *name, CairnError *err)
{
    char path[WAL_FILE_NAME_LIMIT + sizeof "pg_wal/"];
    SCOPED_WAL_SOURCE source = {.fd = -1};
    WalPushed pushed = {0};

    snprintf(path, sizeof path, "pg_wal/%s", name);
    return identity_may_archive(ahead->world, ahead->pgdata_fd, ahead->push->cluster, err) &&
           wal_source_open(&source, ahead->world, ahead->pgdata_fd, ahead->pgdata_fd, path, err) &&
           wal_place_open(place, &source, err) &&
           (wal_place_holds(place, &source) || wal_place_put(place, &source, true, &pushed, err));
}

/* Also when a file was pushed but cannot be remembered: then there is nothing to gain. */
static void
stop(Ahead *ahead)
{
    pthread_mutex_lock(&ahead->mutex);
    ahead->stopped = true;
    pthread_mutex_unlock(&ahead->mutex);
}

/* About this one file, so that those behind it may well be stored. */
static bool
is_its_own_fault(const char *name, const CairnError *err)
{
    return !is_history(name) && (err->kind == CAIRN_CONFLICT || err->kind == CAIRN_MISMATCH ||
                                 err->kind == CAIRN_CORRUPT || err->kind == CAIRN_NOT_FOUND);
}

static void
note_failure(Ahead *ahead, const char *name, const CairnError *err)
{
    pthread_mutex_lock(&ahead->mutex);
    if (is_its_own_fault(name, err) && ahead->failed_count < FAILED_LIMIT)
        snprintf(ahead->failed[ahead->failed_count++], WAL_FILE_NAME_LIMIT, "%s", name);
    else
        ahead->stopped = true;
    pthread_mutex_unlock(&ahead->mutex);
    /* Of being told to end there is nothing to report. */
    if (err->kind != CAIRN_CANCELLED && ready_list_holds(ahead->world, ahead->pgdata_fd, name))
        spool_note_failure(ahead->spool, name, err);
}

static bool
goes_on(Ahead *ahead, int64_t busy_ms)
{
    const int64_t now = now_ms(ahead->world);

    pthread_mutex_lock(&ahead->mutex);
    const bool stopped = ahead->stopped;
    pthread_mutex_unlock(&ahead->mutex);
    return !stopped && !cancel_requested() && now < ahead->life_limit_ms && now - busy_ms < IDLE_MS;
}

/* Nothing is ready: what waits in overflow-path goes along, by one thread at a time. True: some
 * did. Trouble with it is the next call's to tell. */
static bool
ship(Ahead *ahead, WalPlace *place)
{
    size_t shipped = 0;
    CairnError ignored = {0};

    if (ahead->push->overflow_path == NULL || place->store == NULL)
        return false;
    pthread_mutex_lock(&ahead->mutex);
    const bool mine = !ahead->shipping;
    ahead->shipping = true;
    pthread_mutex_unlock(&ahead->mutex);
    if (!mine)
        return false;
    /* Where there was nothing, or trouble, not again in this process. */
    if (wal_place_ship(place, ahead->world, ahead->push, SHIP_LIMIT, &shipped, &ignored) &&
        shipped > 0) {
        pthread_mutex_lock(&ahead->mutex);
        ahead->shipping = false;
        pthread_mutex_unlock(&ahead->mutex);
    }
    return shipped > 0;
}

static void *
work(void *context)
{
    Ahead *ahead = context;
    const World *world = ahead->world;
    SCOPED_WAL_PLACE place = {
        .repository = ahead->repository, .cluster = ahead->push->cluster, .spool = ahead->spool};
    char name[WAL_FILE_NAME_LIMIT];
    int64_t busy_ms = now_ms(world);

    while (goes_on(ahead, busy_ms)) {
        SCOPED_SPOOL_LOCK lock = SPOOL_UNLOCKED;
        CairnError err = {0};

        if (!pick(ahead, place.incarnation.wal_segment_size, name, &lock)) {
            if (ship(ahead, &place))
                busy_ms = now_ms(world);
            else
                world->clock->sleep_ms(world->clock, RESCAN_MS);
            continue;
        }
        if (!push_file(ahead, &place, name, &err))
            note_failure(ahead, name, &err);
        else if (!spool_has(ahead->spool, name))
            stop(ahead);
        busy_ms = now_ms(world);
    }
    return NULL;
}

/* The caller is one of the threads. Fewer threads than asked for are slower, no more. */
static void
work_in_threads(Ahead *ahead, int jobs)
{
    pthread_t threads[PUSH_JOBS_LIMIT];
    pthread_attr_t attributes;
    int started = 0;

    if (pthread_attr_init(&attributes) == 0) {
        pthread_attr_setstacksize(&attributes, STACK_SIZE);
        while (started < jobs - 1 && started < PUSH_JOBS_LIMIT &&
               pthread_create(&threads[started], &attributes, work, ahead) == 0)
            started++;
        pthread_attr_destroy(&attributes);
    }
    work(ahead);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

bool
wal_push_ahead(const World *world, const WalPush *push, CairnError *err)
{
    SCOPED_SPOOL_LOCK lock = SPOOL_UNLOCKED;
    SCOPED_FD pgdata_fd = data_directory_open(world, push->pgdata, push->path, err);

    if (pgdata_fd < 0)
        return false;
    const SpoolPlace place = {.path = push->batch->spool_path,
                              .repository = push->repository,
                              .cluster = push->cluster,
                              .pgdata_fd = pgdata_fd};
    SCOPED(Spool) spool = spool_open(world, &place, err);
    if (spool == NULL || !spool_lock_try(spool, NULL, &lock, err))
        return err->kind == CAIRN_OK;
    /* Whoever wants to unmount the data directory's file system need not look for us. */
    if (chdir("/") != 0)
        return cairn_error_errno(err, "unable to change to '/'");
    SCOPED(Repository) repository = push_repository_open(world, push->repository, err);
    if (repository == NULL)
        return false;
    Ahead ahead = {
        .world = world,
        .push = push,
        .pgdata_fd = pgdata_fd,
        .repository = repository,
        .spool = spool,
        .life_limit_ms = now_ms(world) + LIFE_MS,
        .scanned_ms = now_ms(world) - RESCAN_MS,
        .mutex = PTHREAD_MUTEX_INITIALIZER,
    };
    work_in_threads(&ahead, push->batch->jobs);
    if (ahead.failure.kind != CAIRN_OK)
        *err = ahead.failure;
    return ahead.failure.kind == CAIRN_OK;
}
