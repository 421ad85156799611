#include "common/parallel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { COUNT = 1000 };

static atomic_int calls[COUNT];

static bool
count_call(void *context, size_t index, CairnError *err)
{
    (void)context;
    (void)err;
    atomic_fetch_add(&calls[index], 1);
    return true;
}

static void
test_each_is_called_once_whatever_the_number_of_threads(void **state)
{
    (void)state;
    static const size_t counts[] = {0, 1, 2, 7, COUNT};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        for (int jobs = 0; jobs <= 2 * PARALLEL_JOBS_LIMIT; jobs += 4) {
            CairnError err = {0};
            memset(calls, 0, sizeof calls);
            assert_true(parallel_each(counts[i], jobs, count_call, NULL, &err));
            for (size_t index = 0; index < COUNT; index++)
                assert_int_equal(calls[index], index < counts[i]);
        }
    }
}

static bool
fail_from_500_on(void *context, size_t index, CairnError *err)
{
    atomic_int *begun = context;
    atomic_fetch_add(begun, 1);
    return index < 500 || cairn_error(err, CAIRN_IO, "number %zu fails", index);
}

static void
test_the_first_failure_is_reported_and_ends_it(void **state)
{
    (void)state;
    for (int jobs = 1; jobs <= 8; jobs++) {
        CairnError err = {0};
        atomic_int begun = 0;
        assert_false(parallel_each(COUNT, jobs, fail_from_500_on, &begun, &err));
        assert_int_equal(err.kind, CAIRN_IO);
        assert_string_equal(err.message, "number 500 fails");
        assert_true(begun <= 500 + jobs);
    }
}

/* All of them wait for each other, which one thread could not. */
static bool
meet(void *context, size_t index, CairnError *err)
{
    (void)index;
    (void)err;
    pthread_barrier_wait(context);
    return true;
}

static void
test_several_go_on_at_the_same_time(void **state)
{
    (void)state;
    CairnError err = {0};
    pthread_barrier_t barrier;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, 4), 0);
    assert_true(parallel_each(8, 4, meet, &barrier, &err));
    pthread_barrier_destroy(&barrier);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_is_called_once_whatever_the_number_of_threads),
        cmocka_unit_test(test_the_first_failure_is_reported_and_ends_it),
        cmocka_unit_test(test_several_go_on_at_the_same_time),
    };
    return cmocka_run_group_tests_name("parallel", tests, NULL, NULL);
}
