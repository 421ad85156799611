#include "common/memory_plan.h"

#include "repository/verify_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

enum { MIB = 1 << 20 };

static const MemoryNeeds NEEDS = {.purpose = "think",
                                  .fixed_bytes = 10 * MIB,
                                  .worker_bytes = 5 * MIB,
                                  .usual_bytes = 30 * MIB,
                                  .cache_wanted_bytes = 3 * MIB,
                                  .cache_limit_bytes = 8 * MIB};

typedef struct {
    int jobs;
    size_t cache_bytes;
} Planned;

static Planned
planned(uint64_t max_mib, int jobs)
{
    Planned plan = {0};
    CairnError err = {0};
    assert_true(memory_plan(&NEEDS, max_mib * MIB, jobs, &plan.jobs, &plan.cache_bytes, &err));
    return plan;
}

static void
test_without_a_limit_all_workers_run_and_the_cache_is_of_use(void **state)
{
    (void)state;
    assert_true(planned(0, 2).jobs == 2 && planned(0, 2).cache_bytes == 8 * MIB);
    assert_true(planned(0, 40).jobs == 40 && planned(0, 40).cache_bytes == 3 * MIB);
}

static void
test_with_one_no_plan_takes_more_and_workers_come_before_the_cache(void **state)
{
    (void)state;
    for (uint64_t size = 15; size <= 200; size++) {
        for (int jobs = 1; jobs <= 30; jobs++) {
            const Planned plan = planned(size, jobs);
            const uint64_t taken = (10 + 5 * (uint64_t)plan.jobs) * MIB + plan.cache_bytes;
            assert_true(plan.jobs >= 1 && plan.jobs <= jobs && taken <= size * MIB);
            assert_true(plan.jobs == jobs || plan.cache_bytes < 5 * MIB);
        }
    }
}

static void
test_too_little_is_refused_with_the_least(void **state)
{
    CairnError err = {0};
    int jobs;
    size_t cache_bytes;
    (void)state;
    assert_false(memory_plan(&NEEDS, 15 * MIB - 1, 2, &jobs, &cache_bytes, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    assert_non_null(strstr(err.message, "too little to think"));
    assert_non_null(strstr(err.hint, "--max-memory=15MiB"));
}

/* Who limits the memory of backup and restore in the configuration can verify with it. */
static void
test_verify_is_content_with_what_restore_is(void **state)
{
    VerifyMemory memory;
    CairnError err = {0};
    (void)state;
    assert_true(verify_memory_plan(26 * (uint64_t)MIB, 0, 2, &memory, &err));
    assert_int_equal(memory.jobs, 1);
    assert_true(verify_memory_plan(0, 6 * MIB, 2, &memory, &err));
    assert_true(memory.jobs == 2 && memory.node_bytes >= 16 * MIB);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_limit_all_workers_run_and_the_cache_is_of_use),
        cmocka_unit_test(test_with_one_no_plan_takes_more_and_workers_come_before_the_cache),
        cmocka_unit_test(test_too_little_is_refused_with_the_least),
        cmocka_unit_test(test_verify_is_content_with_what_restore_is),
    };
    return cmocka_run_group_tests_name("memory_plan", tests, NULL, NULL);
}
