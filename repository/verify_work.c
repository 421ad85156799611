/*
 * Objects are read by several threads, and what comes of it is filed by the one that runs verify,
 * in the order in which the objects were added: so a report does not depend on the number of
 * threads, and nothing that is filed needs a lock.
 *
 * Positions count up for ever; position p stands for jobs[p % WAITING]. Invariants, under the
 * mutex:
 *  1. settled <= taken <= added <= settled + WAITING
 *  2. a job is worked on or done when its position lies in [settled, taken), waits for a thread in
 * [taken, added)
 *  3. a thread that has something to say waits until its job is the oldest and was heard: so
 * nothing piles up, however much of an object is damaged.
 */
#include "repository/verify_intern.h"

#include "common/cancel.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

/* Small objects go on behind a large one that takes its time. Their sets of backups may be large:
 * so many numbers in all, or one job's. */
enum { WAITING = 128, NUMBERS_WAITING = 1 << 18, DRAW_PERIOD_MS = 200 };

struct VerifyPool {
    pthread_mutex_t mutex;
    pthread_cond_t work_there; /* threads wait */
    pthread_cond_t news;       /* the owner waits: something is said, or done */
    pthread_cond_t heard;      /* who said something waits */
    VerifyJob jobs[WAITING];
    uint64_t added, taken, settled;
    bool ended;         /* threads return at once */
    CairnError failure; /* a thread could not even begin */
    Verify *verify;
    pthread_t threads[VERIFY_JOBS_LIMIT];
    int thread_count;
    size_t numbers; /* owner only */
};

/* ---- threads ---- */

static bool
open_worker(VerifyWorker *worker, CairnError *err)
{
    worker->verify = worker->pool->verify;
    worker->codec = repository_codec(worker->verify->repository, err);
    if (worker->codec == NULL)
        return false;
    worker->fingerprints = repository_digest(worker->verify->repository, DIGEST_FINGERPRINT, err);
    if (worker->fingerprints == NULL)
        return false;
    worker->raw = malloc(FRAME_SIZE);
    return worker->raw != NULL || cairn_error(err, CAIRN_INTERNAL, "out of memory");
}

static void
close_worker(VerifyWorker *worker)
{
    if (worker->codec != NULL)
        codec_close(worker->codec);
    keyed_digest_free(worker->fingerprints);
    wal_store_close(worker->wal);
    free(worker->raw);
}

static VerifyJob *
take_job(VerifyPool *pool)
{
    VerifyJob *job = NULL;
    pthread_mutex_lock(&pool->mutex);
    while (!pool->ended && pool->taken == pool->added)
        pthread_cond_wait(&pool->work_there, &pool->mutex);
    if (!pool->ended)
        job = &pool->jobs[pool->taken++ % WAITING];
    pthread_mutex_unlock(&pool->mutex);
    return job;
}

bool
verify_say(VerifyWorker *worker, const char *files, CairnError *err)
{
    VerifyPool *pool = worker->pool;
    VerifyJob *job = worker->job;
    pthread_mutex_lock(&pool->mutex);
    job->said = *err;
    job->said_files = files;
    job->speaks = true;
    pthread_cond_signal(&pool->news);
    while (job->speaks && !pool->ended)
        pthread_cond_wait(&pool->heard, &pool->mutex);
    const bool goes_on = !pool->ended;
    pthread_mutex_unlock(&pool->mutex);
    cairn_error_clear(err);
    return goes_on;
}

static void
end_job(VerifyPool *pool, VerifyJob *job)
{
    pthread_mutex_lock(&pool->mutex);
    job->done = true;
    pthread_cond_signal(&pool->news);
    pthread_mutex_unlock(&pool->mutex);
}

static void
fail(VerifyPool *pool, const CairnError *err)
{
    pthread_mutex_lock(&pool->mutex);
    pool->failure = *err;
    pthread_cond_signal(&pool->news);
    pthread_mutex_unlock(&pool->mutex);
}

static void *
work(void *context)
{
    __attribute__((cleanup(close_worker))) VerifyWorker worker = {.pool = context};
    CairnError err = {0};
    if (!open_worker(&worker, &err)) {
        fail(worker.pool, &err);
        return NULL;
    }
    while ((worker.job = take_job(worker.pool)) != NULL) {
        if (!worker.job->read(&worker, worker.job, &err) && err.kind != CAIRN_OK &&
            !verify_say(&worker, NULL, &err))
            return NULL;
        end_job(worker.pool, worker.job);
    }
    return NULL;
}

/* ---- their owner ---- */

static void
wait_for_news(VerifyPool *pool)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += DRAW_PERIOD_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_cond_timedwait(&pool->news, &pool->mutex, &until);
}

/* What the oldest job has come to: *said_out when it has something to say, else it is done. */
static bool
listen(VerifyPool *pool, VerifyJob *job, bool *said_out, CairnError *err)
{
    pthread_mutex_lock(&pool->mutex);
    while (!job->speaks && !job->done && pool->failure.kind == CAIRN_OK) {
        wait_for_news(pool);
        progress_draw(pool->verify->options->progress);
    }
    *said_out = job->speaks;
    const CairnError failure = pool->failure;
    pthread_mutex_unlock(&pool->mutex);
    if (failure.kind == CAIRN_OK)
        return true;
    *err = failure;
    return false;
}

