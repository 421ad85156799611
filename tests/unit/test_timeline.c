#include "postgres/timeline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static TimelineHistory history;

static bool
parse(uint32_t timeline, const char *text, CairnError *err)
{
    return timeline_history_parse(timeline, text, strlen(text), &history, err);
}

static void
assert_stretch(size_t index, uint32_t timeline, uint64_t start_lsn, uint64_t end_lsn)
{
    assert_true(index < history.stretch_count);
    assert_int_equal(history.stretches[index].timeline, timeline);
    assert_int_equal(history.stretches[index].start_lsn, start_lsn);
    assert_int_equal(history.stretches[index].end_lsn, end_lsn);
}

static void
test_timeline_1_has_one_endless_stretch(void **state)
{
    (void)state;
    timeline_history_root(1, &history);
    assert_int_equal(history.timeline, 1);
    assert_int_equal(history.stretch_count, 1);
    assert_stretch(0, 1, 0, UINT64_MAX);
    assert_int_equal(timeline_history_at(&history, 0), 1);
    assert_int_equal(timeline_history_at(&history, UINT64_MAX), 1);
}

static void
test_a_file_as_postgresql_writes_it_is_read(void **state)
{
    CairnError err = {0};

    (void)state;
    assert_true(parse(5,
                      "1\t0/2CAEE40\tno recovery target specified\n"
                      "\n"
                      "3\t1/A0\tbefore 2024-01-01 00:00:00+00\n"
                      "\n"
                      "4\t1/A0\tat restore point \"x\"\n",
                      &err));
    assert_int_equal(history.stretch_count, 4);
    assert_stretch(0, 1, 0, 0x2CAEE40);
    assert_stretch(1, 3, 0x2CAEE40, UINT64_C(0x1000000A0));
    assert_stretch(2, 4, UINT64_C(0x1000000A0), UINT64_C(0x1000000A0));
    assert_stretch(3, 5, UINT64_C(0x1000000A0), UINT64_MAX);
}

static void
test_comments_spaces_and_newer_lsn_texts_are_read(void **state)
{
    CairnError err = {0};

    (void)state;
    assert_true(parse(2, "# by hand\r\n   \n \t# more\n  1   0/02CAEE40\r\n", &err));
    assert_stretch(0, 1, 0, 0x2CAEE40);
    assert_true(parse(2, "1\t0/2CAEE40\treason without newline", &err));
    assert_stretch(1, 2, 0x2CAEE40, UINT64_MAX);
}

static void
test_an_lsn_belongs_to_the_timeline_that_wrote_it(void **state)
{
    CairnError err = {0};

    (void)state;
    assert_true(parse(4, "1\t0/1000\tx\n2\t0/2000\tx\n3\t0/2000\tx\n", &err));
    assert_int_equal(timeline_history_at(&history, 0), 1);
    assert_int_equal(timeline_history_at(&history, 0xFFF), 1);
    assert_int_equal(timeline_history_at(&history, 0x1000), 2);
    assert_int_equal(timeline_history_at(&history, 0x1FFF), 2);
    assert_int_equal(timeline_history_at(&history, 0x2000), 4);
    assert_int_equal(timeline_history_at(&history, UINT64_MAX), 4);
}

static void
test_a_path_contains_its_stretches_with_their_ends(void **state)
{
    CairnError err = {0};

    (void)state;
    assert_true(parse(4, "1\t0/1000\tx\n2\t0/2000\tx\n", &err));
    assert_true(timeline_history_contains(&history, 1, 0x1000));
    assert_false(timeline_history_contains(&history, 1, 0x1001));
    assert_false(timeline_history_contains(&history, 2, 0xFFF));
    assert_true(timeline_history_contains(&history, 2, 0x1000));
    assert_true(timeline_history_contains(&history, 2, 0x2000));
    assert_false(timeline_history_contains(&history, 3, 0x2000));
    assert_true(timeline_history_contains(&history, 4, 0x2000));
    assert_true(timeline_history_contains(&history, 4, UINT64_MAX));
    assert_false(timeline_history_contains(&history, 4, 0x1FFF));
}

static void
test_damaged_histories_are_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "\n\n# nothing\n",
        "1\n",
        "1\t\n",
        "1\t0\treason\n",
        "1\t0/2CAEE40", /* may be cut off */
        "1\t0/2CAEE40x\treason\n",
        "1\t0/G\treason\n",
        "1\t0/000000001\treason\n",
        "1 0/10000000000000000000000000000000000\n",
        "0\t0/1000\treason\n",
        "-1\t0/1000\treason\n",
        "x\t0/1000\treason\n",
        "10/1000\treason\n",
        "4294967297\t0/1000\treason\n",
        "9\t0/1000\tits own number\n",
        "10\t0/1000\ta child\n",
        "2\t0/1000\tx\n1\t0/2000\tx\n",
        "2\t0/1000\tx\n2\t0/2000\tx\n",
        "1\t0/2000\tx\n2\t0/1000\tx\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        CairnError err = {0};
        if (parse(9, texts[i], &err))
            fail_msg("accepted: %s", texts[i]);
        assert_int_equal(err.kind, CAIRN_CORRUPT);
        assert_non_null(strstr(err.message, "history of timeline 9"));
    }
    CairnError err = {0};
    assert_false(timeline_history_parse(9,
                                        "1\t0/10\0"
                                        "00\tx\n",
                                        13, &history, &err));
}

static void
test_sizes_are_bounded(void **state)
{
    const size_t size = TIMELINE_HISTORY_FILE_LIMIT + 1;
    char *text = malloc(size);
    size_t used = 0;

    (void)state;
    assert_non_null(text);
    for (unsigned i = 1; i < TIMELINE_HISTORY_LIMIT; i++)
        used += (size_t)snprintf(text + used, size - used, "%u\t0/%X\tx\n", i, i);
    {
        CairnError err = {0};
        assert_true(timeline_history_parse(5000, text, used, &history, &err));
        assert_int_equal(history.stretch_count, TIMELINE_HISTORY_LIMIT);
    }
    used += (size_t)snprintf(text + used, size - used, "4000\t1/0\tx\n");
    {
        CairnError err = {0};
        assert_false(timeline_history_parse(5000, text, used, &history, &err));
        assert_int_equal(err.kind, CAIRN_CORRUPT);
    }
    memset(text, '\n', size);
    memcpy(text, "1\t0/10\tx", 8);
    CairnError err = {0};
    assert_true(timeline_history_parse(2, text, size - 1, &history, &err));
    assert_false(timeline_history_parse(2, text, size, &history, &err));
    free(text);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timeline_1_has_one_endless_stretch),
        cmocka_unit_test(test_a_file_as_postgresql_writes_it_is_read),
        cmocka_unit_test(test_comments_spaces_and_newer_lsn_texts_are_read),
        cmocka_unit_test(test_an_lsn_belongs_to_the_timeline_that_wrote_it),
        cmocka_unit_test(test_a_path_contains_its_stretches_with_their_ends),
        cmocka_unit_test(test_damaged_histories_are_refused),
        cmocka_unit_test(test_sizes_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
