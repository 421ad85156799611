#include "restore/job_queue.h"

#include <pthread.h>
#include <stdlib.h>

struct JobQueue {
    pthread_mutex_t lock;
    pthread_cond_t not_full;
    pthread_cond_t not_empty;
    FileJob *first;
    FileJob **end; /* where the next one is hung */
    size_t count;
    size_t bytes;
    bool closed;
    bool cancelled;
    const void *places[READERS_LIMIT]; /* where each thread writes */
};

JobQueue *
job_queue_new(CairnError *err)
{
    JobQueue *queue = calloc(1, sizeof *queue);
    if (queue == NULL) {
        cairn_error(err, CAIRN_INTERNAL, "out of memory");
        return NULL;
    }
    CAIRN_ASSERT(pthread_mutex_init(&queue->lock, NULL) == 0);
    CAIRN_ASSERT(pthread_cond_init(&queue->not_full, NULL) == 0);
    CAIRN_ASSERT(pthread_cond_init(&queue->not_empty, NULL) == 0);
    queue->end = &queue->first;
    return queue;
}

void
job_queue_free(JobQueue *queue)
{
    if (queue == NULL)
        return;
    while (queue->first != NULL) {
        FileJob *job = queue->first;
        queue->first = job->next;
        file_job_free(job);
    }
    pthread_cond_destroy(&queue->not_empty);
    pthread_cond_destroy(&queue->not_full);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

static bool
is_full(const JobQueue *queue, size_t more_bytes)
{
    return queue->count == QUEUE_JOBS ||
           (queue->count > 0 && queue->bytes + more_bytes > QUEUE_BYTES);
}

bool
job_queue_push(JobQueue *queue, FileJob *job)
{
    const size_t bytes = file_job_memory_bytes(job);
    pthread_mutex_lock(&queue->lock);
    while (is_full(queue, bytes) && !queue->cancelled)
        pthread_cond_wait(&queue->not_full, &queue->lock);
    const bool taken = !queue->cancelled;
    if (taken) {
        job->next = NULL;
        *queue->end = job;
        queue->end = &job->next;
        queue->count++;
        queue->bytes += bytes;
        pthread_cond_signal(&queue->not_empty);
    }
    pthread_mutex_unlock(&queue->lock);
    return taken;
}

static bool
somebody_writes_to(const JobQueue *queue, const void *place)
{
    for (int thread = 0; thread < READERS_LIMIT; thread++) {
        if (queue->places[thread] == place)
            return true;
    }
    return false;
}

/* The link that leads to the job for a thread that wrote to `place`. */
static FileJob **
choose(JobQueue *queue, const void *place)
{
    FileJob **elsewhere = NULL;
    for (FileJob **link = &queue->first; *link != NULL; link = &(*link)->next) {
        if ((*link)->place == place)
            return link;
        if (elsewhere == NULL && !somebody_writes_to(queue, (*link)->place))
            elsewhere = link;
    }
    return elsewhere != NULL ? elsewhere : &queue->first;
}

FileJob *
job_queue_pop(JobQueue *queue, int thread)
{
    FileJob *job = NULL;
    pthread_mutex_lock(&queue->lock);
    while (queue->count == 0 && !queue->closed && !queue->cancelled)
        pthread_cond_wait(&queue->not_empty, &queue->lock);
    if (queue->count > 0 && !queue->cancelled) {
        FileJob **link = choose(queue, queue->places[thread]);
        job = *link;
        *link = job->next;
        if (queue->end == &job->next)
            queue->end = link;
        queue->count--;
        queue->bytes -= file_job_memory_bytes(job);
        pthread_cond_signal(&queue->not_full);
    }
    queue->places[thread] = job == NULL ? NULL : job->place;
    pthread_mutex_unlock(&queue->lock);
    return job;
}

static void
stop(JobQueue *queue, bool *flag)
{
    pthread_mutex_lock(&queue->lock);
    *flag = true;
    pthread_cond_broadcast(&queue->not_full);
    pthread_cond_broadcast(&queue->not_empty);
    pthread_mutex_unlock(&queue->lock);
}

void
job_queue_close(JobQueue *queue)
{
    stop(queue, &queue->closed);
}

void
job_queue_cancel(JobQueue *queue)
{
    stop(queue, &queue->cancelled);
}
