/*
 * Hands jobs from one feeder to N workers, and back in the feeder's order to one writer at a time:
 * whichever worker finds the oldest job done writes it, while its stored bytes are still in that
 * core's cache, and no thread is woken for it.
 *
 * Ownership: the ring owns its jobs; everybody borrows. Cancel makes every wait return NULL at
 * once. Threads: one feeder, any number of workers; at most one of them is the writer at any
 * moment.
 *
 *     feeder: begin, fill, dispatch, ..., close
 *     worker: take, work, done, { next, write, release }...
 */
#ifndef PGCAIRN_REPOSITORY_JOB_RING_H
#define PGCAIRN_REPOSITORY_JOB_RING_H

#include "repository/frame_job.h"

typedef struct JobRing JobRing;

/* compares: jobs have room for the places that their units are compared with. */
JobRing *job_ring_new(size_t job_count, size_t stored_capacity, bool compares,
                      CairnError *err) MUST_CHECK;
void job_ring_free(JobRing *ring); /* after every thread has been joined */

/* The next job to fill, empty; waits for the writer when all are in flight. NULL: cancelled. */
FrameJob *job_ring_begin(JobRing *ring) MUST_CHECK;
/* The job from begin is filled. */
void job_ring_dispatch(JobRing *ring);
/* No more jobs: workers and writer get NULL after the last one. */
void job_ring_close(JobRing *ring);
void job_ring_cancel(JobRing *ring);

/* Worker: the next filled job, and that it is worked on. NULL: none will come. */
FrameJob *job_ring_take(JobRing *ring) MUST_CHECK;
void job_ring_done(JobRing *ring, FrameJob *job);

/* The next job in the feeder's order if it is done, and nobody else is writing: then the caller is
   the writer until release. NULL: nothing to write now. What one writer did happened before what
   the next one does. */
FrameJob *job_ring_next(JobRing *ring) MUST_CHECK;
void job_ring_release(JobRing *ring); /* written: the job may be filled again */
SCOPED_TYPE(JobRing, job_ring_free);

#endif
