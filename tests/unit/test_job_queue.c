#include "restore/job_queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

static const char PLACES[3];

/* A job of a place that holds nothing, or so many runs. */
static FileJob *
job_at(const void *place, uint32_t runs)
{
    FileJob *job = file_job_new(NULL, 0, runs);
    job->place = place;
    job->run_count = runs;
    return job;
}

static void
push(JobQueue *queue, const void *place)
{
    assert_true(job_queue_push(queue, job_at(place, 0)));
}

/* Where the next job for the thread lies. */
static const void *
pop(JobQueue *queue, int thread)
{
    FileJob *job = job_queue_pop(queue, thread);
    if (job == NULL)
        return NULL;
    const void *place = job->place;
    file_job_free(job);
    return place;
}

static void
test_a_thread_stays_where_it_is_and_keeps_off_others(void **state)
{
    CairnError err = {0};
    SCOPED(JobQueue) queue = job_queue_new(&err);
    (void)state;
    push(queue, &PLACES[0]);
    push(queue, &PLACES[0]);
    push(queue, &PLACES[0]);
    push(queue, &PLACES[1]);
    push(queue, &PLACES[1]);

    assert_ptr_equal(pop(queue, 0), &PLACES[0]);
    assert_ptr_equal(pop(queue, 1), &PLACES[1]);
    assert_ptr_equal(pop(queue, 0), &PLACES[0]);
    assert_ptr_equal(pop(queue, 1), &PLACES[1]);
    /* Nothing else is left: helping is better than waiting. */
    assert_ptr_equal(pop(queue, 1), &PLACES[0]);
    push(queue, &PLACES[2]);
    job_queue_close(queue);
    assert_ptr_equal(pop(queue, 0), &PLACES[2]);
    assert_null(pop(queue, 0));
    assert_null(pop(queue, 1));
}

static void
test_of_places_nobody_writes_to_the_oldest_job_is_taken(void **state)
{
    CairnError err = {0};
    SCOPED(JobQueue) queue = job_queue_new(&err);
    (void)state;
    push(queue, &PLACES[2]);
    push(queue, &PLACES[0]);
    push(queue, &PLACES[1]);
    assert_ptr_equal(pop(queue, 5), &PLACES[2]);
    assert_ptr_equal(pop(queue, 5), &PLACES[0]);
    push(queue, &PLACES[2]);
    assert_ptr_equal(pop(queue, 5), &PLACES[1]);
    assert_ptr_equal(pop(queue, 5), &PLACES[2]);
}

/* Pushes until the queue is cancelled, counting. */
static void *
fill(void *argument)
{
    JobQueue *queue = argument;
    uintptr_t pushed = 0;
    for (;;) {
        FileJob *job = job_at(&PLACES[0], JOB_UNITS);
        if (!job_queue_push(queue, job)) {
            file_job_free(job);
            return (void *)pushed;
        }
        pushed++;
    }
}

static void
test_what_waits_is_bounded_in_bytes(void **state)
{
    enum { TAKEN = 40 };
    CairnError err = {0};
    SCOPED(JobQueue) queue = job_queue_new(&err);
    pthread_t thread;
    void *pushed;
    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, fill, queue), 0);
    for (int i = 0; i < TAKEN; i++)
        assert_ptr_equal(pop(queue, 0), &PLACES[0]);
    job_queue_cancel(queue);
    assert_int_equal(pthread_join(thread, &pushed), 0);
    assert_true((uintptr_t)pushed >= TAKEN);
    assert_true((uintptr_t)pushed <= TAKEN + QUEUE_BYTES / (JOB_UNITS * sizeof(SlotRun)));
    assert_null(pop(queue, 0));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_thread_stays_where_it_is_and_keeps_off_others),
        cmocka_unit_test(test_of_places_nobody_writes_to_the_oldest_job_is_taken),
        cmocka_unit_test(test_what_waits_is_bounded_in_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
