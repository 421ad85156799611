#include "walarchive/push.h"

#include "common/cancel.h"
#include "repository/identity.h"
#include "walarchive/ahead_process.h"
#include "walarchive/data_directory.h"
#include "walarchive/push_intern.h"
#include "walarchive/ready_list.h"

#include <fcntl.h>
#include <stdio.h>

enum { WAIT_STEP_MS = 2 };

/* NULL when this call is on its own. */
static Spool *
open_spool(const World *world, const WalPush *push, int pgdata_fd, WalPushed *pushed)
{
    CairnError why = {0};

    if (push->batch == NULL)
        return NULL;
    const SpoolPlace place = {.path = push->batch->spool_path,
                              .repository = push->repository,
                              .cluster = push->cluster,
                              .pgdata_fd = pgdata_fd};
    Spool *spool = spool_open(world, &place, &why);
    if (spool == NULL && why.kind != CAIRN_OK)
        snprintf(pushed->no_batch, sizeof pushed->no_batch, "%.500s", why.message);
    return spool;
}

/* Only a look: the process takes the lock itself, and one too many ends at once. */
static bool
is_pushing_ahead(const Spool *spool)
{
    CairnError ignored = {0};
    SCOPED_SPOOL_LOCK lock = SPOOL_UNLOCKED;

    return !spool_lock_try(spool, NULL, &lock, &ignored);
}

static void
start_ahead(const World *world, const WalBatch *batch, const Spool *spool, int pgdata_fd,
            const char *file_name)
{
    if (batch->command != NULL && !is_pushing_ahead(spool) &&
        ready_list_has_other(world, pgdata_fd, file_name))
        ahead_process_start(batch->command);
}

/*
 * The lock of this file's name, or none when patience has run out: then we push beside whoever has
 * it, which is safe, only twice the work. False: cancelled.
 */
static bool
wait_for_name(const World *world, const WalBatch *batch, const Spool *spool, const char *file_name,
              SpoolLock *lock, CairnError *err)
{
    const Clock *clock = world->clock;
    const int64_t limit_ns = clock->monotonic_ns(clock) + batch->patience_ms * 1000000;
    CairnError ignored = {0};

    while (!spool_lock_try(spool, file_name, lock, &ignored)) {
        if (ignored.kind != CAIRN_OK || clock->monotonic_ns(clock) >= limit_ns)
            break;
        clock->sleep_ms(clock, WAIT_STEP_MS);
        if (!cancel_check(err))
            return false;
    }
    return true;
}

static bool
push_in_batch(const World *world, const WalPush *push, int pgdata_fd, WalPlace *place,
              const WalSource *source, WalPushed *pushed, CairnError *err)
{
    SCOPED_SPOOL_LOCK lock = SPOOL_UNLOCKED;

    pushed->remembered = wal_place_holds(place, source);
    if (pushed->remembered)
        return true;
    if (!wait_for_name(world, push->batch, place->spool, source->name, &lock, err))
        return false;
    pushed->remembered = wal_place_holds(place, source);
    if (pushed->remembered)
        return true;
    spool_take_failure(place->spool, source->name, pushed->failed_ahead,
                       sizeof pushed->failed_ahead);
    const bool done = wal_place_put(place, source, false, pushed, err);
    /* Behind it, so that this file's answer waits for nobody; and also when this one cannot be
       stored: then those behind it are at least off the host. */
    if (done || err->kind != CAIRN_CANCELLED)
        start_ahead(world, push->batch, place->spool, pgdata_fd, source->name);
    return done;
}

bool
wal_push(const World *world, const WalPush *push, WalPushed *pushed_out, CairnError *err)
{
    SCOPED_WAL_SOURCE source = {.fd = -1};

    *pushed_out = (WalPushed){0};
    SCOPED_FD pgdata_fd = data_directory_open(world, push->pgdata, push->path, err);
    if (pgdata_fd < 0 || !identity_may_archive(world, pgdata_fd, push->cluster, err) ||
        !wal_source_open(&source, world, pgdata_fd, AT_FDCWD, push->path, err))
        return false;
    SCOPED(Repository) repository = repository_open(world, push->repository, err);
    if (repository == NULL)
        return false;
    SCOPED(Spool) spool = open_spool(world, push, pgdata_fd, pushed_out);
    SCOPED_WAL_PLACE place = {.repository = repository, .cluster = push->cluster, .spool = spool};
    if (!wal_place_open(&place, &source, err))
        return false;
    if (spool != NULL)
        return push_in_batch(world, push, pgdata_fd, &place, &source, pushed_out, err);
    return wal_place_put(&place, &source, false, pushed_out, err);
}
