/*
 * Jobs on their way from the one thread that walks the map to those that write.
 *
 * What: bounded by memory and number, and not first come first served: a thread gets jobs of the
 * place (file or directory) that it wrote to last, else of one where nobody writes, else the
 * oldest. Two threads that write to one file wait for its lock in the kernel, spinning. Ownership:
 * what is pushed belongs to the queue until it is popped. Threads: one pushes, any pop; each has a
 * number.
 */
#ifndef PGCAIRN_RESTORE_JOB_QUEUE_H
#define PGCAIRN_RESTORE_JOB_QUEUE_H

#include "restore/file_job.h"

/* More than one large file's cells, so that the second thread finds another file to go on with. */
enum { QUEUE_JOBS = 192, QUEUE_BYTES = 4 << 20 };

typedef struct JobQueue JobQueue;
JobQueue *job_queue_new(CairnError *err) MUST_CHECK;
/* Frees what is still in it. */
void job_queue_free(JobQueue *queue);
/* Waits while it is full. Takes job when true; false when cancelled (the caller keeps it). */
bool job_queue_push(JobQueue *queue, FileJob *job) MUST_CHECK;
/* Waits for a job, returned owned; NULL when closed and empty, or cancelled. */
FileJob *job_queue_pop(JobQueue *queue, int thread) MUST_CHECK;
/* No more pushes. */
void job_queue_close(JobQueue *queue);
/* Both sides return at once, for the first failure. */
void job_queue_cancel(JobQueue *queue);
SCOPED_TYPE(JobQueue, job_queue_free);

#endif
