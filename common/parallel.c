#include "common/parallel.h"

#include <pthread.h>

typedef struct {
    ParallelEach *each;
    void *context;
    size_t count;
    pthread_mutex_t mutex; /* of the rest */
    size_t next;
    bool failed;
    size_t failed_index;
    CairnError failure;
} Parallel;

static bool
take_index(Parallel *parallel, size_t *index_out)
{
    pthread_mutex_lock(&parallel->mutex);
    const bool there = !parallel->failed && parallel->next < parallel->count;
    if (there)
        *index_out = parallel->next++;
    pthread_mutex_unlock(&parallel->mutex);
    return there;
}

/* What was begun before it may fail after it. */
static void
note_failure(Parallel *parallel, size_t index, const CairnError *err)
{
    pthread_mutex_lock(&parallel->mutex);
    if (!parallel->failed || index < parallel->failed_index) {
        parallel->failed = true;
        parallel->failed_index = index;
        parallel->failure = *err;
    }
    pthread_mutex_unlock(&parallel->mutex);
}

static void *
work(void *argument)
{
    Parallel *parallel = argument;
    CairnError err = {0};
    size_t index;
    while (take_index(parallel, &index)) {
        if (!parallel->each(parallel->context, index, &err)) {
            note_failure(parallel, index, &err);
            return NULL;
        }
    }
    return NULL;
}

bool
parallel_each(size_t count, int jobs, ParallelEach *each, void *context, CairnError *err)
{
    Parallel parallel = {.each = each, .context = context, .count = count};
    pthread_t threads[PARALLEL_JOBS_LIMIT];
    int started = 0;

    if ((size_t)jobs > count)
        jobs = (int)count;
    if (jobs > PARALLEL_JOBS_LIMIT)
        jobs = PARALLEL_JOBS_LIMIT;
    pthread_mutex_init(&parallel.mutex, NULL);
    /* The caller is one of them; where no more can be started, it is slower, no more. */
    while (started + 1 < jobs && pthread_create(&threads[started], NULL, work, &parallel) == 0)
        started++;
    work(&parallel);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&parallel.mutex);
    if (parallel.failed)
        *err = parallel.failure;
    return !parallel.failed;
}
