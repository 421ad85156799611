/*
 * The threads that archive what the thread of control received, one a repository.
 *
 * Invariants:
 *   1. A file leaves the spool only after every required repository has its content durably.
 *   2. Pieces are removed only after the segment, or a bigger piece of the same bytes, is durable.
 *   3. `archived` rises over what lies without a hole: the part is looked at before the finished
 *      files are listed, so that every segment before it is among those.
 *   4. The part that is open is never removed: it is announced below the lock before it is opened,
 *      and looked at below the lock when one is removed.
 */
#include "walarchive/receive_intern.h"

#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    RETRY_FIRST_MS = 1000,
    RETRY_LONGEST_MS = 30 * 1000,
    STORAGE_PATIENCE_MS = 10 * 1000,
};

static ArchiverTarget *
target_of(const Worker *worker)
{
    return &worker->receive->archiver.targets[worker->index];
}

/* The least of what the required ones have. With the lock held. */
static void
settle_archived(Archiver *archiver)
{
    Position least = {0};

    for (size_t i = 0; i < archiver->target_count; i++) {
        const ArchiverTarget *target = &archiver->targets[i];
        if (target->required && (least.timeline == 0 || target->archived.lsn < least.lsn))
            least = target->archived;
    }
    archiver->archived = least;
}

/* With the lock held. */
static void
set_all_archived(Archiver *archiver, Position position)
{
    archiver->archived = position;
    for (size_t i = 0; i < CONFIG_REPOSITORIES_LIMIT; i++)
        archiver->targets[i].archived = position;
}

static void
tell_all(Archiver *archiver)
{
    for (size_t i = 0; i < CONFIG_REPOSITORIES_LIMIT; i++)
        archiver->targets[i].has_files = true;
}

void
receive_set_archived(Worker *worker, uint32_t timeline, uint64_t lsn)
{
    Archiver *archiver = &worker->receive->archiver;
    ArchiverTarget *target = target_of(worker);

    if (timeline != worker->part.timeline || lsn > worker->part.lsn)
        return;
    pthread_mutex_lock(&archiver->lock);
    if (target->archived.timeline == timeline && target->archived.lsn < lsn)
        target->archived.lsn = lsn;
    settle_archived(archiver);
    pthread_mutex_unlock(&archiver->lock);
    receive_notify(worker->receive);
}

/* A repository that was away may have been mounted anew. */
static void
close_repository(Worker *worker)
{
    wal_store_close(take(&worker->store));
    repository_close(take(&worker->repository));
}

static bool
open_repository(Worker *worker, CairnError *err)
{
    const Receive *receive = worker->receive;

    /* What was moved away or unmounted is no place to store in, though it is still open here. */
    if (worker->repository != NULL && !repository_is_current(worker->repository)) {
        close_repository(worker);
        worker->timeline = 0;
    }
    if (worker->store != NULL)
        return true;
    worker->repository = repository_open(receive->world, target_of(worker)->repository, err);
    if (worker->repository == NULL)
        return false;
    /* The spool has what is to be shipped, and we try again: that somebody waits must be told, and
     * one that is not required holds nobody back. */
    storage_set_patience(repository_storage(worker->repository), STORAGE_PATIENCE_MS);
    worker->store = wal_store_open(worker->repository, receive->options->cluster->name,
                                   &receive->incarnation, err);
    return worker->store != NULL;
}

/* -- the thread -- */

/* Time heals these; anything else needs somebody to look. */
static bool
is_passing(const CairnError *err)
{
    switch (err->kind) {
    case CAIRN_UNAVAILABLE:
    case CAIRN_NO_SPACE:
    case CAIRN_IO:
    case CAIRN_DENIED:
    case CAIRN_NOT_FOUND: /* a path that is not mounted */
        return true;
    default:
        return false;
    }
}

static bool
ship_part(Worker *worker, const Position *part, CairnError *err)
{
    const uint32_t segment_size = worker->receive->incarnation.wal_segment_size;

    return part->timeline == 0 || part->lsn % segment_size == 0 ||
           receive_ship(worker, part->timeline, part->lsn / segment_size,
                        (uint32_t)(part->lsn % segment_size), err);
}

/* A signal leaves whole segments in the spool, for the next run; the newest bytes still go. They
   do not count as archived: what is before them waits. */
static void
ship_part_at_end(Worker *worker, const Position *part)
{
    CairnError trouble = {0}; /* the spool has it */

    worker->part = (Position){0};
    if (!ship_part(worker, part, &trouble))
        log_debug("%s", trouble.message);
}

