#include "repository/job_ring.h"

#include <pthread.h>

/*
 * Positions count up for ever; position p stands for jobs[p % job_count]. Invariants, under the
 * mutex:
 *  1. written <= taken <= filled <= written + job_count
 *  2. a job is worked on or done when its position lies in [written, taken), filled in [taken,
 * filled)
 */
struct JobRing {
    FrameJob **jobs;
    size_t job_count;
    pthread_mutex_t mutex;
    pthread_cond_t free_there; /* the feeder waits */
    pthread_cond_t work_there; /* workers wait */
    uint64_t filled, taken, written;
    bool closed, cancelled, writing;
};

JobRing *
job_ring_new(size_t job_count, size_t stored_capacity, bool compares, CairnError *err)
{
    SCOPED(JobRing) ring = calloc(1, sizeof *ring);
    if (ring == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&ring->mutex, NULL);
    pthread_cond_init(&ring->free_there, NULL);
    pthread_cond_init(&ring->work_there, NULL);
    ring->jobs = calloc(job_count, sizeof(FrameJob *));
    if (ring->jobs == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    for (; ring->job_count < job_count; ring->job_count++) {
        ring->jobs[ring->job_count] = frame_job_new(stored_capacity, compares, err);
        if (ring->jobs[ring->job_count] == NULL)
            return NULL;
    }
    return take(&ring);
}

void
job_ring_free(JobRing *ring)
{
    if (ring == NULL)
        return;
    for (size_t i = 0; i < ring->job_count; i++)
        frame_job_free(ring->jobs[i]);
    free(ring->jobs);
    pthread_mutex_destroy(&ring->mutex);
    pthread_cond_destroy(&ring->free_there);
    pthread_cond_destroy(&ring->work_there);
    free(ring);
}

FrameJob *
job_ring_begin(JobRing *ring)
{
    pthread_mutex_lock(&ring->mutex);
    while (!ring->cancelled && ring->filled == ring->written + ring->job_count)
        pthread_cond_wait(&ring->free_there, &ring->mutex);
    FrameJob *job = ring->cancelled ? NULL : ring->jobs[ring->filled % ring->job_count];
    pthread_mutex_unlock(&ring->mutex);
    return job;
}

void
job_ring_dispatch(JobRing *ring)
{
    pthread_mutex_lock(&ring->mutex);
    CAIRN_ASSERT(ring->filled < ring->written + ring->job_count);
    ring->filled++;
    pthread_cond_signal(&ring->work_there);
    pthread_mutex_unlock(&ring->mutex);
}

void
job_ring_close(JobRing *ring)
{
    pthread_mutex_lock(&ring->mutex);
    ring->closed = true;
    pthread_cond_broadcast(&ring->work_there);
    pthread_mutex_unlock(&ring->mutex);
}

void
job_ring_cancel(JobRing *ring)
{
    pthread_mutex_lock(&ring->mutex);
    ring->cancelled = true;
    pthread_cond_broadcast(&ring->free_there);
    pthread_cond_broadcast(&ring->work_there);
    pthread_mutex_unlock(&ring->mutex);
}

FrameJob *
job_ring_take(JobRing *ring)
{
    FrameJob *job = NULL;
    pthread_mutex_lock(&ring->mutex);
    while (!ring->cancelled && !ring->closed && ring->taken == ring->filled)
        pthread_cond_wait(&ring->work_there, &ring->mutex);
    if (!ring->cancelled && ring->taken < ring->filled)
        job = ring->jobs[ring->taken++ % ring->job_count];
    pthread_mutex_unlock(&ring->mutex);
    return job;
}

void
job_ring_done(JobRing *ring, FrameJob *job)
{
    pthread_mutex_lock(&ring->mutex);
    job->done = true;
    pthread_mutex_unlock(&ring->mutex);
}

/* No done job is left behind: who finds somebody writing knows that the writer asks again after its
 * release. */
FrameJob *
job_ring_next(JobRing *ring)
{
    FrameJob *job = NULL;
    pthread_mutex_lock(&ring->mutex);
    FrameJob *oldest = ring->jobs[ring->written % ring->job_count];
    if (!ring->cancelled && !ring->writing && ring->written < ring->taken && oldest->done) {
        ring->writing = true;
        job = oldest;
    }
    pthread_mutex_unlock(&ring->mutex);
    return job;
}

void
job_ring_release(JobRing *ring)
{
    pthread_mutex_lock(&ring->mutex);
    CAIRN_ASSERT(ring->writing && ring->written < ring->taken);
    frame_job_reset(ring->jobs[ring->written % ring->job_count]);
    ring->writing = false;
    ring->written++;
    pthread_cond_signal(&ring->free_there);
    pthread_mutex_unlock(&ring->mutex);
}
