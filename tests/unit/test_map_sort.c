#include "repository/map_sort.h"

#include "tests/unit/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static const char *scratch;

static void
test_the_sorter_spills_and_merges(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    static const size_t memories[] = {4096, 100000, MAP_SORT_MEMORY};
    for (size_t m = 0; m < 3; m++) {
        CairnError err = {0};
        SCOPED(MapSort) sort = map_sort_new(world_real(), scratch, memories[m], &err);
        assert_non_null(sort);
        for (uint32_t i = 0; i < COUNT; i++) {
            char key[16], payload[1500];
            const uint32_t number = i * 7919 % COUNT;
            const int size = snprintf(key, sizeof key, "%06u", number);
            memset(payload, (int)(number & 0xff), sizeof payload);
            assert_true(map_sort_add(sort, key, (size_t)size, payload,
                                     number % 200 == 0 ? 1500 : number % 7, &err));
        }
        for (uint32_t i = 0; i <= COUNT; i++) {
            const uint8_t *key, *payload;
            size_t key_size, payload_size;
            bool found;
            char expected[16];
            assert_true(
                map_sort_next(sort, &key, &key_size, &payload, &payload_size, &found, &err));
            assert_int_equal(found, i < COUNT);
            if (!found)
                break;
            snprintf(expected, sizeof expected, "%06u", i);
            assert_int_equal(key_size, 6);
            assert_memory_equal(key, expected, 6);
            assert_int_equal(payload_size, i % 200 == 0 ? 1500 : i % 7);
            for (size_t k = 0; k < payload_size; k++)
                assert_true(payload[k] == (uint8_t)i);
        }
    }
}

static void
test_a_key_added_twice_is_refused_wherever_it_is(void **state)
{
    (void)state;
    for (unsigned distance = 0; distance < 2000; distance += 500) {
        CairnError err = {0};
        SCOPED(MapSort) sort = map_sort_new(world_real(), scratch, 4096, &err);
        assert_non_null(sort);
        assert_true(map_sort_add(sort, "\0twice", 6, "", 0, &err));
        for (unsigned i = 0; i < distance; i++) {
            char key[16];
            const int size = snprintf(key, sizeof key, "%06u", i);
            assert_true(map_sort_add(sort, key, (size_t)size, "", 0, &err));
        }
        assert_true(map_sort_add(sort, "\0twice", 6, "", 0, &err));
        const uint8_t *key, *payload;
        size_t key_size, payload_size;
        bool found = true, sorted = true;
        while (sorted && found)
            sorted = map_sort_next(sort, &key, &key_size, &payload, &payload_size, &found, &err);
        assert_false(sorted);
        assert_int_equal(err.kind, CAIRN_CORRUPT);
        assert_non_null(strstr(err.message, "twice"));
    }
}

static int
set_up(void **state)
{
    (void)state;
    scratch = scratch_directory();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_sorter_spills_and_merges),
        cmocka_unit_test(test_a_key_added_twice_is_refused_wherever_it_is),
    };
    return cmocka_run_group_tests_name("map_sort", tests, set_up, NULL);
}
