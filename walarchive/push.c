#include "walarchive/push.h"

#include "common/cancel.h"
#include "common/timestamp.h"
#include "repository/identity.h"
#include "repository/wal_ack.h"
#include "repository/wal_overflow.h"
#include "storage/connect.h"
#include "walarchive/ahead_process.h"
#include "walarchive/data_directory.h"
#include "walarchive/prefetch_fork.h"
#include "walarchive/push_intern.h"
#include "walarchive/ready_list.h"
#include "walarchive/spool_lock.h"
#include "walarchive/watchdog.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* What waits in overflow-path goes along with a call: more of it when the server has nothing else.
 */
enum { SHIP_BETWEEN = 4, SHIP_ALONE = 64 };

/*
 * A call that has to wait looks again after about the time that a segment takes, then more often.
 * Meanwhile those behind it get done as well, and their calls need not wait: as many segments a
 * second, with fewer wake-ups of two processes that compete for the same processors.
 */
enum { WAIT_FIRST_MS = 24, WAIT_STEP_MS = 6 };

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
    if (batch->command != NULL && !is_pushing_ahead(spool) && prefetch_may_fork(world, pgdata_fd) &&
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
    int64_t pause_ms = WAIT_FIRST_MS;
    CairnError ignored = {0};

    while (!spool_lock_try(spool, file_name, lock, &ignored)) {
        if (ignored.kind != CAIRN_OK || clock->monotonic_ns(clock) >= limit_ns)
            break;
        clock->sleep_ms(clock, pause_ms);
        pause_ms = WAIT_STEP_MS;
        if (!cancel_check(err))
            return false;
    }
    return true;
}

/* Without the repository: is it remembered, once nobody has the file in hand any more, or patience
   has run out (waited)? The lock is not kept: the repository may hang. False: cancelled. */
static bool
recall_later(const World *world, const WalPush *push, const Spool *spool, const WalSource *source,
             bool *waited, WalPushed *pushed, CairnError *err)
{
    SCOPED_SPOOL_LOCK lock = SPOOL_UNLOCKED;

    if (!wait_for_name(world, push->batch, spool, source->name, &lock, err))
        return false;
    *waited = lock.fd < 0;
    pushed->remembered = wal_push_recalls(spool, push, source);
    return true;
}

/* waited: with no patience left. */
static bool
push_in_batch(const World *world, const WalPush *push, int pgdata_fd, WalPlace *place,
              const WalSource *source, bool waited, WalPushed *pushed, CairnError *err)
{
    SCOPED_SPOOL_LOCK lock = SPOOL_UNLOCKED;

    pushed->remembered = wal_place_holds(place, source);
    if (pushed->remembered)
        return true;
    if (!waited) {
        if (!wait_for_name(world, push->batch, place->spool, source->name, &lock, err))
            return false;
        pushed->remembered = wal_place_holds(place, source);
        if (pushed->remembered)
            return true;
    }
    spool_take_failure(place->spool, source->name, pushed->failed_ahead,
                       sizeof pushed->failed_ahead);
    const bool done = wal_place_put(place, source, false, pushed, err);
    /* Behind it, so that this file's answer waits for nobody; and also when this one cannot be
       stored: then those behind it are at least off the host. */
    if (done || err->kind != CAIRN_CANCELLED)
        start_ahead(world, push->batch, place->spool, pgdata_fd, source->name);
    return done;
}

/* -- when the repository is down */

static bool
is_down(const CairnError *err, bool opened)
{
    switch (err->kind) {
    case CAIRN_UNAVAILABLE:
    case CAIRN_NO_SPACE:
    case CAIRN_IO:
        return true;
    case CAIRN_NOT_FOUND: /* what is not mounted looks like this */
        return !opened;
    default:
        return false;
    }
}