static bool
work(Worker *worker, const Position *part, CairnError *err)
{
    const uint32_t segment_size = worker->receive->incarnation.wal_segment_size;

    worker->part = *part;
    if (!open_repository(worker, err))
        return false;
    if (!receive_archive_files(worker, part, err)) {
        if (err->kind == CAIRN_CANCELLED)
            ship_part_at_end(worker, part);
        return false;
    }
    if (part->timeline != 0)
        receive_set_archived(worker, part->timeline, part->lsn - part->lsn % segment_size);
    return ship_part(worker, part, err);
}

static void
wait_ms(Archiver *archiver, int64_t duration_ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += duration_ms / 1000;
    until.tv_nsec += duration_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&archiver->wake, &archiver->lock, &until);
}

/* Until there is something to do; with the lock held. */
static void
wait_for_work(Worker *worker, int64_t tail_due_ms, int64_t retry_at_ms)
{
    Receive *receive = worker->receive;
    Archiver *archiver = &receive->archiver;
    const ArchiverTarget *target = target_of(worker);

    while (!archiver->stopping) {
        const int64_t now = receive_now_ms(receive);
        const bool more = archiver->part.timeline != target->archived.timeline ||
                          archiver->part.lsn > target->archived.lsn;
        const bool due =
            target->has_files || (more && (receive->options->synchronous || now >= tail_due_ms));
        if (due && now >= retry_at_ms)
            return;
        int64_t wait = due ? retry_at_ms - now : more ? tail_due_ms - now : 1000;
        wait_ms(archiver, wait > 0 ? wait : 1);
    }
}

/* "the repository", or which one of several. */
static const char *
name_of(const Worker *worker, char text[256])
{
    if (worker->receive->archiver.target_count == 1)
        return "the repository";
    snprintf(text, 256, "repository '%.200s'", target_of(worker)->repository->name);
    return text;
}

/* With the lock held. */
static void
report_trouble(Worker *worker, const CairnError *err, int64_t *pause_ms)
{
    Receive *receive = worker->receive;
    ArchiverTarget *target = target_of(worker);
    char name[256];

    if (!target->down && target->required)
        log_warn("%s is out of reach: %s; WAL waits in '%s' (up to %" PRIu64 " MiB)",
                 name_of(worker, name), err->message, receive->spool.path,
                 receive->options->spool_limit_bytes >> 20);
    else if (!target->down)
        log_warn(
            "%s (required = no) fails: %s; what it misses is a hole of its own, which `pgcairn "
            "wal repair` fills",
            name_of(worker, name), err->message);
    if (!target->down && !target->required)
        tell_all(&receive->archiver); /* nobody waits for it any longer */
    target->down = true;
    *pause_ms = *pause_ms == 0                     ? RETRY_FIRST_MS
                : 2 * *pause_ms < RETRY_LONGEST_MS ? 2 * *pause_ms
                                                   : RETRY_LONGEST_MS;
    close_repository(worker);
    worker->timeline = 0;
}

static void
run(Worker *worker)
{
    Receive *receive = worker->receive;
    Archiver *archiver = &receive->archiver;
    ArchiverTarget *target = target_of(worker);
    int64_t tail_due_ms = 0, retry_at_ms = 0, pause_ms = 0;
    char name[256];

    pthread_mutex_lock(&archiver->lock);
    while (!archiver->failed) {
        wait_for_work(worker, tail_due_ms, retry_at_ms);
        const bool last = archiver->stopping;
        const Position part = archiver->part;
        target->has_files = false;
        pthread_mutex_unlock(&archiver->lock);

        CairnError err = {0};
        tail_due_ms = receive_now_ms(receive) + receive->options->tail_interval_ms;
        const bool done = work(worker, &part, &err);

        pthread_mutex_lock(&archiver->lock);
        if (done && target->down) {
            log_info("%s is back", name_of(worker, name));
            target->down = false;
        }
        if (done) {
            pause_ms = retry_at_ms = 0;
        } else if (err.kind == CAIRN_CANCELLED) {
            target->has_files = true; /* what is left waits in the spool for the next run */
            retry_at_ms = receive_now_ms(receive) + RETRY_FIRST_MS;
        } else if (is_passing(&err) || !target->required) {
            report_trouble(worker, &err, &pause_ms);
            retry_at_ms = receive_now_ms(receive) + pause_ms;
            target->has_files = true;
        } else {
            archiver->error = err;
            if (archiver->target_count > 1)
                cairn_error_wrap(&archiver->error, "repository '%s'", target->repository->name);
            archiver->failed = true;
            pthread_cond_broadcast(&archiver->wake);
        }
        if (last)
            break;
    }
    pthread_mutex_unlock(&archiver->lock);
    receive_notify(receive);
}

