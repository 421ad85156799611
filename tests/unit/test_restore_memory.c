#include "restore/restore_memory.h"

#include "restore/pack_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

enum { MIB = 1 << 20 };

static RestoreMemory
planned(uint64_t max_memory_bytes, int jobs)
{
    RestoreMemory memory = {0};
    CairnError err = {0};
    assert_true(restore_memory_plan(max_memory_bytes, 0, jobs, &memory, &err));
    return memory;
}

static uint64_t
taken(RestoreMemory memory)
{
    return RESTORE_FIXED_MEMORY + (uint64_t)memory.jobs * RESTORE_WORKER_MEMORY +
           ((uint64_t)memory.jobs + 1) * RESTORE_PACK_MEMORY + memory.cache_bytes;
}

static void
test_without_a_limit_all_threads_run(void **state)
{
    (void)state;
    assert_int_equal(planned(0, 2).jobs, 2);
    assert_int_equal(planned(0, 2).cache_bytes, 32 * MIB);
    assert_int_equal(planned(0, 40).jobs, 40);
    assert_int_equal(planned(0, 40).cache_bytes, 8 * MIB);
}

static void
test_no_plan_takes_more_than_is_allowed(void **state)
{
    (void)state;
    for (uint64_t size = 26; size <= 1024; size++) {
        for (int jobs = 1; jobs < READERS_LIMIT; jobs += 3) {
            const RestoreMemory memory = planned(size * MIB, jobs);
            assert_true(memory.jobs >= 1 && memory.jobs <= jobs);
            assert_true(taken(memory) <= size * MIB);
        }
    }
}

/* What the storage's driver holds comes out of the same sum. */
static void
test_the_storage_has_its_share(void **state)
{
    (void)state;
    enum { STORAGE = 10 * MIB };
    RestoreMemory memory = {0};
    CairnError err = {0};
    for (uint64_t size = 36; size <= 256; size++) {
        for (int jobs = 1; jobs < READERS_LIMIT; jobs += 7) {
            assert_true(restore_memory_plan(size * MIB, STORAGE, jobs, &memory, &err));
            assert_true(taken(memory) + STORAGE <= size * MIB);
        }
    }
    assert_false(restore_memory_plan(36 * (uint64_t)MIB - 1, STORAGE, 1, &memory, &err));
    assert_non_null(strstr(err.hint, "--max-memory=36MiB"));
}

static void
test_open_packs_are_given_up_before_threads(void **state)
{
    (void)state;
    const RestoreMemory memory = planned(34 * (uint64_t)MIB, 2);
    assert_int_equal(memory.jobs, 2);
    assert_int_equal(memory.cache_bytes, 2 * MIB);
    assert_int_equal(planned(31 * (uint64_t)MIB, 2).jobs, 1);
}

static void
test_too_little_is_refused_with_the_least(void **state)
{
    RestoreMemory memory;
    CairnError err = {0};
    (void)state;
    assert_false(restore_memory_plan(26 * (uint64_t)MIB - 1, 0, 2, &memory, &err));
    assert_int_equal(err.kind, CAIRN_USAGE);
    assert_non_null(strstr(err.hint, "--max-memory=26MiB"));
    assert_int_equal(planned(26 * (uint64_t)MIB, 2).jobs, 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_limit_all_threads_run),
        cmocka_unit_test(test_no_plan_takes_more_than_is_allowed),
        cmocka_unit_test(test_the_storage_has_its_share),
        cmocka_unit_test(test_open_packs_are_given_up_before_threads),
        cmocka_unit_test(test_too_little_is_refused_with_the_least),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
