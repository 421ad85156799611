/* Runs of stored WAL, and what proves that something is missing between them. */
#include "repository/wal_store.h"
#include "tests/unit/support/wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20 };

#define SEGMENT_5 "000000010000000000000005"

static void
test_coverage_is_runs_with_holes_between(void **state)
{
    static const uint64_t stored[] = {5, 6, 7, 9, 4095, 4096, 4097, 9000};
    static const uint64_t expected[][2] = {{5, 7}, {9, 9}, {4095, 4097}, {9000, 9000}};
    WalFixture *fixture = *state;
    CairnError err = {0};
    WalRun *runs = NULL;
    size_t count = 0;
    size_t used;
    uint8_t *partial = wal_fixture_short_segment(fixture, 1, 8, false, &used);

    for (size_t i = 0; i < sizeof stored / sizeof stored[0]; i++)
        wal_fixture_store_segment(fixture, 1, stored[i]);
    wal_fixture_store_segment(fixture, 2, 8);
    wal_fixture_store(fixture, "000000010000000000000008.partial", partial, MIB);
    free(partial);

    assert_true(wal_store_coverage(fixture->store, 1, &runs, &count, &err));
    assert_int_equal(count, 4);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(runs[i].first_segment, expected[i][0]);
        assert_int_equal(runs[i].last_segment, expected[i][1]);
        assert_true(runs[i].stored_bytes > 0);
    }
    free(runs);
    assert_true(wal_store_coverage(fixture->store, 3, &runs, &count, &err));
    assert_int_equal(count, 0);
    free(runs);
}

static bool
successor_of(WalFixture *fixture, const char *name)
{
    CairnError err = {0};
    WalSuccessor successor = {0};
    const bool done = wal_store_successor(fixture->store, name, &successor, &err);

    if (!done)
        print_message("%s: %s\n", name, err.message);
    assert_true(done);
    assert_true(successor.found == (successor.name[0] != '\0'));
    return successor.found;
}

static void
test_a_segment_is_a_hole_only_when_something_later_is_stored(void **state)
{
    WalFixture *fixture = *state;
    size_t used;
    uint8_t *partial = wal_fixture_short_segment(fixture, 1, 5000, false, &used);

    assert_false(successor_of(fixture, SEGMENT_5));
    wal_fixture_store_segment(fixture, 1, 4);
    assert_false(successor_of(fixture, SEGMENT_5));
    wal_fixture_store_segment(fixture, 2, 9); /* another timeline, of which nothing is known */
    assert_false(successor_of(fixture, SEGMENT_5));
    wal_fixture_store_segment(fixture, 1, 6);
    assert_true(successor_of(fixture, SEGMENT_5));
    assert_false(successor_of(fixture, "000000010000000000000007"));
    wal_fixture_store(fixture, "000000010000000100000388.partial", partial, MIB);
    assert_true(successor_of(fixture, "000000010000000000000007"));
    assert_false(successor_of(fixture, "000000010000000100000388"));
    free(partial);
}

static void
test_a_timeline_that_forked_later_proves_a_hole(void **state)
{
    /* Timeline 3 left 2 in segment 9, and 2 left 1 in segment 7. */
    static const char history[] = "1\t0/700100\tx\n2\t0/900100\tx\n";
    WalFixture *fixture = *state;

    wal_fixture_store(fixture, "00000003.history", history, strlen(history));
    assert_true(successor_of(fixture, "000000010000000000000006"));
    assert_false(successor_of(fixture, "000000010000000000000007")); /* the fork's own */
    assert_false(successor_of(fixture, "000000010000000000000008"));
    assert_true(successor_of(fixture, "000000020000000000000008"));
    assert_false(successor_of(fixture, "000000020000000000000009"));
    assert_false(successor_of(fixture, "000000030000000000000009"));
}

static void
test_a_history_file_is_a_hole_only_when_its_timeline_left_traces(void **state)
{
    static const char history[] = "1\t0/700100\tx\n2\t0/900100\tx\n";
    WalFixture *fixture = *state;

    assert_false(successor_of(fixture, "00000002.history"));
    wal_fixture_store_segment(fixture, 1, 4);
    assert_false(successor_of(fixture, "00000002.history"));
    wal_fixture_store_segment(fixture, 5, 8);
    assert_false(successor_of(fixture, "00000002.history"));
    assert_true(successor_of(fixture, "00000005.history"));
    wal_fixture_store(fixture, "00000003.history", history, strlen(history));
    assert_true(successor_of(fixture, "00000002.history"));
    assert_false(successor_of(fixture, "00000004.history"));
    assert_false(successor_of(fixture, "00000001.history"));
}

static void
test_the_oldest_timeline_needs_no_history(void **state)
{
    wal_fixture_store_segment(*state, 5, 8);
    assert_false(successor_of(*state, "00000005.history"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WAL_FIXTURE_TEST(test_coverage_is_runs_with_holes_between),
        WAL_FIXTURE_TEST(test_a_segment_is_a_hole_only_when_something_later_is_stored),
        WAL_FIXTURE_TEST(test_a_timeline_that_forked_later_proves_a_hole),
        WAL_FIXTURE_TEST(test_a_history_file_is_a_hole_only_when_its_timeline_left_traces),
        WAL_FIXTURE_TEST(test_the_oldest_timeline_needs_no_history),
    };
    return cmocka_run_group_tests_name("wal_holes", tests, NULL, NULL);
}