static void *
thread_main(void *context)
{
    Worker *worker = context;

    run(worker);
    close_repository(worker);
    free(worker);
    return NULL;
}

static bool
start_target(Receive *receive, size_t index, CairnError *err)
{
    Worker *worker = calloc(1, sizeof *worker);

    if (worker == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    worker->receive = receive;
    worker->index = index;
    const int error =
        pthread_create(&receive->archiver.targets[index].thread, NULL, thread_main, worker);
    if (error != 0) {
        free(worker);
        errno = error;
        return cairn_error_errno(err, "unable to start a thread");
    }
    return true;
}

/* Where none is required, all are: what the server is told must rest on something. */
static void
name_targets(const Receive *receive, ArchiverTarget targets[CONFIG_REPOSITORIES_LIMIT])
{
    const ReceiveOptions *options = receive->options;
    bool any = false;

    for (size_t i = 0; i < options->repository_count; i++)
        any |= repository_is_required(options->repositories[i]);
    for (size_t i = 0; i < options->repository_count; i++) {
        targets[i].repository = options->repositories[i];
        targets[i].required = !any || repository_is_required(options->repositories[i]);
    }
}

bool
archiver_start(Receive *receive, CairnError *err)
{
    Archiver *archiver = &receive->archiver;
    const size_t count = receive->options->repository_count;
    size_t started = 0;

    CAIRN_ASSERT(count > 0 && count <= CONFIG_REPOSITORIES_LIMIT);
    pthread_mutex_lock(&archiver->lock);
    name_targets(receive, archiver->targets);
    set_all_archived(archiver, archiver->archived);
    tell_all(archiver); /* of former runs */
    archiver->target_count = count;
    while (started < count && start_target(receive, started, err))
        started++;
    archiver->stopping = started < count;
    archiver->target_count = started;
    pthread_mutex_unlock(&archiver->lock);
    if (started == count)
        return true;
    archiver_stop(receive);
    archiver->stopping = false;
    return false;
}

void
archiver_stop(Receive *receive)
{
    Archiver *archiver = &receive->archiver;

    pthread_mutex_lock(&archiver->lock);
    const size_t count = archiver->target_count;
    archiver->stopping = true;
    pthread_cond_broadcast(&archiver->wake);
    pthread_mutex_unlock(&archiver->lock);
    for (size_t i = 0; i < count; i++)
        pthread_join(archiver->targets[i].thread, NULL);
    archiver->target_count = 0;
    free(archiver->shared);
    archiver->shared = NULL;
    archiver->shared_count = 0;
}

void
archiver_tell(Receive *receive, Position part, bool finished)
{
    Archiver *archiver = &receive->archiver;

    pthread_mutex_lock(&archiver->lock);
    archiver->part = part;
    if (finished) {
        tell_all(archiver);
        archiver->spool_bytes += receive->incarnation.wal_segment_size;
    }
    if (finished || receive->options->synchronous)
        pthread_cond_broadcast(&archiver->wake);
    pthread_mutex_unlock(&archiver->lock);
}

void
archiver_open_part(Receive *receive, uint32_t timeline, uint64_t segment)
{
    Archiver *archiver = &receive->archiver;

    pthread_mutex_lock(&archiver->lock);
    archiver->open = (Position){timeline, segment * receive->incarnation.wal_segment_size};
    receive_forget_shared_part(receive, timeline, segment);
    pthread_mutex_unlock(&archiver->lock);
}

void
archiver_forget_part(Receive *receive)
{
    Archiver *archiver = &receive->archiver;

    pthread_mutex_lock(&archiver->lock);
    archiver->part = (Position){0};
    set_all_archived(archiver, (Position){0});
    pthread_mutex_unlock(&archiver->lock);
}

void
archiver_begin_timeline(Receive *receive, Position part)
{
    Archiver *archiver = &receive->archiver;

    pthread_mutex_lock(&archiver->lock);
    archiver->part = part;
    /* Whole segments before it may still wait in the spool: the next round tells. */
    set_all_archived(archiver, (Position){.timeline = part.timeline});
    tell_all(archiver);
    pthread_cond_broadcast(&archiver->wake);
    pthread_mutex_unlock(&archiver->lock);
}
