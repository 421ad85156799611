/*
 * The thread that archives what the thread of control received.
 *
 * Invariants:
 *   1. A file leaves the spool only after the repository has its content durably.
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
};

static void
notify(Receive *receive)
{
    const uint64_t one = 1;

    /* An eventfd whose counter is full is readable all the same. */
    if (write(receive->archiver.notify_fd, &one, sizeof one) < 0)
        log_debug("unable to wake the receiver: %s", strerror(errno));
}

void
receive_set_archived(Worker *worker, uint32_t timeline, uint64_t lsn)
{
    Archiver *archiver = &worker->receive->archiver;

    if (timeline != worker->part.timeline || lsn > worker->part.lsn)
        return;
    pthread_mutex_lock(&archiver->lock);
    if (archiver->archived.timeline == timeline && archiver->archived.lsn < lsn)
        archiver->archived.lsn = lsn;
    pthread_mutex_unlock(&archiver->lock);
    notify(worker->receive);
}

static bool
open_repository(Worker *worker, CairnError *err)
{
    const Receive *receive = worker->receive;

    if (worker->store != NULL)
        return true;
    worker->repository = repository_open(receive->world, receive->options->repository, err);
    if (worker->repository == NULL)
        return false;
    worker->store = wal_store_open(worker->repository, receive->options->cluster->name,
                                   &receive->incarnation, err);
    return worker->store != NULL;
}

/* A repository that was away may have been mounted anew. */
static void
close_repository(Worker *worker)
{
    wal_store_close(take(&worker->store));
    repository_close(take(&worker->repository));
}

/* -- files -- */

static bool
archive_file(Worker *worker, const ReceiveFile *file, CairnError *err)
{
    Receive *receive = worker->receive;
    const uint32_t segment_size = receive->incarnation.wal_segment_size;
    bool existed = false, tail_differs = false;

    SCOPED_FD fd = receive_spool_open_file(&receive->spool, file->name, err);
    if (fd < 0 || !wal_store_put(worker->store, file->name, fd, &existed, &tail_differs, err))
        return false;
    log_debug("'%s' is %s", file->name, existed ? "stored already" : "stored");
    if (file->kind == RECEIVE_SEGMENT) {
        receive_set_archived(worker, file->timeline, (file->segment + 1) * segment_size);
        if (!receive_remove_pieces(worker, file->timeline, file->segment, err))
            return false;
    }
    if (!receive_spool_remove(&receive->spool, file->name, err))
        return false;
    if (file->kind == RECEIVE_SEGMENT) {
        Archiver *archiver = &receive->archiver;
        pthread_mutex_lock(&archiver->lock);
        archiver->spool_bytes -=
            file->size < archiver->spool_bytes ? file->size : archiver->spool_bytes;
        pthread_mutex_unlock(&archiver->lock);
        notify(receive);
    }
    return true;
}

static bool
is_open_locked(const Receive *receive, const ReceiveFile *file)
{
    const Position *open = &receive->archiver.open;

    return open->timeline == file->timeline &&
           open->lsn == file->segment * receive->incarnation.wal_segment_size;
}

static bool
is_open(Receive *receive, const ReceiveFile *file)
{
    pthread_mutex_lock(&receive->archiver.lock);
    const bool open = is_open_locked(receive, file);
    pthread_mutex_unlock(&receive->archiver.lock);
    return open;
}

/* What we listed and were told may be old by now: the thread of control may have begun this very
   part. Then it stays (invariant 4). */
static bool
remove_left_part(Receive *receive, const ReceiveFile *file, CairnError *err)
{
    Archiver *archiver = &receive->archiver;

    pthread_mutex_lock(&archiver->lock);
    const bool done =
        is_open_locked(receive, file) || receive_spool_remove(&receive->spool, file->name, err);
    pthread_mutex_unlock(&archiver->lock);
    return done;
}

/* A part that nobody writes any more, of a timeline that ended or of a former run: all of it
   becomes pieces, unless the whole segment is there. */
static bool
archive_left_part(Worker *worker, const ReceiveFile *file, CairnError *err)
{
    Receive *receive = worker->receive;
    char name[WAL_NAME_SIZE];
    bool present = false;

    if (is_open(receive, file))
        return true;

    wal_segment_name(name, file->timeline, file->segment, receive->incarnation.wal_segment_size);
    if (!wal_store_has(worker->store, name, &present, err))
        return false;
    if (!present && file->size > 0 && file->size <= receive->incarnation.wal_segment_size &&
        !receive_ship(worker, file->timeline, file->segment, (uint32_t)file->size, err)) {
        if (!is_open(receive, file))
            return false;
        cairn_error_clear(err); /* begun anew while we read it: the stream brings it once more */
        return true;
    }
    return remove_left_part(receive, file, err);
}