static void
let_go_on(VerifyPool *pool, VerifyJob *job)
{
    pthread_mutex_lock(&pool->mutex);
    job->speaks = false;
    pthread_cond_broadcast(&pool->heard);
    pthread_mutex_unlock(&pool->mutex);
}

static bool
file_said(VerifyPool *pool, VerifyJob *job, CairnError *err)
{
    VerifySubject subject = {.object = job->object,
                             .needed_by = job->needed_by,
                             .files = job->said_files,
                             .is_wal = job->is_wal,
                             .may_vanish = job->may_vanish,
                             .creator = job->is_pack ? &job->creator : NULL,
                             .pack = job->pack};
    CairnError said = job->said;
    const bool noted = job->wal != NULL && !job->unseen
                           ? verify_note_wal(job->wal, &subject, &job->place, &said)
                       : job->is_map ? verify_note_map(pool->verify, job, &subject, &said)
                                     : verify_note_now(pool->verify, &subject, &said);
    if (!noted)
        *err = said;
    return noted;
}

static bool
settle_oldest(VerifyPool *pool, CairnError *err)
{
    Verify *verify = pool->verify;
    VerifyJob *job = &pool->jobs[pool->settled % WAITING];
    for (;;) {
        bool said;
        if (!listen(pool, job, &said, err))
            return false;
        if (!said)
            break;
        if (!file_said(pool, job, err))
            return false;
        let_go_on(pool, job);
    }
    verify->report->byte_count += job->stored_size;
    verify->report->object_count -= job->unseen;
    verify->report->wal_file_count -= job->unseen;
    if (job->is_pack && job->opened)
        pack_slots_put(verify->slots, &job->creator, job->pack, job->slot_count);
    pool->numbers -= job->needed_by.count;
    free((uint32_t *)job->needed_by.indexes);
    job->needed_by = (BackupSet){0};
    pthread_mutex_lock(&pool->mutex);
    pool->settled++;
    pthread_mutex_unlock(&pool->mutex);
    progress_draw(verify->options->progress);
    return true;
}

static bool
is_full(const VerifyPool *pool, size_t numbers)
{
    const uint64_t count = pool->added - pool->settled;
    return count == WAITING || (count > 0 && pool->numbers + numbers > NUMBERS_WAITING);
}

bool
verify_add(Verify *verify, const VerifyJob *job, CairnError *err)
{
    VerifyPool *pool = verify->pool;
    const size_t count = job->needed_by.count;
    verify->report->object_count += !job->uncounted;
    while (is_full(pool, count)) {
        if (!settle_oldest(pool, err))
            return false;
    }
    uint32_t *indexes = calloc(count + 1, sizeof *indexes);
    if (indexes == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    if (count > 0)
        memcpy(indexes, job->needed_by.indexes, count * sizeof *indexes);
    VerifyJob *place = &pool->jobs[pool->added % WAITING];
    *place = *job;
    place->needed_by.indexes = indexes;
    pool->numbers += count;
    pthread_mutex_lock(&pool->mutex);
    pool->added++;
    pthread_cond_signal(&pool->work_there);
    pthread_mutex_unlock(&pool->mutex);
    return true;
}

bool
verify_settle(Verify *verify, CairnError *err)
{
    VerifyPool *pool = verify->pool;
    while (pool->settled < pool->added) {
        if (!settle_oldest(pool, err))
            return false;
    }
    return true;
}

bool
verify_pool_begin(Verify *verify, int jobs, CairnError *err)
{
    CAIRN_ASSERT(jobs >= 1 && jobs <= VERIFY_JOBS_LIMIT);
    VerifyPool *pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return cairn_error(err, CAIRN_INTERNAL, "out of memory");
    pool->verify = verify;
    verify->pool = pool;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work_there, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->news, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_cond_init(&pool->heard, NULL);
    while (pool->thread_count < jobs) {
        const int error = pthread_create(&pool->threads[pool->thread_count], NULL, work, pool);
        if (error == 0) {
            pool->thread_count++;
            continue;
        }
        if (pool->thread_count > 0)
            break; /* slower, no more */
        errno = error;
        return cairn_error_errno(err, "unable to start a thread");
    }
    return true;
}

void
verify_pool_end(Verify *verify)
{
    VerifyPool *pool = verify->pool;
    if (pool == NULL)
        return;
    pthread_mutex_lock(&pool->mutex);
    pool->ended = true;
    pthread_cond_broadcast(&pool->work_there);
    pthread_cond_broadcast(&pool->heard);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    for (uint64_t i = pool->settled; i < pool->added; i++)
        free((uint32_t *)pool->jobs[i % WAITING].needed_by.indexes);
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->work_there);
    pthread_cond_destroy(&pool->news);
    pthread_cond_destroy(&pool->heard);
    free(pool);
    verify->pool = NULL;
}