static WalOverflow *
open_overflow(const World *world, const WalPush *push, uint64_t system_id, int major, bool create,
              CairnError *err)
{
    const WalOverflowPlace place = {.path = push->overflow_path,
                                    .repository = push->repository,
                                    .cluster = push->cluster,
                                    .system_id = system_id,
                                    .major = major};
    return wal_overflow_open(world, &place, create, err);
}

static bool
put_into_overflow(const World *world, const WalPush *push, int pgdata_fd, const WalSource *source,
                  CairnError *err)
{
    SCOPED(WalOverflow)
    overflow = open_overflow(world, push, source->system_id, source->major, true, err);
    SCOPED_FD wal_fd = world->disk->openat(world->disk, pgdata_fd, "pg_wal",
                                           O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

    if (overflow == NULL)
        return false;
    if (wal_fd < 0)
        return cairn_error_errno(err, "unable to open 'pg_wal'");
    return wal_source_check(source, err) &&
           wal_overflow_put(overflow, wal_fd, source->name, source->fd, err);
}

/* err is filled; true makes it empty. */
static bool
overflow_instead(const World *world, const WalPush *push, int pgdata_fd, const WalSource *source,
                 bool opened, WalPushed *pushed, CairnError *err)
{
    CairnError why = {0};

    if (push->overflow_path == NULL || !is_down(err, opened))
        return false;
    if (!put_into_overflow(world, push, pgdata_fd, source, &why))
        return cairn_error_hint(err, "overflow-path does not help: %.700s", why.message);
    snprintf(pushed->trouble, sizeof pushed->trouble, "%.500s", err->message);
    pushed->overflowed = true;
    cairn_error_clear(err);
    return true;
}

bool
wal_place_ship(WalPlace *place, const World *world, const WalPush *push, size_t limit,
               size_t *shipped_out, CairnError *err)
{
    *shipped_out = 0;
    SCOPED(WalOverflow)
    overflow = open_overflow(world, push, place->incarnation.system_id, place->incarnation.major,
                             false, err);
    if (overflow != NULL)
        return wal_overflow_ship(overflow, place->store, limit, shipped_out, err);
    if (err->kind != CAIRN_NOT_FOUND)
        return false;
    cairn_error_clear(err); /* nothing was ever put there */
    return true;
}

/* Some of what waits, in order. This file's answer is said already, so trouble is only told. */
static void
ship_some(const World *world, const WalPush *push, int pgdata_fd, const char *file_name,
          WalPlace *place, WalPushed *pushed)
{
    CairnError err = {0};

    if (push->overflow_path == NULL || place->store == NULL)
        return;
    const size_t limit =
        ready_list_has_other(world, pgdata_fd, file_name) ? SHIP_BETWEEN : SHIP_ALONE;
    if (!wal_place_ship(place, world, push, limit, &pushed->shipped, &err))
        snprintf(pushed->trouble, sizeof pushed->trouble, "%.500s", err.message);
}

static const char *
last_component(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

void
wal_push_ship(const World *world, const WalPush *push, WalPushed *pushed_out)
{
    CairnError err = {0};

    *pushed_out = (WalPushed){0};
    if (push->overflow_path == NULL || push->kept->place.store == NULL)
        return;
    SCOPED_FD pgdata_fd = data_directory_open(world, push->pgdata, push->path, &err);
    if (pgdata_fd < 0)
        snprintf(pushed_out->trouble, sizeof pushed_out->trouble, "%.500s", err.message);
    else
        ship_some(world, push, pgdata_fd, last_component(push->path), &push->kept->place,
                  pushed_out);
    if (pushed_out->trouble[0] != '\0')
        push_kept_forget(push->kept);
}

/* -- when somebody gave it up */

/* One readable record of `wal skip` that covers the whole segment. */
static bool
find_skip(WalStore *store, const char *file_name, CairnError *err)
{
    const uint32_t size = wal_store_incarnation(store)->wal_segment_size;
    SCOPED_MEMORY WalAck *acks = NULL;
    uint32_t timeline;
    uint64_t number;
    size_t count = 0;
    bool found = false;

    if (!wal_segment_parse(file_name, size, &timeline, &number) ||
        !wal_ack_find(store, timeline, number * size, (number + 1) * size, &acks, &count, err))
        return false;
    for (size_t i = 0; i < count && !found; i++) {
        found = acks[i].decision == WAL_ACK_SKIP && acks[i].start_lsn <= number * size &&
                acks[i].end_lsn >= (number + 1) * size;
    }
    return found;
}

/* By pg_control: the segment itself may be what cannot be read. */
static bool
is_skipped(const World *world, const WalPush *push, int pgdata_fd, const char *file_name,
           CairnError *err)
{
    ControlFile control;
    Incarnation incarnation;
    SCOPED(Repository) repository = push_repository_open(world, push->repository, err);

    if (repository == NULL || !data_directory_control(world, pgdata_fd, &control, err) ||
        !incarnation_get(repository, push->cluster, control.system_id, control.major, &incarnation,
                         err))
        return false;
    SCOPED(WalStore) store = wal_store_open(repository, push->cluster, &incarnation, err);
    return store != NULL && find_skip(store, file_name, err);
}

/* err is filled; true makes it empty. */
static bool
was_given_up(const World *world, const WalPush *push, int pgdata_fd, WalPushed *pushed,
             CairnError *err)
{
    CairnError ignored = {0};

    /* One that just did not answer would be waited for once more, to be asked in vain. Where it was
       open from before, the next call opens it anew, and comes to the question if that succeeds. */
    if (err->kind == CAIRN_CANCELLED || pushed->not_tried || pushed->unreachable ||
        !is_skipped(world, push, pgdata_fd, last_component(push->path), &ignored))
        return false;
    snprintf(pushed->trouble, sizeof pushed->trouble, "%.500s", err->message);
    pushed->skipped = true;
    cairn_error_clear(err);
    return true;
}

/* -- one that did not answer a moment ago */

static bool
did_not_answer(const Spool *spool, WalPushed *pushed, CairnError *err)
{
    SpoolAbsence absence;
    char at[TIMESTAMP_TEXT_SIZE];

    if (!spool_recalls_absence(spool, &absence))
        return false;
    timestamp_format(at, absence.at_us);
    cairn_error(err, CAIRN_UNAVAILABLE,
                "not tried, nor in the next %d s: it was out of reach at %s: %s", absence.left_s,
                at, absence.message);
    pushed->not_tried = true;
    return true;
}

/*
 * May a call go on without asking one that did not answer a moment ago? Where nothing rests on its
 * answer, or the file is durable in overflow-path before ours is given. A directory that is not
 * mounted says so at once.
 */
static bool
may_be_passed_over(const WalPush *push, const Spool *spool)
{
    return spool != NULL && (push->is_optional || (push->overflow_path != NULL &&
                                                   !storage_is_directory(push->repository)));
}

/* True: the repository is not asked, and *done_out is the call's answer. */
static bool
passes_over(const World *world, const WalPush *push, int pgdata_fd, const Spool *spool,
            const WalSource *source, WalPushed *pushed, bool *done_out, CairnError *err)
{
    if (!may_be_passed_over(push, spool) || !did_not_answer(spool, pushed, err))
        return false;
    *done_out =
        !push->is_optional && overflow_instead(world, push, pgdata_fd, source, false, pushed, err);
    if (*done_out || push->is_optional)
        return true;
    /* Nothing else would do: it is asked after all. */
    cairn_error_clear(err);
    pushed->not_tried = false;
    return false;
}

/* What is no answer, as opposed to one that is not wanted. */
static void
note_answer(const WalPush *push, const Spool *spool, bool done, const CairnError *err)
{
    if (!may_be_passed_over(push, spool))
        return;
    if (!done && err->kind == CAIRN_UNAVAILABLE)
        spool_note_absence(spool, err);
    else
        spool_forget_absence(spool);
}

void
wal_push_note_absence(const World *world, const WalPush *push, const CairnError *failure)
{
    CairnError ignored = {0}; /* then the next call waits again */
    WalPushed unused = {0};
    SCOPED_FD pgdata_fd = data_directory_open(world, push->pgdata, push->path, &ignored);

    if (pgdata_fd < 0)
        return;
    SCOPED(Spool) spool = open_spool(world, push, pgdata_fd, &unused);
    if (spool != NULL)
        spool_note_absence(spool, failure);
}

/* -- all of it */

static bool
push_file(const World *world, const WalPush *push, int pgdata_fd, PushKept *kept, WalPushed *pushed,
          CairnError *err)
{
    SCOPED_WAL_SOURCE source = {.fd = -1};
    WalPlace *place = &kept->place;
    bool waited = false, was_open, done;

    if (!wal_source_open(&source, world, pgdata_fd, AT_FDCWD, push->path, err))
        return false;
    SCOPED(Spool) spool = open_spool(world, push, pgdata_fd, pushed);
    /* What waits in overflow-path needs the repository anyhow, and one that is open and near is
       asked at once. */
    const bool recalls = spool != NULL && push->overflow_path == NULL &&
                         (kept->repository == NULL || !storage_is_directory(push->repository));
    pushed->remembered = recalls && wal_push_recalls(spool, push, &source);
    if (pushed->remembered)
        return true;
    if (passes_over(world, push, pgdata_fd, spool, &source, pushed, &done, err))
        return done;
    if (recalls && !recall_later(world, push, spool, &source, &waited, pushed, err))
        return false;
    if (pushed->remembered)
        return true;
    place->repository = push_kept_repository(kept, world, push->repository, &was_open, err);
    if (place->repository == NULL) {
        pushed->unreachable = err->kind == CAIRN_UNAVAILABLE;
        note_answer(push, spool, false, err);
        return overflow_instead(world, push, pgdata_fd, &source, false, pushed, err);
    }
    place->cluster = push->cluster;
    place->spool = spool;
    done =
        wal_place_open(place, &source, err) &&
        (spool != NULL ? push_in_batch(world, push, pgdata_fd, place, &source, waited, pushed, err)
                       : wal_place_put(place, &source, false, pushed, err));
    place->spool = NULL;
    note_answer(push, spool, done, err);
    if (!done) {
        pushed->unreachable = was_open && err->kind == CAIRN_UNAVAILABLE;
        return overflow_instead(world, push, pgdata_fd, &source, true, pushed, err);
    }
    if (!push->ship_later) {
        /* A call of its own: a hung overflow-path must not take the file's answer with it. */
        watchdog_answer(0);
        ship_some(world, push, pgdata_fd, source.name, place, pushed);
    }
    return true;
}

static bool
push_or_give_up(const World *world, const WalPush *push, PushKept *kept, WalPushed *pushed,
                CairnError *err)
{
    SCOPED_FD pgdata_fd = data_directory_open(world, push->pgdata, push->path, err);
    if (pgdata_fd < 0 || !identity_may_archive(world, pgdata_fd, push->cluster, err))
        return false;
    return push_file(world, push, pgdata_fd, kept, pushed, err) ||
           was_given_up(world, push, pgdata_fd, pushed, err);
}

bool
wal_push(const World *world, const WalPush *push, WalPushed *pushed_out, CairnError *err)
{
    PushKept own = {0};
    PushKept *kept = push->kept != NULL ? push->kept : &own;

    *pushed_out = (WalPushed){0};
    const bool done = push_or_give_up(world, push, kept, pushed_out, err);
    /* What failed leaves nothing behind that the next file would trust. */
    if (!done || pushed_out->trouble[0] != '\0' || push->kept == NULL)
        push_kept_forget(kept);
    return done;
}