static bool
archive_files(Worker *worker, const Position *part, CairnError *err)
{
    const Receive *receive = worker->receive;
    const uint32_t segment_size = receive->incarnation.wal_segment_size;
    SCOPED_MEMORY ReceiveFile *files = NULL;
    size_t count = 0;

    if (!receive_spool_list(&receive->spool, &files, &count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        const ReceiveFile *file = &files[i];
        if (file->kind != RECEIVE_PART) {
            if (!archive_file(worker, file, err))
                return false;
            continue;
        }
        /* Ahead of what we were told it is the new one of the thread of control. */
        const bool left =
            part->timeline != 0 &&
            (file->timeline < part->timeline ||
             (file->timeline == part->timeline && file->segment < part->lsn / segment_size));
        if (left && !archive_left_part(worker, file, err))
            return false;
    }
    return true;
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
    if (!archive_files(worker, part, err)) {
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

    while (!archiver->stopping) {
        const int64_t now = receive_now_ms(receive);
        const bool more = archiver->part.timeline != archiver->archived.timeline ||
                          archiver->part.lsn > archiver->archived.lsn;
        const bool due =
            archiver->has_files || (more && (receive->options->synchronous || now >= tail_due_ms));
        if (due && now >= retry_at_ms)
            return;
        int64_t wait = due ? retry_at_ms - now : more ? tail_due_ms - now : 1000;
        wait_ms(archiver, wait > 0 ? wait : 1);
    }
}

static void
report_trouble(Worker *worker, const CairnError *err, int64_t *pause_ms)
{
    Receive *receive = worker->receive;
    Archiver *archiver = &receive->archiver;

    if (!archiver->down)
        log_warn("the repository is out of reach: %s; WAL waits in '%s' (up to %" PRIu64 " MiB)",
                 err->message, receive->spool.path, receive->options->spool_limit_bytes >> 20);
    archiver->down = true;
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
    int64_t tail_due_ms = 0, retry_at_ms = 0, pause_ms = 0;

    pthread_mutex_lock(&archiver->lock);
    while (!archiver->failed) {
        wait_for_work(worker, tail_due_ms, retry_at_ms);
        const bool last = archiver->stopping;
        const Position part = archiver->part;
        archiver->has_files = false;
        pthread_mutex_unlock(&archiver->lock);

        CairnError err = {0};
        tail_due_ms = receive_now_ms(receive) + receive->options->tail_interval_ms;
        const bool done = work(worker, &part, &err);

        pthread_mutex_lock(&archiver->lock);
        if (done && archiver->down) {
            log_info("the repository is back");
            archiver->down = false;
        }
        if (done) {
            pause_ms = retry_at_ms = 0;
        } else if (err.kind == CAIRN_CANCELLED) {
            archiver->has_files = true; /* what is left waits in the spool for the next run */
            retry_at_ms = receive_now_ms(receive) + RETRY_FIRST_MS;
        } else if (is_passing(&err)) {
            report_trouble(worker, &err, &pause_ms);
            retry_at_ms = receive_now_ms(receive) + pause_ms;
            archiver->has_files = true;
        } else {
            archiver->error = err;
            archiver->failed = true;
        }
        if (last)
            break;
    }
    pthread_mutex_unlock(&archiver->lock);
    notify(receive);
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

bool
archiver_start(Receive *receive, CairnError *err)
{
    Archiver *archiver = &receive->archiver;
    Worker *worker = calloc(1, sizeof *worker);

    if (worker == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    worker->receive = receive;
    archiver->has_files = true; /* of former runs */
    const int error = pthread_create(&archiver->thread, NULL, thread_main, worker);
    if (error != 0) {
        free(worker);
        errno = error;
        return cairn_error_errno(err, "unable to start a thread");
    }
    archiver->running = true;
    return true;
}

void
archiver_stop(Receive *receive)
{
    Archiver *archiver = &receive->archiver;

    if (!archiver->running)
        return;
    pthread_mutex_lock(&archiver->lock);
    archiver->stopping = true;
    pthread_cond_signal(&archiver->wake);
    pthread_mutex_unlock(&archiver->lock);
    pthread_join(archiver->thread, NULL);
    archiver->running = false;
}

void
archiver_tell(Receive *receive, Position part, bool finished)
{
    Archiver *archiver = &receive->archiver;

    pthread_mutex_lock(&archiver->lock);
    archiver->part = part;
    if (finished) {
        archiver->has_files = true;
        archiver->spool_bytes += receive->incarnation.wal_segment_size;
    }
    if (finished || receive->options->synchronous)
        pthread_cond_signal(&archiver->wake);
    pthread_mutex_unlock(&archiver->lock);
}

void
archiver_open_part(Receive *receive, uint32_t timeline, uint64_t segment)
{
    Archiver *archiver = &receive->archiver;

    pthread_mutex_lock(&archiver->lock);
    archiver->open = (Position){timeline, segment * receive->incarnation.wal_segment_size};
    pthread_mutex_unlock(&archiver->lock);
}

void
archiver_forget_part(Receive *receive)
{
    Archiver *archiver = &receive->archiver;

    pthread_mutex_lock(&archiver->lock);
    archiver->part = archiver->archived = (Position){0};
    pthread_mutex_unlock(&archiver->lock);
}

void
archiver_begin_timeline(Receive *receive, Position part)
{
    Archiver *archiver = &receive->archiver;

    pthread_mutex_lock(&archiver->lock);
    archiver->part = part;
    /* Whole segments before it may still wait in the spool: the next round tells. */
    archiver->archived = (Position){.timeline = part.timeline};
    archiver->has_files = true;
    pthread_cond_signal(&archiver->wake);
    pthread_mutex_unlock(&archiver->lock);
}
